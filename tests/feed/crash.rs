//! PostgreSQL crashes: it may give the number of a transaction that it has forgotten to another one.

use super::write;
use crate::support::{Listener, Postgres, Stopped, event, eventually, mock, serve_at};

/// How often PostgreSQL may remember a number all the same: by what somebody else has written after
/// it.
const MOST_CRASHES: usize = 10;

#[tokio::test]
async fn a_number_that_is_given_twice_hides_nothing() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let mock = mock().await;
    let (_gateway, client) = serve_at(database.url(), &mock.url(), &["serve"], &[]).await;
    write(&client, ["before"]).await;
    for crash in 0..MOST_CRASHES {
        // Nobody listens there yet.
        let (_other, other) = serve_at(database.url(), &mock.url(), &["serve"], &[]).await;
        let mut living = Listener::open(&client, "").await;
        let forgotten = "begin; select pg_current_xact_id(); rollback;".repeat(20);
        database.execute(&forgotten).await;
        let ends = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        let ends = database.count(ends).await;
        // By the time that it is let in, the reader has looked at a snapshot with those numbers;
        // and another reader begins with them.
        let token = Listener::open(&client, "").await.id;
        let mut begun = Listener::open(&other, "").await;

        Stopped::all_of(&postgres).kill();
        let text = format!("after-{crash}");
        let event = event(
            &format!("evt-{crash}"),
            "user-1",
            &text,
            "2025-01-01T10:00:00Z",
        );
        eventually("a message is stored", async || {
            (client.webhook(&event).await.status == 200).then_some(())
        })
        .await;
        let reused = format!(
            "select count(*) from changes c join messages m on m.id = c.created_ids[1] where c.position < {ends} and m.text = '{text}'"
        );
        let reused = eventually("the database answers", async || {
            let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(&*reused));
            count.fetch_one(database.pool()).await.ok()
        })
        .await;
        living.until_text(&text).await;
        begun.until_text(&text).await;
        let mut again = Listener::resume(&client, &token).await;
        again.until_text(&text).await;
        if reused == 1 {
            return;
        }
    }
    panic!("no number was given twice");
}
