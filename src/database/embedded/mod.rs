//! A private PostgreSQL for when `DATABASE_URL` is not set: as durable as any other, reachable by
//! its owner only, and never left behind by the gateway.
//!
//! In reading order: `account` is the user that runs the programs, `folder` a directory that cannot
//! be replaced, `safe_path` a path without links of strangers, `programs` the installed PostgreSQL,
//! `data_dir` the data directory, `supervisor` the process that starts and stops the server.
//!
//! Two locked files in the data directory say who is alive. `gateway.lock` is held by the gateway
//! that owns the directory. `server.lock` is held by everything that may write to the cluster:
//! initdb, the supervising shell, and each process of PostgreSQL inherit it. Whoever gets the
//! second lock knows that none of them is left, and may remove their files. So no process is ever
//! killed because its id was found in a file.

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

/// A private PostgreSQL in a data directory. It stops when this value is dropped, or when the
/// process ends in any way.
#[derive(Debug)]
pub struct Embedded {
    socket: Arc<Folder>,
    account: Account,
    pid_file: PathBuf,
    /// None: another process owns the server.
    server: Option<Server>,
}

impl Embedded {
    /// Starts and owns the server of that data directory, which is made if it does not exist.
    pub async fn start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        Self::start_with(data_dir, &[]).await
    }

    /// Like [`Self::start`], with additional server settings, which win over the defaults.
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

    /// Uses the running server of that data directory, or else starts and owns it.
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

    /// How this process connects while this value lives: through the directory that was checked,
    /// even if another one is at its path by now.
    #[must_use]
    pub fn private_options(&self) -> PgConnectOptions {
        options(&self.socket.path_by_descriptor())
    }

    /// Whether another process owns the server.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.server.is_none()
    }

    /// The process id that PostgreSQL wrote down. For tests: it may be out of date.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        data_dir::read_pid(std::fs::File::open(&self.pid_file).ok()?)
    }

    /// Stops the server and waits for its end. A joined server is left alone.
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

    /// Waits until the database can be used. The first time it is created here.
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

    /// Whether a server listens. An error if another user runs it.
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
    // These overwrite what the environment says, except for PGOPTIONS, which sqlx cannot unset.
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
