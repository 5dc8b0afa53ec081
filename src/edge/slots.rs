//! The slots for connections. When they run out, the connection that has waited longest for its
//! client is closed for the next one, so silent clients keep nobody out. And no network has more
//! than its share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::socket::Peer;

/// How long to wait for a closed connection to end before one more is closed.
const CLOSING: Duration = Duration::from_millis(100);

/// All slots.
#[derive(Debug)]
pub struct ConnectionSlots {
    free: Arc<Semaphore>,
    most_of_one: usize,
    taken: Arc<Mutex<Taken>>,
}

/// A slot. Dropping it frees it.
#[derive(Debug)]
pub struct ConnectionSlot {
    id: u64,
    taken: Arc<Mutex<Taken>>,
    _permit: OwnedSemaphorePermit,
}

/// One client: an IPv4 address, or the 64 bits of IPv6 that one client has all addresses of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

#[derive(Debug, Default)]
struct Taken {
    last_id: u64,
    connections: HashMap<u64, (Option<Network>, Peer)>,
    of_network: HashMap<Network, usize>,
}

impl ConnectionSlots {
    /// This many slots, of which one network may have at most `most_of_one`.
    #[must_use]
    pub fn new(count: usize, most_of_one: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            most_of_one,
            taken: Arc::default(),
        }
    }

    /// Whether no slot is left.
    #[must_use]
    pub fn are_taken(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Whether this network has all the slots that it may have.
    #[must_use]
    pub fn are_taken_by(&self, network: Network) -> bool {
        let taken = lock(&self.taken);
        taken.of_network.get(&network).copied().unwrap_or_default() >= self.most_of_one
    }

    /// Takes a slot. If none is left, closes a connection that waits for its client; if all are
    /// being served, waits for one to end. A network that has its share gets only a slot of its
    /// own: `None` if all of those are being served. Without a network there is no such limit.
    pub async fn take(&self, network: Option<Network>, peer: &Peer) -> Option<ConnectionSlot> {
        if let Some(network) = network
            && self.are_taken_by(network)
            && !lock(&self.taken).close_longest_silent(Some(network))
        {
            return None;
        }
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                break permit;
            }
            lock(&self.taken).close_longest_silent(None);
            let ended = timeout(CLOSING, Arc::clone(&self.free).acquire_owned()).await;
            if let Ok(permit) = ended {
                // Nobody closes the semaphore.
                break permit.ok()?;
            }
        };
        Some(ConnectionSlot {
            id: lock(&self.taken).add(network, peer.clone()),
            taken: Arc::clone(&self.taken),
            _permit: permit,
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        lock(&self.taken).remove(self.id);
    }
}

impl Network {
    /// The network of this address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl Taken {
    fn add(&mut self, network: Option<Network>, peer: Peer) -> u64 {
        self.last_id += 1;
        self.connections.insert(self.last_id, (network, peer));
        if let Some(network) = network {
            *self.of_network.entry(network).or_default() += 1;
        }
        self.last_id
    }

    /// From then on it no longer counts. `None` if it was closed before.
    fn remove(&mut self, id: u64) -> Option<Peer> {
        let (network, peer) = self.connections.remove(&id)?;
        if let Some(network) = network
            && let Some(count) = self.of_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.of_network.remove(&network);
            }
        }
        Some(peer)
    }

    /// Closes the connection that has waited longest for its client, of one network or of all.
    /// False if none waits.
    fn close_longest_silent(&mut self, network: Option<Network>) -> bool {
        let among = |of: &Option<Network>| network.is_none() || *of == network;
        let silent = self.connections.iter().filter_map(|(id, (of, peer))| {
            let since = peer.silent_since().filter(|_| among(of))?;
            Some((since, *id))
        });
        let longest = silent.min();
        let closed = longest.and_then(|(_, id)| self.remove(id));
        if let Some(peer) = &closed {
            peer.close();
        }
        closed.is_some()
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::Socket;
    use super::*;

    /// A connection as its client and as its server see it.
    async fn connection() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        (client.unwrap(), Socket::new(stream, Duration::from_mins(1)))
    }

    /// That the server has closed it: orderly, or by a reset.
    async fn assert_closed(mut client: TcpStream) {
        assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
    }

    fn network(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    #[test]
    fn one_network_is_an_ipv4_address_or_64_bits_of_ipv6() {
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2:3:4"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    }

    #[tokio::test]
    async fn where_places_run_out_the_longest_silent_connection_is_closed() {
        let places = ConnectionSlots::new(2, 2);
        let (served, served_socket) = connection().await;
        let served_peer = served_socket.peer();
        let first = places.take(None, &served_peer).await.unwrap();
        let (silent, silent_socket) = connection().await;
        let second = places.take(None, &silent_socket.peer()).await.unwrap();
        assert!(places.are_taken());
        // The older one is being served meanwhile.
        served_peer
            .serve(async {
                served_peer.receive_nothing();
                let (_client, socket) = connection().await;
                let peer = socket.peer();
                let third = places.take(None, &peer);
                let (third, ()) = tokio::join!(third, async {
                    assert_closed(silent).await;
                    drop(second);
                });
                assert!(third.is_some());
            })
            .await;
        drop(first);
        assert!(served.try_read(&mut [0]).is_err(), "it was closed");
    }

    #[tokio::test]
    async fn a_network_has_no_more_than_its_part_and_makes_room_for_itself() {
        let places = ConnectionSlots::new(10, 2);
        let one = Some(network("192.0.2.1"));
        let (first, first_socket) = connection().await;
        let (second, second_socket) = connection().await;
        let _first = places.take(one, &first_socket.peer()).await.unwrap();
        let _second = places.take(one, &second_socket.peer()).await.unwrap();
        let (_other, other) = connection().await;
        let others = Some(network("192.0.2.2"));
        let _others = places.take(others, &other.peer()).await.unwrap();
        let _uncounted = places.take(None, &other.peer()).await.unwrap();
        let (third, third_socket) = connection().await;
        let third_peer = third_socket.peer();
        let third_place = places.take(one, &third_peer).await.unwrap();
        assert_closed(first).await;
        assert!(second.try_read(&mut [0]).is_err(), "it was closed");
        // Where all of its connections are being served, it gets no further one.
        let (peers, served) = ([second_socket.peer(), third_peer], async {
            for peer in [&second_socket.peer(), &third_socket.peer()] {
                peer.receive_nothing();
            }
            let (_client, socket) = connection().await;
            places.take(one, &socket.peer()).await
        });
        assert!(peers[0].serve(peers[1].serve(served)).await.is_none());
        drop((third, third_place));
        assert!(places.take(one, &other.peer()).await.is_some());
    }
}
