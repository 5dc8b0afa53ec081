//! All that a run does. It follows from the seed, and is known before the first request.

use std::collections::HashSet;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use mock_meta_provider::Fault;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::scenario::Scenario;
use super::whatsapp::{self, Wire};
use crate::channel::Channel;

/// The most conversations of a scenario. For more events they become longer.
const MAX_CONVERSATIONS: usize = 500;
/// Events and messages of a conversation, until there are [`MAX_CONVERSATIONS`].
const LENGTH: usize = 10;
/// Provider calls of a conversation that fail.
const FAULTS: usize = 3;
/// Conversations in which the provider answers 429. Each 429 makes the whole channel wait.
const RATE_LIMITED: usize = 4;
/// The provider's `Retry-After`.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// 2025-01-01T00:00:00Z. The times of events are in the past, and the same in each run.
const FIRST_EVENT: i64 = 1_735_689_600;

/// The requests of one participant's conversation.
#[derive(Debug)]
pub struct Conversation {
    pub scenario: Scenario,
    pub channel: Channel,
    /// No other conversation has this one.
    pub participant: String,
    /// What the participant writes.
    pub events: Vec<Event>,
    /// What the participant is sent, in this order.
    pub sends: Vec<Send>,
    /// The requests of one step run at once. The next step begins when all are answered.
    pub steps: Vec<Vec<Request>>,
    /// The provider's answers to the calls for it. Later calls succeed.
    pub answers: Vec<Fault>,
}

/// An inbound event.
#[derive(Debug)]
pub struct Event {
    pub id: String,
    pub text: String,
    /// Some are equal.
    pub timestamp: DateTime<Utc>,
}

/// An outbound message.
#[derive(Debug)]
pub struct Send {
    pub client_message_id: String,
    /// No other message has the same.
    pub text: String,
}

/// A request, by its place among the events or the sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Event(usize),
    Send(usize),
}

/// What all scenarios of a run share.
#[derive(Debug)]
pub struct RunSettings {
    /// Decides all that is random.
    pub seed: u64,
    /// Every participant's name begins with it.
    pub prefix: String,
    /// Events, or messages, of a scenario.
    pub events: usize,
    /// An answer after this time comes when the gateway has given up.
    pub too_late_ms: u64,
    /// How the provider is spoken to.
    pub wire: Wire,
}

impl RunSettings {
    /// The same for one of several rounds, with participants and events of its own.
    pub fn round(&self, number: usize) -> Self {
        let name = match self.wire {
            Wire::MockMeta => format!("round-{number}-"),
            Wire::Whatsapp => number.to_string(),
        };
        Self {
            prefix: format!("{}{name}", self.prefix),
            ..*self
        }
    }

    pub fn plan(&self, scenario: Scenario) -> Vec<Conversation> {
        let length = LENGTH.max(self.events.div_ceil(MAX_CONVERSATIONS));
        let mut left = self.events;
        let mut conversations = Vec::new();
        while left > 0 {
            let planned = length.min(left);
            conversations.push(self.conversation(scenario, conversations.len(), planned));
            left -= planned;
        }
        conversations
    }

    fn conversation(&self, scenario: Scenario, number: usize, length: usize) -> Conversation {
        let mut rng = self.rng(scenario, number);
        let is_whatsapp = rng.random_bool(0.5) || self.wire == Wire::Whatsapp;
        let channel = if is_whatsapp {
            Channel::Whatsapp
        } else {
            Channel::Instagram
        };
        let participant = match self.wire {
            Wire::MockMeta => format!("{}{scenario}-{number}", self.prefix),
            Wire::Whatsapp => whatsapp::participant(&self.prefix, scenario, number),
        };
        let (inbound, outbound) = match scenario {
            Scenario::Duplicate
            | Scenario::OutOfOrder
            | Scenario::BurstOfEvents
            | Scenario::Batches => (length, 0),
            Scenario::Crash => (length, length),
            _ => (0, length),
        };
        let mut events = events(&mut rng, &participant, inbound);
        if self.wire == Wire::Whatsapp {
            for event in &mut events {
                event.timestamp = event.timestamp.trunc_subsecs(0);
            }
        }
        let sends = (0..outbound).map(|n| send(&mut rng, &participant, n));
        Conversation {
            scenario,
            channel,
            events,
            sends: sends.collect(),
            steps: steps(&mut rng, scenario, inbound, outbound),
            answers: if scenario == Scenario::RateLimit && number >= RATE_LIMITED {
                Vec::new()
            } else {
                self.answers(&mut rng, scenario, outbound)
            },
            participant,
        }
    }

