//! Compares what was promised with what was seen: the gateway's answers, the inbox and the
//! provider's ledger.

mod whatsapp;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use indicatif::HumanCount;
use mock_meta_provider::{Ledger, LedgerMessage};

use super::client::MessageView;
use super::drive::Seen;
use super::guarantee::Guarantee;
use super::plan::{Conversation, RETRY_AFTER_SECONDS};
use super::scenario::Scenario;
use super::whatsapp::{WITNESS, Wire};

/// Characters of a preview.
const PREVIEW: usize = 200;

/// All that is known after a run.
pub struct Evidence<'a> {
    /// The requests, and what was seen of them.
    pub conversations: &'a [(Conversation, Seen)],
    pub ledger: &'a Ledger,
    pub ordered: bool,
    pub wire: Wire,
}

impl Evidence<'_> {
    /// Checks each guarantee that was tried.
    pub fn check(&self) -> Vec<Guarantee> {
        let mut guarantees = vec![self.acknowledged()];
        if self.count(|(conversation, _)| conversation.events.len()) > 0 {
            guarantees.push(self.one_message_an_event());
            guarantees.push(self.unread_count());
        }
        if self.count(|(conversation, _)| conversation.sends.len()) > 0 {
            guarantees.push(self.one_record_a_send());
            guarantees.push(self.one_delivery_a_record());
            guarantees.push(self.nothing_is_stuck());
            if self.ordered {
                guarantees.push(self.delivered_in_order());
            }
            if self.wire == Wire::Whatsapp {
                guarantees.push(self.told_in_the_end());
                guarantees.extend(self.lost_answers_are_settled());
                guarantees.extend(self.held_in_silence());
            }
        }
        guarantees.push(self.listed_in_order());
        guarantees.push(self.preview());
        guarantees.extend(self.retry_after());
        guarantees
    }

    fn acknowledged(&self) -> Guarantee {
        let requests = self.count(|(conversation, _)| conversation.requests().count());
        let repeated = self.count(|(_, seen)| seen.repeated);
        let unacknowledged: Vec<String> = self.flat(|(_, seen)| seen.unacknowledged.clone());
        let observed = format!(
            "{} acknowledged, {} when repeated",
            number(requests - unacknowledged.len()),
            number(repeated)
        );
        let tried = format!("{} requests", number(requests));
        Guarantee::new(
            "no request is refused for good",
            tried,
            observed,
            unacknowledged,
        )
    }

    fn one_message_an_event(&self) -> Guarantee {
        let events = self.count(|(conversation, _)| conversation.events.len());
        let deliveries = self.count(|(_, seen)| seen.events.iter().map(Vec::len).sum());
        let messages = self.count(|(_, seen)| seen.messages(Side::Inbound).count());
        let violations = self.flat(|(conversation, seen)| {
            let mut violations = seen.violations(Side::Inbound, inbound(conversation, seen));
            for (event, answers) in conversation.events.iter().zip(&seen.events) {
                let times_new = answers.iter().filter(|answer| !answer.duplicate).count();
                if times_new > 1 {
                    violations.push(format!("{}: new {times_new} times", event.id));
                }
            }
            violations
        });
        Guarantee::new(
            "an event is one message",
            format!(
                "{} events, delivered {} times",
                number(events),
                number(deliveries)
            ),
            format!("{} messages", number(messages)),
            violations,
        )
    }

    fn one_record_a_send(&self) -> Guarantee {
        let sends = self.count(|(conversation, _)| conversation.sends.len());
        let requests = self.count(|(_, seen)| seen.sends.iter().map(Vec::len).sum());
        let records = self.count(|(_, seen)| seen.messages(Side::Outbound).count());
        let violations = self.flat(|(conversation, seen)| {
            seen.violations(Side::Outbound, outbound(conversation, seen))
        });
        Guarantee::new(
            "a send is one record",
            format!(
                "{} messages, asked for {} times",
                number(sends),
                number(requests)
            ),
            format!("{} records", number(records)),
            violations,
        )
    }

    fn one_delivery_a_record(&self) -> Guarantee {
        let keys = self.keys();
        let mut ledger: HashMap<String, u64> = keys
            .clone()
            .map(|key| (record_id(&key.idempotency_key), key.deliveries))
            .collect();
        let mut violations = Vec::new();
        let mut records = 0;
        for (_, seen) in self.conversations {
            for record in seen.messages(Side::Outbound) {
                records += 1;
                let deliveries = ledger.remove(&*record.id).unwrap_or_default();
                let is_missing = record.status == "SENT" && deliveries == 0;
                if deliveries > 1 || is_missing {
                    let (id, status) = (&record.id, &record.status);
                    violations.push(format!("{id}: {status}, delivered {deliveries} times"));
                }
            }
        }
        let strangers = ledger.into_keys();
        violations.extend(
            strangers.map(|key| format!("{key}: the provider knows it, the inbox does not")),
        );
        let calls: u64 = keys.map(|key| key.calls).sum();
        let tried = format!("{} records, {} calls", number(records), HumanCount(calls));
        let deliveries: u64 = self.keys().map(|key| key.deliveries).sum();
        let observed = format!("{} deliveries", HumanCount(deliveries));
        Guarantee::new("a record is one delivery", tried, observed, violations)
    }

    fn nothing_is_stuck(&self) -> Guarantee {
        let records = self.count(|(_, seen)| seen.messages(Side::Outbound).count());
        let unsent = self.flat(|(_, seen)| {
            let unsent = seen
                .messages(Side::Outbound)
                .filter(|record| record.status != "SENT" && !self.is_held(record));
            let messages = unsent.map(|record| {
                let error = record
                    .last_error
                    .as_ref()
                    .map_or("none", |error| &*error.kind);
                format!("{}: {}, last error: {error}", record.id, record.status)
            });
            messages.collect()
        });
        let tried = format!("{} records", number(records));
        let held = self.count(|(_, seen)| {
            let records = seen.messages(Side::Outbound);
            records.filter(|record| self.is_held(record)).count()
        });
        let mut observed = format!("{} left unsent", number(unsent.len()));
        if held > 0 {
            observed = format!("{observed}, {} held for an operator", number(held));
        }
        Guarantee::new("nothing is stuck", tried, observed, unsent)
    }

    fn unread_count(&self) -> Guarantee {
        self.each("unreadCount is a recount's", |conversation, seen| {
            let count = seen.view.as_ref()?.unread_count;
            let events = seen
                .events
                .iter()
                .filter(|answers| !answers.is_empty())
                .count();
            let is_right = count == events;
            let message = format!("unreadCount is {count}, with {events} events");
            (!conversation.events.is_empty()).then_some((is_right, message))
        })
    }

    fn delivered_in_order(&self) -> Guarantee {
        let known = self.ledger.conversations.iter();
        let delivered: HashMap<&str, &[String]> = known
            .map(|known| (&*known.participant_id, &*known.texts))
            .collect();
        self.each(
            "messages are delivered in the order they were enqueued",
            |conversation, _| {
                let texts = delivered.get(&*conversation.participant)?;
                // Whether one is missing or comes twice is for another promise.
                let mut before = HashSet::new();
                let mut first = texts.iter().filter(|text| before.insert(*text));
                let mut sends = conversation.sends.iter().map(|send| &send.text);
                let is_right = first.all(|text| sends.any(|next| next == text));
                Some((is_right, "delivered in another order".to_owned()))
            },
        )
    }

    fn listed_in_order(&self) -> Guarantee {
        self.each("messages are listed by (time, id)", |conversation, seen| {
            let listed = seen
                .view
                .as_ref()?
                .messages
                .iter()
                .map(|message| &*message.text);
            let is_right = listed.eq(newest_first(conversation, seen));
            Some((is_right, "listed in another order".to_owned()))
        })
    }

    fn preview(&self) -> Guarantee {
        self.each(
            "the preview is the newest message's",
            |conversation, seen| {
                let view = seen.view.as_ref()?;
                let newest = *newest_first(conversation, seen).first()?;
                let preview: String = newest.chars().take(PREVIEW).collect();
                let message = view.messages.iter().find(|message| message.text == newest);
                let at = message.map(|message| message.timestamp);
                let is_right =
                    view.last_message_preview == preview && at == Some(view.last_message_at);
                Some((is_right, "the preview is another one's".to_owned()))
            },
        )
    }

    /// What the provider knows of the participants' messages.
    fn keys(&self) -> impl Iterator<Item = &LedgerMessage> + Clone {
        let keys = self.ledger.messages.iter();
        keys.filter(|key| key.participant_id != WITNESS)
    }

    /// Only the answer to a send has both: when its attempt ended, and when the next one is.
    fn retry_after(&self) -> Option<Guarantee> {
        let waits: Vec<(&str, i64)> = self
            .conversations
            .iter()
            .filter(|(conversation, _)| conversation.scenario == Scenario::RateLimit)
            .flat_map(|(_, seen)| seen.sends.iter().flatten())
            .filter(|answer| {
                answer
                    .last_error
                    .as_ref()
                    .is_some_and(|error| error.kind == "rate_limited")
            })
            .filter_map(|answer| {
                let wait = answer.next_attempt_at? - answer.updated_at;
                Some((&*answer.id, wait.num_milliseconds()))
            })
            .collect();
        let shortest = waits.iter().map(|(_, wait)| *wait).min()?;
        let least = i64::from(RETRY_AFTER_SECONDS) * 1000;
        let early = waits.iter().filter(|(_, wait)| *wait < least);
        let early = early.map(|(id, wait)| format!("{id}: tried again after {wait} ms"));
        Some(Guarantee::new(
            "Retry-After is waited for",
            format!("{} answers 429, {least} ms", number(waits.len())),
            format!("waits of {shortest} ms and more"),
            early.collect(),
        ))
    }

    /// A promise that each conversation keeps or breaks by itself. `of` says whether it is kept,
    /// and what the violation is; none if it was not tried.
    fn each(
        &self,
        promise: &'static str,
        of: impl Fn(&Conversation, &Seen) -> Option<(bool, String)>,
    ) -> Guarantee {
        let mut tried = 0;
        let mut violations = Vec::new();
        for (conversation, seen) in self.conversations {
            let Some((is_right, message)) = of(conversation, seen) else {
                continue;
            };
            tried += 1;
            if !is_right {
                violations.push(format!("{}: {message}", conversation.participant));
            }
        }
        let right = tried - violations.len();
        Guarantee::new(
            promise,
            format!("{} conversations", number(tried)),
            format!("{} right", number(right)),
            violations,
        )
    }

    fn count(&self, of: impl Fn(&(Conversation, Seen)) -> usize) -> usize {
        self.conversations.iter().map(of).sum()
    }

    fn flat(&self, of: impl Fn(&(Conversation, Seen)) -> Vec<String>) -> Vec<String> {
        self.conversations.iter().flat_map(of).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Inbound,
    Outbound,
}

