//! Callers who take no 503 for an answer, race themselves, hang up early and ask again; and
//! remember what they were told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use futures_util::future;
use gateway::cli::repeat::{Refusal, answered_with, repeat};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Scene, Wire, whatsapp};

/// Participants on each channel: few enough that callers meet, many enough that an ordered
/// conversation keeps up.
const PARTICIPANTS: u32 = 60;
/// With more messages than this unsent, callers wait: a run of any length ends within bounds.
const MAX_UNSENT: i64 = 1500;
/// How long a request is repeated until it counts as refused for good.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than any answer takes.
const ANSWER: Duration = Duration::from_secs(30);

/// What may be asked for again and again.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: Kind,
    /// The event's id, or the client's id of the message. Its text too, so that a message is known
    /// by its text.
    pub key: String,
    pub channel: &'static str,
    pub participant: String,
    /// The provider's time of an event.
    pub timestamp: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Event,
    Send,
}

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Empty where the answer does not say.
    pub message_id: String,
    pub conversation_id: String,
    /// Whether it says that this request made the message.
    pub new: bool,
    /// Whether an acknowledgement had been read before it was asked for.
    pub repeated: bool,
}

/// A request, and what it was told each time.
#[derive(Debug)]
pub struct Promise {
    pub request: Request,
    pub receipts: Vec<Receipt>,
}

pub struct Caller {
    scene: Arc<Scene>,
    http: reqwest::Client,
    number: usize,
    rng: StdRng,
}

impl Caller {
    pub fn new(
        scene: &Arc<Scene>,
        http: &reqwest::Client,
        number: usize,
        rng: &mut StdRng,
    ) -> Self {
        Self {
            scene: Arc::clone(scene),
            http: http.clone(),
            number,
            rng: StdRng::from_rng(rng),
        }
    }

    /// Asks for one thing after the other until told to stop, and for the last one until it has it.
    pub async fn run(mut self, stop: CancellationToken) -> Vec<Promise> {
        let mut promises: Vec<Promise> = Vec::new();
        for number in 0.. {
            while self.scene.unsent.load(Ordering::Relaxed) > MAX_UNSENT && !stop.is_cancelled() {
                tokio::time::sleep(PAUSE).await;
            }
            if stop.is_cancelled() {
                break;
            }
            let request = self.request(number);
            let mut promise = Promise {
                receipts: self.ask(&request).await,
                request,
            };
            if self.rng.random_bool(0.2) {
                promise.receipts.extend(self.repeat(&promise).await);
            }
            promises.push(promise);
            tokio::time::sleep(self.scene.pause).await;
            if self.rng.random_bool(0.1) {
                let late = self.rng.random_range(0..promises.len());
                let receipt = self.repeat(&promises[late]).await;
                promises[late].receipts.extend(receipt);
            }
        }
        promises
    }

    fn request(&mut self, number: u64) -> Request {
        let kind = *[Kind::Event, Kind::Send].choose(&mut self.rng).unwrap();
        let letter = if kind == Kind::Event { 'e' } else { 's' };
        // Within seconds of each other, often equal, now and then far away.
        let seconds = match self.rng.random_range(0..20) {
            0 => self.rng.random_range(-86_400..86_400),
            _ => self.rng.random_range(-5..5),
        };
        let channel = *["whatsapp", "instagram"].choose(&mut self.rng).unwrap();
        let participant = self.rng.random_range(0..PARTICIPANTS);
        Request {
            kind,
            key: format!("{letter}-{}-{number}", self.number),
            channel,
            participant: match self.scene.wire {
                Wire::Whatsapp if channel == "whatsapp" => whatsapp::number(participant),
                _ => format!("user-{participant}"),
            },
            timestamp: (Utc::now() + chrono::Duration::seconds(seconds)).trunc_subsecs(0),
        }
    }

