//! What providers are told, and what their answers mean. Each wire is pure, so that every case can be
//! read and tested in one place; [`client`] alone calls.

mod call;
pub mod client;
mod error_kind;
mod fields;
mod mock_meta;
pub mod providers;
pub mod whatsapp;
pub mod wire;

pub use call::Answer;
pub use error_kind::ErrorKind;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::channel::Channel;
use crate::id::MessageId;

/// The longest `Retry-After` that is honoured.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// The longest detail that is kept of an error, in characters.
const MAX_DETAIL: usize = 500;
/// The longest id that a provider gives a message, in characters.
const MAX_PROVIDER_ID: usize = 255;

/// What somebody is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Where.
    pub channel: Channel,
    /// Whom.
    pub participant_id: String,
    /// What the provider is called with, where that is not `participant_id`.
    pub address: Option<String>,
    /// The kind of message: `text`, or another that the channel has.
    pub kind: String,
    /// What, or what stands for it in the inbox.
    pub text: String,
    /// The object of its kind: JSON.
    pub content: Option<String>,
    /// The provider's id of the message that it answers.
    pub reply_to: Option<String>,
    /// That message; not known where it was read from the queue.
    pub reply_to_id: Option<MessageId>,
    /// The caller's idempotency key.
    pub client_message_id: Option<String>,
}

/// What the provider is given in each attempt at a message.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The idempotency key of all attempts.
    pub message_id: MessageId,
    /// What is sent.
    pub outbound: Arc<Outbound>,
}

/// How an attempt ended: a failure is a value, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider has taken the message over.
    Accepted {
        /// Its id for it.
        provider_message_id: String,
        /// Who it says that the recipient is, where it tells.
        recipient: Recipient,
    },
    /// It has not, or may not have.
    Failed(Failure),
}

/// The ids of a recipient, as the provider knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipient {
    /// A telephone number: digits.
    pub number: Option<String>,
    /// The id that the business has for them.
    pub user_id: Option<String>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of error.
    pub kind: ErrorKind,
    /// The provider's status, where there was an answer.
    pub http_status: Option<u16>,
    /// What is known of it; at most 500 characters, no control characters.
    pub detail: String,
    /// Whether another attempt is worth it.
    pub retryable: bool,
    /// Whether the provider may have accepted the message all the same; else it surely has not.
    pub ambiguous: bool,
    /// The wait that the provider asks for.
    pub retry_after: Option<Duration>,
    /// The provider's own number for the error.
    pub code: Option<i64>,
    /// Whom it concerns.
    pub reach: Reach,
    /// Whether it uses up the message's budget of attempts: not where the account is at fault.
    pub counts: bool,
}

/// Whom a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This message alone.
    Message,
    /// What is sent to this participant.
    Conversation,
    /// Whatever is sent through this channel.
    Channel,
}

impl Failure {
    /// A failure without an answer.
    #[must_use]
    pub fn new(kind: ErrorKind, detail: &str) -> Self {
        Self {
            kind,
            http_status: None,
            detail: clean(detail),
            retryable: !matches!(
                kind,
                ErrorKind::Rejected | ErrorKind::WindowClosed | ErrorKind::Interrupted
            ),
            ambiguous: kind.is_ambiguous(),
            retry_after: None,
            code: None,
            reach: Reach::Message,
            counts: kind != ErrorKind::Unauthorized,
        }
    }

    /// With this at the end of its detail, which says who was in between.
    #[must_use]
    fn by(mut self, through: &str) -> Self {
        let room = MAX_DETAIL.saturating_sub(through.chars().count());
        self.detail = self.detail.chars().take(room).collect();
        self.detail.push_str(through);
        self
    }
}

/// Seconds, also with a fraction, or an HTTP date (RFC 9110, section 10.2.3); at most
/// [`MAX_RETRY_AFTER`]. None if it is neither.
fn parse_retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    let is_number = value
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let wait = if is_number {
        let seconds: f64 = value.parse().ok()?;
        // More seconds than a duration holds are a long time.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    } else {
        let date = DateTime::<Utc>::from(httpdate::parse_http_date(value).ok()?);
        (date - now).to_std().unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// What stands for a provider's id in logs: the first 12 hex digits of its SHA-256. `WhatsApp`'s ids
/// have the customer's number in them.
#[must_use]
pub fn hashed_id(id: &str) -> String {
    let mut digits = hex::encode(Sha256::digest(id.as_bytes()));
    digits.truncate(12);
    digits
}

/// Takes out control characters, and what is too long.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_DETAIL)
        .collect()
}

/// Whether it may be a provider's id for a message.
fn is_provider_id(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= MAX_PROVIDER_ID && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    proptest! {
        #[test]
        fn a_retry_after_in_seconds_is_waited_for(seconds in any::<u64>()) {
            let wait = parse_retry_after(&seconds.to_string(), now());
            prop_assert_eq!(wait, Some(Duration::from_secs(seconds.min(3600))));
        }

        #[test]
        fn a_retry_after_that_is_a_date_is_waited_for(seconds in -100_000_i64..100_000) {
            let date = httpdate::fmt_http_date((now() + chrono::Duration::seconds(seconds)).into());
            let expected = Duration::from_secs(seconds.clamp(0, 3600).unsigned_abs());
            prop_assert_eq!(parse_retry_after(&date, now()), Some(expected));
        }
    }
}
