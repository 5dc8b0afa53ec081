//! What the inbox must be: plain data, one request after the other, and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use gateway::channel::Channel;

use super::steps::{Address, Clock, Event, Mark, Mood, Outgoing, Place, Transition};

/// `RETRY_MAX_ATTEMPTS`.
pub const MAX_ATTEMPTS: u32 = 2;
/// The most characters of a preview.
pub const PREVIEW: usize = 200;

impl Mood {
    /// Whether the provider has the message all the same.
    fn delivers(self) -> bool {
        matches!(self, Self::LoseAnswer | Self::Unreadable)
    }

    /// What the record says after it.
    fn error(self) -> LastError {
        let (kind, http_status) = match self {
            Self::ServerError => ("server_error", Some(503)),
            Self::Reject => ("rejected", Some(422)),
            Self::LoseAnswer | Self::Reset => ("connection", None),
            Self::Unreadable => ("unreadable", Some(200)),
            Self::RateLimit => ("rate_limited", Some(429)),
        };
        LastError {
            kind,
            http_status,
            retryable: self != Self::Reject,
            ambiguous: !matches!(self, Self::Reject | Self::RateLimit),
        }
    }
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Received,
    Sent,
    /// A worker sends it.
    Due,
    /// For its backoff to end.
    Waiting,
    /// Behind another of its conversation.
    Blocked,
    /// Failed for good.
    Parked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastError {
    pub kind: &'static str,
    pub http_status: Option<u16>,
    pub retryable: bool,
    pub ambiguous: bool,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub address: Address,
    pub text: String,
    pub place: Place,
    /// Of an inbound one.
    pub clock: Option<Clock>,
    pub key: Option<String>,
    pub stage: Stage,
    pub retry_count: u32,
    pub last_error: Option<LastError>,
    /// Failed attempts since it was accepted, or an operator retried it.
    failures: u32,
    /// What the provider must have seen of it.
    pub calls: u64,
    pub delivered: bool,
}

impl Message {
    pub fn status(&self) -> &'static str {
        match self.stage {
            Stage::Received => "RECEIVED",
            Stage::Sent => "SENT",
            _ if self.last_error.is_some() => "FAILED",
            _ => "PENDING",
        }
    }

    /// Whether a request with its key asks for something else.
    pub fn differs_from(&self, outgoing: &Outgoing) -> bool {
        self.address != outgoing.address || self.text != outgoing.text
    }

    /// Whether the record says that it is tried again by itself.
    pub fn has_next_attempt(&self) -> bool {
        self.status() == "FAILED" && self.stage != Stage::Parked
    }
}

#[derive(Debug, Clone)]
pub struct Conversation {
    pub address: Address,
    pub unread: u32,
    pub open: bool,
    pub archived: bool,
    pub was_read: bool,
    /// By number, as they were stored, and as the provider got them.
    pub messages: Vec<usize>,
    pub delivered: Vec<usize>,
    /// With `DELIVERY_ORDER=conversation`: the messages that are on their way, in the order in
    /// which they go.
    queue: VecDeque<usize>,
}

/// What some case must come to, else the comparison says little.
pub const CORNERS: [&str; 24] = [
    "a known event",
    "a known event with another text",
    "an event older than the newest message",
    "an event with the time of another",
    "an event that opens a conversation",
    "an event that ends an archive",
    "a preview that is cut",
    "a replay",
    "a replay with another text or participant",
    "sent after a failure",
    "sent after a lost answer",
    "attempts used up",
    "parked although delivered",
    "accepted while paused",
    "a worker leaves a paused channel alone",
    "retried when Received",
    "retried when Sent",
    "retried when Pending",
    "retried when Waiting",
    "retried when Parked",
    "canceled when Sent",
    "canceled when Pending",
    "canceled when Waiting",
    "canceled when Parked",
];

/// The same where one delivery comes after the other.
pub const CORNERS_IN_ORDER: [&str; 3] = [
    "accepted behind another",
    "released",
    "retried behind another",
];

/// The whole of it.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// `DELIVERY_ORDER=conversation`.
    pub ordered: bool,
    /// Who may take part, and which keys callers may use.
    pub participants: Vec<String>,
    pub keys: Vec<String>,
    pub conversations: Vec<Conversation>,
    /// In the order in which they came to be: a message's number is its place here.
    pub messages: Vec<Message>,
    /// Each event that is known, as it came first, and its message.
    pub events: BTreeMap<String, (Event, usize)>,
    pub sends: HashMap<(Channel, String), usize>,
    moods: HashMap<String, Mood>,
    pub paused: Vec<Channel>,
    /// Which of [`CORNERS`] this case has come to.
    pub reached: BTreeSet<String>,
}

impl State {
    pub fn new(ordered: bool, participants: Vec<String>, keys: Vec<String>) -> Self {
        Self {
            ordered,
            participants,
            keys,
            ..Self::default()
        }
    }

