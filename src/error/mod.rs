//! The errors of the gateway. Nothing here knows HTTP.

pub mod fault;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use sqlx::migrate::MigrateError;

use self::fault::{Cause, ErrorText, Fault, Unavailable, fault};

/// The gateway's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a service or a store can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist. The text names the kind of thing.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// An operator's retry of a message that has not failed.
    #[error("only a message that has failed can be retried")]
    NotFailed,
    /// A cancellation of a message that was sent, or is being sent at this moment.
    #[error("the message was sent already, or an attempt at it is in flight")]
    NotCancelable,
    /// The idempotency key belongs to a record that the caller may not see.
    #[error("this clientMessageId was used by another key")]
    Taken,
    /// The channel has no provider. The text is its name.
    #[error("the channel {0} is not connected")]
    NotConnected(&'static str),
    /// The number that a message is for is another person's by now.
    #[error("another person has this number now")]
    ParticipantChanged,
    /// The message that is answered is not known, or is another conversation's, or the provider has
    /// no id for it.
    #[error("must be the id of a message of this conversation that the provider has an id for")]
    Unanswerable,
    /// A retry of a message that the provider may have accepted, where it cannot tell a repeated one.
    #[error(
        "the provider may have accepted this message: sent again it may arrive twice, ask with ambiguous=true"
    )]
    Ambiguous,
    /// A queue is full. The text names the queue.
    #[error("the {0} queue is full")]
    Overloaded(&'static str),
    /// The database cannot be used. It is not known whether anything was stored.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Another transaction has locked a row that the statement needs.
    #[error("a row is locked by another transaction")]
    Locked,
    /// The database refused the data of this one item.
    #[error("the database refused the data")]
    Refused(#[source] Cause),
    /// The lease would end before the attempt could. It is left to whoever claims it next.
    #[error("the lease ends too soon for an attempt")]
    LeaseTooShort,
    /// An error of the database that should not happen.
    #[error("database error")]
    Database(#[source] Cause),
    /// The migrations could not be applied.
    #[error(transparent)]
    Migrate(#[from] Unmigrated),
    /// A task ended without an answer: it panicked, or the process is stopping.
    #[error("the task ended without an answer")]
    Interrupted,
}

impl From<&sqlx::Error> for Error {
    fn from(error: &sqlx::Error) -> Self {
        match fault(error) {
            Fault::Locked => Self::Locked,
            Fault::Away(_) => Self::Unavailable(error.into()),
            Fault::Row => Self::Refused(error.into()),
            Fault::LostRace | Fault::Unexpected => Self::Database(error.into()),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        (&error).into()
    }
}

/// Why migrations were not applied.
#[derive(Debug, thiserror::Error)]
pub enum Unmigrated {
    /// What it waited for did not happen in time.
    #[error("{which} was given up after {} s: it {what}", .waited.as_secs())]
    Waited {
        /// The migration.
        which: String,
        /// What it waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The gateway's role lacks a right.
    #[error(
        "{0} migrations are not applied, and this role may not apply them: run gateway migrate as the role that owns the tables and the schema"
    )]
    Forbidden(usize, #[source] MigrateError),
    /// Anything else.
    #[error("the migrations could not be applied")]
    Failed(#[source] MigrateError),
}

/// A wrong configuration: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl From<crate::process::environment::Invalid> for UsageError {
    fn from(error: crate::process::environment::Invalid) -> Self {
        Self(error.to_string())
    }
}

/// An error with its causes, each once: for the log, and for the line that ends a process.
pub struct Causes<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = Some(self.0);
        let mut separator = "";
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<sqlx::Error>() {
                return write!(f, "{separator}{}", ErrorText(error));
            }
            next = error.source();
            let text = error.to_string();
            // Some errors repeat the text of their cause.
            let own = match next.map(ToString::to_string) {
                Some(source) => text
                    .strip_suffix(&source)
                    .map_or(&*text, |own| own.trim_end_matches([' ', ':'])),
                None => &*text,
            };
            if !own.is_empty() {
                write!(f, "{separator}{own}")?;
                separator = ": ";
            }
        }
        Ok(())
    }
}
