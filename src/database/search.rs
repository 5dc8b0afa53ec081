//! The search for those items of a batch that cannot be written: the batch is tried in halves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram, gauge, histogram};
use tokio::sync::oneshot;

use super::batch::{Batch, WriteError};
use crate::error::Result;
use crate::handles::Handles;

/// The wait before a try is repeated: the first, and the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// An item, and the caller who waits for its answer.
pub(super) struct Entry<B: Batch> {
    pub(super) item: B::Item,
    pub(super) answer: oneshot::Sender<Result<B::Answer>>,
    pub(super) queued: Instant,
}

/// A batch that is being written, in as many parts as it takes to find the items that cannot be.
pub(super) struct Search<B: Batch> {
    pub(super) parts: VecDeque<Vec<Entry<B>>>,
    /// How long to wait before the next try.
    pub(super) pause: Duration,
    /// Whether the lock timeout of the connection was shortened.
    pub(super) has_short_locks: bool,
    /// Whether a race was lost before.
    pub(super) has_lost: bool,
}

impl<B: Batch> Search<B> {
    pub(super) fn new(entries: Vec<Entry<B>>) -> Self {
        Self {
            parts: VecDeque::from([entries]),
            pause: FIRST_PAUSE,
            has_short_locks: false,
            has_lost: false,
        }
    }

    pub(super) fn halve(&mut self, mut part: Vec<Entry<B>>) {
        let rest = part.split_off(part.len() / 2);
        self.parts.push_back(part);
        self.parts.push_back(rest);
    }

    /// Waits, longer each time, if something is left to be tried again.
    pub(super) async fn pause(&mut self, left: &[Entry<B>]) {
        if !left.is_empty() {
            tokio::time::sleep(self.pause).await;
            self.pause = LAST_PAUSE.min(self.pause * 2);
        }
    }
}

pub(super) fn reply<B: Batch>(entry: Entry<B>, answer: Result<B::Answer>) {
    if entry.answer.send(answer).is_err() {
        tracing::debug!(writer = B::NAME, "the caller is gone");
    }
}

/// Answers those that have waited too long, and returns the others.
pub(super) fn still_patient<B: Batch>(
    entries: Vec<Entry<B>>,
    retry_for: Option<Duration>,
    error: &WriteError,
) -> Vec<Entry<B>> {
    let Some(retry_for) = retry_for else {
        return entries;
    };
    let (patient, tired): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.queued.elapsed() < retry_for);
    for entry in tired {
        reply(entry, Err(error.unavailable().into()));
    }
    patient
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
pub(super) fn measure<B: Batch>(entries: &[Entry<B>], queued: usize) {
    let (size, depth, wait) = BATCHES.of(B::NAME, |writer| {
        let size = histogram!("gateway_batch_size", "writer" => writer);
        let depth = gauge!("gateway_queue_depth", "writer" => writer);
        let wait = histogram!("gateway_batch_wait_seconds", "writer" => writer);
        (size, depth, wait)
    });
    size.record(entries.len() as f64);
    depth.set(queued as f64);
    if let Some(oldest) = entries.first() {
        wait.record(oldest.queued.elapsed());
    }
}

static BATCHES: Handles<&str, (Histogram, Gauge, Histogram)> = Handles::new();
