//! Good items, with anything beside them.
//!
//! Each line of an input is a neighbour: where it stands, how many of it, and what it is, such as
//! `m0{"type":"image"}`. Before it is put there, it is given the ends that it lacks, and loses those
//! that it has too many of: else it would not be a neighbour, but in between.

use gateway::provider::whatsapp::events::Item;

use crate::bounds::{OURS, found};

/// The most bytes of all that is there more than once.
const MOST: usize = if cfg!(fuzzing) { 32 } else { 8 } * 1024;

/// Fields that may stand beside those with good items; some mean something.
const FIELDS: [&str; 16] = [
    "x",
    "errors",
    "messages",
    "statuses",
    "message_echoes",
    "user_id_update",
    "standby",
    "calls",
    "history",
    "user_preferences",
    "messaging_product",
    "from",
    "id",
    "type",
    "text",
    "\\ud800",
];

/// Where a neighbour may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Envelope,
    Entry,
    Change,
    Field,
    Contact,
    Message,
    Status,
}

/// A neighbour, as often as it stands there, with a comma behind it.
#[derive(Debug)]
struct Neighbour {
    place: Place,
    is_before: bool,
    text: Vec<u8>,
}

/// Whatever stands beside them, good items are found as they are found alone, in their order.
pub fn check(input: &[u8]) {
    let lines = || input.split(|&byte| byte == b'\n');
    let most = MOST / lines().count();
    let neighbours: Vec<Neighbour> = lines().filter_map(|line| neighbour(line, most)).collect();
    let names: Vec<&Neighbour> = neighbours
        .iter()
        .filter(|it| it.place == Place::Contact)
        .collect();
    let expected = found(&body(&names)).unwrap();
    assert_alone(&expected[..4]);
    let all: Vec<&Neighbour> = neighbours.iter().collect();
    let mut items = found(&body(&all)).unwrap().into_iter();
    for good in &expected[..4] {
        assert!(items.any(|item| item == *good), "{good:?} is not found");
    }
}

/// What is found where nobody is beside the good items but people's names.
fn assert_alone(items: &[Item]) {
    let told: Vec<String> = items.iter().map(told).collect();
    let expected = [
        "wamid.good-1 says one",
        "wamid.good-2 says two",
        "wamid.good-3 Read",
        "wamid.good-4 Failed",
    ];
    assert_eq!(told, expected);
}

fn told(item: &Item) -> String {
    match item {
        Item::Message(message) => format!("{} says {}", message.event_id, message.text),
        Item::Status(status) => format!("{} {:?}", status.wamid, status.step),
        other => format!("{other:?}"),
    }
}

