//! What lists, counts and operators' commands read does not grow with what is never removed.

use serde_json::Value;

use crate::support::{Database, System, plan, rows_of, run};

/// 20,000 messages that are parked, all of whatsapp and every 16th of the key `shop`, and among
/// them 40 that are pending and 40 that wait for their next attempt.
async fn fill(database: &Database) {
    let rows = "insert into conversations (id, channel, participant_id, last_message_id, last_message_at, last_message_preview)
        values ('00000000-0000-7000-8000-000000000000', 'whatsapp', 'user-1', gen_random_uuid(), now(), '');
      insert into messages (id, conversation_id, channel, participant_id, direction, text, status, sent_by, error_kind, timestamp, sort_at)
        select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '00000000-0000-7000-8000-000000000000', 'whatsapp', 'user-1',
          'OUTBOUND', 'Hi', case n % 500 when 7 then 'PENDING' else 'FAILED' end, case n % 16 when 0 then 'shop' end,
          case n % 500 when 7 then null else 'timeout' end, now(), now()
        from generate_series(1, 20000) n;
      insert into deliveries (message_id, conversation_id, channel, seq, due_at, attempt, failures, sent_by)
        select id, conversation_id, channel, row_number() over (order by id),
          case when status = 'PENDING' then now() when ('x' || right(id::text, 8))::bit(32)::int % 500 = 8 then now() + interval '1 hour' end,
          0, case status when 'PENDING' then 0 else 1 end, sent_by
        from messages";
    database.execute(rows).await;
    // Not vacuumed: a queue seldom is when it is asked for.
    database.execute("analyze messages, deliveries").await;
}

/// The most rows that a part of this plan reads or makes.
async fn most(database: &Database, header: &str, types: &str, arguments: &str) -> f64 {
    let nodes = plan(database, header, types, arguments).await;
    nodes.iter().map(rows_of).fold(0.0, f64::max)
}

#[tokio::test]
async fn what_is_unsent_is_listed_without_reading_what_is_parked() {
    let system = System::without_worker(&[]).await;
    fill(&system.database).await;
    let middle = "'00000000-0000-7000-8000-000000002000'";
    for filters in [
        "null, null, null",
        "null, 'whatsapp', null",
        "null, 'instagram', null",
        "null, null, 'shop'",
        "null, null, 'nobody'",
        "null, 'instagram', 'shop'",
        &format!("{middle}, null, null"),
        &format!("{middle}, 'instagram', null"),
        &format!("{middle}, 'whatsapp', 'shop'"),
    ] {
        for (header, status) in [
            ("message::list_pending", "PENDING"),
            ("message::list_failed_latest", "FAILED"),
        ] {
            let arguments = format!("'{status}', {filters}, 21");
            let types = "text, uuid, text, text, bigint";
            let read = most(&system.database, header, types, &arguments).await;
            assert!(read <= 100.0, "{header} {arguments}: {read}");
        }
    }
    for (path, count) in [
        ("/messages?status=PENDING&limit=100", 40),
        ("/messages?status=PENDING&limit=100&channel=instagram", 0),
        ("/messages?status=FAILED&limit=100", 100),
        ("/messages?status=FAILED&limit=100&channel=instagram", 0),
    ] {
        let list = system.client.get(path).await.expect(200);
        assert_eq!(list["data"].as_array().unwrap().len(), count, "{path}");
    }
}

#[tokio::test]
async fn a_list_of_what_has_failed_has_what_is_parked_and_what_waits_in_one_order() {
    let system = System::without_worker(&[]).await;
    fill(&system.database).await;
    let all = "select count(*) from messages where status = 'FAILED' and id > '00000000-0000-7000-8000-000000004a38'";
    let all = system.database.count(all).await;
    let mut ids = Vec::new();
    let mut path = "/messages?status=FAILED&limit=100".to_owned();
    while i64::try_from(ids.len()).unwrap() < all {
        let list = system.client.get(&path).await.expect(200);
        let page = list["data"].as_array().unwrap();
        ids.extend(
            page.iter()
                .map(|message| message["id"].as_str().unwrap().to_owned()),
        );
        let cursor = list["meta"]["nextCursor"].as_str().unwrap();
        path = format!("/messages?status=FAILED&limit=100&cursor={cursor}");
    }
    let expected = format!(
        "select string_agg('msg_' || replace(id::text, '-', ''), ' ' order by id desc) from (
        select id from messages where status = 'FAILED' order by id desc limit {}) m",
        ids.len()
    );
    let expected: String = sqlx::query_scalar(sqlx::AssertSqlSafe(expected))
        .fetch_one(system.database.pool())
        .await
        .unwrap();
    assert_eq!(ids.join(" "), expected);
}

