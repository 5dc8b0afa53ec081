//! One attempt at a leased message: a call of the provider, and its outcome on record.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::Notify;
use tracing::Instrument;
use tracing::field::Empty;

use super::backoff::Backoff;
use super::settle::{Settle, Settlement};
use super::{Accepted, AttemptResult, DeliveryPolicy, Failed, Lease, store};
use crate::channel::Pause;
use crate::crash::{self, Point};
use crate::database::batch::Writer;
use crate::error::{Causes, Error, Result};
use crate::handles::Handles;
use crate::provider::client::Client;
use crate::provider::{ErrorKind, Failure, Outcome};
use crate::tasks::Tasks;
use crate::trace;

/// Claims that may go unsettled before the message itself is taken to be what kills the process.
const MAX_UNSETTLED_CLAIMS: i32 = 20;
/// The same where whatever is ambiguous is held: nobody knows how far the last holder came.
const MAX_UNSETTLED_CLAIMS_HELD: i32 = 1;
/// How long to wait before an outcome whose row somebody else has locked is handed in again.
const LOCKED_PAUSE: Duration = Duration::from_millis(500);

static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| gauge!("gateway_attempts_in_flight"));
static ATTEMPTS: Handles<&str, (Counter, Histogram)> = Handles::new();

/// Makes attempts at leased messages: what it needs for that, and for whatever runs beside it.
#[derive(Debug)]
pub struct Courier {
    /// The provider.
    pub provider: Client,
    /// When to try again.
    pub backoff: Backoff,
    /// How messages are delivered.
    pub policy: DeliveryPolicy,
    /// Writes outcomes.
    pub settle: Writer<Settle>,
    /// The attempts in flight, among others: shutdown waits for them.
    pub tasks: Tasks,
    /// Wakes this process's worker: something is due.
    pub wake: Arc<Notify>,
}

impl Courier {
    /// Makes one attempt at a leased message and writes down how it went.
    ///
    /// The first send, the worker and `gateway retry` all pass through here. However it ends, that is one line in the log.
    ///
    /// # Errors
    /// `LeaseTooShort`, before anything was sent, when the attempt might outlast the lease.
    pub async fn attempt(&self, lease: Lease) -> Result<AttemptResult> {
        let (message_id, conversation_id) = (lease.outgoing.message_id, lease.conversation_id);
        // At the highest level, so that no filter takes the ids from a line that it lets through.
        let span = tracing::error_span!("attempt", %message_id, %conversation_id, attempt = lease.attempt, otel.kind = Empty);
        trace::begin_attempt(&span, lease.traceparent.as_deref());
        let attempt = lease.attempt;
        IN_FLIGHT.increment(1.0);
        let ended = self.make(lease).instrument(span).await;
        IN_FLIGHT.decrement(1.0);
        if matches!(ended, Ok(AttemptResult::Superseded)) {
            counter!("gateway_attempts_refused_total").increment(1);
        }
        ended.inspect_err(|error| {
        tracing::warn!(%message_id, %conversation_id, attempt, error = %Causes(error), "an attempt was not settled, its lease will end");
    })
    }

    async fn make(&self, lease: Lease) -> Result<AttemptResult> {
        if lease.expires_at < Instant::now() + self.provider.timeout() {
            return Err(Error::LeaseTooShort);
        }
        let started = Instant::now();
        crash::point(Point::BeforeCall);
        let outcome = self.call(&lease).await;
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
        self.record(&lease, outcome).await
    }

    async fn call(&self, lease: &Lease) -> Outcome {
        let (most, detail) = if self.backoff.holds_ambiguous {
            let detail = "the process ended, or was too slow, during an attempt at this message";
            (MAX_UNSETTLED_CLAIMS_HELD, detail)
        } else {
            let detail = "the process ended again and again during an attempt at this message";
            (MAX_UNSETTLED_CLAIMS, detail)
        };
        if lease.attempt - lease.failures > most {
            return Outcome::Failed(Failure::new(ErrorKind::Interrupted, detail));
        }
        AssertUnwindSafe(self.provider.send(&lease.outgoing))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Outcome::Failed(Failure::new(
                    ErrorKind::Internal,
                    "the gateway failed during the attempt",
                ))
            })
    }

    async fn record(&self, lease: &Lease, outcome: Outcome) -> Result<AttemptResult> {
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
                let settled = self.settle(accepted.into()).await?;
                tracing::info!(%message_id, %conversation_id, attempt = lease.attempt, provider_message_id, "sent");
                Ok(
                    settled.map_or(AttemptResult::Superseded, |settled| AttemptResult::Sent {
                        provider_message_id,
                        at: settled.settled_at,
                    }),
                )
            }
            Outcome::Failed(failure) => {
                let failures = u32::try_from(lease.failures).unwrap_or(0);
                let failed = Failed {
                    message_id,
                    conversation_id,
                    lease_token: lease.token,
                    wait: self.backoff.after(&failure, failures),
                    pause: self
                        .backoff
                        .pause_after(&failure, failures)
                        .map(|wait| Pause {
                            channel: lease.outgoing.channel,
                            wait,
                        }),
                    failure: failure.clone(),
                };
                let settled = self.settle(failed.into()).await?;
                log_failure(lease, &failure, settled.as_ref());
                Ok(
                    settled.map_or(AttemptResult::Superseded, |settled| AttemptResult::Failed {
                        failure,
                        next_attempt_at: settled.next_attempt_at,
                        retry_count: settled.retry_count,
                        at: settled.settled_at,
                    }),
                )
            }
        }
    }

    /// Hands an outcome in until it is written or refused. A row that is locked, or that the database
    /// has an unexpected error for, is waited for here, where it holds up this attempt only.
    async fn settle(&self, settlement: Settlement) -> Result<Option<store::Settled>> {
        loop {
            match self.settle.submit(settlement.clone()).await {
                Err(Error::Locked | Error::Unavailable(_)) => {
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                settled => return settled,
            }
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