/// A requested message, and the ids of the answers: one, or none if no request was acknowledged.
struct Requested<'a> {
    name: &'a str,
    text: &'a str,
    ids: HashSet<&'a str>,
}

fn inbound<'a>(
    conversation: &'a Conversation,
    seen: &'a Seen,
) -> impl Iterator<Item = Requested<'a>> + use<'a> {
    let events = conversation.events.iter().zip(&seen.events);
    events.map(|(event, answers)| Requested {
        name: &event.id,
        text: &event.text,
        ids: answers
            .iter()
            .filter_map(|answer| answer.message_id.as_deref())
            .collect(),
    })
}

fn outbound<'a>(
    conversation: &'a Conversation,
    seen: &'a Seen,
) -> impl Iterator<Item = Requested<'a>> + use<'a> {
    let sends = conversation.sends.iter().zip(&seen.sends);
    sends.map(|(send, answers)| Requested {
        name: &send.client_message_id,
        text: &send.text,
        ids: answers.iter().map(|answer| &*answer.id).collect(),
    })
}

impl Seen {
    fn messages(&self, side: Side) -> impl Iterator<Item = &MessageView> {
        let messages = self.view.iter().flat_map(|view| &view.messages);
        messages.filter(move |message| message.is_outbound() == (side == Side::Outbound))
    }

