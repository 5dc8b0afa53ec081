//! Old webhook bodies go, and nothing else: a duplicate is still one.

use sqlx::ConnectOptions as _;

use super::support::{Database, Program, System, event, eventually};

const WITH_BODY: &str = "select count(*) from webhook_events where body is not null";

/// Makes these events as old as that.
async fn age(database: &Database, which: &str, days: u32) {
    let sql = format!(
        "update webhook_events set received_at = now() - interval '{days} days' where event_id like '{which}'"
    );
    assert!(database.execute(&sql).await > 0);
}

#[tokio::test]
async fn old_bodies_are_emptied_and_a_duplicate_is_still_one() {
    let keeps_all = [("WEBHOOK_BODY_RETENTION_DAYS", "0")];
    let system = System::with(&keeps_all).await;
    let old = event("evt-old", "user-1", "old", "2025-01-01T10:00:00Z");
    let first = system.client.webhook(&old).await.expect(200);
    let young = event("evt-young", "user-1", "young", "2025-01-01T10:00:01Z");
    system.client.webhook(&young).await.expect(200);
    age(&system.database, "evt-old", 91).await;
    age(&system.database, "evt-young", 89).await;
    // One more process that keeps all, from its start on.
    let (_another, _) = system.another(&keeps_all).await;
    system.send("user-1", "goes out meanwhile").await;
    assert_eq!(system.database.count(WITH_BODY).await, 2);

    let worker = system.worker(&[]).await;
    eventually("the old body is emptied", async || {
        (system.database.count(WITH_BODY).await == 1).then_some(())
    })
    .await;
    let left =
        "select count(*) from webhook_events where event_id = 'evt-young' and body is not null";
    assert_eq!(system.database.count(left).await, 1);
    let line = worker
        .logged("emptied the bodies of old webhook events")
        .await;
    assert_eq!(line["emptied"], 1);

    let again = system.client.webhook(&old).await.expect(200);
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["messageId"], first["messageId"]);
    assert_eq!(again["conversationId"], first["conversationId"]);
    let conversation = system.client.conversation("user-1").await;
    assert_eq!(conversation["unreadCount"], 2, "{conversation}");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn many_old_bodies_go_in_bounded_batches_although_somebody_holds_some() {
    let system = System::without_worker(&[]).await;
    let bodies = "insert into webhook_events (provider, event_id, message_id, body, received_at)
        select 'mock-meta', 'evt-' || n, gen_random_uuid(), 'x', now() - interval '100 days' + n * interval '1 second' from generate_series(1, 1200) n";
    system.database.execute(bodies).await;
    let held =
        "select event_id from webhook_events where event_id in ('evt-1', 'evt-600') for update";
    let mut holder = system.database.options().connect().await.unwrap();
    sqlx::raw_sql("begin").execute(&mut holder).await.unwrap();
    sqlx::raw_sql(held).execute(&mut holder).await.unwrap();
    let updates = "create table batches (n int);
        create function count_batch() returns trigger language plpgsql as $$ begin
          insert into batches select count(*) from new_rows; return null; end $$;
        create trigger count_batch after update on webhook_events referencing new table as new_rows
          for each statement execute function count_batch()";
    system.database.execute(updates).await;

    let worker = system
        .worker(&[("WEBHOOK_BODY_RETENTION_DAYS", "99")])
        .await;
    let line = worker
        .logged("emptied the bodies of old webhook events")
        .await;
    assert_eq!(line["emptied"], 1198);
    assert_eq!(system.database.count(WITH_BODY).await, 2);
    assert_eq!(
        system
            .database
            .count("select max(n)::bigint from batches")
            .await,
        500
    );
}

#[tokio::test]
async fn days_out_of_bounds_are_refused() {
    for days in ["-1", "36501", "ninety"] {
        let refused = Program::new("serve")
            .env("WEBHOOK_BODY_RETENTION_DAYS", days)
            .finish()
            .await;
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(
            refused.stderr.contains("WEBHOOK_BODY_RETENTION_DAYS"),
            "{refused:#?}"
        );
    }
}
