//! The sessions that streams wait for. One statement asks for all of them at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::caller::SessionId;

/// How often each stream looks whether its session has ended.
const EVERY: Duration = Duration::from_secs(2);
/// The least time between two statements: an answer that is younger holds for all.
const LEAST: Duration = Duration::from_millis(1500);

/// Sessions, each with those who wait for its end.
#[derive(Debug, Default)]
pub struct Watched {
    all: Mutex<All>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct All {
    sessions: HashMap<SessionId, State>,
    /// When the database was last asked.
    asked_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    watchers: usize,
    has_ended: bool,
    ends_at: Option<Instant>,
}

/// One who waits for the end of a session.
#[derive(Debug)]
pub struct Watch<'a> {
    watched: &'a Watched,
    id: SessionId,
}

impl Watched {
    /// Waits for the end of a session, from now on.
    pub fn add(&self, id: SessionId) -> Watch<'_> {
        self.lock().sessions.entry(id).or_default().watchers += 1;
        Watch { watched: self, id }
    }

    /// Tells those who wait for a session when it ends by itself; none: it has ended.
    pub fn set(&self, id: SessionId, ends_at: Option<Instant>) {
        if let Some(state) = self.lock().sessions.get_mut(&id) {
            state.has_ended |= ends_at.is_none();
            state.ends_at = ends_at.or(state.ends_at);
        }
        if ends_at.is_none() {
            self.ended.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch<'_> {
    /// Whether its session has ended, as far as is known.
    pub fn has_ended(&self) -> bool {
        let all = self.watched.lock();
        let state = all.sessions.get(&self.id);
        state.is_none_or(|state| {
            state.has_ended || state.ends_at.is_some_and(|at| Instant::now() >= at)
        })
    }

    /// Waits for the next moment to look. Returns the sessions to ask the database for, if it is
    /// this one's turn to do that for all.
    pub async fn turn(&self) -> Option<Vec<SessionId>> {
        let ended = self.watched.ended.notified();
        if self.has_ended() {
            return None;
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = ended => return None,
        }
        let mut all = self.watched.lock();
        let now = Instant::now();
        if all
            .asked_at
            .is_some_and(|at| now.duration_since(at) < LEAST)
        {
            return None;
        }
        all.asked_at = Some(now);
        Some(all.sessions.keys().copied().collect())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut all = self.watched.lock();
        if let Some(state) = all.sessions.get_mut(&self.id) {
            state.watchers -= 1;
            if state.watchers == 0 {
                all.sessions.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_session_learns_of_its_end_at_once() {
        let watched = Watched::default();
        let [one, other] = [SessionId([1; 32]), SessionId([2; 32])];
        let (watch, second, others) = (watched.add(one), watched.add(one), watched.add(other));
        let soon = Instant::now() + Duration::from_hours(1);
        watched.set(one, Some(soon));
        assert!(!watch.has_ended() && !others.has_ended());
        let told = async {
            while !watch.has_ended() {
                watch.turn().await;
            }
        };
        let end = async { watched.set(one, None) };
        let (told, ()) = tokio::join!(timeout(Duration::from_secs(1), told), end);
        assert!(told.is_ok() && second.has_ended() && !others.has_ended());
        // An answer from before does not bring it back.
        watched.set(one, Some(soon));
        assert!(watch.has_ended());
        watched.set(other, Some(Instant::now()));
        assert!(others.has_ended());
        drop((watch, second, others));
        assert!(watched.lock().sessions.is_empty());
    }

    #[tokio::test]
    async fn one_of_those_who_wait_asks_for_all() {
        let watched = Watched::default();
        let [one, other] = [SessionId([1; 32]), SessionId([2; 32])];
        let (first, second) = (watched.add(one), watched.add(other));
        let (first, second) = tokio::join!(first.turn(), second.turn());
        let asked: Vec<_> = first.into_iter().chain(second).collect();
        assert_eq!(asked.len(), 1);
        let mut ids = asked.concat();
        ids.sort_unstable();
        assert_eq!(ids, [one, other]);
    }
}
