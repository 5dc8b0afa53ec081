//! Events as they go over the wire: each is made once, and all subscribers share its bytes.

use bytes::{BufMut, Bytes, BytesMut};
use metrics::counter;
use serde::Serialize;

use super::{Filter, Reason};
use crate::channel::Channel;
use crate::conversation::view::ConversationView;
use crate::http::timestamp::Timestamp;
use crate::id::ConversationId;
use crate::message::view::MessageView;

/// How long a client is asked to wait before it comes again, in milliseconds.
const RETRY_MS: u32 = 2000;
/// What is handed over at once, in bytes; or one event, if that is larger.
const PART: usize = 128 * 1024;

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
pub enum Kind {
    #[strum(serialize = "hello")]
    Hello,
    #[strum(serialize = "conversation.updated")]
    ConversationUpdated,
    #[strum(serialize = "message.created")]
    MessageCreated,
    #[strum(serialize = "message.updated")]
    MessageUpdated,
    #[strum(serialize = "reset")]
    Reset,
    #[strum(serialize = "ping")]
    Ping,
}

impl Kind {
    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Events that were made together.
#[derive(Debug, Default)]
pub struct Piece {
    text: BytesMut,
    told: Vec<Told>,
}

/// Where an event ends, and whom it concerns.
#[derive(Debug, Clone, Copy)]
struct Told {
    end: usize,
    channel: Channel,
    /// Of a message.
    conversation: Option<ConversationId>,
}

impl Told {
    fn is_for(&self, filter: &Filter) -> bool {
        filter.channel.is_none_or(|channel| channel == self.channel)
            && (filter.conversation.is_none()
                || self.conversation.is_none()
                || filter.conversation == self.conversation)
    }
}

#[derive(Serialize)]
struct Conversation<'a> {
    conversation: &'a ConversationView,
}

#[derive(Serialize)]
struct Message<'a> {
    message: &'a MessageView,
}

impl Piece {
    pub(super) fn add_conversation(&mut self, channel: Channel, conversation: &ConversationView) {
        let data = Conversation { conversation };
        self.add(Kind::ConversationUpdated, channel, None, &data);
    }

    pub(super) fn add_message(
        &mut self,
        kind: Kind,
        channel: Channel,
        conversation: ConversationId,
        message: &MessageView,
    ) {
        self.add(kind, channel, Some(conversation), &Message { message });
    }

    fn add(
        &mut self,
        kind: Kind,
        channel: Channel,
        conversation: Option<ConversationId>,
        data: &impl Serialize,
    ) {
        write(&mut self.text, kind, data);
        self.told.push(Told {
            end: self.text.len(),
            channel,
            conversation,
        });
    }

    /// The parts that are handed over one by one.
    #[must_use]
    pub fn parts(self) -> Vec<Part> {
        let text = self.text.freeze();
        let (mut parts, mut start, mut first) = (Vec::new(), 0, 0);
        for (index, told) in self.told.iter().enumerate() {
            let is_last = index + 1 == self.told.len();
            let next_end = self.told.get(index + 1).map_or(told.end, |next| next.end);
            if is_last || next_end - start > PART {
                let told = self.told[first..=index].iter().map(|told| Told {
                    end: told.end - start,
                    ..*told
                });
                parts.push(Part {
                    told: told.collect(),
                    text: text.slice(start..self.told[index].end),
                });
                (start, first) = (self.told[index].end, index + 1);
            }
        }
        parts
    }
}

/// Events that are handed over at once.
#[derive(Debug)]
pub struct Part {
    text: Bytes,
    told: Vec<Told>,
}

/// Those of a part that a subscriber is told: all but the last, and the last.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// In runs of those that follow one another.
    pub first: Vec<Bytes>,
    pub last: Option<Bytes>,
}

impl Part {
    /// Chooses those that a filter lets through.
    #[must_use]
    pub fn choose(&self, filter: &Filter) -> Chosen {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let mut last: Option<(usize, usize)> = None;
        let mut start = 0;
        for told in &self.told {
            if told.is_for(filter)
                && let Some((from, to)) = last.replace((start, told.end))
            {
                match runs.last_mut() {
                    Some((_, end)) if *end == from => *end = to,
                    _ => runs.push((from, to)),
                }
            }
            start = told.end;
        }
        Chosen {
            first: runs.into_iter().map(|run| self.slice(run)).collect(),
            last: last.map(|last| self.slice(last)),
        }
    }

    /// What is small beside the whole is copied: else it would keep all of that in memory.
    fn slice(&self, (from, to): (usize, usize)) -> Bytes {
        if (to - from) * 4 < self.text.len() {
            Bytes::copy_from_slice(&self.text[from..to])
        } else {
            self.text.slice(from..to)
        }
    }
}

