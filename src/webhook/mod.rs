//! Inbound events: each is stored exactly once, however often and in whatever order it arrives.

pub mod event_id;
pub mod http;
pub mod ingest;
pub mod retention;
pub(crate) mod store;
pub mod whatsapp;

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use metrics::{Counter, counter};

use crate::channel::Channel;
use crate::handles::Handles;
use crate::id::{ConversationId, MessageId};

/// The provider's name in `webhook_events`.
pub const PROVIDER: &str = "mock-meta";

/// How far ahead of the database's clock a message is listed at the most.
pub const MOST_AHEAD: Duration = Duration::from_mins(10);

/// A validated event, with the ids that it gets if it is new.
#[derive(Debug, Clone)]
pub struct Event {
    /// The provider's id for it.
    pub event_id: String,
    /// Where it comes from.
    pub channel: Channel,
    /// Who wrote.
    pub participant_id: String,
    /// What was written.
    pub text: String,
    /// When, by the provider's clock.
    pub timestamp: DateTime<Utc>,
    /// The request as it came.
    pub body: Bytes,
    /// The message's id, if the event is new.
    pub message_id: MessageId,
    /// The conversation's id, if the participant is new.
    pub conversation_id: ConversationId,
}

/// What an event is answered with.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    /// The message that the event made.
    pub message_id: MessageId,
    /// The conversation that the message is in.
    pub conversation_id: ConversationId,
    /// Whether an earlier delivery made it.
    pub duplicate: bool,
}

/// Counts events, by what became of them.
fn count_events(result: &'static str, count: u64) {
    EVENTS
        .of(
            result,
            |result| counter!("gateway_webhook_events_total", "result" => result),
        )
        .increment(count);
}

static EVENTS: Handles<&str, Counter> = Handles::new();
