//! What statuses say of one message together, whatever their order: a pure merge.

use chrono::{DateTime, Utc};

use crate::provider::whatsapp::events::{StatusError, StatusUpdate, Step};

/// The first time of each step, and the newest failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps<'a> {
    pub sent_at: Option<DateTime<Utc>>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
    pub played_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
    /// The number of what was at fault.
    pub error_code: Option<i64>,
    /// The rest of it, where it is not only known by its number.
    pub error: Option<&'a StatusError>,
}

impl<'a> Steps<'a> {
    /// Adds a status; whether it tells more. `receipt::record` does the same to the row.
    pub fn note(&mut self, update: &'a StatusUpdate) -> bool {
        let step = match update.step {
            Step::Sent => &mut self.sent_at,
            Step::Delivered => &mut self.delivered_at,
            Step::Read => &mut self.read_at,
            Step::Played => &mut self.played_at,
            Step::Failed => return self.fail(update),
        };
        let is_first = step.is_none_or(|known| update.at < known);
        if is_first {
            *step = Some(update.at);
        }
        is_first
    }

    /// One that says why is never replaced by one that does not.
    fn fail(&mut self, update: &'a StatusUpdate) -> bool {
        let code = update.error.as_ref().map(|error| error.code);
        let is_newest = self.failed_at.is_none_or(|known| {
            (code.is_some(), update.at, code) > (self.error_code.is_some(), known, self.error_code)
        });
        if is_newest {
            self.failed_at = Some(update.at);
            self.error_code = code;
            self.error = update.error.as_ref();
        }
        is_newest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn update(step: Step, second: i64, code: Option<i64>) -> StatusUpdate {
        StatusUpdate {
            wamid: "wamid.1".to_owned(),
            step,
            at: DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap(),
            recipient: None,
            opaque: None,
            error: code.map(|code| StatusError {
                code,
                title: format!("title {code}"),
                detail: None,
            }),
        }
    }

    fn merge(updates: &[StatusUpdate]) -> (Steps<'_>, Vec<bool>) {
        let mut steps = Steps::default();
        let new = updates.iter().map(|update| steps.note(update)).collect();
        (steps, new)
    }

    fn any_update() -> impl Strategy<Value = StatusUpdate> {
        let step = prop_oneof![
            Just(Step::Sent),
            Just(Step::Delivered),
            Just(Step::Read),
            Just(Step::Played),
            Just(Step::Failed),
        ];
        let code = proptest::option::of(131_000..131_003_i64);
        (step, 0..4_i64, code).prop_map(|(step, second, code)| {
            update(step, second, code.filter(|_| step == Step::Failed))
        })
    }

    #[test]
    fn the_first_time_of_a_step_counts_and_the_newest_failure() {
        let told = [
            update(Step::Delivered, 5, None),
            update(Step::Failed, 6, Some(131_026)),
            update(Step::Delivered, 4, None),
            update(Step::Failed, 9, Some(131_053)),
            update(Step::Failed, 7, Some(131_000)),
            update(Step::Failed, 10, None),
            update(Step::Delivered, 4, None),
        ];
        let (steps, new) = merge(&told);
        assert_eq!(new, [true, true, true, true, false, false, false]);
        assert_eq!(steps.delivered_at, Some(told[2].at));
        assert_eq!((steps.sent_at, steps.read_at), (None, None));
        assert_eq!(steps.failed_at, Some(told[3].at));
        assert_eq!(steps.error, told[3].error.as_ref());
    }

    proptest! {
        #[test]
        fn order_and_repetition_change_nothing(
            updates in proptest::collection::vec(any_update(), 0..8), shuffled in any::<proptest::sample::Index>(),
        ) {
            let (steps, _) = merge(&updates);
            let mut others = updates.clone();
            others.extend(updates.iter().take(3).cloned());
            let by = shuffled.index(others.len().max(1));
            others.rotate_left(by);
            others.reverse();
            prop_assert_eq!(merge(&others).0, steps);
            // Once all is known, nothing is new.
            let mut known = steps;
            for update in &updates {
                prop_assert!(!known.note(update));
            }
        }
    }
}
