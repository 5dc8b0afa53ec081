//! The statements that fill a database with made-up conversations.

use sqlx::PgConnection;

use crate::database::pool::Pool;

/// Runs a script of idempotent inserts as one transaction. Returns how many conversations are new.
pub async fn load_script(connection: &mut PgConnection, script: &'static str) -> sqlx::Result<i64> {
    let before = count(connection).await?;
    // Several statements in one message are one transaction.
    sqlx::raw_sql(script).execute(&mut *connection).await?;
    Ok(count(connection).await? - before)
}

/// What is new.
pub struct Seeded {
    pub conversations: i64,
    pub messages: i64,
}

/// Inserts the conversations with these numbers of the seed's large inbox, each with as many
/// messages as `sizes` says. One that is there already stays as it is.
pub async fn insert_large(
    pool: &Pool,
    seed: &str,
    numbers: &[i64],
    sizes: &[i64],
) -> sqlx::Result<Seeded> {
    sqlx::query_file_as!(Seeded, "seeds/large.sql", seed, numbers, sizes)
        .fetch_one(pool)
        .await
}

/// Renews the planner's statistics after many inserts.
pub async fn analyze(pool: &Pool) -> sqlx::Result<()> {
    // Checked at run time: it cannot be prepared.
    sqlx::raw_sql(
        "-- seed::analyze
analyze conversations, messages, webhook_events, webhook_bodies, deliveries",
    )
    .execute(pool)
    .await?;
    Ok(())
}

async fn count(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- seed::count
select count(*) as "count!" from conversations"#
    )
    .fetch_one(connection)
    .await
}