    /// Each conversation has its own, so that a scenario does the same with and without others.
    fn rng(&self, scenario: Scenario, number: usize) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        seed[16] = scenario as u8;
        StdRng::from_seed(seed)
    }

    /// Failures at random places among the first calls.
    fn answers(&self, rng: &mut StdRng, scenario: Scenario, outbound: usize) -> Vec<Fault> {
        if outbound == 0 {
            return Vec::new();
        }
        let faults = FAULTS.min(outbound);
        let mut fails = vec![false; outbound + faults];
        fails[..faults].fill(true);
        // The last answer stays a success, so that a call follows every failure.
        let last = fails.len() - 1;
        fails[..last].shuffle(rng);
        let answers = fails.into_iter().map(|fails| {
            if fails {
                self.fault(rng, scenario)
            } else {
                Fault::Ok
            }
        });
        answers.collect()
    }

    fn fault(&self, rng: &mut StdRng, scenario: Scenario) -> Fault {
        match scenario {
            Scenario::Duplicate
            | Scenario::OutOfOrder
            | Scenario::BurstOfEvents
            | Scenario::BurstOfSends
            | Scenario::Batches
            | Scenario::Statuses
            | Scenario::Undelivered => Fault::Ok,
            Scenario::RateLimit => Fault::rate_limit_after(RETRY_AFTER_SECONDS),
            Scenario::ServerError => {
                Fault::server_error(if rng.random_bool(0.5) { 500 } else { 503 })
            }
            Scenario::Timeout if rng.random_bool(0.5) => Fault::Hang,
            Scenario::Timeout => Fault::delay(self.too_late_ms),
            // The gateway sees the same each time, and cannot know whether the message was
            // accepted.
            Scenario::LostAnswer | Scenario::Silence => match rng.random_range(0..3) {
                0 => Fault::LostAnswer,
                1 => Fault::Unreadable,
                _ => Fault::Reset,
            },
            Scenario::Delay => Fault::delay(rng.random_range(50..=800)),
            Scenario::Crash if rng.random_bool(0.5) => Fault::server_error(503),
            Scenario::Crash => Fault::delay(rng.random_range(50..=400)),
        }
    }
}

/// A conversation's events by their time. One in five has the time of the one before.
fn events(rng: &mut StdRng, participant: &str, count: usize) -> Vec<Event> {
    let mut at = DateTime::UNIX_EPOCH + TimeDelta::seconds(FIRST_EVENT);
    let mut events = Vec::new();
    for number in 0..count {
        if rng.random_bool(0.8) {
            at += TimeDelta::milliseconds(rng.random_range(1..100_000));
        }
        events.push(Event {
            id: format!("{participant}-event-{number}"),
            text: text(rng, &format!("{participant} wrote {number}")),
            timestamp: at,
        });
    }
    events
}

fn send(rng: &mut StdRng, participant: &str, number: usize) -> Send {
    Send {
        client_message_id: format!("{participant}-send-{number}"),
        text: text(rng, &format!("{participant} reads {number}")),
    }
}

/// Some are longer than a preview, and none is pure ASCII.
fn text(rng: &mut StdRng, beginning: &str) -> String {
    let more = if rng.random_bool(0.1) { 80 } else { 1 };
    format!("{beginning}{}", " ağ🙂".repeat(more))
}

fn steps(
    rng: &mut StdRng,
    scenario: Scenario,
    inbound: usize,
    outbound: usize,
) -> Vec<Vec<Request>> {
    let events = (0..inbound).map(Request::Event);
    let sends = (0..outbound).map(Request::Send);
    match scenario {
        Scenario::Duplicate => repeated(rng, events.collect(), 2..=5),
        Scenario::OutOfOrder => {
            let mut events: Vec<Request> = events.collect();
            events.shuffle(rng);
            events.chunks(2).map(<[Request]>::to_vec).collect()
        }
        // Sends keep their order: a message is requested when the one before it is answered.
        Scenario::Crash => {
            let sends: Vec<Request> = sends.collect();
            let both = events.zip(sends).flat_map(|(event, send)| [event, send]);
            repeated(rng, both.collect(), 1..=2)
        }
        Scenario::BurstOfEvents | Scenario::Batches => events.map(|event| vec![event]).collect(),
        Scenario::BurstOfSends => sends.map(|send| vec![send]).collect(),
        // Up to three callers race with one key.
        _ => sends
            .map(|send| vec![send; rng.random_range(1..=3)])
            .collect(),
    }
}

/// Repeats each request: some times at once, the others in any later step.
fn repeated(
    rng: &mut StdRng,
    requests: Vec<Request>,
    times: std::ops::RangeInclusive<usize>,
) -> Vec<Vec<Request>> {
    let mut steps: Vec<Vec<Request>> = requests.iter().map(|_| Vec::new()).collect();
    steps.push(Vec::new());
    for (place, request) in requests.into_iter().enumerate() {
        let times = rng.random_range(times.clone());
        let at_once = rng.random_range(1..=times);
        for repeat in 0..times {
            let step = if repeat < at_once {
                place
            } else {
                rng.random_range(place + 1..steps.len())
            };
            steps[step].push(request);
        }
    }
    steps.retain(|step| !step.is_empty());
    steps
}

impl Conversation {
    pub fn requests(&self) -> impl Iterator<Item = Request> {
        self.steps.iter().flatten().copied()
    }

    /// How many deliveries of events are not the first of their event.
    pub fn repeated_events(&self) -> usize {
        let deliveries = self
            .requests()
            .filter(|request| matches!(request, Request::Event(_)));
        deliveries.count() - self.events.len()
    }

