//! What was delivered to whom, how often and in what order; of an accepted key there is one delivery.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::millis;
use crate::message::{Channel, SendRequest};

/// The most bytes of text that are remembered.
const MAX_TEXT_BYTES: usize = 256 * 1024 * 1024;

/// A copy of the ledger at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Each idempotency key that was used, in the order of its first call.
    pub messages: Vec<LedgerMessage>,
    /// Each participant who got something, in the order of their first delivery.
    pub conversations: Vec<LedgerConversation>,
    /// Keys that were dropped for want of room.
    pub dropped_keys: u64,
    /// Deliveries that were dropped for want of room.
    pub dropped_deliveries: u64,
}

impl Ledger {
    /// Finds what is known of a key.
    #[must_use]
    pub fn message(&self, idempotency_key: &str) -> Option<&LedgerMessage> {
        self.messages
            .iter()
            .find(|message| message.idempotency_key == idempotency_key)
    }

    /// Lists the texts delivered to a participant, in order.
    #[must_use]
    pub fn texts(&self, channel: Channel, participant_id: &str) -> &[String] {
        let mut conversations = self.conversations.iter();
        conversations
            .find(|known| known.channel == channel && known.participant_id == participant_id)
            .map_or(&[], |conversation| &conversation.texts)
    }

    /// Counts the deliveries to everyone.
    #[must_use]
    pub fn deliveries(&self) -> usize {
        self.conversations
            .iter()
            .map(|conversation| conversation.texts.len())
            .sum()
    }
}

/// What is known of one idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerMessage {
    /// The key; a call without one gets `keyless-<number>`.
    pub idempotency_key: String,
    /// The channel of the first call.
    pub channel: Channel,
    /// The participant of the first call.
    pub participant_id: String,
    /// The `clientMessageId` of the first call.
    pub client_message_id: String,
    /// The id of the latest delivery; `None` as long as there is none.
    pub provider_message_id: Option<String>,
    /// How many calls there were.
    pub calls: u64,
    /// How often it was delivered: 0 or 1 as long as deduplication is on.
    pub deliveries: u64,
    /// How many calls are waiting for their answers now.
    pub overlapping_calls: u64,
    /// The most calls that were waiting for their answers at the same time.
    pub max_overlapping_calls: u64,
    /// Calls whose channel, participant or text were not those of the first one.
    pub mismatched_calls: u64,
}

/// What was delivered to one participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerConversation {
    /// The channel.
    pub channel: Channel,
    /// The participant.
    pub participant_id: String,
    /// The texts in the order of their delivery.
    pub texts: Vec<String>,
}

/// One delivered message, as `GET /messages/{providerMessageId}` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    pub(crate) provider_message_id: String,
    pub(crate) idempotency_key: String,
    #[serde(flatten)]
    pub(crate) request: SendRequest,
    #[serde(serialize_with = "millis")]
    pub(crate) timestamp: DateTime<Utc>,
}

/// A call that has begun: its number among those of its key, and what names it when it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallStart {
    pub(crate) number: u64,
    pub(crate) mismatched: bool,
    entry: u64,
}

/// An accepted call.
#[derive(Debug)]
pub(crate) struct Acceptance {
    pub(crate) provider_message_id: String,
    pub(crate) timestamp: DateTime<Utc>,
    pub(crate) repeated: bool,
}

/// The ledger itself. Its size is bounded: the oldest keys and deliveries go first.
#[derive(Debug)]
pub(crate) struct Book {
    max_keys: usize,
    entries: HashMap<String, Entry>,
    keys: VecDeque<String>,
    deliveries: VecDeque<Arc<Delivery>>,
    by_id: HashMap<String, Arc<Delivery>>,
    text_bytes: usize,
    next_entry: u64,
    dropped_keys: u64,
    dropped_deliveries: u64,
}

