//! `DELIVERY_ORDER=conversation`: the messages of a conversation reach the provider in the order in
//! which they were accepted.

use futures_util::future::join_all;
use mock_meta_provider::{Behaviour, Channel, Fault};
use serde_json::{Value, json};

use crate::support::{
    Client, Held, LONG_ATTEMPT, NO_RETRY, ORDERED, Program, RETRY_AT_ONCE, System, eventually, id,
};

const NO_LIMIT: (&str, &str) = ("ORDER_MAX_WAIT_MS", "86400000");
/// Sends a text that must be answered with this status.
async fn send(system: &System, text: &str, status: &str) -> Value {
    let message = system.send("user-1", text).await;
    assert_eq!(message["status"], status, "{message}");
    message
}

/// How many deliveries are due, and not claimed yet.
async fn due(system: &System) -> i64 {
    let due = "select count(*) from deliveries where due_at <= now()";
    system.database.count(due).await
}

#[track_caller]
fn assert_delivered_once(system: &System) {
    for message in system.mock.ledger().messages {
        assert_eq!(
            (message.deliveries, message.max_overlapping_calls),
            (1, 1),
            "{message:?}"
        );
    }
}

#[tokio::test]
async fn followers_of_a_failed_message_arrive_in_order_across_two_workers_and_a_crash() {
    let mut system = System::with(&[ORDERED, NO_LIMIT, NO_RETRY, LONG_ATTEMPT]).await;
    system
        .mock
        .script("user-1", [Fault::server_error(500), Fault::Hang]);
    let texts: Vec<_> = (0..10).map(|n| format!("text {n}")).collect();
    let first = send(&system, &texts[0], "FAILED").await;
    for text in &texts[1..] {
        send(&system, text, "PENDING").await;
    }
    system.skip_backoffs().await;
    eventually("the second attempt is in flight", async || {
        (system.mock.message(id(&first)).unwrap().calls == 2).then_some(())
    })
    .await;
    system.gateway.kill();

    // Some of the followers fail on their way, too.
    let faults = [
        Fault::Ok,
        Fault::server_error(500),
        Fault::Ok,
        Fault::LostAnswer,
    ];
    system.mock.script("user-1", faults);
    let worker = [ORDERED, NO_LIMIT, RETRY_AT_ONCE, LONG_ATTEMPT];
    let _workers = (system.worker(&worker).await, system.worker(&worker).await);
    system.expire_leases().await;
    system.database.all_sent().await;
    assert_eq!(system.mock.texts(Channel::Whatsapp, "user-1"), texts);
    assert_eq!(system.mock.stats().calls, 14);
    assert_delivered_once(&system);
}

#[tokio::test]
async fn a_follower_is_due_as_soon_as_the_one_before_it_has_ended() {
    let provider = Held::start().await;
    let worker = [
        ORDERED,
        NO_LIMIT,
        NO_RETRY,
        LONG_ATTEMPT,
        ("PROVIDER_URL", provider.url()),
    ];
    // No worker, whose sweep would make up for a missing release.
    let system = System::without_worker(&[&worker[..], &[("SEND_WAIT_MS", "1")]].concat()).await;
    for ending in ["sent", "rejected", "canceled"] {
        let first = send(&system, "first", "PENDING").await;
        let attempt = provider.call().await;
        let second = send(&system, "second", "PENDING").await;
        assert_eq!(due(&system).await, 0, "the first has not ended");
        match ending {
            "sent" => attempt.accept("first").await,
            "rejected" => attempt.answer(422, &json!({})).await,
            _ => {
                attempt.answer(503, &json!({})).await;
                system.message_becomes(id(&first), "FAILED").await;
                assert_eq!(due(&system).await, 0, "a retry of the first is to come");
                system.act(&first, "cancel", 200).await;
            }
        }
        eventually("the second is due", async || {
            (due(&system).await == 1).then_some(())
        })
        .await;
        let sent = async {
            let next = provider.call().await;
            assert_eq!(next.key, id(&second), "{ending}");
            next.accept("second").await;
        };
        tokio::join!(system.drain(&worker), sent);
        assert_eq!(system.message(id(&second)).await["status"], "SENT");
    }
}

#[tokio::test]
async fn a_message_behind_another_is_answered_without_waiting() {
    let provider = Held::start().await;
    let url = ("PROVIDER_URL", provider.url());
    let system = System::with(&[
        ORDERED,
        NO_LIMIT,
        LONG_ATTEMPT,
        url,
        ("SEND_WAIT_MS", "600000"),
    ])
    .await;
    let client = system.client.clone();
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "first" });
    let first = tokio::spawn(async move { client.post("/messages/send", &body).await });
    let attempt = provider.call().await;
    send(&system, "second", "PENDING").await;
    assert!(!first.is_finished());
    attempt.accept("first").await;
    assert_eq!(first.await.unwrap().expect(201)["status"], "SENT");
}

