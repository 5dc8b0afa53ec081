//! What the rest of the gateway takes for granted of what is found in a body, and what it may cost.

use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use gateway::provider::whatsapp::events::{
    Amendment, Change, Inbound, Item, Link, NotAnObject, Person, StatusUpdate,
};
use gateway::provider::whatsapp::{is_number, is_user_id, parse};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use serde_json::value::RawValue;

/// The number that is ours.
pub const OURS: &str = "106540352242922";
/// The longest text or content of a message, in bytes.
const LONGEST: usize = 64 * 1024;

/// The time of what has none.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

/// What is found in a body: it is bounded, and so is what it takes to find it.
pub fn found(body: &[u8]) -> Result<Vec<Item>, NotAnObject> {
    let items = within(body.len(), || parse(body, OURS, now()));
    let found = items.as_deref().unwrap_or_default();
    found.iter().for_each(assert_bounded);
    // What is kept of an item is a part of it, a rendering, and what is said of its person.
    let kept: usize = found.iter().map(size).sum();
    let most = 12 * body.len() + 8 * 1024 * (found.len() + 1);
    assert!(kept <= most, "{kept} bytes are made of {}", body.len());
    items
}

/// Does something with so many bytes, which takes the processor a time that grows with their number.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    // A program that is not optimized is as slow as the slowest machine.
    let (base, each) = if cfg!(fuzzing) { (100, 2) } else { (1000, 20) };
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let start = used();
    let made = work();
    let took = used().saturating_sub(start);
    let each = Duration::from_micros(each) * u32::try_from(bytes).unwrap();
    let most = Duration::from_millis(base) + each;
    assert!(took <= most, "{took:?} for {bytes} bytes");
    made
}

fn is_id(id: &str) -> bool {
    (1..=255).contains(&id.chars().count()) && !id.chars().any(char::is_control)
}

fn assert_somebody(person: &Person) {
    let Person { number, user_id } = person;
    assert!(number.is_some() || user_id.is_some());
    assert!(number.as_deref().is_none_or(is_number), "{person:?}");
    assert!(user_id.as_deref().is_none_or(is_user_id), "{person:?}");
}

fn assert_storable(kind: &str, text: &str, content: &str) {
    let is_kind = |kind: &str| !kind.is_empty() && kind.chars().count() <= 64;
    assert!(is_kind(kind), "{kind}");
    assert!((1..=LONGEST).contains(&text.len()) && !text.contains('\0'));
    assert!(content.len() <= LONGEST);
    serde_json::from_str::<&RawValue>(content).unwrap();
    assert!(is_speakable(content), "{content}");
}

/// Whether PostgreSQL can hold all texts of valid JSON: none has an escape of U+0000, or of half a
/// surrogate pair.
fn is_speakable(json: &str) -> bool {
    let has_nul = json.replace(r"\\", "").contains(r"\u0000");
    match serde_json::from_str::<Value>(json) {
        Ok(_) => !has_nul,
        // PostgreSQL keeps it in its digits.
        Err(error) => !has_nul && error.to_string().starts_with("number out of range"),
    }
}

fn assert_time(at: DateTime<Utc>) {
    assert!((1..=9999).contains(&at.year()), "{at}");
}

fn assert_bounded(item: &Item) {
    match item {
        Item::Message(message) => {
            assert!(is_id(&message.event_id) && message.wamid.as_deref().is_none_or(is_id));
            assert!(message.reply_to.as_deref().is_none_or(is_id));
            assert_somebody(&message.person);
            let length = |name: &String| name.chars().count();
            let length = message.name.as_ref().map(length);
            assert!(length.is_none_or(|length| (1..=256).contains(&length)));
            assert_time(message.timestamp);
            assert_storable(&message.kind, &message.text, &message.content);
        }
        Item::Amendment(amendment) => {
            assert!(is_id(&amendment.event_id) && is_id(&amendment.target));
            assert_somebody(&amendment.person);
            assert_time(amendment.at);
            match &amendment.change {
                Change::Edit {
                    kind,
                    text,
                    content,
                } => assert_storable(kind, text, content),
                Change::Reaction(emoji) => {
                    let is_one = |emoji: &String| !emoji.is_empty() && !emoji.contains('\0');
                    assert!(emoji.as_ref().is_none_or(is_one));
                }
                Change::Deletion => {}
            }
        }
        Item::Status(status) => {
            assert!(is_id(&status.wamid));
            assert_time(status.at);
            status.recipient.iter().for_each(assert_somebody);
            let opaque = status.opaque.as_deref().unwrap_or_default();
            assert!(!opaque.contains('\0') && opaque.chars().count() <= 512);
            if let Some(error) = &status.error {
                let detail = error.detail.as_deref().unwrap_or_default();
                for text in [&*error.title, detail] {
                    assert!(text.chars().count() <= 500 && !text.chars().any(char::is_control));
                }
            }
        }
        Item::Link(link) => {
            assert_somebody(&link.known);
            assert_somebody(&link.now);
            assert_time(link.at);
        }
        Item::Ignored(_) => {}
    }
}

/// How many bytes are kept of an item.
fn size(item: &Item) -> usize {
    let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let of_person = |person: &Person| of(&person.number) + of(&person.user_id);
    match item {
        Item::Message(message) => {
            let Inbound {
                event_id,
                wamid,
                person,
                name,
                kind,
                text,
                content,
                reply_to,
                raw,
                ..
            } = &**message;
            let texts = event_id.len() + kind.len() + text.len() + content.len() + raw.len();
            texts + of(wamid) + of(name) + of(reply_to) + of_person(person)
        }
        Item::Amendment(amendment) => {
            let Amendment {
                event_id,
                target,
                person,
                change,
                raw,
                ..
            } = &**amendment;
            let change = match change {
                Change::Reaction(emoji) => of(emoji),
                Change::Edit {
                    kind,
                    text,
                    content,
                } => kind.len() + text.len() + content.len(),
                Change::Deletion => 0,
            };
            event_id.len() + target.len() + of_person(person) + change + raw.len()
        }
        Item::Status(status) => {
            let StatusUpdate {
                wamid,
                recipient,
                opaque,
                error,
                ..
            } = &**status;
            let error = error.as_ref();
            let error = error.map_or(0, |error| error.title.len() + of(&error.detail));
            wamid.len() + recipient.as_ref().map_or(0, of_person) + of(opaque) + error
        }
        Item::Link(link) => {
            let Link { known, now, .. } = &**link;
            of_person(known) + of_person(now)
        }
        Item::Ignored(_) => 0,
    }
}
