//! Positions in the feed, and how they are written down for subscribers.
//!
//! Transactions do not end in the order of their ids. So a position is a number, below which all is
//! seen, and the transactions below that number which were still running. Nobody waits for them:
//! each is asked for again until it has ended.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The most running transactions in a token.
const MOST_PENDING: usize = 16;
/// The longest token, in bytes; each is two characters.
const MOST_BYTES: usize = 100;
/// The tag in front of a token, in bytes: whoever does not know the epoch cannot make one.
const TAG: usize = 12;

/// How far a reader has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    next: i64,
    /// Transactions below `next` that are not seen, in their order.
    pending: Vec<i64>,
}

impl Position {
    /// Below `next` all is seen, but for what these transactions are still writing.
    #[must_use]
    pub fn new(next: i64, running: &[i64]) -> Self {
        let mut pending: Vec<i64> = running.iter().copied().filter(|id| *id < next).collect();
        pending.sort_unstable();
        pending.dedup();
        Self { next, pending }
    }

    /// One behind which there is nothing.
    #[must_use]
    pub fn end() -> Self {
        Self::new(i64::MAX, &[])
    }

    /// Where the rows begin that nobody has seen.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The transactions below that are not seen.
    #[must_use]
    pub fn pending(&self) -> &[i64] {
        &self.pending
    }

    /// Whether what this transaction has written is seen.
    #[must_use]
    pub fn has_seen(&self, position: i64) -> bool {
        position < self.next && self.pending.binary_search(&position).is_err()
    }

    /// The same with at most so many transactions: all from the next one on counts as not seen.
    /// What is repeated then is least where the oldest ones stay, which run for long.
    fn shortened(&self, most: usize) -> Self {
        let Some(&next) = self.pending.get(most) else {
            return self.clone();
        };
        Self::new(next, &self.pending)
    }
}

/// One history of transaction ids. In another one, positions mean nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch(Vec<u8>);

impl std::fmt::Debug for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Epoch(…)")
    }
}

impl Epoch {
    /// The history that a server writes on this timeline into this database, as long as `feed` has
    /// this epoch.
    #[must_use]
    pub fn new(server: i64, timeline: &str, database: i64, epoch: Uuid) -> Self {
        let mut key = epoch.as_bytes().to_vec();
        key.extend(server.to_be_bytes());
        key.extend(database.to_be_bytes());
        key.extend(timeline.as_bytes());
        Self(key)
    }

    /// The token of a position: at most 200 characters.
    #[must_use]
    pub fn token(&self, position: &Position) -> String {
        let fitting = (0..=MOST_PENDING).rev().find_map(|most| {
            let bytes = encode(&position.shortened(most));
            (bytes.len() + TAG <= MOST_BYTES).then_some(bytes)
        });
        let bytes = fitting.expect("a position without transactions is short");
        let mut token = hex::encode(&self.mac(&bytes).finalize().into_bytes()[..TAG]);
        token.push_str(&hex::encode(bytes));
        token
    }

    /// The position that a token of this history stands for.
    #[must_use]
    pub fn position(&self, token: &str) -> Option<Position> {
        if token.len() > 2 * MOST_BYTES {
            return None;
        }
        let token = hex::decode(token).ok()?;
        let (tag, bytes) = token.split_at_checked(TAG)?;
        self.mac(bytes).verify_truncated_left(tag).ok()?;
        decode(bytes)
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0);
        mac.expect("a key may have any length").chain_update(bytes)
    }
}

/// `next`, and the distance from each transaction to the one before, from the highest one down.
fn encode(position: &Position) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MOST_BYTES);
    let mut above = position.next;
    put(&mut bytes, above.cast_unsigned());
    for &id in position.pending.iter().rev() {
        put(&mut bytes, above.abs_diff(id));
        above = id;
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Position> {
    let next = i64::try_from(take(&mut bytes)?).ok()?;
    let (mut above, mut pending) = (next, Vec::new());
    while !bytes.is_empty() {
        above = above.checked_sub_unsigned(take(&mut bytes)?)?;
        pending.push(above);
    }
    Some(Position::new(next, &pending))
}

/// Seven bits a byte, the lowest first; all but the last have the highest bit.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(number: u128) -> Epoch {
        Epoch::new(7, "00000001", 9, Uuid::from_u128(number))
    }

    fn position() -> impl Strategy<Value = Position> {
        let below = |next: i64| (Just(next), prop::collection::vec(0..next.max(1), 0..40));
        (1..i64::MAX)
            .prop_flat_map(below)
            .prop_map(|(next, running)| Position::new(next, &running))
    }

    #[test]
    fn a_token_of_another_history_means_nothing() {
        let ours = Epoch::new(7, "00000001", 9, Uuid::from_u128(1));
        let token = ours.token(&Position::new(1000, &[990]));
        assert_eq!(ours.position(&token), Some(Position::new(1000, &[990])));
        for other in [
            Epoch::new(8, "00000001", 9, Uuid::from_u128(1)),
            Epoch::new(7, "00000002", 9, Uuid::from_u128(1)),
            Epoch::new(7, "00000001", 8, Uuid::from_u128(1)),
            Epoch::new(7, "00000001", 9, Uuid::from_u128(2)),
        ] {
            assert_eq!(other.position(&token), None);
        }
    }

    #[test]
    fn what_is_no_token_means_nothing() {
        let token = epoch(1).token(&Position::new(1000, &[]));
        let mut forged = hex::decode(&token).unwrap();
        *forged.last_mut().unwrap() ^= 1;
        let tag_only = token[..2 * TAG].to_owned();
        for text in [
            "",
            "0",
            "é",
            &"0".repeat(10_000),
            &tag_only,
            &hex::encode(forged),
        ] {
            assert_eq!(epoch(1).position(text), None, "{text}");
        }
    }

    #[test]
    fn the_oldest_transactions_stay_in_a_token() {
        let running: Vec<i64> = (0..30).map(|n| 500 + n).collect();
        let position = Position::new(1000, &running);
        let told = epoch(1).position(&epoch(1).token(&position)).unwrap();
        assert_eq!(told, Position::new(516, &running[..16]));
    }

    proptest! {
        #[test]
        fn a_token_never_hides_what_is_not_seen(position in position(), other in 0..i64::MAX) {
            let token = epoch(1).token(&position);
            prop_assert!(token.len() <= 200, "{token}");
            let told = epoch(1).position(&token).unwrap();
            if position.pending.len() <= 4 {
                prop_assert_eq!(&told, &position);
            }
            let near = position.pending.iter().flat_map(|id| [*id, id + 1]);
            for id in near.chain([other, position.next, position.next - 1]) {
                prop_assert!(!told.has_seen(id) || position.has_seen(id), "{id}");
            }
        }

        #[test]
        fn what_is_read_as_a_token_is_one(text in "[0-9a-f]{0,220}|\\PC{0,40}") {
            prop_assert_eq!(epoch(1).position(&text), None);
        }
    }
}
