//! Who listens, and how one begins to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use metrics::gauge;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::event::{Chosen, Part};
use super::queue::Queue;
use super::token::{Epoch, Position};
use super::{Filter, Reason};
use crate::database::pool::Pool;
use crate::error::{Error, Result};

/// How many wait at most to be let in.
const MOST_JOINS: usize = 1024;
/// How many at once read what they have missed. The other connections are for the API.
const CATCHING_UP: usize = 2;

/// The feed of a process.
#[derive(Debug)]
pub struct Feed {
    pub pool: Pool,
    /// Whoever reads what it has missed holds one of these permits.
    pub catching_up: Semaphore,
    joins: mpsc::Sender<Join>,
}

/// Somebody who wants to listen.
#[derive(Debug)]
pub struct Join {
    pub filter: Filter,
    pub answer: oneshot::Sender<Result<Joined>>,
}

/// How somebody listens: from this position on, all is in the queue.
#[derive(Debug)]
pub struct Joined {
    pub subscription: Subscription,
    pub epoch: Epoch,
    pub position: Position,
    /// The position as the line of an event.
    pub id: Bytes,
    /// The database's time.
    pub now: DateTime<Utc>,
}

impl Feed {
    /// A feed, and what its reader needs.
    #[must_use]
    pub fn new(pool: Pool) -> (Self, Arc<Subscribers>, mpsc::Receiver<Join>) {
        let (joins, joining) = mpsc::channel(MOST_JOINS);
        let subscribers = Arc::<Subscribers>::default();
        let feed = Self {
            pool,
            catching_up: Semaphore::new(CATCHING_UP),
            joins,
        };
        (feed, subscribers, joining)
    }

    /// Begins to listen, once the reader has looked at the database.
    ///
    /// # Errors
    /// `Unavailable` when the database is away; `Overloaded` when too many ask at once.
    pub async fn join(&self, filter: Filter) -> Result<Joined> {
        let (answer, answered) = oneshot::channel();
        let join = Join { filter, answer };
        self.joins
            .try_send(join)
            .map_err(|_| Error::Overloaded("feed"))?;
        answered.await.map_err(|_| Error::Interrupted)?
    }
}

/// The queues of all who listen.
#[derive(Debug, Default)]
pub struct Subscribers(Mutex<Queues>);

#[derive(Debug, Default)]
struct Queues {
    last_id: u64,
    queues: HashMap<u64, Arc<Queue>>,
}

/// A queue that is fed until this is dropped.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    pub queue: Arc<Queue>,
    subscribers: Arc<Subscribers>,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody listens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().queues.is_empty()
    }

    /// Adds one whose queue is fed from this position on.
    #[must_use]
    pub fn add(self: &Arc<Self>, filter: Filter, id: &Bytes) -> Subscription {
        let queue = Arc::new(Queue::new(filter, id.clone()));
        let mut queues = self.lock();
        queues.last_id += 1;
        let id = queues.last_id;
        queues.queues.insert(id, Arc::clone(&queue));
        gauge!("gateway_feed_streams").increment(1);
        Subscription {
            id,
            queue,
            subscribers: Arc::clone(self),
        }
    }

    /// Hands events to all whom they concern; how many bytes these are for all together.
    pub fn push(&self, part: &Part) -> usize {
        let mut chosen: HashMap<Filter, Chosen> = HashMap::new();
        let mut bytes = 0;
        for queue in self.lock().queues.values() {
            let of_filter = chosen.entry(queue.filter);
            let of_filter = of_filter.or_insert_with(|| part.choose(&queue.filter));
            bytes += queue.push(of_filter.clone());
        }
        bytes
    }

    /// Tells all that they have been told everything up to this position.
    pub fn end(&self, id: &Bytes) {
        for queue in self.lock().queues.values() {
            queue.end(id);
        }
    }

    /// Has all of them fetch again what they show.
    pub fn reset(&self, reason: Reason, id: &Bytes) {
        for queue in self.lock().queues.values() {
            queue.reset(reason, id);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.lock().queues.remove(&self.id);
        gauge!("gateway_feed_streams").decrement(1);
    }
}
