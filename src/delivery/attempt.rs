//! One attempt at a leased message: a call of the provider, and its outcome on record.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::Notify;
use tracing::Instrument;
use tracing::field::{Empty, display};

use super::backoff::{Ambiguity, Backoff, Unproven};
use super::settle::Settle;
use super::store::Settled;
use super::{DeliveryPolicy, Evidence, Lease, Next, PauseOf, Settlement};
use crate::channel::{Channel, Pause};
use crate::crash::{self, Point};
use crate::database::writer::Writer;
use crate::error::{Causes, Error, Result};
use crate::handles::Handles;
use crate::provider::providers::Providers;
use crate::provider::{ErrorKind, Failure, Outcome, Recipient, hashed_id};
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
    /// The providers.
    pub providers: Providers,
    /// When to try again.
    pub backoff: Backoff,
    /// What becomes of ambiguous failures where the provider knows no idempotency key.
    pub reconciling: Ambiguity,
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
    /// Makes one attempt at a leased message, writes down how it ended, and returns what that has
    /// made of the message. None: somebody else has settled it, or holds it by now.
    ///
    /// The first send, the worker and `gateway retry` all pass through here. However it ends, that
    /// is one line in the log.
    ///
    /// # Errors
    /// `LeaseTooShort`, before anything was sent, when the attempt might outlast the lease.
    pub async fn attempt(&self, lease: Lease) -> Result<Option<Settled>> {
        let (message_id, conversation_id) = (lease.outgoing.message_id, lease.conversation_id);
        let attempt = lease.claims;
        // ERROR level, so that no log filter drops this span and the ids on its lines.
        let span = tracing::error_span!("attempt", %message_id, %conversation_id, attempt, otel.kind = Empty);
        trace::begin_attempt(&span, lease.trace.carried());
        IN_FLIGHT.increment(1.0);
        let ended = self.make(lease).instrument(span).await;
        IN_FLIGHT.decrement(1.0);
        if matches!(ended, Ok(None)) {
            counter!("gateway_attempts_refused_total").increment(1);
        }
        ended.inspect_err(|error| {
            tracing::warn!(%message_id, %conversation_id, attempt, error = %Causes(error), "outcome not recorded; the lease will expire");
        })
    }

    async fn make(&self, lease: Lease) -> Result<Option<Settled>> {
        if lease.expires_at < Instant::now() + self.providers.timeout() {
            return Err(Error::LeaseTooShort);
        }
        if !self.is_lost(&lease) && self.is_unproven(&lease) {
            return self.leave(lease).await;
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
        self.record(lease, outcome, started).await
    }

    /// When to try messages of this channel again.
    fn backoff(&self, channel: Channel) -> Backoff {
        let ambiguity = if self.providers.is_whatsapp(channel) {
            self.reconciling
        } else {
            self.backoff.ambiguity
        };
        Backoff {
            ambiguity,
            ..self.backoff
        }
    }

    /// Whether so many holders of this lease have died, or were too slow, that no further attempt
    /// is made: the message may be what kills them, or nobody knows how far they came.
    fn is_lost(&self, lease: &Lease) -> bool {
        let most = match self.backoff(lease.outgoing.outbound.channel).ambiguity {
            Ambiguity::Retry => MAX_UNSETTLED_CLAIMS,
            Ambiguity::Hold | Ambiguity::Wait(..) => MAX_UNSETTLED_CLAIMS_HELD,
        };
        lease.unsettled_claims() > most
    }

    /// Whether the message may have been accepted, and waits for an operator unless there is
    /// evidence that it was not.
    fn is_unproven(&self, lease: &Lease) -> bool {
        let ambiguity = self.backoff(lease.outgoing.outbound.channel).ambiguity;
        lease.evidence == Some(Evidence::None)
            && matches!(ambiguity, Ambiguity::Wait(_, Unproven::Park))
    }

    async fn call(&self, lease: &Lease) -> Outcome {
        let channel = lease.outgoing.outbound.channel;
        if self.is_lost(lease) {
            return Outcome::Failed(interrupted(self.backoff(channel).ambiguity));
        }
        let Some(provider) = self.providers.of(channel) else {
            return Outcome::Failed(Failure {
                ambiguous: false,
                ..Failure::new(ErrorKind::Connection, "the channel is not connected")
            });
        };
        AssertUnwindSafe(provider.send(&lease.outgoing, lease.claims))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Outcome::Failed(Failure::new(
                    ErrorKind::Internal,
                    "the gateway failed during the attempt",
                ))
            })
    }

    async fn record(
        &self,
        lease: Lease,
        outcome: Outcome,
        began: Instant,
    ) -> Result<Option<Settled>> {
        let lease = Arc::new(lease);
        match outcome {
            Outcome::Accepted {
                provider_message_id,
                recipient,
            } => {
                self.record_sent(lease, provider_message_id, recipient, began)
                    .await
            }
            Outcome::Failed(failure) => self.record_failed(lease, failure).await,
        }
    }

    async fn record_sent(
        &self,
        lease: Arc<Lease>,
        provider_message_id: String,
        recipient: Recipient,
        began: Instant,
    ) -> Result<Option<Settled>> {
        let is_keyless = self.providers.is_whatsapp(lease.outgoing.outbound.channel);
        let shown_id = if is_keyless {
            // It has the customer's number in it.
            hashed_id(&provider_message_id)
        } else {
            provider_message_id.clone()
        };
        let sent = Settlement::Sent {
            lease: Arc::clone(&lease),
            provider_message_id,
            recipient,
            began,
            is_keyless,
        };
        let settled = self.settle(sent).await?;
        let (message_id, conversation_id) = (lease.outgoing.message_id, lease.conversation_id);
        tracing::info!(%message_id, %conversation_id, attempt = lease.claims, provider_message_id = shown_id, "sent");
        Ok(settled)
    }

    async fn record_failed(&self, lease: Arc<Lease>, failure: Failure) -> Result<Option<Settled>> {
        let channel = lease.outgoing.outbound.channel;
        let backoff = self.backoff(channel);
        let next = backoff.next(&failure, lease.tries);
        let of_channel = backoff.pause_after(&failure, lease.tries);
        let of_channel = of_channel.map(|wait| {
            PauseOf::Channel(Pause {
                channel,
                wait,
                held_token: self.refused_token(channel, &failure),
            })
        });
        let pause = of_channel.or_else(|| {
            let wait = Backoff::pair_pause_after(&failure, lease.tries);
            wait.map(PauseOf::Conversation)
        });
        let failed = Settlement::Failed {
            lease: Arc::clone(&lease),
            failure: failure.clone(),
            next,
            pause,
            is_keyless: self.providers.is_whatsapp(channel),
        };
        let settled = self.settle(failed).await?;
        log_failure(&lease, &failure, next, settled.as_ref());
        Ok(settled)
    }

    /// The fingerprint of the token, if that or the account is at fault.
    fn refused_token(&self, channel: Channel, failure: &Failure) -> Option<String> {
        let account = self.providers.whatsapp()?;
        let is_refused =
            failure.kind == ErrorKind::Unauthorized && self.providers.is_whatsapp(channel);
        is_refused.then(|| account.fingerprint())
    }

    /// Leaves a message to an operator without a further attempt.
    async fn leave(&self, lease: Lease) -> Result<Option<Settled>> {
        let lease = Arc::new(lease);
        let unproven = Settlement::Unproven {
            lease: Arc::clone(&lease),
        };
        let settled = self.settle(unproven).await?;
        if settled.is_some() {
            let (message_id, conversation_id) = (lease.outgoing.message_id, lease.conversation_id);
            tracing::error!(%message_id, %conversation_id, ambiguous = true, "a message may have been accepted, and no status says whether it was: it waits for an operator");
        }
        Ok(settled)
    }

    /// Hands an outcome in until it is written or refused. A row that is locked, or that the database
    /// has an unexpected error for, is waited for here, where it holds up this attempt only.
    async fn settle(&self, settlement: Settlement) -> Result<Option<Settled>> {
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

/// The failure of attempts that nobody has settled.
fn interrupted(ambiguity: Ambiguity) -> Failure {
    let detail = match ambiguity {
        Ambiguity::Retry => "the process ended again and again during an attempt at this message",
        Ambiguity::Hold | Ambiguity::Wait(..) => {
            "the process ended, or was too slow, during an attempt at this message"
        }
    };
    Failure {
        // It may have been accepted, and then a status says so.
        retryable: matches!(ambiguity, Ambiguity::Wait(..)),
        ..Failure::new(ErrorKind::Interrupted, detail)
    }
}

/// The level says who must act: a warning if a retry follows, an error if an operator must look
/// after the message or mend the gateway, and nobody if another holder has settled it.
fn log_failure(lease: &Lease, failure: &Failure, next: Next, settled: Option<&Settled>) {
    let message_id = lease.outgoing.message_id;
    let conversation_id = lease.conversation_id;
    let attempt = lease.claims;
    let kind = failure.kind.as_str();
    let http_status = failure.http_status;
    let ambiguous = failure.ambiguous;
    let Some(settled) = settled else {
        tracing::info!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, refused = true, "an attempt failed");
        return;
    };
    let next_attempt_at = settled.next_attempt_at.map(display);
    match next {
        Next::Park => {
            tracing::error!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, "a message has failed for good");
        }
        Next::Retry(_) if failure.kind == ErrorKind::Internal => {
            tracing::error!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, next_attempt_at, "an attempt failed");
        }
        Next::Retry(_) => {
            tracing::warn!(%message_id, %conversation_id, attempt, kind, http_status, ambiguous, next_attempt_at, "an attempt failed");
        }
    }
}
