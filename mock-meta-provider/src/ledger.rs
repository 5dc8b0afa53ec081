//! What was delivered to whom, how often and in what order.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::wire::{Channel, SendRequest, serialize_time};

/// How many bytes of text are kept.
const MAX_TEXT_BYTES: usize = 256 * 1024 * 1024;

/// A copy of the ledger at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// One entry for each idempotency key, in the order of first calls.
    pub messages: Vec<LedgerMessage>,
    /// One entry for each participant, in the order of first deliveries.
    pub conversations: Vec<LedgerConversation>,
    /// How many keys were dropped to make room.
    pub dropped_keys: u64,
    /// How many deliveries were dropped to make room.
    pub dropped_deliveries: u64,
}

impl Ledger {
    /// Finds the entry of a key.
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

/// The calls and deliveries of one idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerMessage {
    /// The key; a call without one gets `keyless-<number>`.
    pub idempotency_key: String,
    /// The channel of the first call.
    pub channel: Channel,
    /// The participant of the first call.
    pub participant_id: String,
    /// The client message id of the first call.
    pub client_message_id: String,
    /// The id of the latest delivery.
    pub provider_message_id: Option<String>,
    /// On WhatsApp the ids of all deliveries, in order: more than one is a double.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provider_message_ids: Vec<String>,
    /// How many calls there were.
    pub calls: u64,
    /// How often it was delivered; at most once while deduplication is on.
    pub deliveries: u64,
    /// How many calls wait for their answers now.
    pub overlapping_calls: u64,
    /// How many calls have waited at the same time at most.
    pub max_overlapping_calls: u64,
    /// How many calls had another channel, participant or text than the first one.
    pub mismatched_calls: u64,
}

/// The texts delivered to one participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct LedgerConversation {
    pub channel: Channel,
    pub participant_id: String,
    /// In the order of their delivery.
    pub texts: Vec<String>,
    /// On WhatsApp more of each delivery, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<LedgerSend>,
}

/// What WhatsApp has accepted with one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSend {
    /// The `wamid`.
    pub provider_message_id: String,
    /// The message that `biz_opaque_callback_data` names, if it has the gateway's form.
    pub message_id: Option<String>,
    /// The attempt that it names.
    pub attempt: Option<u64>,
    /// All of `biz_opaque_callback_data`.
    pub opaque: Option<String>,
    /// `to` for a phone number, `recipient` for a user id.
    pub addressed_by: String,
    /// The type of the message.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object of its type.
    pub content: Value,
    /// The `wamid` that it replies to.
    pub reply_to: Option<String>,
}

/// One delivered message, as `GET /messages/{providerMessageId}` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    pub(crate) provider_message_id: String,
    pub(crate) idempotency_key: String,
    #[serde(flatten)]
    pub(crate) request: SendRequest,
    #[serde(serialize_with = "serialize_time")]
    pub(crate) timestamp: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) send: Option<LedgerSend>,
}

impl Delivery {
    fn bytes(&self) -> usize {
        let content = |send: &LedgerSend| send.content.to_string().len();
        self.request.text.len() + self.send.as_ref().map_or(0, content)
    }
}

/// A call that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallStart {
    /// Its number among the calls of its key, from 1.
    pub(crate) number: u64,
    pub(crate) mismatched: bool,
    /// The number of its [`Entry`].
    entry: u64,
}

/// An accepted call.
#[derive(Debug)]
pub(crate) struct Acceptance {
    pub(crate) provider_message_id: String,
    pub(crate) timestamp: DateTime<Utc>,
    /// Whether an earlier call of the key has delivered.
    pub(crate) repeated: bool,
}

/// The ledger as it is kept. Its size is bounded: the oldest keys and deliveries are dropped.
#[derive(Debug, Default)]
pub(crate) struct LiveLedger {
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

impl LiveLedger {
    pub(crate) fn new(max_keys: u32) -> Self {
        Self {
            max_keys: max_keys as usize,
            ..Self::default()
        }
    }

