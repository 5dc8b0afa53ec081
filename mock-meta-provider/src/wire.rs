//! The provider's own wire: its messages, its events, and what their fields may be.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};

use crate::answer::Refusal;

/// The longest event id or participant, in characters.
const MAX_NAME: usize = 160;
/// The longest `clientMessageId`, in characters.
const MAX_CLIENT_MESSAGE_ID: usize = 128;
const MAX_TEXT_BYTES: usize = 65_536;

/// The app through which a customer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[expect(missing_docs, reason = "proper names")]
pub enum Channel {
    Whatsapp,
    Instagram,
}

/// The body of `POST /messages`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendRequest {
    pub(crate) channel: Channel,
    pub(crate) to: String,
    pub(crate) text: String,
    pub(crate) client_message_id: String,
}

impl SendRequest {
    /// Checks its fields: a customer cannot be sent the character NUL.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name("to", &self.to)?;
        check_text_length(&self.text)?;
        if self.text.contains('\0') {
            return Err(Refusal::field("text", "must not have the character NUL"));
        }
        check_id(
            "clientMessageId",
            &self.client_message_id,
            MAX_CLIENT_MESSAGE_ID,
        )
    }
}

/// An event as it is posted to the webhook.
#[derive(Serialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "eventId")]
    pub(crate) id: &'a str,
    pub(crate) channel: Channel,
    pub(crate) from: &'a str,
    pub(crate) text: &'a str,
    #[serde(serialize_with = "serialize_time")]
    pub(crate) timestamp: DateTime<Utc>,
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn format_time(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

pub(crate) fn serialize_time<S: Serializer>(
    time: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    format_time(time).serialize(serializer)
}

/// Checks an event id or a participant.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    check_id(field, name, MAX_NAME)
}

fn check_id(field: &str, id: &str, longest: usize) -> Result<(), Refusal> {
    let length = id.chars().count();
    if (1..=longest).contains(&length) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("must have 1 to {longest} characters and no control characters");
    Err(Refusal::field(field, message))
}

/// Checks the length of a text; customers may write any characters.
pub(crate) fn check_text_length(text: &str) -> Result<(), Refusal> {
    if (1..=MAX_TEXT_BYTES).contains(&text.len()) {
        return Ok(());
    }
    let message = format!("must have 1 to {MAX_TEXT_BYTES} bytes");
    Err(Refusal::field("text", message))
}
