//! When to try again: exponential backoff with equal jitter, which a longer `Retry-After` overrides. Pure.
//!
//! "Equal jitter" as in Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): half of the wait is
//! certain, the other half random.

use std::time::Duration;

use crate::channel;
use crate::provider::ErrorKind;
use crate::provider::Failure;

/// How often and how long a failed message is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Attempts that may fail before the message waits for an operator.
    pub max_attempts: u32,
    /// The first wait, before jitter.
    pub base: Duration,
    /// The longest wait, before jitter.
    pub cap: Duration,
    /// Whether a message that the provider may have accepted waits for an operator: for providers that deliver again whatever
    /// idempotency key they know.
    pub holds_ambiguous: bool,
}

impl Backoff {
    /// The wait after a failure, `failures` of which came before it; none when there is to be no further attempt.
    #[must_use]
    pub fn after(&self, failure: &Failure, failures: u32) -> Option<Duration> {
        self.jittered(failure, failures, rand::random())
    }

    /// How long the whole channel is left alone after such a failure: as long as the provider asks for, else as long as this message
    /// would wait, but for a minute at most.
    #[must_use]
    pub fn pause_after(&self, failure: &Failure, failures: u32) -> Option<Duration> {
        if failure.kind != ErrorKind::RateLimited {
            return None;
        }
        let asked_for = failure.retry_after.filter(|wait| !wait.is_zero());
        Some(asked_for.unwrap_or_else(|| {
            self.exponential(failures, rand::random())
                .min(channel::MAX_BACKOFF)
        }))
    }

    fn jittered(&self, failure: &Failure, failures: u32, random: f64) -> Option<Duration> {
        let is_held = self.holds_ambiguous && failure.ambiguous;
        if !failure.retryable || is_held || failures.saturating_add(1) >= self.max_attempts {
            return None;
        }
        let wait = self.exponential(failures, random);
        Some(wait.max(failure.retry_after.unwrap_or_default()))
    }

    fn exponential(&self, failures: u32, random: f64) -> Duration {
        let full = 2_u32
            .checked_pow(failures)
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

    fn failure() -> Failure {
        Failure::new(ErrorKind::Connection, "reset")
    }

    #[test]
    fn the_wait_doubles_up_to_the_cap_and_half_of_it_is_random() {
        for (failures, full) in [(0, 1), (1, 2), (5, 32), (11, 2048), (12, 3600), (28, 3600)] {
            let full = Duration::from_secs(full);
            let wait = |random| BACKOFF.jittered(&failure(), failures, random).unwrap();
            assert_eq!(wait(0.0), full / 2, "{failures}");
            assert_eq!(wait(0.5), full * 3 / 4, "{failures}");
            assert!(wait(0.999_999) < full, "{failures}");
        }
    }

    #[test]
    fn the_budget_counts_settled_failures() {
        assert!(BACKOFF.after(&failure(), 28).is_some());
        assert_eq!(BACKOFF.after(&failure(), 29), None);
        let once = Backoff {
            max_attempts: 1,
            ..BACKOFF
        };
        assert_eq!(once.after(&failure(), 0), None);
    }

    #[test]
    fn a_final_failure_is_not_tried_again() {
        let rejected = Failure::new(ErrorKind::Rejected, "no");
        assert_eq!(BACKOFF.after(&rejected, 0), None);
    }

    #[test]
    fn an_ambiguous_failure_is_held_where_that_is_asked_for() {
        let hold = Backoff {
            holds_ambiguous: true,
            ..BACKOFF
        };
        assert!(failure().ambiguous && BACKOFF.after(&failure(), 0).is_some());
        assert_eq!(hold.after(&failure(), 0), None);
        let limited = Failure::new(ErrorKind::RateLimited, "429");
        assert!(hold.after(&limited, 0).is_some());
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
        assert_eq!(short.after(&asked(3600), 9), Some(Duration::from_hours(1)));
        assert!(BACKOFF.after(&asked(0), 0).unwrap() >= Duration::from_millis(500));
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
            .map(|failures| BACKOFF.jittered(&failure(), failures, 0.5).unwrap())
            .sum();
        let hours = total.as_secs() / 3600;
        assert!((10..16).contains(&hours), "{hours} h");
    }
}
