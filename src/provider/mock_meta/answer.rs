//! Reads a provider's answer field by field: one that cannot be read does not spoil the others.

use serde_json::value::RawValue;

use crate::json;
use crate::provider::fields::{Object, string, whole_number};
use crate::provider::is_provider_id;

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
        let mut answer = Self::default();
        for (name, value) in Object::first(&text)?.fields() {
            answer.take(name, value);
        }
        Some(answer)
    }

    fn take(&mut self, name: &str, value: &RawValue) {
        match name {
            "success" => {
                let told = match value.get() {
                    "true" => Told::Yes,
                    "false" => Told::No,
                    _ => return,
                };
                let is_new = self.success.is_none_or(|before| before == told);
                self.success = Some(if is_new { told } else { Told::Both });
            }
            "providerMessageId" => {
                let id = string(value).or_else(|| whole_number(value));
                if let Some(id) = id.filter(|id| is_provider_id(id)) {
                    self.provider_message_id = Some(id);
                }
            }
            "error" => self.error = string(value).or(self.error.take()),
            "retryable" => {
                self.retryable = value.get() == "true"
                    || string(value).is_some_and(|word| word.eq_ignore_ascii_case("true"));
            }
            _ => {}
        }
    }
}
