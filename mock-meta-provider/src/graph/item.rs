//! What a customer does, as one item of a webhook in Meta's form.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::asked::{ItemRequest, insert};
use super::envelope::{self, DISPLAY_NUMBER};
use super::names;

/// An item with what belongs to it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) place: Place,
    pub(crate) json: Value,
    pub(crate) contact: Option<Value>,
    pub(crate) phone_number_id: Option<String>,
    pub(crate) wamid: Option<String>,
    /// A media object that it names, with its type.
    pub(crate) media: Option<(String, String)>,
}

/// Where in a body an item belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A message of a customer.
    Messages,
    /// One that another handler got.
    Standby,
    /// One that another handler wrote.
    StandbyEchoes,
    /// One that a person wrote in the Business app.
    Echoes,
    /// A change of user ids.
    UserIdUpdate,
    /// A value of its own.
    Field(String),
}

impl ItemRequest {
    /// Makes the item at this time.
    pub(crate) fn item(&self, now: &DateTime<Utc>) -> Item {
        if let Some(raw) = &self.raw {
            return self.raw(raw);
        }
        if self.kind() == "user_id_update" {
            return self.user_id_update(now);
        }
        let wamid = self.wamid.clone().unwrap_or_else(names::wamid);
        let mut media = None;
        let (wire_type, mut content) = super::content::of(self, &mut media);
        if let Some(given) = &self.content {
            content = Some(given.clone());
        }
        let timestamp = self.timestamp.clone();
        let timestamp = timestamp.unwrap_or_else(|| json!(envelope::seconds(now)));
        let (place, item, contact) = match (self.standby, self.echo) {
            (true, true) => {
                let mut message = Map::new();
                message.insert("messaging_product".into(), json!("whatsapp"));
                message.insert("recipient_type".into(), json!("individual"));
                match (self.number(), self.user_id()) {
                    (Some(number), _) => message.insert("to".into(), json!(number)),
                    (None, user_id) => message.insert("recipient".into(), json!(user_id)),
                };
                put_content(&mut message, &wire_type, content);
                let item = json!({ "id": wamid, "timestamp": timestamp, "message": message });
                (Place::StandbyEchoes, item, None)
            }
            (false, true) => {
                let mut item = Map::new();
                item.insert("from".into(), json!(DISPLAY_NUMBER));
                insert(&mut item, "to", self.number());
                insert(&mut item, "to_user_id", self.user_id());
                item.insert("id".into(), json!(wamid));
                item.insert("timestamp".into(), timestamp);
                put_content(&mut item, &wire_type, content);
                (Place::Echoes, item.into(), self.contact())
            }
            (standby, false) => {
                let item = self.message(&wamid, timestamp, &wire_type, content);
                let place = if standby {
                    Place::Standby
                } else {
                    Place::Messages
                };
                (place, item, self.contact())
            }
        };
        Item {
            place,
            json: self.with_fields(item),
            contact,
            phone_number_id: self.phone_number_id.clone(),
            wamid: Some(wamid),
            media,
        }
    }

    fn message(
        &self,
        wamid: &str,
        timestamp: Value,
        wire_type: &str,
        content: Option<Value>,
    ) -> Value {
        let mut item = Map::new();
        // An answer to a choice is always one to the message that offered it.
        let is_choice = matches!(
            self.kind(),
            "button" | "button_reply" | "list_reply" | "nfm_reply"
        );
        let reply_to = self.reply_to.clone();
        let reply_to = reply_to.or_else(|| is_choice.then(names::wamid));
        let context = reply_to.map(|id| json!({ "from": DISPLAY_NUMBER, "id": id }));
        let forwarded = self.forwarded.then(|| json!({ "forwarded": true }));
        insert(&mut item, "context", context.or(forwarded));
        insert(&mut item, "from", self.number());
        insert(&mut item, "from_user_id", self.user_id());
        insert(&mut item, "group_id", self.group_id.as_deref());
        item.insert("id".into(), json!(wamid));
        item.insert("timestamp".into(), timestamp);
        put_content(&mut item, wire_type, content);
        if wire_type == "unsupported" {
            let error = json!({
                "code": 131_051, "title": "Message type unknown", "message": "Message type unknown",
                "error_data": { "details": "Message type is currently not supported." },
            });
            item.insert("errors".into(), json!([error]));
        }
        item.into()
    }

    /// Who the customer is; a system message comes without.
    fn contact(&self) -> Option<Value> {
        let is_system = matches!(self.kind(), "user_changed_number" | "user_changed_user_id");
        if is_system || self.bare {
            return None;
        }
        let mut profile = Map::new();
        let name = self.name.as_deref().unwrap_or("Kerry Fisher");
        profile.insert("name".into(), json!(name));
        insert(&mut profile, "username", self.username.as_deref());
        let mut contact = Map::new();
        contact.insert("profile".into(), profile.into());
        insert(&mut contact, "wa_id", self.number());
        insert(&mut contact, "user_id", self.user_id());
        Some(contact.into())
    }

    fn user_id_update(&self, now: &DateTime<Utc>) -> Item {
        let mut item = Map::new();
        insert(&mut item, "wa_id", self.number());
        let current = self.new_user_id.clone();
        let current = current.unwrap_or_else(|| format!("{}9", self.user_id().unwrap_or_default()));
        item.insert(
            "user_id".into(),
            json!({ "previous": self.user_id(), "current": current }),
        );
        let timestamp = self.timestamp.clone();
        let timestamp = timestamp.unwrap_or_else(|| json!(envelope::seconds(now)));
        item.insert("timestamp".into(), timestamp);
        Item {
            place: Place::UserIdUpdate,
            json: self.with_fields(item.into()),
            contact: None,
            phone_number_id: self.phone_number_id.clone(),
            wamid: None,
            media: None,
        }
    }

    fn raw(&self, raw: &Value) -> Item {
        let place = match &self.field {
            Some(field) => Place::Field(field.clone()),
            None if self.standby => Place::Standby,
            None if self.echo => Place::Echoes,
            None => Place::Messages,
        };
        Item {
            place,
            json: raw.clone(),
            contact: None,
            phone_number_id: self.phone_number_id.clone(),
            wamid: raw["id"].as_str().map(str::to_owned),
            media: None,
        }
    }

    fn with_fields(&self, mut item: Value) -> Value {
        for (name, value) in &self.fields {
            if let Some(item) = item.as_object_mut() {
                if value.is_null() {
                    item.remove(name);
                } else {
                    item.insert(name.clone(), value.clone());
                }
            }
        }
        item
    }
}

fn put_content(item: &mut Map<String, Value>, wire_type: &str, content: Option<Value>) {
    item.insert("type".into(), json!(wire_type));
    insert(item, wire_type, content);
}
