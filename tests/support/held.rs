//! A provider whose answers a test gives by hand: for what must happen while a call is waiting for
//! one.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use super::DEADLINE;

/// A provider that only listens; dropping it with its calls cuts their connections.
pub struct Held {
    url: String,
    calls: Mutex<mpsc::UnboundedReceiver<HeldCall>>,
}

/// A call that waits for its answer.
pub struct HeldCall {
    /// Its `Idempotency-Key`, if it has one.
    pub key: String,
    /// Its `traceparent`.
    pub traceparent: Option<String>,
    /// What it asks to send.
    pub body: Value,
    stream: TcpStream,
}

impl Held {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, calls) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Some(call) = read(stream).await {
                        sender.send(call).ok();
                    }
                });
            }
        });
        Self {
            url,
            calls: Mutex::new(calls),
        }
    }

    /// What `PROVIDER_URL` is to be.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the next call.
    pub async fn call(&self) -> HeldCall {
        let mut calls = self.calls.lock().await;
        let call = tokio::time::timeout(DEADLINE, calls.recv()).await;
        call.expect("the provider is never called").unwrap()
    }

    /// Whether no call has come that `call` has not returned.
    pub async fn is_idle(&self) -> bool {
        self.calls.lock().await.is_empty()
    }
}

impl HeldCall {
    /// Takes the message over.
    pub async fn accept(self, provider_message_id: &str) {
        let body = json!({ "success": true, "providerMessageId": provider_message_id, "timestamp": "2025-01-01T10:00:00.000Z" });
        self.answer(200, &body).await;
    }

    /// The connection, to answer on it whatever is no answer.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Any answer. That nobody reads it any more is no error.
    pub async fn answer(mut self, status: u16, body: &Value) {
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} Held\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(answer.as_bytes()).await.ok();
        self.stream.shutdown().await.ok();
    }
}

/// One request; none where the connection ends before it is complete.
async fn read(mut stream: TcpStream) -> Option<HeldCall> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let header = |name: &str| {
            let mut lines = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(": "));
            let (_, value) = lines.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.to_owned())
        };
        let length: usize = header("content-length")?.parse().ok()?;
        if body.len() >= length {
            let body = serde_json::from_str(body).ok()?;
            let key = header("idempotency-key").unwrap_or_default();
            let traceparent = header("traceparent");
            return Some(HeldCall {
                key,
                traceparent,
                body,
                stream,
            });
        }
    }
}
