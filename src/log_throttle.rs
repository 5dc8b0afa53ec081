//! Logs a repeated failure at once, and then at growing intervals, with the number of those left
//! out.

use std::time::{Duration, Instant};

const FIRST_INTERVAL: Duration = Duration::from_secs(2);
const LONGEST_INTERVAL: Duration = Duration::from_mins(5);
/// After this long without a failure, the next one counts as new.
const QUIET: Duration = Duration::from_mins(1);

/// One thing that may fail again and again.
#[derive(Debug, Default)]
pub struct LogThrottle {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    cause: String,
    logged_at: Instant,
    interval: Duration,
    failed_at: Instant,
    left_out: u64,
}

impl LogThrottle {
    /// Has not failed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// Reports a failure. Returns whether to log it and, if so, how many were left out since the
    /// last one. Another cause is logged at once, unless it differs only in its numbers.
    pub fn admit(&mut self, cause: &str) -> Option<u64> {
        let now = Instant::now();
        let Some(last) = &mut self.last else {
            self.last = Some(Last::new(cause, now));
            return Some(0);
        };
        if now.duration_since(last.failed_at) > QUIET {
            *last = Last::new(cause, now);
            return Some(0);
        }
        last.failed_at = now;
        let due = now.duration_since(last.logged_at) >= last.interval;
        if !due && is_same(&last.cause, cause) {
            last.left_out += 1;
            return None;
        }
        if due {
            last.interval = LONGEST_INTERVAL.min(last.interval * 2);
        }
        cause.clone_into(&mut last.cause);
        last.logged_at = now;
        Some(std::mem::take(&mut last.left_out))
    }
}

fn is_same(one: &str, other: &str) -> bool {
    let without_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    without_numbers(one) == without_numbers(other)
}

impl Last {
    fn new(cause: &str, now: Instant) -> Self {
        Self {
            cause: cause.to_owned(),
            logged_at: now,
            interval: FIRST_INTERVAL,
            failed_at: now,
            left_out: 0,
        }
    }
}
