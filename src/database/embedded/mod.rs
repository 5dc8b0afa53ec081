//! A private PostgreSQL for those who have set no `DATABASE_URL`: durable like any other, reachable by its owner only, and never
//! outliving the gateway.
//!
//! In reading order: `find` the programs of the machine, `account` they run under, `cluster` the data directory,
//! `supervisor` the process that starts and stops the server.
//!
//! Two locked files in the data directory say who lives. `gateway.lock` is held by the gateway that owns the directory,
//! `server.lock` by everything that may write to the cluster: initdb, the supervising shell, each process of PostgreSQL inherit
//! it. Whoever holds the second knows that none of them is left, so what they left lying about can be removed, and no
//! process need ever be killed by a number found in a file.

mod account;
mod cluster;
mod find;
mod supervisor;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::store;
use cluster::Directory;
use find::Programs;
use supervisor::Server;

/// The one superuser of the cluster, and the gateway's database in it.
const NAME: &str = "gateway";
/// Only part of the socket's name: the server listens on no network.
const PORT: u16 = 5432;
/// As long as a recovery after a crash may take.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// A private PostgreSQL in a data directory, stopped when this value is dropped or the process ends in any way.
#[derive(Debug)]
pub struct Embedded {
    options: PgConnectOptions,
    pid_file: PathBuf,
    /// None: another process owns the server.
    server: Option<Server>,
}

impl Embedded {
    /// Starts the server of that data directory, which is made when it is missing, and owns it.
    pub async fn start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        Self::start_with(data_dir, &[]).await
    }

    /// Like [`Self::start`], with server settings of one's own, which win over the defaults.
    pub async fn start_with(
        data_dir: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Self, EmbeddedError> {
        let path = data_dir.to_owned();
        let settings = settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let embedded = tokio::task::spawn_blocking(move || Self::launch(&path, settings)).await??;
        match tokio::time::timeout(READY_TIMEOUT, embedded.ready()).await {
            Ok(ready) => ready.map(|()| embedded),
            Err(_) => Err(EmbeddedError::TooSlow {
                directory: data_dir.to_owned(),
            }),
        }
    }

    /// Uses the running server of that data directory, or else starts it and owns it.
    pub async fn join_or_start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let attempts = async {
            loop {
                match Self::start(data_dir).await {
                    Err(EmbeddedError::InUse { .. }) => {}
                    ended => return ended,
                }
                if let Some(joined) = Self::join(data_dir).await? {
                    return Ok(joined);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let too_slow = |_| EmbeddedError::TooSlow {
            directory: data_dir.to_owned(),
        };
        tokio::time::timeout(READY_TIMEOUT, attempts)
            .await
            .map_err(too_slow)?
    }

    /// How to connect: through the unix socket, to the database `gateway`.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Whether another process owns the server.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.server.is_none()
    }

    /// The process id that PostgreSQL wrote down; for tests, since it may be out of date by the time it is used.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        cluster::read_pid(&self.pid_file)
    }

    /// Stops the server and waits until it has ended; a joined one is left alone.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        match self.server {
            Some(server) => tokio::task::spawn_blocking(move || server.stop()).await?,
            None => Ok(()),
        }
    }

    fn launch(path: &Path, settings: Vec<String>) -> Result<Self, EmbeddedError> {
        let directory = Directory::prepare(path)?;
        let owner = directory.lock_owner()?;
        let programs = Programs::find(&find::folders(), directory.version()?, directory.path())?;
        let lock = directory.wait_for_server_lock()?;
        if directory.version()?.is_none() {
            directory.make_cluster(&programs, &lock)?;
        }
        let socket = directory.make_socket_directory()?;
        let (options, pid_file) = (options(&socket), directory.pid_file());
        let server = Server::start(directory, owner, &programs, &socket, settings, lock)?;
        Ok(Self {
            options,
            pid_file,
            server: Some(server),
        })
    }

    async fn join(data_dir: &Path) -> Result<Option<Self>, EmbeddedError> {
        let directory = Directory::prepare(data_dir)?;
        let options = options(&directory.socket_directory());
        let joined = Self {
            options,
            pid_file: directory.pid_file(),
            server: None,
        };
        Ok(matches!(joined.probe().await?, Answer::Ready).then_some(joined))
    }

    /// Waits until the database can be used, and makes it the first time.
    async fn ready(&self) -> Result<(), EmbeddedError> {
        loop {
            match self.probe().await? {
                Answer::Ready => break,
                Answer::NoDatabase => self.create_database().await?,
                Answer::NotYet => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            if let Some(server) = &self.server {
                server.check()?;
            }
        }
        self.server.as_ref().map_or(Ok(()), Server::keep_running)
    }

    async fn probe(&self) -> Result<Answer, EmbeddedError> {
        let error = match self.options.connect().await {
            Ok(connection) => return Ok(close(connection).await.map(|()| Answer::Ready)?),
            Err(error) => error,
        };
        let code = error
            .as_database_error()
            .and_then(|e| e.code().map(String::from));
        match (code.as_deref(), &error) {
            (Some("3D000"), _) => Ok(Answer::NoDatabase),
            // 57P03: starting up, recovering or shutting down.
            (Some("57P03"), _) | (None, sqlx::Error::Io(_)) => Ok(Answer::NotYet),
            _ => Err(error.into()),
        }
    }

    async fn create_database(&self) -> Result<(), EmbeddedError> {
        let mut connection = self.options.clone().database("postgres").connect().await?;
        store::create_gateway(&mut connection).await?;
        Ok(close(connection).await?)
    }
}