#[tokio::test]
async fn a_claim_reads_nothing_of_what_a_paused_channel_has_in_the_queue() {
    let system = System::without_worker(&[]).await;
    let database = &system.database;
    fill(database).await;
    let due = "update deliveries set due_at = now() - interval '1 minute', conversation_id = gen_random_uuid()";
    database.execute(due).await;
    let pause = "update channels set paused_until = now() + interval '1 hour', ramp_until = now() + interval '1 hour'
        where channel = 'whatsapp'";
    database.execute(pause).await;
    // What the update has left behind is no part of the queue.
    database.execute("vacuum analyze deliveries").await;
    let types = "bigint, uuid, float8, float8, float8, float8, float8, float8, text[], float8, uuid[], bigint[], bigint";
    let arguments = "64, gen_random_uuid(), 30, null, 50, 2, 10, 20, '{whatsapp,instagram}', 0.001, '{}', '{}', 4";
    let nodes = plan(database, "delivery::claim", types, arguments).await;
    let pages: f64 = ["Shared Hit Blocks", "Shared Read Blocks"]
        .iter()
        .map(|kind| nodes[0][*kind].as_f64().unwrap())
        .sum();
    assert!(pages < 20.0, "{pages}");
}

#[tokio::test]
async fn what_is_parked_is_counted_up_to_a_bound_at_each_scrape() {
    let system = System::without_worker(&[]).await;
    let parked = async || {
        let metrics = system.client.get("/metrics").await.text;
        let lines = metrics.lines();
        let mut lines =
            lines.filter_map(|line| line.strip_prefix("gateway_deliveries{state=\"parked\"} "));
        lines.next().unwrap().to_owned()
    };
    assert_eq!(parked().await, "0");
    fill(&system.database).await;
    let read = most(&system.database, "delivery::backlog", "bigint", "1001").await;
    assert!(read <= 1001.0, "{read}");
    assert_eq!(parked().await, "19920");
}

#[tokio::test]
async fn an_operators_list_reads_the_queue_in_parts_whatever_it_is_narrowed_by() {
    let system = System::without_worker(&[]).await;
    fill(&system.database).await;
    let database = &system.database;
    let read = most(
        database,
        "message::find_window",
        "uuid, bigint",
        "null, 500",
    )
    .await;
    assert!(read <= 500.0, "{read}");
    let types = "text, uuid, text, text[], float8, uuid";
    for filters in [
        "null, '{}', null",
        "null, '{canceled}', null",
        "'instagram', '{}', null",
        "null, '{}', 0",
    ] {
        let arguments = format!(
            "'FAILED', '00000000-0000-7000-8000-000000002000', {filters}, '00000000-0000-7000-8000-0000000021f4'"
        );
        let read = most(database, "message::list_failed", types, &arguments).await;
        assert!(read <= 500.0, "{arguments}: {read}");
    }

    let none = run(
        database,
        "retry",
        &["--list", "--kind", "canceled", "--json"],
    )
    .finish()
    .await;
    assert_eq!(none.data(), Value::Array(Vec::new()));
    let few = run(database, "retry", &["--list", "--limit", "700", "--json"])
        .finish()
        .await;
    let few: Vec<String> = few
        .data()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(few.len(), 700);
    assert!(few.is_sorted(), "{few:?}");
    assert_eq!(few[0], "msg_00000000000070008000000000000001");
}

