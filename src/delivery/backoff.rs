//! When to try again: exponential backoff with equal jitter. A longer `Retry-After` wins. Pure.
//!
//! "Equal jitter" as in Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog,
//! 2015): half of the wait is certain, the other half random.

use std::time::Duration;

use super::{Next, Tries};
use crate::channel;
use crate::provider::{ErrorKind, Failure, Reach};

/// The longest time that an ambiguous failure waits for evidence.
const MAX_RECONCILE: Duration = Duration::from_mins(15);
/// How long nobody writes to a participant who was written to too often; then four times as long.
const PAIR_WAIT: Duration = Duration::from_secs(6);
const PAIR_FACTOR: u32 = 4;
/// So often it grows, up to about seven hours.
const PAIR_STEPS: u32 = 6;

/// How often and how long a failed message is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Attempts that may fail before the message waits for an operator.
    pub max_attempts: u32,
    /// The first wait, before jitter.
    pub base: Duration,
    /// The longest wait, before jitter.
    pub cap: Duration,
    /// What becomes of a message that the provider may have accepted.
    pub ambiguity: Ambiguity,
}

/// What becomes of a message that the provider may have accepted although the attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// It is tried again as any other: the provider knows its idempotency key.
    Retry,
    /// It waits for an operator.
    Hold,
    /// It waits at least this long for word of its acceptance, each further time twice as long.
    Wait(Duration, Unproven),
}

/// What becomes of it when there is no evidence that such word would have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// It waits for an operator.
    Park,
    /// It is sent.
    Send,
}

impl Backoff {
    /// What follows a failure, after these tries.
    #[must_use]
    pub fn next(&self, failure: &Failure, tries: Tries) -> Next {
        self.jittered(failure, tries, rand::random())
    }

    /// How long nobody calls the whole channel after such a failure: as long as the provider asks
    /// for, else as long as this message would wait, but for a minute at most.
    #[must_use]
    pub fn pause_after(&self, failure: &Failure, tries: Tries) -> Option<Duration> {
        if failure.reach != Reach::Channel {
            return None;
        }
        if failure.kind == ErrorKind::Unauthorized {
            return Some(channel::TRIAL_EVERY);
        }
        let asked_for = failure.retry_after.filter(|wait| !wait.is_zero());
        Some(asked_for.unwrap_or_else(|| {
            self.exponential(tries.failed, rand::random())
                .min(channel::MAX_BACKOFF)
        }))
    }

    /// How long nobody writes to a participant after such a failure. Nothing shortens it.
    #[must_use]
    pub fn pair_pause_after(failure: &Failure, tries: Tries) -> Option<Duration> {
        if failure.reach != Reach::Conversation {
            return None;
        }
        let wait = PAIR_WAIT * PAIR_FACTOR.pow(tries.failed.min(PAIR_STEPS));
        Some(wait.max(failure.retry_after.unwrap_or_default()))
    }

    fn jittered(&self, failure: &Failure, tries: Tries, random: f64) -> Next {
        let is_held = self.ambiguity == Ambiguity::Hold && failure.ambiguous;
        let is_last = failure.counts && tries.failed.saturating_add(1) >= self.max_attempts;
        if !failure.retryable || is_held || is_last {
            return Next::Park;
        }
        let wait = match (self.ambiguity, failure.kind) {
            (Ambiguity::Wait(wait, _), _) if failure.ambiguous => {
                let factor = 2_u32.saturating_pow(tries.doubts);
                wait.saturating_mul(factor).min(MAX_RECONCILE)
            }
            (_, ErrorKind::Unauthorized) => channel::TRIAL_EVERY,
            _ => Self::pair_pause_after(failure, tries)
                .unwrap_or_else(|| self.exponential(tries.failed, random)),
        };
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
        ambiguity: Ambiguity::Retry,
    };

