//! Delivery: a lease, an attempt, a settlement. The only road to `SENT` or `FAILED`.
//!
//! ```text
//!   accept ─► leased ──────► attempt ─┬─► SENT: the delivery is gone
//!        └─► blocked ─► due ─► claim ─┘ └► FAILED ─┬─► waiting ─► due
//!                        ▲                          └─► parked (an operator: requeue ─► due or blocked)
//!                        └── a lease that has expired: nobody needs to rescue it
//! ```

pub mod backlog;
pub mod backoff;
pub mod settle;
pub mod store;
pub mod worker;

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tracing::Instrument;
use tracing::field::Empty;
use uuid::Uuid;

use crate::app::App;
use crate::conversation::ConversationId;
use crate::crash::{self, Point};
use crate::error::{Causes, Error, Result};
use crate::message::{ErrorKind, MessageId};
use crate::pace::Pause;
use crate::provider::{Failure, Outcome, Outgoing};
use crate::telemetry::Handles;
use crate::trace;

use self::settle::Settlement;

/// Claims that may go unsettled before the message itself is taken to be what kills the process.
const MAX_UNSETTLED_CLAIMS: i32 = 20;
/// The same where whatever is ambiguous is held: nobody knows how far the last holder came.
const MAX_UNSETTLED_CLAIMS_HELD: i32 = 1;
/// How long to wait before an outcome whose row somebody else has locked is handed in again.
const LOCKED_PAUSE: Duration = Duration::from_millis(500);

static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| gauge!("gateway_attempts_in_flight"));
static ATTEMPTS: Handles<&str, (Counter, Histogram)> = Handles::new();

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
pub enum Ended {
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

/// Makes one attempt at a leased message and writes down how it went.
///
/// The first send, the worker and `gateway retry` all pass through here. However it ends, that is one line in the log.
///
/// # Errors
/// `LeaseTooShort`, before anything was sent, when the attempt might outlast the lease.
pub async fn attempt(app: &App, lease: Lease) -> Result<Ended> {
    let (message_id, conversation_id) = (lease.outgoing.message_id, lease.conversation_id);
    // At the highest level, so that no filter takes the ids from a line that it lets through.
    let span = tracing::error_span!("attempt", %message_id, %conversation_id, attempt = lease.attempt, otel.kind = Empty);
    trace::begin_attempt(&span, lease.traceparent.as_deref());
    let attempt = lease.attempt;
    IN_FLIGHT.increment(1.0);
    let ended = make(app, lease).instrument(span).await;
    IN_FLIGHT.decrement(1.0);
    if matches!(ended, Ok(Ended::Superseded)) {
        counter!("gateway_attempts_refused_total").increment(1);
    }
    ended.inspect_err(|error| {
        tracing::warn!(%message_id, %conversation_id, attempt, error = %Causes(error), "an attempt was not settled, its lease will end");
    })
}

async fn make(app: &App, lease: Lease) -> Result<Ended> {
    if lease.expires_at < Instant::now() + app.provider.timeout() {
        return Err(Error::LeaseTooShort);
    }
    let started = Instant::now();
    crash::point(Point::BeforeCall);
    let outcome = outcome(app, &lease).await;
    crash::point(Point::AfterCall);
    let label = match &outcome {
        Outcome::Accepted { .. } => "sent",
        Outcome::Failed(failure) => failure.kind.as_str(),
    };
    let (attempts, duration) = ATTEMPTS.of(label, |outcome| {
        let attempts = counter!("gateway_attempts_total", "outcome" => outcome);
        let duration = histogram!("gateway_attempt_duration_seconds", "outcome" => outcome);
        (attempts, duration)
    });
    attempts.increment(1);
    trace::end_attempt(label, matches!(outcome, Outcome::Accepted { .. }));
    duration.record(started.elapsed());
    settle(app, &lease, outcome).await
}

async fn outcome(app: &App, lease: &Lease) -> Outcome {
    let (most, detail) = if app.backoff.holds_ambiguous {
        let detail = "the process ended, or was too slow, during an attempt at this message";
        (MAX_UNSETTLED_CLAIMS_HELD, detail)
    } else {
        let detail = "the process ended again and again during an attempt at this message";
        (MAX_UNSETTLED_CLAIMS, detail)
    };
    if lease.attempt - lease.failures > most {
        return Outcome::Failed(Failure::new(ErrorKind::Interrupted, detail));
    }
    AssertUnwindSafe(app.provider.send(&lease.outgoing))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Outcome::Failed(Failure::new(
                ErrorKind::Internal,
                "the gateway failed during the attempt",
            ))
        })
}

async fn settle(app: &App, lease: &Lease, outcome: Outcome) -> Result<Ended> {
    let message_id = lease.outgoing.message_id;
    let conversation_id = lease.conversation_id;
    match outcome {
        Outcome::Accepted {
            provider_message_id,
        } => {
            let accepted = Accepted {
                message_id,
                conversation_id,
                provider_message_id: provider_message_id.clone(),
            };
            let settled = submit(app, accepted.into()).await?;
            tracing::info!(%message_id, %conversation_id, attempt = lease.attempt, provider_message_id, "sent");
            Ok(settled.map_or(Ended::Superseded, |settled| Ended::Sent {
                provider_message_id,
                at: settled.settled_at,
            }))
        }
        Outcome::Failed(failure) => {
            let failures = u32::try_from(lease.failures).unwrap_or(0);
            let failed = Failed {
                message_id,
                conversation_id,
                lease_token: lease.token,
                wait: app.backoff.after(&failure, failures),
                pause: app
                    .backoff
                    .pause_after(&failure, failures)
                    .map(|wait| Pause {
                        channel: lease.outgoing.channel,
                        wait,
                    }),
                failure: failure.clone(),
            };
            let settled = submit(app, failed.into()).await?;
            log_failure(lease, &failure, settled.as_ref());
            Ok(settled.map_or(Ended::Superseded, |settled| Ended::Failed {
                failure,
                next_attempt_at: settled.next_attempt_at,
                retry_count: settled.retry_count,
                at: settled.settled_at,
            }))
        }
    }
}

/// A retry that is to come is a warning. Nobody but an operator looks after a message that has failed for good, nobody else
/// mends the gateway: those are errors. What the record has refused concerns nobody.
fn log_failure(lease: &Lease, failure: &Failure, settled: Option<&store::Settled>) {
    let message_id = lease.outgoing.message_id;
    let conversation_id = lease.conversation_id;
    let attempt = lease.attempt;
    let kind = failure.kind.as_str();
    let http_status = failure.http_status;
    let ambiguous = failure.ambiguous;
    let Some(settled) = settled else {
        tracing::info!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, refused = true, "an attempt failed");
        return;
    };
    match settled.next_attempt_at {
        None => {
            tracing::error!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, "a message has failed for good");
        }
        Some(next_attempt_at) if failure.kind == ErrorKind::Internal => {
            tracing::error!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, %next_attempt_at, "an attempt failed");
        }
        Some(next_attempt_at) => {
            tracing::warn!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, %next_attempt_at, "an attempt failed");
        }
    }
}

/// Hands an outcome in until it is written or refused. A row that somebody else has locked is waited for here, where it holds
/// up this attempt only, and not in a writer.
async fn submit(app: &App, settlement: Settlement) -> Result<Option<store::Settled>> {
    loop {
        match app.settle.submit(settlement.clone()).await {
            Err(Error::Locked) => tokio::time::sleep(LOCKED_PAUSE).await,
            settled => return settled,
        }
    }
}
