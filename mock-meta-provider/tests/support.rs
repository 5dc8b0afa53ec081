//! A calm provider with a client, and a webhook that refuses what it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use mock_meta_provider::{Channel, Config, Mock};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long anything here may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Provider {
    pub mock: Mock,
    pub client: reqwest::Client,
}

impl Provider {
    pub async fn calm() -> Self {
        Self::start(Config::calm()).await
    }

    pub async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mock = Mock::start(config, listener).unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE);
        let client = client
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { mock, client }
    }

    /// A call with this key to `user-1`, whose text is the key.
    pub fn call(&self, key: &str) -> RequestBuilder {
        let request = self.client.post(format!("{}/messages", self.mock.url()));
        request
            .header("Idempotency-Key", key)
            .json(&message("user-1", key))
    }

    pub async fn send(&self, key: &str) -> Answer {
        Answer::read(self.call(key)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::read(
            self.client
                .post(format!("{}{path}", self.mock.url()))
                .json(&body),
        )
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::read(self.client.get(format!("{}{path}", self.mock.url()))).await
    }

    pub fn texts(&self) -> Vec<String> {
        self.mock.texts(Channel::Whatsapp, "user-1")
    }

    pub fn deliveries(&self, key: &str) -> u64 {
        self.mock
            .message(key)
            .map_or(0, |message| message.deliveries)
    }
}

pub fn message(to: &str, text: &str) -> Value {
    json!({ "channel": "whatsapp", "to": to, "text": text, "clientMessageId": "c-1" })
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn read(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            status,
            headers,
            body,
        }
    }

    /// The status and the error of a failure; checks that it has the form of all failures.
    pub fn failure(&self) -> (u16, &str) {
        assert_eq!(self.body["success"], false, "{}", self.body);
        assert!(self.body["retryable"].is_boolean(), "{}", self.body);
        (self.status, self.body["error"].as_str().unwrap())
    }

    pub fn id(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["providerMessageId"].as_str().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Waits for a condition; panics with its name when it does not come.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub taken: bool,
    pub at: Instant,
}

impl Received {
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A webhook that records every post, and refuses the first ones as told.
pub struct Receiver {
    pub url: String,
    received: Posts,
    server: JoinHandle<()>,
}

type Posts = Arc<Mutex<Vec<Received>>>;
type Refusals = Arc<Mutex<VecDeque<Refused>>>;
/// A refusal, and a header that goes with it.
pub type Refused = (StatusCode, Option<(&'static str, &'static str)>);

impl Receiver {
    pub async fn start(refusals: impl IntoIterator<Item = Refused>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (received, refusals) = (
            Posts::default(),
            Refusals::new(Mutex::new(refusals.into_iter().collect())),
        );
        let router = Router::new()
            .route("/hook", post(take))
            .route("/elsewhere", any(async || StatusCode::OK))
            .with_state((received.clone(), refusals));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            received,
            server,
        }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn taken(&self) -> Vec<Value> {
        self.received()
            .iter()
            .filter(|post| post.taken)
            .map(Received::event)
            .collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(
    State((received, refusals)): State<(Posts, Refusals)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let refusal = refusals.lock().unwrap().pop_front();
    let taken = refusal.is_none();
    received.lock().unwrap().push(Received {
        headers,
        body,
        taken,
        at: Instant::now(),
    });
    match refusal {
        None => StatusCode::OK.into_response(),
        Some((status, Some(header))) => (status, [header]).into_response(),
        Some((status, None)) => status.into_response(),
    }
}
