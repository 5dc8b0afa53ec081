//! The live feed: tells whoever listens what any process on the database has changed.
//!
//! Each statement that changes something leaves a row in `changes`. One task of a process,
//! [`reader`], reads the new rows, loads what they name, and hands each event to all
//! [`subscribers`]. SCHEMA.md ("What changed") says why none is missed.

pub mod catch_up;
pub mod event;
pub mod http;
pub mod places;
pub mod queue;
pub mod reader;
pub mod records;
pub mod retention;
pub mod store;
pub mod stream;
pub mod subscribers;
pub mod token;

use crate::channel::Channel;
use crate::id::ConversationId;

/// What a subscriber is told; by default all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Filter {
    /// Only what belongs to this channel.
    pub channel: Option<Channel>,
    /// Of messages, only those of this conversation.
    pub conversation: Option<ConversationId>,
}

/// Why a subscriber has to fetch again what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Some of what it missed is deleted.
    Expired,
    /// Its position is of another history, or none of ours.
    Epoch,
    /// It did not keep up.
    TooSlow,
    /// It missed so much that fetching again is cheaper.
    TooFar,
    /// So much was changed at once that it is not told one by one.
    Bulk,
}

impl Reason {
    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
