//! `gateway seed` with numbers: a large inbox that is right in every count, the same for the same
//! seed, and never doubled.

use serde_json::Value;
use sqlx::Connection;

use crate::support::{Database, Program, System, eventually, run};

/// Four statements, the second with conversation 40 in it, the third with 130.
const LARGE: [&str; 6] = [
    "--conversations",
    "800",
    "--messages",
    "40000",
    "--random-seed",
    "7",
];

async fn seed(database: &Database, arguments: &[&str]) -> String {
    let ended = run(database, "seed", arguments).finish().await;
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:?}");
    ended.stderr
}

#[tokio::test]
async fn a_large_inbox_is_right_in_every_count_and_the_same_command_again_changes_nothing() {
    let system = System::start().await;
    let database = &system.database;
    let small = [
        "--conversations",
        "60",
        "--messages",
        "5000",
        "--random-seed",
        "7",
    ];
    let said = seed(database, &small).await;
    assert!(
        said.contains("new: 60 of 60 conversations, 5000 of 5000 messages"),
        "{said}"
    );
    assert_seeded_consistent(database).await;

    let before = database.contents().await;
    let said = seed(database, &small).await;
    assert!(
        said.contains("new: 0 of 60 conversations, 0 of 5000 messages"),
        "{said}"
    );
    assert_eq!(database.contents().await, before);
    assert_eq!((before[0].0, before[1].0), (60, 5000));

    // There is some of everything.
    for sql in [
        "select count(*) from conversations where channel = 'whatsapp' and status = 'open' and archived_at is null",
        "select count(*) from conversations where channel = 'instagram'",
        "select count(*) from conversations where status = 'closed'",
        "select count(*) from conversations where archived_at is not null",
        "select count(*) from conversations where unread_count > 0",
        "select count(*) from messages where direction = 'INBOUND'",
        "select count(*) from messages where status = 'SENT' and retry_count > 0",
        "select count(*) from messages where status = 'FAILED' and error_kind = 'timeout'",
        "select count(*) from messages where status = 'FAILED' and error_kind = 'rejected'",
        "select count(*) from messages where length(text) > 200",
        "select count(*) from messages where text like '%🙏%'",
    ] {
        assert!(database.count(sql).await > 0, "{sql}");
    }
    let inbound = database.count("select count(*) from messages where direction = 'INBOUND'");
    assert!((2800..3200).contains(&inbound.await));
    let longest =
        "select max(n) from (select count(*) as n from messages group by conversation_id) c";
    assert!(database.count(longest).await > 1000, "a few are long");
    let shortest =
        "select min(n) from (select count(*) as n from messages group by conversation_id) c";
    assert!(database.count(shortest).await < 5, "many are short");
    let span =
        "select (extract(epoch from max(sort_at) - min(sort_at)) / 86400)::bigint from messages";
    assert!((80..=90).contains(&database.count(span).await), "90 days");
    assert_eq!(
        database
            .count("select count(*) from messages where greatest(sort_at, updated_at) > now()")
            .await,
        0
    );

    // A worker has been running beside it.
    assert_eq!(
        database
            .count("select count(*) from deliveries where due_at is not null")
            .await,
        0
    );
    assert_eq!(system.mock.stats().calls, 0);
}

#[tokio::test]
async fn a_large_inbox_is_shown_by_the_api() {
    let system = System::start().await;
    let database = &system.database;
    seed(database, &["--conversations", "130", "--random-seed", "1"]).await;
    assert_eq!(database.count("select count(*) from messages").await, 2600);
    let mut listed = 0;
    for archived in ["false", "true"] {
        let all = pages(
            &system,
            &format!("/conversations?limit=100&archived={archived}"),
        )
        .await;
        listed += all.len();
        let unread: i64 = all
            .iter()
            .map(|one| one["unreadCount"].as_i64().unwrap())
            .sum();
        let sql = format!(
            "select coalesce(sum(unread_count), 0) from conversations where (archived_at is not null) = {archived}"
        );
        assert_eq!(unread, database.count(&sql).await);
    }
    assert_eq!(listed, 130);

    let failed = pages(&system, "/messages?status=FAILED&limit=100").await;
    let parked = usize::try_from(database.count("select count(*) from deliveries").await).unwrap();
    assert_eq!(failed.len(), parked);
    assert!(
        failed
            .iter()
            .all(|message| message["nextAttemptAt"].is_null()
                && message["lastError"]["kind"].is_string())
    );
    let list = run(database, "retry", &["--list", "--json"]).finish().await;
    assert_eq!(list.data().as_array().unwrap().len(), parked);

    // An event of it that comes again is known.
    let event: (Vec<u8>, uuid::Uuid) =
        sqlx::query_as("select body, message_id from webhook_bodies limit 1")
            .fetch_one(database.pool())
            .await
            .unwrap();
    let event_again: Value = serde_json::from_slice(&event.0).unwrap();
    let answer = system.client.webhook(&event_again).await.expect(200);
    assert_eq!(answer["duplicate"], true);
    assert_eq!(answer["messageId"], format!("msg_{}", event.1.simple()));
    let message = system.message(answer["messageId"].as_str().unwrap()).await;
    for (field, of_event) in [
        ("channel", "channel"),
        ("participantId", "from"),
        ("text", "text"),
        ("timestamp", "timestamp"),
    ] {
        assert_eq!(message[field], event_again[of_event]);
    }
    // And what failed can be sent.
    let retry = run(
        database,
        "retry",
        &["--kind", "timeout", "--limit", "2", "--json"],
    );
    let ended = retry.env("PROVIDER_URL", &system.mock.url()).finish().await;
    assert!(
        ended
            .data()
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["status"] == "SENT")
    );
    database.assert_consistent().await;
}

