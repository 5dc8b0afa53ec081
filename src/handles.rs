//! Handles of metrics.

use std::sync::{PoisonError, RwLock};

/// Handles of metrics, each looked up in the exporter once: that would have to be told its labels each time.
#[derive(Debug)]
pub struct Handles<K, T>(RwLock<Vec<(K, T)>>);

impl<K, T: Clone> Handles<K, T> {
    /// None yet. What they are of must have few values.
    #[must_use]
    #[allow(clippy::new_without_default)] // that is not const
    pub const fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// The handle of what this is; the first time it is made.
    pub fn find(&self, is_it: impl Fn(&K) -> bool, make: impl FnOnce() -> (K, T)) -> T {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = known.iter().find(|(key, _)| is_it(key)) {
            return handle.clone();
        }
        drop(known);
        let (key, handle) = make();
        // Should somebody else have made it meanwhile: the exporter has given both the same.
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.push((key, handle.clone()));
        handle
    }
}

impl<T: Clone> Handles<&'static str, T> {
    /// The handle with this value of its label.
    pub fn of(&self, label: &'static str, make: impl FnOnce(&'static str) -> T) -> T {
        self.find(|known| *known == label, || (label, make(label)))
    }
}
