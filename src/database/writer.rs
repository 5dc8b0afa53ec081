//! Group commit: concurrent requests share one statement, and each gets its own answer.
//!
//! A batch is whatever queued while the previous one was committing, so one caller alone waits for
//! nobody.

use std::fmt;
use std::sync::{self, Arc, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use sqlx::PgConnection;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::batch::{Batch, WriteError};
use super::connect::{self, Limits, limited, read_only};
use super::limits::{LOCK_TIMEOUT, STATEMENT_TIMEOUT, bounded, timed_out};
use super::plans::Plans;
use super::pool::Pool;
use super::queue::{Entrance, MAX_BATCH, Queue, queue};
use super::search::{Entry, FIRST_PAUSE, Search, measure, reply, still_patient};
use super::target::Target;
use super::{pooler, store};
use crate::error::fault::{Fault, Outage, Unavailable, fault};
use crate::error::{Causes, Error, Result};
use crate::log_throttle::LogThrottle;

/// How long the halves of a batch wait for a locked row. Short, so that the whole search stays well
/// under a second.
const SEARCH_LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// How often an idle writer checks its connection, and how often one without a connection tries for
/// one.
const CHECK_EVERY: Duration = Duration::from_secs(5);
const CONNECT_EVERY: Duration = Duration::from_secs(1);
/// How old the last proof that a writer can write may be.
const FRESH: Duration = Duration::from_secs(1);

/// The state of a writer's connections.
#[derive(Debug, Default)]
struct Connections {
    /// How many of its tasks have a writable connection.
    connected: u32,
    /// When a task last wrote something, or saw that it could.
    proven_at: Option<Instant>,
    /// What has been in the way since then.
    trouble: Option<Unavailable>,
}

/// When the oldest item that a task has taken, but not answered, was handed in.
#[derive(Debug, Default)]
struct OldestItem(sync::Mutex<Option<Instant>>);

impl OldestItem {
    fn queued(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, oldest: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }
}

/// The queue in front of the tasks that write batches.
pub struct Writer<B: Batch> {
    entrance: Entrance<Entry<B>>,
    count: u32,
    /// One for each task.
    oldest_items: Vec<Arc<OldestItem>>,
    /// Asks the tasks to check their connections.
    ask: watch::Sender<()>,
    connections: Arc<watch::Sender<Connections>>,
}

impl<B: Batch> fmt::Debug for Writer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({})", B::NAME)
    }
}

impl<B: Batch> Writer<B> {
    /// Starts `count` writing tasks. Each makes its own connection at once and keeps it; when the
    /// server has no more, it takes one from the pool. When the `Writer` is dropped, they write
    /// what is queued and end.
    pub fn spawn(
        batch: B,
        (target, plans, changed): (&Target, Plans, &Arc<Notify>),
        pool: &Pool,
        count: u32,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (entrance, queue) = queue();
        let queue = Arc::new(queue);
        let batch = Arc::new(batch);
        let ask = watch::Sender::new(());
        let connections = Arc::new(watch::Sender::new(Connections::default()));
        let oldest_items: Vec<Arc<OldestItem>> = (0..count).map(|_| Arc::default()).collect();
        for item in &oldest_items {
            let task = Task {
                batch: Arc::clone(&batch),
                target: limited(target.clone()),
                plans,
                pool: pool.clone(),
                connection: None,
                oldest_item: Arc::clone(item),
                asked: ask.subscribe(),
                connections: Arc::clone(&connections),
                changed: Arc::clone(changed),
                losing: LogThrottle::default(),
                failing: LogThrottle::default(),
            };
            tasks.spawn(task.run(Arc::clone(&queue)));
        }
        Self {
            entrance,
            count,
            oldest_items,
            ask,
            connections,
        }
    }

    /// Waits until each task has its connection, or until it is certain that the database cannot be
    /// written to as it is.
    pub async fn connected(&self) {
        let settled = |state: &Connections| {
            let is_final = |trouble: &Unavailable| {
                matches!(
                    trouble.outage,
                    Outage::ReadOnly | Outage::Unfit | Outage::Pooler
                )
            };
            state.connected == self.count || state.trouble.as_ref().is_some_and(is_final)
        };
        // The sender lives as long as this does.
        self.connections.subscribe().wait_for(settled).await.ok();
    }

    /// Waits until a task has written, or has seen that it can: now, or a moment ago.
    pub async fn proven(&self) {
        if self.count == 0 {
            return;
        }
        let since = Instant::now().checked_sub(FRESH);
        let mut state = self.connections.subscribe();
        let is_fresh = |state: &Connections| state.proven_at.is_some_and(|at| Some(at) > since);
        if !is_fresh(&state.borrow()) {
            self.ask.send_replace(());
        }
        state.wait_for(is_fresh).await.ok();
    }

