//! A conversation as the API and the feed show it.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Channel, Conversation, ConversationId, Status};
use crate::alias::store::Alias;
use crate::cursor::Cursor;
use crate::http::timestamp::Timestamp;
use crate::message::Direction;

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Conversation)]
pub struct ConversationView {
    id: ConversationId,
    channel: Channel,
    #[schema(example = "user-123")]
    participant_id: String,
    /// What the participant calls themselves; it does not say who they are.
    #[schema(required, max_length = 256)]
    participant_name: Option<String>,
    /// An inbound message opens it again.
    status: Status,
    /// The first 200 characters of the newest message.
    #[schema(example = "Merhaba", max_length = 200)]
    last_message_preview: String,
    /// Which way the newest message went.
    last_message_direction: Direction,
    /// The time that the newest message is listed by.
    last_message_at: Timestamp,
    /// Inbound messages that nobody has read.
    #[schema(example = 2, minimum = 0)]
    unread_count: i32,
    /// All inbound messages ever. A reader hands it in to say up to which of them it has seen.
    #[schema(example = 7, minimum = 0)]
    inbound_count: i64,
    /// When it was last read.
    #[schema(required)]
    last_read_at: Option<Timestamp>,
    /// When it was taken out of the inbox; an inbound message puts it back.
    #[schema(required)]
    archived_at: Option<Timestamp>,
    /// Until when the provider takes free texts, and after that only templates; null: it has no such
    /// window, or the participant has not written yet.
    #[schema(required)]
    window_expires_at: Option<Timestamp>,
    /// When it began.
    created_at: Timestamp,
    /// Its place in the inbox: sorts, descending, as the list does, and pages where `nextCursor`
    /// does.
    cursor: Cursor,
    /// Grows with each change: of two copies, the one with the higher revision is the newer.
    #[schema(example = 12, minimum = 1)]
    revision: i64,
}

impl From<Conversation> for ConversationView {
    fn from(conversation: Conversation) -> Self {
        Self {
            cursor: conversation.cursor(),
            window_expires_at: conversation.window_expires_at().map(Timestamp),
            id: conversation.id,
            channel: conversation.channel,
            participant_id: conversation.participant_id,
            participant_name: conversation.participant_name,
            status: conversation.status,
            last_message_preview: conversation.last_message_preview,
            last_message_direction: conversation.last_message_direction,
            last_message_at: Timestamp(conversation.last_message_at),
            unread_count: conversation.unread_count,
            inbound_count: conversation.inbound_count,
            last_read_at: conversation.last_read_at.map(Timestamp),
            archived_at: conversation.archived_at.map(Timestamp),
            created_at: Timestamp(conversation.created_at),
            revision: conversation.revision,
        }
    }
}

/// An id that leads to a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Alias)]
pub struct AliasView {
    /// A telephone number, or the provider's id for a person.
    #[schema(example = "491701234567")]
    id: String,
    /// The time of the event that said so.
    since: Timestamp,
    /// Another person has it now: nothing is sent to it any more.
    changed_hands: bool,
}

impl From<Alias> for AliasView {
    fn from(alias: Alias) -> Self {
        Self {
            id: alias.alias,
            since: Timestamp(alias.since),
            changed_hands: alias.changed_hands,
        }
    }
}
