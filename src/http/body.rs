//! Reads bodies, up to a size and within a time. Where more than the usual size is allowed, what is
//! beyond it comes from a [`BodyBudget`], and must not come slowly.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::body_budget::{BLOCK, BodyBudget, Room};
use super::problem::{Problem, kind};
use super::route::BodyLimit;

/// How much of a larger one is read and thrown away, so that the caller reads the answer, in bytes.
const MAX_DISCARDED: usize = 1024 * 1024;
/// How far a large body may be ahead of its least pace: so long may it pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What all bodies of this process share.
pub static BUDGET: LazyLock<BodyBudget> = LazyLock::new(BodyBudget::default);

/// A body, or the beginning of one that was refused.
#[derive(Debug)]
pub struct Received {
    /// At most as much of it as the route takes; of one that was too large for the usual size,
    /// nothing where it was refused.
    pub bytes: Bytes,
    /// Why it was refused.
    pub problem: Option<Problem>,
}

/// Reads a body, up to the limit of its route.
pub async fn read(body: Body, limit: BodyLimit) -> Received {
    read_within(&BUDGET, body, limit).await
}

/// The same with a budget of its own.
pub async fn read_within(budget: &BodyBudget, body: Body, limit: BodyLimit) -> Received {
    let announced = body.size_hint();
    let is_above = |bound: u64, limit| usize::try_from(bound).is_ok_and(|bound| bound > limit);
    let may_be_large = announced.upper().is_none_or(|most| is_above(most, BLOCK));
    if limit.0 <= BLOCK || !may_be_large {
        return read_small(body, limit).await;
    }
    if is_above(announced.lower(), limit.0) {
        let read = read_small(body, BodyLimit(0)).await;
        let other = read
            .problem
            .filter(|problem| problem.code != kind::TOO_LARGE.code);
        return refused(other.unwrap_or_else(|| too_large(limit.0)));
    }
    // Boxed: else every request would have room for it.
    match Box::pin(read_large(budget, body, limit)).await {
        Ok(bytes) => Received {
            bytes,
            problem: None,
        },
        Err(problem) => refused(problem),
    }
}

const LATE: &str = "the body did not arrive in time";

/// Reads a body, and keeps all of it that the limit allows.
async fn read_small(mut body: Body, limit: BodyLimit) -> Received {
    let deadline = Instant::now() + BodyLimit::default().time();
    let BodyLimit(limit) = limit;
    let mut kept = BytesMut::new();
    let mut length = 0;
    let problem = loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => break Some(Problem::too_slow(LATE)),
            Ok(Some(Err(_))) => break Some(Problem::invalid("the body broke off")),
            Ok(Some(Ok(frame))) => frame,
            Ok(None) if length <= limit => break None,
            Ok(None) => break Some(too_large(limit)),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        let room = limit - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if length > limit.max(MAX_DISCARDED) {
            break Some(too_large(limit));
        }
    };
    Received {
        bytes: kept.freeze(),
        problem,
    }
}

/// Reads a body that may be larger than what is kept of each. Its room goes with its last byte.
async fn read_large(
    budget: &BodyBudget,
    mut body: Body,
    BodyLimit(limit): BodyLimit,
) -> Result<Bytes, Problem> {
    let mut kept = Kept::new(budget.room());
    let mut pace = Pace::new(Instant::now());
    loop {
        let frame = tokio::select! {
            biased;
            () = kept.room.given_up() => return Err(no_room()),
            frame = timeout_at(pace.due, body.frame()) => frame,
        };
        let frame = match frame {
            Err(_) => return Err(Problem::too_slow(LATE)),
            Ok(None) => return Ok(kept.whole()),
            Ok(Some(frame)) => frame.map_err(|_| Problem::invalid("the body broke off"))?,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > limit - kept.length {
            return Err(too_large(limit));
        }
        let arrived_at = Instant::now();
        pace.arrived(data.len(), arrived_at);
        if !kept.add(&data).await {
            return Err(no_room());
        }
        // The time that it waited for room is not its own.
        pace.due += arrived_at.elapsed();
    }
}

/// Until when the next bytes of a body must come.
struct Pace {
    due: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            due: now + BodyLimit::FIRST,
        }
    }

    fn arrived(&mut self, bytes: usize, now: Instant) {
        let time = BodyLimit::time_of(bytes);
        self.due = (self.due + time).min(now + LONGEST_PAUSE);
    }
}

