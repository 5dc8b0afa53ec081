//! What a running gateway is made of.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::database::{self, batch::Writer};
use crate::delivery::{backoff::Backoff, settle::Settle};
use crate::error::{Error, Result};
use crate::message::service::Accept;
use crate::message::store::Terms;
use crate::provider::client::Client;
use crate::webhook::service::Ingest;

/// Two, so that one commits while the other runs; for the others larger batches gain more than that.
const INGEST_WRITERS: usize = 2;
const ACCEPT_WRITERS: usize = 1;
const SETTLE_WRITERS: usize = 1;

/// What a gateway is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The database.
    pub database: PgConnectOptions,
    /// The provider.
    pub provider: Client,
    /// When to try again.
    pub backoff: Backoff,
    /// How long a send waits for its first attempt.
    pub send_wait: Duration,
    /// First attempts in flight at once.
    pub send_concurrency: usize,
    /// How accepted messages are delivered.
    pub terms: Terms,
}

/// A running gateway, shared by its handlers and workers. Everything in it has a limit.
#[derive(Debug)]
pub struct App {
    /// Reads, operators' actions and claims.
    pub pool: PgPool,
    /// Takes webhooks in.
    pub ingest: Writer<Ingest>,
    /// Takes outbound messages in.
    pub accept: Writer<Accept>,
    /// Writes down how attempts ended.
    pub settle: Writer<Settle>,
    /// The provider.
    pub provider: Client,
    /// When to try again.
    pub backoff: Backoff,
    /// How accepted messages are delivered.
    pub terms: Terms,
    /// One for each first attempt in flight.
    pub send_permits: Arc<Semaphore>,
    /// How long a send waits for its first attempt.
    pub send_wait: Duration,
    /// Work that must not be cut short; shutdown waits for it.
    pub tasks: TaskTracker,
    /// Wakes this process's worker: something is due.
    pub wake: Arc<Notify>,
}

impl App {
    /// Puts a gateway together; it connects when it first needs to. One of the writing tasks that it adds to `engine` ends
    /// only when the `App` is dropped, or by a panic.
    pub fn new(settings: Settings, engine: &mut JoinSet<()>) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let terms = settings.terms;
        let accept = Accept {
            terms,
            wake: Arc::clone(&wake),
        };
        let settle = Settle {
            ordered: terms.ordered,
            wake: Arc::clone(&wake),
        };
        let database = &settings.database;
        Arc::new(Self {
            pool: database::pool(database.clone()),
            ingest: Writer::spawn(Ingest, database, INGEST_WRITERS, engine),
            accept: Writer::spawn(accept, database, ACCEPT_WRITERS, engine),
            settle: Writer::spawn(settle, database, SETTLE_WRITERS, engine),
            provider: settings.provider,
            backoff: settings.backoff,
            terms,
            send_permits: Arc::new(Semaphore::new(settings.send_concurrency)),
            send_wait: settings.send_wait,
            tasks: TaskTracker::new(),
            wake,
        })
    }

    /// Runs work to its end, also when whoever waits for it goes away.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.run_detached(work)
            .await
            .map_err(|_| Error::Interrupted)
    }

    /// Begins work that goes on by itself, in the span of whoever began it.
    pub fn run_detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn(work.in_current_span())
    }
}
