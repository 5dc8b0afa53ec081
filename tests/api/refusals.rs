//! Refused webhooks: each is counted, and logged with the id of its event, whatever is wrong with
//! it.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::JSON;
use crate::support::{Answer, Client, System, WEBHOOK, eventually, hello};

fn body(id: &str) -> String {
    hello(id).to_string()
}

/// Waits until the log says of these refused webhooks, by id and code.
async fn logged(system: &System, expected: &[(&str, &str)]) {
    let expected = expected
        .iter()
        .map(|(id, code)| ((*id).to_owned(), (*code).to_owned()));
    let expected: BTreeSet<_> = expected.collect();
    eventually(
        &format!("{expected:?} in {:?}", refused(system)),
        async || refused(system).is_superset(&expected).then_some(()),
    )
    .await;
}

/// What the log says of refused webhooks: ids and codes.
fn refused(system: &System) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let lines = system.gateway.lines("a webhook was refused").into_iter();
    lines
        .map(|line| (text(&line["event_id"]), text(&line["code"])))
        .collect()
}

async fn post(client: &Client, headers: &[(&str, &str)], id: &str) -> Answer {
    client.ask("POST", WEBHOOK, headers, body(id)).await
}

async fn counted(client: &Client) -> f64 {
    client
        .metric("gateway_webhook_events_total{result=\"refused\"}")
        .await
}

/// A webhook that is refused: the status, the id that the log has, headers, and the body.
type Refused = (u16, &'static str, Vec<(&'static str, &'static str)>, String);

/// What is wrong in what arrives.
fn wrong_bodies() -> Vec<Refused> {
    let padded = |id: &str, length: usize| body(id) + &" ".repeat(length - body(id).len());
    let late = format!(r#"{{"text":"{}","eventId":"late"}}"#, "x".repeat(70_000));
    let half = body("half_").replace("half_", r"half\ud800");
    let twice = hello("twice")
        .to_string()
        .replacen('{', r#"{"eventId":"twice","#, 1);
    let bodies = [
        (413, "over", padded("over", 64 * 1024 + 1)),
        (413, "far-over", padded("far-over", 700 * 1024)),
        // Nobody reads so far.
        (413, "none", late),
        (400, "cut", body("cut")[..60].to_owned()),
        (400, "trailing", body("trailing").replace('}', ",}")),
        (400, "single", body("single").replace('"', "'")),
        (400, "more", body("more") + "}"),
        (400, "listed", format!("[{}]", body("listed"))),
        (400, "4711", body("id").replace("\"id\"", "4711")),
        (400, "half\u{FFFD}", half),
        (400, "odd", body("odd").replace("whatsapp", "sms")),
        (400, "twice", twice),
    ];
    let refused = |(status, id, body)| (status, id, vec![JSON], body);
    bodies.into_iter().map(refused).collect()
}

/// What is wrong with how it arrives.
fn wrong_headers() -> Vec<Refused> {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let fields = "channel=whatsapp&eventId=form&text=Hello".to_owned();
    let coded = vec![JSON, ("content-encoding", "gzip")];
    let page = vec![JSON, ("origin", "https://evil.example")];
    vec![
        (
            415,
            "plain",
            vec![("content-type", "text/plain")],
            body("plain"),
        ),
        (415, "form", vec![form], fields),
        (415, "coded", coded, body("coded")),
        (403, "page", page, body("page")),
    ]
}

#[tokio::test]
async fn a_refused_webhook_is_logged_with_its_event_id_whatever_is_wrong_with_it() {
    let system = System::start().await;
    let mut expected = Vec::new();
    for (status, id, headers, body) in [wrong_bodies(), wrong_headers()].concat() {
        // With a slash, or without.
        let path = if expected.len() % 2 == 0 {
            WEBHOOK.to_owned()
        } else {
            format!("{WEBHOOK}/")
        };
        // A header has no other characters.
        let request_id = if id.is_ascii() { id } else { "none" };
        let headers = [&[("x-request-id", request_id)], &*headers].concat();
        let answered = system.client.ask("POST", &path, &headers, body).await;
        assert_eq!(answered.status, status, "{id}");
        let code = match status {
            400 => "invalid_request",
            403 => "forbidden",
            413 => "too_large",
            _ => "unsupported_media_type",
        };
        expected.push((id, code));
    }
    logged(&system, &expected).await;
    for line in system.gateway.lines("a webhook was refused") {
        let request_id = &line["span"]["request_id"];
        assert!(
            *request_id == "none" || *request_id == line["event_id"],
            "{line}"
        );
    }
    assert!((counted(&system.client).await - 16.0).abs() < 0.5);
    let events = "select count(*) from webhook_events";
    assert_eq!(system.database.count(events).await, 0);
}

#[tokio::test]
async fn a_webhook_with_a_wrong_signature_is_logged_with_its_event_id() {
    let system = System::with(&[("WEBHOOK_SECRET", "a-secret-of-16-or-more")]).await;
    let wrong = format!("sha256={}", "0".repeat(64));
    for (id, headers) in [
        ("forged", vec![JSON, ("x-hub-signature-256", &*wrong)]),
        ("untyped", vec![("x-hub-signature-256", &*wrong)]),
    ] {
        let answered = post(&system.client, &headers, id).await;
        assert_eq!(answered.status, 401);
        logged(&system, &[(id, "invalid_signature")]).await;
    }
    // What could be no signature is counted, and not read.
    let malformed = ("x-hub-signature-256", &wrong[1..]);
    for headers in [vec![JSON], vec![JSON, malformed]] {
        let answered = post(&system.client, &headers, "unsigned").await;
        assert_eq!(answered.status, 401);
    }
    assert!((counted(&system.client).await - 4.0).abs() < 0.5);
    let log = system.gateway.log().concat();
    assert!(!log.contains("unsigned\""), "{log}");
}

/// Posts the beginning of an event as if there were more to come.
async fn begin(client: &Client, id: &str) -> TcpStream {
    let mut connection = client.connect().await;
    let head = "POST /webhooks/mock-meta HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000";
    let request = format!("{head}\r\n\r\n{}", &body(id)[..60]);
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

#[tokio::test]
async fn a_webhook_that_breaks_off_or_is_too_slow_is_logged_with_its_event_id() {
    let system = System::start().await;
    let mut slow = begin(&system.client, "slow").await;
    let mut broken = begin(&system.client, "broken").await;
    broken.shutdown().await.unwrap();
    for (connection, status, id) in [(&mut broken, "400", "broken"), (&mut slow, "408", "slow")] {
        let mut start = [0; 12];
        connection.read_exact(&mut start).await.unwrap();
        assert!(start.ends_with(status.as_bytes()), "{start:?}");
        logged(&system, &[(id, "invalid_request")]).await;
    }
    // What is reset has broken off, too.
    let reset = begin(&system.client, "reset").await;
    system.client.get("/health").await.expect(200);
    reset.set_zero_linger().unwrap();
    drop(reset);
    logged(&system, &[("reset", "invalid_request")]).await;
    assert!((counted(&system.client).await - 3.0).abs() < 0.5);
}
