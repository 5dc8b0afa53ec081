//! Retries: what has failed is tried again when that can help, after the wait that backoff and
//! provider ask for.

use chrono::{DateTime, TimeDelta, Utc};
use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{RETRY_AT_ONCE, System, eventually, id};

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
