//! A private PostgreSQL for those who have set no `DATABASE_URL`: durable like any other, reachable by its owner only, and never
//! outliving the gateway.
//!
//! In reading order: `place` directories that are what they were when they were opened, `way` what leads to them, `account` the user
//! of the programs, `find` those on the machine, `cluster` the data directory, `supervisor` the process that starts and stops the
//! server.
//!
//! Two locked files in the data directory say who lives. `gateway.lock` is held by the gateway that owns the directory,
//! `server.lock` by everything that may write to the cluster: initdb, the supervising shell, each process of PostgreSQL inherit
//! it. Whoever holds the second knows that none of them is left, so what they left lying about can be removed, and no
//! process need ever be killed by a number found in a file.

mod account;
mod data_dir;
mod error;
mod folder;
mod programs;
mod safe_path;
mod supervisor;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::net::UnixStream;

use super::store;
use account::Account;
use data_dir::{DataDir, NAME, PORT};
pub use error::EmbeddedError;
use error::failed;
use folder::Folder;
use programs::Programs;
use supervisor::Server;

/// As long as a recovery after a crash may take.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// A private PostgreSQL in a data directory, stopped when this value is dropped or the process ends in any way.
#[derive(Debug)]
pub struct Embedded {
    socket: Arc<Folder>,
    account: Account,
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
        options(self.socket.path())
    }

    /// How this process connects, while this value lives: through the very directory that was looked at, whatever is at its place by then.
    #[must_use]
    pub fn private_options(&self) -> PgConnectOptions {
        options(&self.socket.path_by_descriptor())
    }

    /// Whether another process owns the server.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.server.is_none()
    }

    /// The process id that PostgreSQL wrote down; for tests, since it may be out of date by the time it is used.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        data_dir::read_pid(std::fs::File::open(&self.pid_file).ok()?)
    }

    /// Stops the server and waits until it has ended; a joined one is left alone.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        match self.server {
            Some(server) => tokio::task::spawn_blocking(move || server.stop()).await?,
            None => Ok(()),
        }
    }

    fn launch(path: &Path, settings: Vec<String>) -> Result<Self, EmbeddedError> {
        let directory = DataDir::prepare(path)?;
        let owner = directory.lock_owner()?;
        let account = directory.account();
        let (folders, version) = (programs::folders(account), directory.version()?);
        let programs = Programs::find(&folders, version, directory.path(), account)?;
        let lock = directory.wait_for_server_lock()?;
        if directory.version()?.is_none() {
            directory.make_cluster(&programs, &lock)?;
        }
        let socket = Arc::new(directory.make_socket_directory()?);
        let pid_file = directory.pid_file();
        let place = Arc::clone(&socket);
        let server = Server::start(directory, owner, &programs, place, settings, lock)?;
        Ok(Self {
            socket,
            account,
            pid_file,
            server: Some(server),
        })
    }

    async fn join(data_dir: &Path) -> Result<Option<Self>, EmbeddedError> {
        let path = data_dir.to_owned();
        let find = move || {
            let directory = DataDir::prepare(&path)?;
            Ok(directory
                .find_socket_directory()?
                .map(|socket| (directory, socket)))
        };
        let found: Result<_, EmbeddedError> = tokio::task::spawn_blocking(find).await?;
        let Some((directory, socket)) = found? else {
            return Ok(None);
        };
        let joined = Self {
            socket: Arc::new(socket),
            account: directory.account(),
            pid_file: directory.pid_file(),
            server: None,
        };
        Ok(matches!(joined.probe().await?, Answer::Ready).then_some(joined))
    }

    /// Waits until the database can be used, and makes it the first time.
    async fn ready(&self) -> Result<(), EmbeddedError> {
        loop {
            match self.probe().await? {
                Answer::Ready => {
                    let mut connection = self.private_options().connect().await?;
                    store::close_schema(&mut connection).await?;
                    close(connection).await?;
                    break;
                }
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
        if !self.is_served().await? {
            return Ok(Answer::NotYet);
        }
        let error = match self.private_options().connect().await {
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

    /// Whether a server listens; an error if it is not our user's.
    async fn is_served(&self) -> Result<bool, EmbeddedError> {
        let socket = self
            .socket
            .path_by_descriptor()
            .join(data_dir::socket_name());
        let Ok(server) = UnixStream::connect(socket).await else {
            return Ok(false);
        };
        let peer = server.peer_cred();
        let uid = peer
            .map_err(failed("ask who listens in", self.socket.path()))?
            .uid();
        if uid == self.account.uid() {
            return Ok(true);
        }
        Err(EmbeddedError::Stranger {
            directory: self.socket.path().to_owned(),
            uid,
            expected: self.account.uid(),
        })
    }

    async fn create_database(&self) -> Result<(), EmbeddedError> {
        let mut connection = self
            .private_options()
            .database("postgres")
            .connect()
            .await?;
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
