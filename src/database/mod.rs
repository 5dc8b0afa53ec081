//! The connection to PostgreSQL: nothing waits for it without a limit, and its faults are told apart by SQLSTATE.

pub mod batch;
pub mod embedded;
pub mod store;
pub mod url;

use std::collections::HashSet;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// How long a statement may wait for a lock. Somebody else's open transaction must not stop everything.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a statement may run.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of the pool, which serves reads, operators' actions and claims. Each writer has its own beside it.
pub const POOL_SIZE: u32 = 10;

/// What an error of the database means for whoever meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The data of a row: SQLSTATE class 22 (data exception) or 23 (integrity constraint violation).
    Row,
    /// Two first messages to one participant raced, and this one lost: to be repeated.
    LostRace,
    /// Waited longer than [`LOCK_TIMEOUT`] for a row (55P03).
    Locked,
    /// The database is away, restarting, full, stuck or not migrated: it may be back in a moment.
    Away,
    /// Anything else: a mistake of ours.
    Other,
}

/// Tells the faults apart by SQLSTATE (PostgreSQL's documentation, appendix A).
#[must_use]
pub fn fault(error: &sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Fault::Away,
            // The answer for one item is missing: it is found by halving, like a bad row.
            sqlx::Error::RowNotFound => Fault::Row,
            _ => Fault::Other,
        };
    };
    let code = database.code().unwrap_or_default();
    match (&*code, code.get(..2).unwrap_or_default()) {
        ("23503", _) if database.constraint() == Some("messages_conversation_id_fkey") => {
            Fault::LostRace
        }
        ("55P03", _) => Fault::Locked,
        (_, "22" | "23") => Fault::Row,
        // In the second line: undefined table or column, while it is not migrated yet; read-only, while it is a standby;
        // no such database.
        (_, "08" | "28" | "40" | "53" | "55" | "57" | "58")
        | ("42P01" | "42703" | "25006" | "3D000", _) => Fault::Away,
        _ => Fault::Other,
    }
}

/// The limits that every connection of a running gateway gets.
#[must_use]
pub fn limited(options: PgConnectOptions) -> PgConnectOptions {
    options
        .application_name("gateway")
        .options([
            ("statement_timeout", STATEMENT_TIMEOUT.as_millis()),
            ("lock_timeout", LOCK_TIMEOUT.as_millis()),
        ])
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1))
}

/// A pool that connects when it is first used, so that a gateway starts while its database is away.
#[must_use]
pub fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(POOL_SIZE)
        .acquire_timeout(CONNECT_TIMEOUT)
        // A plan made for an empty queue reads a full one from end to end; these statements take little time to plan.
        .connect_lazy_with(limited(options).options([("plan_cache_mode", "force_custom_plan")]))
}

/// Waits for the database for a bounded time: one that is stopped, or out of reach, does not enforce limits of its own.
pub async fn bounded<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match timeout(CONNECT_TIMEOUT + STATEMENT_TIMEOUT, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Unavailable(None)),
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

/// Applies the migrations that the database lacks, and returns how many those were. Safe beside others that do the same.
pub async fn migrate(options: &PgConnectOptions) -> Result<usize> {
    let mut connection = bounded(options.connect()).await?;
    let before = store::applied_migrations(&mut connection).await?;
    // An older binary must start beside a newer one.
    let mut migrator = sqlx::migrate!();
    migrator.set_ignore_missing(true);
    migrator.run(&mut connection).await?;
    let after = store::applied_migrations(&mut connection).await?;
    connection.close().await?;
    Ok(after.difference(&before).count())
}

/// The migrations that this binary knows, and which of them the database has.
pub async fn migrations(connection: &mut sqlx::PgConnection) -> Result<Vec<Migration>> {
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
