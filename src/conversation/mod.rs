//! The inbox: a conversation for each participant of a channel, listed by its newest message.

pub mod http;
mod search;
pub mod store;
pub mod view;

use chrono::{DateTime, TimeDelta, Utc};

use crate::channel::Channel;
use crate::cursor::Cursor;
use crate::id::ConversationId;
use crate::message::Direction;

/// Whether a conversation waits for somebody.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    serde::Serialize,
    sqlx::Type,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schema(as = ConversationStatus)]
pub enum Status {
    /// It is being dealt with.
    Open,
    /// It was dealt with; an inbound message opens it again.
    Closed,
}

impl Status {
    /// As in the API and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A row of `conversations`.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub id: ConversationId,
    pub channel: Channel,
    pub participant_id: String,
    pub status: Status,
    /// The first 200 characters of the newest message.
    pub last_message_preview: String,
    /// Which way the newest message went.
    pub last_message_direction: Direction,
    /// The time that the newest message is sorted by.
    pub last_message_at: DateTime<Utc>,
    /// Inbound messages that nobody has read.
    pub unread_count: i32,
    /// All inbound messages ever.
    pub inbound_count: i64,
    pub last_read_at: Option<DateTime<Utc>>,
    /// None: it is in the inbox.
    pub archived_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    /// What the participant calls themselves.
    pub participant_name: Option<String>,
    /// The newest message of the participant after which a provider takes free texts for some time.
    pub window_from: Option<DateTime<Utc>>,
    /// Grows with each change.
    pub revision: i64,
}

/// For how long a provider that has such a window takes free texts after a participant's message.
const WINDOW: TimeDelta = TimeDelta::hours(24);
impl Conversation {
    /// Its place in the inbox.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            at: self.last_message_at,
            id: self.id.0,
        }
    }

    /// Until when the provider takes free texts.
    #[must_use]
    pub fn window_expires_at(&self) -> Option<DateTime<Utc>> {
        self.window_from?.checked_add_signed(WINDOW)
    }
}

/// Which conversations a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    pub channel: Option<Channel>,
    pub status: Option<Status>,
    /// Only archived ones, or else only others.
    pub archived: bool,
    /// Only those with unread messages.
    pub unread: bool,
}
