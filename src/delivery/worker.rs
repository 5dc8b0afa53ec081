//! Claims what is due, as much as there are free permits, and makes one attempt at each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::Courier;
use super::store::InFlight;
use super::{Lease, store};
use crate::channel;
use crate::database::bounded;
use crate::database::pool::Pool;
use crate::error::{Causes, Error, Result};
use crate::id::{ConversationId, MessageId};
use crate::log_throttle::LogThrottle;
use crate::share::{self, Shares};

/// How often an idle worker looks for due work that nobody woke it for.
const POLL: Duration = Duration::from_millis(500);
/// How often a worker looks for what may be sent next, at the most, while calls are spread.
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
    courier: Arc<Courier>,
    /// Claims wait for no reader: where there is room for one, a connection of its own.
    pool: Pool,
    permits: Arc<Semaphore>,
    conversations: Arc<Shares<ConversationId>>,
    only: Option<Vec<MessageId>>,
    swept_at: Option<Instant>,
    /// Of claims, and of sweeps.
    claiming: LogThrottle,
    sweeping: LogThrottle,
}

impl Worker {
    /// A worker that makes at most `concurrency` attempts at once.
    #[must_use]
    pub fn new(courier: Arc<Courier>, pool: Pool, concurrency: usize) -> Self {
        let share = concurrency / share::OF_CONVERSATION;
        Self {
            conversations: Shares::new(share, Arc::clone(&courier.wake)),
            courier,
            pool,
            permits: Arc::new(Semaphore::new(concurrency)),
            only: None,
            swept_at: None,
            claiming: LogThrottle::default(),
            sweeping: LogThrottle::default(),
        }
    }

    /// Works on these messages only from now on.
    pub fn restrict_to(&mut self, message_ids: Vec<MessageId>) {
        self.only = Some(message_ids);
    }

    /// Works until stopped. It waits for a database that is away. Attempts that have begun go on as
    /// tracked tasks.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let permits = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                permits = self.free_permits() => permits,
            };
            let pause = match self.step(permits).await {
                Ok(0) => self.idle_time().await,
                Ok(_) => continue,
                Err(error) => {
                    self.warn(&error);
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.courier.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Works until nothing is due and nothing of its own is in flight. It waits for a database that
    /// is away.
    pub async fn drain(mut self) -> Result<()> {
        let all = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
        loop {
            let claimed = match self.claim_once().await {
                Ok(claimed) => claimed,
                Err(error) => {
                    self.warn(&error);
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
                () = self.courier.wake.notified() => continue,
            }
            let longest_pause = LONGEST_PAUSE_OF_A_DRAIN.as_secs_f64();
            let channels = self.courier.policy.channels;
            if matches!(
                bounded(store::is_idle(&self.pool, channels, longest_pause)).await,
                Ok(true)
            ) {
                for paused in bounded(channel::store::list_paused(&self.pool)).await? {
                    tracing::warn!(channel = paused.channel.as_str(), until = %paused.until, "not everything was sent: a channel is paused");
                }
                return Ok(());
            }
            // Its channel waits, or somebody else holds its row.
            tokio::time::sleep(self.idle_time().await.min(POLL / 10)).await;
        }
    }

    fn warn(&mut self, error: &Error) {
        let error = Causes(error).to_string();
        if let Some(passed_over) = self.claiming.admit(&error) {
            tracing::warn!(error, passed_over, "claim failed, retrying");
        }
    }

    /// How long to wait when nothing could be claimed.
    async fn idle_time(&mut self) -> Duration {
        let channels = self.courier.policy.channels;
        match bounded(channel::store::next_call_in(&self.pool, channels)).await {
            Ok(Some(seconds)) => Duration::try_from_secs_f64(seconds)
                .unwrap_or_default()
                .clamp(MIN_PAUSE, POLL),
            Ok(None) => POLL,
            Err(error) => {
                self.warn(&error);
                PAUSE
            }
        }
    }

    /// Waits for a free permit, claims what is due, begins the attempts, and returns their number.
    pub async fn claim_once(&mut self) -> Result<usize> {
        let permits = self.free_permits().await;
        self.step(permits).await
    }

    async fn step(&mut self, permits: Result<OwnedSemaphorePermit>) -> Result<usize> {
        let mut permits = permits?;
        if let Err(error) = self.sweep().await {
            let error = Causes(&error).to_string();
            if let Some(passed_over) = self.sweeping.admit(&error) {
                tracing::warn!(
                    error,
                    passed_over,
                    "sweep for lost releases failed, retrying"
                );
            }
        }
        let asked_at = Instant::now();
        let token = Uuid::now_v7();
        let limit = i64::try_from(permits.num_permits()).expect("a claim has a limit");
        let policy = &self.courier.policy;
        let pool = &self.pool;
        let claimed = match &self.only {
            None => {
                let in_flight = self.in_flight();
                bounded(store::claim(pool, limit, token, &in_flight, policy)).await?
            }
            Some(ids) => bounded(store::claim_only(pool, ids, limit, token, policy)).await?,
        };
        let count = claimed.len();
        counter!("gateway_claims_total").increment(count as u64);
        for claimed in claimed {
            let lease = Lease::new(claimed, token, asked_at, policy);
            if lease.unsettled_claims() > 1 {
                counter!("gateway_claims_unsettled_total").increment(1);
            }
            let Some(permit) = permits.split(1) else {
                break;
            };
            self.start_attempt(lease, permit);
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

    fn start_attempt(&self, lease: Lease, permit: OwnedSemaphorePermit) {
        let courier = Arc::clone(&self.courier);
        // None only where these messages were asked for, and not claimed by share.
        let share = self.conversations.take(lease.conversation_id);
        self.courier.tasks.spawn(async move {
            // However it ends, that is in the log.
            courier.attempt(lease).await.ok();
            drop(permit);
            drop(share);
        });
    }

    async fn free_permits(&self) -> Result<OwnedSemaphorePermit> {
        // Only this worker takes permits, so what is free now stays free.
        let free = self.permits.available_permits().clamp(1, MAX_CLAIM);
        let free = u32::try_from(free).expect("a claim has a limit");
        Arc::clone(&self.permits)
            .acquire_many_owned(free)
            .await
            .map_err(|_| Error::Interrupted)
    }

    async fn sweep(&mut self) -> Result<()> {
        let swept = self.swept_at.is_some_and(|at| at.elapsed() < SWEEP);
        if swept || !self.courier.policy.ordered {
            return Ok(());
        }
        let listed = bounded(store::list_unreleased(&self.pool, MAX_SWEEP)).await;
        self.swept_at = Some(Instant::now());
        let conversation_ids = listed?;
        if conversation_ids.is_empty() {
            return Ok(());
        }
        let release = async {
            let mut pooled = self.pool.acquire().await?;
            let released = store::release(pooled.connection()?, &conversation_ids).await;
            pooled.ended(&released);
            released
        };
        let released = bounded(release).await?;
        tracing::info!(released = released.len(), "repeated lost releases");
        Ok(())
    }
}
