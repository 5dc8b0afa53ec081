//! A message as the API and the feed show it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::{Direction, ErrorKind, Message, MessageId, Origin, Status};
use crate::channel::Channel;
use crate::cursor::Cursor;
use crate::http::timestamp::Timestamp;
use crate::id::ConversationId;

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Message)]
pub struct MessageView {
    id: MessageId,
    conversation_id: ConversationId,
    channel: Channel,
    #[schema(example = "user-123")]
    participant_id: String,
    direction: Direction,
    /// What kind of message it is: `text`, on WhatsApp also `image`, `video`, `audio`, `document`,
    /// `sticker`, `location`, `contacts`, `interactive`, `button`, `order`, `template`,
    /// `unsupported` and others.
    #[serde(rename = "type")]
    #[schema(example = "text")]
    kind: String,
    /// What it says, or what stands for it.
    #[schema(example = "Merhaba!")]
    text: String,
    /// The object of its kind, as it came or is sent; null: there is none. A list that was not asked
    /// for it leaves it out.
    #[serde(skip_serializing_if = "Content::is_left_out")]
    #[schema(required, value_type = Option<serde_json::Value>)]
    content: Content,
    /// The message that it answers.
    #[schema(required)]
    reply_to: Option<ReplyTo>,
    /// What the sender called themselves; it does not say who they are.
    #[schema(required, max_length = 256)]
    participant_name: Option<String>,
    /// Of an outbound message, who wrote it: `api`, `app` (a person in the business's app), or `agent`
    /// (one of the provider's).
    #[schema(required, value_type = Option<String>, example = "api")]
    origin: Option<&'static str>,
    /// The latest of each sender.
    reactions: Vec<Reaction>,
    /// When it was edited last.
    #[schema(required)]
    edited_at: Option<Timestamp>,
    /// When its sender deleted it: its text is `[deleted]`, and its content empty.
    #[schema(required)]
    deleted_at: Option<Timestamp>,
    status: Status,
    /// The idempotency key that the caller gave.
    #[schema(required)]
    client_message_id: Option<String>,
    /// The name of the key that sent it; null without keys, for a key without a name, and for
    /// inbound messages.
    #[schema(required, example = "shop")]
    sent_by: Option<String>,
    /// The provider's id, once it has accepted the message.
    #[schema(required)]
    provider_message_id: Option<String>,
    /// Attempts that have failed.
    #[schema(minimum = 0, example = 0)]
    retry_count: i32,
    /// When a failed message is tried again by itself; null: it waits for an operator.
    #[schema(required)]
    next_attempt_at: Option<Timestamp>,
    /// What went wrong last; it stays readable after a later success.
    #[schema(required)]
    last_error: Option<LastError>,
    /// The provider's time for inbound, the creation time for outbound.
    timestamp: Timestamp,
    /// When it was stored.
    created_at: Timestamp,
    /// When anything about it changed last.
    updated_at: Timestamp,
    /// When the provider accepted it.
    #[schema(required)]
    sent_at: Option<Timestamp>,
    /// How far the provider says that it has come: `sent`, `delivered`, `read`, `played` or `failed`.
    #[schema(required, value_type = Option<String>, example = "delivered")]
    delivery_status: Option<&'static str>,
    /// When it was on the participant's device.
    #[schema(required)]
    delivered_at: Option<Timestamp>,
    /// When it was seen.
    #[schema(required)]
    read_at: Option<Timestamp>,
    /// Why the provider could not deliver it. It stays when it was delivered all the same.
    #[schema(required)]
    delivery_error: Option<DeliveryError>,
    /// Its place in its thread: sorts, descending, as the thread does, and pages where `nextCursor`
    /// does.
    cursor: Cursor,
    /// Grows with each change: of two copies, the one with the higher revision is the newer.
    #[schema(example = 3, minimum = 1)]
    revision: i64,
}

/// A message in a list: without its `content`, unless there is none or it was asked for.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct ListedMessage(MessageView);

impl ListedMessage {
    /// The message, with or without what is large about it.
    #[must_use]
    pub fn of(message: Message, with_content: bool) -> Self {
        let mut view = MessageView::from(message);
        if !with_content && matches!(view.content, Content::Shown(Some(_))) {
            view.content = Content::LeftOut;
        }
        Self(view)
    }
}

impl PartialSchema for ListedMessage {
    fn schema() -> RefOr<Schema> {
        let mut schema = MessageView::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required.retain(|name| name != "content");
            object.description = Some("A message in a list.".to_owned());
        }
        schema
    }
}

impl ToSchema for ListedMessage {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        MessageView::schemas(schemas);
    }
}

/// The object of a message's kind, where it is asked for.
#[derive(Debug)]
pub enum Content {
    /// It was not asked for.
    LeftOut,
    /// JSON, or nothing.
    Shown(Option<Box<RawValue>>),
}

impl Content {
    fn is_left_out(&self) -> bool {
        matches!(self, Self::LeftOut)
    }
}