/// A body of two good messages and two good statuses, with these beside them.
fn body(neighbours: &[&Neighbour]) -> Vec<u8> {
    let around = |place: Place, good: &[&[u8]]| {
        let at = |is_before: bool| {
            let here = move |it: &&&Neighbour| it.place == place && it.is_before == is_before;
            let texts = neighbours.iter().filter(here).map(|it| &*it.text);
            texts.collect::<Vec<_>>().concat()
        };
        let good: Vec<Vec<u8>> = good.iter().map(|good| [good, &b","[..]].concat()).collect();
        [at(true), good.concat(), at(false)].concat()
    };
    let list = |place: Place, good: &[&[u8]]| {
        let list = around(place, good);
        [b"[", without_comma(&list), b"]"].concat()
    };
    let message = |id: u8, text: &str| {
        format!(
            r#"{{"from":"16505551234","id":"wamid.good-{id}","timestamp":"1750030073","type":"text","text":{{"body":"{text}"}}}}"#
        )
    };
    let status = |id: u8, status: &str| {
        format!(r#"{{"id":"wamid.good-{id}","status":"{status}","timestamp":"1750030073"}}"#)
    };
    let contacts = list(Place::Contact, &[]);
    let (one, two) = (message(1, "one"), message(2, "two"));
    let messages = list(Place::Message, &[one.as_bytes(), two.as_bytes()]);
    let (three, four) = (status(3, "read"), status(4, "failed"));
    let statuses = list(Place::Status, &[three.as_bytes(), four.as_bytes()]);
    let metadata = format!(r#""metadata":{{"phone_number_id":"{OURS}"}}"#);
    let fields: [&[u8]; 4] = [
        metadata.as_bytes(),
        &[b"\"contacts\":", &*contacts].concat(),
        &[b"\"messages\":", &*messages].concat(),
        &[b"\"statuses\":", &*statuses].concat(),
    ];
    let value = around(Place::Field, &fields);
    let change = [
        b"{\"field\":\"messages\",\"value\":{",
        without_comma(&value),
        b"}}",
    ]
    .concat();
    let changes = list(Place::Change, &[&change]);
    let entry = [b"{\"changes\":", &*changes, b"}"].concat();
    let entries = list(Place::Entry, &[&entry]);
    let kind = br#"{"object":"whatsapp_business_account","entry":"#;
    let envelope = [kind, &*entries, b"}"].concat();
    if neighbours.iter().all(|it| it.place != Place::Envelope) {
        return envelope;
    }
    list(Place::Envelope, &[&envelope])
}

fn without_comma(text: &[u8]) -> &[u8] {
    text.strip_suffix(b",").unwrap_or(text)
}

/// The neighbour that a line is; of one that is there more than once, about this many bytes at most.
/// None: it says nothing.
fn neighbour(line: &[u8], most: usize) -> Option<Neighbour> {
    let (&[place, number], text) = line.split_first_chunk()?;
    let is_before = place.is_ascii_lowercase();
    let place = match place.to_ascii_lowercase() {
        b'b' => Place::Envelope,
        b'e' => Place::Entry,
        b'c' => Place::Change,
        b'f' => Place::Field,
        b'n' => Place::Contact,
        b's' => Place::Status,
        _ => Place::Message,
    };
    let value = balanced(text);
    let number = usize::from(number.wrapping_sub(b'0')) % FIELDS.len();
    let text = if place == Place::Field {
        let name = FIELDS[number];
        [b"\"", name.as_bytes(), b"\":", &*value, b","].concat()
    } else {
        let one = [&*value, b","].concat();
        // Half of the numbers are for one.
        let times = 1 << (2 * number.saturating_sub(8));
        one.repeat(times.min(most / one.len()).max(1))
    };
    Some(Neighbour {
        place,
        is_before,
        text,
    })
}

/// The beginning of a text that is one value, JSON or not, with as many ends as beginnings.
fn balanced(text: &[u8]) -> Vec<u8> {
    let mut balanced = Vec::with_capacity(text.len());
    let mut open = Vec::new();
    let (mut is_string, mut is_escaped) = (false, false);
    for &byte in text.trim_ascii_start() {
        // Of what is no JSON, a space ends the value: what follows would stand between two fields.
        if byte.is_ascii_whitespace() && !is_string && open.is_empty() {
            break;
        }
        let is_kept = match byte {
            _ if is_escaped => {
                is_escaped = false;
                true
            }
            b'\\' if is_string => {
                is_escaped = true;
                true
            }
            b'"' => {
                is_string = !is_string;
                true
            }
            _ if is_string => true,
            b'{' | b'[' => {
                open.push(byte + 2);
                true
            }
            b'}' | b']' => open.pop_if(|end| *end == byte).is_some(),
            b',' => !open.is_empty(),
            _ => true,
        };
        if is_kept {
            balanced.push(byte);
        }
        let ends = is_kept && matches!(byte, b'"' | b'}' | b']');
        if ends && !is_string && open.is_empty() {
            break;
        }
    }
    if is_escaped {
        balanced.push(b'n');
    }
    if is_string {
        balanced.push(b'"');
    }
    balanced.extend(open.into_iter().rev());
    balanced
}
