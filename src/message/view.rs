//! A message as the API and the feed show it.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Direction, ErrorKind, Message, MessageId, Status};
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
    /// Always `text`.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "text")]
    kind: &'static str,
    #[schema(example = "Merhaba!")]
    text: String,
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
    /// Its place in its thread: sorts, descending, as the thread does, and pages where `nextCursor`
    /// does.
    cursor: Cursor,
    /// Grows with each change: of two copies, the one with the higher revision is the newer.
    #[schema(example = 3, minimum = 1)]
    revision: i64,
}

/// Why the last failed attempt failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// The kind of error: `rate_limited` is 429, `server_error` 5xx, `unreadable` a success that
    /// cannot be read, `rejected` any other answer. `canceled`: an operator canceled it.
    /// `interrupted`: the process died again and again during the attempt. `internal`: an error of
    /// the gateway. New kinds may be added.
    kind: ErrorKind,
    /// The HTTP status of the provider's answer, if there was one.
    #[schema(required, example = 429)]
    http_status: Option<i32>,
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
        Self {
            cursor: message.cursor(),
            id: message.id,
            conversation_id: message.conversation_id,
            channel: message.channel,
            participant_id: message.participant_id,
            direction: message.direction,
            kind: "text",
            text: message.text,
            status: message.status,
            client_message_id: message.client_message_id,
            sent_by: message.sent_by,
            provider_message_id: message.provider_message_id,
            retry_count: message.retry_count,
            next_attempt_at: message.next_attempt_at.map(Timestamp),
            last_error: message.error_kind.map(|kind| LastError {
                kind,
                http_status: message.error_http_status,
                detail: message.error_detail.unwrap_or_default(),
                retryable: message.error_retryable.unwrap_or(false),
                ambiguous,
            }),
            timestamp: Timestamp(message.timestamp),
            created_at: Timestamp(message.created_at),
            updated_at: Timestamp(message.updated_at),
            sent_at: message.sent_at.map(Timestamp),
            revision: message.revision,
        }
    }
}
