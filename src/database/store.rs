//! Statements about the database itself.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::PgConnection;

/// The versions of the migrations that were applied; none where nothing was ever migrated.
pub async fn applied_migrations(connection: &mut PgConnection) -> sqlx::Result<HashSet<i64>> {
    if !has_migrations(connection).await? {
        return Ok(HashSet::new());
    }
    // Checked at run time: the table is the migrator's own, and no part of the schema.
    let versions: Vec<i64> = sqlx::query_scalar(
        "-- database::applied_migrations
select version from _sqlx_migrations where success",
    )
    .fetch_all(connection)
    .await?;
    Ok(versions.into_iter().collect())
}

async fn has_migrations(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"-- database::has_migrations
select to_regclass('_sqlx_migrations') is not null as "known!""#
    )
    .fetch_one(connection)
    .await
}

/// Makes the database of a private PostgreSQL.
pub async fn create_gateway(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Checked at run time: it cannot be prepared.
    sqlx::raw_sql(
        "-- database::create_gateway
create database gateway",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Changes how long this connection waits for a lock.
pub async fn set_lock_timeout(connection: &mut PgConnection, wait: Duration) -> sqlx::Result<()> {
    let milliseconds = wait.as_millis().to_string();
    sqlx::query_scalar!(
        r#"-- database::set_lock_timeout
select set_config('lock_timeout', $1, false) as "value!""#,
        milliseconds
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}
