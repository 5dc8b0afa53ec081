//! The two callers that a run plays: the provider that delivers events, and the backend that sends
//! messages and reads the inbox.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use mock_meta_provider::{Fault, Ledger, Script, Stats};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::baseline::transaction::Stored;
use super::listener::Ask;
use super::plan::{Conversation, Event, Send};
use super::repeat::{Refusal, answered};
use crate::edge::signature::sign;
use crate::http::auth::SIGNATURE_HEADER;
use crate::peer::{self, Peer};

/// Longer than any answer takes.
const TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
/// Messages of a page.
const PAGE: u32 = 200;

/// The secrets of a caller.
#[derive(Default)]
pub struct Credentials {
    pub api_key: Option<String>,
    pub webhook_secret: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    pub fn random() -> Self {
        let random = || Some(format!("{:032x}", rand::random::<u128>()));
        Self {
            api_key: random(),
            webhook_secret: random(),
        }
    }

    /// The variables that make a gateway require them.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let variables = [
            ("API_KEYS", &self.api_key),
            ("WEBHOOK_SECRET", &self.webhook_secret),
        ];
        variables
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
    }
}

/// The answer to an event.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventAnswer {
    pub conversation_id: String,
    pub message_id: String,
    /// Whether an earlier delivery of the event has made the message.
    pub duplicate: bool,
}

/// A conversation as the API shows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationView {
    pub last_message_preview: String,
    pub last_message_at: DateTime<Utc>,
    pub unread_count: usize,
    /// Newest first.
    pub messages: Vec<MessageView>,
    meta: Meta,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    next_cursor: Option<String>,
}

/// A message as the API shows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageView {
    pub id: String,
    pub conversation_id: String,
    /// `INBOUND` or `OUTBOUND`.
    pub direction: String,
    pub text: String,
    pub status: String,
    pub timestamp: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub last_error: Option<LastError>,
}

impl MessageView {
    pub fn is_outbound(&self) -> bool {
        self.direction == "OUTBOUND"
    }

    /// Whether nothing more will happen to it by itself.
    pub fn has_ended(&self) -> bool {
        match self.status.as_str() {
            "PENDING" => false,
            "FAILED" => self.next_attempt_at.is_none(),
            _ => true,
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, Deserialize)]
pub struct LastError {
    pub kind: String,
}

/// A caller of the gateway.
#[derive(Debug)]
pub struct Gateway {
    http: reqwest::Client,
    peer: Peer,
    url: RwLock<Url>,
    credentials: Credentials,
}

impl Gateway {
    pub fn new(url: Url, credentials: Credentials) -> anyhow::Result<Self> {
        let peer = Peer::at(url);
        Ok(Self {
            http: http(&peer)?,
            url: RwLock::new(peer.url().clone()),
            peer,
            credentials,
        })
    }

    /// From now on the gateway listens at this address.
    pub fn moved(&self, url: Url) {
        *self.url.write().unwrap_or_else(PoisonError::into_inner) = url;
    }

    fn url(&self, path: &str) -> Url {
        let url = self.url.read().unwrap_or_else(PoisonError::into_inner);
        peer::below(&url, path)
    }

