//! Reads a provider's answer field by field: one that cannot be read does not spoil the others.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json;

/// The longest `providerMessageId`, in characters.
pub(super) const MAX_PROVIDER_ID: usize = 255;

/// The fields of an answer that mean something, as far as they can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// None where it is missing, or neither true nor false.
    pub success: Option<Told>,
    /// Text, or a whole number in its own digits.
    pub provider_message_id: Option<String>,
    pub error: Option<String>,
    /// Whether it is true, or says so in words.
    pub retryable: bool,
}

/// A truth value that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Yes,
    No,
    /// Told more than once, and not the same.
    Both,
}

impl Answer {
    /// Reads the object that a body begins with. None if it is not whole, or if another object
    /// follows. Anything else behind it, such as a careless program prints, is passed over.
    pub fn read(body: &[u8]) -> Option<Self> {
        let text = json::text(body);
        let mut values = serde_json::Deserializer::from_str(&text).into_iter();
        let answer = values.next()?.ok()?;
        let rest = text.get(values.byte_offset()..)?;
        (!rest.trim_start().starts_with('{')).then_some(answer)
    }

    fn take(&mut self, key: &RawValue, value: &RawValue) {
        match string(key).as_deref() {
            Some("success") => {
                let told = match value.get() {
                    "true" => Told::Yes,
                    "false" => Told::No,
                    _ => return,
                };
                let is_new = self.success.is_none_or(|before| before == told);
                self.success = Some(if is_new { told } else { Told::Both });
            }
            Some("providerMessageId") => {
                let id = string(value).or_else(|| whole_number(value));
                if let Some(id) = id.filter(|id| is_provider_id(id)) {
                    self.provider_message_id = Some(id);
                }
            }
            Some("error") => self.error = string(value).or(self.error.take()),
            Some("retryable") => {
                self.retryable = value.get() == "true"
                    || string(value).is_some_and(|word| word.eq_ignore_ascii_case("true"));
            }
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Answer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Answer, A::Error> {
                let mut answer = Answer::default();
                // Raw: whatever is in a field, however deep, it is passed over.
                while let Some((key, value)) = fields.next_entry()? {
                    answer.take(key, value);
                }
                Ok(answer)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A text, where it is one; half a surrogate pair in it is U+FFFD.
fn string(value: &RawValue) -> Option<String> {
    let value = value.get();
    serde_json::from_str(value)
        .or_else(|_| serde_json::from_str(&json::repaired(value.as_bytes())))
        .ok()
}

/// A whole number in the digits that it was given in, which may be more than a number holds.
fn whole_number(value: &RawValue) -> Option<String> {
    let value = value.get();
    let is_integer = value
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-');
    let is_whole = || {
        let number: Option<f64> = value.parse().ok();
        number.is_some_and(|number| number.is_finite() && number.fract() == 0.0)
    };
    (is_integer || is_whole()).then(|| value.to_owned())
}

fn is_provider_id(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= MAX_PROVIDER_ID && !id.chars().any(char::is_control)
}
