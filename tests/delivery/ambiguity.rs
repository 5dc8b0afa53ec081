//! Failures that leave open whether the provider has accepted: the record says so, and they are
//! retried or held, as asked for.

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{Held, LONG_ATTEMPT, NO_RETRY, SHORT_WAIT, System, eventually, id};

const HOLD: (&str, &str) = ("AMBIGUOUS_POLICY", "hold");
/// Asserts how the record shows the last error, and whether the message waits for an operator.
#[track_caller]
fn assert_failed(message: &Value, kind: &str, ambiguous: bool, is_held: bool) {
    assert_eq!(message["status"], "FAILED", "{message}");
    assert_eq!(message["lastError"]["kind"], kind, "{message}");
    assert_eq!(message["lastError"]["ambiguous"], ambiguous, "{message}");
    assert_eq!(message["nextAttemptAt"].is_null(), is_held, "{message}");
}

#[tokio::test]
async fn what_may_have_been_accepted_is_held_and_what_surely_was_not_is_retried() {
    let system = System::with(&[HOLD, NO_RETRY]).await;
    for (fault, kind) in [
        (Fault::LostAnswer, "connection"),
        (Fault::Reset, "connection"),
        (Fault::Unreadable, "unreadable"),
        (Fault::server_error(500), "server_error"),
    ] {
        system.mock.script("user-1", [fault]);
        let message = system.send("user-1", "Merhaba!").await;
        assert_failed(&message, kind, true, true);
        assert_eq!(message["lastError"]["retryable"], true);
    }
    let asks_again = json!({ "success": false, "retryable": true });
    system
        .mock
        .script("user-1", [Fault::answer(200, asks_again)]);
    assert_failed(&system.send("user-1", "Hi").await, "rejected", false, false);
    system.mock.script("user-1", [Fault::rate_limit()]);
    assert_failed(
        &system.send("user-1", "Hi").await,
        "rate_limited",
        false,
        false,
    );
}

#[tokio::test]
async fn what_is_held_is_sent_when_an_operator_says_so() {
    let system = System::with(&[HOLD]).await;
    system.mock.script("user-1", [Fault::LostAnswer]);
    let message = system.send("user-1", "Merhaba!").await;
    assert_failed(&message, "connection", true, true);
    let path = format!("/messages/{}/retry", id(&message));
    system.client.post(&path, &json!({})).await.expect(202);
    system.message_becomes(id(&message), "SENT").await;
    let known = system.mock.message(id(&message)).unwrap();
    assert_eq!((known.calls, known.deliveries), (2, 1));
}

#[tokio::test]
async fn an_attempt_that_its_process_did_not_survive_is_held_without_a_further_call() {
    let mut system = System::with(&[HOLD, LONG_ATTEMPT, SHORT_WAIT]).await;
    system.mock.script("user-1", [Fault::Hang]);
    let message = system.send("user-1", "Merhaba!").await;
    let calls = || {
        system
            .mock
            .message(id(&message))
            .map_or(0, |known| known.calls)
    };
    eventually("the attempt is in flight", async || {
        (calls() == 1).then_some(())
    })
    .await;
    system.gateway.kill();
    system.expire_leases().await;
    system.drain(&[HOLD, LONG_ATTEMPT]).await;

    let (_gateway, client) = system.another(&[HOLD]).await;
    let path = format!("/messages/{}", id(&message));
    let held = client.get(&path).await.expect(200);
    assert_failed(&held, "interrupted", true, true);
    assert_eq!(calls(), 1);
    client
        .post(&format!("{path}/retry"), &json!({}))
        .await
        .expect(202);
    eventually("it is sent", async || {
        (client.get(&path).await.expect(200)["status"] == "SENT").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_retry_of_a_held_message_has_its_attempts_like_any_other() {
    let system = System::with(&[HOLD, NO_RETRY]).await;
    let refused = Fault::answer(200, json!({ "success": false, "retryable": true }));
    system
        .mock
        .script("user-1", [Fault::LostAnswer, refused.clone(), refused]);
    let message = system.send("user-1", "Merhaba!").await;
    let path = format!("/messages/{}/retry", id(&message));
    for count in [2, 3] {
        system.client.post(&path, &json!({})).await.expect(202);
        let failed = eventually("it fails again", async || {
            let message = system.message(id(&message)).await;
            (message["retryCount"] == count).then_some(message)
        })
        .await;
        assert_failed(&failed, "rejected", false, false);
    }
}

#[tokio::test]
async fn a_canceled_message_is_ambiguous_if_an_attempt_at_it_was() {
    let provider = Held::start().await;
    let url = ("PROVIDER_URL", provider.url());
    let system = System::without_worker(&[NO_RETRY, LONG_ATTEMPT, SHORT_WAIT, url]).await;
    let cancel = async |message: &Value| {
        let path = format!("/messages/{}/cancel", id(message));
        system.client.post(&path, &json!({})).await.expect(200)
    };

    let refused = system.send("user-1", "refused").await;
    let again = json!({ "success": false, "retryable": true });
    provider.call().await.answer(200, &again).await;
    system.message_becomes(id(&refused), "FAILED").await;
    assert_failed(&cancel(&refused).await, "canceled", false, true);

    let lost = system.send("user-1", "lost").await;
    provider.call().await.answer(503, &json!({})).await;
    system.message_becomes(id(&lost), "FAILED").await;
    assert_failed(&cancel(&lost).await, "canceled", true, true);

    // Nobody knows how the attempt ended whose lease is over.
    let interrupted = system.send("user-1", "interrupted").await;
    let _unanswered = provider.call().await;
    system.expire_leases().await;
    assert_failed(&cancel(&interrupted).await, "canceled", true, true);
}
