//! Group commit: concurrent requests share one statement, and each gets an answer of its own.
//!
//! There is no timer. A batch is whatever queued while the previous one was committing; one caller alone waits for nobody.
//! A statement that is sent again after a lost answer must find its own rows, and answer as it did the first time.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{
    CONNECT_TIMEOUT, Fault, LOCK_TIMEOUT, STATEMENT_TIMEOUT, bounded, fault, limited, store,
};
use crate::error::{Error, Result};

/// The most items of one statement.
pub const MAX_BATCH: usize = 64;
/// The most items that wait for a writer.
const MAX_QUEUED: usize = 1024;
/// How long the halves of a batch that met a locked row wait for it: the whole search stays well under a second.
const SEARCH_LOCK_TIMEOUT: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Planning such a statement costs more than running it, so a writer's connection plans each once. A plan made while the
/// tables were small must not read them whole when they are large: it may only walk indexes.
const PLANS: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// A statement that writes many items at once.
pub trait Batch: Send + Sync + 'static {
    /// What one caller hands in.
    type Item: Send + Sync + 'static;
    /// What that caller gets.
    type Answer: Send + 'static;
    /// The writer's name in logs and metrics.
    const NAME: &'static str;
    /// How long an item is repeated while the database is away; none: until it is written.
    const PATIENCE: Option<Duration>;
    /// Whether the statement joins nothing but its own input, so that a join by hash cannot read a table whole.
    const JOINS_INPUT_ONLY: bool = false;

    /// Writes all items, or none, and answers each, in their order. Repeating it changes nothing.
    fn write(
        &self,
        connection: &mut PgConnection,
        items: &[&Self::Item],
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Answer>>> + Send;
}

struct Entry<B: Batch> {
    item: B::Item,
    answer: oneshot::Sender<Result<B::Answer>>,
    queued: Instant,
}

/// The queue in front of the tasks that write batches.
pub struct Writer<B: Batch> {
    queue: mpsc::Sender<Entry<B>>,
}

impl<B: Batch> std::fmt::Debug for Writer<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", B::NAME)
    }
}

impl<B: Batch> Writer<B> {
    /// Starts `count` writing tasks, each with a connection of its own. They end, once everything queued is written,
    /// when the `Writer` is dropped.
    pub fn spawn(
        batch: B,
        options: &PgConnectOptions,
        count: usize,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(MAX_QUEUED);
        let receiver = Arc::new(Mutex::new(receiver));
        let batch = Arc::new(batch);
        for _ in 0..count {
            let task = Task {
                batch: Arc::clone(&batch),
                options: planned::<B>(limited(options.clone())),
                connection: None,
            };
            tasks.spawn(task.run(Arc::clone(&receiver)));
        }
        Self { queue }
    }

    /// Hands in one item, and waits until it is committed.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full; `Unavailable` when the database was away for the whole of the batch's patience;
    /// `Locked`, `Refused` where the item's own row is at fault. After `Unavailable` it is not known whether the item was written.
    pub async fn submit(&self, item: B::Item) -> Result<B::Answer> {
        let (answer, answered) = oneshot::channel();
        let entry = Entry {
            item,
            answer,
            queued: Instant::now(),
        };
        let Some(patience) = B::PATIENCE else {
            // Bounded by the callers, each of which holds a permit; they wait for a place.
            self.queue
                .send(entry)
                .await
                .map_err(|_| Error::Interrupted)?;
            return answered.await.map_err(|_| Error::Interrupted)?;
        };
        self.queue.try_send(entry).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                counter!("gateway_queue_full_total", "writer" => B::NAME).increment(1);
                Error::Overloaded(B::NAME)
            }
            mpsc::error::TrySendError::Closed(_) => Error::Interrupted,
        })?;
        // The batch in front may use up its patience too.
        match timeout(patience * 2, answered).await {
            Ok(answer) => answer.map_err(|_| Error::Interrupted)?,
            Err(_) => Err(Error::Unavailable(None)),
        }
    }
}