#[derive(Debug)]
struct Entry {
    /// Tells this entry from a later one of the same key, after a reset or a drop.
    number: u64,
    message: LedgerMessage,
    fingerprint: u64,
    accepted_at: Option<DateTime<Utc>>,
}

impl Book {
    pub(crate) fn new(max_keys: u32) -> Self {
        Self {
            max_keys: usize::try_from(max_keys).unwrap_or(usize::MAX).max(1),
            entries: HashMap::new(),
            keys: VecDeque::new(),
            deliveries: VecDeque::new(),
            by_id: HashMap::new(),
            text_bytes: 0,
            next_entry: 0,
            dropped_keys: 0,
            dropped_deliveries: 0,
        }
    }

    /// Forgets everything; calls that began before no longer count.
    pub(crate) fn clear(&mut self) {
        let next_entry = self.next_entry;
        *self = Self {
            next_entry,
            ..Self::new(u32::try_from(self.max_keys).unwrap_or(u32::MAX))
        };
    }

    /// Notes that a call has come in.
    pub(crate) fn begin_call(&mut self, key: &str, request: &SendRequest) -> CallStart {
        let entry = self.entry(key, request);
        let mismatched = entry.fingerprint != fingerprint(request);
        let message = &mut entry.message;
        message.calls += 1;
        message.mismatched_calls += u64::from(mismatched);
        message.overlapping_calls += 1;
        message.max_overlapping_calls =
            message.max_overlapping_calls.max(message.overlapping_calls);
        CallStart {
            number: message.calls,
            mismatched,
            entry: entry.number,
        }
    }

    /// Notes that a call got its answer, or that its client went.
    pub(crate) fn end_call(&mut self, key: &str, start: CallStart) {
        if let Some(entry) = self
            .entries
            .get_mut(key)
            .filter(|entry| entry.number == start.entry)
        {
            let waiting = &mut entry.message.overlapping_calls;
            *waiting = waiting.saturating_sub(1);
        }
    }

    /// Accepts a call: delivers it, unless `dedupe` finds an earlier delivery of its key.
    pub(crate) fn accept(&mut self, key: &str, request: &SendRequest, dedupe: bool) -> Acceptance {
        let entry = self.entry(key, request);
        let earlier = entry
            .message
            .provider_message_id
            .clone()
            .zip(entry.accepted_at);
        if let Some((provider_message_id, timestamp)) = earlier.filter(|_| dedupe) {
            return Acceptance {
                provider_message_id,
                timestamp,
                repeated: true,
            };
        }
        let (provider_message_id, timestamp) =
            (format!("msg_{}", Uuid::now_v7().simple()), Utc::now());
        entry.message.deliveries += 1;
        entry.message.provider_message_id = Some(provider_message_id.clone());
        entry.accepted_at = Some(timestamp);
        self.keep(Delivery {
            provider_message_id: provider_message_id.clone(),
            idempotency_key: key.to_owned(),
            request: request.clone(),
            timestamp,
        });
        Acceptance {
            provider_message_id,
            timestamp,
            repeated: false,
        }
    }

    fn keep(&mut self, delivery: Delivery) {
        let delivery = Arc::new(delivery);
        self.text_bytes += delivery.request.text.len();
        self.by_id
            .insert(delivery.provider_message_id.clone(), Arc::clone(&delivery));
        self.deliveries.push_back(delivery);
        while self.deliveries.len() > self.max_keys || self.text_bytes > MAX_TEXT_BYTES {
            self.drop_oldest_delivery();
        }
    }

    /// Finds a delivery by the id that its caller was given.
    pub(crate) fn delivery(&self, provider_message_id: &str) -> Option<Arc<Delivery>> {
        self.by_id.get(provider_message_id).cloned()
    }

    /// Finds what is known of a key.
    pub(crate) fn message(&self, key: &str) -> Option<LedgerMessage> {
        self.entries.get(key).map(|entry| entry.message.clone())
    }

