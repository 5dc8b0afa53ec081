//! Bodies as Meta posts them.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::plan::{Conversation, Event};
use super::whatsapp::PHONE_NUMBER_ID;

/// Meta's id for an event.
pub fn wamid(event: &Event) -> String {
    format!("wamid.{}", event.id)
}

/// A body with events of these conversations, each in a change of its own as Meta may have it.
pub fn body<'a>(events: impl IntoIterator<Item = (&'a Conversation, &'a Event)>) -> Value {
    let changes: Vec<Value> = events
        .into_iter()
        .map(|(conversation, event)| change(&messages(conversation, event)))
        .collect();
    envelope(&changes)
}

/// The same among items that nobody understands: none of these hides another.
pub fn body_with_strangers(events: &[(&Conversation, &Event)]) -> (Value, usize) {
    let mut changes = vec![
        json!({ "field": "account_update", "value": { "event": "ACCOUNT_UPDATE" } }),
        change(&json!({ "statuses": [{ "id": "wamid.strange", "status": "in_orbit" }] })),
    ];
    let strangers = changes.len();
    let events = events.iter();
    changes.extend(events.map(|(conversation, event)| change(&messages(conversation, event))));
    let middle = changes.len() / 2;
    changes.swap(0, middle);
    (envelope(&changes), strangers)
}

fn envelope(changes: &[Value]) -> Value {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": changes }] })
}

fn change(value: &Value) -> Value {
    let mut value = value.clone();
    value["messaging_product"] = json!("whatsapp");
    value["metadata"] = json!({
        "display_phone_number": "15550000000", "phone_number_id": PHONE_NUMBER_ID,
    });
    json!({ "field": "messages", "value": value })
}

fn messages(conversation: &Conversation, event: &Event) -> Value {
    let who = &conversation.participant;
    let (of_message, of_contact) = if who.contains('.') {
        ("from_user_id", "user_id")
    } else {
        ("from", "wa_id")
    };
    json!({
        "contacts": [{ "profile": { "name": "Simulated" }, of_contact: who }],
        "messages": [{
            "id": wamid(event), of_message: who, "timestamp": seconds(event.timestamp),
            "type": "text", "text": { "body": event.text },
        }],
    })
}

fn seconds(at: DateTime<Utc>) -> String {
    at.timestamp().to_string()
}
