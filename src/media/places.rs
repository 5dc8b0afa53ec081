//! How many files are on their way at once, for a key and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const MOST: usize = 32;
const MOST_OF_KEY: usize = 4;
/// How long to wait for a place. A page asks for more pictures at once than a key has places.
const WAIT: Duration = Duration::from_secs(3);

/// The places for files.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    of_key: Mutex<HashMap<usize, Arc<Semaphore>>>,
}

/// A place. Dropping it frees it.
#[derive(Debug)]
pub struct Place {
    _of_key: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MOST)),
            of_key: Mutex::default(),
        }
    }
}

impl Places {
    /// A place for the holder of this key, or for anybody where there are no keys; none if there is
    /// none soon.
    pub async fn take(&self, key: Option<usize>) -> Option<Place> {
        let own = key.map(|key| {
            let mut of_key = self.of_key.lock().unwrap_or_else(PoisonError::into_inner);
            let own = of_key.entry(key);
            Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(MOST_OF_KEY))))
        });
        let take = async {
            let of_key = match own {
                Some(own) => Some(own.acquire_owned().await.ok()?),
                None => None,
            };
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place {
                _of_key: of_key,
                _of_all: of_all,
            })
        };
        timeout(WAIT, take).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_key_and_a_process_have_only_so_many_places() {
        let places = Places::default();
        let take = async |key, count: usize| {
            let taken = join_all((0..count).map(|_| places.take(key))).await;
            taken.into_iter().flatten().collect::<Vec<_>>()
        };
        let (one, anybody) = tokio::join!(take(Some(1), 5), take(None, 27));
        assert_eq!((one.len(), anybody.len()), (4, 27));
        let (two, all) = tokio::join!(take(Some(2), 2), take(None, 1));
        assert_eq!(two.len() + all.len(), 1);
        drop(one);
        assert_eq!(take(Some(1), 4).await.len(), 4);
    }
}