    /// Why these messages are not exactly the messages of the conversation, each once.
    fn violations<'a>(
        &'a self,
        side: Side,
        requested: impl Iterator<Item = Requested<'a>>,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        let mut stored: HashMap<&str, Vec<&str>> = HashMap::new();
        for message in self.messages(side) {
            stored.entry(&message.id).or_default().push(&message.text);
        }
        for Requested { name, text, ids } in requested {
            if ids.len() > 1 {
                violations.push(format!("{name}: answered with {} ids", ids.len()));
            }
            for id in ids {
                if stored.remove(id).is_none_or(|texts| texts != [text]) {
                    violations.push(format!(
                        "{name}: the conversation does not have {id} as it was"
                    ));
                }
            }
        }
        violations.extend(
            stored
                .into_keys()
                .map(|id| format!("{id}: nobody asked for it")),
        );
        violations
    }
}

/// The texts of a conversation in the order in which they must be listed. Sent messages are younger
/// than all events. Events sort by the provider's time, then by the message's id, which sorts as
/// its spelling does.
fn newest_first<'a>(conversation: &'a Conversation, seen: &'a Seen) -> Vec<&'a str> {
    let sent: Vec<&str> = outbound(conversation, seen)
        .filter(|requested| !requested.ids.is_empty())
        .map(|requested| requested.text)
        .collect();
    let mut received: Vec<_> = inbound(conversation, seen)
        .zip(&conversation.events)
        .filter_map(|(requested, event)| {
            Some((
                event.timestamp,
                *requested.ids.iter().min()?,
                requested.text,
            ))
        })
        .collect();
    received.sort_unstable_by_key(|(at, id, _)| Reverse((*at, *id)));
    let received = received.into_iter().map(|(_, _, text)| text);
    sent.into_iter().rev().chain(received).collect()
}

/// The id of the record that has this key at the provider: on WhatsApp's wire it is written in
/// another way.
fn record_id(key: &str) -> String {
    if key.starts_with("msg_") {
        return key.to_owned();
    }
    format!("msg_{}", key.replace('-', ""))
}

fn number(count: usize) -> String {
    HumanCount(count as u64).to_string()
}
