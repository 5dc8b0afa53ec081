//! Each fault as the caller sees it and as the ledger has it.

use std::time::Duration;

use mock_meta_provider::{Behaviour, Config, Fault};
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Provider, message};

#[tokio::test]
async fn a_rate_limit_is_429_with_the_scripted_retry_after() {
    let provider = Provider::calm().await;
    let date = "Wed, 21 Oct 2026 07:28:00 GMT";
    let answers = json!([{ "fault": "rateLimit", "retryAfterSeconds": 2 }, { "fault": "rateLimit", "retryAfter": date }]);
    assert_eq!(
        provider
            .post("/script", json!({ "to": "user-1", "answers": answers }))
            .await
            .status,
        200
    );
    for retry_after in ["2", date] {
        let answer = provider.send("key-1").await;
        assert_eq!(answer.failure(), (429, "Too Many Requests"));
        assert_eq!(answer.body["retryable"], true);
        assert_eq!(answer.header("retry-after"), Some(retry_after));
    }
    assert_eq!(provider.deliveries("key-1"), 0);
    assert_eq!(provider.mock.stats().faults.rate_limit, 2);
}

#[tokio::test]
async fn a_retry_after_may_have_a_fraction_and_is_written_as_it_was_given() {
    let provider = Provider::calm().await;
    for (seconds, header) in [
        (json!(299.997), "299.997"),
        (json!(2.0), "2"),
        (json!(0.5), "0.5"),
    ] {
        let script = json!({ "answers": [{ "fault": "rateLimit", "retryAfterSeconds": seconds }, "rateLimit"] });
        assert_eq!(provider.post("/script", script).await.status, 200);
        let set = provider
            .post("/config", json!({ "retryAfterSeconds": seconds }))
            .await;
        assert_eq!(
            set.body["config"]["retryAfterSeconds"].to_string(),
            header,
            "{}",
            set.body
        );
        for _ in 0..2 {
            assert_eq!(
                provider.send("key-1").await.header("retry-after"),
                Some(header)
            );
        }
    }
    for wrong in [json!(-0.5), json!(86_400.5), json!("2")] {
        let script = json!({ "answers": [{ "fault": "rateLimit", "retryAfterSeconds": wrong }] });
        assert_eq!(
            provider.post("/script", script).await.status,
            400,
            "{wrong}"
        );
        let set = provider
            .post("/config", json!({ "retryAfterSeconds": wrong }))
            .await;
        assert_eq!(set.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_configured_retry_after_goes_with_429_and_503_only() {
    let provider = Provider::calm().await;
    provider.mock.script(
        "user-1",
        [
            Fault::rate_limit(),
            Fault::server_error(503),
            Fault::server_error(500),
            Fault::rate_limit(),
        ],
    );
    provider
        .post("/config", json!({ "retryAfterSeconds": 7 }))
        .await;
    for (status, retry_after) in [(429, Some("7")), (503, Some("7")), (500, None)] {
        let answer = provider.send("key-1").await;
        assert_eq!(
            (answer.failure().0, answer.header("retry-after")),
            (status, retry_after)
        );
    }
    provider
        .post("/config", json!({ "retryAfterSeconds": null }))
        .await;
    assert_eq!(provider.send("key-1").await.header("retry-after"), None);
}

#[tokio::test]
async fn a_rejection_is_422_and_not_retryable() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::Reject]);
    let answer = provider.send("key-1").await;
    assert_eq!(
        (answer.failure().0, answer.body["retryable"].as_bool()),
        (422, Some(false))
    );
    assert_eq!(provider.deliveries("key-1"), 0);
}

#[tokio::test]
async fn a_lost_answer_is_a_broken_connection_and_a_delivery() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::LostAnswer]);
    assert!(
        provider
            .call("key-1")
            .send()
            .await
            .unwrap_err()
            .is_request()
    );
    assert_eq!(provider.deliveries("key-1"), 1);
    provider.send("key-1").await.id();
    assert_eq!(
        (provider.deliveries("key-1"), provider.texts().len()),
        (1, 1),
        "the repeat delivers nothing"
    );
}

#[tokio::test]
async fn a_reset_is_a_broken_connection_and_no_delivery() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::Reset]);
    assert!(
        provider
            .call("key-1")
            .send()
            .await
            .unwrap_err()
            .is_request()
    );
    let known = provider.mock.message("key-1").unwrap();
    assert_eq!((known.calls, known.deliveries), (1, 0));
}

#[tokio::test]
async fn a_cut_connection_carries_not_one_byte() {
    let provider = Provider::calm().await;
    provider
        .mock
        .script("user-1", [Fault::LostAnswer, Fault::Reset]);
    let closed = raw_call(&provider).await;
    assert_eq!(closed.unwrap(), b"", "a lost answer is an orderly close");
    let reset = raw_call(&provider).await;
    assert_eq!(
        reset.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

/// Everything that comes back for one call.
async fn raw_call(provider: &Provider) -> std::io::Result<Vec<u8>> {
    let body = message("user-1", "text").to_string();
    let mut stream = TcpStream::connect(provider.mock.address()).await?;
    let head = "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    stream
        .write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_hang_is_never_answered_and_never_accepted() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::Hang]);
    let hanging = provider
        .call("key-1")
        .timeout(Duration::from_secs(1))
        .send()
        .await;
    assert!(hanging.unwrap_err().is_timeout());
    assert_eq!(provider.deliveries("key-1"), 0);
    assert_eq!(provider.mock.stats().faults.hang, 1);
}

