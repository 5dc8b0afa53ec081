//! PostgreSQL crashes: it may give the number of a transaction that it has forgotten to another one.

use super::write;
use crate::support::{Listener, Postgres, Stopped, event, eventually, mock, serve_at};

#[tokio::test]
async fn a_number_that_is_given_twice_hides_nothing() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let mock = mock().await;
    let (_gateway, client) = serve_at(database.url(), &mock.url(), &["serve"], &[]).await;
    write(&client, ["before"]).await;
    let mut listener = Listener::open(&client, "").await;
    let forgotten = "begin; select pg_current_xact_id(); rollback;".repeat(20);
    database.execute(&forgotten).await;
    let ends = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let ends = database.count(ends).await;
    // By the time that it is let in, the reader has looked at a snapshot with those numbers.
    let token = Listener::open(&client, "").await.id;

    Stopped::all_of(&postgres).kill();
    eventually("a message is stored", async || {
        let event = event("evt-after", "user-1", "after", "2025-01-01T10:00:00Z");
        let answer = client.webhook(&event).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let reused = format!(
        "select count(*) from changes where position < {ends} and 'after' = (select text from messages where id = created_ids[1])"
    );
    let reused = eventually("the database answers", async || {
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(&*reused))
            .fetch_one(database.pool())
            .await
            .ok()
    })
    .await;
    assert_eq!(reused, 1, "no number was given twice");
    listener.until_text("after").await;
    let mut again = Listener::resume(&client, &token).await;
    again.until_text("after").await;
}
