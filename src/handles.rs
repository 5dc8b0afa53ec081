//! Handles of metrics.

use std::sync::{PoisonError, RwLock};

/// Caches handles of metrics: looking one up in the exporter costs its labels each time.
#[derive(Debug)]
pub struct Handles<K, T>(RwLock<Vec<(K, T)>>);

impl<K, T: Clone> Handles<K, T> {
    /// An empty cache. The keys must have few values.
    #[must_use]
    #[allow(clippy::new_without_default)] // that is not const
    pub const fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// The cached handle for a key, made the first time.
    pub fn find(&self, is_it: impl Fn(&K) -> bool, make: impl FnOnce() -> (K, T)) -> T {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = known.iter().find(|(key, _)| is_it(key)) {
            return handle.clone();
        }
        drop(known);
        let (key, handle) = make();
        // If somebody else has made it meanwhile, the exporter has given both the same handle.
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.push((key, handle.clone()));
        handle
    }
}

impl<T: Clone> Handles<&'static str, T> {
    /// The cached handle for this value of a label.
    pub fn of(&self, label: &'static str, make: impl FnOnce(&'static str) -> T) -> T {
        self.find(|known| *known == label, || (label, make(label)))
    }
}
