//! The connection to PostgreSQL: nothing waits for it without a limit, and its faults are told apart by SQLSTATE.

pub mod batch;
pub mod connect;
pub mod embedded;
pub mod fault;
pub mod pool;
pub mod store;
pub mod url;

use std::collections::HashSet;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use self::connect::{Limits, too_slow};
use crate::error::Result;

/// How long a statement may wait for a lock. Somebody else's open transaction must not stop everything.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a statement may run.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The tables of the gateway, and the migrator's own.
pub const TABLES: [&str; 6] = [
    "conversations",
    "messages",
    "webhook_events",
    "deliveries",
    "channels",
    "_sqlx_migrations",
];

/// Waits for the database for a bounded time: one that is stopped, or out of reach, does not enforce limits of its own.
pub async fn bounded<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match timeout(CONNECT_TIMEOUT + STATEMENT_TIMEOUT, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(too_slow().into()),
    }
}

/// One migration that this binary knows.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Applies the migrations that the database lacks, and returns how many those were. Safe beside others that do the same. Where none
/// is lacking, nothing is written, and no right to change the schema needed.
pub async fn migrate(options: &PgConnectOptions) -> Result<usize> {
    let (mut connection, _) = connect::connect(options, Limits::None, &[]).await?;
    let mut applied = 0;
    let before = pending(&migrations(&mut connection).await?);
    if before > 0 {
        // An older binary must start beside a newer one.
        let mut migrator = sqlx::migrate!();
        migrator.set_ignore_missing(true);
        migrator.run(&mut connection).await?;
        applied = before - pending(&migrations(&mut connection).await?);
    }
    connection.close().await?;
    Ok(applied)
}

/// The migrations that this binary knows, and which of them the database has.
pub async fn migrations(connection: &mut PgConnection) -> sqlx::Result<Vec<Migration>> {
    let applied: HashSet<i64> = store::applied_migrations(connection).await?;
    Ok(sqlx::migrate!()
        .iter()
        .map(|migration| Migration {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect())
}

/// How many of them it lacks.
#[must_use]
pub fn pending(migrations: &[Migration]) -> usize {
    let applied = migrations.iter().filter(|migration| migration.applied);
    migrations.len() - applied.count()
}