    pub fn conversation(&self, address: &Address) -> Option<&Conversation> {
        self.conversations
            .iter()
            .find(|known| known.address == *address)
    }

    pub fn addresses(&self) -> Vec<&Address> {
        self.conversations
            .iter()
            .map(|known| &known.address)
            .collect()
    }

    /// Of the message that is so many before the newest.
    pub fn number(&self, back: usize) -> usize {
        self.messages.len() - 1 - back
    }

    /// What makes an end of everything: the provider is well again, and an operator retries all
    /// that failed for good, the last first.
    pub fn end(&self) -> Vec<Transition> {
        let parked = |back: &usize| self.messages[self.number(*back)].stage == Stage::Parked;
        let retries = (0..self.messages.len())
            .filter(parked)
            .map(Transition::Retry);
        let mut end = vec![Transition::Heal, Transition::Resume];
        end.extend(retries);
        end.push(Transition::WorkLater);
        end
    }

    pub fn apply(mut self, transition: &Transition) -> Self {
        match transition {
            Transition::Receive { events, .. } => {
                for event in events {
                    self.receive(event);
                }
            }
            Transition::Send { outgoing, .. } => self.send(outgoing),
            Transition::Treat { participant, mood } => {
                self.moods.insert(participant.clone(), *mood);
            }
            Transition::Heal => self.moods.clear(),
            Transition::Mark(mark, address) => self.mark(*mark, address),
            Transition::Retry(back) => self.retry(self.number(*back)),
            Transition::Cancel(back) => self.cancel(self.number(*back)),
            Transition::Work => self.work(),
            Transition::Resume => self.paused.clear(),
            Transition::WorkLater => {
                for message in &mut self.messages {
                    let paused = self.paused.contains(&message.address.channel);
                    if message.stage == Stage::Waiting && !paused {
                        message.stage = Stage::Due;
                    }
                }
                self.work();
            }
        }
        self
    }

    fn receive(&mut self, event: &Event) {
        if let Some((first, _)) = self.events.get(&event.id) {
            let differs = first.text != event.text;
            self.note("a known event", true);
            self.note("a known event with another text", differs);
            return;
        }
        let number = self.messages.len();
        let place = match event.clock {
            Clock::Past(millis) => Place::Past(millis),
            Clock::Ahead(seconds) => Place::Ahead(seconds),
            Clock::FarAhead(_) => Place::FarAhead(number),
        };
        self.note_event(event, place);
        self.events
            .insert(event.id.clone(), (event.clone(), number));
        let conversation = self.store(&event.address, &event.text, place);
        conversation.unread += 1;
        conversation.open = true;
        conversation.archived = false;
        self.messages[number].clock = Some(event.clock);
        self.messages[number].stage = Stage::Received;
    }

    fn send(&mut self, outgoing: &Outgoing) {
        let number = self.messages.len();
        if let Some(key) = &outgoing.key {
            let key = (outgoing.address.channel, key.clone());
            if let Some(known) = self.sends.get(&key) {
                let differs = self.messages[*known].differs_from(outgoing);
                self.note("a replay", true);
                self.note("a replay with another text or participant", differs);
                return;
            }
            self.sends.insert(key, number);
        }
        self.store(&outgoing.address, &outgoing.text, Place::Present(number));
        self.messages[number].key.clone_from(&outgoing.key);
        self.enqueue(number);
        let blocked = self.messages[number].stage == Stage::Blocked;
        self.note("accepted behind another", blocked);
        let paused = self.is_paused(&self.messages[number]);
        self.note("accepted while paused", paused);
        let is_due = self.messages[number].stage == Stage::Due;
        if is_due && !paused && !outgoing.deferred {
            let failed = self.attempt(number);
            if failed == Some(Mood::RateLimit) {
                self.paused.push(outgoing.address.channel);
            }
        }
    }

    /// A new message, and its conversation.
    fn store(&mut self, address: &Address, text: &str, place: Place) -> &mut Conversation {
        let number = self.messages.len();
        self.note("a preview that is cut", text.chars().count() > PREVIEW);
        self.messages.push(Message {
            address: address.clone(),
            text: text.to_owned(),
            place,
            clock: None,
            key: None,
            stage: Stage::Due,
            retry_count: 0,
            last_error: None,
            failures: 0,
            calls: 0,
            delivered: false,
        });
        if self.conversation(address).is_none() {
            self.conversations.push(Conversation {
                address: address.clone(),
                unread: 0,
                open: true,
                archived: false,
                was_read: false,
                messages: Vec::new(),
                delivered: Vec::new(),
                queue: VecDeque::new(),
            });
        }
        let conversation = self.conversation_mut(address);
        conversation.messages.push(number);
        conversation
    }

    fn conversation_mut(&mut self, address: &Address) -> &mut Conversation {
        let mut conversations = self.conversations.iter_mut();
        conversations
            .find(|known| known.address == *address)
            .unwrap()
    }

