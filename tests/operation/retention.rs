//! Old webhook bodies go, a month at a time, and nothing else: a duplicate is still one.

use sqlx::{ConnectOptions as _, Row as _};

use crate::support::{Database, Program, System, event, eventually, hello, run, statement};

const BODIES: &str = "select count(*) from webhook_bodies";
const EMPTIED: &str = "emptied the bodies of old webhook events";

/// Makes these events, and their bodies, as old as that.
async fn age(database: &Database, which: &str, days: u32) {
    for table in ["webhook_bodies", "webhook_events"] {
        let sql = format!(
            "update {table} set received_at = now() - interval '{days} days' where message_id = any(array(
               select message_id from webhook_events where event_id like '{which}'))"
        );
        assert!(database.execute(&sql).await > 0);
    }
}

/// A table for the month that was so many days ago, with so many bodies.
async fn month(database: &Database, days: u32, bodies: u32) -> String {
    let name = format!(
        "select 'webhook_bodies_' || to_char((now() - interval '{days} days') at time zone 'UTC', 'YYYY_MM')"
    );
    let name: String = sqlx::query_scalar(sqlx::AssertSqlSafe(name))
        .fetch_one(database.pool())
        .await
        .unwrap();
    let sql = format!(
        "do $$ declare month timestamptz := date_trunc('month', now() - interval '{days} days', 'UTC'); begin
           execute format('create table {name} partition of webhook_bodies for values from (%L) to (%L)', month,
             (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
         end $$;
         insert into webhook_bodies select now() - interval '{days} days', gen_random_uuid(), 'x' from generate_series(1, {bodies})"
    );
    database.execute(&sql).await;
    name
}

async fn file_of(database: &Database, table: &str) -> i64 {
    let file = format!("select pg_relation_filenode('{table}')::bigint");
    database.count(&file).await
}

#[tokio::test]
async fn old_bodies_are_emptied_and_a_duplicate_is_still_one() {
    let keeps_all = [("WEBHOOK_BODY_RETENTION_DAYS", "0")];
    let system = System::with(&keeps_all).await;
    let old = event("evt-old", "user-1", "old", "2025-01-01T10:00:00Z");
    let first = system.client.webhook(&old).await.expect(200);
    let young = event("evt-young", "user-1", "young", "2025-01-01T10:00:01Z");
    system.client.webhook(&young).await.expect(200);
    // 90 days, and the rest of a month.
    age(&system.database, "evt-old", 122).await;
    age(&system.database, "evt-young", 89).await;
    // One more process that keeps all, from its start on.
    let (_another, _) = system.another(&keeps_all).await;
    system.send("user-1", "goes out meanwhile").await;
    assert_eq!(system.database.count(BODIES).await, 2);

    let worker = system.worker(&[]).await;
    eventually("the old body is emptied", async || {
        (system.database.count(BODIES).await == 1).then_some(())
    })
    .await;
    let left = "select count(*) from webhook_events join webhook_bodies using (message_id) where event_id = 'evt-young'";
    assert_eq!(system.database.count(left).await, 1);
    let line = worker.logged(EMPTIED).await;
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
async fn an_old_month_goes_as_a_whole_while_webhooks_come_in() {
    let system = System::without_worker(&[]).await;
    let old = month(&system.database, 200, 1200).await;
    let young = month(&system.database, 80, 7).await;
    let files = (
        file_of(&system.database, &old).await,
        file_of(&system.database, &young).await,
    );
    // As a webhook does, but for longer.
    let mut webhook = system.database.options().connect().await.unwrap();
    let insert =
        "begin; insert into webhook_bodies (message_id, body) values (gen_random_uuid(), 'x')";
    sqlx::raw_sql(insert).execute(&mut webhook).await.unwrap();

    let worker = system.worker(&[]).await;
    let line = worker.logged(EMPTIED).await;
    assert_eq!(line["emptied"], 1200);
    let left = format!("select count(*) from {old}");
    assert_eq!(system.database.count(&left).await, 0);
    // No row was touched.
    assert_ne!(file_of(&system.database, &old).await, files.0);
    assert_eq!(file_of(&system.database, &young).await, files.1);
    assert_eq!(system.database.count(BODIES).await, 7);
}

#[tokio::test]
async fn many_bodies_elsewhere_go_in_bounded_batches_although_somebody_holds_some() {
    let system = System::without_worker(&[]).await;
    // The first are in no month's table, the others were stored with their events by an older
    // version.
    let bodies = "insert into webhook_bodies (received_at, message_id, body)
        select now() - interval '150 days' + n * interval '1 second', ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'x' from generate_series(1, 1200) n;
        insert into webhook_events (provider, event_id, message_id, body, received_at)
        select 'mock-meta', 'evt-' || n, gen_random_uuid(), 'x', now() - interval '150 days' + n * interval '1 second' from generate_series(1, 1200) n;
        insert into webhook_events (provider, event_id, message_id, body) values ('mock-meta', 'young', gen_random_uuid(), 'x')";
    system.database.execute(bodies).await;
    let mut holder = system.database.options().connect().await.unwrap();
    let held = "begin; select event_id from webhook_events where event_id in ('evt-1', 'evt-600') for update;
        select message_id from webhook_bodies where message_id::text like '%000007' for update";
    sqlx::raw_sql(held).execute(&mut holder).await.unwrap();
    let counted = "create table batches (n int);
        create function count_batch() returns trigger language plpgsql as $$ begin
          insert into batches select count(*) from old_rows; return null; end $$;
        create trigger count_batch after update on webhook_events referencing old table as old_rows
          for each statement execute function count_batch();
        create trigger count_batch after delete on webhook_bodies referencing old table as old_rows
          for each statement execute function count_batch()";
    system.database.execute(counted).await;

    let worker = system
        .worker(&[("WEBHOOK_BODY_RETENTION_DAYS", "99")])
        .await;
    let line = worker.logged(EMPTIED).await;
    assert_eq!(line["emptied"], 1198 + 1199);
    let of_events = "select count(*) from webhook_events where body is not null";
    assert_eq!(system.database.count(of_events).await, 3);
    assert_eq!(system.database.count(BODIES).await, 1);
    let largest = "select max(n)::bigint from batches";
    assert_eq!(system.database.count(largest).await, 500);
}

#[tokio::test]
async fn one_at_a_time_empties_bodies() {
    let system = System::without_worker(&[]).await;
    let bodies = "insert into webhook_bodies select now() - interval '150 days', gen_random_uuid(), 'x' from generate_series(1, 9)";
    system.database.execute(bodies).await;
    let mut connection = system.database.options().connect().await.unwrap();
    let mut other = system.database.options().connect().await.unwrap();
    let prepare = format!(
        "prepare empty (text, int, bigint) as {}",
        statement("webhook::empty_bodies")
    );
    let empty = "execute empty ('mock-meta', 90, 5)";
    for connection in [&mut connection, &mut other] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(prepare.clone()))
            .execute(connection)
            .await
            .unwrap();
    }
    for sql in ["begin", empty] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    let meanwhile = sqlx::raw_sql(empty).fetch_all(&mut other).await.unwrap();
    assert!(meanwhile.is_empty());
    sqlx::raw_sql("commit")
        .execute(&mut connection)
        .await
        .unwrap();
    let then = sqlx::raw_sql(empty).fetch_one(&mut other).await.unwrap();
    assert_eq!(then.get_unchecked::<i64, _>(0), 4);
}

#[tokio::test]
async fn months_are_made_a_year_ahead_and_nothing_fails_without_them() {
    let system = System::without_worker(&[]).await;
    let months = "select count(*) from pg_inherits where inhparent = 'webhook_bodies'::regclass";
    assert_eq!(system.database.count(months).await, 14);
    system.client.webhook(&hello("evt-1")).await.expect(200);
    let here = "select count(*) from webhook_bodies where tableoid::regclass::text =
        'webhook_bodies_' || to_char(now() at time zone 'UTC', 'YYYY_MM')";
    assert_eq!(system.database.count(here).await, 1);

    // They have run out, also this month's.
    let gone = "do $$ declare month regclass; begin
          for month in select inhrelid from pg_inherits where inhparent = 'webhook_bodies'::regclass and inhrelid <> 'webhook_bodies_rest'::regclass loop
            execute format('drop table %s', month);
          end loop; end $$";
    system.database.execute(gone).await;
    let late = hello("evt-2");
    system.client.webhook(&late).await.expect(200);
    let rest = "select count(*) from webhook_bodies_rest";
    assert_eq!(system.database.count(rest).await, 1);
    system.database.migrate().await;
    // From next month on: what there is of this one is elsewhere.
    assert_eq!(system.database.count(months).await, 14);
    let later = hello("evt-3");
    system.client.webhook(&later).await.expect(200);
    assert_eq!(system.database.count(rest).await, 2);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_an_older_version_has_stored_is_known_forgotten_and_written_beside() {
    let system = System::without_worker(&[]).await;
    let hello = event("evt-1", "user-1", "geheim", "2025-01-01T10:00:00Z");
    let first = system.client.webhook(&hello).await.expect(200);
    // As version 8 of the schema has it, which an older binary goes on writing.
    let older = "with gone as (delete from webhook_bodies returning message_id, body)
        update webhook_events e set body = g.body from gone g where g.message_id = e.message_id";
    assert_eq!(system.database.execute(older).await, 1);
    let known = system.client.webhook(&hello).await.expect(200);
    assert_eq!(known["duplicate"], true);
    assert_eq!(known["messageId"], first["messageId"]);
    let other = event("evt-2", "user-1", "geheim", "2025-01-01T10:00:00Z");
    system.client.webhook(&other).await.expect(200);

    let forgotten = run(
        &system.database,
        "forget",
        &["whatsapp", "user-1", "--json"],
    )
    .finish()
    .await;
    assert_eq!(forgotten.data()["webhookBodies"], 2);
    assert_eq!(system.database.count(BODIES).await, 0);
    let of_events = "select count(*) from webhook_events where body is not null";
    assert_eq!(system.database.count(of_events).await, 0);
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
