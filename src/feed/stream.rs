//! One subscriber's stream: what it has missed, then what is new, and a sign of life in between.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

use super::Reason;
use super::catch_up::{CatchUp, Missed};
use super::event::{self, id_line};
use super::places::Place;
use super::queue::Item;
use super::subscribers::{Feed, Joined, Subscription};
use crate::error::{self, Causes};
use crate::http::timestamp::Timestamp;

/// How often a stream says that it is alive. Proxies close what is silent for a minute.
const PING: Duration = Duration::from_secs(15);
/// How long to wait after the database failed.
const RETRY: Duration = Duration::from_millis(500);
/// A stream ends after this time, and up to half as much more: then its caller's rights are looked
/// at again, and processes share the streams evenly.
const LEAST_LIFE: Duration = Duration::from_mins(10);
const MORE_LIFE: Duration = Duration::from_mins(5);
/// A position that nobody has: whoever comes back with it is told to fetch again.
const NOWHERE: &str = "0";

/// Where a subscriber begins.
#[derive(Debug)]
pub enum Start {
    /// With what is new.
    Now,
    /// Behind this token.
    Behind(String),
}

/// What is sent to a subscriber.
struct Live {
    feed: Arc<Feed>,
    subscription: Subscription,
    /// What is sent before anything else.
    ready: VecDeque<Bytes>,
    /// What it has missed, and until when it is told.
    catch_up: Option<CatchUp>,
    /// The last event of that so far: it waits for the position that goes with it.
    held: Option<Bytes>,
    joined_id: Bytes,
    /// The line of the last position that it was told.
    told: Bytes,
    ping: Interval,
    _place: Place,
}

/// The stream of a subscriber. It ends after its time, and when `ended` does.
pub fn stream(
    feed: Arc<Feed>,
    joined: Joined,
    start: &Start,
    place: Place,
    ended: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let live = Live::new(feed, joined, start, place);
    let life = LEAST_LIFE + MORE_LIFE.mul_f64(rand::random());
    let end = async move {
        tokio::select! {
            () = ended => {}
            () = sleep(life) => {}
        }
    };
    let events = stream::unfold(live, |mut live| async {
        let bytes = live.next().await;
        Some((Ok(bytes), live))
    });
    events.take_until(Box::pin(end))
}

impl Live {
    fn new(feed: Arc<Feed>, joined: Joined, start: &Start, place: Place) -> Self {
        // Until what it has missed is told, a subscriber that comes back is where it was.
        let (told, from) = match start {
            Start::Now => (joined.id.clone(), Some(joined.position.clone())),
            Start::Behind(token) => match joined.epoch.position(token) {
                Some(from) => (id_line(token), Some(from)),
                None => (id_line(NOWHERE), None),
            },
        };
        let missed = from.filter(|from| *from != joined.position);
        let is_unknown = told[..] == id_line(NOWHERE)[..];
        let catch_up = missed.map(|from| CatchUp::new(from, &joined));
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut live = Self {
            feed,
            subscription: joined.subscription,
            ready: VecDeque::from([event::hello(&told, Timestamp(joined.now))]),
            catch_up,
            held: None,
            joined_id: joined.id,
            told,
            ping,
            _place: place,
        };
        if is_unknown {
            live.reset(Reason::Epoch);
        }
        live
    }

    /// The next bytes; waits for them.
    async fn next(&mut self) -> Bytes {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return bytes;
            }
            if let Some(catch_up) = &mut self.catch_up {
                let missed = tokio::select! {
                    biased;
                    _ = self.ping.tick() => return event::ping(&self.told),
                    missed = catch_up.next(&self.feed) => missed,
                };
                self.take_missed(missed).await;
                continue;
            }
            tokio::select! {
                biased;
                _ = self.ping.tick() => {
                    if let Some(id) = self.subscription.queue.take_position() {
                        self.told = id;
                    }
                    return event::ping(&self.told);
                }
                item = self.subscription.queue.next() => self.take(item),
            }
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Events(events) => self.ready.push_back(events),
            Item::Last(id, events) => self.ready.extend([id, events]),
            Item::Position(id) => self.told = id,
            Item::Reset(reason, id) => {
                self.ready.push_back(event::reset(&id, reason));
                self.told = id;
            }
        }
    }

    async fn take_missed(&mut self, missed: error::Result<Missed>) {
        match missed {
            Ok(Missed::Some(piece)) => {
                for part in piece.parts() {
                    let chosen = part.choose(&self.subscription.queue.filter);
                    if chosen.last.is_some() {
                        self.ready.extend(self.held.take());
                        self.ready.extend(chosen.first);
                        self.held = chosen.last;
                    }
                }
            }
            Ok(Missed::End) => {
                let last = self.held.take();
                let last = last.map(|last| [self.joined_id.clone(), last]);
                self.ready.extend(last.into_iter().flatten());
                self.end_catch_up();
            }
            Ok(Missed::Reset(reason)) => self.reset(reason),
            Err(error) => {
                tracing::debug!(error = %Causes(&error), "could not read what a subscriber has missed, retrying");
                sleep(RETRY).await;
            }
        }
    }

    /// Has the subscriber fetch again what it shows, in place of what it has missed.
    fn reset(&mut self, reason: Reason) {
        self.ready.push_back(event::reset(&self.joined_id, reason));
        self.end_catch_up();
    }

    fn end_catch_up(&mut self) {
        (self.catch_up, self.held) = (None, None);
        self.told = self.joined_id.clone();
    }
}
