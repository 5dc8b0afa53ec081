//! What is kept of an item's own object.

use serde_json::json;
use serde_json::value::RawValue;

use super::ids;
use super::value::Value;
use crate::json;

/// The longest content, in bytes.
const LONGEST: usize = 64 * 1024;
/// The deepest content, in objects and arrays within each other.
const DEEPEST: usize = 64;

/// The value as it came; of one that is too large, too deep or no JSON, only what it was and its id.
pub(super) fn content(value: Value, kind: &str) -> String {
    let text = json::repaired(value.bytes());
    if text.len() <= LONGEST && is_json(&text) && depth(&text) <= DEEPEST {
        return text.into_owned();
    }
    let id = value
        .object()
        .and_then(|object| ids::message_id(object.get("id")));
    let mut rest = json!({ "truncated": true, "type": kind });
    if let Some(id) = id {
        rest["id"] = id.into();
    }
    rest.to_string()
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
