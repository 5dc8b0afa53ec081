//! Assembles a running gateway from its parts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::database::CONNECT_TIMEOUT;
use crate::database::plans::Plans;
use crate::database::pool::Pool;
use crate::database::target::Target;
use crate::database::writer::Writer;
use crate::delivery::{
    DeliveryPolicy,
    attempt::Courier,
    backlog::Parked,
    backoff::{Ambiguity, Backoff},
    settle::Settle,
    worker::Worker,
};
use crate::error::fault::{Outage, Unavailable};
use crate::feed::{reader::Reader, subscribers::Feed};
use crate::message::enqueue::Enqueue;
use crate::message::outbox::Outbox;
use crate::message::permits::SendPermits;
use crate::operations::Readiness;
use crate::process::hidden::Hidden;
use crate::provider::providers::Providers;
use crate::receipt::receipts::Receipts;
use crate::session::sessions::Sessions;
use crate::tasks::Tasks;
use crate::webhook::ingest::Ingest;

/// Two, so that one commits while the other runs. Sends and outcomes gain more from larger batches.
const INGEST_WRITERS: u32 = 2;
const ENQUEUE_WRITERS: u32 = 1;
const SETTLE_WRITERS: u32 = 1;
/// Only where statuses come in.
const RECEIPT_WRITERS: u32 = 1;
/// The worker's connection for claims.
const CLAIMS: u32 = 1;
/// Connections of the pool, if the server has room for them.
const USUAL_POOL: u32 = 10;
/// By default a process takes at most a third of the connections that the server has for it: there
/// may be other processes.
const SHARE: u32 = 3;

/// What a process does, which decides how many connections it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Stores webhooks and messages, and sends.
    Serve,
    /// The same, and is told by WhatsApp how far messages have come.
    ServeWhatsapp,
    /// Sends.
    Worker,
    /// Does one thing, and ends.
    Command,
}

impl Role {
    /// The connections of the writers, which keep theirs for ever.
    fn writers(self) -> u32 {
        match self {
            Self::Serve => INGEST_WRITERS + ENQUEUE_WRITERS + SETTLE_WRITERS,
            Self::ServeWhatsapp => Self::Serve.writers() + RECEIPT_WRITERS,
            Self::Worker | Self::Command => SETTLE_WRITERS,
        }
    }

    /// Whether it serves the API.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Serve | Self::ServeWhatsapp)
    }

    #[must_use]
    pub fn least_connections(self) -> u32 {
        self.writers() + 1
    }

    /// How many connections it takes by default of `room`, those that the server has for it.
    #[must_use]
    pub fn usual_connections(self, room: u32) -> u32 {
        let least = self.least_connections();
        match self {
            Self::Serve | Self::ServeWhatsapp | Self::Worker => {
                (self.writers() + USUAL_POOL).min(room / SHARE).max(least)
            }
            Self::Command => least,
        }
    }
}

/// The values that a gateway is assembled from. Their fields are explained at the parts that use
/// them.
#[derive(Debug, Clone)]
pub struct Settings {
    pub role: Role,
    pub database: Hidden<Target>,
    /// Of this process, its writers' included.
    pub connections: u32,
    pub plans: Plans,
    pub providers: Providers,
    pub backoff: Backoff,
    /// What becomes of ambiguous failures where the provider knows no idempotency key.
    pub reconciling: Ambiguity,
    pub policy: DeliveryPolicy,
    pub send_wait: Duration,
    pub send_concurrency: usize,
}

/// A running gateway: the parts that handlers and workers share. Everything in it has a limit.
#[derive(Debug)]
pub struct App {
    /// For reads and operators' actions.
    pub pool: Pool,
    /// For the worker's claims, so that they never wait for a reader. A process without a further
    /// connection shares `pool`.
    pub claims: Pool,
    /// The last answer of `/ready`.
    pub readiness: Readiness,
    /// The last count of `/metrics`.
    pub parked: Parked,
    pub ingest: Writer<Ingest>,
    pub receipts: Writer<Receipts>,
    pub outbox: Arc<Outbox>,
    pub courier: Arc<Courier>,
    /// The browsers that have logged in.
    pub sessions: Arc<Sessions>,
    pub feed: Arc<Feed>,
    /// Wakes the feed: something was committed.
    pub changed: Arc<Notify>,
}

