//! What a running provider is made of, shared by its tasks and handlers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::behaviour::Behaviour;
use crate::config::Config;
use crate::error::StartError;
use crate::graph::pair::Pairs;
use crate::graph::state::{Graph, GraphState};
use crate::ledger::LiveLedger;
use crate::script::Scripts;
use crate::stats::Stats;
use crate::webhook::Webhook;

/// How many calls of `POST /messages` may run at the same time.
const MAX_CALLS: usize = 16_384;

pub(crate) type SharedApp = Arc<App>;

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) seed: u64,
    pub(crate) webhook: Webhook,
    pub(crate) graph: Graph,
    /// Events and repeats that are on their way to the webhook.
    pub(crate) pending_webhooks: AtomicU64,
    /// Cancelled when no new work may begin.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when running work must end at once.
    pub(crate) aborting: CancellationToken,
    pub(crate) tasks: TaskTracker,
    calls: Arc<Semaphore>,
    state: Mutex<State>,
}

/// What changes while the provider runs. It is locked for moments, never across an `await`.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) behaviour: Behaviour,
    pub(crate) ledger: LiveLedger,
    pub(crate) scripts: Scripts,
    pub(crate) stats: Stats,
    pub(crate) keyless_calls: u64,
    pub(crate) made_up_events: u64,
    pub(crate) graph: GraphState,
}

impl App {
    pub(crate) fn new(config: Config) -> Result<Self, StartError> {
        Ok(Self {
            seed: config.seed.unwrap_or_else(rand::random),
            webhook: Webhook::new(&config)?,
            graph: Graph::new(&config.whatsapp),
            pending_webhooks: AtomicU64::new(0),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            tasks: TaskTracker::new(),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            state: Mutex::new(State {
                behaviour: config.behaviour,
                ledger: LiveLedger::new(config.ledger_max_keys),
                scripts: Scripts::default(),
                stats: Stats::default(),
                keyless_calls: 0,
                made_up_events: 0,
                graph: GraphState::new(config.whatsapp),
            }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.state().stats.clone();
        stats.webhooks.pending = self.pending_webhooks.load(Ordering::Relaxed);
        stats
    }

    /// Empties ledger, scripts and counters, and starts the numbering for the seed again.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.ledger.clear();
        state.scripts = Scripts::default();
        state.stats = Stats::default();
        state.keyless_calls = 0;
        state.made_up_events = 0;
        state.graph.pairs = Pairs::default();
    }

    /// Reserves one of the calls that may run at the same time; `None` when there is none left.
    pub(crate) fn call_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).try_acquire_owned().ok()
    }

    /// Starts a task that only the end of the provider cuts short; its result is then `None`.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let aborting = self.aborting.clone();
        self.tasks
            .spawn(async move { aborting.run_until_cancelled_owned(task).await })
    }

    /// Waits for something, but only until the provider stops; then `None`.
    pub(crate) async fn unless_stopping<F: Future>(&self, wait: F) -> Option<F::Output> {
        self.stopping.run_until_cancelled(wait).await
    }
}
