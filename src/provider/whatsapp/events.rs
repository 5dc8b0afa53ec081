//! What a webhook's body says, item by item: one that cannot be understood hides no other.

use bytes::Bytes;
use chrono::{DateTime, Utc};

/// The ids of a person, of which one is there at least.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// A telephone number: 1 to 20 digits.
    pub number: Option<String>,
    /// The id that the business has for them, such as `US.13491208655302741918`.
    pub user_id: Option<String>,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The customer.
    Customer,
    /// A person of the business, in its app.
    App,
    /// An agent of Meta's.
    Agent,
}

/// A message, in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The idempotency key: the `wamid`, or where that is not fit for one, `sha256:` and the item's
    /// hash in hex.
    pub event_id: String,
    /// Meta's id for it.
    pub wamid: Option<String>,
    /// The customer, whoever wrote.
    pub person: Person,
    /// What the customer calls themselves: at most 256 characters.
    pub name: Option<String>,
    /// Who wrote.
    pub origin: Origin,
    /// Whether somebody is to read it.
    pub is_unread: bool,
    /// Meta's word for what it is.
    pub kind: String,
    /// What a person reads.
    pub text: String,
    /// The object of its kind, as it came: JSON.
    pub content: String,
    /// The message that it answers.
    pub reply_to: Option<String>,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// The item as it came.
    pub raw: Bytes,
}

/// What has come about another message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// The idempotency key, as of a message.
    pub event_id: String,
    /// The other message's `wamid`.
    pub target: String,
    /// The customer, whoever did it.
    pub person: Person,
    /// Who did it.
    pub origin: Origin,
    /// When.
    pub at: DateTime<Utc>,
    /// What is to change.
    pub change: Change,
    /// The item as it came.
    pub raw: Bytes,
}

/// What is to change about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The sender's reaction; none: it is taken back.
    Reaction(Option<String>),
    /// It says something else now.
    Edit {
        /// As of a message.
        kind: String,
        /// As of a message.
        text: String,
        /// As of a message.
        content: String,
    },
    /// It is gone.
    Deletion,
}

impl Change {
    /// Its name, as in the database and in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reaction(_) => "reaction",
            Self::Edit { .. } => "edit",
            Self::Deletion => "deletion",
        }
    }
}

/// How far an outbound message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Sent on.
    Sent,
    /// On the customer's device.
    Delivered,
    /// Seen.
    Read,
    /// Listened to.
    Played,
    /// Not to be delivered.
    Failed,
}

/// A status of an outbound message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUpdate {
    /// The message's.
    pub wamid: String,
    /// How far it has come.
    pub step: Step,
    /// When.
    pub at: DateTime<Utc>,
    /// Whom it was sent to, where that is told.
    pub recipient: Option<Person>,
    /// What it was sent with: `biz_opaque_callback_data`.
    pub opaque: Option<String>,
    /// Why it failed.
    pub error: Option<StatusError>,
}

/// Why a message could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusError {
    /// Meta's number for it.
    pub code: i64,
    /// What the number means; at most 500 characters, no control characters.
    pub title: String,
    /// What is known of it, likewise.
    pub detail: Option<String>,
}

/// Meta's own word that a person has another id now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What they were known by.
    pub known: Person,
    /// What they have now.
    pub now: Person,
    /// Since when.
    pub at: DateTime<Utc>,
}

/// Why an item is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Ignored {
    /// It is for another number.
    OtherNumber,
    /// It was said in a group.
    Group,
    /// It is no field of messages.
    OtherField,
    /// It is no object of `WhatsApp`'s.
    OtherObject,
    /// It tells something that changes no message.
    System,
    /// A chat was opened.
    Opened,
    /// An error that belongs to no message.
    Error,
    /// A status that is none of the known steps.
    Status,
    /// Nobody is named in it.
    Nobody,
    /// It is no object, or has no id that is needed.
    Malformed,
    /// The body was no valid JSON, yet there were items in it.
    Broken,
}

/// One item of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message(Box<Inbound>),
    /// A reaction, an edit or a deletion.
    Amendment(Box<Amendment>),
    /// A status.
    Status(Box<StatusUpdate>),
    /// Another id of a person.
    Link(Box<Link>),
    /// Anything else.
    Ignored(Ignored),
}

/// A body that is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnObject;
