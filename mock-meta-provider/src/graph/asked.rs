//! What `POST /simulate/whatsapp` is asked for.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::names;

const CUSTOMER: &str = "16505551234";

/// What is asked of `POST /simulate/whatsapp` for one item. All fields may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ItemRequest {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// A number or a user id; empty: the number is not told.
    pub(crate) from: Option<String>,
    /// The user id; empty: it is not told.
    pub(crate) user_id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) wamid: Option<String>,
    /// Seconds, or what else a receiver shall find there.
    pub(crate) timestamp: Option<Value>,
    /// The message that it replies to.
    pub(crate) reply_to: Option<String>,
    /// The message that a reaction, an edit or a deletion is about.
    pub(crate) target: Option<String>,
    pub(crate) emoji: Option<String>,
    pub(crate) media_id: Option<String>,
    pub(crate) mime_type: Option<String>,
    pub(crate) file_name: Option<String>,
    /// The payload of a button, the id of a choice.
    pub(crate) payload: Option<String>,
    pub(crate) latitude: Option<Value>,
    pub(crate) longitude: Option<Value>,
    pub(crate) address: Option<String>,
    pub(crate) new_number: Option<String>,
    pub(crate) new_user_id: Option<String>,
    pub(crate) group_id: Option<String>,
    pub(crate) forwarded: bool,
    /// No contacts stand beside it.
    pub(crate) bare: bool,
    /// Replaces the object of the type.
    pub(crate) content: Option<Value>,
    /// More fields of the item; null takes one away.
    pub(crate) fields: Map<String, Value>,
    /// It went through another handler of the conversation.
    pub(crate) standby: bool,
    /// The business wrote it elsewhere.
    pub(crate) echo: bool,
    pub(crate) phone_number_id: Option<String>,
    /// The item as it is; with `field` the whole value of that field.
    pub(crate) raw: Option<Value>,
    pub(crate) field: Option<String>,
}

impl ItemRequest {
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("text")
    }

    /// The number, if it is told.
    pub(crate) fn number(&self) -> Option<&str> {
        let from = self.from.as_deref().unwrap_or(CUSTOMER);
        (!from.is_empty() && !names::is_user_id(from)).then_some(from)
    }

    /// The user id, if it is told.
    pub(crate) fn user_id(&self) -> Option<String> {
        let from = self.from.as_deref().unwrap_or(CUSTOMER);
        let user_id = match &self.user_id {
            Some(given) => given.clone(),
            None if names::is_user_id(from) => from.to_owned(),
            None => names::user_id(self.number().unwrap_or(CUSTOMER)),
        };
        (!user_id.is_empty()).then_some(user_id)
    }
}

/// Adds a field, if there is one.
pub(crate) fn insert(object: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}
