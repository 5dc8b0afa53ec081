//! Failures: each is recorded as what it was, tried again when that can help, and left to an operator when it cannot.

use chrono::{DateTime, TimeDelta, Utc};
use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{Held, System, event, eventually};

/// A first wait that no test lives to see.
const NO_RETRY: (&str, &str) = ("RETRY_BASE_MS", "3600000");
const RETRY_AT_ONCE: (&str, &str) = ("RETRY_BASE_MS", "1");

fn id(message: &Value) -> &str {
    message["id"].as_str().unwrap()
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

/// How long after it was written down that it failed a message is tried again.
fn wait(message: &Value) -> TimeDelta {
    time(&message["nextAttemptAt"]) - time(&message["updatedAt"])
}

/// The message, once no further attempt is going to be made by itself.
async fn failed_for_good(system: &System, id: &str) -> Value {
    eventually("no attempts are left", async || {
        let message = system.message(id).await;
        (message["status"] == "FAILED" && message["nextAttemptAt"].is_null()).then_some(message)
    })
    .await
}

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
async fn a_lost_answer_is_delivered_once_and_its_error_stays_readable() {
    let system = System::with(&[RETRY_AT_ONCE]).await;
    system.mock.script("user-1", [Fault::LostAnswer]);
    let failed = system.send("user-1", "Merhaba!").await;
    assert_eq!(failed["status"], "FAILED");
    let sent = system.message_becomes(id(&failed), "SENT").await;
    let at_provider = system.mock.message(id(&failed)).unwrap();
    assert_eq!(
        (
            at_provider.calls,
            at_provider.deliveries,
            at_provider.mismatched_calls
        ),
        (2, 1, 0)
    );
    assert_eq!(
        sent["providerMessageId"],
        json!(at_provider.provider_message_id)
    );
    assert_eq!(sent["lastError"], failed["lastError"]);
    assert_eq!(
        (&sent["retryCount"], &sent["nextAttemptAt"]),
        (&json!(1), &json!(null))
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn the_backoff_is_at_least_half_of_what_it_can_be() {
    let system = System::with(&[("RETRY_BASE_MS", "600000")]).await;
    system.mock.script_always(None, Fault::server_error(500));
    let message = system.send("user-1", "Merhaba!").await;
    assert!(
        (TimeDelta::minutes(5)..=TimeDelta::minutes(10)).contains(&wait(&message)),
        "{message}"
    );
    system.skip_waits().await;
    let again = eventually("the second failure", async || {
        let message = system.message(id(&message)).await;
        (message["retryCount"] == 2).then_some(message)
    })
    .await;
    assert!(
        (TimeDelta::minutes(10)..=TimeDelta::minutes(20)).contains(&wait(&again)),
        "{again}"
    );
}

#[tokio::test]
async fn retry_after_in_seconds_is_honoured_beyond_the_cap_and_up_to_an_hour() {
    let system = System::with(&[RETRY_AT_ONCE, ("RETRY_CAP_MS", "1")]).await;
    for (asked, waited) in [(120, 120), (3600, 3600), (86_400, 3600)] {
        for fault in [
            Fault::rate_limit_after(asked),
            Fault::ServerError {
                http_status: 503,
                retry_after: Some(asked.to_string()),
            },
        ] {
            system.mock.script("user-1", [fault]);
            let message = system.send("user-1", "Merhaba!").await;
            assert_eq!(wait(&message), TimeDelta::seconds(waited), "{message}");
            system.end_pauses().await;
        }
    }
}

#[tokio::test]
async fn retry_after_in_seconds_with_a_fraction_is_honoured() {
    let system = System::with(&[RETRY_AT_ONCE, ("RETRY_CAP_MS", "1")]).await;
    for (asked, waited_ms) in [
        ("299.997", 299_997),
        ("60.5", 60_500),
        ("3600.001", 3_600_000),
    ] {
        let fault = Fault::RateLimit {
            retry_after: Some(asked.to_owned()),
        };
        system.mock.script("user-1", [fault]);
        let message = system.send("user-1", "Merhaba!").await;
        let late = wait(&message) - TimeDelta::milliseconds(waited_ms);
        assert!(late.abs() <= TimeDelta::milliseconds(1), "{message}");
        system.end_pauses().await;
    }
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

#[tokio::test]
async fn retry_after_as_a_date_is_honoured_up_to_an_hour() {
    let system = System::with(&[RETRY_AT_ONCE]).await;
    let date = Utc::now() + TimeDelta::minutes(30);
    let limited = |date: DateTime<Utc>| Fault::RateLimit {
        retry_after: Some(date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
    };
    system.mock.script("user-1", [limited(date)]);
    let message = system.send("user-1", "Merhaba!").await;
    // A date has whole seconds; what is added is the way of the answer into the database.
    let late = time(&message["nextAttemptAt"]) - date;
    assert!(
        (TimeDelta::seconds(-1)..TimeDelta::minutes(5)).contains(&late),
        "{message}"
    );

    system.end_pauses().await;
    system
        .mock
        .script("user-1", [limited(date + TimeDelta::days(365))]);
    let message = system.send("user-1", "Merhaba!").await;
    assert_eq!(wait(&message), TimeDelta::hours(1), "{message}");
}

#[tokio::test]
async fn used_up_attempts_leave_the_message_to_an_operator() {
    let system = System::with(&[RETRY_AT_ONCE, ("RETRY_MAX_ATTEMPTS", "3")]).await;
    system
        .mock
        .script_always("user-1", Fault::server_error(500));
    let message = system.send("user-1", "Merhaba!").await;
    let failed = failed_for_good(&system, id(&message)).await;
    assert_eq!(
        (&failed["retryCount"], &failed["lastError"]["retryable"]),
        (&json!(3), &json!(true))
    );
    let listed = system
        .client
        .get("/messages?status=FAILED")
        .await
        .expect(200);
    assert_eq!(listed["data"], json!([failed]));

    system.skip_waits().await;
    system.drain(&[]).await;
    assert_eq!(system.mock.stats().calls, 3);
    system.database.assert_consistent().await;
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

/// Six failures, and one message that went through among them: the ids and channels of the failures, newest first.
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
    let system = System::without_worker(&[("SEND_CONCURRENCY", "0")]).await;
    let received = system
        .client
        .webhook(&event("evt_1", "user-1", "Hello", "2025-01-01T10:00:00Z"))
        .await
        .expect(200);
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
        ("PROVIDER_TIMEOUT_MS", "60000"),
        ("SEND_WAIT_MS", "1"),
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
    let retried = post(&system, &message, "retry", 202).await;
    assert_eq!(retried["status"], "FAILED");
    assert!(retried["nextAttemptAt"].is_string(), "{retried}");
    let fresh = "select count(*) from deliveries where attempt = 0 and failures = 0 and lease_token is null and due_at <= now()";
    assert_eq!(system.database.count(fresh).await, 1);

    // One at which no attempt has ended has not failed.
    let unsent = System::without_worker(&[("SEND_CONCURRENCY", "0")]).await;
    let message = unsent.send("user-1", "Merhaba!").await;
    unsent.database.execute(abandon).await;
    let path = format!("/messages/{}/retry", id(&message));
    let refused = unsent.client.post(&path, &json!({})).await;
    refused.expect_problem(409, "not_failed");
    assert_eq!(unsent.message(id(&message)).await, message);
}

async fn post(system: &System, message: &Value, verb: &str, status: u16) -> Value {
    let path = format!("/messages/{}/{verb}", id(message));
    system.client.post(&path, &json!({})).await.expect(status)
}

#[tokio::test]
async fn a_canceled_message_is_sent_only_when_an_operator_retries_it() {
    let system = System::with(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    let message = system.send("user-1", "Merhaba!").await;
    let canceled = post(&system, &message, "cancel", 200).await;
    assert_eq!(canceled["status"], "FAILED");
    assert_eq!(canceled["nextAttemptAt"], json!(null));
    assert_eq!(canceled["retryCount"], 1);
    assert_eq!(canceled["lastError"]["kind"], "canceled");
    assert_eq!(canceled["lastError"]["retryable"], false);
    assert_eq!(post(&system, &message, "cancel", 200).await, canceled);

    system.skip_waits().await;
    system.drain(&[]).await;
    assert_eq!(system.message(id(&message)).await, canceled);
    assert_eq!(system.mock.stats().calls, 1);

    post(&system, &message, "retry", 202).await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["lastError"]["kind"], "canceled");
    assert_eq!(system.mock.message(id(&message)).unwrap().calls, 2);
}

#[tokio::test]
async fn a_message_that_waits_for_its_first_attempt_can_be_canceled() {
    let system = System::without_worker(&[("SEND_CONCURRENCY", "0")]).await;
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
    let system = System::with(&[
        ("PROVIDER_URL", provider.url()),
        ("PROVIDER_TIMEOUT_MS", "60000"),
        ("SEND_WAIT_MS", "1"),
    ])
    .await;
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
