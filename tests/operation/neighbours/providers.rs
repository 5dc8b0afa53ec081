//! Providers that are silent, slow, verbose, or send one elsewhere: an attempt ends in time, as
//! what it was, and costs no memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Bounded;
use crate::support::{Held, NO_RETRY, System, assert_full_service, eventually, id};

const IMPATIENT: (&str, &str) = ("PROVIDER_TIMEOUT_MS", "1000");
/// Longer than an attempt may take, shorter than a provider goes on that is never cut off.
const SOON: Duration = Duration::from_secs(30);

/// The message after its one attempt, which must have failed like this and be waiting for the next
/// one, if there is to be one.
#[track_caller]
fn assert_failed(message: &Value, kind: &str, is_retried: bool) {
    assert_eq!(message["status"], "FAILED", "{message}");
    assert_eq!(message["lastError"]["kind"], kind, "{message}");
    assert_eq!(
        message["nextAttemptAt"].is_string(),
        is_retried,
        "{message}"
    );
}

/// What has failed is sent with its own key, once the provider behaves; and so is the next message.
async fn assert_delivered_at_last(system: &System, provider: &Held, failed: &[Value]) {
    system.skip_waits().await;
    let ids: BTreeSet<String> = failed
        .iter()
        .map(|message| id(message).to_owned())
        .collect();
    let mut keys = BTreeSet::new();
    for _ in failed {
        let call = provider.call().await;
        keys.insert(call.key.clone());
        call.accept("late").await;
    }
    assert_eq!(keys, ids);
    for id in &ids {
        system.message_becomes(id, "SENT").await;
    }
    assert_serves(system, provider).await;
}

async fn assert_serves(system: &System, provider: &Held) {
    let accept = async { provider.call().await.accept("fine").await };
    tokio::join!(assert_full_service(&system.client), accept);
}

#[tokio::test]
async fn a_provider_that_never_answers_is_a_timeout() {
    let provider = Held::start().await;
    let system = System::with(&[("PROVIDER_URL", provider.url()), NO_RETRY, IMPATIENT]).await;
    let silent = async { provider.call().await.into_stream() };
    let (message, silent) = tokio::join!(system.send("user-1", "Merhaba"), silent);
    assert_failed(&message, "timeout", true);
    let line = system.gateway.logged("an attempt failed").await;
    assert_eq!(line["kind"], "timeout", "{line}");
    assert_cut_off(silent).await;
    assert_delivered_at_last(&system, &provider, &[message]).await;
}

