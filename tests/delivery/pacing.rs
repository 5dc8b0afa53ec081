//! Pacing: a 429 slows its whole channel, in all processes; and no channel is called more often
//! than is allowed.

use futures_util::future::join_all;
use mock_meta_provider::{Behaviour, Fault};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::support::{Client, Database, NO_FIRST_ATTEMPT, NO_RETRY, ORDERED, System, id, run};

/// Longer than any test: an answer that comes at all came at once.
const LONG_WAIT: (&str, &str) = ("SEND_WAIT_MS", "600000");

async fn send(client: &Client, channel: &str, to: &str) -> Value {
    let body = json!({ "channel": channel, "to": to, "text": "Merhaba!" });
    client.post("/messages/send", &body).await.expect(201)
}

/// Has the provider answer 429, and ask for an hour of patience.
async fn pause(system: &System) -> Value {
    system
        .mock
        .script("limited", [Fault::rate_limit_after(3600)]);
    let limited = send(&system.client, "whatsapp", "limited").await;
    assert_eq!(limited["lastError"]["kind"], "rate_limited", "{limited}");
    limited
}

/// Keeps the time of each lease, by the database's clock: that is when a call may begin.
async fn watch_leases(database: &Database) {
    let watch = "create table leases (channel text, at timestamptz);
        create function keep() returns trigger language plpgsql as
          'begin insert into leases values (new.channel, now()); return new; end';
        create trigger born after insert on deliveries for each row when (new.lease_token is not null) execute function keep();
        create trigger claimed after update on deliveries for each row
          when (new.lease_token is not null and new.lease_token is distinct from old.lease_token) execute function keep()";
    database.execute(watch).await;
}

/// The most leases of one channel in any second.
async fn most_in_a_second(database: &Database) -> i64 {
    let most = "select max(n) from (select (select count(*) from leases b
          where b.channel = a.channel and b.at >= a.at and b.at < a.at + interval '1 second') as n from leases a) counted";
    database.count(most).await
}

#[tokio::test]
async fn a_429_pauses_its_channel_in_every_process_and_no_other_channel() {
    let environment = [NO_RETRY, LONG_WAIT];
    let system = System::with(&environment).await;
    let (_other, other) = system.another(&environment).await;
    let _worker = system.worker(&environment).await;
    let limited = pause(&system).await;
    let waiting = [
        send(&system.client, "whatsapp", "user-1").await,
        send(&other, "whatsapp", "user-2").await,
    ];
    for message in &waiting {
        assert_eq!(message["status"], "PENDING", "{message}");
    }
    // An operator cannot send it either.
    let retry = format!("/messages/{}/retry", id(&limited));
    system.client.post(&retry, &json!({})).await.expect(202);
    // Both gateways and all three workers are at work.
    for client in [&system.client, &other] {
        let elsewhere = send(client, "instagram", "user-1").await;
        assert_eq!(elsewhere["status"], "SENT", "{elsewhere}");
    }
    let metrics = system.client.get("/metrics").await.text;
    assert!(metrics.contains("gateway_deliveries{state=\"paused\"} 3"));
    assert!(metrics.contains("gateway_deliveries_due_age_seconds 0"));
    let calls = system.mock.message(id(&limited)).unwrap().calls;
    assert_eq!((calls, system.mock.stats().calls), (1, 3));
    let said = system
        .gateway
        .logged("a channel is paused: the provider has answered 429");
    assert_eq!(said.await["channel"], "whatsapp");

    system.end_pauses().await;
    system.database.all_sent().await;
}

#[tokio::test]
async fn a_pause_is_written_before_the_failure_that_it_comes_from() {
    let system = System::without_worker(&[NO_RETRY]).await;
    let watch = "create table seen (paused boolean);
        create function look() returns trigger language plpgsql as $$ begin
          insert into seen select paused_until > now() from channels where channel = new.channel; return new; end $$;
        create trigger failed before update on messages for each row when (new.status = 'FAILED') execute function look()";
    system.database.execute(watch).await;
    pause(&system).await;
    let seen: Vec<bool> = sqlx::query_scalar("select paused from seen")
        .fetch_all(system.database.pool())
        .await
        .unwrap();
    assert_eq!(seen, [true]);
}

/// Whoever sees that calls are not spread asks nothing else.
#[tokio::test]
async fn a_pause_without_a_ramp_is_refused_by_the_database() {
    let database = Database::migrated().await;
    let pause = "update channels set paused_until = now() + interval '1 hour', ramp_until = now()";
    let refused = sqlx::query(pause).execute(database.pool()).await;
    let error = refused.unwrap_err();
    let refusal = error.as_database_error().unwrap();
    assert_eq!(refusal.code().as_deref(), Some("23514"), "{error}");
}

