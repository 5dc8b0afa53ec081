//! Inbound events on their way to the webhook.

use std::collections::HashSet;
use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta};
use hmac::{Hmac, KeyInit, Mac};
use mock_meta_provider::{Behaviour, Config};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Provider, Receiver, until};

const SECRET: &str = "top-secret";

async fn provider_for(receiver: &Receiver) -> Provider {
    let config = Config {
        webhook_url: receiver.url.clone(),
        webhook_secret: Some(SECRET.into()),
        webhook_retry_base_ms: 1,
        webhook_retry_cap_ms: 20,
        ..Config::calm()
    };
    Provider::start(config).await
}

fn inbound() -> Value {
    json!({ "eventId": "evt_1", "channel": "instagram", "from": "user-1", "text": "Hello" })
}

async fn settled(provider: &Provider) {
    until("every event is settled", || {
        provider.mock.stats().webhooks.pending == 0
    })
    .await;
}

#[tokio::test]
async fn an_event_is_answered_for_and_posted() {
    let receiver = Receiver::start([]).await;
    let provider = provider_for(&receiver).await;
    let answer = provider.post("/simulate/inbound", inbound()).await;
    let timestamp = answer.body["timestamp"].clone();
    assert_eq!(
        answer.body,
        json!({ "success": true, "eventId": "evt_1", "timestamp": timestamp,
            "simulation": { "duplicate": false, "outOfOrder": false } })
    );
    settled(&provider).await;
    let expected = json!({ "eventId": "evt_1", "channel": "instagram", "from": "user-1", "text": "Hello",
        "timestamp": timestamp });
    assert_eq!(receiver.taken(), [expected]);
    let headers = &receiver.received()[0].headers;
    assert_eq!(headers["content-type"], "application/json");
}

