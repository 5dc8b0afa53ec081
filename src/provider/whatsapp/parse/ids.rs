//! What an item is known by: ids of persons and of messages, names and times.

use std::collections::HashMap;

use chrono::{DateTime, Datelike, Utc};
use sha2::{Digest, Sha256};

use super::value::{Object, Value};
use crate::provider::whatsapp::events::Person;

/// The longest id of a message, in characters.
const LONGEST_ID: usize = 255;
/// The longest name, in characters.
const LONGEST_NAME: usize = 256;
/// From here on, a time is in milliseconds.
const MILLISECONDS: i64 = 1_000_000_000_000;

/// Reads the id of a message, which has 1 to 255 characters and no control characters.
pub(super) fn message_id(value: Option<Value>) -> Option<String> {
    let id = value?.word()?;
    let fits = (1..=LONGEST_ID).contains(&id.chars().count()) && !id.chars().any(char::is_control);
    fits.then_some(id)
}

/// What stands for the id of an item that has none.
pub(super) fn hash(raw: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(raw)))
}

/// Seconds or milliseconds since 1970, as a number or a text; else `now`.
pub(super) fn time(value: Option<Value>, now: DateTime<Utc>) -> DateTime<Utc> {
    let time = value.and_then(Value::integer).filter(|&time| time > 0);
    let time = time.and_then(|time| match time {
        MILLISECONDS.. => DateTime::from_timestamp_millis(time),
        _ => DateTime::from_timestamp(time, 0),
    });
    time.filter(|time| time.year() <= 9999).unwrap_or(now)
}

/// The ids among these values, each told by its shape: the first number, and the first user id.
pub(super) fn person<'a>(values: impl IntoIterator<Item = Option<Value<'a>>>) -> Person {
    let mut person = Person::default();
    for id in values.into_iter().flatten().filter_map(Value::word) {
        let id = id.trim();
        if is_user_id(id) {
            person.user_id.get_or_insert_with(|| id.to_owned());
        } else if let Some(number) = number(id) {
            person.number.get_or_insert_with(|| number.to_owned());
        }
    }
    person
}

/// Whether no id is there.
pub(super) fn is_nobody(person: &Person) -> bool {
    person.number.is_none() && person.user_id.is_none()
}

/// The digits of a telephone number.
fn number(id: &str) -> Option<&str> {
    let digits = id.strip_prefix('+').unwrap_or(id);
    let is_number = (5..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some(digits)
}

/// Whether it is a user id, such as `US.13491208655302741918`. That of a parent has another dot.
fn is_user_id(id: &str) -> bool {
    let Some((country, rest)) = id.split_once('.') else {
        return false;
    };
    country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && (1..=128).contains(&rest.len())
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A name without what could change how others look.
fn name(text: &str) -> Option<String> {
    let seen = |char: &char| !char.is_control() && !is_bidirectional(*char);
    let name: String = text.chars().filter(seen).collect();
    let name: String = name.trim().chars().take(LONGEST_NAME).collect();
    let name = name.trim_end();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether it changes the direction of what follows.
fn is_bidirectional(char: char) -> bool {
    matches!(char, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whom the items of a value are from.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    all: Vec<Contact>,
    by_id: HashMap<String, usize>,
}

/// A person, with the name that they go by.
#[derive(Debug)]
pub(super) struct Contact {
    person: Person,
    pub name: Option<String>,
}

impl Contacts {
    /// Reads those of the `contacts` of an object.
    pub fn of(value: &Object) -> Self {
        let mut contacts = Self::default();
        for contact in value.each("contacts").filter_map(Value::object) {
            let person = person([contact.get("wa_id"), contact.get("user_id")]);
            let profile = contact.object("profile").unwrap_or_default();
            let mut names = ["name", "username"].into_iter();
            let name = names.find_map(|field| name(&profile.string(field)?));
            let at = contacts.all.len();
            for id in [&person.number, &person.user_id].into_iter().flatten() {
                contacts.by_id.entry(id.clone()).or_insert(at);
            }
            contacts.all.push(Contact { person, name });
        }
        contacts
    }

    /// The contact with one of these ids; else the only one there is, if it may be them.
    pub fn find(&self, person: &Person) -> Option<&Contact> {
        let ids = [&person.number, &person.user_id];
        let known = ids.into_iter().flatten().find_map(|id| self.by_id.get(id));
        if let Some(&at) = known {
            return self.all.get(at);
        }
        let [only] = &*self.all else {
            return None;
        };
        let is_another = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some();
        let is_other = is_another(&person.number, &only.person.number)
            || is_another(&person.user_id, &only.person.user_id);
        (!is_other).then_some(only)
    }
}

impl Contact {
    /// Adds the ids that are not known yet.
    pub fn complete(&self, person: &mut Person) {
        let Person { number, user_id } = &self.person;
        person.number = person.number.take().or_else(|| number.clone());
        person.user_id = person.user_id.take().or_else(|| user_id.clone());
    }
}
