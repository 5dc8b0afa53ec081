//! Nothing waits for the database without a limit.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use crate::error::Result;

/// How long a statement may wait for a lock. Somebody else's open transaction must not stop
/// everything.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a statement may run.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits for the database for a bounded time: one that is stopped, or out of reach, does not
/// enforce its own limits.
pub async fn bounded<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match timeout(CONNECT_TIMEOUT + STATEMENT_TIMEOUT, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(timed_out().into()),
    }
}

/// The error for a limit of this side.
pub(super) fn timed_out() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}