#[tokio::test]
async fn a_claim_waits_for_no_other_where_calls_are_not_spread() {
    let system = System::with(&[NO_FIRST_ATTEMPT]).await;
    let mut other = system.database.pool().acquire().await.unwrap();
    sqlx::raw_sql("begin; select from channels for update")
        .execute(&mut *other)
        .await
        .unwrap();
    let message = send(&system.client, "whatsapp", "user-1").await;
    system.message_becomes(id(&message), "SENT").await;
    sqlx::raw_sql("rollback")
        .execute(&mut *other)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_was_due_before_the_pause_waits_too() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    system
        .mock
        .script("limited", [Fault::rate_limit_after(3600)]);
    let limited = send(&system.client, "whatsapp", "limited").await;
    let behind = send(&system.client, "whatsapp", "user-1").await;
    system.drain(&[("WORKER_CONCURRENCY", "1")]).await;
    let limited = system.message(id(&limited)).await;
    assert_eq!(limited["lastError"]["kind"], "rate_limited", "{limited}");
    assert_eq!(system.message(id(&behind)).await["status"], "PENDING");
    assert_eq!(system.mock.stats().calls, 1);
}

#[tokio::test]
async fn without_retry_after_a_channel_pauses_for_the_backoff_and_goes_on_by_itself() {
    let system = System::with(&[("RETRY_BASE_MS", "300")]).await;
    system.mock.script("limited", [Fault::rate_limit()]);
    let limited = send(&system.client, "whatsapp", "limited").await;
    assert_eq!(limited["status"], "FAILED", "{limited}");
    let pause = "select (extract(epoch from paused_until - updated_at) * 1000)::bigint from channels c join messages m on m.channel = c.channel";
    let pause = system.database.count(pause).await;
    assert!((100..=300).contains(&pause), "{pause} ms");
    let next = send(&system.client, "whatsapp", "user-1").await;
    system.message_becomes(id(&next), "SENT").await;
    system.message_becomes(id(&limited), "SENT").await;
}

#[tokio::test]
async fn after_a_pause_calls_ramp_up() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    let sends = (0..250).map(|n| {
        let client = &system.client;
        async move { send(client, "whatsapp", &format!("user-{n}")).await }
    });
    join_all(sends).await;
    watch_leases(&system.database).await;
    system
        .database
        .execute("update channels set paused_until = now() + interval '10 ms', ramp_until = now() + interval '10 s'")
        .await;
    let _workers = (system.worker(&[]).await, system.worker(&[]).await);
    system.database.all_sent().await;
    let of_second = async |second: i64| {
        let count = format!(
            "select count(*) from leases l, channels c where c.channel = l.channel
               and l.at - c.paused_until >= interval '1 second' * {second} and l.at - c.paused_until < interval '1 second' * {second} + interval '1 second'"
        );
        system.database.count(&count).await
    };
    let (first, second) = (of_second(0).await, of_second(1).await);
    // 50 a second at its beginning, 100 at its end; twice that in the next one.
    assert!(
        (1..=100).contains(&first) && (1..=200).contains(&second),
        "{first}, {second}"
    );
}

#[tokio::test]
async fn a_limit_holds_across_processes_in_any_second() {
    let environment = [("PROVIDER_MAX_PER_SECOND", "40"), LONG_WAIT];
    let system = System::with(&environment).await;
    let (_other, other) = system.another(&environment).await;
    let _worker = system.worker(&environment).await;
    watch_leases(&system.database).await;
    let behaviour = Behaviour {
        server_error_rate: 0.2,
        ..Behaviour::CALM
    };
    system.mock.set_behaviour(behaviour).unwrap();
    let sends = (0..120).map(|n| {
        let client = [&system.client, &other][n % 2];
        let channel = ["whatsapp", "instagram", "instagram"][n % 3];
        async move { send(client, channel, &format!("user-{n}")).await }
    });
    let answers = join_all(sends).await;
    let attempted = answers
        .iter()
        .filter(|answer| answer["status"] != "PENDING");
    assert!(
        attempted.count() > 0,
        "no place was free for a first attempt"
    );
    system.mock.set_behaviour(Behaviour::CALM).unwrap();
    system.database.all_sent().await;
    let most = most_in_a_second(&system.database).await;
    assert!((2..=40).contains(&most), "{most}");
}