impl Serialize for Content {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::LeftOut => serializer.serialize_none(),
            Self::Shown(content) => content.serialize(serializer),
        }
    }
}

/// A message that is answered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplyTo {
    /// Its id; null where the gateway did not have it when the answer was stored.
    #[schema(required)]
    message_id: Option<MessageId>,
    /// The provider's id for it.
    provider_message_id: String,
}

/// What somebody thinks of a message.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reaction {
    /// The participant, or `business`.
    from: String,
    #[schema(example = "👍")]
    emoji: String,
    at: Timestamp,
}

/// Why the provider could not deliver a message.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryError {
    /// The provider's own number for it.
    #[schema(required)]
    code: Option<i64>,
    #[schema(required)]
    title: Option<String>,
    #[schema(required)]
    detail: Option<String>,
}

/// Why the last failed attempt failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// The kind of error: `rate_limited` is 429, `server_error` 5xx, `unreadable` a success that
    /// cannot be read, `rejected` any other answer. `canceled`: an operator canceled it.
    /// `interrupted`: the process died during the attempt, again and again where the provider can
    /// tell a repeated message. `internal`: an error of the gateway. `unauthorized`: the channel's
    /// token or account is at fault. `window_closed`: the participant has not written for so long
    /// that only templates are taken. New kinds may be added.
    kind: ErrorKind,
    /// The HTTP status of the provider's answer, if there was one.
    #[schema(required, example = 429)]
    http_status: Option<i32>,
    /// The provider's own number for the error.
    #[schema(required, example = 130_429)]
    code: Option<i64>,
    #[schema(example = "Too Many Requests", max_length = 500)]
    detail: String,
    /// Whether another attempt may succeed.
    retryable: bool,
    /// Whether the provider may have accepted the message all the same: there was no answer, or
    /// none that tells. False: it has not, in that attempt; of a canceled message, in none.
    ambiguous: bool,
}

impl From<Message> for MessageView {
    fn from(message: Message) -> Self {
        let ambiguous = message.is_ambiguous();
        let origin = match (message.direction, message.origin) {
            (Direction::Inbound, _) => None,
            (Direction::Outbound, None) => Some("api"),
            (Direction::Outbound, Some(Origin::App)) => Some("app"),
            (Direction::Outbound, Some(Origin::Agent)) => Some("agent"),
        };
        let reactions = reactions(message.reactions.as_deref());
        let cursor = message.cursor();
        let content = message
            .content
            .and_then(|content| RawValue::from_string(content).ok());
        let delivery_status = message.receipt.status();
        let receipt = message.receipt;
        Self {
            cursor,
            id: message.id,
            conversation_id: message.conversation_id,
            channel: message.channel,
            participant_id: message.participant_id,
            direction: message.direction,
            kind: message.kind,
            text: message.text,
            content: Content::Shown(content),
            reply_to: message.reply_to.map(|provider_message_id| ReplyTo {
                message_id: message.reply_to_id,
                provider_message_id,
            }),
            participant_name: message.participant_name,
            origin,
            reactions,
            edited_at: message.edited_at.map(Timestamp),
            deleted_at: message.deleted_at.map(Timestamp),
            status: message.status,
            client_message_id: message.client_message_id,
            sent_by: message.sent_by,
            provider_message_id: message.provider_message_id,
            retry_count: message.retry_count,
            next_attempt_at: message.next_attempt_at.map(Timestamp),
            last_error: message.error_kind.map(|kind| LastError {
                kind,
                http_status: message.error_http_status,
                code: message.error_code,
                detail: message.error_detail.unwrap_or_default(),
                retryable: message.error_retryable.unwrap_or(false),
                ambiguous,
            }),
            timestamp: Timestamp(message.timestamp),
            created_at: Timestamp(message.created_at),
            updated_at: Timestamp(message.updated_at),
            sent_at: message.sent_at.map(Timestamp),
            delivery_status,
            delivered_at: receipt.delivered_at.map(Timestamp),
            read_at: receipt.read_at.map(Timestamp),
            delivery_error: receipt.failed_at.map(|_| DeliveryError {
                code: receipt.error_code,
                title: receipt.error_title,
                detail: receipt.error_detail,
            }),
            revision: message.revision,
        }
    }
}

/// The reactions that stand, by their sender.
fn reactions(stored: Option<&str>) -> Vec<Reaction> {
    #[derive(Deserialize)]
    struct Stored {
        emoji: Option<String>,
        at: DateTime<Utc>,
    }
    let stored: BTreeMap<String, Stored> = stored
        .and_then(|stored| serde_json::from_str(stored).ok())
        .unwrap_or_default();
    let shown = |(sender, stored): (String, Stored)| {
        Some(Reaction {
            from: if sender.is_empty() {
                "business".to_owned()
            } else {
                sender
            },
            emoji: stored.emoji?,
            at: Timestamp(stored.at),
        })
    };
    stored.into_iter().filter_map(shown).collect()
}
