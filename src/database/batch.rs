//! A batch: a statement that writes many items at once, each for a caller of its own.
//!
//! A statement may be sent again after a lost answer. It must then find its own rows, and answer as
//! it did the first time.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use sqlx::PgConnection;

use super::plans::Work;
use crate::error::Error;
use crate::error::fault::{Cause, ErrorText, Fault, Outage, Unavailable, fault};

/// A statement that writes many items at once.
pub trait Batch: Send + Sync + 'static {
    /// What one caller hands in.
    type Item: Send + Sync + 'static;
    /// What that caller gets back.
    type Answer: Send + 'static;
    /// The writer's name in logs and metrics.
    const NAME: &'static str;
    /// How long an item is retried while the database is away; none: until it is written.
    const RETRY_FOR: Option<Duration>;
    /// The kind of work, which decides how the statement may be planned.
    const WORK: Work = Work::Batches;

    /// Writes all items, or none, and answers each, in their order. Repeating it changes nothing.
    fn write(
        &self,
        connection: &mut PgConnection,
        items: &[&Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, WriteError>> + Send;
}

/// Why a batch was not written.
#[derive(Debug)]
pub enum WriteError {
    /// The database, or the way to it, has failed.
    Database(sqlx::Error),
    /// The statement has no answer for one of the items.
    NoAnswer,
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => ErrorText(error).fmt(f),
            Self::NoAnswer => f.write_str("the statement has no answer for an item"),
        }
    }
}

impl WriteError {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Database(error) => fault(error),
            // Halving finds the item, as it finds a bad row.
            Self::NoAnswer => Fault::Row,
        }
    }

    /// Why nothing can be written.
    pub(super) fn unavailable(&self) -> Unavailable {
        match self {
            Self::Database(error) => error.into(),
            Self::NoAnswer => Outage::Failing.into(),
        }
    }

    /// The error for the caller whose item is at fault.
    pub(super) fn refusal(&self) -> Error {
        match self {
            Self::Database(error) => error.into(),
            Self::NoAnswer => Error::Database(Cause::new(&self.to_string())),
        }
    }
}