#[tokio::test]
async fn made_up_event_ids_differ_also_with_the_same_seed() {
    let receiver = Receiver::start([]).await;
    let mut ids = HashSet::new();
    for _ in 0..2 {
        let provider = provider_for(&receiver).await;
        for _ in 0..3 {
            let body = json!({ "channel": "whatsapp", "from": "user-1", "text": "Hello" });
            let answer = provider.post("/simulate/inbound", body).await;
            let id = answer.body["eventId"].as_str().unwrap().to_owned();
            assert!(id.starts_with("evt_"), "{id}");
            ids.insert(id);
        }
    }
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn a_refused_event_is_repeated_until_it_is_taken_and_signed_each_time() {
    let refusals = [
        (StatusCode::SERVICE_UNAVAILABLE, Some(("Retry-After", "0"))),
        (StatusCode::INTERNAL_SERVER_ERROR, None),
        (StatusCode::BAD_REQUEST, None),
        (
            StatusCode::TEMPORARY_REDIRECT,
            Some(("Location", "/elsewhere")),
        ),
    ];
    let receiver = Receiver::start(refusals).await;
    let provider = provider_for(&receiver).await;
    provider.post("/simulate/inbound", inbound()).await;
    settled(&provider).await;
    let posts = receiver.received();
    assert_eq!(posts.len(), 5);
    for post in &posts {
        assert_eq!(post.body, posts[0].body, "the same bytes each time");
        let signature = post.headers["x-hub-signature-256"].to_str().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(&post.body);
        let digest = hex::encode(mac.finalize().into_bytes());
        assert_eq!(signature, format!("sha256={digest}"));
    }
    let webhooks = provider.mock.stats().webhooks;
    assert_eq!(
        (
            webhooks.events,
            webhooks.sent,
            webhooks.failed,
            webhooks.given_up
        ),
        (1, 1, 4, 0)
    );
}

#[tokio::test]
async fn an_event_without_a_secret_is_not_signed() {
    let receiver = Receiver::start([]).await;
    let provider = Provider::start(Config {
        webhook_url: receiver.url.clone(),
        ..Config::calm()
    })
    .await;
    provider.post("/simulate/inbound", inbound()).await;
    settled(&provider).await;
    assert!(
        receiver.received()[0]
            .headers
            .get("x-hub-signature-256")
            .is_none()
    );
}

#[tokio::test]
async fn an_event_is_given_up_after_the_last_try() {
    let receiver = Receiver::start([(StatusCode::BAD_GATEWAY, None); 3]).await;
    let config = Config {
        webhook_max_tries: 3,
        webhook_retry_base_ms: 1,
        ..Config::calm()
    };
    let provider = Provider::start(Config {
        webhook_url: receiver.url.clone(),
        ..config
    })
    .await;
    provider.post("/simulate/inbound", inbound()).await;
    settled(&provider).await;
    let webhooks = provider.mock.stats().webhooks;
    assert_eq!(
        (webhooks.sent, webhooks.failed, webhooks.given_up),
        (0, 3, 1)
    );
    assert_eq!(receiver.received().len(), 3);
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_the_cap() {
    for asked in ["3600", "0.3", "300.5", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        is_honoured(asked).await;
    }
}

async fn is_honoured(asked: &'static str) {
    let receiver =
        Receiver::start([(StatusCode::TOO_MANY_REQUESTS, Some(("Retry-After", asked)))]).await;
    let config = Config {
        webhook_retry_base_ms: 1,
        webhook_retry_cap_ms: 300,
        ..Config::calm()
    };
    let provider = Provider::start(Config {
        webhook_url: receiver.url.clone(),
        ..config
    })
    .await;
    provider.post("/simulate/inbound", inbound()).await;
    settled(&provider).await;
    let posts = receiver.received();
    let wait = posts[1].at - posts[0].at;
    assert!(wait >= Duration::from_millis(300), "{wait:?}");
    assert_eq!(receiver.taken().len(), 1);
}

#[tokio::test]
async fn a_duplicate_is_the_same_event_once_or_twice_more() {
    let receiver = Receiver::start([]).await;
    let provider = provider_for(&receiver).await;
    let mut body = inbound();
    body["duplicate"] = json!(true);
    let answer = provider.post("/simulate/inbound", body).await;
    assert_eq!(
        answer.body["simulation"],
        json!({ "duplicate": true, "outOfOrder": false })
    );
    settled(&provider).await;
    let posts = receiver.received();
    assert!((2..=3).contains(&posts.len()), "{}", posts.len());
    assert!(posts.iter().all(|post| post.body == posts[0].body));
    let duplicates = provider.mock.stats().webhooks.duplicates;
    assert_eq!(duplicates, posts.len() as u64 - 1);
}

#[tokio::test]
async fn an_event_out_of_order_comes_after_one_from_the_future() {
    let receiver = Receiver::start([]).await;
    let provider = provider_for(&receiver).await;
    let mut body = inbound();
    body["outOfOrder"] = json!(true);
    let answer = provider.post("/simulate/inbound", body).await;
    assert_eq!(
        answer.body["simulation"],
        json!({ "duplicate": false, "outOfOrder": true })
    );
    settled(&provider).await;
    let taken = receiver.taken();
    assert_eq!(taken.len(), 2);
    let (future, present) = (&taken[0], &taken[1]);
    assert_eq!(
        (&present["eventId"], &present["timestamp"]),
        (&json!("evt_1"), &answer.body["timestamp"])
    );
    assert_eq!(
        (&future["text"], &future["from"]),
        (&json!("[Future Message] Hello"), &json!("user-1"))
    );
    assert_ne!(future["eventId"], present["eventId"]);
    assert_eq!(
        time(&future["timestamp"]) - time(&present["timestamp"]),
        TimeDelta::seconds(60)
    );
}

fn time(value: &Value) -> DateTime<chrono::FixedOffset> {
    DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_refused_event_from_the_future_does_not_hold_the_present_one_up_and_is_not_lost() {
    let receiver = Receiver::start([(StatusCode::SERVICE_UNAVAILABLE, None)]).await;
    let provider = provider_for(&receiver).await;
    let mut body = inbound();
    body["outOfOrder"] = json!(true);
    provider.post("/simulate/inbound", body).await;
    settled(&provider).await;
    let events = receiver.received();
    assert_eq!(events[0].event()["text"], "[Future Message] Hello");
    assert_eq!(receiver.taken().len(), 2);
}

#[tokio::test]
async fn the_rates_decide_where_the_request_does_not() {
    let receiver = Receiver::start([]).await;
    let provider = provider_for(&receiver).await;
    let behaviour = Behaviour {
        duplicate_rate: 1.0,
        out_of_order_rate: 1.0,
        ..Behaviour::CALM
    };
    provider.mock.set_behaviour(behaviour).unwrap();
    let drawn = provider.post("/simulate/inbound", inbound()).await;
    assert_eq!(
        drawn.body["simulation"],
        json!({ "duplicate": true, "outOfOrder": true })
    );
    let mut body = inbound();
    (body["duplicate"], body["outOfOrder"]) = (json!(false), json!(false));
    let asked = provider.post("/simulate/inbound", body).await;
    assert_eq!(
        asked.body["simulation"],
        json!({ "duplicate": false, "outOfOrder": false })
    );
}

#[tokio::test]
async fn the_same_seed_makes_the_same_simulations() {
    let mut runs = Vec::new();
    for seed in [5, 5, 6] {
        let receiver = Receiver::start([]).await;
        let behaviour = Behaviour {
            duplicate_rate: 0.5,
            out_of_order_rate: 0.5,
            ..Behaviour::CALM
        };
        let config = Config {
            webhook_url: receiver.url.clone(),
            seed: Some(seed),
            behaviour,
            ..Config::calm()
        };
        let provider = Provider::start(config).await;
        let mut simulations = Vec::new();
        for number in 0..20 {
            let mut body = inbound();
            body["eventId"] = if number % 2 == 0 {
                json!(format!("evt_{number}"))
            } else {
                json!(null)
            };
            simulations
                .push(provider.post("/simulate/inbound", body).await.body["simulation"].clone());
        }
        runs.push(simulations);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn another_webhook_is_posted_to_only_on_loopback() {
    let receiver = Receiver::start([]).await;
    let provider = Provider::calm().await;
    let mut body = inbound();
    for url in [
        "http://example.com/hook",
        "http://10.0.0.1/hook",
        "http://169.254.169.254/latest",
        "http://0.0.0.0:3000/hook",
        "http://localhost.example.com/hook",
        "http://127.0.0.1.example.com/hook",
        "http://127.0.0.1@example.com/hook",
        "http://[::2]/hook",
        "ftp://127.0.0.1/hook",
        "file:///etc/passwd",
        "not a url",
    ] {
        body["webhookUrl"] = json!(url);
        let answer = provider.post("/simulate/inbound", body.clone()).await;
        let (status, error) = answer.failure();
        assert!(
            status == 400 && error.starts_with("webhookUrl"),
            "{url}: {status} {error}"
        );
    }
    for url in [
        "http://127.9.9.9:1/",
        "http://[::1]:1/",
        "http://localhost:1/",
        "http://127.1:1/",
    ] {
        body["webhookUrl"] = json!(url);
        assert_eq!(
            provider
                .post("/simulate/inbound", body.clone())
                .await
                .status,
            200,
            "{url}"
        );
    }
    body["webhookUrl"] = json!(receiver.url);
    provider.post("/simulate/inbound", body).await;
    until("the event at the other webhook", || {
        receiver.taken().len() == 1
    })
    .await;
}

#[tokio::test]
async fn another_webhook_may_be_anywhere_when_allowed() {
    let provider = Provider::start(Config {
        allow_remote_webhooks: true,
        ..Config::calm()
    })
    .await;
    let mut body = inbound();
    body["webhookUrl"] = json!("http://nowhere.invalid/hook");
    assert_eq!(provider.post("/simulate/inbound", body).await.status, 200);
}

#[tokio::test]
async fn a_wrong_field_is_400_named_and_nothing_is_posted() {
    let receiver = Receiver::start([]).await;
    let provider = provider_for(&receiver).await;
    let cases = [
        ("channel", json!("telegram")),
        ("from", json!("")),
        ("from", json!("x".repeat(161))),
        ("text", json!("")),
        ("text", json!(["a"])),
        ("eventId", json!("")),
        ("eventId", json!("a\tb")),
        ("duplicate", json!("yes")),
        ("outOfOrder", json!(1)),
    ];
    for (field, value) in cases {
        let mut body = inbound();
        body[field] = value;
        let answer = provider.post("/simulate/inbound", body).await;
        let (status, error) = answer.failure();
        assert!(
            status == 400 && error.contains(field),
            "{field}: {status} {error}"
        );
    }
    assert_eq!(provider.mock.stats().webhooks.events, 0);
}

#[tokio::test]
async fn a_stop_ends_the_posts_that_are_waiting() {
    let config = Config {
        webhook_url: "http://127.0.0.1:1/".to_owned(),
        ..Config::calm()
    };
    let provider = Provider::start(config).await;
    provider.post("/simulate/inbound", inbound()).await;
    until("the first try", || {
        provider.mock.stats().webhooks.failed > 0
    })
    .await;
    let started = std::time::Instant::now();
    provider.mock.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(provider.mock.stats().webhooks.pending, 0);
}
