//! The queue in front of a writer's tasks, and the rule for when the next batch begins.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::sleep;

/// The most items of one statement. Larger batches gain little, and more callers wait for each.
pub const MAX_BATCH: usize = 64;
/// The most items that wait for a writer: 16 batches, so that the last is written well within the
/// time that its caller waits.
pub const MAX_QUEUED: usize = 1024;
/// How long a batch that is not full waits for the one being written: longer than that usually
/// takes.
const HEAD_START: Duration = Duration::from_millis(10);

/// A new queue: where items go in, and where batches come out. It ends when the entrance is dropped
/// and everything is taken.
#[must_use]
pub fn queue<T>() -> (Entrance<T>, Queue<T>) {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    let full = Arc::new(Notify::new());
    let queue = Queue {
        receiver: Mutex::new(receiver),
        full: Arc::clone(&full),
        in_flight: watch::Sender::new(0),
    };
    (Entrance { sender, full }, queue)
}

/// Where items go in.
pub struct Entrance<T> {
    sender: mpsc::Sender<T>,
    full: Arc<Notify>,
}

impl<T> Entrance<T> {
    /// Waits for room.
    pub async fn send(&self, item: T) -> Result<(), mpsc::error::SendError<T>> {
        self.sender.send(item).await?;
        self.tell_if_full();
        Ok(())
    }

    /// Fails if there is no room.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(item)?;
        self.tell_if_full();
        Ok(())
    }

    fn tell_if_full(&self) {
        if self.sender.max_capacity() - self.sender.capacity() >= MAX_BATCH {
            self.full.notify_one();
        }
    }
}

/// Where a writer's tasks take their batches.
pub struct Queue<T> {
    receiver: Mutex<mpsc::Receiver<T>>,
    /// Tells the waiting task that a whole batch is there.
    full: Arc<Notify>,
    /// How many batches are being written.
    in_flight: watch::Sender<usize>,
}

impl<T> Queue<T> {
    /// Waits for the next batch, takes it, and returns how many items are left. None: there will be
    /// no more. Cancelling it takes nothing. What was taken is in flight until it has
    /// [landed](Self::landed). A second batch begins only when it is full, or when the first takes
    /// long: fewer and larger batches cost less.
    pub async fn take(&self, items: &mut Vec<T>) -> Option<usize> {
        let mut receiver = self.receiver.lock().await;
        let mut in_flight = self.in_flight.subscribe();
        let full = async {
            while receiver.len() < MAX_BATCH {
                self.full.notified().await;
            }
        };
        tokio::select! {
            biased;
            // The sender lives as long as this does.
            _ = in_flight.wait_for(|count| *count == 0) => {}
            () = full => {}
            () = sleep(HEAD_START) => {}
        }
        let received = receiver.recv_many(items, MAX_BATCH).await;
        (received > 0).then(|| {
            self.in_flight.send_modify(|count| *count += 1);
            receiver.len()
        })
    }

    /// A batch is no longer in flight.
    pub fn landed(&self) {
        self.in_flight.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn fill(entrance: &Entrance<usize>, count: usize) {
        for item in 0..count {
            entrance.try_send(item).unwrap();
        }
    }

    /// What is taken without waiting, and how much is left.
    fn taken(queue: &Queue<usize>) -> Option<(usize, usize)> {
        let mut items = Vec::new();
        let left = queue.take(&mut items).now_or_never();
        assert!(left.is_some() || items.is_empty());
        left.map(|left| (items.len(), left.unwrap()))
    }

    #[tokio::test]
    async fn one_item_alone_waits_for_nobody() {
        let (entrance, queue) = queue();
        fill(&entrance, 1);
        assert_eq!(taken(&queue), Some((1, 0)));
    }

    #[tokio::test]
    async fn a_batch_that_is_not_full_waits_for_the_one_in_flight() {
        let (entrance, queue) = queue();
        fill(&entrance, 1);
        taken(&queue).unwrap();
        fill(&entrance, MAX_BATCH - 1);
        assert_eq!(taken(&queue), None);
        queue.landed();
        assert_eq!(taken(&queue), Some((MAX_BATCH - 1, 0)));
    }

    #[tokio::test]
    async fn a_full_batch_waits_for_nobody() {
        let (entrance, queue) = queue();
        fill(&entrance, 1);
        taken(&queue).unwrap();
        fill(&entrance, MAX_BATCH + 1);
        assert_eq!(taken(&queue), Some((MAX_BATCH, 1)));
        // Two are in flight; one of them has landed.
        queue.landed();
        assert_eq!(taken(&queue), None);
    }

    #[tokio::test]
    async fn one_in_flight_that_takes_long_is_not_waited_for() {
        let (entrance, queue) = queue();
        fill(&entrance, 1);
        taken(&queue).unwrap();
        fill(&entrance, 2);
        let mut items = Vec::new();
        assert_eq!(queue.take(&mut items).await, Some(0));
        assert_eq!(items.len(), 2);
    }

    #[tokio::test]
    async fn what_is_queued_is_taken_before_the_end() {
        let (entrance, queue) = queue();
        fill(&entrance, 2);
        drop(entrance);
        assert_eq!(taken(&queue), Some((2, 0)));
        queue.landed();
        assert_eq!(queue.take(&mut Vec::new()).await, None);
    }
}
