//! Messages: what came in, and what goes out with how it went so far.

mod columns;
mod content;
pub mod enqueue;
pub mod http;
pub mod outbox;
pub mod permits;
pub mod request;
pub(crate) mod store;
pub mod view;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::channel::Channel;
pub use crate::channel::PREVIEW_LENGTH;
use crate::cursor::Cursor;
pub use crate::delivery::Status;
use crate::delivery::store::Settled;
use crate::id::{ConversationId, MessageId};
use crate::provider::ErrorKind;
pub use crate::provider::Outbound;

/// What a channel's provider understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Texts, as the mock provider has them.
    MockMeta,
    /// What `WhatsApp`'s Cloud API has.
    Whatsapp,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[sqlx(type_name = "text", rename_all = "UPPERCASE")]
pub enum Direction {
    /// From the participant.
    Inbound,
    /// To the participant.
    Outbound,
}

/// A row of `messages`.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The conversation that it belongs to.
    pub conversation_id: ConversationId,
    /// The conversation's channel.
    pub channel: Channel,
    /// The conversation's participant.
    pub participant_id: String,
    /// In or out.
    pub direction: Direction,
    /// What kind of message it is, by the channel's own word.
    pub kind: String,
    /// What it says.
    pub text: String,
    /// The object of its kind: JSON.
    pub content: Option<String>,
    /// The provider's id of the message that it answers.
    pub reply_to: Option<String>,
    /// That message, if it was known when this one was stored.
    pub reply_to_id: Option<MessageId>,
    /// Who wrote an outbound one: nobody is the API.
    pub origin: Option<Origin>,
    /// What the sender called themselves.
    pub participant_name: Option<String>,
    /// By sender: `{"emoji", "at"}`, as JSON.
    pub reactions: Option<String>,
    /// When it was edited last.
    pub edited_at: Option<DateTime<Utc>>,
    /// When its sender deleted it.
    pub deleted_at: Option<DateTime<Utc>>,
    /// How far it has come.
    pub status: Status,
    /// The caller's idempotency key.
    pub client_message_id: Option<String>,
    /// The name of the key that sent it.
    pub sent_by: Option<String>,
    /// The provider's id, once it has accepted the message.
    pub provider_message_id: Option<String>,
    /// Attempts that have failed.
    pub retry_count: i32,
    /// When a failed message is tried again by itself.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// What went wrong last.
    pub error_kind: Option<ErrorKind>,
    /// The provider's status in the last failed attempt, where there was an answer.
    pub error_http_status: Option<i32>,
    /// The provider's own number for it.
    pub error_code: Option<i64>,
    /// What the provider said in it, at most 500 characters.
    pub error_detail: Option<String>,
    /// Whether such an error is worth another attempt.
    pub error_retryable: Option<bool>,
    /// Whether the provider may have accepted the message in it.
    pub error_ambiguous: Option<bool>,
    /// The provider's time for inbound, the creation time for outbound.
    pub timestamp: DateTime<Utc>,
    /// The time that it is listed by.
    pub sort_at: DateTime<Utc>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When anything about it changed last.
    pub updated_at: DateTime<Utc>,
    /// When the provider accepted it.
    pub sent_at: Option<DateTime<Utc>>,
    /// What the provider has told since.
    pub receipt: Receipt,
    /// Grows with each change.
    pub revision: i64,
}

/// Who wrote an outbound message that the gateway has not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Origin {
    /// A person, in the business's app.
    App,
    /// An agent of the provider.
    Agent,
}

/// How far an outbound message has come at the participant's: the first time of each step.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// The provider has sent it on.
    pub sent_at: Option<DateTime<Utc>>,
    /// It is on the participant's device.
    pub delivered_at: Option<DateTime<Utc>>,
    /// It was seen.
    pub read_at: Option<DateTime<Utc>>,
    /// It was listened to.
    pub played_at: Option<DateTime<Utc>>,
    /// The provider could not deliver it.
    pub failed_at: Option<DateTime<Utc>>,
    /// The provider's own number for why.
    pub error_code: Option<i64>,
    /// What that number means.
    pub error_title: Option<String>,
    /// What is known of it.
    pub error_detail: Option<String>,
}

impl Receipt {
    /// The furthest step, by its name in the API. `failed` counts while nothing is beyond `sent`.
    #[must_use]
    pub fn status(&self) -> Option<&'static str> {
        let steps = [
            (self.played_at, "played"),
            (self.read_at, "read"),
            (self.delivered_at, "delivered"),
            (self.failed_at, "failed"),
            (self.sent_at, "sent"),
        ];
        let furthest = steps.into_iter().find(|(at, _)| at.is_some());
        furthest.map(|(_, name)| name)
    }
}

impl Message {
    /// Its place in its thread.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            at: self.sort_at,
            id: self.id.0,
        }
    }

    /// Whether the provider may have accepted it in the attempt that failed last.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.error_ambiguous.unwrap_or_else(|| {
            // It failed before that was written down.
            self.error_kind.is_some_and(ErrorKind::is_ambiguous)
        })
    }

    /// Takes over what a settlement has made of it.
    pub(crate) fn settle(&mut self, settled: Settled) {
        self.status = settled.status;
        self.provider_message_id = settled.provider_message_id;
        self.retry_count = settled.retry_count;
        self.next_attempt_at = settled.next_attempt_at;
        self.error_kind = settled.error_kind;
        self.error_http_status = settled.error_http_status;
        self.error_code = settled.error_code;
        self.error_detail = settled.error_detail;
        self.error_retryable = settled.error_retryable;
        self.error_ambiguous = settled.error_ambiguous;
        self.updated_at = settled.updated_at;
        self.sent_at = settled.sent_at;
        self.revision = settled.revision;
    }
}

/// An outbound message, with the ids and the lease that it gets if its key is new.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Its id.
    pub id: MessageId,
    /// The conversation's id, if the participant is new.
    pub conversation_id: ConversationId,
    /// What is sent.
    pub outbound: Arc<Outbound>,
    /// The name of the key that sends it.
    pub sent_by: Option<Arc<str>>,
    /// Who makes the first attempt at once; none: it is due for a worker.
    pub lease_token: Option<Uuid>,
    /// The trace that it is stored in, for attempts that others make.
    pub traceparent: Option<String>,
}
