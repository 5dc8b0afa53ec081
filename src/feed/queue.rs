//! What waits to be sent to one subscriber. It has a limit: when it is full, it is emptied, and the
//! subscriber is told to fetch again what it shows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::event::Chosen;
use super::{Filter, Reason};

/// The most runs of events that wait.
const MOST_RUNS: usize = 256;
/// The most bytes that wait; or one run, if that has more.
const MOST_BYTES: usize = 1024 * 1024;

/// The queue of one subscriber.
#[derive(Debug)]
pub struct Queue {
    pub filter: Filter,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// The last event so far of what is being told. It waits for the position that goes with it.
    held: Option<Bytes>,
    /// Everything before it is told, or will be by a reset. As the line of an event.
    id: Bytes,
    reset: Option<Reason>,
}

/// What is sent next.
#[derive(Debug)]
pub enum Item {
    /// Events.
    Events(Bytes),
    /// The last event of a group, and the line with its position.
    Last(Bytes, Bytes),
    /// Everything up to this position was told.
    Position(Bytes),
    /// It has lost something.
    Reset(Reason, Bytes),
}

impl Item {
    /// How many bytes of events it has.
    fn len(&self) -> usize {
        match self {
            Self::Events(events) | Self::Last(_, events) => events.len(),
            Self::Position(_) | Self::Reset(..) => 0,
        }
    }
}

impl Queue {
    /// An empty queue behind this position.
    #[must_use]
    pub fn new(filter: Filter, id: Bytes) -> Self {
        Self {
            filter,
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                held: None,
                id,
                reset: None,
            }),
            changed: Notify::new(),
        }
    }

    /// Puts events in; how many bytes these are.
    pub fn push(&self, chosen: Chosen) -> usize {
        let Some(last) = chosen.last else { return 0 };
        let mut state = self.state();
        if state.reset.is_some() {
            return 0;
        }
        let mut bytes = last.len();
        let held = state.held.replace(last);
        for run in held.into_iter().chain(chosen.first) {
            bytes += run.len();
            state.push(Item::Events(run));
        }
        if state.reset.is_some() || !state.items.is_empty() {
            self.changed.notify_one();
        }
        bytes
    }

    /// All events up to this position are in.
    pub fn end(&self, id: &Bytes) {
        let mut state = self.state();
        state.id = id.clone();
        if state.reset.is_some() {
            return;
        }
        if let Some(held) = state.held.take() {
            state.push(Item::Last(id.clone(), held));
            self.changed.notify_one();
        }
        if state.reset.is_none() {
            if let Some(Item::Position(last)) = state.items.back_mut() {
                *last = id.clone();
            } else {
                // Nobody is woken for it.
                state.items.push_back(Item::Position(id.clone()));
            }
        }
    }

    /// Empties it: the subscriber fetches again what it shows, and goes on from this position.
    pub fn reset(&self, reason: Reason, id: &Bytes) {
        let mut state = self.state();
        state.id = id.clone();
        state.overflow(reason);
        self.changed.notify_one();
    }

    /// Takes what is sent next; waits for it.
    pub async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.state().take() {
                return item;
            }
            self.changed.notified().await;
        }
    }

    /// Takes the position that it was told everything up to, if it waits for nothing else.
    #[must_use]
    pub fn take_position(&self) -> Option<Bytes> {
        let mut state = self.state();
        match state.items.pop_front()? {
            Item::Position(id) => Some(id),
            other => {
                state.items.push_front(other);
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, item: Item) {
        if self.reset.is_some() {
            return;
        }
        let bytes = self.bytes + item.len();
        if self.bytes > 0 && (self.items.len() >= MOST_RUNS || bytes > MOST_BYTES) {
            self.overflow(Reason::TooSlow);
            return;
        }
        self.bytes = bytes;
        self.items.push_back(item);
    }

    fn overflow(&mut self, reason: Reason) {
        self.items = VecDeque::new();
        self.bytes = 0;
        self.held = None;
        self.reset.get_or_insert(reason);
    }

    fn take(&mut self) -> Option<Item> {
        if let Some(reason) = self.reset.take() {
            return Some(Item::Reset(reason, self.id.clone()));
        }
        let item = self.items.pop_front()?;
        self.bytes -= item.len();
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &'static str, times: usize) -> Chosen {
        Chosen {
            first: Vec::new(),
            last: Some(text.repeat(times).into()),
        }
    }

    fn taken(queue: &Queue) -> Vec<Item> {
        std::iter::from_fn(|| queue.state().take()).collect()
    }

    fn id(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn the_last_event_of_a_group_has_its_position() {
        let queue = Queue::new(Filter::default(), id("0"));
        for text in ["a", "b", "c"] {
            queue.push(events(text, 1));
        }
        queue.end(&id("1"));
        queue.end(&id("2"));
        assert!(queue.take_position().is_none(), "events wait before it");
        let [
            Item::Events(a),
            Item::Events(b),
            Item::Last(at, c),
            Item::Position(then),
        ] = &taken(&queue)[..]
        else {
            panic!("other items");
        };
        assert_eq!([a, b, at, c, then], ["a", "b", "1", "c", "2"]);
        queue.end(&id("3"));
        assert_eq!(queue.take_position().as_deref(), Some(&b"3"[..]));
    }

    #[test]
    fn a_full_queue_is_emptied_and_goes_on_behind_a_reset() {
        for (what, times) in [("many", 1), ("long", MOST_BYTES / 4)] {
            let queue = Queue::new(Filter::default(), id("0"));
            queue.end(&id("1"));
            for _ in 0..MOST_RUNS + 2 {
                queue.push(events("x", times));
            }
            queue.end(&id("2"));
            assert_eq!(queue.push(events("lost", 1)), 0);
            let items = taken(&queue);
            let [Item::Reset(Reason::TooSlow, at)] = &items[..] else {
                panic!("{what}: {} items", items.len());
            };
            assert_eq!(at, "2", "{what}");
            queue.push(events("new", 1));
            queue.end(&id("3"));
            assert!(matches!(&taken(&queue)[0], Item::Last(at, _) if at == "3"));
        }
    }

    #[test]
    fn one_event_may_be_longer_than_a_queue() {
        let queue = Queue::new(Filter::default(), id("0"));
        queue.push(events("x", 2 * MOST_BYTES));
        queue.end(&id("1"));
        assert!(matches!(taken(&queue)[0], Item::Last(..)));
    }
}
