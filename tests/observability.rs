//! What an operator sees of a running gateway: its log lines, and its metrics.

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{Program, System, event};

const NO_RETRY: (&str, &str) = ("RETRY_BASE_MS", "3600000");
const ALL_LINES: (&str, &str) = ("RUST_LOG", "info,gateway=debug");

/// The lines of a log with this message.
fn lines(program: &Program, message: &str) -> Vec<Value> {
    let log = program.log();
    let parsed = log.iter().map(|line| serde_json::from_str(line).unwrap());
    parsed
        .filter(|line: &Value| line["message"] == message)
        .collect()
}

/// The one line of a log with this message.
#[track_caller]
fn line(program: &Program, message: &str) -> Value {
    let mut lines = lines(program, message);
    assert_eq!(lines.len(), 1, "{message}: {lines:#?}");
    lines.remove(0)
}

#[tokio::test]
async fn a_message_is_followed_by_its_ids_from_its_request_to_its_retry_in_another_process() {
    let system = System::without_worker(&[NO_RETRY, ALL_LINES]).await;
    system.mock.script("user-1", [Fault::server_error(503)]);
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba!" });
    let request = system.client.http.post(system.client.url("/messages/send"));
    let request = request.header("x-request-id", "follow-me").json(&body);
    let message = system.client.call(request).await.unwrap().expect(201);
    let (id, conversation_id) = (&message["id"], &message["conversationId"]);

    system.gateway.logged("answered").await;
    let answered = lines(&system.gateway, "answered");
    let answered = answered
        .iter()
        .find(|line| line["request_id"] == "follow-me");
    let answered = answered.unwrap();
    assert_eq!(answered["level"], "DEBUG", "{answered}");
    assert_eq!(answered["method"], "POST", "{answered}");
    assert_eq!(answered["route"], "/messages/send", "{answered}");
    assert_eq!(answered["status"], 201, "{answered}");
    assert!(answered["elapsed_ms"].as_f64().unwrap() > 0.0, "{answered}");

    let accepted = line(&system.gateway, "accepted");
    let failed = line(&system.gateway, "an attempt failed");
    for line in [&accepted, &failed] {
        assert_eq!(&line["message_id"], id, "{line}");
        assert_eq!(&line["conversation_id"], conversation_id, "{line}");
        assert_eq!(line["spans"][0]["request_id"], "follow-me", "{line}");
    }
    assert_eq!(failed["level"], "WARN", "{failed}");
    assert_eq!(failed["attempt"], 1, "{failed}");
    assert_eq!(failed["kind"], "server_error", "{failed}");
    assert_eq!(failed["http_status"], 503, "{failed}");
    assert!(failed["next_attempt_at"].is_string(), "{failed}");

    system.skip_waits().await;
    let worker = system.worker(&[NO_RETRY]).await;
    let sent = worker.logged("sent").await;
    assert_eq!(sent["level"], "INFO", "{sent}");
    assert_eq!(&sent["message_id"], id, "{sent}");
    assert_eq!(&sent["conversation_id"], conversation_id, "{sent}");
    assert_eq!(sent["attempt"], 2, "{sent}");
}

#[tokio::test]
async fn what_is_given_up_for_good_is_an_error_in_the_log_and_one_line() {
    let system = System::without_worker(&[]).await;
    system.mock.script("user-1", [Fault::Reject]);
    let message = system.send("user-1", "Merhaba!").await;
    let failed = line(&system.gateway, "a message has failed for good");
    assert_eq!(failed["level"], "ERROR", "{failed}");
    assert_eq!(failed["message_id"], message["id"], "{failed}");
    assert_eq!(failed["conversation_id"], message["conversationId"]);
    assert_eq!(failed["kind"], "rejected", "{failed}");
    assert_eq!(
        lines(&system.gateway, "an attempt failed"),
        [] as [Value; 0]
    );
}

#[tokio::test]
async fn a_webhook_is_one_line_with_its_ids_where_somebody_asks_for_it() {
    let system = System::with(&[ALL_LINES]).await;
    let body = event("evt_1", "user-1", "Hello", "2025-01-01T10:00:00Z");
    let receipt = system.client.webhook(&body).await.expect(200);
    let received = line(&system.gateway, "received");
    assert_eq!(received["level"], "DEBUG", "{received}");
    assert_eq!(received["event_id"], "evt_1", "{received}");
    assert_eq!(received["message_id"], receipt["messageId"], "{received}");
    assert_eq!(
        received["conversation_id"], receipt["conversationId"],
        "{received}"
    );
}
