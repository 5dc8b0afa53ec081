//! Outcomes: each attempt is recorded as what it was.

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{NO_RETRY, RETRY_AT_ONCE, System, id};

/// Sends a message into this fault, and asserts how the record shows it.
async fn assert_recorded(
    system: &System,
    fault: Fault,
    kind: &str,
    http_status: Value,
    (retryable, ambiguous): (bool, bool),
) {
    system.mock.script("user-1", [fault]);
    let message = system.send("user-1", "Merhaba!").await;
    let error = &message["lastError"];
    assert_eq!(message["status"], "FAILED", "{message}");
    assert_eq!(message["retryCount"], 1, "{message}");
    assert_eq!(error["kind"], kind, "{message}");
    assert_eq!(error["httpStatus"], http_status, "{message}");
    assert_eq!(error["retryable"], retryable, "{message}");
    assert_eq!(error["ambiguous"], ambiguous, "{message}");
    assert_eq!(message["nextAttemptAt"].is_string(), retryable, "{message}");
    assert_eq!(system.message(id(&message)).await, message);
    assert_eq!(system.mock.message(id(&message)).unwrap().calls, 1);
}

#[tokio::test]
async fn each_refusal_is_recorded_as_what_it_was() {
    let system = System::with(&[NO_RETRY]).await;
    let refused =
        |retryable: bool| json!({ "success": false, "error": "no", "retryable": retryable });
    let final_refusal = |fault| (fault, "rejected", (false, false));
    for (fault, kind, told) in [
        (Fault::server_error(503), "server_error", (true, true)),
        (Fault::server_error(500), "server_error", (true, true)),
        final_refusal(Fault::Reject),
        final_refusal(Fault::status(400)),
        final_refusal(Fault::status(302)),
        (Fault::answer(200, refused(true)), "rejected", (true, false)),
        final_refusal(Fault::answer(200, refused(false))),
        // The last, since it pauses the channel.
        (Fault::rate_limit(), "rate_limited", (true, false)),
    ] {
        let http_status = match &fault {
            Fault::RateLimit { .. } => 429,
            Fault::Reject => 422,
            Fault::ServerError { http_status, .. } | Fault::Status { http_status, .. } => {
                *http_status
            }
            _ => unreachable!(),
        };
        assert_recorded(&system, fault, kind, json!(http_status), told).await;
    }
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_success_without_a_readable_id_is_not_taken_for_one() {
    let system = System::with(&[NO_RETRY]).await;
    let long_id = json!({ "success": true, "providerMessageId": "x".repeat(256) });
    // Its id comes after 64 KiB.
    let padding = "x".repeat(64 * 1024);
    let long_answer = json!({ "padding": padding, "providerMessageId": "msg_1", "success": true });
    for (fault, http_status) in [
        (Fault::Unreadable, 200),
        (Fault::answer(204, ""), 204),
        (Fault::answer(200, long_id), 200),
        (Fault::answer(200, long_answer), 200),
    ] {
        let told = (true, true);
        assert_recorded(&system, fault, "unreadable", json!(http_status), told).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_or_after_the_acceptance_is_worth_another_attempt() {
    let system = System::with(&[NO_RETRY]).await;
    for fault in [Fault::Reset, Fault::LostAnswer] {
        assert_recorded(&system, fault, "connection", json!(null), (true, true)).await;
    }
}

#[tokio::test]
async fn an_answer_of_nearly_64_kib_is_read() {
    let system = System::start().await;
    let answer = json!({ "padding": "x".repeat(64 * 1024 - 100), "providerMessageId": "msg_1", "success": true });
    system.mock.script("user-1", [Fault::answer(200, answer)]);
    assert_eq!(
        system.send("user-1", "Merhaba!").await["providerMessageId"],
        "msg_1"
    );
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout() {
    let system = System::with(&[NO_RETRY, ("PROVIDER_TIMEOUT_MS", "100")]).await;
    system.mock.script("user-1", [Fault::Hang]);
    let message = system.send("user-1", "Merhaba!").await;
    assert_eq!(
        (&message["status"], &message["retryCount"]),
        (&json!("FAILED"), &json!(1))
    );
    assert_eq!(message["lastError"]["kind"], "timeout");
    assert_eq!(message["lastError"]["httpStatus"], json!(null));
    assert_eq!(message["lastError"]["retryable"], true);
    assert_eq!(message["lastError"]["ambiguous"], true);
    assert!(message["nextAttemptAt"].is_string());
}

#[tokio::test]
async fn a_provider_that_does_not_listen_is_a_failed_connection() {
    // Bound, so that nobody else takes the port, but not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://user:secret@{}", socket.local_addr().unwrap());
    let system = System::with(&[NO_RETRY, ("PROVIDER_URL", &url)]).await;
    let message = system.send("user-1", "Merhaba!").await;
    assert_eq!(message["status"], "FAILED");
    assert_eq!(message["lastError"]["kind"], "connection");
    assert_eq!(message["lastError"]["retryable"], true);
    assert_eq!(message["lastError"]["ambiguous"], false);
    assert!(!message.to_string().contains("secret"), "{message}");
}

#[tokio::test]
async fn an_acceptance_is_one_whatever_the_other_fields_are() {
    let system = System::with(&[RETRY_AT_ONCE]).await;
    for (body, id) in [
        (
            r#"{"success":true,"providerMessageId":"x-1","retryable":"no"}"#,
            "x-1",
        ),
        (
            "\u{FEFF}{\"success\":true,\"providerMessageId\":\"x-2\"}",
            "x-2",
        ),
        (
            r#"{"success":true,"providerMessageId":"x-3","error":"\ud800\u0000","timestamp":false}"#,
            "x-3",
        ),
        (
            r#"{"success":null,"providerMessageId":12345678901234567890123}"#,
            "12345678901234567890123",
        ),
    ] {
        system.mock.script("user-1", [Fault::answer(200, body)]);
        let message = system.send("user-1", "Merhaba!").await;
        assert_eq!(
            (&message["status"], &message["providerMessageId"]),
            (&json!("SENT"), &json!(id)),
            "{message}"
        );
    }
    let refusal = r#"{"success":false,"error":"closed \ud83d","retryable":"true"}"#;
    system.mock.script("user-1", [Fault::answer(200, refusal)]);
    let message = system.send("user-1", "Merhaba!").await;
    let error = &message["lastError"];
    assert_eq!(
        (&error["kind"], &error["detail"], &error["retryable"]),
        (&json!("rejected"), &json!("closed \u{FFFD}"), &json!(true))
    );
}
