//! What goes wrong again and again is said at once, and then at growing intervals, with a count.

use std::time::{Duration, Instant};

const FIRST_INTERVAL: Duration = Duration::from_secs(2);
const LONGEST_INTERVAL: Duration = Duration::from_mins(5);
/// After so long without trouble the next one is a new one.
const QUIET: Duration = Duration::from_mins(1);

/// One thing that may go wrong again and again.
#[derive(Debug, Default)]
pub struct LogThrottle {
    said: Option<Said>,
}

#[derive(Debug)]
struct Said {
    what: String,
    at: Instant,
    interval: Duration,
    last_at: Instant,
    passed_over: u64,
}

impl LogThrottle {
    /// One that has not gone wrong yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { said: None }
    }

    /// It has gone wrong again, or for the first time: whether that is to be said now, and if so how many times were passed over since it was said last.
    /// Another cause than the one before, not only another number in it, is said at once.
    pub fn admit(&mut self, cause: &str) -> Option<u64> {
        let now = Instant::now();
        let Some(said) = &mut self.said else {
            self.said = Some(Said::new(cause, now));
            return Some(0);
        };
        if now.duration_since(said.last_at) > QUIET {
            *said = Said::new(cause, now);
            return Some(0);
        }
        said.last_at = now;
        let due = now.duration_since(said.at) >= said.interval;
        if !due && is_same(&said.what, cause) {
            said.passed_over += 1;
            return None;
        }
        if due {
            said.interval = LONGEST_INTERVAL.min(said.interval * 2);
        }
        cause.clone_into(&mut said.what);
        said.at = now;
        Some(std::mem::take(&mut said.passed_over))
    }
}

fn is_same(one: &str, other: &str) -> bool {
    let without_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    without_numbers(one) == without_numbers(other)
}

impl Said {
    fn new(cause: &str, now: Instant) -> Self {
        Self {
            what: cause.to_owned(),
            at: now,
            interval: FIRST_INTERVAL,
            last_at: now,
            passed_over: 0,
        }
    }
}
