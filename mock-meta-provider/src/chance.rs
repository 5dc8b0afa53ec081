//! Every random choice. It depends on the seed and on what it is about, never on other calls.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

use crate::behaviour::Behaviour;
use crate::fault::Fault;

/// What is decided about one call of `POST /messages`.
#[derive(Debug, PartialEq)]
pub(crate) struct CallPlan {
    pub(crate) fault: Fault,
    pub(crate) delay: Duration,
}

/// What is decided about one inbound event.
#[derive(Debug, PartialEq)]
pub(crate) struct InboundPlan {
    pub(crate) duplicate: bool,
    pub(crate) out_of_order: bool,
    /// When the event is posted again, one or two times, counted from its first post.
    pub(crate) repeats: Vec<Duration>,
    /// How long after the event that overtook it this one is posted.
    pub(crate) lateness: Duration,
}

/// Decides about a call by its key and its number among the calls of that key, from 1.
pub(crate) fn plan_call(seed: u64, behaviour: &Behaviour, key: &str, number: u64) -> CallPlan {
    plan_call_with(seed, behaviour, key, number, |kind, _| match kind {
        // Rare, because its caller pauses the whole channel.
        0 => Fault::rate_limit(),
        1..5 => Fault::server_error(500),
        _ => Fault::server_error(503),
    })
}

/// Decides about a call whose random failures are these.
pub(crate) fn plan_call_with(
    seed: u64,
    behaviour: &Behaviour,
    key: &str,
    number: u64,
    failure: impl FnOnce(u8, &mut StdRng) -> Fault,
) -> CallPlan {
    let mut rng = rng(seed, "call", key, number);
    // Always draw everything, so that a change of one rate changes no other choice.
    let (share, kind) = (rng.random::<f64>(), rng.random_range(0..10));
    let server_error = if rng.random_bool(0.5) { 500 } else { 503 };
    let delay = rng.random_range(0..=behaviour.delay_max_ms);
    CallPlan {
        fault: pick_fault(behaviour, share, failure(kind, &mut rng), server_error),
        delay: Duration::from_millis(delay),
    }
}

fn pick_fault(behaviour: &Behaviour, share: f64, failure: Fault, server_error: u16) -> Fault {
    let shares = [
        (behaviour.rate_limit_rate, Fault::rate_limit()),
        (
            behaviour.server_error_rate,
            Fault::server_error(server_error),
        ),
        (behaviour.reject_rate, Fault::Reject),
        (behaviour.lost_answer_rate, Fault::LostAnswer),
        (behaviour.reset_rate, Fault::Reset),
        (behaviour.hang_rate, Fault::Hang),
        (behaviour.unreadable_rate, Fault::Unreadable),
        (behaviour.failure_rate, failure),
    ];
    let mut up_to = 0.0;
    for (rate, fault) in shares {
        up_to += rate;
        if share < up_to {
            return fault;
        }
    }
    Fault::Ok
}

/// Decides about an inbound event by its id, or by its number where the id is made up.
pub(crate) fn plan_inbound(seed: u64, behaviour: &Behaviour, event: &str) -> InboundPlan {
    let mut rng = rng(seed, "inbound", event, 0);
    let duplicate = rng.random::<f64>() < behaviour.duplicate_rate;
    let out_of_order = rng.random::<f64>() < behaviour.out_of_order_rate;
    let lateness = Duration::from_millis(rng.random_range(0..=1000));
    let times = rng.random_range(1..=2);
    let repeats = (0..times).map(|_| Duration::from_millis(rng.random_range(0..=1500)));
    InboundPlan {
        duplicate,
        out_of_order,
        repeats: repeats.collect(),
        lateness,
    }
}

/// Draws the wait after a try: it doubles up to `cap`, and half of it is random.
pub(crate) fn backoff(
    seed: u64,
    event: &str,
    tries: u32,
    base: Duration,
    cap: Duration,
) -> Duration {
    let exponential = base.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1)));
    let half = exponential.min(cap) / 2;
    half + half.mul_f64(rng(seed, "backoff", event, u64::from(tries)).random::<f64>())
}

pub(crate) fn rng(seed: u64, purpose: &str, id: &str, number: u64) -> StdRng {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    hash.update(number.to_be_bytes());
    hash.update(purpose);
    hash.update([0]);
    hash.update(id);
    StdRng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(5);

    #[test]
    fn the_backoff_doubles_up_to_the_cap_and_half_of_it_is_chance() {
        for (tries, longest) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (6, 3200),
            (7, 5000),
            (1000, 5000),
        ] {
            let longest = Duration::from_millis(longest);
            for event in 0..100 {
                let wait = backoff(1, &format!("evt_{event}"), tries, BASE, CAP);
                assert!(wait >= longest / 2 && wait <= longest, "{tries}: {wait:?}");
            }
        }
    }

    #[test]
    fn changing_one_rate_changes_no_other_choice() {
        let one = Behaviour {
            delay_max_ms: 1000,
            reject_rate: 0.3,
            ..Behaviour::CALM
        };
        let other = Behaviour {
            failure_rate: 0.5,
            ..one.clone()
        };
        for key in 0..100 {
            let key = format!("key-{key}");
            let (one, other) = (plan_call(1, &one, &key, 1), plan_call(1, &other, &key, 1));
            assert_eq!(one.delay, other.delay);
            assert!(one.fault == other.fault || one.fault == Fault::Ok);
        }
    }
}