    /// Drops everything. A call that began before ends nothing afterwards.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            max_keys: self.max_keys,
            next_entry: self.next_entry,
            ..Self::default()
        };
    }

    /// Counts a call that has come in.
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

    /// Counts a call as ended: it was answered, or its client went.
    pub(crate) fn end_call(&mut self, key: &str, start: CallStart) {
        if let Some(entry) = self
            .entries
            .get_mut(key)
            .filter(|entry| entry.number == start.entry)
        {
            entry.message.overlapping_calls -= 1;
        }
    }

    /// Accepts a call and delivers it, unless `dedupe` finds an earlier delivery of its key.
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
        let provider_message_id = format!("msg_{}", Uuid::now_v7().simple());
        let timestamp = self.deliver(key, request, provider_message_id.clone(), None);
        Acceptance {
            provider_message_id,
            timestamp,
            repeated: false,
        }
    }

    /// Accepts a call of WhatsApp's wire, which never recognises a repeated one. Returns when, and
    /// how often this key was delivered before.
    pub(crate) fn accept_send(
        &mut self,
        key: &str,
        request: &SendRequest,
        send: LedgerSend,
    ) -> (DateTime<Utc>, u64) {
        let message = &mut self.entry(key, request).message;
        let earlier = message.deliveries;
        message
            .provider_message_ids
            .push(send.provider_message_id.clone());
        let id = send.provider_message_id.clone();
        (self.deliver(key, request, id, Some(send)), earlier)
    }

    fn deliver(
        &mut self,
        key: &str,
        request: &SendRequest,
        provider_message_id: String,
        send: Option<LedgerSend>,
    ) -> DateTime<Utc> {
        let timestamp = Utc::now();
        let entry = self.entry(key, request);
        entry.message.deliveries += 1;
        entry.message.provider_message_id = Some(provider_message_id.clone());
        entry.accepted_at = Some(timestamp);
        self.keep(Delivery {
            provider_message_id,
            idempotency_key: key.to_owned(),
            request: request.clone(),
            timestamp,
            send,
        });
        timestamp
    }

    fn keep(&mut self, delivery: Delivery) {
        let delivery = Arc::new(delivery);
        self.text_bytes += delivery.bytes();
        self.by_id
            .insert(delivery.provider_message_id.clone(), Arc::clone(&delivery));
        self.deliveries.push_back(delivery);
        while self.deliveries.len() > self.max_keys || self.text_bytes > MAX_TEXT_BYTES {
            self.drop_oldest_delivery();
        }
    }

    pub(crate) fn delivery(&self, provider_message_id: &str) -> Option<Arc<Delivery>> {
        self.by_id.get(provider_message_id).cloned()
    }

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

    /// Copies the entries of the participants whose ids begin with `prefix`.
    pub(crate) fn snapshot(&self, prefix: &str) -> Ledger {
        let entries = self.keys.iter().filter_map(|key| self.entries.get(key));
        let messages = entries.map(|entry| &entry.message);
        let mut conversations: Vec<LedgerConversation> = Vec::new();
        let mut places: HashMap<(Channel, &str), usize> = HashMap::new();
        for delivery in &self.deliveries {
            let request = &delivery.request;
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
                    sends: Vec::new(),
                });
            }
            conversations[place].texts.push(request.text.clone());
            conversations[place].sends.extend(delivery.send.clone());
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
            self.text_bytes -= delivery.bytes();
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
                provider_message_ids: Vec::new(),
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
        let mut ledger = LiveLedger::new(10);
        let before = ledger.begin_call("key-1", &request);
        ledger.clear();
        let after = ledger.begin_call("key-1", &request);
        let waiting = |ledger: &LiveLedger| ledger.message("key-1").unwrap().overlapping_calls;
        ledger.end_call("key-1", before);
        assert_eq!(waiting(&ledger), 1);
        ledger.end_call("key-1", after);
        assert_eq!(waiting(&ledger), 0);
    }
}
