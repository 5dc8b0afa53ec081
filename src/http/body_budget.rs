//! The memory of large bodies. Of each body one block is kept at any time; more only from what all
//! bodies of a process share. Where nothing is left, the slowest of them is given up, so that those
//! who send slowly keep nobody else from sending.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::route::BodyLimit;

/// What is kept of each body at any time, and what it takes at once beyond that, in bytes.
pub const BLOCK: usize = BodyLimit::USUAL;
/// What all bodies share: 32 MiB.
const SHARED_BLOCKS: usize = 512;

/// The blocks that bodies share.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// Some blocks were given back.
    freed: Notify,
}

#[derive(Debug)]
struct Ledger {
    free: usize,
    last_id: u64,
    /// The bodies that have asked for blocks and still arrive.
    arriving: HashMap<u64, Arriving>,
}

#[derive(Debug)]
struct Arriving {
    began: Instant,
    blocks: usize,
    given_up: CancellationToken,
}

/// The blocks of one body. Dropping them gives them back.
#[derive(Debug)]
pub struct Room {
    budget: BodyBudget,
    id: u64,
    began: Instant,
    blocks: usize,
    given_up: CancellationToken,
}

/// What becomes of a body that asks for a block.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Has,
    /// One that was given up has not yet given its blocks back.
    Waits,
    IsGivenUp,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self::of(SHARED_BLOCKS)
    }
}

impl BodyBudget {
    /// A budget of so many blocks.
    #[must_use]
    pub fn of(blocks: usize) -> Self {
        Self(Arc::new(Shared {
            ledger: Mutex::new(Ledger {
                free: blocks,
                last_id: 0,
                arriving: HashMap::new(),
            }),
            freed: Notify::new(),
        }))
    }

    /// The room of a body that begins to arrive now.
    pub(super) fn room(&self) -> Room {
        let mut ledger = self.lock();
        ledger.last_id += 1;
        Room {
            budget: self.clone(),
            id: ledger.last_id,
            began: Instant::now(),
            blocks: 0,
            given_up: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        let ledger = self.0.ledger.lock();
        ledger.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Takes one more block, and waits where one that was given up has not left yet. False: this
    /// body is given up.
    pub(super) async fn take(&mut self) -> bool {
        let budget = self.budget.clone();
        loop {
            let freed = budget.0.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that is given back is missed.
            freed.as_mut().enable();
            match self.ask(Instant::now()) {
                Answer::Has => return true,
                Answer::IsGivenUp => return false,
                Answer::Waits => tokio::select! {
                    () = self.given_up.cancelled() => return false,
                    () = freed => {}
                },
            }
        }
    }

    /// Waits until this body is given up.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// The whole body has arrived: it keeps its blocks until it is dropped.
    pub(super) fn arrived(&self) {
        self.budget.lock().arriving.remove(&self.id);
    }

    fn ask(&mut self, now: Instant) -> Answer {
        if self.given_up.is_cancelled() {
            return Answer::IsGivenUp;
        }
        let mut ledger = self.budget.lock();
        let ledger = &mut *ledger;
        let arriving = ledger.arriving.entry(self.id).or_insert_with(|| Arriving {
            began: self.began,
            blocks: 0,
            given_up: self.given_up.clone(),
        });
        if ledger.free > 0 {
            arriving.blocks += 1;
            ledger.free -= 1;
            self.blocks += 1;
            return Answer::Has;
        }
        if ledger.arriving.values().any(Arriving::is_leaving) {
            return Answer::Waits;
        }
        match ledger.slowest(now) {
            Some((slowest, _)) if slowest == self.id => Answer::IsGivenUp,
            Some((_, given_up)) => {
                given_up.cancel();
                Answer::Waits
            }
            None => Answer::IsGivenUp,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut ledger = self.budget.lock();
        let was_arriving = ledger.arriving.remove(&self.id).is_some();
        ledger.free += self.blocks;
        drop(ledger);
        if was_arriving || self.blocks > 0 {
            self.budget.0.freed.notify_waiters();
        }
    }
}

impl Ledger {
    /// The body that has sent least in its time.
    fn slowest(&self, now: Instant) -> Option<(u64, &CancellationToken)> {
        let slowness = |body: &Arriving| {
            let nanos = now.saturating_duration_since(body.began).as_nanos();
            // The block that it has anyway counts too.
            nanos / (body.blocks as u128 + 1)
        };
        let slowest = self
            .arriving
            .iter()
            .max_by_key(|(id, body)| (slowness(body), **id));
        slowest.map(|(id, body)| (*id, &body.given_up))
    }
}

impl Arriving {
    fn is_leaving(&self) -> bool {
        self.given_up.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn where_no_block_is_left_the_slowest_body_is_given_up_whoever_asks() {
        let budget = BodyBudget::of(10);
        let (mut slow, mut fast, mut late) = (budget.room(), budget.room(), budget.room());
        let now = slow.began + second(10);
        (fast.began, late.began) = (now - second(2), now - second(1));
        for _ in 0..5 {
            assert_eq!(slow.ask(now), Answer::Has);
            assert_eq!(fast.ask(now), Answer::Has);
        }
        // 6 blocks in 10 s, 6 in 2 s, 1 in 1 s.
        assert_eq!(late.ask(now), Answer::Waits);
        assert!(slow.given_up.is_cancelled() && !fast.given_up.is_cancelled());
        assert_eq!(slow.ask(now), Answer::IsGivenUp);
        // Nobody else has to go while it leaves.
        assert_eq!(fast.ask(now), Answer::Waits);
        assert!(!late.given_up.is_cancelled());
        drop(slow);
        for _ in 0..5 {
            assert_eq!(late.ask(now), Answer::Has);
        }
        // By now it is twice as fast as the other one, which asks.
        assert_eq!(fast.ask(now), Answer::IsGivenUp);
        drop((fast, late));
        assert_eq!(budget.lock().free, 10);
        assert!(budget.lock().arriving.is_empty());
    }

    #[test]
    fn what_has_arrived_keeps_its_blocks_and_is_never_given_up() {
        let budget = BodyBudget::of(2);
        let (mut whole, mut next) = (budget.room(), budget.room());
        let now = whole.began + second(60);
        next.began = now - second(1);
        assert_eq!([whole.ask(now), whole.ask(now)], [Answer::Has, Answer::Has]);
        whole.arrived();
        assert_eq!(next.ask(now), Answer::IsGivenUp);
        assert!(!whole.given_up.is_cancelled());
        drop(whole);
        assert_eq!(next.ask(now), Answer::Has);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_as_soon_as_blocks_are_given_back() {
        let budget = BodyBudget::of(1);
        let (mut slow, mut fast) = (budget.room(), budget.room());
        slow.began -= second(9);
        assert!(slow.take().await);
        let leaves = async {
            slow.given_up().await;
            drop(slow);
        };
        let (has, ()) = tokio::join!(fast.take(), leaves);
        assert!(has);
    }
}
