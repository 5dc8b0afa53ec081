//! Finds the items in the body of a webhook. One that is broken hides no other, and nothing that is
//! in a body fails: what nobody understands is a message of type `unsupported`.

mod content;
mod ids;
mod links;
mod message;
mod render;
mod status;
mod value;

use chrono::{DateTime, Utc};

use self::content::is_json;
use self::ids::Contacts;
use self::message::Context;
use self::value::{Object, Value};
use super::events::{Ignored, Item, NotAnObject, Origin};
use crate::json;

/// All items of a body, in the order in which they stand. The same item twice is there twice.
///
/// `phone_number_id` is ours: items of another are ignored. `now` is the time of what has none.
/// What is found in a body that is no valid JSON is followed by [`Ignored::Broken`].
pub fn parse(
    body: &[u8],
    phone_number_id: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Item>, NotAnObject> {
    let text = json::text(body);
    let whole = Value::of(text.as_bytes());
    let mut reader = Reader {
        phone_number_id,
        now,
        items: Vec::new(),
    };
    let mut is_object = false;
    // At times the object is in an array.
    for object in whole.elements().filter_map(Value::object) {
        is_object = true;
        reader.envelope(&object);
    }
    let mut items = reader.items;
    let is_found = |item: &Item| !matches!(item, Item::Ignored(_));
    if is_object && !is_json(&text) {
        is_object = items.iter().any(is_found);
        items.push(Item::Ignored(Ignored::Broken));
    }
    is_object.then_some(items).ok_or(NotAnObject)
}

struct Reader<'a> {
    phone_number_id: &'a str,
    now: DateTime<Utc>,
    items: Vec<Item>,
}

impl Reader<'_> {
    fn ignore(&mut self, why: Ignored) {
        self.items.push(Item::Ignored(why));
    }

    fn envelope(&mut self, object: &Object) {
        let kind = object.string("object");
        if kind.is_some_and(|kind| kind != "whatsapp_business_account") {
            return self.ignore(Ignored::OtherObject);
        }
        for entry in object.each("entry") {
            let Some(entry) = entry.object() else {
                self.ignore(Ignored::Malformed);
                continue;
            };
            for change in entry.each("changes") {
                match change.object() {
                    Some(change) => self.change(&change),
                    None => self.ignore(Ignored::Malformed),
                }
            }
        }
    }

    fn change(&mut self, change: &Object) {
        let field = change.string("field");
        let field = field.as_deref().unwrap_or("messages");
        if !matches!(
            field,
            "messages" | "smb_message_echoes" | "standby" | "user_id_update"
        ) {
            return self.ignore(Ignored::OtherField);
        }
        for value in change.each("value") {
            let Some(value) = value.object() else {
                self.ignore(Ignored::Malformed);
                continue;
            };
            let is_standby = field == "standby";
            self.value(&value, &value, is_standby);
            if is_standby {
                for inner in value.each("standby") {
                    match inner.object() {
                        Some(inner) => self.value(&inner, &value, is_standby),
                        None => self.ignore(Ignored::Malformed),
                    }
                }
            }
        }
    }

    /// The items of a value; what is said about all of them may be around it.
    fn value(&mut self, value: &Object, outer: &Object, is_standby: bool) {
        let metadata = value
            .object("metadata")
            .or_else(|| outer.object("metadata"));
        let metadata = metadata.unwrap_or_default();
        let number = metadata.get("phone_number_id").and_then(Value::word);
        let is_other = number.is_some_and(|number| number != self.phone_number_id);
        let displayed = metadata.string("display_phone_number").unwrap_or_default();
        let displayed: String = displayed.chars().filter(char::is_ascii_digit).collect();
        let source = if value.get("contacts").is_some() {
            value
        } else {
            outer
        };
        let context = Context {
            contacts: &Contacts::of(source),
            displayed: (!displayed.is_empty()).then_some(&*displayed),
            is_standby,
            now: self.now,
        };
        let echo = if is_standby {
            Origin::Agent
        } else {
            Origin::App
        };
        // As they stand: a value may have messages and statuses.
        for (name, items) in value.fields() {
            let read: &dyn Fn(Value) -> Item = match name {
                "messages" => &|item| message::read(item, Origin::Customer, &context),
                "message_echoes" => &|item| message::read(item, echo, &context),
                "statuses" => &|item| status::read(item, context.now),
                "user_id_update" => &|item| links::of_update(item, context.now),
                "errors" => &|_| Item::Ignored(Ignored::Error),
                _ => continue,
            };
            for item in items.elements() {
                self.items.push(if is_other {
                    Item::Ignored(Ignored::OtherNumber)
                } else {
                    read(item)
                });
            }
        }
    }
}
