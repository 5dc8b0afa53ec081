//! A caller of the API.

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{event, eventually};

/// Where events are posted to.
pub const WEBHOOK: &str = "/webhooks/mock-meta";

#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    url: String,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// An error that must have this status and this code, in the one shape that errors have.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text
        );
        assert_eq!(body["type"], "about:blank", "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["code"], code, "{body}");
        assert!(
            body["title"].is_string() && body["detail"].is_string(),
            "{body}"
        );
        assert_eq!(
            body["requestId"].as_str(),
            self.header("x-request-id"),
            "{body}"
        );
        assert_eq!(
            [429, 503].contains(&status),
            self.header("retry-after").is_some(),
            "Retry-After comes with 429 and 503"
        );
        body
    }

    /// The names of the fields that an error is about.
    #[track_caller]
    pub fn fields(&self) -> Vec<String> {
        let body = self.expect_problem(400, "invalid_request");
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|error| error["field"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Client {
    pub fn new(url: &str) -> Self {
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            url: url.to_owned(),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Where to connect to without HTTP.
    pub fn address(&self) -> std::net::SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// A counter or gauge of its metrics, without labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").await.text;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        value.parse().unwrap()
    }

    /// Connects to it, for what is no HTTP, or not all of a request.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// Any request.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, self.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.call(request).await.unwrap()
    }

    /// Waits until it can serve.
    pub async fn becomes_ready(&self) {
        eventually("/ready is 200", async || {
            self.get("/health").await.expect(200);
            (self.get("/ready").await.status == 200).then_some(())
        })
        .await;
    }

    /// Waits until it cannot serve, and says so.
    pub async fn becomes_unready(&self) {
        let answer = eventually("/ready is 503", async || {
            let answer = self.get("/ready").await;
            (answer.status == 503).then_some(answer)
        })
        .await;
        answer.expect_problem(503, "database_unavailable");
        self.get("/health").await.expect(200);
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(self.http.get(self.url(path))).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.unwrap()
    }

    /// A request that has no body.
    pub async fn post_empty(&self, path: &str) -> Answer {
        self.call(self.http.post(self.url(path))).await.unwrap()
    }

    /// For a gateway that may be gone.
    pub async fn try_post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        self.call(self.http.post(self.url(path)).json(body)).await
    }

    /// A webhook.
    pub async fn webhook(&self, event: &Value) -> Answer {
        self.post(WEBHOOK, event).await
    }

    /// The one conversation of a participant on whatsapp.
    pub async fn conversation(&self, participant: &str) -> Value {
        let list = self.get("/conversations?limit=100").await.expect(200);
        let mut of_participant = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["participantId"] == participant);
        let found = of_participant
            .next()
            .unwrap_or_else(|| panic!("no conversation with {participant}"));
        assert!(
            of_participant.next().is_none(),
            "two conversations with {participant}"
        );
        found.clone()
    }

    pub async fn call(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let headers = response.headers().clone();
        let kind = headers.get("content-type");
        let is_stream = kind.is_some_and(|kind| kind == "text/event-stream");
        Ok(Answer {
            status: response.status().as_u16(),
            headers,
            // A stream does not end.
            text: if is_stream {
                String::new()
            } else {
                response.text().await?
            },
        })
    }
}

/// A webhook is stored, and a message is sent.
pub async fn assert_full_service(client: &Client) {
    let key = uuid::Uuid::now_v7().to_string();
    let hello = event(&key, &key, "Hello", "2025-01-01T10:00:00Z");
    client.webhook(&hello).await.expect(200);
    let send = json!({ "channel": "whatsapp", "to": key, "text": "Merhaba" });
    let message = client.post("/messages/send", &send).await.expect(201);
    assert_eq!(message["status"], "SENT", "{message}");
    client.get("/ready").await.expect(200);
}

/// Waits until the other side has closed a connection; what came before.
pub async fn rest(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(super::DEADLINE, connection.read_to_end(&mut bytes)).await;
    // A reset is an end too.
    read.expect("it is still open").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What `X-Hub-Signature-256` is for this body.
pub fn signature(secret: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let tag = mac.chain_update(body).finalize().into_bytes();
    format!("sha256={}", hex::encode(tag))
}
