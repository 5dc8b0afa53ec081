//! What a caller asks to be sent.

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use validator::{Validate, ValidationError, ValidationErrors};

use super::content::{self, Kind, SentContent};
use super::{Dialect, MessageId, Outbound};
use crate::channel::Channel;
use crate::channel::participant::Participant;
use crate::error::Error;
use crate::http::field::{Fault, Field, Parsed, bounded, identifier, parsed};
use crate::http::problem::{FieldError, Problem};
use crate::provider::whatsapp::{is_user_id, number};

/// A message to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendRequest {
    /// Where to.
    #[schema(value_type = Channel)]
    channel: Parsed<Channel>,
    #[schema(inline, value_type = Participant)]
    to: Parsed<Participant>,
    /// What kind of message it is, `text` where nothing is said. The others are WhatsApp's.
    #[serde(rename = "type")]
    #[schema(value_type = Option<Kind>, example = "text")]
    kind: Option<Parsed<Kind>>,
    #[schema(inline, value_type = OutboundText, required = false)]
    text: Option<Parsed<OutboundText>>,
    #[schema(inline, value_type = SentContent, required = false)]
    content: Option<Box<RawValue>>,
    #[schema(inline, value_type = ReplyToId, required = false)]
    reply_to: Option<Parsed<ReplyToId>>,
    #[schema(inline, value_type = ClientMessageId, required = false)]
    client_message_id: Option<Parsed<ClientMessageId>>,
}

/// The message that this one answers, of the same conversation. Channels without answers ignore it.
#[derive(Debug, ToSchema)]
#[schema(
    value_type = Option<String>,
    pattern = "^msg_[0-9a-f]{32}$",
    example = "msg_01941f297c0070008000000000000001"
)]
pub struct ReplyToId(MessageId);

impl Field for ReplyToId {
    fn parse(text: &str) -> Result<Self, Fault> {
        let id = text.parse();
        id.map(Self)
            .map_err(|_| Error::Unanswerable.to_string().into())
    }
}

/// The message: 1 to 4096 characters (Unicode scalar values). Of another type than `text` it may be
/// missing: it is what the inbox shows, and made from the content.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 4096,
    pattern = r"^[^\u0000]*$",
    example = "Merhaba!"
)]
pub struct OutboundText(String);

impl Field for OutboundText {
    fn parse(text: &str) -> Result<Self, Fault> {
        bounded(text, 4096).map(|text| Self(text.to_owned()))
    }
}

/// The idempotency key: the same key on the same channel again answers with the existing record.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[schema(
    value_type = Option<String>,
    min_length = 1,
    max_length = 128,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
    example = "order-1001"
)]
pub struct ClientMessageId(pub String);

impl ClientMessageId {
    /// The longest one, in characters.
    pub const LONGEST: usize = 128;
}

impl Field for ClientMessageId {
    fn parse(text: &str) -> Result<Self, Fault> {
        identifier(text, Self::LONGEST).map(Self)
    }
}

