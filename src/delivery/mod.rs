//! Delivery: a lease, an attempt, a settlement. Nothing else writes `SENT` or `FAILED`.
//!
//! ```text
//!   enqueue ─► leased ──────► attempt ─┬─► SENT: the delivery is gone
//!         └─► blocked ─► due ─► claim ─┘ └► FAILED ─┬─► waiting ─► due
//!                        ▲                          └─► parked ─► requeue ─► due or blocked
//!                        └── a lease that has expired: nobody needs to rescue it
//! ```

pub mod attempt;
pub mod backlog;
pub mod backoff;
pub mod doubles;
pub mod hold;
pub mod settle;
mod states;
pub(crate) mod store;
pub mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::channel::Pause;
use crate::id::{ConversationId, MessageId};
use crate::provider::{Failure, Outgoing, Recipient};

/// How far a message has come: inbound ones are `RECEIVED`; outbound ones are `PENDING` until an
/// attempt has ended, then `SENT` or `FAILED`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    serde::Serialize,
    sqlx::Type,
    strum::IntoStaticStr,
    utoipa::ToSchema,
)]
#[serde(rename_all = "UPPERCASE")]
#[sqlx(type_name = "text", rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
#[schema(as = MessageStatus)]
pub enum Status {
    /// Inbound.
    Received,
    /// Outbound, no attempt at it has ended.
    Pending,
    /// Outbound, the provider has accepted it.
    Sent,
    /// Outbound, the last attempt failed; whether another follows is in `next_attempt_at`.
    Failed,
}

impl Status {
    /// Its name, as in the API and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

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
    /// The channels that this process sends to.
    pub channels: &'static [&'static str],
}

/// A delivery that was claimed, or stored with its lease.
#[derive(Debug)]
pub struct Claimed {
    /// What is to be sent.
    pub outgoing: Outgoing,
    /// The conversation that it belongs to.
    pub conversation_id: ConversationId,
    /// Claims so far, this one included.
    pub claims: i32,
    /// Attempts that have failed, and were settled, so far.
    pub failed_attempts: i32,
    /// Those of them that do not count: the account was at fault.
    pub spared: i32,
    /// The last ones of them in a row in which the provider may have accepted the message.
    pub doubts: i32,
    /// What is known of the last one, if it was such a one.
    pub evidence: Option<Evidence>,
    /// The trace that its attempt belongs to.
    pub trace: Trace,
}

/// Whether the provider would have told by now that it has accepted a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It has told so of messages that it has accepted later.
    Some,
    /// It has not.
    None,
}

impl Claimed {
    /// A message that was stored a moment ago, whose first attempt is made at once.
    #[must_use]
    pub fn first(outgoing: Outgoing, conversation_id: ConversationId) -> Self {
        Self {
            outgoing,
            conversation_id,
            claims: 1,
            failed_attempts: 0,
            spared: 0,
            doubts: 0,
            evidence: None,
            trace: Trace::Current,
        }
    }
}

/// The trace that an attempt belongs to.
#[derive(Debug)]
pub enum Trace {
    /// That of the current span; where there is none, the attempt begins one.
    Current,
    /// That of the request, which the queue has carried: its `traceparent`.
    Carried(String),
}

impl Trace {
    /// The `traceparent` that was carried.
    #[must_use]
    pub fn carried(&self) -> Option<&str> {
        match self {
            Self::Current => None,
            Self::Carried(traceparent) => Some(traceparent),
        }
    }
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
    /// When it ends, by this process's monotonic clock.
    pub expires_at: Instant,
    /// Claims so far, this one included.
    pub claims: i32,
    /// Attempts that have failed, and were settled, so far.
    pub failed_attempts: i32,
    /// What follows the next failure depends on these.
    pub tries: Tries,
    /// Whether the last attempt left open that the message was accepted, and what speaks for it.
    pub evidence: Option<Evidence>,
    /// The trace that its attempt belongs to.
    pub trace: Trace,
}

impl Lease {
    /// The lease of what was claimed with this token. It is counted from `asked_at`, before the
    /// database was asked: so it ends here before it ends there.
    #[must_use]
    pub fn new(claimed: Claimed, token: Uuid, asked_at: Instant, policy: &DeliveryPolicy) -> Self {
        Self {
            outgoing: claimed.outgoing,
            conversation_id: claimed.conversation_id,
            token,
            expires_at: asked_at + Duration::from_secs_f64(policy.lease_seconds),
            claims: claimed.claims,
            failed_attempts: claimed.failed_attempts,
            tries: Tries {
                failed: count(claimed.failed_attempts - claimed.spared),
                doubts: count(claimed.doubts),
            },
            evidence: claimed.evidence,
            trace: claimed.trace,
        }
    }

    /// Claims that nobody has settled: this one, and those whose holders died or were too slow.
    #[must_use]
    pub fn unsettled_claims(&self) -> i32 {
        self.claims - self.failed_attempts
    }
}

fn count(count: i32) -> u32 {
    u32::try_from(count).expect("a count is never negative")
}

/// What has become of a message so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tries {
    /// Attempts that have failed and count.
    pub failed: u32,
    /// Ambiguous ones in a row.
    pub doubts: u32,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, after this wait.
    Retry(Duration),
    /// None: the message has failed for good, and waits for an operator.
    Park,
}

/// How an attempt ended, to be written down.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// The provider has accepted the message.
    Sent {
        /// The lease under which the attempt was made.
        lease: Arc<Lease>,
        /// The provider's id for the message.
        provider_message_id: String,
        /// Who the provider says that the recipient is.
        recipient: Recipient,
        /// When the call began.
        began: Instant,
        /// Whether the provider knows no idempotency key, but tells what becomes of a message.
        is_keyless: bool,
    },
    /// The attempt failed.
    Failed {
        /// The lease under which the attempt was made.
        lease: Arc<Lease>,
        /// What went wrong.
        failure: Failure,
        /// What follows.
        next: Next,
        /// Who is to be left alone.
        pause: Option<PauseOf>,
        /// Whether the provider knows no idempotency key: then a doubt is kept, and an attempt
        /// that nobody has settled is settled with this one.
        is_keyless: bool,
    },
    /// No attempt was made: nothing shows that the last one was in vain. It waits for an operator.
    Unproven {
        /// The lease, which ends.
        lease: Arc<Lease>,
    },
}

/// Who is to be left alone after a failure.
#[derive(Debug, Clone)]
pub enum PauseOf {
    /// Everybody on a channel.
    Channel(Pause),
    /// The participant of the message's conversation, for so long.
    Conversation(Duration),
}

impl Settlement {
    /// The message that was attempted.
    #[must_use]
    pub fn message_id(&self) -> MessageId {
        let (Self::Sent { lease, .. } | Self::Failed { lease, .. } | Self::Unproven { lease }) =
            self;
        lease.outgoing.message_id
    }
}
