//! When to try again: exponential backoff with equal jitter. A longer `Retry-After` wins. Pure.
//!
//! "Equal jitter" as in Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog,
//! 2015): half of the wait is certain, the other half random.

use std::time::Duration;

use super::Next;
use crate::channel;
use crate::provider::{ErrorKind, Failure};

/// How often and how long a failed message is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Attempts that may fail before the message waits for an operator.
    pub max_attempts: u32,
    /// The first wait, before jitter.
    pub base: Duration,
    /// The longest wait, before jitter.
    pub cap: Duration,
    /// Whether a message that the provider may have accepted waits for an operator. For providers
    /// that deliver again although they know the idempotency key.
    pub holds_ambiguous: bool,
}

impl Backoff {
    /// What follows a failure, before which `failed_attempts` have failed.
    #[must_use]
    pub fn next(&self, failure: &Failure, failed_attempts: u32) -> Next {
        self.jittered(failure, failed_attempts, rand::random())
    }

    /// How long nobody calls the whole channel after such a failure: as long as the provider asks
    /// for, else as long as this message would wait, but for a minute at most.
    #[must_use]
    pub fn pause_after(&self, failure: &Failure, failed_attempts: u32) -> Option<Duration> {
        if failure.kind != ErrorKind::RateLimited {
            return None;
        }
        let asked_for = failure.retry_after.filter(|wait| !wait.is_zero());
        Some(asked_for.unwrap_or_else(|| {
            self.exponential(failed_attempts, rand::random())
                .min(channel::MAX_BACKOFF)
        }))
    }

    fn jittered(&self, failure: &Failure, failed_attempts: u32, random: f64) -> Next {
        let is_held = self.holds_ambiguous && failure.ambiguous;
        let is_last = failed_attempts.saturating_add(1) >= self.max_attempts;
        if !failure.retryable || is_held || is_last {
            return Next::Park;
        }
        let wait = self.exponential(failed_attempts, random);
        Next::Retry(wait.max(failure.retry_after.unwrap_or_default()))
    }

    fn exponential(&self, failed_attempts: u32, random: f64) -> Duration {
        let full = 2_u32
            .checked_pow(failed_attempts)
            .and_then(|factor| self.base.checked_mul(factor))
            .map_or(self.cap, |wait| wait.min(self.cap));
        full.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        max_attempts: 30,
        base: Duration::from_secs(1),
        cap: Duration::from_hours(1),
        holds_ambiguous: false,
    };

    fn wait(next: Next) -> Duration {
        match next {
            Next::Retry(wait) => wait,
            Next::Park => panic!("parked"),
        }
    }

    fn failure() -> Failure {
        Failure::new(ErrorKind::Connection, "reset")
    }

    #[test]
    fn the_wait_doubles_up_to_the_cap_and_half_of_it_is_random() {
        for (failures, full) in [(0, 1), (1, 2), (5, 32), (11, 2048), (12, 3600), (28, 3600)] {
            let full = Duration::from_secs(full);
            let wait = |random| wait(BACKOFF.jittered(&failure(), failures, random));
            assert_eq!(wait(0.0), full / 2, "{failures}");
            assert_eq!(wait(0.5), full * 3 / 4, "{failures}");
            assert!(wait(0.999_999) < full, "{failures}");
        }
    }

    #[test]
    fn the_budget_counts_settled_failures() {
        assert_ne!(BACKOFF.next(&failure(), 28), Next::Park);
        assert_eq!(BACKOFF.next(&failure(), 29), Next::Park);
        let once = Backoff {
            max_attempts: 1,
            ..BACKOFF
        };
        assert_eq!(once.next(&failure(), 0), Next::Park);
    }

    #[test]
    fn a_final_failure_is_not_tried_again() {
        let rejected = Failure::new(ErrorKind::Rejected, "no");
        assert_eq!(BACKOFF.next(&rejected, 0), Next::Park);
    }

    #[test]
    fn an_ambiguous_failure_is_held_where_that_is_asked_for() {
        let hold = Backoff {
            holds_ambiguous: true,
            ..BACKOFF
        };
        assert!(failure().ambiguous);
        assert_ne!(BACKOFF.next(&failure(), 0), Next::Park);
        assert_eq!(hold.next(&failure(), 0), Next::Park);
        let limited = Failure::new(ErrorKind::RateLimited, "429");
        assert_ne!(hold.next(&limited, 0), Next::Park);
    }

    #[test]
    fn a_longer_retry_after_wins_even_over_the_cap() {
        let asked = |seconds| Failure {
            retry_after: Some(Duration::from_secs(seconds)),
            ..failure()
        };
        let short = Backoff {
            cap: Duration::from_secs(2),
            ..BACKOFF
        };
        assert_eq!(wait(short.next(&asked(3600), 9)), Duration::from_hours(1));
        assert!(wait(BACKOFF.next(&asked(0), 0)) >= Duration::from_millis(500));
    }

    #[test]
    fn a_429_pauses_its_channel_as_long_as_it_asks_for_else_for_the_backoff_up_to_a_minute() {
        let limited = |retry_after| Failure {
            retry_after,
            ..Failure::new(ErrorKind::RateLimited, "429")
        };
        let hour = Duration::from_hours(1);
        assert_eq!(BACKOFF.pause_after(&limited(Some(hour)), 0), Some(hour));
        for asked_for in [None, Some(Duration::ZERO)] {
            let pause = |failures| BACKOFF.pause_after(&limited(asked_for), failures).unwrap();
            let first = Duration::from_millis(500)..=Duration::from_secs(1);
            assert!(first.contains(&pause(0)));
            assert_eq!(pause(29), Duration::from_mins(1));
        }
        assert_eq!(BACKOFF.pause_after(&failure(), 0), None);
    }

    #[test]
    fn the_defaults_add_up_to_about_half_a_day() {
        let total: Duration = (0..29)
            .map(|failures| wait(BACKOFF.jittered(&failure(), failures, 0.5)))
            .sum();
        let hours = total.as_secs() / 3600;
        assert!((10..16).contains(&hours), "{hours} h");
    }
}
