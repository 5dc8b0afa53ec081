//! Places for first attempts, and for what waits to be stored: who may have how many of them.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::caller::Caller;
use crate::channel::Channel;
use crate::database::queue::MAX_QUEUED;
use crate::share::{OF_CONVERSATION, Share, Shares};

/// Of first attempts no key holds more than one in so many.
const KEYS: usize = 2;
/// Of what waits to be stored no key has more than one in so many.
const QUEUED: usize = 4;

type Recipient = (Channel, String);

/// All of a process.
#[derive(Debug)]
pub struct SendPermits {
    all: Arc<Semaphore>,
    recipients: Arc<Shares<Recipient>>,
    keys: Arc<Shares<usize>>,
    queued: Arc<Shares<usize>>,
}

/// The place of one first attempt; dropped, it is free.
#[derive(Debug)]
pub struct SendPermit {
    _permit: OwnedSemaphorePermit,
    _of_recipient: Share<Recipient>,
    _of_key: Option<Share<usize>>,
}

/// The place of one message that waits to be stored; dropped, it is free.
#[derive(Debug)]
pub struct QueuePermit(#[expect(dead_code, reason = "held")] Option<Share<usize>>);

impl SendPermits {
    /// So many for first attempts.
    #[must_use]
    pub fn new(attempts: usize) -> Self {
        // Nobody waits for one of them.
        let unawaited = Arc::<Notify>::default;
        Self {
            all: Arc::new(Semaphore::new(attempts)),
            recipients: Shares::new(attempts / OF_CONVERSATION, unawaited()),
            keys: Shares::new(attempts / KEYS, unawaited()),
            queued: Shares::new(MAX_QUEUED / QUEUED, unawaited()),
        }
    }

    /// How many first attempts could begin now, as far as all of them are concerned.
    #[must_use]
    pub fn free(&self) -> usize {
        self.all.available_permits()
    }

    /// A place for a first attempt, unless all are taken, or this recipient or caller has its
    /// share.
    #[must_use]
    pub fn take(
        &self,
        caller: &Caller,
        channel: Channel,
        participant_id: &str,
    ) -> Option<SendPermit> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let of_key = match caller.key_index() {
            Some(key) => Some(self.keys.take(key)?),
            None => None,
        };
        Some(SendPermit {
            _permit: permit,
            _of_recipient: self.recipients.take((channel, participant_id.to_owned()))?,
            _of_key: of_key,
        })
    }

    /// A place in front of the writer, unless this caller has its share.
    #[must_use]
    pub fn queue(&self, caller: &Caller) -> Option<QueuePermit> {
        match caller.key_index() {
            Some(key) => self.queued.take(key).map(|share| QueuePermit(Some(share))),
            None => Some(QueuePermit(None)),
        }
    }
}
