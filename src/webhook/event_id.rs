//! The id of an event: what it must be, and how it is found in a body that is refused.

use utoipa::ToSchema;

use crate::http::field::{Fault, Field, identifier};
use crate::json;
use crate::json::fields::{Fields, text};

const NAME: &str = "eventId";
/// The longest id, in characters.
const LONGEST: usize = 160;

/// The provider's id for the event: the idempotency key.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 160,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
    example = "evt_123"
)]
pub struct EventId(pub String);

impl Field for EventId {
    fn parse(text: &str) -> Result<Self, Fault> {
        identifier(text, LONGEST).map(Self)
    }
}

/// Finds the `eventId` in a body that may be cut off, or no JSON at all, and makes it fit for a
/// log. That of a nested object does not count.
#[must_use]
pub fn find(body: &[u8]) -> Option<String> {
    let mut fields = Fields::of(body);
    let id = match fields.find(|field| field.name == NAME) {
        Some(field) => spoken(field.value)?,
        None => look_for(&json::repaired(fields.rest()))?,
    };
    let id = id.chars().take(LONGEST);
    let printable = |char: char| if char.is_control() { '\u{FFFD}' } else { char };
    Some(id.map(printable).collect())
}

/// What a value says: a text, a number, or a word without quotes.
fn spoken(value: &[u8]) -> Option<String> {
    match value.first()? {
        b'"' => Some(text(value)),
        b'{' | b'[' => None,
        _ if matches!(value, b"null" | b"true" | b"false") => None,
        _ => Some(String::from_utf8_lossy(value).into_owned()),
    }
}

/// Looks for the id in what is no JSON object: with single quotes, none or escaped ones, or a form.
fn look_for(rest: &str) -> Option<String> {
    // The object has ended, and what follows it says nothing about the event.
    if rest.starts_with('}') {
        return None;
    }
    let is_quote = |char: char| matches!(char, '"' | '\'' | '\\');
    rest.match_indices(NAME).find_map(|(at, _)| {
        let before = rest[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || char == '_') {
            return None;
        }
        let after = rest[at + NAME.len()..].trim_start_matches(is_quote);
        let value = after.trim_start().strip_prefix([':', '='])?.trim_start();
        let inner = value.trim_start_matches(is_quote);
        let ends = |char: char| {
            let delimits = char.is_whitespace() || matches!(char, ',' | '}' | ']' | '&' | ';');
            is_quote(char) || delimits && inner.len() == value.len()
        };
        let id = inner.split(ends).next()?;
        let is_id = !id.is_empty() && !id.starts_with(['{', '[']);
        is_id.then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_in_what_there_is() {
        for (body, expected) in [
            (r#"{"eventId":"evt_1"}"#, Some("evt_1")),
            (
                r#"{"a":{"eventId":"nested"},"eventId":"evt_1"}"#,
                Some("evt_1"),
            ),
            (
                r#"{"eventId":"evt_1","a":{"eventId":"nested"}}"#,
                Some("evt_1"),
            ),
            (r#"{"eventId":"first","eventId":"second"}"#, Some("first")),
            (r#"{"a":{"eventId":"nested"}}"#, None),
            (r#"{"a":{"eventId":"nested"},"b":"cut"#, None),
            (
                r#"{"text":"\"eventId\":\"quoted\"","eventId":"evt_1""#,
                Some("evt_1"),
            ),
            (r#"{"text":"\"eventId\":\"quoted\""}"#, None),
            (r#"{"event\u0049d":"evt\u005f1"}"#, Some("evt_1")),
            (r#"{"eventId":"a\"b\\"}"#, Some(r#"a"b\"#)),
            (r#"{"eventId" : 4711 , "#, Some("4711")),
            (r#"{"eventId":-1.5e3}"#, Some("-1.5e3")),
            (r#"{"eventId":null}"#, None),
            (r#"{"eventId":true}"#, None),
            (r#"{"eventId":["evt_1"]}"#, None),
            (r#"{"eventId":{"id":"evt_1"}}"#, None),
            (r#"{"eventId":""}"#, Some("")),
            (r#"{"eventId":"#, None),
            (r#"{"eventId""#, None),
            (r#"{"eventId":"evt_12"#, Some("evt_12")),
            (
                r#"{"eventId":"a\u0000b\ud800"}"#,
                Some("a\u{FFFD}b\u{FFFD}"),
            ),
            ("{\"eventId\":\"a\nb\u{85}\"}", Some("a\u{FFFD}b\u{FFFD}")),
            (
                r#"{"text":"a "quoted" word","eventId":"evt_1"}"#,
                Some("evt_1"),
            ),
            (r#"{"text":"a","eventId":"evt_1",}"#, Some("evt_1")),
            (r#"{"text":"a" "eventId":"evt_1"}"#, Some("evt_1")),
            (r#"{"eventId":evt_1}"#, Some("evt_1")),
            (r#"[{"eventId":"evt_1"}]"#, Some("evt_1")),
            ("\u{FEFF}{\"eventId\":\"evt_1\"}", Some("evt_1")),
            ("{'eventId': 'evt 1', 'text': 'x'}", Some("evt 1")),
            ("{eventId: 'evt_1'}", Some("evt_1")),
            ("{text: 'x', eventId: 12}", Some("12")),
            ("eventId=evt_1&text=x", Some("evt_1")),
            ("text=x&eventId=evt_1", Some("evt_1")),
            (r#""{\"eventId\":\"evt_1\",\"text\":\"x\"}""#, Some("evt_1")),
            ("myEventId=no&lasteventId=no&eventIds=no", None),
            (r#"{"a":1} "eventId":"evt_1""#, None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(find(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(
            find(b"\xff{\"eventId\":\"evt\xff\"").as_deref(),
            Some("evt\u{FFFD}")
        );
        assert_eq!(find(b"\x1f\x8b\x08\x00\xff\xfe"), None);
    }

    #[test]
    fn an_id_is_no_longer_than_ids_may_be() {
        let body = format!(r#"{{"eventId":"{}"}}"#, "ş".repeat(1000));
        assert_eq!(find(body.as_bytes()), Some("ş".repeat(160)));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_can_be_looked_through(body in "[{}\\[\\]\"':=,\\\\ a1é]{0,20}(eventId)?[{}\\[\\]\"':=,\\\\ a1é\u{0}]{0,20}") {
            if let Some(id) = find(body.as_bytes()) {
                proptest::prop_assert!(!id.chars().any(char::is_control));
            }
        }
    }
}