    /// Once, twice at the same time, or again after hanging up; until it is acknowledged.
    async fn ask(&mut self, request: &Request) -> Vec<Receipt> {
        let servers = self.scene.servers.len();
        let first = self.rng.random_range(0..servers);
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let both = [first, (first + 1) % servers]
                    .map(|server| self.acknowledged(request, server, false));
                future::join_all(both).await.into_iter().flatten().collect()
            }
            2 => {
                let patience = Duration::from_millis(self.rng.random_range(0..30));
                // An answer that comes in time all the same is thrown away, too.
                tokio::time::timeout(patience, self.post(request, first))
                    .await
                    .ok();
                Vec::from_iter(
                    self.acknowledged(request, (first + 1) % servers, false)
                        .await,
                )
            }
            _ => Vec::from_iter(self.acknowledged(request, first, false).await),
        }
    }

    async fn repeat(&mut self, promise: &Promise) -> Option<Receipt> {
        let server = self.rng.random_range(0..self.scene.servers.len());
        let repeated = !promise.receipts.is_empty();
        self.acknowledged(&promise.request, server, repeated).await
    }

    /// Asks one server after the other; none where nobody acknowledges it.
    async fn acknowledged(
        &self,
        request: &Request,
        mut server: usize,
        repeated: bool,
    ) -> Option<Receipt> {
        let ask = || {
            let asked = server;
            server = (server + 1) % self.scene.servers.len();
            self.post(request, asked)
        };
        match repeat(PATIENCE, PAUSE, ask).await {
            Ok((status, answer)) => {
                let receipt = if self.is_of_whatsapp(request) {
                    match whatsapp::receipt(&answer, repeated) {
                        Ok(receipt) => receipt,
                        Err(why) => {
                            self.scene.surprise(format!("{}: {why}", request.key));
                            return None;
                        }
                    }
                } else {
                    request.receipt(status, &answer, repeated)
                };
                self.scene.acknowledge(request.kind, &receipt);
                Some(receipt)
            }
            Err(Refusal::Again(_)) => None,
            Err(Refusal::Final(error)) => {
                self.scene.surprise(format!("{}: {error:#}", request.key));
                None
            }
        }
    }

    /// Whether it is an event that Meta would post.
    fn is_of_whatsapp(&self, request: &Request) -> bool {
        self.scene.wire == Wire::Whatsapp
            && request.kind == Kind::Event
            && request.channel == "whatsapp"
    }

    async fn post(&self, request: &Request, server: usize) -> Result<(u16, Value), Refusal> {
        let url = self.scene.servers[server].lock().unwrap().clone();
        let url = url.ok_or_else(|| Refusal::Again("it does not run".to_owned()))?;
        let Request {
            key,
            channel,
            participant,
            ..
        } = request;
        let at = request
            .timestamp
            .to_rfc3339_opts(SecondsFormat::Millis, true);
        if self.is_of_whatsapp(request) {
            return answered_with(whatsapp::event(&self.http, &url, request).timeout(ANSWER)).await;
        }
        let (path, body) = match request.kind {
            Kind::Event => (
                "/webhooks/mock-meta",
                json!({ "eventId": key, "channel": channel, "from": participant, "text": key, "timestamp": at }),
            ),
            Kind::Send => (
                "/messages/send",
                json!({ "clientMessageId": key, "channel": channel, "to": participant, "text": key }),
            ),
        };
        let post = self
            .http
            .post(format!("{url}{path}"))
            .timeout(ANSWER)
            .json(&body);
        answered_with(post).await
    }
}

impl Request {
    fn receipt(&self, status: u16, answer: &Value, repeated: bool) -> Receipt {
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let (message_id, new) = match self.kind {
            Kind::Event => (text("messageId"), answer["duplicate"] == false),
            Kind::Send => (text("id"), status == 201),
        };
        Receipt {
            message_id,
            conversation_id: text("conversationId"),
            new,
            repeated,
        }
    }
}
