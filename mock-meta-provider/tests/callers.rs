//! Unusual callers: half-closed and idle connections, trailing slashes, content codings, characters
//! that no text can hold, fields that are there twice.

use std::time::{Duration, Instant};

use mock_meta_provider::{Behaviour, Fault};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{DEADLINE, Provider, Receiver, message, until};

async fn connect(provider: &Provider) -> TcpStream {
    TcpStream::connect(provider.mock.address()).await.unwrap()
}

/// A call with this key on a connection of its own.
async fn call(provider: &Provider, key: &str) -> TcpStream {
    let body = message("user-1", key).to_string();
    let mut connection = connect(provider).await;
    let request = format!(
        "POST /messages HTTP/1.1\r\nhost: localhost\r\nidempotency-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

async fn rest(mut connection: TcpStream) -> String {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits until no call of a key counts as waiting.
async fn nobody_waits(provider: &Provider, key: &str) {
    until("nobody waits", || {
        provider.mock.message(key).unwrap().overlapping_calls == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_has_finished_sending_is_answered_but_may_be_gone() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::delay(500)]);
    let mut connection = call(&provider, "key-1").await;
    connection.shutdown().await.unwrap();
    until("the call", || provider.mock.stats().calls == 1).await;
    nobody_waits(&provider, "key-1").await;
    let answer = rest(connection).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(r#""success":true"#), "{answer}");
    assert_eq!(provider.texts(), ["key-1"]);

    let mut connection = connect(&provider).await;
    let two = "GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2);
    connection.write_all(two.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    assert_eq!(rest(connection).await.matches("HTTP/1.1 200 OK").count(), 2);
}

#[tokio::test]
async fn a_client_that_resets_or_closes_its_connection_no_longer_waits() {
    let provider = Provider::calm().await;
    provider.mock.script_always("user-1", Fault::Hang);
    for key in ["key-1", "key-2"] {
        let connection = call(&provider, key).await;
        until("the call", || provider.mock.message(key).is_some()).await;
        if key == "key-1" {
            connection.set_zero_linger().unwrap();
        }
        drop(connection);
        nobody_waits(&provider, key).await;
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_those_of_load_balancers() {
    let provider = Provider::calm().await;
    let mut silent = connect(&provider).await;
    let mut idle = connect(&provider).await;
    let asked_at = Instant::now();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let closed = async |connection: &mut TcpStream| {
        let mut said = String::new();
        let closed = timeout(Duration::from_mins(3), connection.read_to_string(&mut said));
        closed.await.expect("it is still open").unwrap();
        said
    };
    assert_eq!(closed(&mut silent).await, "");
    let said = closed(&mut idle).await;
    assert!(said.ends_with(r#"{"status":"ok"}"#), "{said}");
    assert!(
        asked_at.elapsed() >= Duration::from_secs(75),
        "{:?}",
        asked_at.elapsed()
    );
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    let provider = Provider::calm().await;
    let id = provider.send("key-1").await.id().to_owned();
    for path in [
        "/health/",
        "/stats/",
        "/ledger/?participantPrefix=user",
        "/config/",
        &format!("/messages/{id}/"),
    ] {
        assert_eq!(provider.get(path).await.status, 200, "{path}");
    }
    for (path, body) in [
        ("/messages/", message("user-1", "text")),
        ("/config/", json!({ "failureRate": 0 })),
        ("/script/", json!({ "answers": [] })),
        ("/reset/", json!({})),
    ] {
        assert_eq!(provider.post(path, body).await.status, 200, "{path}");
    }
    for path in ["/", "/health//", "/stats/x/"] {
        assert_eq!(provider.get(path).await.failure().0, 404, "{path}");
    }
}

/// Posts bytes as JSON.
async fn post(
    provider: &Provider,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value, Option<String>) {
    let url = format!("{}{path}", provider.mock.url());
    let mut request = provider
        .client
        .request(Method::POST, url)
        .body(body.to_owned());
    for (name, value) in [("content-type", "application/json")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let coding = answer.headers().get("accept-encoding");
    let coding = coding.map(|coding| coding.to_str().unwrap().to_owned());
    (
        answer.status().as_u16(),
        answer.json().await.unwrap(),
        coding,
    )
}

#[tokio::test]
async fn a_body_that_is_coded_or_said_to_be_is_415() {
    let provider = Provider::calm().await;
    for path in [
        "/messages",
        "/simulate/inbound",
        "/config",
        "/script",
        "/reset",
    ] {
        for coding in ["gzip", "br", "identity, gzip", "X"] {
            let (status, body, accepted) =
                post(&provider, path, &[("content-encoding", coding)], "{}").await;
            assert_eq!(
                (status, &body["success"]),
                (415, &json!(false)),
                "{path} {coding}"
            );
            assert_eq!(accepted.as_deref(), Some("identity"), "{path}");
        }
    }
    let (status, ..) = post(
        &provider,
        "/config",
        &[("content-encoding", "identity")],
        "{}",
    )
    .await;
    assert_eq!(status, 200);
    let (status, _, accepted) = post(
        &provider,
        "/config",
        &[("content-type", "text/plain")],
        "{}",
    )
    .await;
    assert_eq!(
        (status, accepted),
        (200, None),
        "of two types the first counts"
    );
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_400_and_named() {
    let provider = Provider::calm().await;
    for (path, field, body) in [
        (
            "/messages",
            "text",
            r#"{"channel":"whatsapp","to":"user-1","text":"a","text":"a","clientMessageId":"c-1"}"#,
        ),
        (
            "/simulate/inbound",
            "from",
            r#"{"channel":"whatsapp","from":"a","from":"b","text":"a"}"#,
        ),
        (
            "/config",
            "rejectRate",
            r#"{"rejectRate":1,"failureRate":0,"rejectRate":1}"#,
        ),
        (
            "/script",
            "repeat",
            r#"{"answers":["reject"],"repeat":true,"repeat":false}"#,
        ),
        (
            "/script",
            "delayMs",
            r#"{"answers":[{"fault":"delay","delayMs":1,"delayMs":2}]}"#,
        ),
    ] {
        let (status, answer, _) = post(&provider, path, &[], body).await;
        let error = answer["error"].as_str().unwrap();
        assert!(
            status == 400 && error.contains(field),
            "{path}: {status} {error}"
        );
    }
    let (status, ..) = post(&provider, "/config", &[], r#"{"colour":1,"colour":2}"#).await;
    assert_eq!(status, 200, "nobody knows that field");
    let twice = provider
        .get("/ledger?participantPrefix=a&participantPrefix=b")
        .await;
    let (status, error) = twice.failure();
    assert!(
        status == 400 && error.contains("participantPrefix"),
        "{error}"
    );
    assert_eq!(provider.mock.behaviour(), Behaviour::CALM);
    assert_eq!(provider.mock.stats().calls, 0);
}

#[tokio::test]
async fn what_no_text_can_hold_comes_from_customers_and_does_not_go_to_them() {
    let receiver = Receiver::start([]).await;
    let provider = Provider::start(mock_meta_provider::Config {
        webhook_url: receiver.url.clone(),
        ..mock_meta_provider::Config::calm()
    })
    .await;
    for (n, (given, passed_on)) in [
        (r"a\ud800b", "a\u{FFFD}b"),
        (r"\ude00\ud83d", "\u{FFFD}\u{FFFD}"),
        (r"\ud83d\ude00\ud83d", "😀\u{FFFD}"),
        (r"a\u0000b", "a\0b"),
        ("ed\u{a0}\u{80}", "ed\u{a0}\u{80}"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(
            r#"{{"eventId":"evt_{n}","channel":"whatsapp","from":"a","text":"{given}","meta":"\ud800"}}"#
        );
        let (status, answer, _) = post(&provider, "/simulate/inbound", &[], &body).await;
        assert_eq!(status, 200, "{answer}");
        until("it is posted", || receiver.taken().len() > n).await;
        assert_eq!(receiver.taken()[n]["text"], passed_on);
        if given.starts_with("ed") {
            continue;
        }
        let body = format!(
            r#"{{"channel":"whatsapp","to":"a","text":"{given}","clientMessageId":"c-1"}}"#
        );
        let (status, answer, _) = post(&provider, "/messages", &[], &body).await;
        let error = answer["error"].as_str().unwrap();
        assert!(
            status == 400 && error.starts_with("text: "),
            "{status} {error}"
        );
    }
    for (path, field) in [
        ("/simulate/inbound", "eventId"),
        ("/simulate/inbound", "from"),
        ("/messages", "to"),
    ] {
        for given in [r"\ud800", r"\u0000"] {
            let body = format!(
                r#"{{"channel":"whatsapp","to":"a","from":"a","text":"a","clientMessageId":"c-1","{field}":"{given}"}}"#
            );
            let body = body.replacen(&format!(r#""{field}":"a","#), "", 1);
            let (status, answer, _) = post(&provider, path, &[], &body).await;
            let error = answer["error"].as_str().unwrap();
            assert!(
                status == 400 && error.starts_with(field),
                "{status} {error}"
            );
        }
    }
}

/// Sends bytes on a new connection, and reads until its end.
async fn answer_to(provider: &Provider, request: &str) -> String {
    let mut connection = connect(provider).await;
    // The provider may have refused it before its last byte.
    connection.write_all(request.as_bytes()).await.ok();
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, connection.read_to_end(&mut answer));
    read.await.expect("no end").ok();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_that_may_end_in_two_places_is_refused() {
    let provider = Provider::calm().await;
    let start = "POST /reset HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    for (status, fields) in [
        (400, "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        (400, "transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
        (501, "transfer-encoding: gzip, chunked\r\n"),
    ] {
        let request = format!("{start}{fields}\r\n2\r\n{{}}\r\n0\r\n\r\n");
        let answer = answer_to(&provider, &request).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{fields}: {answer}");
        assert!(answer.contains("\"success\":false"), "{answer}");
    }
    let chunked = format!(
        "{start}transfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    );
    let answer = answer_to(&provider, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_head_has_32_kib() {
    let provider = Provider::calm().await;
    for (length, expected) in [(32_000, "HTTP/1.1 200 "), (33_000, "HTTP/1.1 431 ")] {
        let long = "a".repeat(length);
        let request = format!(
            "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {long}\r\n\r\n"
        );
        let answer = answer_to(&provider, &request).await;
        assert!(answer.starts_with(expected), "{length}: {answer}");
    }
}

#[tokio::test]
async fn what_a_browser_says_of_the_page_that_asks_decides() {
    let provider = Provider::calm().await;
    let url = provider.mock.url();
    for (site, status) in [
        ("same-origin", 200),
        ("none", 200),
        ("same-site", 403),
        ("cross-site", 403),
    ] {
        let request = provider.client.get(format!("{url}/config"));
        let request = request.header("sec-fetch-site", site);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{site}");
        let reset = provider.client.post(format!("{url}/reset"));
        let reset = reset.header("sec-fetch-site", site).json(&json!({}));
        let answer = reset.send().await.unwrap().status();
        assert_eq!(answer == 200, site == "same-origin", "{site}");
    }
}
