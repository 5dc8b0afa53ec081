//! `Prefer: respond-async`: the answer to a send comes as soon as the message is stored.

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{Answer, Held, NO_FIRST_ATTEMPT, NO_RETRY, System, id};

const ASYNC: &str = "respond-async";

async fn send_preferring(system: &System, preferences: &[&str], key: Option<&str>) -> Answer {
    let mut request = system.client.http.post(system.client.url("/messages/send"));
    for preference in preferences {
        request = request.header("prefer", *preference);
    }
    let body =
        json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi", "clientMessageId": key });
    system.client.call(request.json(&body)).await.unwrap()
}

/// A message that is stored, and nothing is known of its attempt.
fn assert_stored(answer: &Answer) -> Value {
    let message = answer.expect(201);
    assert_eq!(message["status"], "PENDING", "{message}");
    assert_eq!(message["revision"], 1, "{message}");
    assert_eq!(answer.header("preference-applied"), Some(ASYNC));
    message
}

#[tokio::test]
async fn who_prefers_it_is_answered_before_the_first_attempt_ends_and_that_begins_at_once() {
    let provider = Held::start().await;
    // Who waits for the attempt sees how it has failed.
    let system = System::with(&[("PROVIDER_URL", provider.url()), ("SEND_WAIT_MS", "60000")]).await;
    let message = assert_stored(&send_preferring(&system, &[ASYNC], None).await);
    // No worker makes it: it is leased to this process.
    let call = provider.call().await;
    assert_eq!(call.key, id(&message));
    assert_eq!(system.message(id(&message)).await, message);
    call.accept("accepted").await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["revision"], 2, "{sent}");
    assert!(provider.is_idle().await);
}

#[tokio::test]
async fn a_first_attempt_that_nobody_waits_for_is_settled_and_retried_as_any_other() {
    let system = System::with(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    let message = assert_stored(&send_preferring(&system, &[ASYNC], None).await);
    let failed = system.message_becomes(id(&message), "FAILED").await;
    assert_eq!(failed["retryCount"], 1, "{failed}");
    system.skip_waits().await;
    system.message_becomes(id(&message), "SENT").await;
    assert_eq!(system.mock.message(id(&message)).unwrap().deliveries, 1);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn the_preference_is_understood_in_every_spelling_and_garbage_is_ignored() {
    // Without a permit an answer never waits, so that only the header tells.
    let system = System::with(&[NO_FIRST_ATTEMPT]).await;
    for preferences in [
        &["Respond-Async"][..],
        &["wait=5, respond-async; a=\"b;c\""],
        &["handling=lenient", "respond-async"],
        &["\"", "respond-async"],
    ] {
        assert_stored(&send_preferring(&system, preferences, None).await);
    }
    for preferences in [
        &[][..],
        &[""],
        &["wait=5"],
        &["a=\"respond-async\""],
        &["a=\", respond-async"],
        &["respond-async=no"],
        &["respond-asynchronously, ;=,,"],
    ] {
        let answer = send_preferring(&system, preferences, None).await;
        answer.expect(201);
        assert_eq!(answer.header("preference-applied"), None, "{preferences:?}");
    }
}

#[tokio::test]
async fn a_replay_is_one_whatever_is_preferred() {
    let system = System::start().await;
    let first = assert_stored(&send_preferring(&system, &[ASYNC], Some("order-1")).await);
    let sent = system.message_becomes(id(&first), "SENT").await;
    let replay = send_preferring(&system, &[ASYNC], Some("order-1")).await;
    assert_eq!(replay.expect(200), sent);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    // It would have waited for nothing anyway.
    assert_eq!(replay.header("preference-applied"), None);
    assert_eq!(system.mock.stats().calls, 1);
}