/// What is kept of a body: blocks, so that nothing is twice in memory while it grows.
struct Kept {
    blocks: Vec<Vec<u8>>,
    length: usize,
    room: Room,
}

impl Kept {
    fn new(room: Room) -> Self {
        Self {
            blocks: Vec::new(),
            length: 0,
            room,
        }
    }

    /// Adds what has arrived. False where there is no room.
    async fn add(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let free = self.blocks.len() * BLOCK - self.length;
            if free == 0 {
                // The first one is every body's own.
                if !self.blocks.is_empty() && !self.room.take().await {
                    return false;
                }
                self.blocks.push(Vec::with_capacity(BLOCK));
                continue;
            }
            let (now, later) = data.split_at(free.min(data.len()));
            if let Some(block) = self.blocks.last_mut() {
                block.extend_from_slice(now);
            }
            self.length += now.len();
            data = later;
        }
        true
    }

    /// The body in one piece. Its room is free when the last of it is dropped.
    fn whole(mut self) -> Bytes {
        self.room.arrived();
        if self.blocks.len() <= 1 {
            return self.blocks.pop().unwrap_or_default().into();
        }
        let mut bytes = Vec::with_capacity(self.length);
        for block in self.blocks {
            bytes.extend_from_slice(&block);
        }
        Bytes::from_owner(Whole {
            bytes,
            _room: self.room,
        })
    }
}

/// A body that takes up room.
struct Whole {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn refused(problem: Problem) -> Received {
    Received {
        bytes: Bytes::new(),
        problem: Some(problem),
    }
}

fn no_room() -> Problem {
    // No line in the log: strangers would write it.
    Problem::overloaded("too much of large bodies is arriving, and this one was the slowest")
}

fn too_large(limit: usize) -> Problem {
    let detail = format!("the body is larger than {limit} bytes");
    Problem::of(kind::TOO_LARGE, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: BodyLimit = BodyLimit(4 * 1024 * 1024);

    fn body(length: usize, pieces: usize) -> (Vec<u8>, Body) {
        let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
        let chunks: Vec<_> = bytes.chunks(pieces).map(<[u8]>::to_vec).collect();
        let chunks = chunks.into_iter().map(Ok::<_, std::io::Error>);
        (bytes, Body::from_stream(futures_util::stream::iter(chunks)))
    }

    #[tokio::test]
    async fn a_large_body_is_the_same_in_whatever_pieces_it_comes_and_gives_its_room_back() {
        let budget = BodyBudget::of(64);
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, LIMIT.0] {
            for pieces in [1000, BLOCK, BLOCK + 1, LIMIT.0] {
                let (bytes, body) = body(length, pieces);
                let received = read_within(&budget, body, LIMIT).await;
                assert!(received.problem.is_none(), "{length} in {pieces}");
                assert!(received.bytes == bytes, "{length} in {pieces}");
            }
        }
        let (_, larger) = body(LIMIT.0 + 1, BLOCK);
        let problem = read_within(&budget, larger, LIMIT).await.problem;
        assert_eq!(problem.map(|problem| problem.code), Some("too_large"));
    }

    #[tokio::test]
    async fn a_body_keeps_its_room_until_the_last_part_of_it_is_dropped() {
        let budget = BodyBudget::of(2);
        let (_, one) = body(3 * BLOCK, BLOCK);
        let part = read_within(&budget, one, LIMIT).await.bytes.slice(5..6);
        let (_, two) = body(BLOCK + 1, BLOCK);
        let refused = read_within(&budget, two, LIMIT).await.problem;
        assert_eq!(refused.map(|problem| problem.code), Some("overloaded"));
        let (_, small) = body(BLOCK, BLOCK);
        assert!(read_within(&budget, small, LIMIT).await.problem.is_none());
        drop(part);
        let (_, three) = body(3 * BLOCK, BLOCK);
        assert!(read_within(&budget, three, LIMIT).await.problem.is_none());
    }

    #[test]
    fn a_body_is_due_at_64_kib_a_second_and_saves_up_no_more_than_a_pause() {
        let now = Instant::now();
        let after = |millis| now + Duration::from_millis(millis);
        let mut pace = Pace::new(now);
        assert_eq!(pace.due, after(1000));
        pace.arrived(BLOCK / 2, after(900));
        assert_eq!(pace.due, after(1500));
        pace.arrived(LIMIT.0, after(1400));
        assert_eq!(pace.due, after(3400));
    }
}
