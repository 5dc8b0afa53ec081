//! Calls of `POST /messages`: accepted, refused, delivered once.

use mock_meta_provider::{Behaviour, Channel, Config, Fault};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Provider, message, until};

#[tokio::test]
async fn an_accepted_message_is_delivered_and_can_be_read_by_its_id() {
    let provider = Provider::calm().await;
    let answer = provider.send("key-1").await;
    assert_eq!(answer.body["success"], true);
    assert!(answer.id().starts_with("msg_"));
    let read = provider.get(&format!("/messages/{}", answer.id())).await;
    assert_eq!(read.status, 200);
    assert_eq!(
        read.body,
        json!({ "success": true, "message": {
            "providerMessageId": answer.id(), "idempotencyKey": "key-1", "channel": "whatsapp", "to": "user-1",
            "text": "key-1", "clientMessageId": "c-1", "timestamp": answer.body["timestamp"],
        }})
    );
    let timestamp = answer.body["timestamp"].as_str().unwrap();
    assert_eq!(
        (timestamp.len(), timestamp.ends_with('Z')),
        (24, true),
        "{timestamp}"
    );
    assert_eq!(provider.texts(), ["key-1"]);
}

#[tokio::test]
async fn an_unknown_id_is_404() {
    let provider = Provider::calm().await;
    for path in ["/messages/msg_0", "/messages/%ff"] {
        assert_eq!(provider.get(path).await.failure().0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_repeated_key_is_delivered_once() {
    let provider = Provider::calm().await;
    let (first, second) = (provider.send("key-1").await, provider.send("key-1").await);
    assert_eq!(first.body, second.body);
    assert_ne!(first.id(), provider.send("key-2").await.id());
    assert_eq!(provider.texts(), ["key-1", "key-2"]);
    let known = provider.mock.message("key-1").unwrap();
    assert_eq!(
        (known.calls, known.deliveries, known.max_overlapping_calls),
        (2, 1, 1)
    );
    let stats = provider.mock.stats();
    assert_eq!(
        (
            stats.calls,
            stats.accepted,
            stats.deduplicated,
            stats.total_messages
        ),
        (3, 3, 1, 2)
    );
}

#[tokio::test]
async fn without_deduplication_each_accepted_call_is_a_delivery() {
    let provider = Provider::calm().await;
    assert_eq!(
        provider
            .post("/config", json!({ "dedupe": false }))
            .await
            .status,
        200
    );
    let (first, second) = (provider.send("key-1").await, provider.send("key-1").await);
    assert_ne!(first.id(), second.id());
    assert_eq!(provider.texts(), ["key-1", "key-1"]);
    assert_eq!(provider.deliveries("key-1"), 2);
}

#[tokio::test]
async fn a_key_in_flight_twenty_times_at_once_is_delivered_once() {
    let provider = Provider::calm().await;
    provider.mock.script_always("user-1", Fault::delay(300));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let call = provider.call("key-1");
        calls.spawn(async move { call.send().await.unwrap().text().await.unwrap() });
    }
    let mut answers = calls.join_all().await;
    answers.dedup();
    assert_eq!(answers.len(), 1, "one id for all of them");
    let known = provider.mock.message("key-1").unwrap();
    assert_eq!((known.calls, known.deliveries), (20, 1));
    assert!(known.max_overlapping_calls > 1, "{known:?}");
}

#[tokio::test]
async fn a_message_without_a_key_is_never_a_repeat() {
    let provider = Provider::calm().await;
    let (first, second) = (
        provider.post("/messages", message("user-1", "same")).await,
        provider.post("/messages", message("user-1", "same")).await,
    );
    assert_ne!(first.id(), second.id());
    assert_eq!(provider.texts(), ["same", "same"]);
}

#[tokio::test]
async fn a_key_that_comes_with_another_text_is_reported() {
    let provider = Provider::calm().await;
    provider.send("key-1").await;
    let other = provider
        .call("key-1")
        .json(&message("user-1", "other"))
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
    assert_eq!(provider.mock.message("key-1").unwrap().mismatched_calls, 1);
    assert_eq!(provider.mock.stats().key_mismatches, 1);
    assert_eq!(provider.texts(), ["key-1"]);
}

#[tokio::test]
async fn a_wrong_field_is_400_and_named() {
    let provider = Provider::calm().await;
    let cases = [
        ("channel", json!("telegram")),
        ("channel", json!(null)),
        ("to", json!("")),
        ("to", json!("a\nb")),
        ("to", json!("x".repeat(161))),
        ("text", json!("")),
        ("text", json!("a\u{0}b")),
        ("text", json!("x".repeat(65_537))),
        ("text", json!(5)),
        ("clientMessageId", json!("")),
        ("clientMessageId", json!("x".repeat(129))),
    ];
    for (field, value) in cases {
        let mut body = message("user-1", "text");
        body[field] = value;
        let answer = provider.post("/messages", body).await;
        let (status, error) = answer.failure();
        assert_eq!(
            (status, answer.body["retryable"].as_bool()),
            (400, Some(false)),
            "{error}"
        );
        assert!(error.contains(field), "{field}: {error}");
    }
    for field in ["channel", "to", "text", "clientMessageId"] {
        let mut body = message("user-1", "text");
        body.as_object_mut().unwrap().remove(field);
        let answer = provider.post("/messages", body).await;
        let (status, error) = answer.failure();
        assert!(status == 400 && error.contains(field), "{status} {error}");
    }
    for key in ["", "a\tb", &"k".repeat(256)] {
        assert_eq!(provider.send(key).await.failure().0, 400, "{key}");
    }
    assert_eq!(provider.mock.stats().calls, 0);
}

#[tokio::test]
async fn a_text_of_65536_bytes_is_accepted() {
    let provider = Provider::calm().await;
    provider
        .post("/messages", message("user-1", &"x".repeat(65_536)))
        .await
        .id();
}

#[tokio::test]
async fn an_overlap_ends_when_the_client_goes() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::Hang, Fault::Ok]);
    let hanging = tokio::spawn(provider.call("key-1").send());
    until("the call", || provider.mock.stats().calls == 1).await;
    hanging.abort();
    until("the provider sees the client go", || {
        provider.mock.message("key-1").unwrap().overlapping_calls == 0
    })
    .await;
    provider.send("key-1").await.id();
    let known = provider.mock.message("key-1").unwrap();
    assert_eq!(
        (known.calls, known.deliveries, known.max_overlapping_calls),
        (2, 1, 1)
    );
}