    fn after(failed: u32) -> Tries {
        Tries { failed, doubts: 0 }
    }

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
            let wait = |random| wait(BACKOFF.jittered(&failure(), after(failures), random));
            assert_eq!(wait(0.0), full / 2, "{failures}");
            assert_eq!(wait(0.5), full * 3 / 4, "{failures}");
            assert!(wait(0.999_999) < full, "{failures}");
        }
    }

    #[test]
    fn the_budget_counts_settled_failures() {
        assert_ne!(BACKOFF.next(&failure(), after(28)), Next::Park);
        assert_eq!(BACKOFF.next(&failure(), after(29)), Next::Park);
        let once = Backoff {
            max_attempts: 1,
            ..BACKOFF
        };
        assert_eq!(once.next(&failure(), after(0)), Next::Park);
    }

    #[test]
    fn a_final_failure_is_not_tried_again() {
        let rejected = Failure::new(ErrorKind::Rejected, "no");
        assert_eq!(BACKOFF.next(&rejected, after(0)), Next::Park);
    }

    #[test]
    fn an_ambiguous_failure_is_held_where_that_is_asked_for() {
        let hold = Backoff {
            ambiguity: Ambiguity::Hold,
            ..BACKOFF
        };
        assert!(failure().ambiguous);
        assert_ne!(BACKOFF.next(&failure(), after(0)), Next::Park);
        assert_eq!(hold.next(&failure(), after(0)), Next::Park);
        let limited = Failure::new(ErrorKind::RateLimited, "429");
        assert_ne!(hold.next(&limited, after(0)), Next::Park);
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
        assert_eq!(
            wait(short.next(&asked(3600), after(9))),
            Duration::from_hours(1)
        );
        assert!(wait(BACKOFF.next(&asked(0), after(0))) >= Duration::from_millis(500));
    }

    #[test]
    fn a_429_pauses_its_channel_as_long_as_it_asks_for_else_for_the_backoff_up_to_a_minute() {
        let limited = |retry_after| Failure {
            retry_after,
            reach: Reach::Channel,
            ..Failure::new(ErrorKind::RateLimited, "429")
        };
        let hour = Duration::from_hours(1);
        assert_eq!(
            BACKOFF.pause_after(&limited(Some(hour)), after(0)),
            Some(hour)
        );
        for asked_for in [None, Some(Duration::ZERO)] {
            let pause = |failures| {
                let pause = BACKOFF.pause_after(&limited(asked_for), after(failures));
                pause.unwrap()
            };
            let first = Duration::from_millis(500)..=Duration::from_secs(1);
            assert!(first.contains(&pause(0)));
            assert_eq!(pause(29), Duration::from_mins(1));
        }
        assert_eq!(BACKOFF.pause_after(&failure(), after(0)), None);
    }

    #[test]
    fn the_defaults_add_up_to_about_half_a_day() {
        let total: Duration = (0..29)
            .map(|failures| wait(BACKOFF.jittered(&failure(), after(failures), 0.5)))
            .sum();
        let hours = total.as_secs() / 3600;
        assert!((10..16).contains(&hours), "{hours} h");
    }

    #[test]
    fn what_may_have_been_accepted_waits_twice_as_long_each_time_up_to_15_minutes() {
        let reconciling = Backoff {
            ambiguity: Ambiguity::Wait(Duration::from_mins(1), Unproven::Park),
            ..BACKOFF
        };
        for (doubts, minutes) in [(0, 1), (1, 2), (3, 8), (4, 15), (28, 15), (u32::MAX, 15)] {
            let tries = Tries { failed: 3, doubts };
            let wait = wait(reconciling.next(&failure(), tries));
            assert_eq!(wait, Duration::from_mins(minutes), "{doubts}");
        }
        let surely_not = Failure {
            ambiguous: false,
            ..failure()
        };
        assert!(wait(reconciling.next(&surely_not, after(0))) <= Duration::from_secs(1));
        assert_eq!(reconciling.next(&failure(), after(29)), Next::Park);
    }

    #[test]
    fn a_throttled_pair_waits_four_times_as_long_each_time_whatever_the_cap_is() {
        let throttled = Failure {
            reach: Reach::Conversation,
            ..Failure::new(ErrorKind::RateLimited, "131056")
        };
        let short = Backoff {
            cap: Duration::from_millis(1),
            ..BACKOFF
        };
        for (failures, seconds) in [(0, 6), (1, 24), (2, 96), (6, 24_576), (28, 24_576)] {
            let seconds = Duration::from_secs(seconds);
            assert_eq!(wait(short.next(&throttled, after(failures))), seconds);
            let pause = Backoff::pair_pause_after(&throttled, after(failures));
            assert_eq!(pause, Some(seconds));
        }
        assert_eq!(BACKOFF.pause_after(&throttled, after(0)), None);
        assert_eq!(Backoff::pair_pause_after(&failure(), after(0)), None);
    }

    #[test]
    fn an_account_at_fault_is_tried_every_15_minutes_and_uses_up_no_budget() {
        let unauthorized = Failure {
            reach: Reach::Channel,
            ..Failure::new(ErrorKind::Unauthorized, "190")
        };
        for failures in [0, 28, 29, 1000] {
            let next = BACKOFF.next(&unauthorized, after(failures));
            assert_eq!(wait(next), Duration::from_mins(15));
            let pause = BACKOFF.pause_after(&unauthorized, after(failures));
            assert_eq!(pause, Some(Duration::from_mins(15)));
        }
    }
}
