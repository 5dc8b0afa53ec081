//! What can go wrong in the gateway, with nothing of HTTP in it.

use crate::database::{self, Fault};

/// The gateway's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a service or a store can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing; it names the kind of thing.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// An operator's retry of a message that has not failed.
    #[error("only a message that has failed can be retried")]
    NotFailed,
    /// A cancellation of a message that was sent, or is being sent at this moment.
    #[error("the message was sent already, or an attempt at it is in flight")]
    NotCancelable,
    /// A queue is full; it names the queue.
    #[error("the {0} queue is full")]
    Overloaded(&'static str),
    /// The database did not answer, or not in time: not stored, or not known to be.
    #[error("the database does not answer")]
    Unavailable(#[source] Option<sqlx::Error>),
    /// Somebody else's transaction holds a row that the statement needs.
    #[error("a row is locked by another transaction")]
    Locked,
    /// The database refused the data of this one item.
    #[error("the database refused the data")]
    Refused(#[source] sqlx::Error),
    /// The lease would end before the attempt could: left to whoever claims it next.
    #[error("the lease ends too soon for an attempt")]
    LeaseTooShort,
    /// An error of the database that should not happen.
    #[error("database error")]
    Database(#[source] sqlx::Error),
    /// The migrations could not be applied.
    #[error("the migrations could not be applied")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A task ended without an answer: it panicked, or the process is stopping.
    #[error("the task ended without an answer")]
    Interrupted,
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match database::fault(&error) {
            Fault::Locked => Self::Locked,
            Fault::Away => Self::Unavailable(Some(error)),
            Fault::Row => Self::Refused(error),
            Fault::LostRace | Fault::Other => Self::Database(error),
        }
    }
}