#[tokio::test]
async fn overlapping_calls_of_one_key_are_counted() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::Hang, Fault::Hang]);
    let calls =
        [provider.call("key-1"), provider.call("key-1")].map(|call| tokio::spawn(call.send()));
    until("both wait", || {
        provider
            .mock
            .message("key-1")
            .is_some_and(|known| known.overlapping_calls == 2)
    })
    .await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("both have gone", || {
        provider.mock.message("key-1").unwrap().overlapping_calls == 0
    })
    .await;
    assert_eq!(
        provider
            .mock
            .message("key-1")
            .unwrap()
            .max_overlapping_calls,
        2
    );
}

#[tokio::test]
async fn a_call_is_carried_through_although_its_client_has_gone() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::delay(500)]);
    let call = tokio::spawn(provider.call("key-1").send());
    until("the call", || provider.mock.stats().calls == 1).await;
    call.abort();
    until("the provider sees the client go", || {
        provider.mock.message("key-1").unwrap().overlapping_calls == 0
    })
    .await;
    assert_eq!(provider.deliveries("key-1"), 0);
    until("the delivery", || provider.deliveries("key-1") == 1).await;
}

#[tokio::test]
async fn the_ledger_drops_its_oldest_keys_and_says_so() {
    let provider = Provider::start(Config {
        ledger_max_keys: 3,
        ..Config::calm()
    })
    .await;
    let first = provider.send("key-1").await;
    for key in ["key-2", "key-3", "key-4", "key-5"] {
        provider.send(key).await;
    }
    let ledger = provider.mock.ledger();
    assert_eq!((ledger.dropped_keys, ledger.dropped_deliveries), (2, 2));
    assert!(ledger.message("key-2").is_none() && ledger.message("key-3").is_some());
    assert_eq!(
        ledger.texts(Channel::Whatsapp, "user-1"),
        ["key-3", "key-4", "key-5"]
    );
    assert_eq!(
        provider
            .get(&format!("/messages/{}", first.id()))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_stop_lets_a_running_call_finish_and_takes_no_new_ones() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::delay(300)]);
    let running = tokio::spawn(provider.call("key-1").send());
    until("the call", || provider.mock.stats().calls == 1).await;
    provider.mock.stop().await;
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    assert!(
        provider
            .call("key-2")
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
}

#[tokio::test]
async fn a_dropped_provider_cuts_its_connections_and_frees_its_port() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::delay(600_000)]);
    let address = provider.mock.address();
    let hanging = tokio::spawn(provider.call("key-1").send());
    until("the call", || provider.mock.stats().calls == 1).await;
    drop(provider);
    assert!(!hanging.await.unwrap().unwrap_err().is_timeout());
    let started = std::time::Instant::now();
    while tokio::net::TcpListener::bind(address).await.is_err() {
        assert!(
            started.elapsed() < crate::support::DEADLINE,
            "the port is still taken"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let provider = Provider::calm().await;
    let mut stream = tokio::net::TcpStream::connect(provider.mock.address())
        .await
        .unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn with_the_rates_at_zero_nothing_goes_wrong() {
    let behaviour = Behaviour {
        failure_rate: 0.0,
        duplicate_rate: 0.0,
        out_of_order_rate: 0.0,
        delay_max_ms: 0,
        ..Behaviour::DEFAULT
    };
    let provider = Provider::start(Config {
        behaviour,
        ..Config::calm()
    })
    .await;
    for number in 0..100 {
        provider.send(&format!("key-{number}")).await.id();
    }
    assert_eq!(provider.texts().len(), 100);
}
