//! How many streams there are, of one caller and in all. Each is an open connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::caller::{Caller, SessionId};
use crate::edge::Network;

/// The most streams of one key.
const MOST_OF_KEY: usize = 200;
/// The most streams of one session.
const MOST_OF_SESSION: usize = 20;
/// The most streams of one address, where there are no keys.
const MOST_OF_ADDRESS: usize = 100;

/// The places for streams.
#[derive(Debug, Default)]
pub struct Places {
    most: usize,
    /// One of these stands for many callers.
    proxies: Vec<IpNet>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_holder: HashMap<Holder, usize>,
}

/// Whoever has only so many places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Key(usize),
    Session(SessionId),
    Address(Network),
}

impl Holder {
    fn most(self) -> usize {
        match self {
            Self::Key(_) => MOST_OF_KEY,
            Self::Session(_) => MOST_OF_SESSION,
            Self::Address(_) => MOST_OF_ADDRESS,
        }
    }
}

/// A place. Dropping it frees it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    holders: Vec<Holder>,
}

impl Places {
    /// So many; these proxies have no limit of their own.
    #[must_use]
    pub fn new(most: usize, proxies: Vec<IpNet>) -> Self {
        Self {
            most,
            proxies,
            taken: Mutex::default(),
        }
    }

    /// Takes a place for a caller at this address, if there is one left for it.
    #[must_use]
    pub fn take(self: &Arc<Self>, caller: &Caller, client: Option<SocketAddr>) -> Option<Place> {
        let holders = self.holders(caller, client);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |holder: &Holder| {
            let count = taken.of_holder.get(holder);
            count.copied().unwrap_or_default() < holder.most()
        };
        if taken.all >= self.most || !holders.iter().all(has_room) {
            return None;
        }
        taken.all += 1;
        for holder in &holders {
            *taken.of_holder.entry(*holder).or_default() += 1;
        }
        Some(Place {
            places: Arc::clone(self),
            holders,
        })
    }

    /// Of whom a stream is counted: of a key and of its session, else of an address.
    fn holders(&self, caller: &Caller, client: Option<SocketAddr>) -> Vec<Holder> {
        if let Some(key) = caller.key_index() {
            let session = caller.session().map(Holder::Session);
            return std::iter::once(Holder::Key(key)).chain(session).collect();
        }
        let address = client.map(|client| client.ip().to_canonical());
        let address =
            address.filter(|address| !self.proxies.iter().any(|net| net.contains(address)));
        let network = address.map(|address| Holder::Address(Network::of(address)));
        network.into_iter().collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.places.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        for holder in &self.holders {
            if let Some(count) = taken.of_holder.get_mut(holder) {
                *count -= 1;
                if *count == 0 {
                    taken.of_holder.remove(holder);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_an_address_and_a_process_have_only_so_many_places() {
        let places = Arc::new(Places::new(450, vec!["192.0.2.9/32".parse().unwrap()]));
        let take = |caller: &Caller, address: &str| {
            places.take(caller, Some(SocketAddr::new(address.parse().unwrap(), 1)))
        };
        let key = |index| Caller::holder(index, None, true);
        let mut taken: Vec<Place> = (0..200)
            .map(|_| take(&key(0), "192.0.2.1").unwrap())
            .collect();
        assert!(take(&key(0), "192.0.2.2").is_none());
        taken.extend((0..100).map(|_| take(&Caller::ANYBODY, "127.0.0.1").unwrap()));
        assert!(take(&Caller::ANYBODY, "127.0.0.1").is_none());
        taken.extend((0..150).map(|_| take(&Caller::ANYBODY, "192.0.2.9").unwrap()));
        assert!(take(&key(1), "192.0.2.1").is_none());
        drop(taken);
        assert!(take(&key(0), "192.0.2.1").is_some());
        assert!(places.taken.lock().unwrap().of_holder.is_empty());
    }
}
