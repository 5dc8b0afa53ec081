//! Why a private PostgreSQL does not start.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::error::fault::OLDEST;

/// Why the private PostgreSQL cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No PostgreSQL is installed, or only too old ones.
    #[error(
        "no PostgreSQL {} or newer is installed{}: install it (Debian and Ubuntu: `apt-get install postgresql`, Fedora: \
         `dnf install postgresql-server`, macOS: `brew install postgresql`), or set DATABASE_URL",
        OLDEST,
        only(installed)
    )]
    NoPrograms {
        /// The major versions that are installed.
        installed: Vec<u32>,
    },
    /// The data were written by a major version that is not installed.
    #[error(
        "the data in {} are those of PostgreSQL {version}, which is not installed{}: install PostgreSQL {version}, or set \
         GATEWAY_DATA_DIR to another directory, or DATABASE_URL",
        directory.display(),
        only(installed)
    )]
    OtherVersion {
        /// The data directory.
        directory: PathBuf,
        /// The major version of its cluster.
        version: u32,
        /// The major versions that are installed.
        installed: Vec<u32>,
    },
    /// Another running gateway owns the directory.
    #[error(
        "another gateway runs its database in {}: stop that one first, or set GATEWAY_DATA_DIR to another directory, or DATABASE_URL",
        directory.display()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// No gateway owns the directory, but a server without a supervisor still runs in it.
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
    /// Another user has made it, or others can read or change it. Its owner and mode are left as
    /// they are.
    #[error("{} {found}: {remedy}", path.display())]
    NotPrivate {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What to do about it.
        remedy: String,
    },
    /// The server in a private directory belongs to another user, such as a former owner of the
    /// directory.
    #[error(
        "the server in {} is run by uid {uid}, and not by uid {expected}: stop it, or set GATEWAY_DATA_DIR to another directory, or \
         DATABASE_URL",
        directory.display()
    )]
    Stranger {
        /// The socket's directory.
        directory: PathBuf,
        /// The user of the server.
        uid: u32,
        /// The expected user.
        expected: u32,
    },
    /// Root must run the server as another user, who cannot reach the data.
    #[error(
        "PostgreSQL does not run as root, and the user it would run as (uid {uid}) cannot enter {}: set GATEWAY_DATA_DIR to a \
         directory that this user can reach (under /var/lib, say), start the gateway as another user, or set DATABASE_URL",
        closed.display()
    )]
    Unreachable {
        /// The first directory on the path that is closed.
        closed: PathBuf,
        /// The user.
        uid: u32,
    },
    /// Root finds no user to run the server as.
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres`: start the gateway as another user, set GATEWAY_DATA_DIR to a \
         directory of one (`install -d -o USER -m 700 DIR`) in a place that only root or that user can change, or set DATABASE_URL"
    )]
    NoAccount,
    /// The path of the socket would be too long: the limit is about a hundred bytes.
    #[error("the path {} is too long for a socket: set TMPDIR to a shorter one", directory.display())]
    SocketPath {
        /// The directory of the socket.
        directory: PathBuf,
    },
    /// `initdb` failed.
    #[error("PostgreSQL's initdb failed ({status}): {output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("PostgreSQL did not start; the end of {}:\n{tail}", log.display())]
    NotStarted {
        /// The server's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server did not answer in time.
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
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The server answered with an error.
    #[error("cannot use the embedded PostgreSQL")]
    Database(#[from] sqlx::Error),
    /// The runtime ended meanwhile.
    #[error("the start or stop of PostgreSQL was cut off")]
    Cut(#[from] tokio::task::JoinError),
}

/// For messages: what is installed instead.
fn only(installed: &[u32]) -> String {
    let installed: Vec<String> = installed.iter().map(u32::to_string).collect();
    if installed.is_empty() {
        String::new()
    } else {
        format!(" (only {})", installed.join(", "))
    }
}

/// For `map_err`: what was tried, and with which file.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.to_owned();
    move |source| EmbeddedError::Io {
        doing,
        path,
        source,
    }
}
