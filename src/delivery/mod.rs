//! Delivery: a lease, an attempt, a settlement. The only road to `SENT` or `FAILED`.
//!
//! ```text
//!   enqueue ─► leased ──────► attempt ─┬─► SENT: the delivery is gone
//!         └─► blocked ─► due ─► claim ─┘ └► FAILED ─┬─► waiting ─► due
//!                        ▲                          └─► parked (an operator: requeue ─► due or blocked)
//!                        └── a lease that has expired: nobody needs to rescue it
//! ```

pub mod attempt;
pub mod backlog;
pub mod backoff;
pub mod settle;
pub mod store;
pub mod worker;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::channel::Pause;
use crate::id::{ConversationId, MessageId};
use crate::provider::{Failure, Outgoing};

/// How messages are delivered.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryPolicy {
    /// The length of a lease, in seconds.
    pub lease_seconds: f64,
    /// Whether messages of one conversation go one after the other.
    pub ordered: bool,
    /// How long one waits behind another at the most, in seconds.
    pub max_wait_seconds: f64,
    /// Calls of a channel in a second, at most, by all processes together; none: no limit.
    pub max_per_second: Option<f64>,
}

/// The right to make one attempt at a message, and to write down its failure.
#[derive(Debug)]
pub struct Lease {
    /// What is to be sent.
    pub outgoing: Outgoing,
    /// The conversation that it belongs to.
    pub conversation_id: ConversationId,
    /// Whoever presents it holds the lease.
    pub token: Uuid,
    /// When it ends, by this process's monotonic clock, noted before the database was asked for it.
    pub expires_at: Instant,
    /// Claims so far, this one included.
    pub attempt: i32,
    /// Settled failures so far.
    pub failures: i32,
    /// The trace that it was accepted in; none: that of the current span, if there is one.
    pub traceparent: Option<String>,
}

/// An accepted message, to be settled.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The message.
    pub message_id: MessageId,
    /// Its conversation, to be released.
    pub conversation_id: ConversationId,
    /// The provider's id for it.
    pub provider_message_id: String,
}

/// A failed attempt, to be settled.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The message.
    pub message_id: MessageId,
    /// Its conversation, to be released if it is parked.
    pub conversation_id: ConversationId,
    /// The lease under which the attempt was made.
    pub lease_token: Uuid,
    /// How long until the next attempt; none: it is parked.
    pub wait: Option<Duration>,
    /// What went wrong.
    pub failure: Failure,
    /// How its channel is to be left alone.
    pub pause: Option<Pause>,
}

/// What an attempt did to the record.
#[derive(Debug)]
pub enum AttemptResult {
    /// It is `SENT`.
    Sent {
        /// The provider's id for it.
        provider_message_id: String,
        /// When it was settled.
        at: DateTime<Utc>,
    },
    /// It is `FAILED`.
    Failed {
        /// What went wrong.
        failure: Failure,
        /// When it is tried again.
        next_attempt_at: Option<DateTime<Utc>>,
        /// Attempts that have failed.
        retry_count: i32,
        /// When it was settled.
        at: DateTime<Utc>,
    },
    /// Nothing: somebody else has settled it, or holds it by now.
    Superseded,
}