/// By hand: what is required depends on the type.
impl Validate for SendRequest {
    fn validate(&self) -> Result<(), ValidationErrors> {
        let mut errors = ValidationErrors::new();
        let mut note = |field, result: Result<(), ValidationError>| {
            if let Err(error) = result {
                errors.add(field, error);
            }
        };
        note("channel", parsed(&self.channel));
        note("to", parsed(&self.to));
        note("type", optional(self.kind.as_ref()));
        note("text", optional(self.text.as_ref()));
        note("reply_to", optional(self.reply_to.as_ref()));
        note(
            "client_message_id",
            optional(self.client_message_id.as_ref()),
        );
        if let Some(kind) = self.kind() {
            for (field, fault) in content::check(kind, self.content.as_deref()) {
                note(field, Err(invalid(fault)));
            }
            if kind == Kind::Text && self.text.is_none() {
                note("text", Err(invalid("is required".into())));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}

fn optional<T>(field: Option<&Parsed<T>>) -> Result<(), ValidationError> {
    field.map_or(Ok(()), parsed)
}

fn invalid(fault: Fault) -> ValidationError {
    ValidationError::new("invalid").with_message(fault)
}

/// A message to be sent, as far as its request says it.
#[derive(Debug)]
pub struct Asked {
    /// What is sent.
    pub outbound: Outbound,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
}

impl SendRequest {
    /// The kind; none: it is none that there is.
    fn kind(&self) -> Option<Kind> {
        match &self.kind {
            Some(kind) => kind.ok().copied(),
            None => Some(Kind::Text),
        }
    }

    /// The channel, unless something is wrong with it.
    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        self.channel.ok().copied()
    }

    /// What a channel of this wire cannot carry.
    #[must_use]
    pub fn misfits(&self, dialect: Dialect) -> Vec<FieldError> {
        let mut wrong = Vec::new();
        let is_text = self.kind() == Some(Kind::Text);
        match dialect {
            Dialect::MockMeta => {
                if self.kind().is_some() && !is_text {
                    let message = "must be text: this channel has no other";
                    wrong.push(FieldError::new("type", message));
                }
            }
            Dialect::Whatsapp => {
                if is_text && self.content.is_some() {
                    wrong.push(FieldError::new("content", "is not there for a text"));
                }
                let to = self.to.ok().map(|to| &*to.0);
                if to.is_some_and(|to| whatsapp_id(to).is_none()) {
                    let message = "must be a number of 1 to 20 digits, or a user id";
                    wrong.push(FieldError::new("to", message));
                }
            }
        }
        wrong
    }

    /// The message that is asked for, on a channel of this wire that can carry it. A key of the
    /// header stands for a missing one.
    pub fn on(
        self,
        dialect: Dialect,
        header_key: Option<ClientMessageId>,
    ) -> Result<Asked, Problem> {
        let key = self.client_message_id.map(Parsed::value);
        if header_key.is_some() && key.is_some() && header_key != key {
            let message = "must be the Idempotency-Key of the header, where both are given";
            return Err(Problem::field("clientMessageId", message));
        }
        let kind = self.kind.map_or(Kind::Text, Parsed::value);
        let to = self.to.value().0;
        let (to, content, reply_to) = match dialect {
            Dialect::MockMeta => (to, None, None),
            Dialect::Whatsapp => {
                let id = whatsapp_id(&to).map(str::to_owned);
                (id.unwrap_or(to), self.content, self.reply_to)
            }
        };
        let readable = || content.as_deref().map(|c| content::readable(kind, c));
        let text = self.text.map(|text| text.value().0);
        let text = text.or_else(readable).unwrap_or_default();
        Ok(Asked {
            outbound: Outbound {
                channel: self.channel.value(),
                participant_id: to,
                address: None,
                kind: kind.as_str().to_owned(),
                text,
                content: content.map(|content| content.get().to_owned()),
                reply_to: None,
                reply_to_id: None,
                client_message_id: key.or(header_key).map(|key| key.0),
            },
            reply_to: reply_to.map(|id| id.value().0),
        })
    }
}

/// Whom `WhatsApp` can send to: a number without its plus, or a user id.
fn whatsapp_id(to: &str) -> Option<&str> {
    number(to).or_else(|| is_user_id(to).then_some(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_loses_its_plus_and_a_user_id_stays() {
        let longest = format!("DE.{}", "a1".repeat(64));
        for (to, id) in [
            ("+491701234567", Some("491701234567")),
            ("12345", Some("12345")),
            ("12345678901234567890", Some("12345678901234567890")),
            ("US.13491208655302741918", Some("US.13491208655302741918")),
            (&longest, Some(&*longest)),
            ("5678", Some("5678")),
            ("123456789012345678901", None),
            ("++491701234567", None),
            ("49 1701234567", None),
            ("+", None),
            ("user-123", None),
            ("us.1349", None),
            ("US.", None),
            ("US.ENT.1349", None),
            ("+US.1349", None),
            (&format!("{longest}x"), None),
        ] {
            assert_eq!(whatsapp_id(to), id, "{to}");
        }
    }
}
