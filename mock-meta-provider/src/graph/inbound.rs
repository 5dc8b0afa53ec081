//! Bodies with what customers do: items of one place stand together, and their order is kept.

use bytes::Bytes;
use serde_json::{Value, json};

use super::envelope;
use super::item::{Item, Place};

/// A body with these items, in their order; `usual` is our phone number id.
pub(crate) fn body(items: &[Item], usual: &str) -> Bytes {
    let together = items.chunk_by(|one, next| {
        one.place == next.place
            && one.phone_number_id == next.phone_number_id
            && !matches!(one.place, Place::Field(_))
    });
    let changes: Vec<Value> = together.map(|items| change(items, usual)).collect();
    envelope::body(&changes)
}

fn change(items: &[Item], usual: &str) -> Value {
    let first = &items[0];
    let phone_number_id = first.phone_number_id.as_deref().unwrap_or(usual);
    let all: Vec<&Value> = items.iter().map(|item| &item.json).collect();
    let mut contacts: Vec<&Value> = items
        .iter()
        .filter_map(|item| item.contact.as_ref())
        .collect();
    contacts.dedup();
    let mut value = envelope::value(phone_number_id);
    match &first.place {
        Place::Messages => {
            if !contacts.is_empty() {
                value["contacts"] = json!(contacts);
            }
            value["messages"] = json!(all);
            envelope::change("messages", &value)
        }
        Place::Standby => {
            value["standby"] = json!({ "messages": all });
            if !contacts.is_empty() {
                value["standby"]["contacts"] = json!(contacts);
            }
            envelope::change("standby", &value)
        }
        Place::StandbyEchoes => {
            value["standby"] = json!({ "message_echoes": all });
            envelope::change("standby", &value)
        }
        Place::Echoes => {
            if !contacts.is_empty() {
                value["contacts"] = json!(contacts);
            }
            value["message_echoes"] = json!(all);
            envelope::change("smb_message_echoes", &value)
        }
        Place::UserIdUpdate => {
            value["user_id_update"] = json!(all);
            envelope::change("user_id_update", &value)
        }
        Place::Field(field) => envelope::change(field, &first.json),
    }
}