#[tokio::test]
async fn below_the_limit_each_send_is_answered_after_its_first_attempt() {
    let system = System::without_worker(&[("PROVIDER_MAX_PER_SECOND", "1000")]).await;
    for n in 0..10 {
        let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi", "clientMessageId": format!("key-{n}") });
        let answer = system
            .client
            .post("/messages/send", &body)
            .await
            .expect(201);
        assert_eq!(answer["status"], "SENT", "{answer}");
        let again = system
            .client
            .post("/messages/send", &body)
            .await
            .expect(200);
        assert_eq!(again["id"], answer["id"]);
    }
    assert_eq!(system.mock.stats().calls, 10);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn beyond_the_limit_a_send_is_stored_and_answered_at_once() {
    let environment = [("PROVIDER_MAX_PER_SECOND", "1"), LONG_WAIT];
    let system = System::without_worker(&environment).await;
    let sends = (0..5).map(|n| {
        let client = &system.client;
        async move { send(client, "whatsapp", &format!("user-{n}")).await }
    });
    let answers = join_all(sends).await;
    let pending = answers
        .iter()
        .filter(|answer| answer["status"] == "PENDING");
    assert!(pending.count() >= 3, "{answers:?}");
    system.drain(&environment).await;
    system.database.all_sent().await;
}

#[tokio::test]
async fn order_is_kept_within_the_pace() {
    let environment = [
        ORDERED,
        ("PROVIDER_MAX_PER_SECOND", "50"),
        ("ORDER_MAX_WAIT_MS", "86400000"),
        ("RETRY_BASE_MS", "20"),
    ];
    let system = System::with(&environment).await;
    let _worker = system.worker(&environment).await;
    system.mock.script(
        "user-1",
        [
            Fault::Ok,
            Fault::rate_limit(),
            Fault::Ok,
            Fault::rate_limit(),
        ],
    );
    let texts: Vec<_> = (0..12).map(|n| format!("text {n}")).collect();
    for text in &texts {
        system.send("user-1", text).await;
    }
    system.database.all_sent().await;
    let arrived = system
        .mock
        .texts(mock_meta_provider::Channel::Whatsapp, "user-1");
    assert_eq!(arrived, texts);
}

#[tokio::test]
async fn a_drain_waits_for_a_short_pause_and_leaves_what_a_long_one_holds_back() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    let message = send(&system.client, "whatsapp", "user-1").await;
    let pause = async |length: &str| {
        let pause = format!(
            "update channels set paused_until = now() + interval '{length}', ramp_until = now() + interval '{length}'"
        );
        system.database.execute(&pause).await;
    };
    pause("1 hour").await;
    let elsewhere = send(&system.client, "instagram", "user-1").await;
    let resume = "update channels set paused_until = 'epoch', ramp_until = 'epoch' where channel = 'instagram'";
    system.database.execute(resume).await;
    system.drain(&[]).await;
    assert_eq!(system.message(id(&message)).await["status"], "PENDING");
    assert_eq!(system.message(id(&elsewhere)).await["status"], "SENT");
    pause("300 ms").await;
    system.drain(&[]).await;
    assert_eq!(system.message(id(&message)).await["status"], "SENT");
}

#[tokio::test]
async fn a_retry_says_that_a_channel_is_paused() {
    let system = System::without_worker(&[NO_RETRY]).await;
    let limited = pause(&system).await;
    let ended = run(&system.database, "retry", &[id(&limited), "--json"])
        .env("PROVIDER_URL", &system.mock.url())
        .envs(&[("ORDER_MAX_WAIT_MS", "0"), ("PROVIDER_TIMEOUT_MS", "1")])
        .finish()
        .await;
    assert!(
        ended.stderr.contains("whatsapp is paused until"),
        "{ended:?}"
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(system.mock.stats().calls, 1);
}

#[tokio::test]
async fn a_channel_that_a_stranger_has_locked_holds_up_its_attempts_and_no_request() {
    let system = System::with(&[("PROVIDER_MAX_PER_SECOND", "1000")]).await;
    let mut stranger = system.database.pool().acquire().await.unwrap();
    let execute = async |stranger: &mut PgConnection, sql: &'static str| {
        sqlx::raw_sql(sql).execute(stranger).await.unwrap();
    };
    execute(&mut stranger, "begin; select from channels for update").await;
    let message = send(&system.client, "whatsapp", "user-1").await;
    assert_eq!(message["status"], "PENDING", "{message}");
    execute(&mut stranger, "rollback").await;
    system.message_becomes(id(&message), "SENT").await;
    assert_eq!(system.mock.stats().calls, 1);
}