    /// Lists the texts delivered to a participant, in order.
    pub(crate) fn texts(&self, channel: Channel, participant_id: &str) -> Vec<String> {
        let requests = self.deliveries.iter().map(|delivery| &delivery.request);
        let theirs =
            requests.filter(|request| request.channel == channel && request.to == participant_id);
        theirs.map(|request| request.text.clone()).collect()
    }

    /// Copies what concerns the participants whose ids begin with `prefix`.
    pub(crate) fn snapshot(&self, prefix: &str) -> Ledger {
        let entries = self.keys.iter().filter_map(|key| self.entries.get(key));
        let messages = entries.map(|entry| &entry.message);
        let mut conversations: Vec<LedgerConversation> = Vec::new();
        let mut places: HashMap<(Channel, &str), usize> = HashMap::new();
        for request in self.deliveries.iter().map(|delivery| &delivery.request) {
            if !request.to.starts_with(prefix) {
                continue;
            }
            let place = *places
                .entry((request.channel, &request.to))
                .or_insert(conversations.len());
            if place == conversations.len() {
                conversations.push(LedgerConversation {
                    channel: request.channel,
                    participant_id: request.to.clone(),
                    texts: Vec::new(),
                });
            }
            conversations[place].texts.push(request.text.clone());
        }
        Ledger {
            messages: messages
                .filter(|message| message.participant_id.starts_with(prefix))
                .cloned()
                .collect(),
            conversations,
            dropped_keys: self.dropped_keys,
            dropped_deliveries: self.dropped_deliveries,
        }
    }

    fn entry(&mut self, key: &str, request: &SendRequest) -> &mut Entry {
        if !self.entries.contains_key(key) {
            while self.keys.len() >= self.max_keys {
                self.drop_oldest_key();
            }
            self.keys.push_back(key.to_owned());
            self.next_entry += 1;
        }
        let number = self.next_entry;
        self.entries
            .entry(key.to_owned())
            .or_insert_with(|| Entry::new(number, key, request))
    }

    fn drop_oldest_key(&mut self) {
        if let Some(key) = self.keys.pop_front() {
            self.entries.remove(&key);
            self.dropped_keys += 1;
        }
    }

    fn drop_oldest_delivery(&mut self) {
        if let Some(delivery) = self.deliveries.pop_front() {
            self.by_id.remove(&delivery.provider_message_id);
            self.text_bytes = self.text_bytes.saturating_sub(delivery.request.text.len());
            self.dropped_deliveries += 1;
        }
    }
}

impl Entry {
    fn new(number: u64, key: &str, request: &SendRequest) -> Self {
        Self {
            number,
            message: LedgerMessage {
                idempotency_key: key.to_owned(),
                channel: request.channel,
                participant_id: request.to.clone(),
                client_message_id: request.client_message_id.clone(),
                provider_message_id: None,
                calls: 0,
                deliveries: 0,
                overlapping_calls: 0,
                max_overlapping_calls: 0,
                mismatched_calls: 0,
            },
            fingerprint: fingerprint(request),
            accepted_at: None,
        }
    }
}

/// Tells messages apart without keeping their texts.
fn fingerprint(request: &SendRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    (request.channel, &request.to, &request.text).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_from_before_a_reset_ends_no_call_from_after_it() {
        let request = SendRequest {
            channel: Channel::Whatsapp,
            to: "user-1".to_owned(),
            text: "text".to_owned(),
            client_message_id: "c-1".to_owned(),
        };
        let mut book = Book::new(10);
        let before = book.begin_call("key-1", &request);
        book.clear();
        let after = book.begin_call("key-1", &request);
        let waiting = |book: &Book| {
            book.message("key-1")
                .map(|message| message.overlapping_calls)
        };
        book.end_call("key-1", before);
        assert_eq!(waiting(&book), Some(1));
        book.end_call("key-1", after);
        assert_eq!(waiting(&book), Some(0));
    }
}