    /// How many events are first delivered after a later event was answered.
    pub fn overtaken_events(&self) -> usize {
        let mut latest = None;
        let mut delivered = HashSet::new();
        let mut overtaken = 0;
        for step in &self.steps {
            let before = latest;
            for request in step {
                let Request::Event(event) = *request else {
                    continue;
                };
                let at = self.events[event].timestamp;
                let is_first = delivered.insert(event);
                overtaken += usize::from(is_first && before.is_some_and(|before| at < before));
                latest = latest.max(Some(at));
            }
        }
        overtaken
    }

    /// Whether the provider is called for it.
    pub fn is_sent_to(&self) -> bool {
        !self.sends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(events: usize) -> RunSettings {
        RunSettings {
            seed: 7,
            prefix: "sim-7-".to_owned(),
            events,
            too_late_ms: 1500,
            wire: Wire::MockMeta,
        }
    }

    #[test]
    fn a_seed_repeats_a_plan_and_another_one_does_not() {
        let plan = |seed| {
            let settings = RunSettings {
                seed,
                ..settings(100)
            };
            let plans = Scenario::ALL.map(|scenario| settings.plan(scenario));
            format!("{plans:?}")
        };
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn a_plan_has_as_many_events_or_messages_as_asked_for() {
        for events in [1, 9, 10, 101, 100_000] {
            for scenario in Scenario::ALL {
                let plan = settings(events).plan(scenario);
                let inbound: usize = plan.iter().map(|c| c.events.len()).sum();
                let outbound: usize = plan.iter().map(|c| c.sends.len()).sum();
                assert_eq!(inbound.max(outbound), events, "{scenario}");
                assert!(plan.len() <= MAX_CONVERSATIONS);
            }
        }
    }

    #[test]
    fn every_event_and_every_message_is_asked_for() {
        for scenario in Scenario::ALL {
            for conversation in settings(100).plan(scenario) {
                let requests: Vec<Request> = conversation.requests().collect();
                let events = (0..conversation.events.len()).map(Request::Event);
                let sends = (0..conversation.sends.len()).map(Request::Send);
                for request in events.chain(sends) {
                    assert!(requests.contains(&request), "{scenario}: {request:?}");
                }
            }
        }
    }

    #[test]
    fn an_event_comes_two_to_five_times_at_once_and_later() {
        let plan = settings(1000).plan(Scenario::Duplicate);
        let (mut at_once, mut later) = (0, 0);
        for conversation in &plan {
            for event in (0..conversation.events.len()).map(Request::Event) {
                let in_step = |step: &Vec<Request>| step.iter().filter(|r| **r == event).count();
                let counts: Vec<usize> = conversation.steps.iter().map(in_step).collect();
                let first = *counts.iter().find(|count| **count > 0).unwrap_or(&0);
                let all: usize = counts.iter().sum();
                assert!((2..=5).contains(&all), "{all}");
                at_once += usize::from(first > 1);
                later += usize::from(all > first);
            }
        }
        assert!(at_once > 100 && later > 100, "{at_once} {later}");
    }

    #[test]
    fn messages_are_first_asked_for_in_their_order() {
        for scenario in Scenario::ALL {
            for conversation in settings(100).plan(scenario) {
                let mut next = 0;
                for step in &conversation.steps {
                    let mut begun: Vec<usize> = step
                        .iter()
                        .filter_map(|request| match request {
                            Request::Send(send) if *send >= next => Some(*send),
                            _ => None,
                        })
                        .collect();
                    begun.dedup();
                    assert!(begun.is_empty() || begun == [next], "{scenario}: {begun:?}");
                    next += begun.len();
                }
            }
        }
    }

    #[test]
    fn every_fault_is_followed_by_a_further_call() {
        for scenario in Scenario::ALL {
            for conversation in settings(101).plan(scenario) {
                assert!(conversation.answers.last().is_none_or(|a| *a == Fault::Ok));
            }
        }
    }

    #[test]
    fn on_whatsapp_everybody_has_a_number_or_a_user_id_of_their_own() {
        let settings = RunSettings {
            prefix: "49".to_owned(),
            wire: Wire::Whatsapp,
            ..settings(100_000)
        };
        let mut seen = HashSet::new();
        for settings in [settings.round(0), settings.round(4), settings] {
            for scenario in Scenario::ALL {
                for conversation in settings.plan(scenario) {
                    let id = conversation.participant;
                    let digits = id.strip_prefix("DE.").unwrap_or(&id);
                    assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
                    assert!((5..=20).contains(&digits.len()), "{id}");
                    assert_eq!(conversation.channel, Channel::Whatsapp);
                    assert!(seen.insert(id.clone()), "{id}");
                }
            }
        }
        assert!(seen.iter().any(|id| id.starts_with("DE.")));
    }

    #[test]
    fn events_overtake_each_other() {
        let plan = settings(100).plan(Scenario::OutOfOrder);
        let overtaken: usize = plan.iter().map(Conversation::overtaken_events).sum();
        assert!((20..100).contains(&overtaken), "{overtaken}");
    }
}
