//! Places of which nobody holds more than a share, so that a few slow recipients, or one key, hold
//! up nobody else.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// No conversation holds more than one in so many of a process's places for attempts.
pub const OF_CONVERSATION: usize = 8;

/// How many places each holder has.
#[derive(Debug)]
pub struct Shares<K> {
    most: usize,
    held: Mutex<HashMap<K, usize>>,
    freed: Arc<Notify>,
}

/// A place; dropped, it is free.
#[derive(Debug)]
pub struct Share<K: Hash + Eq> {
    shares: Arc<Shares<K>>,
    holder: K,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// At most `most` places for one holder, and at least one. A holder that has all of its places
    /// and gives one back wakes `freed`.
    #[must_use]
    pub fn new(most: usize, freed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            held: Mutex::default(),
            freed,
        })
    }

    /// The most places of one holder.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// A place, unless this holder has its share.
    #[must_use]
    pub fn take(self: &Arc<Self>, holder: K) -> Option<Share<K>> {
        let mut held = self.lock();
        let count = held.entry(holder.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(held);
        let shares = Arc::clone(self);
        Some(Share { shares, holder })
    }

    /// Who has how many.
    #[must_use]
    pub fn held(&self) -> Vec<(K, usize)> {
        let held = self.lock();
        held.iter().map(|(k, count)| (k.clone(), *count)).collect()
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        let Some(count) = held.get_mut(&self.holder) else {
            return;
        };
        let had_all = *count == self.shares.most;
        *count -= 1;
        if *count == 0 {
            held.remove(&self.holder);
        }
        drop(held);
        if had_all {
            self.shares.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_no_more_than_its_share_and_what_it_gives_back_is_free() {
        let shares = Shares::new(2, Arc::default());
        let first = shares.take("a").unwrap();
        let _second = shares.take("a").unwrap();
        assert!(shares.take("a").is_none());
        let other = shares.take("b");
        assert!(other.is_some());
        drop((first, other));
        assert_eq!(shares.held(), [("a", 1)]);
        assert!(shares.take("a").is_some());
    }

    #[test]
    fn everybody_has_a_place_at_least() {
        let shares = Shares::new(0, Arc::default());
        let only = shares.take(1);
        assert!(only.is_some() && shares.take(1).is_none());
    }
}
