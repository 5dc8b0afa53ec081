//! The running provider: it starts on a bound listener, and every one of its tasks ends with it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Behaviour, Config, ConfigError};
use crate::edge::AllowedHosts;
use crate::fault::Fault;
use crate::ledger::{Book, Ledger, LedgerMessage};
use crate::message::Channel;
use crate::script::{Script, Scripts};
use crate::stats::Stats;
use crate::webhook::Webhook;
use crate::{http, serve};

const MAX_CALLS: usize = 16_384;
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A running provider. Dropping it ends its tasks at once; [`stop`](Mock::stop) lets running calls finish.
#[derive(Debug)]
pub struct Mock {
    app: SharedApp,
    address: SocketAddr,
}

impl Mock {
    /// Starts on a listener that is already bound; must be called within a Tokio runtime.
    pub fn start(config: Config, listener: TcpListener) -> Result<Self, StartError> {
        config.validate()?;
        let address = listener.local_addr()?;
        let hosts = AllowedHosts::new(address.ip(), &config.allowed_hosts, &config.public_origins);
        let app = Arc::new(App::new(config)?);
        let router = http::router(app.clone(), hosts);
        drop(app.spawn(serve::accept(app.clone(), listener, router)));
        Ok(Self { app, address })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without a slash at the end: what `PROVIDER_URL` is to be.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The seed of its choices, also where none was given.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.app.seed
    }

    /// Sets the answers to a participant's coming calls (`None`: of anyone without a script of their own),
    /// in the place of what is left of their earlier script; none at all ends it.
    pub fn script<'a>(
        &self,
        to: impl Into<Option<&'a str>>,
        answers: impl IntoIterator<Item = Fault>,
    ) {
        let to = to.into().map(str::to_owned);
        self.play(Script {
            to,
            answers: answers.into_iter().collect(),
            repeat: false,
        });
    }

    /// Sets one answer to all of a participant's coming calls, or of anyone's.
    pub fn script_always<'a>(&self, to: impl Into<Option<&'a str>>, answer: Fault) {
        let to = to.into().map(str::to_owned);
        self.play(Script {
            to,
            answers: VecDeque::from([answer]),
            repeat: true,
        });
    }

    /// Sets a script.
    pub fn play(&self, script: Script) {
        if let Err(refused) = self.app.state().scripts.set(script) {
            tracing::warn!(?refused, "too many scripts: this one is not played");
        }
    }

    /// How it behaves now.
    #[must_use]
    pub fn behaviour(&self) -> Behaviour {
        self.app.state().behaviour.clone()
    }

    /// Changes how it behaves from now on; a value out of bounds changes nothing.
    pub fn set_behaviour(&self, behaviour: Behaviour) -> Result<(), ConfigError> {
        behaviour.validate()?;
        self.app.state().behaviour = behaviour;
        Ok(())
    }

    /// A copy of the whole ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.app.state().ledger.snapshot("")
    }

    /// Finds what is known of an idempotency key, without copying the whole ledger.
    #[must_use]
    pub fn message(&self, idempotency_key: &str) -> Option<LedgerMessage> {
        self.app.state().ledger.message(idempotency_key)
    }

    /// Lists the texts delivered to a participant, in order, without copying the whole ledger.
    #[must_use]
    pub fn texts(&self, channel: Channel, participant_id: &str) -> Vec<String> {
        self.app.state().ledger.texts(channel, participant_id)
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.app.stats()
    }

    /// Empties ledger, scripts and counters; the behaviour stays.
    pub fn reset(&self) {
        self.app.reset();
    }

    /// Stops: no new calls, no more webhook posts; calls that are running get some seconds to end.
    pub async fn stop(&self) {
        self.app.stopping.cancel();
        self.app.tasks.close();
        if tokio::time::timeout(STOP_GRACE, self.app.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.app.tasks.len(),
                "calls are cut off by the stop"
            );
        }
        self.app.aborting.cancel();
        self.app.tasks.wait().await;
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.app.stopping.cancel();
        self.app.aborting.cancel();
    }
}

/// Why a provider did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is out of bounds.
    #[error("invalid configuration")]
    Config(#[from] ConfigError),
    /// The listener has no address.
    #[error("cannot use the listener")]
    Listener(#[from] io::Error),
    /// There is no client to post webhooks with.
    #[error("cannot build the webhook client")]
    Client(#[from] reqwest::Error),
    /// The secret cannot be a key.
    #[error("cannot sign with the webhook secret")]
    Secret(#[from] hmac::digest::InvalidLength),
}

/// The application as tasks and handlers share it.
pub(crate) type SharedApp = Arc<App>;

/// What a running provider is made of.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) seed: u64,
    pub(crate) webhook: Webhook,
    /// Set when no new work is to begin.
    pub(crate) stopping: CancellationToken,
    /// Events and repeats that are on their way to the webhook.
    pub(crate) pending_webhooks: AtomicU64,
    aborting: CancellationToken,
    tasks: TaskTracker,
    calls: Arc<Semaphore>,
    state: Mutex<State>,
}

/// What changes while the provider runs; locked for moments only, never across an `await`.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) behaviour: Behaviour,
    pub(crate) ledger: Book,
    pub(crate) scripts: Scripts,
    pub(crate) stats: Stats,
    pub(crate) keyless_calls: u64,
    pub(crate) made_up_events: u64,
}

impl App {
    fn new(config: Config) -> Result<Self, StartError> {
        Ok(Self {
            seed: config.seed.unwrap_or_else(rand::random),
            webhook: Webhook::new(&config)?,
            stopping: CancellationToken::new(),
            pending_webhooks: AtomicU64::new(0),
            aborting: CancellationToken::new(),
            tasks: TaskTracker::new(),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            state: Mutex::new(State {
                behaviour: config.behaviour,
                ledger: Book::new(config.ledger_max_keys),
                scripts: Scripts::default(),
                stats: Stats::default(),
                keyless_calls: 0,
                made_up_events: 0,
            }),
        })
    }

    /// Locks what changes.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies the counters.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.state().stats.clone();
        stats.webhooks.pending = self.pending_webhooks.load(Ordering::Relaxed);
        stats
    }

    /// Empties ledger, scripts and counters, and begins the numbers of the seed anew.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.ledger.clear();
        state.scripts = Scripts::default();
        state.stats = Stats::default();
        state.keyless_calls = 0;
        state.made_up_events = 0;
    }

    /// Takes a place among the calls that run at the same time; `None` when there is none.
    pub(crate) fn call_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).try_acquire_owned().ok()
    }

    /// Runs a task that nothing but the end of the provider cuts short; `None` when that happens.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let aborting = self.aborting.clone();
        self.tasks
            .spawn(async move { aborting.run_until_cancelled_owned(task).await })
    }

    /// Waits for something, but not longer than until the provider stops; `None` then.
    pub(crate) async fn unless_stopping<F: Future>(&self, wait: F) -> Option<F::Output> {
        self.stopping.run_until_cancelled(wait).await
    }
}
