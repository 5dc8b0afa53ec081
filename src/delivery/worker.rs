//! Claims what is due, as much as there are free permits, and makes one attempt at each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store::InFlight;
use super::{Lease, attempt, store};
use crate::app::App;
use crate::complaint::Complaint;
use crate::conversation::ConversationId;
use crate::database::bounded;
use crate::error::{Causes, Error, Result};
use crate::message::MessageId;
use crate::pace;
use crate::provider::Outgoing;
use crate::share::{self, Shares};

/// How often an idle worker looks for due work that nobody woke it for.
const POLL: Duration = Duration::from_millis(500);
/// How often a worker at most looks for what may be sent next, while calls are spread.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// How long a drain waits for a channel that is paused.
const LONGEST_PAUSE_OF_A_DRAIN: Duration = Duration::from_mins(1);
/// How long to wait after the database failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often releases that were lost in a crash are repeated.
const SWEEP: Duration = Duration::from_secs(5);
/// The most deliveries of one claim, and conversations of one sweep.
const MAX_CLAIM: usize = 64;
const MAX_SWEEP: i64 = 1000;

/// A worker of this process.
#[derive(Debug)]
pub struct Worker {
    app: Arc<App>,
    permits: Arc<Semaphore>,
    conversations: Arc<Shares<ConversationId>>,
    only: Option<Vec<MessageId>>,
    swept_at: Option<Instant>,
    /// Of claims, and of sweeps.
    claiming: Complaint,
    sweeping: Complaint,
}

impl Worker {
    /// A worker that makes at most `concurrency` attempts at once.
    #[must_use]
    pub fn new(app: Arc<App>, concurrency: usize) -> Self {
        let share = concurrency / share::OF_CONVERSATION;
        Self {
            conversations: Shares::new(share, Arc::clone(&app.wake)),
            app,
            permits: Arc::new(Semaphore::new(concurrency)),
            only: None,
            swept_at: None,
            claiming: Complaint::default(),
            sweeping: Complaint::default(),
        }
    }

    /// Works on these messages only from now on.
    pub fn narrow(&mut self, message_ids: Vec<MessageId>) {
        self.only = Some(message_ids);
    }