    /// Reports the age of the oldest item that is being written, also while a statement hangs.
    pub fn measure_age(&self) {
        if self.count == 0 {
            return;
        }
        let oldest = self
            .oldest_items
            .iter()
            .filter_map(|item| item.queued())
            .min();
        let age = oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed());
        gauge!("gateway_batch_oldest_seconds", "writer" => B::NAME).set(age);
    }

    /// What is in the way of writing, if that is known.
    #[must_use]
    pub fn trouble(&self) -> Option<Unavailable> {
        self.connections.borrow().trouble.clone()
    }

    /// Hands in one item, and waits until it is committed.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full; `Unavailable` when the database was away for the whole
    /// of the batch's `RETRY_FOR`; `Locked` or `Refused` when the item's own row is at fault. After
    /// `Unavailable` it is not known whether the item was written.
    pub async fn submit(&self, item: B::Item) -> Result<B::Answer> {
        let (answer, answered) = oneshot::channel();
        let entry = Entry {
            item,
            answer,
            queued: Instant::now(),
        };
        let Some(retry_for) = B::RETRY_FOR else {
            // The callers are the limit: each holds a permit, and waits for room in the queue.
            self.entrance
                .send(entry)
                .await
                .map_err(|_| Error::Interrupted)?;
            return answered.await.map_err(|_| Error::Interrupted)?;
        };
        self.entrance.try_send(entry).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded::<B>(),
            mpsc::error::TrySendError::Closed(_) => Error::Interrupted,
        })?;
        // The batch in front may take as long.
        match timeout(retry_for * 2, answered).await {
            Ok(answer) => answer.map_err(|_| Error::Interrupted)?,
            Err(_) => Err(self.trouble().unwrap_or(Outage::NoAnswer.into()).into()),
        }
    }
}

struct Task<B: Batch> {
    batch: Arc<B>,
    target: Target,
    plans: Plans,
    pool: Pool,
    connection: Option<PgConnection>,
    oldest_item: Arc<OldestItem>,
    asked: watch::Receiver<()>,
    connections: Arc<watch::Sender<Connections>>,
    /// Raised after each commit.
    changed: Arc<Notify>,
    /// For a connection that cannot be made, and for a batch that cannot be written.
    losing: LogThrottle,
    failing: LogThrottle,
}

impl<B: Batch> Task<B> {
    async fn run(mut self, queue: Arc<Queue<Entry<B>>>) {
        self.check().await;
        let mut entries = Vec::with_capacity(MAX_BATCH);
        loop {
            let pause = if self.connection.is_some() {
                CHECK_EVERY
            } else {
                CONNECT_EVERY
            };
            let left = tokio::select! {
                biased;
                left = queue.take(&mut entries) => left,
                Ok(()) = self.asked.changed() => {
                    self.check().await;
                    continue;
                }
                () = tokio::time::sleep(pause) => {
                    self.check().await;
                    continue;
                }
            };
            let Some(left) = left else { return };
            // Skip callers that are gone: they were never told "stored", so nothing acknowledged is
            // lost.
            entries.retain(|entry: &Entry<B>| !entry.answer.is_closed());
            measure::<B>(&entries, left);
            self.commit(std::mem::take(&mut entries)).await;
            queue.landed();
        }
    }

    /// Checks the connection, so that it is there when there is something to write, and nobody else
    /// takes its place on the server.
    async fn check(&mut self) {
        let checked = match &mut self.connection {
            Some(connection) => check_idle(connection, &self.target).await,
            None => self.connect().await,
        };
        let trouble = match checked {
            Ok(()) => {
                self.prove();
                return;
            }
            Err(error) => {
                pooler::note(&error);
                Unavailable::from(&error)
            }
        };
        let cause = Causes(&trouble).to_string();
        if let Some(passed_over) = self.losing.admit(&cause) {
            tracing::warn!(
                writer = B::NAME,
                error = cause,
                passed_over,
                "writer has no writable connection, retrying"
            );
        }
        self.lose(trouble);
    }

    /// Connects to a server that can be written to.
    async fn connect(&mut self) -> sqlx::Result<()> {
        let plans = self.plans.of(B::WORK);
        let connected = connect::connect(&self.target, Limits::Ours, plans).await;
        let (connection, session) = match connected {
            Err(error) if fault(&error) == Fault::Away(Outage::Full) => {
                let Ok(mut connection) = self.pool.part_with_one().await else {
                    return Err(error);
                };
                let session = connect::set_up_again(&mut connection, Limits::Ours, plans);
                let session = timeout(STATEMENT_TIMEOUT, session).await;
                let session = session.unwrap_or_else(|_| Err(timed_out()))?;
                (connection, session)
            }
            connected => connected?,
        };
        self.target.note_risk(&session.at_risk);
        self.connection = Some(connection);
        self.connections.send_modify(|state| state.connected += 1);
        // Also while no batch can be written: a full disk refuses new rows, but not changes.
        self.prove();
        Ok(())
    }

    fn prove(&self) {
        self.connections.send_modify(|state| {
            state.proven_at = Some(Instant::now());
            state.trouble = None;
        });
    }

    fn lose(&mut self, trouble: Unavailable) {
        let lost = u32::from(self.connection.take().is_some());
        self.connections.send_modify(|state| {
            state.connected -= lost;
            state.trouble = Some(trouble);
        });
    }

