//! The rows that the feed is told from: one for each statement that changed something.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};

use super::write;
use crate::support::{Listener, Postgres, System, event, eventually, mock, serve_at};

const ROWS: &str = "select count(*) from changes";

#[tokio::test]
async fn a_statement_leaves_one_row_and_none_where_it_changes_nothing() {
    let system = System::start().await;
    let hello = event("evt_1", "user-1", "Hello", "2025-01-01T10:00:00Z");
    system.client.webhook(&hello).await.expect(200);
    assert_eq!(system.database.count(ROWS).await, 1);
    system.client.webhook(&hello).await.expect(200);
    assert_eq!(
        system.database.count(ROWS).await,
        1,
        "a duplicate changes nothing"
    );
    system.send("user-1", "Merhaba").await;
    // One where it was stored, one where it was sent.
    assert_eq!(system.database.count(ROWS).await, 3);
    let row = "select count(*) from changes where cardinality(conversation_ids) <= 1 and cardinality(created_ids) + cardinality(updated_ids) = 1 and not bulk";
    assert_eq!(system.database.count(row).await, 3);
    let unknown = "/conversations/conv_01941f297c0070008000000000000001/close";
    system
        .client
        .post(unknown, &serde_json::json!({}))
        .await
        .expect(404);
    assert_eq!(system.database.count(ROWS).await, 3);
}

#[tokio::test]
async fn while_nobody_listens_the_feed_asks_the_database_nothing() {
    let settings = [("shared_preload_libraries", "pg_stat_statements")];
    let postgres = Postgres::start_with(&settings).await;
    let database = postgres.database().await;
    database
        .execute("create extension pg_stat_statements")
        .await;
    let mock = mock().await;
    let (_gateway, client) = serve_at(database.url(), &mock.url(), &["serve"], &[]).await;
    let listener = Listener::open(&client, "").await;
    assert!(asked(&database.options()).await > 0, "it is not counted");
    drop(listener);
    // It is known to be gone with the first event that it does not take.
    eventually("nobody listens", async || {
        write(&client, [uuid::Uuid::now_v7().to_string()]).await;
        (client.metric("gateway_feed_streams").await < 1.0).then_some(())
    })
    .await;
    // What the reader had begun has ended by then.
    database.execute("select pg_sleep(1)").await;
    let before = asked(&database.options()).await;
    write(&client, ["a", "b", "c"]).await;
    database.execute("select pg_sleep(1)").await;
    assert_eq!(asked(&database.options()).await, before);
}

/// How often the feed has asked.
async fn asked(database: &PgConnectOptions) -> i64 {
    let mut connection = database.connect().await.unwrap();
    let calls = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
        where query like '%-- feed::%' or query like '%::list\\_changed%'";
    sqlx::query(calls)
        .fetch_one(&mut connection)
        .await
        .unwrap()
        .get(0)
}
