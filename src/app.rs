//! What a running gateway is made of.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::database::CONNECT_TIMEOUT;
use crate::database::batch::Writer;
use crate::database::plans::Plans;
use crate::database::pool::Pool;
use crate::database::target::Target;
use crate::delivery::{
    DeliveryPolicy, attempt::Courier, backlog::Parked, backoff::Backoff, settle::Settle,
    worker::Worker,
};
use crate::error::fault::{Outage, Unavailable};
use crate::message::enqueue::Enqueue;
use crate::message::outbox::Outbox;
use crate::message::permits::SendPermits;
use crate::operations::Readiness;
use crate::process::hidden::Hidden;
use crate::provider::client::Client;
use crate::tasks::Tasks;
use crate::webhook::ingest::Ingest;

/// Two, so that one commits while the other runs; for the others larger batches gain more than that.
const INGEST_WRITERS: u32 = 2;
const ENQUEUE_WRITERS: u32 = 1;
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
            Self::Serve => INGEST_WRITERS + ENQUEUE_WRITERS + SETTLE_WRITERS,
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
    /// How messages are delivered.
    pub policy: DeliveryPolicy,
}

/// A running gateway: what its handlers and workers share. Everything in it has a limit.
#[derive(Debug)]
pub struct App {
    /// Reads.
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
    pub outbox: Arc<Outbox>,
    /// Makes the attempts at them.
    pub courier: Arc<Courier>,
}

impl App {
    /// Puts a gateway together; its writers begin to connect. One of the writing tasks that it adds to `parts` ends
    /// only when the `App` is dropped, or by a panic.
    pub fn new(settings: Settings, parts: &mut JoinSet<()>) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let policy = settings.policy;
        let enqueue = Enqueue {
            policy,
            wake: Arc::clone(&wake),
        };
        let settle = Settle {
            ordered: policy.ordered,
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
        let (ingesting, enqueuing) = (only_serving(INGEST_WRITERS), only_serving(ENQUEUE_WRITERS));
        let courier = Arc::new(Courier {
            provider: settings.provider,
            backoff: settings.backoff,
            policy,
            settle: Writer::spawn(settle, writing, &pool, SETTLE_WRITERS, parts),
            tasks: Tasks::default(),
            wake,
        });
        Arc::new(Self {
            ingest: Writer::spawn(Ingest, writing, &pool, ingesting, parts),
            outbox: Arc::new(Outbox {
                pool: pool.clone(),
                enqueue: Writer::spawn(enqueue, writing, &pool, enqueuing, parts),
                permits: SendPermits::new(settings.send_concurrency),
                send_wait: settings.send_wait,
                courier: Arc::clone(&courier),
            }),
            courier,
            pool,
            claims,
            readiness: Readiness::default(),
            parked: Parked::default(),
        })
    }

    /// A worker that makes at most `concurrency` attempts at once.
    #[must_use]
    pub fn worker(&self, concurrency: usize) -> Worker {
        Worker::new(Arc::clone(&self.courier), self.claims.clone(), concurrency)
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
            self.outbox.enqueue.connected(),
            self.courier.settle.connected()
        );
    }

    /// Whether what must be written can be: asked of the writers themselves, within [`CONNECT_TIMEOUT`].
    pub async fn writable(&self) -> Result<(), Unavailable> {
        let proven = async {
            tokio::join!(
                self.ingest.proven(),
                self.outbox.enqueue.proven(),
                self.courier.settle.proven()
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
        let trouble = self
            .ingest
            .trouble()
            .or_else(|| self.outbox.enqueue.trouble());
        trouble.or_else(|| self.courier.settle.trouble())
    }
}
