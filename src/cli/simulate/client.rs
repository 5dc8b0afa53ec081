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
use super::meta;
use super::plan::{Conversation, Event, Send};
use super::repeat::{Refusal, answered};
use super::whatsapp::{WITNESS, Wire};
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
    pub fn environment(&self, wire: Wire) -> impl Iterator<Item = (&'static str, String)> {
        let secret = match wire {
            Wire::MockMeta => "WEBHOOK_SECRET",
            Wire::Whatsapp => "META_APP_SECRET",
        };
        let variables = [("API_KEYS", &self.api_key), (secret, &self.webhook_secret)];
        variables
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
    }
}

/// The answer to an event.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventAnswer {
    /// WhatsApp's wire does not tell: see [`super::drive::Seen::identify`].
    pub conversation_id: Option<String>,
    /// Likewise.
    pub message_id: Option<String>,
    /// Whether an earlier delivery of the event has made the message.
    pub duplicate: bool,
}

/// The answer to a body with items of WhatsApp's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Taken {
    pub received: usize,
    pub duplicates: usize,
    pub ignored: usize,
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
    pub provider_message_id: Option<String>,
    #[serde(default)]
    pub delivery_status: Option<String>,
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

    /// Whether it waits for an operator, since the provider may have accepted it.
    pub fn is_held(&self) -> bool {
        let error = self.last_error.as_ref();
        let is_ambiguous = error.is_some_and(|error| error.ambiguous);
        self.status == "FAILED" && self.next_attempt_at.is_none() && is_ambiguous
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, Deserialize)]
pub struct LastError {
    pub kind: String,
    #[serde(default)]
    pub ambiguous: bool,
}

/// A caller of the gateway.
#[derive(Debug)]
pub struct Gateway {
    http: reqwest::Client,
    peer: Peer,
    url: RwLock<Url>,
    credentials: Credentials,
    wire: Wire,
}

impl Gateway {
    pub fn new(url: Url, credentials: Credentials, wire: Wire) -> anyhow::Result<Self> {
        let peer = Peer::at(url);
        Ok(Self {
            http: http(&peer)?,
            url: RwLock::new(peer.url().clone()),
            peer,
            credentials,
            wire,
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
        if self.wire == Wire::Whatsapp {
            let body = meta::body([(conversation, event)]);
            let answer = self.receive(&body).await?;
            if answer.received != 1 || answer.ignored != 0 {
                let error = anyhow::anyhow!("{} is answered {answer:?}", event.id);
                return Err(Refusal::Final(error));
            }
            return Ok(EventAnswer {
                conversation_id: None,
                message_id: None,
                duplicate: answer.duplicates == 1,
            });
        }
        let body = json!({
            "eventId": event.id, "channel": conversation.channel, "from": conversation.participant,
            "text": event.text, "timestamp": event.timestamp,
        });
        self.webhook("/webhooks/mock-meta", &body).await
    }

    /// Delivers a body of WhatsApp's wire.
    pub async fn receive(&self, body: &serde_json::Value) -> Result<Taken, Refusal> {
        self.webhook("/webhooks/whatsapp", body).await
    }

    async fn webhook<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, Refusal> {
        let body = body.to_string();
        let mut request = self.http.post(self.url(path));
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

    /// Sends something to the one who takes no part in the run.
    pub async fn witness(&self) -> Result<MessageView, Refusal> {
        let body = json!({ "channel": "whatsapp", "to": WITNESS, "text": "Merhaba" });
        let request = self.http.post(self.url("/messages/send")).json(&body);
        answered(self.with_key(request)).await
    }

    /// Finds the conversation of a participant.
    pub async fn find(&self, participant: &str) -> Result<Option<String>, Refusal> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Row>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            id: String,
            participant_id: String,
        }
        let mut url = self.url("/conversations");
        url.set_query(Some(&format!("limit=100&participant={participant}")));
        let list: List = self.get(url).await?;
        let mut rows = list.data.into_iter();
        let found = rows.find(|row| row.participant_id == participant);
        Ok(found.map(|row| row.id))
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
