//! What a running gateway is made of.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::database::CONNECT_TIMEOUT;
use crate::database::batch::Writer;
use crate::database::fault::{Outage, Unavailable};
use crate::database::plans::Plans;
use crate::database::pool::Pool;
use crate::database::target::Target;
use crate::delivery::{backlog::Parked, backoff::Backoff, settle::Settle};
use crate::error::{Error, Result};
use crate::http::operations::Readiness;
use crate::message::place::Places;
use crate::message::service::Accept;
use crate::message::store::Terms;
use crate::process::hidden::Hidden;
use crate::provider::client::Client;
use crate::webhook::service::Ingest;

/// Two, so that one commits while the other runs; for the others larger batches gain more than that.
const INGEST_WRITERS: u32 = 2;
const ACCEPT_WRITERS: u32 = 1;
const SETTLE_WRITERS: u32 = 1;
/// Of the others, those that are the worker's.
const CLAIMS: u32 = 1;
/// Connections of a pool, where the server has room for them.
const USUAL_POOL: u32 = 10;
/// By itself a process takes no more than this part of the connections that the server has for it: there may be others like it.
const SHARE: u32 = 3;

/// What a process is there for, and with it how many connections it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes in webhooks and messages, and sends.
    Serve,
    /// Sends.
    Worker,
    /// Does one thing and ends.
    Command,
}

impl Role {
    /// Connections that are its writers', from its start to its end.
    fn writers(self) -> u32 {
        match self {
            Self::Serve => INGEST_WRITERS + ACCEPT_WRITERS + SETTLE_WRITERS,
            Self::Worker | Self::Command => SETTLE_WRITERS,
        }
    }

    /// The fewest connections that it can work with.
    #[must_use]
    pub fn least_connections(self) -> u32 {
        self.writers() + 1
    }

    /// How many it takes of those that the server has room for.
    #[must_use]
    pub fn usual_connections(self, room: u32) -> u32 {
        let least = self.least_connections();
        match self {
            Self::Serve | Self::Worker => {
                (self.writers() + USUAL_POOL).min(room / SHARE).max(least)
            }
            Self::Command => least,
        }
    }
}

/// What a gateway is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What for.
    pub role: Role,
    /// The database.
    pub database: Hidden<Target>,
    /// How many connections to it this process may have, its writers' included.
    pub connections: u32,
    /// How it is to plan what is written.
    pub plans: Plans,
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
    /// Reads, and operators' actions.
    pub pool: Pool,
    /// The worker's claims, which wait for no reader: a connection of its own, but for a process that has no further one.
    pub claims: Pool,
    /// What `/ready` has seen last.
    pub readiness: Readiness,
    /// What `/metrics` has counted last.
    pub parked: Parked,
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
    /// One for each first attempt in flight, and for what waits to be accepted.
    pub places: Places,
    /// How long a send waits for its first attempt.
    pub send_wait: Duration,
    /// Work that must not be cut short; shutdown waits for it.
    pub tasks: TaskTracker,
    /// Wakes this process's worker: something is due.
    pub wake: Arc<Notify>,
}

impl App {
    /// Puts a gateway together; its writers begin to connect. One of the writing tasks that it adds to `engine` ends
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
        let database: &Target = &settings.database;
        let writing = (database, settings.plans);
        let others = settings.connections.saturating_sub(settings.role.writers());
        let pool = Pool::new(database.clone(), others.saturating_sub(CLAIMS).max(1));
        let claims = if others > CLAIMS {
            pool.one_more()
        } else {
            pool.clone()
        };
        let only_serving = |count| match settings.role {
            Role::Serve => count,
            Role::Worker | Role::Command => 0,
        };
        let (ingesting, accepting) = (only_serving(INGEST_WRITERS), only_serving(ACCEPT_WRITERS));
        Arc::new(Self {
            ingest: Writer::spawn(Ingest, writing, &pool, ingesting, engine),
            accept: Writer::spawn(accept, writing, &pool, accepting, engine),
            settle: Writer::spawn(settle, writing, &pool, SETTLE_WRITERS, engine),
            pool,
            claims,
            readiness: Readiness::default(),
            parked: Parked::default(),
            provider: settings.provider,
            backoff: settings.backoff,
            terms,
            places: Places::new(settings.send_concurrency),
            send_wait: settings.send_wait,
            tasks: TaskTracker::new(),
            wake,
        })
    }

    /// Connections of the pools that are open, and how many of those are idle.
    #[must_use]
    pub fn pool_sizes(&self) -> (usize, usize) {
        let (size, idle) = self.pool.sizes();
        if self.pool.is(&self.claims) {
            return (size, idle);
        }
        let (more, more_idle) = self.claims.sizes();
        (size + more, idle + more_idle)
    }

    /// Waits until the writers have their connections, or the database is one that nobody can write to as it is.
    pub async fn connected(&self) {
        tokio::join!(
            self.ingest.connected(),
            self.accept.connected(),
            self.settle.connected()
        );
    }

    /// Whether what must be written can be: asked of the writers themselves, within [`CONNECT_TIMEOUT`].
    pub async fn writable(&self) -> Result<(), Unavailable> {
        let proven = async {
            tokio::join!(
                self.ingest.proven(),
                self.accept.proven(),
                self.settle.proven()
            )
        };
        match timeout(CONNECT_TIMEOUT, proven).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.trouble().unwrap_or(Outage::NoAnswer.into())),
        }
    }

    /// What is in the way of writing, where that is known.
    #[must_use]
    pub fn trouble(&self) -> Option<Unavailable> {
        let trouble = self.ingest.trouble().or_else(|| self.accept.trouble());
        trouble.or_else(|| self.settle.trouble())
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
