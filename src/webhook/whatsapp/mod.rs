//! The webhook of WhatsApp's Cloud API: what comes in a body is stored item by item, each once, in
//! whatever order and however often it comes.

pub mod http;
pub mod ingest;
pub mod intake;
pub(crate) mod store;

use crate::id::{ConversationId, MessageId};
use crate::provider::whatsapp::events::{Amendment, Inbound, Link};

/// An item that is to be stored, with the ids that it gets if it is new.
#[derive(Debug)]
pub struct Arrival {
    /// What has come.
    pub news: News,
    /// The message's id, if it is a message and new.
    pub message_id: MessageId,
    /// The conversation's id, if that is new.
    pub conversation_id: ConversationId,
}

impl Arrival {
    /// With new ids, greater than all before.
    #[must_use]
    pub fn new(news: News) -> Self {
        Self {
            news,
            message_id: MessageId::new(),
            conversation_id: ConversationId::new(),
        }
    }
}

/// What has come.
#[derive(Debug)]
pub enum News {
    /// A message, in or out.
    Message(Box<Inbound>),
    /// Something about another message.
    Amendment(Box<Amendment>),
    /// Another id of a person.
    Link(Box<Link>),
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It is stored.
    New,
    /// It was stored before.
    Duplicate,
    /// It changes nothing: it names nobody, or another's message.
    Ignored,
}