    /// Waits until the gateway is ready, up to `limit`.
    pub async fn ready(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let answer = self.http.get(self.url("/ready")).send().await;
            let not_ready = match answer {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => anyhow::anyhow!("it answers {}", answer.status()),
                Err(error) => error.into(),
            };
            if Instant::now() > deadline {
                return Err(not_ready)
                    .with_context(|| format!("no gateway is ready at {}", self.name()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn name(&self) -> String {
        format!("{}{}", self.peer.name(), self.peer.through())
    }

    /// Requests that read, for a [`Listener`](super::listener::Listener).
    pub fn ask(self: Arc<Self>) -> Ask {
        Arc::new(move |path| {
            let (path, query) = path
                .split_once('?')
                .map_or((path, None), |(path, query)| (path, Some(query)));
            let mut url = self.url(path);
            url.set_query(query);
            Some(self.with_key(self.http.get(url)))
        })
    }

    /// Delivers an event, as the provider does.
    pub async fn deliver(
        &self,
        conversation: &Conversation,
        event: &Event,
    ) -> Result<EventAnswer, Refusal> {
        let body = json!({
            "eventId": event.id, "channel": conversation.channel, "from": conversation.participant,
            "text": event.text, "timestamp": event.timestamp,
        })
        .to_string();
        let mut request = self.http.post(self.url("/webhooks/mock-meta"));
        if let Some(secret) = &self.credentials.webhook_secret {
            request = request.header(SIGNATURE_HEADER, sign(secret, body.as_bytes()));
        }
        let request = request
            .header("content-type", "application/json")
            .body(body);
        answered(request).await
    }

    /// Sends a message, as a backend does.
    pub async fn send(
        &self,
        conversation: &Conversation,
        send: &Send,
    ) -> Result<MessageView, Refusal> {
        let body = json!({
            "channel": conversation.channel, "to": conversation.participant,
            "text": send.text, "clientMessageId": send.client_message_id,
        });
        let request = self.http.post(self.url("/messages/send")).json(&body);
        answered(self.with_key(request)).await
    }

    /// Reads a conversation with all its messages.
    pub async fn conversation(&self, id: &str) -> Result<ConversationView, Refusal> {
        let mut url = self.url(&format!("/conversations/{id}"));
        url.set_query(Some(&format!("limit={PAGE}")));
        let mut view: ConversationView = self.get(url.clone()).await?;
        while let Some(cursor) = view.meta.next_cursor.take() {
            url.set_query(Some(&format!("limit={PAGE}&cursor={cursor}")));
            let next: ConversationView = self.get(url.clone()).await?;
            view.messages.extend(next.messages);
            view.meta = next.meta;
        }
        Ok(view)
    }

    /// What the hand-written transaction has stored; a gateway has no such route.
    pub async fn stored(&self) -> Result<Stored, Refusal> {
        self.get(self.url("/stored")).await
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, Refusal> {
        answered(self.with_key(self.http.get(url))).await
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// A caller of the mock provider's own routes.
#[derive(Debug)]
pub struct Provider {
    http: reqwest::Client,
    peer: Peer,
}

impl Provider {
    pub fn new(url: Url) -> anyhow::Result<Self> {
        let peer = Peer::at(url);
        Ok(Self {
            http: http(&peer)?,
            peer,
        })
    }

    fn url(&self, path: &str) -> Url {
        peer::below(self.peer.url(), path)
    }

    /// Sets the answers to the next calls for a conversation. Later calls succeed.
    pub async fn script(&self, conversation: &Conversation) -> anyhow::Result<()> {
        let mut answers = conversation.answers.clone();
        answers.push(Fault::Ok);
        self.play(conversation, answers).await
    }

    /// Lets the mock choose the answers for a conversation again.
    pub async fn end_script(&self, conversation: &Conversation) -> anyhow::Result<()> {
        self.play(conversation, Vec::new()).await
    }

    async fn play(&self, conversation: &Conversation, answers: Vec<Fault>) -> anyhow::Result<()> {
        let script = Script {
            to: Some(conversation.participant.clone()),
            answers: answers.into(),
            repeat: true,
        };
        let request = self.http.post(self.url("/script")).json(&script);
        self.ask::<serde_json::Value>(request).await.map(drop)
    }

    /// What was delivered to participants whose names begin with `prefix`.
    pub async fn ledger(&self, prefix: &str) -> anyhow::Result<Ledger> {
        let mut url = self.url("/ledger");
        url.set_query(Some(&format!("participantPrefix={prefix}")));
        self.ask(self.http.get(url)).await
    }

    pub async fn stats(&self) -> anyhow::Result<Stats> {
        self.ask(self.http.get(self.url("/stats"))).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let name = || format!("{}{}", self.peer.name(), self.peer.through());
        match answered(request).await {
            Ok(answer) => Ok(answer),
            Err(Refusal::Again(reason)) => {
                bail!("the mock provider at {} fails: {reason}", name())
            }
            Err(Refusal::Final(error)) => {
                Err(error).with_context(|| format!("no mock provider answers at {}", name()))
            }
        }
    }
}

fn http(peer: &Peer) -> anyhow::Result<reqwest::Client> {
    Ok(peer.built(peer.client().timeout(TIMEOUT).build())?)
}