    /// Works until stopped. A database that is away is waited for. The attempts that were begun go on as tracked tasks.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let permits = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                permits = self.free_permits() => permits,
            };
            let pause = match self.step(permits).await {
                Ok(0) => self.pause().await,
                Ok(_) => continue,
                Err(error) => {
                    self.complain(&error);
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.app.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Works until nothing is due and nothing of its own is in flight. A database that is away is waited for.
    pub async fn drain(mut self) -> Result<()> {
        let all = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
        loop {
            let claimed = match self.claim_once().await {
                Ok(claimed) => claimed,
                Err(error) => {
                    self.complain(&error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if claimed > 0 {
                continue;
            }
            tokio::select! {
                idle = self.permits.acquire_many(all) => drop(idle.map_err(|_| Error::Interrupted)?),
                // Of what waits for its conversation's share some may go.
                () = self.app.wake.notified() => continue,
            }
            let longest_pause = LONGEST_PAUSE_OF_A_DRAIN.as_secs_f64();
            if matches!(
                bounded(store::is_idle(&self.app.claims, longest_pause)).await,
                Ok(true)
            ) {
                for paused in bounded(pace::store::list_paused(&self.app.claims)).await? {
                    tracing::warn!(channel = paused.channel.as_str(), until = %paused.until, "not everything was sent: a channel is paused");
                }
                return Ok(());
            }
            // Its channel waits, or somebody else holds its row.
            tokio::time::sleep(self.pause().await.min(POLL / 10)).await;
        }
    }

    fn complain(&mut self, error: &Error) {
        let error = Causes(error).to_string();
        if let Some(passed_over) = self.claiming.again(&error) {
            tracing::warn!(
                error,
                passed_over,
                "the worker could not claim, it goes on in a moment"
            );
        }
    }

    /// How long to wait when nothing could be claimed.
    async fn pause(&mut self) -> Duration {
        match bounded(pace::store::next_call_in(&self.app.claims)).await {
            Ok(Some(seconds)) => Duration::try_from_secs_f64(seconds)
                .unwrap_or_default()
                .clamp(MIN_PAUSE, POLL),
            Ok(None) => POLL,
            Err(error) => {
                self.complain(&error);
                PAUSE
            }
        }
    }

    /// Claims what is due, once there is a free permit, and begins the attempts; how many those are.
    pub async fn claim_once(&mut self) -> Result<usize> {
        let permits = self.free_permits().await;
        self.step(permits).await
    }

    async fn step(&mut self, permits: Result<OwnedSemaphorePermit>) -> Result<usize> {
        let mut permits = permits?;
        if let Err(error) = self.sweep().await {
            let error = Causes(&error).to_string();
            if let Some(passed_over) = self.sweeping.again(&error) {
                tracing::warn!(
                    error,
                    passed_over,
                    "lost releases were not looked for, the next sweep does it"
                );
            }
        }
        let asked_at = Instant::now();
        let token = Uuid::now_v7();
        let limit = i64::try_from(permits.num_permits()).unwrap_or(1);
        let terms = &self.app.terms;
        let pool = &self.app.claims;
        let claimed = match &self.only {
            None => {
                let in_flight = self.in_flight();
                bounded(store::claim(pool, limit, token, &in_flight, terms)).await?
            }
            Some(ids) => bounded(store::claim_only(pool, ids, limit, token, terms)).await?,
        };
        let count = claimed.len();
        counter!("gateway_claims_total").increment(count as u64);
        let unsettled = claimed.iter().filter(|row| row.attempt - 1 > row.failures);
        counter!("gateway_claims_unsettled_total").increment(unsettled.count() as u64);
        for row in claimed {
            let Some(permit) = permits.split(1) else {
                break;
            };
            let lease = Lease {
                outgoing: Outgoing {
                    message_id: row.message_id,
                    channel: row.channel,
                    participant_id: row.participant_id,
                    text: row.text,
                    client_message_id: row.client_message_id,
                },
                conversation_id: row.conversation_id,
                token,
                expires_at: asked_at + Duration::from_secs_f64(terms.lease_seconds),
                attempt: row.attempt,
                failures: row.failures,
                traceparent: row.traceparent,
            };
            self.begin(lease, permit);
        }
        Ok(count)
    }

    fn in_flight(&self) -> InFlight {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let held = self.conversations.held();
        let (conversation_ids, counts) = held.into_iter().map(|(id, n)| (id, count(n))).unzip();
        InFlight {
            conversation_ids,
            counts,
            share: count(self.conversations.most()),
        }
    }

    fn begin(&self, lease: Lease, permit: OwnedSemaphorePermit) {
        let app = Arc::clone(&self.app);
        // None only where these messages were asked for, and not claimed by share.
        let share = self.conversations.take(lease.conversation_id);
        self.app.tasks.spawn(async move {
            // However it ends, that is in the log.
            attempt(&app, lease).await.ok();
            drop(permit);
            drop(share);
        });
    }

    async fn free_permits(&self) -> Result<OwnedSemaphorePermit> {
        // Only this worker takes permits, so what is free now stays free.
        let free = self.permits.available_permits().clamp(1, MAX_CLAIM);
        let free = u32::try_from(free).unwrap_or(1);
        Arc::clone(&self.permits)
            .acquire_many_owned(free)
            .await
            .map_err(|_| Error::Interrupted)
    }

    async fn sweep(&mut self) -> Result<()> {
        let swept = self.swept_at.is_some_and(|at| at.elapsed() < SWEEP);
        if swept || !self.app.terms.ordered {
            return Ok(());
        }
        let listed = bounded(store::list_unreleased(&self.app.claims, MAX_SWEEP)).await;
        self.swept_at = Some(Instant::now());
        let conversation_ids = listed?;
        if conversation_ids.is_empty() {
            return Ok(());
        }
        let release = async {
            let mut pooled = self.app.claims.acquire().await?;
            let released = store::release(pooled.connection()?, &conversation_ids).await;
            pooled.ended(&released);
            released
        };
        let released = bounded(release).await?;
        tracing::info!(
            released = released.len(),
            "repeated releases that were lost"
        );
        Ok(())
    }
}