enum Answer {
    Ready,
    NoDatabase,
    NotYet,
}

fn options(socket_directory: &Path) -> PgConnectOptions {
    // What the environment says is overwritten, except for PGOPTIONS, which sqlx cannot unset.
    PgConnectOptions::new_without_pgpass()
        .socket(socket_directory)
        .port(PORT)
        .username(NAME)
        .database(NAME)
        .ssl_mode(PgSslMode::Disable)
}

async fn close(connection: PgConnection) -> Result<(), sqlx::Error> {
    connection.close().await
}

/// Why the private PostgreSQL could not be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There are no programs, or only too old ones.
    #[error(
        "no PostgreSQL {} or newer is installed{}: install it (Debian and Ubuntu: `apt-get install postgresql`, Fedora: \
         `dnf install postgresql-server`, macOS: `brew install postgresql`), or set DATABASE_URL",
        find::OLDEST,
        find::only(installed)
    )]
    NoPrograms {
        /// What there is.
        installed: Vec<u32>,
    },
    /// The data were written by a major version that is not installed.
    #[error(
        "the data in {} are those of PostgreSQL {version}, which is not installed{}: install PostgreSQL {version}, or set \
         GATEWAY_DATA_DIR to another directory, or DATABASE_URL",
        directory.display(),
        find::only(installed)
    )]
    OtherVersion {
        /// The data directory.
        directory: PathBuf,
        /// The major version of its cluster.
        version: u32,
        /// What there is.
        installed: Vec<u32>,
    },
    /// A living gateway owns the directory.
    #[error(
        "another gateway runs its database in {}: stop that one first, or set GATEWAY_DATA_DIR to another directory, or DATABASE_URL",
        directory.display()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// No gateway owns the directory, but a server that nobody supervises lives on in it.
    #[error(
        "a PostgreSQL without a gateway still runs in {0}: stop it (as its user: `pg_ctl stop -D {0}/cluster`), then start again",
        directory.display()
    )]
    StillRunning {
        /// The data directory.
        directory: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is neither empty nor a gateway's data directory: set GATEWAY_DATA_DIR to one that is", directory.display())]
    Foreign {
        /// The directory that was named.
        directory: PathBuf,
    },
    /// Root has to run the server as somebody else, who cannot get to the data.
    #[error(
        "PostgreSQL does not run as root, and the user it would run as (uid {uid}) cannot enter {}: set GATEWAY_DATA_DIR to a \
         directory that this user can reach (under /var/lib, say), start the gateway as another user, or set DATABASE_URL",
        closed.display()
    )]
    Unreachable {
        /// The first directory on the way that is closed.
        closed: PathBuf,
        /// The user.
        uid: u32,
    },
    /// Root finds nobody to run the server as.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`: start the gateway as another user, \
         or set DATABASE_URL"
    )]
    NoAccount,
    /// There is no place for the socket, whose path has a limit of about a hundred bytes.
    #[error("the path {} is too long for a socket: set TMPDIR to a shorter one", directory.display())]
    SocketPath {
        /// The directory that the socket would be in.
        directory: PathBuf,
    },
    /// `initdb` failed.
    #[error("PostgreSQL's initdb failed ({status}): {output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// The server ended before it could be used.
    #[error("PostgreSQL did not start; the end of {}:\n{tail}", log.display())]
    NotStarted {
        /// The server's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server does not answer in time.
    #[error("PostgreSQL in {0} did not answer within 60 s: see {0}/postgres.log", directory.display())]
    TooSlow {
        /// The data directory.
        directory: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server answers, but with an error.
    #[error("cannot use the embedded PostgreSQL")]
    Database(#[from] sqlx::Error),
    /// The runtime ended meanwhile.
    #[error("the start or stop of PostgreSQL was cut off")]
    Cut(#[from] tokio::task::JoinError),
}

/// For `map_err`: what was tried, and on what.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.to_owned();
    move |source| EmbeddedError::Io {
        doing,
        path,
        source,
    }
}