#[tokio::test]
async fn a_hang_ends_with_a_cut_after_hang_ms() {
    let behaviour = Behaviour {
        hang_rate: 1.0,
        hang_ms: 50,
        ..Behaviour::CALM
    };
    let provider = Provider::start(Config {
        behaviour,
        ..Config::calm()
    })
    .await;
    let error = provider.call("key-1").send().await.unwrap_err();
    assert!(error.is_request() && !error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn an_unreadable_answer_is_a_200_without_json_and_a_delivery() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::Unreadable]);
    let answer = provider.call("key-1").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        answer
            .json::<serde_json::Value>()
            .await
            .unwrap_err()
            .is_decode()
    );
    assert_eq!(provider.deliveries("key-1"), 1);
}

#[tokio::test]
async fn a_scripted_status_answers_exactly_that() {
    let provider = Provider::calm().await;
    let answers = json!([
        { "fault": "status", "httpStatus": 302 },
        { "fault": "status", "httpStatus": 200, "body": { "success": false, "error": "later", "retryable": true } },
        { "fault": "status", "httpStatus": 418, "body": "a teapot", "retryAfterSeconds": 1 },
        { "fault": "status", "httpStatus": 404 },
    ]);
    assert_eq!(
        provider
            .post("/script", json!({ "to": "user-1", "answers": answers }))
            .await
            .status,
        200
    );
    let redirect = provider.send("key-1").await;
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (302, Some("/messages"))
    );
    let later = provider.send("key-1").await;
    assert_eq!((later.failure(), later.status), ((200, "later"), 200));
    let teapot = provider.send("key-1").await;
    assert_eq!(
        (
            teapot.status,
            teapot.body,
            teapot.headers["retry-after"].to_str().unwrap()
        ),
        (418, json!("a teapot"), "1")
    );
    let missing = provider.send("key-1").await;
    assert_eq!(
        (missing.failure().0, missing.body["retryable"].as_bool()),
        (404, Some(false))
    );
    assert_eq!(provider.deliveries("key-1"), 0);
}

#[tokio::test]
async fn a_delay_is_late_and_accepted() {
    let provider = Provider::calm().await;
    let answers = json!([{ "fault": "delay", "delayMs": 200 }]);
    provider
        .post("/script", json!({ "to": "user-1", "answers": answers }))
        .await;
    let started = std::time::Instant::now();
    provider.send("key-1").await.id();
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(provider.deliveries("key-1"), 1);
}

#[tokio::test]
async fn each_rate_of_one_makes_every_call_fail_in_its_way() {
    let provider = Provider::calm().await;
    for (rate, statuses) in [
        ("rateLimitRate", vec![429]),
        ("serverErrorRate", vec![500, 503]),
        ("rejectRate", vec![422]),
        ("failureRate", vec![429, 500, 503]),
    ] {
        assert_eq!(
            provider.post("/config", json!({ rate: 1 })).await.status,
            200
        );
        let mut seen = Vec::new();
        for number in 0..200 {
            seen.push(provider.send(&format!("{rate}-{number}")).await.status);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, statuses, "{rate}");
        assert_eq!(
            provider.post("/config", json!({ rate: 0 })).await.status,
            200
        );
    }
    for rate in ["lostAnswerRate", "resetRate"] {
        provider.post("/config", json!({ rate: 1 })).await;
        assert!(provider.call(rate).send().await.is_err());
        provider.post("/config", json!({ rate: 0 })).await;
    }
    assert_eq!(
        (
            provider.deliveries("lostAnswerRate"),
            provider.deliveries("resetRate")
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn the_failure_rate_is_the_share_of_calls_that_fail() {
    let behaviour = Behaviour {
        failure_rate: 0.3,
        ..Behaviour::CALM
    };
    let provider = Provider::start(Config {
        behaviour,
        ..Config::calm()
    })
    .await;
    let mut failed = 0;
    for number in 0..1000 {
        failed += u32::from(provider.send(&format!("key-{number}")).await.status != 200);
    }
    assert!((250..350).contains(&failed), "{failed} of 1000");
}

#[tokio::test]
async fn the_same_seed_makes_the_same_faults_in_any_order_of_calls() {
    let behaviour = Behaviour {
        failure_rate: 0.5,
        reject_rate: 0.2,
        ..Behaviour::CALM
    };
    let mut runs = Vec::new();
    for (seed, backwards) in [(42, false), (42, true), (43, false)] {
        let provider = Provider::start(Config {
            seed: Some(seed),
            behaviour: behaviour.clone(),
            ..Config::calm()
        })
        .await;
        let mut keys: Vec<String> = (0..50).map(|number| format!("key-{number}")).collect();
        if backwards {
            keys.reverse();
        }
        let mut statuses = Vec::new();
        for key in keys {
            statuses.push((
                key.clone(),
                provider.send(&key).await.status,
                provider.send(&key).await.status,
            ));
        }
        statuses.sort();
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    assert!(
        runs[0].iter().any(|(_, first, second)| first != second),
        "each call is a choice of its own"
    );
}