/// Sends one byte a second until nobody takes it any more; how long that went on.
async fn trickle(mut stream: TcpStream, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    for byte in bytes.iter().cycle() {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    began.elapsed()
}

/// Whoever was on the other side has gone.
async fn assert_cut_off(mut stream: TcpStream) {
    let read = tokio::time::timeout(SOON, stream.read(&mut [0])).await;
    assert!(matches!(read.expect("it is still there"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_provider_that_sends_a_byte_a_second_has_no_longer_than_one_that_is_silent() {
    let provider = Held::start().await;
    let system = System::with(&[("PROVIDER_URL", provider.url()), NO_RETRY, IMPATIENT]).await;
    let slow_head =
        async { trickle(provider.call().await.into_stream(), b"HTTP/1.1 200 OK\r\n").await };
    let (message, took) = tokio::join!(system.send("user-1", "Merhaba"), slow_head);
    assert_failed(&message, "timeout", true);
    assert!(took < SOON, "{took:?}");

    let slow_body = async {
        let mut stream = provider.call().await.into_stream();
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        trickle(stream, b" ").await
    };
    let (slow, took) = tokio::join!(system.send("user-2", "Merhaba"), slow_body);
    assert_failed(&slow, "timeout", true);
    assert_eq!(slow["lastError"]["httpStatus"], 200, "{slow}");
    assert!(took < SOON, "{took:?}");
    assert_delivered_at_last(&system, &provider, &[message, slow]).await;
}

#[tokio::test]
async fn of_ten_megabytes_only_the_beginning_is_read() {
    const ATTEMPTS: usize = 32;
    let provider = Held::start().await;
    let system = System::with(&[("PROVIDER_URL", provider.url()), NO_RETRY]).await;
    assert_serves(&system, &provider).await;
    let bounded = Bounded::to(64, &system.gateway);
    let padding = "x".repeat(10_000_000);
    let accepted = format!(r#"{{"success":true,"providerMessageId":"p","padding":"{padding}"}}"#);
    let body = format!("content-length: {}\r\n\r\n{accepted}", accepted.len());
    let header = format!("x-padding: {padding}\r\n\r\n");
    for (status, rest, kind) in [
        ("200 OK", &body, "unreadable"),
        ("503 Away", &body, "server_error"),
        ("200 OK", &header, "connection"),
    ] {
        let sends = (0..ATTEMPTS).map(async |_| system.send("user-1", "Merhaba").await);
        let answers = (0..ATTEMPTS).map(async |_| {
            let mut stream = provider.call().await.into_stream();
            let head = format!("HTTP/1.1 {status}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            // Nobody takes all of it.
            stream.write_all(rest.as_bytes()).await.unwrap_err();
        });
        let (messages, _) = tokio::join!(join_all(sends), join_all(answers));
        for message in messages {
            assert_failed(&message, kind, true);
        }
    }
    bounded.check();
    assert_serves(&system, &provider).await;
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let provider = Held::start().await;
    let elsewhere = Held::start().await;
    let system = System::with(&[("PROVIDER_URL", provider.url()), NO_RETRY]).await;
    for status in [301, 302, 303, 307, 308] {
        // To another host, and in a circle.
        for location in [elsewhere.url(), provider.url()] {
            let answer = format!(
                "HTTP/1.1 {status} Elsewhere\r\nlocation: {location}/messages\r\ncontent-length: 0\r\n\r\n"
            );
            let redirect = async {
                let mut stream = provider.call().await.into_stream();
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (message, ()) = tokio::join!(system.send("user-1", "Merhaba"), redirect);
            assert_failed(&message, "rejected", false);
            assert_eq!(message["lastError"]["httpStatus"], status, "{message}");
        }
    }
    assert!(elsewhere.is_idle().await);
    assert!(provider.is_idle().await);
    let line = system.gateway.logged("a message has failed for good").await;
    assert_eq!(line["kind"], "rejected", "{line}");
    assert_serves(&system, &provider).await;
}

/// How a provider closes a connection that it has answered on, and announced to keep open.
#[derive(Clone, Copy)]
enum Close {
    /// While it is idle; whoever is on the other side has noticed when this is over.
    Idle,
    /// When the next request's first bytes are there: too late for the other side to notice.
    UnderARequest,
}

/// A provider that closes connections. It counts each message's acceptances.
struct Closing {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accepted: BTreeMap<String, u32>,
    open: usize,
}

impl Closing {
    async fn start(close: Close) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().open += 1;
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    Self::serve(stream, close, &shared).await;
                    shared.lock().unwrap().open -= 1;
                });
            }
        });
        Self { url, state }
    }

    /// One connection; none where the other side has closed it first.
    async fn serve(mut stream: TcpStream, close: Close, state: &Mutex<State>) -> Option<()> {
        let key = read_request(&mut stream).await?;
        let body = json!({ "success": true, "providerMessageId": format!("p-{key}") }).to_string();
        *state.lock().unwrap().accepted.entry(key).or_default() += 1;
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        if let Close::Idle = close {
            stream.shutdown().await.ok()?;
        }
        stream.read(&mut [0]).await.ok().map(drop)
    }

    async fn is_left_alone(&self) {
        let closed = async || (self.state.lock().unwrap().open == 0).then_some(());
        eventually("every connection is closed", closed).await;
    }

    /// Each message was accepted once.
    #[track_caller]
    fn assert_accepted(&self, ids: &BTreeSet<String>) {
        let accepted = &self.state.lock().unwrap().accepted;
        let expected = ids.iter().map(|id| (id.clone(), 1));
        assert_eq!(*accepted, expected.collect());
    }
}

/// The idempotency key of a whole request.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            Some(lines.find(|(key, _)| *key == name)?.1.to_owned())
        };
        if body.len() >= header("content-length")?.parse().ok()? {
            return header("idempotency-key");
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_attempt() {
    let provider = Closing::start(Close::Idle).await;
    let system = System::with(&[("PROVIDER_URL", &provider.url), NO_RETRY]).await;
    let mut ids = BTreeSet::new();
    for _ in 0..100 {
        let message = system.send("user-1", "Merhaba").await;
        assert_eq!(message["status"], "SENT", "{message}");
        ids.insert(id(&message).to_owned());
        provider.is_left_alone().await;
    }
    provider.assert_accepted(&ids);
    assert_full_service(&system.client).await;
}

#[tokio::test]
async fn a_connection_that_is_closed_under_a_request_costs_an_attempt_and_no_message() {
    let provider = Closing::start(Close::UnderARequest).await;
    let environment = [("PROVIDER_URL", &*provider.url), ("RETRY_BASE_MS", "1")];
    let system = System::with(&environment).await;
    let mut ids = BTreeSet::new();
    let mut failed = 0;
    for _ in 0..200 {
        let message = system.send("user-1", "Merhaba").await;
        if message["status"] == "FAILED" {
            assert_failed(&message, "connection", true);
            failed += 1;
        }
        ids.insert(id(&message).to_owned());
    }
    assert!(failed > 0, "no request met a connection that was closed");
    for id in &ids {
        system.message_becomes(id, "SENT").await;
    }
    provider.assert_accepted(&ids);
}