    /// Writes the entries and answers each, whatever happens.
    async fn commit(&mut self, entries: Vec<Entry<B>>) {
        let mut search = Search::new(entries);
        while let Some(part) = search.parts.pop_front() {
            let Some(first) = part.first() else {
                continue;
            };
            let others = search.parts.iter().filter_map(|part| part.first());
            let oldest = others.fold(first.queued, |oldest, entry| oldest.min(entry.queued));
            self.oldest_item.set(Some(oldest));
            match self.write(&part).await {
                Ok(answers) => {
                    self.changed.notify_one();
                    self.prove();
                    for (entry, answer) in part.into_iter().zip(answers) {
                        reply(entry, Ok(answer));
                    }
                }
                Err(error) => self.handle_failure(error, part, &mut search).await,
            }
        }
        self.oldest_item.set(None);
        if search.has_short_locks {
            self.set_lock_timeout(LOCK_TIMEOUT).await;
        }
    }

    /// Halves a part to find a bad or locked row. Repeats it while the database is away.
    async fn handle_failure(
        &mut self,
        error: WriteError,
        part: Vec<Entry<B>>,
        search: &mut Search<B>,
    ) {
        if let WriteError::Database(error) = &error {
            pooler::note(error);
        }
        match error.fault() {
            fault @ (Fault::Row | Fault::Locked) if part.len() > 1 => {
                if fault == Fault::Locked && !search.has_short_locks {
                    search.has_short_locks = true;
                    self.set_lock_timeout(SEARCH_LOCK_TIMEOUT).await;
                }
                search.halve(part);
            }
            Fault::Row | Fault::Locked => {
                tracing::warn!(writer = B::NAME, %error, "a row could not be written");
                for entry in part {
                    reply(entry, Err(error.refusal()));
                }
            }
            Fault::LostRace => {
                // The repetition finds the row that won. If it loses again, the cause is another
                // one.
                if std::mem::replace(&mut search.has_lost, true) {
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                search
                    .parts
                    .push_front(still_patient(part, B::RETRY_FOR, &error));
            }
            Fault::Unexpected if part.len() > 1 => {
                self.note_failure(&part, &error);
                search.halve(part);
            }
            Fault::Unexpected => {
                self.note_failure(&part, &error);
                // Not for ever: the error may be the item's own, and others wait behind it.
                let retry_for = B::RETRY_FOR.unwrap_or_default();
                let part = still_patient(part, Some(retry_for), &error);
                search.pause(&part).await;
                search.parts.push_back(part);
            }
            Fault::Away(_) => {
                self.note_failure(&part, &error);
                let part = still_patient(part, B::RETRY_FOR, &error);
                search.pause(&part).await;
                search.parts.push_front(part);
            }
        }
    }

    /// Closes the connection after an error that a new one may mend.
    fn note_failure(&mut self, part: &[Entry<B>], error: &WriteError) {
        let cause = error.to_string();
        if let Some(passed_over) = self.failing.admit(&cause) {
            tracing::warn!(
                writer = B::NAME,
                entries = part.len(),
                error = cause,
                passed_over,
                "batch write failed, retrying"
            );
        }
        counter!("gateway_batch_failures_total", "writer" => B::NAME).increment(1);
        self.lose(error.unavailable());
    }

    /// One try, with a limit on this side too: a database that is stopped does not enforce its own.
    async fn write(&mut self, entries: &[Entry<B>]) -> Result<Vec<B::Answer>, WriteError> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        let connection = self.connection.as_mut().ok_or_else(timed_out)?;
        let items: Vec<&B::Item> = entries.iter().map(|entry| &entry.item).collect();
        let written = timeout(STATEMENT_TIMEOUT, self.batch.write(connection, &items)).await;
        written.unwrap_or_else(|_| Err(timed_out().into()))
    }

    async fn set_lock_timeout(&mut self, wait: Duration) {
        if let Some(connection) = &mut self.connection
            && let Err(error) = bounded(async {
                let set = store::set_lock_timeout(connection, wait).await;
                set.inspect_err(pooler::note)
            })
            .await
        {
            tracing::warn!(writer = B::NAME, error = %Causes(&error), "could not set the lock timeout, closing the connection");
            self.lose(Outage::NoAnswer.into());
        }
    }
}
/// Checks a connection that has been idle.
async fn check_idle(connection: &mut PgConnection, target: &Target) -> sqlx::Result<()> {
    let look = timeout(STATEMENT_TIMEOUT, store::session_state(connection)).await;
    let look = look.unwrap_or_else(|_| Err(timed_out()))?;
    target.note_risk(&look.at_risk);
    // A new connection may lead to a server that can be written to.
    if look.writable {
        Ok(())
    } else {
        Err(read_only())
    }
}

/// The error for an item that found the queue full, which is counted.
#[must_use]
pub fn overloaded<B: Batch>() -> Error {
    counter!("gateway_queue_full_total", "writer" => B::NAME).increment(1);
    Error::Overloaded(B::NAME)
}
