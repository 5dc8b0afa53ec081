//! What has failed: an operator lists it, retries it with a fresh budget, or cancels it.

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{
    Held, LONG_ATTEMPT, NO_FIRST_ATTEMPT, NO_RETRY, RETRY_AT_ONCE, SHORT_WAIT, System, eventually,
    hello, id,
};

/// The message, once no further attempt is going to be made by itself.
async fn failed_for_good(system: &System, id: &str) -> Value {
    eventually("no attempts are left", async || {
        let message = system.message(id).await;
        (message["status"] == "FAILED" && message["nextAttemptAt"].is_null()).then_some(message)
    })
    .await
}

/// The ids on each page of a list, until there is no next one.
async fn pages(system: &System, query: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let list = system
            .client
            .get(&format!("/messages?{query}{cursor}"))
            .await
            .expect(200);
        let data = list["data"].as_array().unwrap();
        pages.push(data.iter().map(|message| message["id"].clone()).collect());
        assert!(pages.len() < 10, "it never ends: {pages:?}");
        match list["meta"]["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

/// Six failures, and one message that went through among them: the ids and channels of the
/// failures, newest first.
async fn failures(system: &System) -> Vec<(Value, &'static str)> {
    let mut failed = Vec::new();
    for n in 0..7 {
        let fault = [
            Fault::Reject,
            Fault::Reject,
            Fault::server_error(500),
            Fault::Ok,
        ][n % 4]
            .clone();
        system.mock.script("user-1", [fault]);
        let channel = ["whatsapp", "instagram"][n % 2];
        let body = json!({ "channel": channel, "to": "user-1", "text": format!("text {n}") });
        let message = system
            .client
            .post("/messages/send", &body)
            .await
            .expect(201);
        if message["status"] == "FAILED" {
            failed.insert(0, (message["id"].clone(), channel));
        }
    }
    assert_eq!(failed.len(), 6);
    failed
}

#[tokio::test]
async fn what_has_failed_is_listed_newest_first_by_cursor_and_channel() {
    let system = System::with(&[NO_RETRY]).await;
    let failed = failures(&system).await;
    let expected = |channels: &[&str]| -> Vec<Vec<Value>> {
        let listed = failed
            .iter()
            .filter(|(_, channel)| channels.contains(channel));
        let ids: Vec<_> = listed.map(|(id, _)| id.clone()).collect();
        ids.chunks(2).map(<[Value]>::to_vec).collect()
    };
    let query = "status=FAILED&limit=2";
    let everything = expected(&["whatsapp", "instagram"]);
    assert_eq!(pages(&system, query).await, everything);
    for channel in ["whatsapp", "instagram"] {
        let of_channel = pages(&system, &format!("{query}&channel={channel}")).await;
        assert_eq!(of_channel, expected(&[channel]));
    }
    assert_eq!(
        pages(&system, "status=PENDING").await,
        [Vec::<Value>::new()]
    );
}

#[tokio::test]
async fn an_operators_retry_is_sent_with_a_fresh_budget() {
    let system = System::with(&[RETRY_AT_ONCE, ("RETRY_MAX_ATTEMPTS", "2")]).await;
    let error = Fault::server_error(500);
    // Two use the first budget up; a third would, if the budget were not a fresh one.
    system
        .mock
        .script("user-1", [error.clone(), error.clone(), error]);
    let message = system.send("user-1", "Merhaba!").await;
    failed_for_good(&system, id(&message)).await;

    let retried = system
        .client
        .post(&format!("/messages/{}/retry", id(&message)), &json!({}))
        .await
        .expect(202);
    assert_eq!(retried["id"], message["id"]);
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["retryCount"], 3);
    assert_eq!(system.mock.message(id(&message)).unwrap().calls, 4);
}

#[tokio::test]
async fn an_operators_retry_does_not_wait_for_the_backoff() {
    let system = System::with(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    let message = system.send("user-1", "Merhaba!").await;
    system
        .client
        .post(&format!("/messages/{}/retry", id(&message)), &json!({}))
        .await
        .expect(202);
    system.message_becomes(id(&message), "SENT").await;
}

#[tokio::test]
async fn only_what_has_failed_can_be_retried() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    let received = system.client.webhook(&hello("evt_1")).await.expect(200);
    let inbound = received["messageId"].as_str().unwrap();
    let sent = system.send("user-1", "sent").await;
    system.drain(&[]).await;
    let pending = system.send("user-1", "pending").await;
    for message in [inbound, id(&sent), id(&pending)] {
        let before = system.message(message).await;
        let path = format!("/messages/{message}/retry");
        system
            .client
            .post(&path, &json!({}))
            .await
            .expect_problem(409, "not_failed");
        assert_eq!(system.message(message).await, before);
    }
    for message in [inbound, id(&sent)] {
        let path = format!("/messages/{message}/cancel");
        system
            .client
            .post(&path, &json!({}))
            .await
            .expect_problem(409, "not_cancelable");
    }
    let unknown = "/messages/msg_01941f297c0070008000000000000002/retry";
    system
        .client
        .post(unknown, &json!({}))
        .await
        .expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_retry_during_an_attempt_changes_nothing() {
    let provider = Held::start().await;
    let system = System::with(&[
        RETRY_AT_ONCE,
        ("PROVIDER_URL", provider.url()),
        LONG_ATTEMPT,
        SHORT_WAIT,
    ])
    .await;
    let message = system.send("user-1", "Merhaba!").await;
    let path = format!("/messages/{}", id(&message));
    // During the first attempt it is PENDING, during the second FAILED.
    for status in ["PENDING", "FAILED"] {
        let attempt = provider.call().await;
        let before = system.message(id(&message)).await;
        assert_eq!(before["status"], status);
        let retried = system
            .client
            .post(&format!("{path}/retry"), &json!({}))
            .await
            .expect(202);
        assert_eq!(retried, before);
        assert_eq!(system.message(id(&message)).await, before);
        attempt.answer(503, &json!({})).await;
    }
    provider.call().await.accept("third").await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["retryCount"], 2);
    assert!(provider.is_idle().await);
}

#[tokio::test]
async fn a_retry_of_what_a_dead_process_has_left_gives_it_a_fresh_budget() {
    let system = System::without_worker(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    let message = system.send("user-1", "Merhaba!").await;
    let abandon = "update deliveries set attempt = 9, failures = 8, lease_token = gen_random_uuid(), due_at = now() - interval '1 s'";
    system.database.execute(abandon).await;
    let retried = system.act(&message, "retry", 202).await;
    assert_eq!(retried["status"], "FAILED");
    assert!(retried["nextAttemptAt"].is_string(), "{retried}");
    let fresh = "select count(*) from deliveries where attempt = 0 and failures = 0 and lease_token is null and due_at <= now()";
    assert_eq!(system.database.count(fresh).await, 1);

    // One at which no attempt has ended has not failed.
    let unsent = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    let message = unsent.send("user-1", "Merhaba!").await;
    unsent.database.execute(abandon).await;
    let path = format!("/messages/{}/retry", id(&message));
    let refused = unsent.client.post(&path, &json!({})).await;
    refused.expect_problem(409, "not_failed");
    assert_eq!(unsent.message(id(&message)).await, message);
}

#[tokio::test]
async fn a_canceled_message_is_sent_only_when_an_operator_retries_it() {
    let system = System::with(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    let message = system.send("user-1", "Merhaba!").await;
    let canceled = system.act(&message, "cancel", 200).await;
    assert_eq!(canceled["status"], "FAILED");
    assert_eq!(canceled["nextAttemptAt"], json!(null));
    assert_eq!(canceled["retryCount"], 1);
    assert_eq!(canceled["lastError"]["kind"], "canceled");
    assert_eq!(canceled["lastError"]["retryable"], false);
    assert_eq!(system.act(&message, "cancel", 200).await, canceled);

    system.skip_waits().await;
    system.drain(&[]).await;
    assert_eq!(system.message(id(&message)).await, canceled);
    assert_eq!(system.mock.stats().calls, 1);

    system.act(&message, "retry", 202).await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["lastError"]["kind"], "canceled");
    assert_eq!(system.mock.message(id(&message)).unwrap().calls, 2);
}

#[tokio::test]
async fn a_message_that_waits_for_its_first_attempt_can_be_canceled() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    let message = system.send("user-1", "Merhaba!").await;
    let path = format!("/messages/{}/cancel", id(&message));
    let canceled = system.client.post(&path, &json!({})).await.expect(200);
    assert_eq!(
        (&canceled["status"], &canceled["retryCount"]),
        (&json!("FAILED"), &json!(0))
    );
    assert_eq!(canceled["lastError"]["kind"], "canceled");
    system.drain(&[]).await;
    assert_eq!(system.mock.stats().calls, 0);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_is_in_flight_or_sent_cannot_be_canceled() {
    let provider = Held::start().await;
    let system = System::with(&[("PROVIDER_URL", provider.url()), LONG_ATTEMPT, SHORT_WAIT]).await;
    let message = system.send("user-1", "Merhaba!").await;
    let path = format!("/messages/{}/cancel", id(&message));
    let attempt = provider.call().await;
    system
        .client
        .post(&path, &json!({}))
        .await
        .expect_problem(409, "not_cancelable");
    attempt.accept("msg_1").await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    system
        .client
        .post(&path, &json!({}))
        .await
        .expect_problem(409, "not_cancelable");
    assert_eq!(system.message(id(&message)).await, sent);
}