    /// To the end of its conversation's order, if there is one.
    fn enqueue(&mut self, number: usize) {
        let address = self.messages[number].address.clone();
        let ordered = self.ordered;
        let queue = &mut self.conversation_mut(&address).queue;
        let blocked = ordered && !queue.is_empty();
        queue.push_back(number);
        self.messages[number].stage = if blocked { Stage::Blocked } else { Stage::Due };
    }

    /// It is not on its way any more: whatever it was in front of is.
    fn dequeue(&mut self, number: usize) {
        let address = self.messages[number].address.clone();
        let queue = &mut self.conversation_mut(&address).queue;
        queue.retain(|queued| *queued != number);
        if let Some(&head) = queue.front()
            && self.messages[head].stage == Stage::Blocked
        {
            self.messages[head].stage = Stage::Due;
            self.note("released", true);
        }
    }

    /// How the provider fails in it.
    fn attempt(&mut self, number: usize) -> Option<Mood> {
        let message = &mut self.messages[number];
        let mood = self.moods.get(&message.address.participant).copied();
        let (had_failed, was_delivered) = (message.retry_count > 0, message.delivered);
        message.calls += 1;
        message.delivered |= mood.is_none_or(Mood::delivers);
        if message.delivered && !was_delivered {
            let address = message.address.clone();
            self.conversation_mut(&address).delivered.push(number);
        }
        let message = &mut self.messages[number];
        let Some(error) = mood.map(Mood::error) else {
            message.stage = Stage::Sent;
            self.note("sent after a failure", had_failed);
            self.note("sent after a lost answer", was_delivered);
            self.dequeue(number);
            return None;
        };
        message.last_error = Some(error);
        message.retry_count += 1;
        message.failures += 1;
        message.stage = Stage::Waiting;
        if !error.retryable || message.failures >= MAX_ATTEMPTS {
            message.stage = Stage::Parked;
            let delivered = message.delivered;
            self.note("attempts used up", error.retryable);
            self.note("parked although delivered", delivered);
            self.dequeue(number);
        }
        mood
    }

    fn work(&mut self) {
        let held = self
            .messages
            .iter()
            .any(|m| m.stage == Stage::Due && self.is_paused(m));
        self.note("a worker leaves a paused channel alone", held);
        let next = |state: &Self| {
            let mut messages = state.messages.iter();
            messages.position(|m| m.stage == Stage::Due && !state.is_paused(m))
        };
        while let Some(number) = next(self) {
            self.attempt(number);
        }
    }

    fn is_paused(&self, message: &Message) -> bool {
        self.paused.contains(&message.address.channel)
    }

    fn mark(&mut self, mark: Mark, address: &Address) {
        let conversation = self.conversation_mut(address);
        match mark {
            Mark::Read => {
                conversation.unread = 0;
                conversation.was_read = true;
            }
            Mark::Close => conversation.open = false,
            Mark::Reopen => conversation.open = true,
            Mark::Archive => conversation.archived = true,
            Mark::Unarchive => conversation.archived = false,
        }
    }

    fn retry(&mut self, number: usize) {
        self.note_operator("retried", number);
        let message = &mut self.messages[number];
        if message.status() != "FAILED" || message.stage == Stage::Blocked {
            return;
        }
        message.failures = 0;
        match message.stage {
            Stage::Parked => self.enqueue(number),
            _ => message.stage = Stage::Due,
        }
        let blocked = self.messages[number].stage == Stage::Blocked;
        self.note("retried behind another", blocked);
    }

    fn cancel(&mut self, number: usize) {
        self.note_operator("canceled", number);
        let message = &mut self.messages[number];
        if !matches!(message.stage, Stage::Due | Stage::Waiting | Stage::Blocked) {
            return;
        }
        message.stage = Stage::Parked;
        message.last_error = Some(LastError {
            kind: "canceled",
            http_status: None,
            retryable: false,
            ambiguous: message.last_error.is_some_and(|error| error.ambiguous),
        });
        self.dequeue(number);
    }

    fn note(&mut self, corner: &str, is_reached: bool) {
        if is_reached {
            self.reached.insert(corner.to_owned());
        }
    }

    fn note_event(&mut self, event: &Event, place: Place) {
        let Some(conversation) = self.conversation(&event.address) else {
            return;
        };
        let (closed, archived) = (!conversation.open, conversation.archived);
        let others = conversation.messages.iter();
        let places: Vec<Place> = others.map(|other| self.messages[*other].place).collect();
        self.note("an event that opens a conversation", closed);
        self.note("an event that ends an archive", archived);
        let older = places.iter().any(|other| *other > place);
        self.note("an event older than the newest message", older);
        let same = places.contains(&place);
        self.note("an event with the time of another", same);
    }

    fn note_operator(&mut self, verb: &str, number: usize) {
        let message = &self.messages[number];
        let stage = if message.status() == "PENDING" {
            "Pending".to_owned()
        } else {
            format!("{:?}", message.stage)
        };
        self.note(&format!("{verb} when {stage}"), true);
    }
}