struct Task<B: Batch> {
    batch: Arc<B>,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl<B: Batch> Task<B> {
    async fn run(mut self, receiver: Arc<Mutex<mpsc::Receiver<Entry<B>>>>) {
        let mut entries = Vec::with_capacity(MAX_BATCH);
        loop {
            let queued = {
                let mut receiver = receiver.lock().await;
                if receiver.recv_many(&mut entries, MAX_BATCH).await == 0 {
                    return;
                }
                receiver.len()
            };
            // Whoever gave up, or hung up, before its item was written is not known to be acknowledged: nothing is lost.
            entries.retain(|entry: &Entry<B>| !entry.answer.is_closed());
            measure::<B>(&entries, queued);
            self.commit(std::mem::take(&mut entries)).await;
        }
    }

    /// Writes the entries and answers each, whatever happens: halves the batch around a bad or locked row, repeats it while
    /// the database is away.
    async fn commit(&mut self, entries: Vec<Entry<B>>) {
        let mut parts = VecDeque::from([entries]);
        let mut pause = FIRST_PAUSE;
        let mut searching = false;
        while let Some(mut part) = parts.pop_front() {
            if part.is_empty() {
                continue;
            }
            let error = match self.write(&part).await {
                Ok(answers) => {
                    for (entry, answer) in part.into_iter().zip(answers) {
                        reply(entry, Ok(answer));
                    }
                    continue;
                }
                Err(error) => error,
            };
            let fault = fault(&error);
            match fault {
                Fault::Row | Fault::Locked if part.len() > 1 => {
                    if fault == Fault::Locked && !searching {
                        searching = true;
                        self.set_lock_timeout(SEARCH_LOCK_TIMEOUT).await;
                    }
                    let rest = part.split_off(part.len() / 2);
                    parts.push_back(part);
                    parts.push_back(rest);
                }
                Fault::Row | Fault::Locked => {
                    tracing::warn!(writer = B::NAME, %error, "a row could not be written");
                    for entry in part {
                        reply(entry, Err(again(&error)));
                    }
                }
                Fault::LostRace => parts.push_front(still_patient(part)),
                Fault::Away | Fault::Other => {
                    tracing::warn!(writer = B::NAME, entries = part.len(), %error, "a batch was not written, it is repeated");
                    counter!("gateway_batch_failures_total", "writer" => B::NAME).increment(1);
                    self.connection = None;
                    part = still_patient(part);
                    if !part.is_empty() {
                        tokio::time::sleep(pause).await;
                        pause = LAST_PAUSE.min(pause * 2);
                    }
                    parts.push_front(part);
                }
            }
        }
        if searching {
            self.set_lock_timeout(LOCK_TIMEOUT).await;
        }
    }

    /// One try, with a limit on the client's side too: a database that is stopped does not enforce its own.
    async fn write(&mut self, entries: &[Entry<B>]) -> sqlx::Result<Vec<B::Answer>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(
                timeout(CONNECT_TIMEOUT, self.options.connect())
                    .await
                    .map_err(|_| sqlx::Error::PoolTimedOut)??,
            ),
        };
        let items: Vec<&B::Item> = entries.iter().map(|entry| &entry.item).collect();
        timeout(STATEMENT_TIMEOUT, self.batch.write(connection, &items))
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    async fn set_lock_timeout(&mut self, wait: Duration) {
        if let Some(connection) = &mut self.connection
            && let Err(error) = bounded(store::set_lock_timeout(connection, wait)).await
        {
            tracing::warn!(writer = B::NAME, %error, "the lock timeout was not set, the connection is closed");
            self.connection = None;
        }
    }
}

fn planned<B: Batch>(options: PgConnectOptions) -> PgConnectOptions {
    let options = options.options(PLANS);
    if B::JOINS_INPUT_ONLY {
        return options.options([("enable_hashjoin", "on")]);
    }
    options
}

fn reply<B: Batch>(entry: Entry<B>, answer: Result<B::Answer>) {
    if entry.answer.send(answer).is_err() {
        tracing::debug!(writer = B::NAME, "nobody waits for this answer any more");
    }
}

/// Answers those that have been waiting too long, and returns the others.
fn still_patient<B: Batch>(entries: Vec<Entry<B>>) -> Vec<Entry<B>> {
    let Some(patience) = B::PATIENCE else {
        return entries;
    };
    let (patient, tired): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.queued.elapsed() < patience);
    for entry in tired {
        reply(entry, Err(Error::Unavailable(None)));
    }
    patient
}

/// An error for one more of those that share it.
fn again(error: &sqlx::Error) -> Error {
    match fault(error) {
        Fault::Locked => Error::Locked,
        _ => Error::Refused(sqlx::Error::Protocol(error.to_string())),
    }
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn measure<B: Batch>(entries: &[Entry<B>], queued: usize) {
    histogram!("gateway_batch_size", "writer" => B::NAME).record(entries.len() as f64);
    gauge!("gateway_queue_depth", "writer" => B::NAME).set(queued as f64);
    if let Some(oldest) = entries.first() {
        histogram!("gateway_batch_wait_seconds", "writer" => B::NAME)
            .record(oldest.queued.elapsed());
    }
}
