//! What is kept of an item's own object.

use serde_json::Map;
use serde_json::value::RawValue;

use super::ids;
use super::value::Value;
use crate::json;

/// The longest content, in bytes.
const LONGEST: usize = 64 * 1024;
/// The deepest content, in objects and arrays within each other.
const DEEPEST: usize = 64;

/// The value as it came; of one that is too large, too deep or no JSON, only its type and its id.
pub(super) fn content(value: Value, kind: &str) -> String {
    let text = json::repaired(value.bytes());
    if text.len() <= LONGEST && is_json(&text) && depth(&text) <= DEEPEST {
        return text.into_owned();
    }
    let id = value
        .object()
        .and_then(|object| ids::message_id(object.get("id")));
    // In the order of the names, whichever order a map keeps.
    let mut rest = Map::new();
    rest.extend(id.map(|id| ("id".to_owned(), id.into())));
    rest.insert("truncated".to_owned(), true.into());
    rest.insert("type".to_owned(), kind.into());
    serde_json::Value::Object(rest).to_string()
}

/// Whether it is valid JSON. However deep it is, nothing recurses.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// How many objects and arrays are within each other, in valid JSON.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_string, mut is_escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        content(Value::of(text.as_bytes()), "image")
    }

    #[test]
    fn content_is_kept_as_it_came() {
        for text in [
            r#"{"id":"1","n":1.50000000000000000000001,"n":1e999,"big":12345678901234567890}"#,
            r#"[{"b":"\"[[[{\\"}, 2 ]"#,
            &format!("{}{}", "[".repeat(64), "]".repeat(64)),
            &format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024 - 8)),
        ] {
            assert_eq!(kept(text), text);
        }
        assert_eq!(kept(r#"{"a":"x\u0000\ud800"}"#), r#"{"a":"x\uFFFD\uFFFD"}"#);
    }

    #[test]
    fn of_content_that_is_too_much_its_type_and_id_are_kept() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let one_more = format!("{}{}", "[".repeat(65), "]".repeat(65));
        let long = "x".repeat(64 * 1024);
        let long_id = format!("{{\"id\":\"{long}\"}}");
        for (text, expected) in [
            (
                &*format!("{{\"a\":{deep},\"id\":\"7\"}}"),
                r#"{"id":"7","truncated":true,"type":"image"}"#,
            ),
            (
                &*format!("{{\"id\":7,\"a\":\"{long}\"}}"),
                r#"{"id":"7","truncated":true,"type":"image"}"#,
            ),
            (&*long_id, r#"{"truncated":true,"type":"image"}"#),
            (&*one_more, r#"{"truncated":true,"type":"image"}"#),
            (&deep[..65], r#"{"truncated":true,"type":"image"}"#),
            // No JSON.
            (
                "{\"id\":\"7\",\"a\":\"\n\"}",
                r#"{"id":"7","truncated":true,"type":"image"}"#,
            ),
            (r#"{"a":01}"#, r#"{"truncated":true,"type":"image"}"#),
            ("nonsense", r#"{"truncated":true,"type":"image"}"#),
        ] {
            assert_eq!(kept(text), expected);
        }
    }
}
