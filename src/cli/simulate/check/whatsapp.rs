//! What is promised on WhatsApp's wire beside the rest: statuses are believed, and what none came
//! for is not sent a second time.

use std::collections::HashMap;

use super::{Evidence, Side, number, record_id};
use crate::cli::simulate::client::MessageView;
use crate::cli::simulate::guarantee::Guarantee;
use crate::cli::simulate::scenario::Scenario;
use crate::cli::simulate::whatsapp::Wire;

impl Evidence<'_> {
    /// Whether it may have arrived, and the provider could not tell that it is the same message.
    pub(super) fn is_held(&self, record: &MessageView) -> bool {
        self.wire == Wire::Whatsapp && record.is_held()
    }

    pub(super) fn told_in_the_end(&self) -> Guarantee {
        let told = self.count(|(_, seen)| {
            let records = seen.messages(Side::Outbound);
            records
                .filter(|record| record.delivery_status.is_some())
                .count()
        });
        let records = self.count(|(_, seen)| seen.messages(Side::Outbound).count());
        let violations = self.flat(|(conversation, seen)| {
            let records = seen.messages(Side::Outbound);
            let missing = records.filter(|record| !conversation.is_told(record));
            let messages = missing.map(|record| {
                let step = record.delivery_status.as_deref().unwrap_or("nothing");
                format!("{}: {step} is known of it", record.id)
            });
            messages.collect()
        });
        Guarantee::new(
            "statuses in any order tell how far a message came",
            format!("{} records", number(records)),
            format!("{} told of", number(told)),
            violations,
        )
    }

    /// One call, whose answer was lost, and a status.
    pub(super) fn lost_answers_are_settled(&self) -> Option<Guarantee> {
        let calls = self.calls();
        let may_be_lost = |record: &&MessageView| {
            let error = record.last_error.as_ref();
            error.is_some_and(|error| error.ambiguous)
        };
        let (mut lost, mut settled) = (0, 0);
        for (conversation, seen) in self.conversations {
            if conversation.scenario != Scenario::LostAnswer {
                continue;
            }
            for record in seen.messages(Side::Outbound).filter(may_be_lost) {
                lost += 1;
                let is_one_call = calls.get(&record.id) == Some(&1);
                settled += usize::from(record.status == "SENT" && is_one_call);
            }
        }
        let none = "no status has settled a message".to_owned();
        (lost > 0).then(|| {
            Guarantee::new(
                "a status settles a message whose answer was lost",
                format!("{} answers lost", number(lost)),
                format!("{} settled without a second call", number(settled)),
                Vec::from_iter((settled == 0).then_some(none)),
            )
        })
    }

    /// Nothing tells whether they were accepted, so none is sent a second time.
    pub(super) fn held_in_silence(&self) -> Option<Guarantee> {
        let calls = self.calls();
        let silent = self.conversations.iter();
        let silent = silent.filter(|(conversation, _)| conversation.scenario == Scenario::Silence);
        let records: Vec<_> = silent
            .flat_map(|(_, seen)| seen.messages(Side::Outbound))
            .collect();
        let held = records.iter().filter(|record| record.is_held()).count();
        let wrong = records.iter().filter(|record| {
            let is_one_call = calls.get(&record.id) == Some(&1);
            !is_one_call || record.status != "SENT" && !record.is_held()
        });
        let violations = wrong.map(|record| {
            let calls = calls.get(&record.id).copied().unwrap_or_default();
            format!("{}: {} after {calls} calls", record.id, record.status)
        });
        let violations = violations.collect();
        (!records.is_empty()).then(|| {
            Guarantee::new(
                "what nobody told of is held, and not sent again",
                format!("{} records without statuses", number(records.len())),
                format!("{} held", number(held)),
                violations,
            )
        })
    }

    /// How often the provider was called for a record.
    fn calls(&self) -> HashMap<String, u64> {
        let keys = self.keys();
        keys.map(|key| (record_id(&key.idempotency_key), key.calls))
            .collect()
    }
}