#[tokio::test]
async fn one_seed_makes_the_same_inbox_everywhere_and_another_seed_another_one() {
    let (one, other) = (Database::new().await, Database::new().await);
    let arguments = |seed| ["--messages", "1000", "--random-seed", seed];
    seed(&one, &arguments("7")).await;
    seed(&other, &arguments("7")).await;
    assert_eq!(one.count("select count(*) from conversations").await, 50);
    assert_eq!(fingerprint(&one, 7).await, fingerprint(&other, 7).await);

    // Two inboxes in one database, and the demo, get in nobody's way.
    seed(&one, &arguments("8")).await;
    seed(&one, &[]).await;
    assert_seeded_consistent(&one).await;
    assert_eq!(fingerprint(&one, 7).await, fingerprint(&other, 7).await);
    let texts = |seed| {
        format!(
            "select sum(hashtext(text)) from messages where participant_id like 'seed-{seed}-%'"
        )
    };
    assert_ne!(one.count(&texts(7)).await, one.count(&texts(8)).await);

    // Without a seed it is a new one, which is said.
    let said = seed(&one, &["--conversations", "2", "--messages", "5"]).await;
    let chosen = said
        .lines()
        .find_map(|line| line.strip_prefix("random seed "))
        .unwrap();
    let said = seed(
        &one,
        &[
            "--conversations",
            "2",
            "--messages",
            "5",
            "--random-seed",
            chosen,
        ],
    )
    .await;
    assert!(said.contains("new: 0 of 2 conversations"), "{said}");
}

#[tokio::test]
async fn an_interrupted_seed_is_completed_by_the_same_command() {
    let reference = Database::new().await;
    seed(&reference, &LARGE).await;
    assert_seeded_consistent(&reference).await;
    for interruption in ["INT", "KILL"] {
        let database = Database::migrated().await;
        let holder = hold(&database).await;
        let mut seeding = run(&database, "seed", &LARGE).start();
        waiting(&database, 2).await;

        if interruption == "KILL" {
            seeding.kill();
            // What the server would do by itself once it noticed.
            let end = WAITING.replace("count(*)", "count(pg_terminate_backend(pid))");
            assert_eq!(database.count(&end).await, 2);
            waiting(&database, 0).await;
            holder.close().await.unwrap();
        } else {
            seeding.signal("INT");
            eventually("it says so", async || {
                seeding.log().concat().contains("ends when").then_some(())
            })
            .await;
            holder.close().await.unwrap();
            assert_eq!(seeding.ended().await.code(), Some(1));
            assert!(
                seeding.log().concat().contains("goes on"),
                "{:?}",
                seeding.log()
            );
        }
        let partial = database.count("select count(*) from conversations").await;
        assert!((1..800).contains(&partial), "{partial}");
        assert_seeded_consistent(&database).await;

        let said = seed(&database, &LARGE).await;
        assert!(
            said.contains(&format!("new: {} of 800 conversations", 800 - partial)),
            "{said}"
        );
        assert_seeded_consistent(&database).await;
        assert_eq!(
            fingerprint(&database, 7).await,
            fingerprint(&reference, 7).await
        );
    }
}

#[tokio::test]
async fn several_that_seed_the_same_at_once_make_it_once() {
    let database = Database::migrated().await;
    // Of two that insert one row at the very same moment either may meet either key first.
    let seeding = (0..4).map(|_| seed(&database, &LARGE));
    for said in futures_util::future::join_all(seeding).await {
        assert!(said.contains("of 800 conversations"), "{said}");
    }
    assert_eq!(
        database.count("select count(*) from messages").await,
        40_000
    );
    assert_seeded_consistent(&database).await;
}

#[tokio::test]
async fn numbers_that_make_no_inbox_end_with_2() {
    for arguments in [
        &["--conversations", "0"][..],
        &["--conversations", "1000001"],
        &["--messages", "0"],
        &["--messages", "10000001"],
        &["--conversations", "10", "--messages", "9"],
        &["--conversations", "10", "--messages", "100001"],
        &["--random-seed", "7"],
        &["--conversations", "10", "--random-seed", "-1"],
        &["--conversations", "ten"],
    ] {
        let ended = Program::new("seed").args(arguments).finish().await;
        assert_eq!(
            (ended.code, &*ended.stdout),
            (Some(2), ""),
            "{arguments:?} {ended:?}"
        );
        assert!(ended.stderr.contains("--"), "{ended:?}");
    }
}

