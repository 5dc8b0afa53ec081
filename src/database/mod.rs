//! The connection to PostgreSQL: nothing waits for it without a limit, and its faults are told apart by SQLSTATE.

mod apply;
pub mod batch;
pub mod connect;
pub mod embedded;
pub mod migrate;
pub mod plans;
pub mod pool;
pub mod pooler;
pub mod queue;
pub mod store;
pub mod target;
pub mod url;

use std::time::Duration;

use tokio::time::timeout;

use self::connect::too_slow;
pub use self::migrate::{Migration, migrate, migrate_within, migrations, pending};
use crate::error::Result;

/// How long a statement may wait for a lock. Somebody else's open transaction must not stop everything.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a statement may run.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The tables of the gateway, and the migrator's own. The months of a table in parts go with it.
pub const TABLES: [&str; 8] = [
    "conversations",
    "messages",
    "webhook_events",
    "webhook_bodies",
    "webhook_bodies_rest",
    "deliveries",
    "channels",
    apply::TABLE,
];

/// Waits for the database for a bounded time: one that is stopped, or out of reach, does not enforce limits of its own.
pub async fn bounded<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match timeout(CONNECT_TIMEOUT + STATEMENT_TIMEOUT, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(too_slow().into()),
    }
}