#[tokio::test]
async fn a_follower_waits_no_longer_than_the_limit() {
    let system = System::with(&[ORDERED, NO_RETRY, ("ORDER_MAX_WAIT_MS", "1")]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    let first = send(&system, "first", "FAILED").await;
    let second = send(&system, "second", "PENDING").await;
    system.message_becomes(id(&second), "SENT").await;
    assert_eq!(system.message(id(&first)).await, first);
}

#[tokio::test]
async fn a_failed_message_that_an_operator_retries_goes_to_the_end() {
    let system = System::with(&[ORDERED, NO_LIMIT, NO_RETRY]).await;
    system
        .mock
        .script("user-1", [Fault::Reject, Fault::server_error(500)]);
    let first = send(&system, "first", "FAILED").await;
    send(&system, "second", "FAILED").await;
    send(&system, "third", "PENDING").await;
    system.act(&first, "retry", 202).await;
    send(&system, "fourth", "PENDING").await;
    system.skip_backoffs().await;
    system.database.all_sent().await;
    let order = ["second", "third", "first", "fourth"];
    assert_eq!(system.mock.texts(Channel::Whatsapp, "user-1"), order);
}

#[tokio::test]
async fn a_retried_message_with_nothing_before_it_goes_at_once() {
    let system = System::with(&[ORDERED, NO_LIMIT, NO_RETRY]).await;
    system.mock.script("user-1", [Fault::Reject]);
    let message = send(&system, "first", "FAILED").await;
    system.act(&message, "retry", 202).await;
    system.message_becomes(id(&message), "SENT").await;
}

#[tokio::test]
async fn other_conversations_are_not_held_up() {
    let system = System::with(&[ORDERED, NO_LIMIT, NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    send(&system, "first", "FAILED").await;
    send(&system, "second", "PENDING").await;
    assert_eq!(
        system.send("user-2", "another participant").await["status"],
        "SENT"
    );
    let elsewhere = json!({ "channel": "instagram", "to": "user-1", "text": "another channel" });
    let elsewhere = system
        .client
        .post("/messages/send", &elsewhere)
        .await
        .expect(201);
    assert_eq!(elsewhere["status"], "SENT");
}

#[tokio::test]
async fn by_default_no_message_waits_for_another() {
    let system = System::with(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    send(&system, "first", "FAILED").await;
    send(&system, "second", "SENT").await;
}

#[tokio::test]
async fn a_release_that_was_lost_in_a_crash_is_repeated() {
    let system = System::without_worker(&[ORDERED, NO_LIMIT, NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    send(&system, "first", "FAILED").await;
    let second = send(&system, "second", "PENDING").await;
    // As a process leaves it that dies between writing SENT and the release.
    system
        .database
        .execute("delete from deliveries where attempt > 0; update messages set status = 'SENT', sent_at = now() where text = 'first'")
        .await;
    system.drain(&[ORDERED]).await;
    assert_eq!(system.message(id(&second)).await["status"], "SENT");
}

/// Two gateways that work as fast as they can on a provider that fails often.
async fn two_gateways_and_a_bad_provider() -> (System, [Client; 2], Program) {
    let environment = [
        ORDERED,
        NO_LIMIT,
        RETRY_AT_ONCE,
        ("RETRY_CAP_MS", "10"),
        ("RETRY_MAX_ATTEMPTS", "1000"),
        ("SEND_WAIT_MS", "1"),
    ];
    let system = System::with(&environment).await;
    let (other, other_client) = system.another(&environment).await;
    let behaviour = Behaviour {
        failure_rate: 0.3,
        lost_answer_rate: 0.1,
        delay_max_ms: 10,
        ..Behaviour::CALM
    };
    system.mock.set_behaviour(behaviour).unwrap();
    let clients = [system.client.clone(), other_client];
    (system, clients, other)
}

#[tokio::test]
async fn what_is_sent_one_after_the_other_through_two_gateways_arrives_in_that_order() {
    let (system, clients, _other) = two_gateways_and_a_bad_provider().await;
    let texts: Vec<_> = (0..20).map(|n| format!("text {n}")).collect();
    for (n, text) in texts.iter().enumerate() {
        let body = json!({ "channel": "whatsapp", "to": "user-1", "text": text });
        clients[n % 2]
            .post("/messages/send", &body)
            .await
            .expect(201);
    }
    system.database.all_sent().await;
    assert_eq!(system.mock.texts(Channel::Whatsapp, "user-1"), texts);
    assert_delivered_once(&system);
}

#[tokio::test]
async fn what_is_sent_at_the_same_time_arrives_in_the_order_of_acceptance() {
    let (system, clients, _other) = two_gateways_and_a_bad_provider().await;
    // The queue forgets what is sent.
    let keep_order = "create table accepted (message_id uuid, seq bigint);
        create function keep() returns trigger language plpgsql as
          'begin insert into accepted values (new.message_id, new.seq); return new; end';
        create trigger keep after insert on deliveries for each row execute function keep()";
    system.database.execute(keep_order).await;
    let bodies: Vec<_> = (0..60)
        .map(|n| json!({ "channel": "whatsapp", "to": format!("user-{}", n % 5), "text": format!("text {n}") }))
        .collect();
    let sends = bodies
        .iter()
        .enumerate()
        .map(|(n, body)| clients[n / 5 % 2].post("/messages/send", body));
    join_all(sends)
        .await
        .iter()
        .for_each(|answer| drop(answer.expect(201)));
    system.database.all_sent().await;

    let order = "select text from accepted join messages on id = message_id where participant_id = $1 order by seq";
    for n in 0..5 {
        let to = format!("user-{n}");
        let accepted: Vec<String> = sqlx::query_scalar(order)
            .bind(&to)
            .fetch_all(system.database.pool())
            .await
            .unwrap();
        assert_eq!(accepted.len(), 12);
        assert_eq!(system.mock.texts(Channel::Whatsapp, &to), accepted);
    }
    assert_delivered_once(&system);
}
