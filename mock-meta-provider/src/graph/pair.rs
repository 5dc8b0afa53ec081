//! Meta's limit for one recipient: a message every 6 seconds, and 45 at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(6);
const BURST: u32 = 45;
/// The most recipients that are remembered.
const MAX_PAIRS: usize = 100_000;

/// For each recipient the time from which nothing is used up.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    full_at: HashMap<String, Instant>,
}

impl Pairs {
    /// Takes one message from a recipient's allowance; false when there is none left.
    pub(crate) fn take(&mut self, to: &str, now: Instant) -> bool {
        if self.full_at.len() >= MAX_PAIRS {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        let full_at = self.full_at.get(to).copied().unwrap_or(now).max(now) + EVERY;
        if full_at.duration_since(now) > EVERY * BURST {
            return false;
        }
        self.full_at.insert(to.to_owned(), full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_gets_45_at_once_and_then_one_every_6_seconds() {
        let (mut pairs, now) = (Pairs::default(), Instant::now());
        let taken =
            |pairs: &mut Pairs, to: &str, now| (0..100).take_while(|_| pairs.take(to, now)).count();
        assert_eq!(taken(&mut pairs, "1", now), 45);
        assert_eq!(taken(&mut pairs, "2", now), 45);
        assert_eq!(taken(&mut pairs, "1", now + Duration::from_millis(5999)), 0);
        assert_eq!(taken(&mut pairs, "1", now + EVERY), 1);
        assert_eq!(taken(&mut pairs, "1", now + EVERY * 100), 45);
    }
}
