//! Some slow recipients, or one key, hold up nobody else.

use mock_meta_provider::{Channel, Fault};
use serde_json::{Value, json};

use crate::support::{
    Answer, Client, NO_FIRST_ATTEMPT, Postgres, Program, Stopped, System, eventually, mock, serve,
};

/// No attempt at a message ends in a test's time, and no send waits for its own.
const PATIENT: [(&str, &str); 2] = [("PROVIDER_TIMEOUT_MS", "600000"), ("SEND_WAIT_MS", "0")];
const HANGING: usize = 700;

async fn send_as(client: &Client, key: &str, to: &str) -> Answer {
    let body = json!({ "channel": "whatsapp", "to": to, "text": "Hi" });
    let request = client.http.post(client.url("/messages/send")).json(&body);
    client.call(request.bearer_auth(key)).await.unwrap()
}

/// Sends so many messages, 50 at a time, to whom `to` says; all are accepted.
async fn send_many(client: &Client, key: &str, count: usize, to: impl Fn(usize) -> String) {
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(50) {
        let sends = some.iter().map(async |n| {
            send_as(client, key, &to(*n)).await.expect(201);
        });
        futures_util::future::join_all(sends).await;
    }
}

/// Another's message is sent while all of those to the hanging recipient are still waiting for an
/// answer.
async fn assert_another_is_sent(system: &System, message: &Value) {
    let id = message["id"].as_str().unwrap();
    system.message_becomes(id, "SENT").await;
    let unsettled =
        "select count(*) from messages where participant_id like 'hanging%' and status = 'PENDING'";
    let unsettled = system.database.count(unsettled).await;
    assert_eq!(usize::try_from(unsettled), Ok(HANGING));
}

async fn hang(environment: &[(&str, &str)]) -> System {
    let system = System::with(&[&PATIENT, environment].concat()).await;
    system.mock.script_always("hanging", Fault::Hang);
    send_many(&system.client, "", HANGING, |_| "hanging".to_owned()).await;
    system
}

#[tokio::test]
async fn a_recipient_that_hangs_holds_up_nobody_elses_first_attempt() {
    let system = hang(&[]).await;
    let other = system.send("other", "Hi").await;
    assert_another_is_sent(&system, &other).await;
    // One in eight of 256, and of the worker's 64.
    eventually("all that may are in flight", async || {
        (system.client.metric("gateway_attempts_in_flight").await >= 40.0).then_some(())
    })
    .await;
    assert_eq!(system.mock.stats().faults.hang, 40);
}

#[tokio::test]
async fn a_recipient_that_hangs_holds_up_nobody_elses_retry() {
    let system = hang(&[("RETRY_BASE_MS", "1")]).await;
    let faults = [503, 500, 502].map(Fault::server_error);
    system.mock.script("other", faults);
    let other = system.send("other", "Hi").await;
    assert_another_is_sent(&system, &other).await;
    let id = other["id"].as_str().unwrap();
    assert_eq!(system.message(id).await["retryCount"], 3);
}

#[tokio::test]
async fn a_recipient_that_hangs_holds_up_nothing_that_is_stored_for_a_worker() {
    for (places, order) in [
        ("64", "none"),
        ("8", "none"),
        ("2", "none"),
        ("8", "conversation"),
    ] {
        let environment = [
            NO_FIRST_ATTEMPT,
            ("WORKER_CONCURRENCY", places),
            ("DELIVERY_ORDER", order),
            ("ORDER_MAX_WAIT_MS", "0"),
        ];
        let system = hang(&environment).await;
        let other = system.send("other", "Hi").await;
        assert_another_is_sent(&system, &other).await;
    }
}

