//! Callers that go away, or have only finished sending: the ones are seen, the others answered.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    ALL_LINES, Client, Database, Held, HeldCall, LONG_ATTEMPT, Program, System, event, eventually,
    hello, rest, serve_at,
};

const ABANDONED: &str = "gateway_http_requests_abandoned_total";
const SAID: &str = "a caller went away before its answer";

/// Connects and posts a body, under a request id.
async fn post(client: &Client, path: &str, request_id: &str, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut connection = client.connect().await;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {request_id}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

/// A gateway with a provider whose answers are given by hand, and a send that waits for one.
struct Waiting {
    gateway: Program,
    client: Client,
    connection: TcpStream,
    call: HeldCall,
    _database: Database,
}

impl Waiting {
    async fn start() -> Self {
        let (database, provider) = (Database::new().await, Held::start().await);
        let environment = &[("SEND_WAIT_MS", "60000"), LONG_ATTEMPT, ALL_LINES];
        let (gateway, client) =
            serve_at(database.url(), provider.url(), &["serve"], environment).await;
        let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi", "clientMessageId": "order-1" });
        let connection = post(&client, "/messages/send", "caller-1", &send).await;
        let call = provider.call().await;
        Self {
            gateway,
            client,
            connection,
            call,
            _database: database,
        }
    }
}

/// The message that the send made, once it is sent.
async fn sent(client: &Client) -> Value {
    let conversation = client.conversation("user-1").await;
    let thread = format!("/conversations/{}", conversation["id"].as_str().unwrap());
    eventually("it is sent", async || {
        let message = client.get(&thread).await.expect(200)["messages"][0].clone();
        (message["status"] == "SENT").then_some(message)
    })
    .await
}

#[tokio::test]
async fn a_client_that_has_finished_sending_is_answered_like_any_other() {
    let mut waiting = Waiting::start().await;
    waiting.connection.shutdown().await.unwrap();
    // By now the gateway has seen it.
    waiting.client.get("/ready").await.expect(200);
    waiting.call.accept("accepted-1").await;
    let answer = rest(&mut waiting.connection).await;
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    assert!(answer.contains(r#""status":"SENT""#), "{answer}");

    // Whatever is asked for, and however early the client is done.
    let hello = event("evt_1", "user-2", "Hello", "2025-01-01T10:00:00Z");
    for (path, duplicate) in [
        ("/webhooks/mock-meta", false),
        ("/webhooks/mock-meta", true),
    ] {
        let mut connection = post(&waiting.client, path, "caller-2", &hello).await;
        connection.shutdown().await.unwrap();
        let answer = rest(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(
            answer.contains(&format!("\"duplicate\":{duplicate}")),
            "{answer}"
        );
    }
    let mut connection = TcpStream::connect(waiting.client.address()).await.unwrap();
    let two = "GET /conversations HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2);
    connection.write_all(two.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    assert_eq!(
        rest(&mut connection)
            .await
            .matches("HTTP/1.1 200 OK")
            .count(),
        2
    );

    // None of them was gone.
    let metrics = waiting.client.get("/metrics").await.text;
    assert!(metrics.contains(&format!("{ABANDONED} 0")), "{metrics}");
    waiting.gateway.terminate().await;
    let log = waiting.gateway.log().concat();
    assert!(!log.contains(SAID), "{log}");
}

#[tokio::test]
async fn a_caller_that_resets_its_connection_is_seen_at_once_and_its_message_sent_all_the_same() {
    let waiting = Waiting::start().await;
    assert!(waiting.client.metric(ABANDONED).await.abs() < 0.5);
    waiting.connection.set_zero_linger().unwrap();
    drop(waiting.connection);
    let line = waiting.gateway.logged(SAID).await;
    assert_eq!(line["span"]["request_id"], "caller-1", "{line}");
    assert_eq!(line["level"], "DEBUG", "{line}");
    assert!((waiting.client.metric(ABANDONED).await - 1.0).abs() < 0.5);
    waiting.call.accept("accepted-1").await;
    assert_eq!(
        sent(&waiting.client).await["providerMessageId"],
        "accepted-1"
    );
}

#[tokio::test]
async fn a_caller_that_closes_its_connection_is_seen_when_it_refuses_the_answer() {
    let waiting = Waiting::start().await;
    drop(waiting.connection);
    waiting.call.accept("accepted-1").await;
    let line = waiting.gateway.logged(SAID).await;
    assert_eq!(line["request_id"], "caller-1", "{line}");
    assert!((waiting.client.metric(ABANDONED).await - 1.0).abs() < 0.5);
    assert_eq!(
        sent(&waiting.client).await["providerMessageId"],
        "accepted-1"
    );
}

#[tokio::test]
async fn an_idle_connection_that_is_reset_abandons_nothing() {
    let system = System::with(&[("RUST_LOG", "info,gateway=debug,hyper=debug")]).await;
    let hello = hello("evt_1");
    let mut connection = post(&system.client, "/webhooks/mock-meta", "caller-1", &hello).await;
    let mut start = [0; 15];
    connection.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    connection.set_zero_linger().unwrap();
    drop(connection);
    let mut gateway = system.gateway;
    gateway.terminate().await;
    let log = gateway.log().concat();
    assert!(!log.contains(SAID), "{log}");
}

#[tokio::test]
async fn what_the_parser_refuses_is_answered_without_a_body_and_harms_nobody() {
    let system = System::start().await;
    let long = "x".repeat(33_000);
    let many = "x: y\r\n".repeat(200);
    for (status, request) in [
        (
            "400 Bad Request",
            "GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(),
        ),
        (
            "431 Request Header Fields Too Large",
            format!("GET /{long} HTTP/1.1\r\n\r\n"),
        ),
        (
            "431 Request Header Fields Too Large",
            format!("GET / HTTP/1.1\r\n{many}\r\n"),
        ),
    ] {
        let mut connection = TcpStream::connect(system.client.address()).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut connection).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(
            answer.ends_with("\r\n\r\n") && answer.contains("content-length: 0"),
            "{answer}"
        );
    }
    system.client.get("/ready").await.expect(200);
}
