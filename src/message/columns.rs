//! New messages column by column, as a statement takes them.

use serde::Serialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::{NewMessage, Outbound};
use crate::id::{ConversationId, MessageId};

/// What is stored of new messages, column by column.
pub struct Columns<'a> {
    pub ids: Vec<MessageId>,
    pub conversation_ids: Vec<ConversationId>,
    pub channels: Vec<&'a str>,
    pub participant_ids: Vec<&'a str>,
    pub texts: Vec<&'a str>,
    pub client_message_ids: Vec<Option<&'a str>>,
    pub tokens: Vec<Option<Uuid>>,
    pub traceparents: Vec<Option<&'a str>>,
    pub sent_by: Vec<Option<&'a str>>,
    /// What most messages do not have; none: it is a plain text.
    pub more: Vec<Option<Json<More<'a>>>>,
}

/// What few messages have: one column, so that the others cost nothing more.
#[derive(Serialize)]
pub struct More<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    content: Option<&'a str>,
    address: Option<&'a str>,
    reply_to: Option<&'a str>,
    reply_to_id: Option<Uuid>,
}

impl<'a> More<'a> {
    fn of(outbound: &'a Outbound) -> Option<Json<Self>> {
        let more = Self {
            kind: &outbound.kind,
            content: outbound.content.as_deref(),
            address: outbound.address.as_deref(),
            reply_to: outbound.reply_to.as_deref(),
            reply_to_id: outbound.reply_to_id.map(|id| id.0),
        };
        let is_plain = more.kind == "text"
            && more.content.is_none()
            && more.address.is_none()
            && more.reply_to.is_none();
        (!is_plain).then_some(Json(more))
    }
}

impl<'a> Columns<'a> {
    pub fn of(messages: &[&'a NewMessage]) -> Self {
        let outbound = || messages.iter().map(|m| &*m.outbound);
        let key = |o: &'a Outbound| o.client_message_id.as_deref();
        Self {
            ids: messages.iter().map(|m| m.id).collect(),
            conversation_ids: messages.iter().map(|m| m.conversation_id).collect(),
            channels: outbound().map(|o| o.channel.as_str()).collect(),
            participant_ids: outbound().map(|o| &*o.participant_id).collect(),
            texts: outbound().map(|o| &*o.text).collect(),
            client_message_ids: outbound().map(key).collect(),
            tokens: messages.iter().map(|m| m.lease_token).collect(),
            traceparents: messages.iter().map(|m| m.traceparent.as_deref()).collect(),
            sent_by: messages.iter().map(|m| m.sent_by.as_deref()).collect(),
            more: outbound().map(More::of).collect(),
        }
    }
}