impl App {
    /// Assembles a gateway. Its writers are tasks in `parts` and start to connect: each ends when
    /// the `App` is dropped, or by a panic.
    pub fn new(settings: Settings, parts: &mut JoinSet<()>) -> Arc<Self> {
        let (wake, changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (role, policy) = (settings.role, settings.policy);
        let enqueue = Enqueue {
            policy,
            wake: Arc::clone(&wake),
        };
        let settle = Settle {
            ordered: policy.ordered,
            wake: Arc::clone(&wake),
        };
        let receipts = Receipts {
            app_secrets: settings
                .providers
                .whatsapp()
                .map(|account| account.app_secrets.clone())
                .unwrap_or_default(),
            ordered: policy.ordered,
            wake: Arc::clone(&wake),
        };
        let database: &Target = &settings.database;
        let writing = (database, settings.plans, &changed);
        let others = settings.connections.saturating_sub(role.writers());
        let pool = Pool::new(database.clone(), others.saturating_sub(CLAIMS).max(1));
        let claims = if others > CLAIMS {
            pool.one_more()
        } else {
            pool.clone()
        };
        let only = |condition: bool, count| if condition { count } else { 0 };
        let (serves, is_told) = (role.serves(), role == Role::ServeWhatsapp);
        let (ingesting, enqueuing) = (only(serves, INGEST_WRITERS), only(serves, ENQUEUE_WRITERS));
        let receiving = only(is_told, RECEIPT_WRITERS);
        let courier = Arc::new(Courier {
            providers: settings.providers,
            backoff: settings.backoff,
            reconciling: settings.reconciling,
            policy,
            settle: Writer::spawn(settle, writing, &pool, SETTLE_WRITERS, parts),
            tasks: Tasks::default(),
            wake,
        });
        let (feed, subscribers, joins) = Feed::new(pool.clone());
        if serves {
            let reader = Reader::new(pool.clone(), subscribers, joins, Arc::clone(&changed));
            parts.spawn(reader.run());
        }
        Arc::new(Self {
            ingest: Writer::spawn(Ingest, writing, &pool, ingesting, parts),
            receipts: Writer::spawn(receipts, writing, &pool, receiving, parts),
            outbox: Arc::new(Outbox {
                pool: pool.clone(),
                enqueue: Writer::spawn(enqueue, writing, &pool, enqueuing, parts),
                permits: SendPermits::new(settings.send_concurrency),
                send_wait: settings.send_wait,
                courier: Arc::clone(&courier),
            }),
            sessions: Sessions::new(pool.clone(), courier.tasks.clone()),
            courier,
            pool,
            claims,
            readiness: Readiness::default(),
            parked: Parked::default(),
            feed: Arc::new(feed),
            changed,
        })
    }

    /// A worker that makes at most `concurrency` attempts at once.
    #[must_use]
    pub fn worker(&self, concurrency: usize) -> Worker {
        Worker::new(Arc::clone(&self.courier), self.claims.clone(), concurrency)
    }

    /// How many connections of the pools are open, and how many of those are idle.
    #[must_use]
    pub fn pool_sizes(&self) -> (usize, usize) {
        let (size, idle) = self.pool.sizes();
        if self.pool.is(&self.claims) {
            return (size, idle);
        }
        let (more, more_idle) = self.claims.sizes();
        (size + more, idle + more_idle)
    }

    /// Waits until the writers have their connections, or know that they will get none.
    pub async fn connected(&self) {
        tokio::join!(
            self.ingest.connected(),
            self.receipts.connected(),
            self.outbox.enqueue.connected(),
            self.courier.settle.connected()
        );
    }

    /// Asks the writers whether they can write, within [`CONNECT_TIMEOUT`].
    pub async fn writable(&self) -> Result<(), Unavailable> {
        let proven = async {
            tokio::join!(
                self.ingest.proven(),
                self.receipts.proven(),
                self.outbox.enqueue.proven(),
                self.courier.settle.proven()
            )
        };
        match timeout(CONNECT_TIMEOUT, proven).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.trouble().unwrap_or(Outage::NoAnswer.into())),
        }
    }

    /// Why the writers cannot write, if that is known.
    #[must_use]
    pub fn trouble(&self) -> Option<Unavailable> {
        let trouble = self.ingest.trouble().or_else(|| self.receipts.trouble());
        let trouble = trouble.or_else(|| self.outbox.enqueue.trouble());
        trouble.or_else(|| self.courier.settle.trouble())
    }
}
