//! What an item is known by: ids of persons and of messages, names and times.

use std::collections::HashMap;

use chrono::{DateTime, Datelike, Utc};
use sha2::{Digest, Sha256};

use super::value::{Object, Value};
use crate::provider::is_provider_id;
use crate::provider::whatsapp::events::Person;
use crate::provider::whatsapp::person_id::{is_user_id, number};

/// The longest name, in characters.
const LONGEST_NAME: usize = 256;
/// From here on, a time is in milliseconds.
const MILLISECONDS: i64 = 1_000_000_000_000;

/// Reads the id of a message.
pub(super) fn message_id(value: Option<Value>) -> Option<String> {
    value?.word().filter(|id| is_provider_id(id))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value<'_> {
        Value::of(text.as_bytes())
    }

    fn known(number: Option<&str>, user_id: Option<&str>) -> Person {
        Person {
            number: number.map(str::to_owned),
            user_id: user_id.map(str::to_owned),
        }
    }

    #[test]
    fn an_id_of_a_person_is_told_by_its_shape() {
        let longest = format!("US.{}", "a".repeat(128));
        let too_long = format!("US.{}", "a".repeat(129));
        for (id, number, user_id) in [
            ("16505551234", Some("16505551234"), None),
            ("+16505551234", Some("16505551234"), None),
            (" 16505551234 ", Some("16505551234"), None),
            ("12345", Some("12345"), None),
            ("12345678901234567890", Some("12345678901234567890"), None),
            ("5678", Some("5678"), None),
            ("+", None, None),
            ("123456789012345678901", None, None),
            ("++16505551234", None, None),
            ("+250 788 123 200", None, None),
            ("१२३४५६", None, None),
            ("bla", None, None),
            ("", None, None),
            (
                "US.13491208655302741918",
                None,
                Some("US.13491208655302741918"),
            ),
            (&longest, None, Some(&*longest)),
            (&too_long, None, None),
            ("US.", None, None),
            ("us.1", None, None),
            ("USA.1", None, None),
            ("US.1 2", None, None),
            // That of a parent is no id of a person.
            ("US.ENT.11815799212886844830", None, None),
            ("foo_bar", None, None),
        ] {
            let text = json!(id).to_string();
            assert_eq!(person([Some(value(&text))]), known(number, user_id), "{id}");
        }
        let both = person([
            Some(value("\"bla\"")),
            None,
            Some(value("16505551234")),
            Some(value("\"US.1\"")),
        ]);
        assert_eq!(both, known(Some("16505551234"), Some("US.1")));
    }

    #[test]
    fn an_id_of_a_message_is_printable_and_not_too_long() {
        let longest = "é".repeat(255);
        for (id, is_id) in [
            ("wamid.HBgL==", true),
            (&*longest, true),
            (&"é".repeat(256), false),
            ("", false),
            ("a\nb", false),
        ] {
            let text = json!(id).to_string();
            assert_eq!(
                message_id(Some(value(&text))),
                is_id.then(|| id.to_owned()),
                "{id}"
            );
        }
        assert_eq!(message_id(Some(value("17"))), Some("17".into()));
        for nonsense in ["true", "[]", "{}", "null"] {
            assert_eq!(message_id(Some(value(nonsense))), None);
        }
    }

    #[test]
    fn a_time_is_in_seconds_or_milliseconds_or_now() {
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let shown = |text: &str| time(Some(value(text)), now).to_rfc3339();
        for (text, expected) in [
            (r#""1750030073""#, "2025-06-15T23:27:53+00:00"),
            ("1750030073", "2025-06-15T23:27:53+00:00"),
            (r#""1750030073123""#, "2025-06-15T23:27:53.123+00:00"),
            ("1750030073123", "2025-06-15T23:27:53.123+00:00"),
            (r#"" 1750030073.9 ""#, "2025-06-15T23:27:53+00:00"),
            ("253402300799", "9999-12-31T23:59:59+00:00"),
            ("253402300799999", "9999-12-31T23:59:59.999+00:00"),
            ("1", "1970-01-01T00:00:01+00:00"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        let too_large = "9".repeat(30);
        for nonsense in [
            "asdf",
            r#""asdf""#,
            r#""""#,
            "0",
            "-1",
            "null",
            "[]",
            "253402300800",
            "253402300800000",
            "1750030073123456",
            &too_large,
            "1e10",
            r#""NaN""#,
            r#""2025-06-15T23:27:53Z""#,
        ] {
            assert_eq!(time(Some(value(nonsense)), now), now, "{nonsense}");
        }
        assert_eq!(time(None, now), now);
    }

    #[test]
    fn a_name_changes_nothing_beside_it() {
        assert_eq!(
            name(" Ay\u{202E}\u{2066}şe\n\u{0}\u{200F} Q "),
            Some("Ayşe Q".into())
        );
        assert_eq!(name("👩‍👩‍👧 x"), Some("👩‍👩‍👧 x".into()));
        assert_eq!(name(&"é".repeat(300)), Some("é".repeat(256)));
        assert_eq!(
            name(&format!("{} b", "a".repeat(255))),
            Some("a".repeat(255))
        );
        assert_eq!(name("\u{202E} \n"), None);
    }

    #[test]
    fn a_contact_is_found_by_its_ids_or_is_the_only_one_that_it_may_be() {
        let two = r#"{"contacts":[{"profile":{"name":"A"},"wa_id":"11111","user_id":"US.1"},
            7,{"profile":{"username":"b"},"user_id":"US.2"},{"wa_id":"33333"}]}"#;
        let one = r#"{"contacts":[{"profile":{"name":"A"},"wa_id":"+11111"}]}"#;
        let none = r#"{"contacts":{}}"#;
        for (contacts, person, expected, completed) in [
            (
                two,
                known(Some("11111"), None),
                Some("A"),
                known(Some("11111"), Some("US.1")),
            ),
            (
                two,
                known(None, Some("US.1")),
                Some("A"),
                known(Some("11111"), Some("US.1")),
            ),
            (
                two,
                known(None, Some("US.2")),
                Some("b"),
                known(None, Some("US.2")),
            ),
            (
                two,
                known(Some("22222"), Some("US.2")),
                Some("b"),
                known(Some("22222"), Some("US.2")),
            ),
            (
                two,
                known(Some("33333"), None),
                None,
                known(Some("33333"), None),
            ),
            (
                two,
                known(Some("44444"), None),
                None,
                known(Some("44444"), None),
            ),
            (two, known(None, None), None, known(None, None)),
            (
                one,
                known(Some("11111"), None),
                Some("A"),
                known(Some("11111"), None),
            ),
            (
                one,
                known(None, Some("US.1")),
                Some("A"),
                known(Some("11111"), Some("US.1")),
            ),
            (
                one,
                known(None, None),
                Some("A"),
                known(Some("11111"), None),
            ),
            (
                one,
                known(Some("22222"), None),
                None,
                known(Some("22222"), None),
            ),
            (
                none,
                known(Some("22222"), None),
                None,
                known(Some("22222"), None),
            ),
        ] {
            let contacts = Contacts::of(&value(contacts).object().unwrap());
            let found = contacts.find(&person);
            assert_eq!(
                found.and_then(|found| found.name.as_deref()),
                expected,
                "{person:?}"
            );
            let mut all = person.clone();
            if let Some(found) = found {
                found.complete(&mut all);
            }
            assert_eq!(all, completed, "{person:?}");
        }
    }
}
