//! What becomes of an accepted message at Meta. It is drawn when the message is accepted.

use std::time::Duration;

use rand::RngExt;

use super::behaviour::WhatsappBehaviour;
use crate::chance;

/// What becomes of one message.
#[derive(Debug)]
pub(crate) struct Fate {
    /// Each status with the wait before it, in the order in which they are posted.
    pub(crate) steps: Vec<(&'static str, Duration)>,
    /// The first status is posted before the call is answered.
    pub(crate) early: bool,
    /// The wait before the first status.
    pub(crate) late: Duration,
    /// When each body is posted again.
    pub(crate) repeat: Option<Duration>,
    /// All in one body, with others.
    pub(crate) batch: bool,
    /// A status of an unknown message comes first.
    pub(crate) foreign: bool,
    pub(crate) recipient: Recipient,
    /// The code of `failed`.
    pub(crate) code: u32,
}

/// How a status names its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipient {
    /// As it usually does.
    Usual,
    /// Not at all, and no contacts either.
    Bare,
    /// By the user id only.
    UserId,
}

/// Draws for the delivery with this number, from 1, of a key.
pub(crate) fn draw(
    seed: u64,
    behaviour: &WhatsappBehaviour,
    key: &str,
    number: u64,
    is_audio: bool,
) -> Fate {
    let mut rng = chance::rng(seed, "fate", key, number);
    // Always draw everything, so that a change of one rate changes no other choice.
    let mut is = |rate: f64| rng.random::<f64>() < rate;
    let early = is(behaviour.status_early_rate);
    let late = is(behaviour.status_late_rate);
    let duplicate = is(behaviour.status_duplicate_rate);
    let reverse = is(behaviour.status_out_of_order_rate);
    let batch = is(behaviour.status_batch_rate);
    let never = is(behaviour.status_never_rate);
    let failed = is(behaviour.status_failed_rate);
    let sent_first = is(0.5);
    let foreign = is(behaviour.status_foreign_rate);
    let bare = is(behaviour.status_bare_rate);
    let user_id = is(behaviour.status_user_id_rate);
    let read = is(behaviour.status_read_rate);
    let mut wait = |most: u64| Duration::from_millis(rng.random_range(0..=most));
    let repeat = wait(1500);
    let names: &[&'static str] = match (never, failed, sent_first, read, is_audio) {
        (true, ..) => &[],
        (_, true, true, ..) => &["sent", "failed"],
        (_, true, ..) => &["failed"],
        (_, _, _, true, true) => &["sent", "delivered", "read", "played"],
        (_, _, _, true, false) => &["sent", "delivered", "read"],
        _ => &["sent", "delivered"],
    };
    let mut steps: Vec<_> = names
        .iter()
        .map(|name| (*name, wait(behaviour.status_delay_max_ms)))
        .collect();
    if reverse {
        steps.reverse();
    }
    let late_ms = if late { behaviour.status_late_ms } else { 0 };
    Fate {
        steps,
        early: early && !late,
        late: Duration::from_millis(late_ms),
        repeat: duplicate.then_some(repeat),
        batch,
        foreign,
        recipient: match (bare, user_id) {
            (true, _) => Recipient::Bare,
            (_, true) => Recipient::UserId,
            _ => Recipient::Usual,
        },
        code: behaviour.status_failed_code,
    }
}