/// Holds a row of the second statement and one of the third, until the connection is closed.
async fn hold(database: &Database) -> sqlx::PgConnection {
    let mut holder = sqlx::PgConnection::connect_with(&database.options())
        .await
        .unwrap();
    let hold = "begin; insert into conversations (id, channel, participant_id, last_message_id, last_message_at, last_message_preview)
        select gen_random_uuid(), channel, 'seed-7-' || number, gen_random_uuid(), now(), ''
        from unnest(array['whatsapp', 'instagram']) channel, unnest(array[40, 130]) number";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    holder
}

/// How many statements wait for another one.
const WAITING: &str = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

/// Waits until so many do.
async fn waiting(database: &Database, statements: i64) {
    eventually("they wait", async || {
        (database.count(WAITING).await == statements).then_some(())
    })
    .await;
}

/// Consistent, and besides what is true of seeds only: nobody has changed anything since.
async fn assert_seeded_consistent(database: &Database) {
    database.assert_consistent().await;
    for (promise, sql) in [
        (
            "unread is what came in since it was read",
            "select count(*) from conversations c where participant_id like 'seed-%' and unread_count <> (select count(*) from messages m
               where m.conversation_id = c.id and direction = 'INBOUND' and m.sort_at > coalesce(c.last_read_at, '-infinity'))",
        ),
        (
            "the last number is that of the newest outbound message",
            "select count(*) from conversations c where outbound_seq <> (select count(*) from messages m
               where m.conversation_id = c.id and direction = 'OUTBOUND')",
        ),
        (
            "places are those in the conversation",
            "select count(*) from deliveries d join messages f on f.id = d.message_id where participant_id like 'seed-%' and d.seq <> (
               select count(*) from messages m where m.conversation_id = d.conversation_id and m.direction = 'OUTBOUND' and (m.sort_at, m.id) <= (f.sort_at, f.id))",
        ),
        (
            "messages are of their conversation's participant",
            "select count(*) from messages m join conversations c on c.id = m.conversation_id
             where (m.channel, m.participant_id) <> (c.channel, c.participant_id) or m.sort_at < c.created_at",
        ),
        (
            "what is parked has failed and says why",
            "select count(*) from deliveries d join messages m on m.id = d.message_id
             where m.status <> 'FAILED' or m.error_kind is null or m.error_retryable is null or m.next_attempt_at is not null or m.retry_count < 1",
        ),
        (
            "ids are UUIDv7s of their time",
            "select count(*) from messages where participant_id like 'seed-%' and (substr(id::text, 15, 1) <> '7'
               or ('x' || replace(left(id::text, 13), '-', ''))::bit(48)::bigint <> (extract(epoch from sort_at) * 1000)::bigint)",
        ),
    ] {
        assert_eq!(database.count(sql).await, 0, "{promise}");
    }
}

/// What a seed has made: times counted from its first one, of ids what does not come from the time.
async fn fingerprint(database: &Database, seed: u32) -> Vec<i64> {
    let mut hashes = Vec::new();
    for (table, columns) in [
        (
            "conversations t",
            "substr(t.id::text, 15), t.channel, t.participant_id, t.status, substr(t.last_message_id::text, 15), t.last_message_at - zero, t.last_message_preview, t.unread_count,
             t.last_read_at - zero, t.archived_at - zero, t.outbound_seq, t.created_at - zero",
        ),
        (
            "messages t",
            "substr(t.id::text, 15), substr(t.conversation_id::text, 15), t.channel, t.direction, t.text, t.status, t.client_message_id, t.provider_message_id, t.retry_count,
             t.next_attempt_at, t.error_kind, t.error_http_status, t.error_detail, t.error_retryable, t.timestamp - zero, t.sort_at - zero,
             t.created_at - zero, t.updated_at - zero, t.sent_at - zero",
        ),
        (
            "webhook_events e join webhook_bodies using (message_id, received_at) join messages t on t.id = message_id",
            "substr(t.id::text, 15), event_id, provider, convert_from(webhook_bodies.body, 'UTF8')::jsonb - 'timestamp', received_at - zero",
        ),
        (
            "deliveries d join messages t on t.id = d.message_id",
            "substr(t.id::text, 15), substr(d.conversation_id::text, 15), d.seq, d.due_at, d.lease_token, d.attempt, d.failures",
        ),
    ] {
        let sql = format!(
            "select coalesce(sum(hashtextextended(row({columns})::text, 0) / 1000000), 0)::bigint
             from (select created_at as zero from conversations where participant_id = 'seed-{seed}-0') z, {table}
             where t.participant_id like 'seed-{seed}-%'"
        );
        hashes.push(database.count(&sql).await);
    }
    assert!(hashes.iter().all(|hash| *hash != 0), "{hashes:?}");
    hashes
}

/// All rows of a list, by its cursor.
async fn pages(system: &System, path: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut next = path.to_owned();
    loop {
        let page = system.client.get(&next).await.expect(200);
        all.extend(page["data"].as_array().unwrap().clone());
        match page["meta"]["nextCursor"].as_str() {
            Some(cursor) => next = format!("{path}&cursor={cursor}"),
            None => return all,
        }
    }
}