fn write(text: &mut BytesMut, kind: Kind, data: &impl Serialize) {
    counter!("gateway_feed_events_total", "type" => kind.as_str()).increment(1);
    text.extend_from_slice(b"event: ");
    text.extend_from_slice(kind.as_str().as_bytes());
    text.extend_from_slice(b"\ndata: ");
    // On one line: JSON escapes line ends.
    serde_json::to_writer(text.writer(), data).expect("a view has only names and texts");
    text.extend_from_slice(b"\n\n");
}

/// The line in front of an event that says its position.
#[must_use]
pub fn id_line(token: &str) -> Bytes {
    format!("id: {token}\n").into()
}

fn with_id(id: &Bytes, kind: Kind, data: &impl Serialize) -> BytesMut {
    let mut text = BytesMut::from(&id[..]);
    write(&mut text, kind, data);
    text
}

/// The first event.
#[must_use]
pub fn hello(id: &Bytes, now: Timestamp) -> Bytes {
    #[derive(Serialize)]
    struct Hello {
        version: &'static str,
        now: Timestamp,
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut text = BytesMut::from(format!("retry: {RETRY_MS}\n").as_bytes());
    text.unsplit(with_id(id, Kind::Hello, &Hello { version, now }));
    text.freeze()
}

/// The event after which a subscriber fetches again what it shows.
#[must_use]
pub fn reset(id: &Bytes, reason: Reason) -> Bytes {
    #[derive(Serialize)]
    struct Reset {
        reason: &'static str,
    }
    counter!("gateway_feed_resets_total", "reason" => reason.as_str()).increment(1);
    let reason = reason.as_str();
    with_id(id, Kind::Reset, &Reset { reason }).freeze()
}

/// The event that says that the stream is alive.
#[must_use]
pub fn ping(id: &Bytes) -> Bytes {
    #[derive(Serialize)]
    struct Ping {}
    with_id(id, Kind::Ping, &Ping {}).freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(number: u128) -> ConversationId {
        ConversationId(uuid::Uuid::from_u128(number))
    }

    fn piece() -> Piece {
        let (whatsapp, instagram) = (Channel::Whatsapp, Channel::Instagram);
        let mut piece = Piece::default();
        for (channel, of, name) in [
            (whatsapp, None, "a"),
            (whatsapp, Some(1), "b"),
            (instagram, None, "c"),
            (instagram, Some(2), "d"),
            (whatsapp, Some(1), "e"),
        ] {
            let of = of.map(conversation);
            piece.add(Kind::MessageCreated, channel, of, &name);
        }
        piece
    }

    fn told(parts: &[Part], filter: Filter) -> String {
        let chosen = parts.iter().map(|part| part.choose(&filter));
        let bytes = chosen.flat_map(|chosen| chosen.first.into_iter().chain(chosen.last));
        let text = String::from_utf8(bytes.collect::<Vec<_>>().concat()).unwrap();
        let data = text
            .split("\n\n")
            .filter_map(|event| event.split_once("data: "));
        data.map(|(_, data)| data.trim_matches('"')).collect()
    }

    #[test]
    fn a_filter_chooses_conversations_and_the_messages_of_one() {
        let parts = piece().parts();
        let filter = |channel, of: Option<u128>| Filter {
            channel,
            conversation: of.map(conversation),
        };
        assert_eq!(told(&parts, Filter::default()), "abcde");
        assert_eq!(told(&parts, filter(Some(Channel::Whatsapp), None)), "abe");
        assert_eq!(told(&parts, filter(None, Some(2))), "acd");
        assert_eq!(told(&parts, filter(Some(Channel::Instagram), Some(1))), "c");
        assert_eq!(told(&parts, filter(None, Some(3))), "ac");
        let all = parts[0].choose(&Filter::default());
        assert_eq!(all.first.len(), 1, "what follows one another is one run");
    }

    #[test]
    fn a_large_piece_is_cut_between_events() {
        let mut piece = piece();
        for letter in ["f", "g", "h"] {
            let long = letter.repeat(PART / 2);
            piece.add(Kind::MessageUpdated, Channel::Whatsapp, None, &long);
        }
        let parts = piece.parts();
        assert!(parts.len() >= 3, "{}", parts.len());
        let mut letters: Vec<char> = told(&parts, Filter::default()).chars().collect();
        letters.dedup();
        assert_eq!(String::from_iter(letters), "abcdefgh");
        assert!(parts.iter().all(|part| part.text.len() <= PART));
    }
}