#[tokio::test]
async fn what_waits_for_its_recipients_share_goes_when_another_ends() {
    let environment = [NO_FIRST_ATTEMPT, ("WORKER_CONCURRENCY", "8")];
    let system = System::with(&environment).await;
    // One at a time, so each of the others has to be woken: by looking every half a second it would
    // take too long.
    send_many(&system.client, "", 200, |_| "one".to_owned()).await;
    eventually("all are sent", async || {
        let unsent = "select count(*) from messages where status <> 'SENT'";
        (system.database.count(unsent).await == 0).then_some(())
    })
    .await;
    let texts = system.mock.texts(Channel::Whatsapp, "one");
    assert_eq!(texts.len(), 200);
}

#[tokio::test]
async fn a_drain_sends_everything_of_one_recipient_and_ends() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    send_many(&system.client, "", 100, |_| "one".to_owned()).await;
    for concurrency in ["1", "20"] {
        system.drain(&[("WORKER_CONCURRENCY", concurrency)]).await;
        let unsent = "select count(*) from messages where status <> 'SENT'";
        assert_eq!(system.database.count(unsent).await, 0);
        send_many(&system.client, "", 50, |n| format!("user-{}", n % 2)).await;
    }
}

#[tokio::test]
async fn a_drain_goes_on_with_others_while_a_recipient_hangs() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    system.mock.script_always("hanging", Fault::Hang);
    send_many(&system.client, "", 3, |_| "hanging".to_owned()).await;
    send_many(&system.client, "", 10, |_| "other".to_owned()).await;
    let drain = Program::new("worker")
        .args(&["--drain"])
        .env("DATABASE_URL", system.database.url())
        .env("PROVIDER_URL", &system.mock.url())
        .env("WORKER_CONCURRENCY", "8")
        .envs(&PATIENT[..1])
        .start();
    eventually("all of the other's are sent", async || {
        let unsent = "select count(*) from messages where status <> 'SENT'";
        (system.database.count(unsent).await == 3).then_some(())
    })
    .await;
    drop(drain);
}

#[tokio::test]
async fn a_key_holds_no_more_than_half_of_the_places() {
    let keys = (
        "API_KEYS",
        "greedy:greedy-key:send,other:other-key:send,ops:ops-key",
    );
    let system = System::with(&[&PATIENT[..], &[keys]].concat()).await;
    system.mock.script_always(None, Fault::Hang);
    system.mock.script("other", [Fault::Ok]);
    // To as many recipients: no share of theirs is used up.
    send_many(&system.client, "greedy-key", HANGING, |n| {
        format!("hanging-{n}")
    })
    .await;
    let other = send_as(&system.client, "other-key", "other")
        .await
        .expect(201);
    let id = other["id"].as_str().unwrap();
    eventually("another's is sent", async || {
        let request = system
            .client
            .http
            .get(system.client.url(&format!("/messages/{id}")));
        let answer = system.client.call(request.bearer_auth("other-key")).await;
        (answer.unwrap().expect(200)["status"] == "SENT").then_some(())
    })
    .await;
    let pending = "select count(*) from messages where sent_by = 'greedy' and status = 'PENDING'";
    let pending = system.database.count(pending).await;
    assert_eq!(usize::try_from(pending), Ok(HANGING));
}

#[tokio::test]
async fn a_key_has_no_more_than_a_quarter_of_the_accept_queue() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let mock = mock().await;
    let keys = ("API_KEYS", "greedy:greedy-key:send,other:other-key:send");
    let gateway = serve(&database, &mock, &[keys]).await;
    let client = Client::new(gateway.url());
    send_as(&client, "other-key", "other").await.expect(201);
    let stopped = Stopped::all_of(&postgres);
    let greedy = (0..300).map(async |n| send_as(&client, "greedy-key", &format!("user-{n}")).await);
    let greedy = futures_util::future::join_all(greedy);
    let other = send_as(&client, "other-key", "other");
    let (greedy, other) = tokio::join!(greedy, other);
    drop(stopped);
    let codes: Vec<_> = greedy
        .iter()
        .map(|answer| answer.json()["code"].clone())
        .collect();
    let overloaded = codes.iter().filter(|code| *code == "overloaded").count();
    assert_eq!(overloaded, 300 - 256, "{codes:?}");
    other.expect_problem(503, "database_unavailable");
}