/// 20,000 conversations of every kind, of which 80 are unread, half of those in the archive.
/// All participants but three begin alike.
async fn fill_inbox(database: &Database) {
    let rows = "insert into conversations (id, channel, participant_id, status, last_message_id, last_message_at, last_message_preview,
          archived_at, unread_count, inbound_count)
        select ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, (array['whatsapp', 'instagram'])[1 + n % 2],
          case when n > 19997 then 'old-' else 'user-' end || n, (array['open', 'closed'])[1 + (n / 2) % 2],
          gen_random_uuid(), timestamptz '2025-01-01T00:00:00Z' - n * interval '1 second', 'Hello',
          case when n % 5 = 0 then now() end, case when n % 500 in (3, 250) then 1 else 0 end, 1
        from generate_series(1, 20000) n";
    database.execute(rows).await;
}

#[tokio::test]
async fn what_is_unread_is_listed_without_reading_what_is_read() {
    let system = System::without_worker(&[]).await;
    let database = &system.database;
    fill_inbox(database).await;
    let unread = "insert into unread select id from conversations where unread_count > 0";
    database.execute(unread).await;
    let unread = async |archived: &str| {
        let unread = "select count(*) from conversations where unread_count > 0 and archived_at is";
        database.count(&format!("{unread} {archived}")).await
    };
    let (inbox, archived) = (unread("null").await, unread("not null").await);
    assert_eq!((inbox, archived), (40, 40));
    let middle = "'2024-12-31T21:13:20Z', 'ffffffff-ffff-ffff-ffff-ffffffffffff'";
    for analyze in [
        "select",
        "analyze conversations, unread",
        "vacuum conversations, unread",
    ] {
        database.execute(analyze).await;
        let read = most(database, "conversation::count_unread", "bigint", "5001").await;
        assert!(read <= 80.0, "{analyze}: {read}");
        for range in ["null, null", "'user-', 'user.'"] {
            for filters in ["null, null, false", "'instagram', 'closed', true"] {
                for start in ["null, null", middle] {
                    let arguments = format!("{range}, 5500, {filters}, {start}, 101, 0");
                    let types =
                        "text, text, bigint, text, text, bool, timestamptz, uuid, bigint, bigint";
                    let read = most(database, "conversation::list_unread", types, &arguments).await;
                    assert!(read <= 80.0, "{arguments} {analyze}: {read}");
                }
            }
        }
    }
    for (query, count) in [("", inbox), ("&archived=true", archived)] {
        let path = format!("/conversations?unread=true&limit=100{query}");
        let list = system.client.get(&path).await.expect(200);
        let listed = list["data"].as_array().unwrap().len();
        assert_eq!(i64::try_from(listed).unwrap(), count, "{path}");
    }
}

#[tokio::test]
async fn participants_are_found_at_a_cost_that_has_a_limit() {
    let system = System::without_worker(&[]).await;
    let database = &system.database;
    database
        .execute("alter table conversations set (autovacuum_enabled = false)")
        .await;
    fill_inbox(database).await;
    for analyze in ["select", "analyze conversations", "vacuum conversations"] {
        database.execute(analyze).await;
        for (range, found) in [
            ("'user-', 'user.'", 101.0),
            ("'old-', 'old.'", 3.0),
            ("'x', 'y'", 0.0),
        ] {
            let arguments = format!("{range}, 101");
            let types = "text, text, bigint";
            let read = most(database, "conversation::count_matching", types, &arguments).await;
            assert!(
                read <= f64::max(found, 1.0),
                "{arguments} {analyze}: {read}"
            );
            let arguments = format!("{arguments}, null, null, false, false, null, null, 21, 0");
            let types =
                "text, text, bigint, text, text, bool, bool, timestamptz, uuid, bigint, bigint";
            let read = most(database, "conversation::list_matching", types, &arguments).await;
            assert!(
                read <= f64::max(found, 1.0),
                "{arguments} {analyze}: {read}"
            );
        }
    }
    for (prefix, first) in [("user-", "user-1"), ("old-", "old-19998")] {
        let path = format!("/conversations?limit=1&participant={prefix}");
        let list = system.client.get(&path).await.expect(200);
        assert_eq!(list["data"][0]["participantId"], first);
    }
}
