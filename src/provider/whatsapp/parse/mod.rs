//! Finds the items in the body of a webhook. One that is broken hides no other, and nothing that is
//! in a body fails: what nobody understands is a message of type `unsupported`.

mod content;
mod describe;
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

#[cfg(test)]
mod samples;

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::samples::{OURS, body, change, found, now};
    use super::*;

    fn text(id: &str) -> String {
        format!(
            r#"{{"from":"16505551234","id":"{id}","timestamp":"1750030073","type":"text","text":{{"body":"{id}"}}}}"#
        )
    }

    fn hi(id: &str) -> String {
        format!("{id}: text {id:?} of 16505551234")
    }

    fn status(id: &str, status: &str) -> String {
        format!(r#"{{"id":"{id}","status":"{status}","timestamp":"1750030073"}}"#)
    }

    #[test]
    fn every_entry_change_message_and_status_is_found_in_order() {
        let messages = |ids: &[&str]| {
            let messages: Vec<String> = ids.iter().map(|id| text(id)).collect();
            format!("\"messages\":[{}]", messages.join(","))
        };
        let both = format!(
            r#""statuses":[{},{}],"errors":[{{"code":1}}],{},"user_actions":[{{}}],"calls":[{{}}]"#,
            status("s1", "delivered"),
            status("s1", "sent"),
            messages(&["c", "d"])
        );
        let entries = [
            format!(
                r#"{{"changes":[{},{}]}}"#,
                change("messages", &messages(&["a", "b"])),
                change("messages", &both)
            ),
            format!(
                r#"{{"changes":[{},{}]}}"#,
                change("user_preferences", r#""user_preferences":[]"#),
                change("messages", &messages(&["e", "a"]))
            ),
        ];
        let object = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{}]}}"#,
            entries.join(",")
        );
        let expected = [
            hi("a"),
            hi("b"),
            "s1 Delivered".into(),
            "s1 Sent".into(),
            "error".into(),
            hi("c"),
            hi("d"),
            "other_field".into(),
            hi("e"),
            hi("a"),
        ];
        assert_eq!(found(&object), expected);
        // An envelope may be in an array, behind a byte order mark.
        assert_eq!(found(&format!("\u{FEFF}[ {object} ]\n")), expected);
    }

    #[test]
    fn whatever_shape_the_envelope_has_what_is_in_it_is_found() {
        let value = format!(r#"{{"messages":{}}}"#, text("a"));
        for body in [
            format!(r#"{{"entry":{{"changes":{{"value":{value}}}}}}}"#),
            format!(
                r#"{{"entry":[{{"changes":[{{"field":"messages","value":[{value}]}}]}}],"object":null}}"#
            ),
            format!(
                r#"{{"entry":[{{"changes":[]}}],"entry":[{{"changes":null,"changes":[{{"value":{value}}}]}}]}}"#
            ),
        ] {
            assert_eq!(found(&body), [hi("a")], "{body}");
        }
        let odd = format!(r#"{{"entry":[7,[],{{"changes":["x",{{"value":[1,{value}]}}]}},{{}}]}}"#);
        assert_eq!(
            found(&odd),
            [
                "malformed",
                "malformed",
                "malformed",
                "malformed",
                &*hi("a")
            ]
        );
        assert_eq!(found(&body("standby", r#""standby":["x"]"#)), ["malformed"]);
        assert!(found("{}").is_empty());
        assert!(found(r#"{"entry":null}"#).is_empty());
    }

    #[test]
    fn what_is_not_ours_is_counted_and_hides_nothing() {
        let other =
            r#"{"object":"instagram","entry":[{"id":"1","messaging":[{"message":{"mid":"m"}}]}]}"#;
        assert_eq!(found(other), ["other_object"]);
        for field in [
            "account_update",
            "calls",
            "history",
            "messaging_handovers",
            "message_echoes",
        ] {
            let field = body(field, &format!("\"messages\":[{}]", text("a")));
            assert_eq!(found(&field), ["other_field"]);
        }
        let foreign = format!(
            r#"{{"value":{{"metadata":{{"phone_number_id":"123456123"}},"messages":[{},{}],"statuses":[{}]}}}}"#,
            text("a"),
            text("b"),
            status("s", "sent")
        );
        let ours = format!(
            r#"{{"value":{{"metadata":{{"phone_number_id":{OURS}}},"messages":[{}]}}}}"#,
            text("c")
        );
        let changes = format!(r#"{{"entry":[{{"changes":[{foreign},{ours}]}}]}}"#);
        let expected = ["other_number", "other_number", "other_number", &*hi("c")];
        assert_eq!(found(&changes), expected);
        let standby = format!(r#""standby":{{"messages":[{}]}}"#, text("a"));
        let standby = body("standby", &standby);
        assert_eq!(found(&standby), [hi("a") + " silent"]);
        assert_eq!(found(&standby.replace(OURS, "123456123")), ["other_number"]);
    }

    #[test]
    fn one_item_that_is_broken_hides_no_other() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep_objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        let mut broken = vec![
            r#"{"type":"text","from":"16505550000","text":{"body":"\ud83d"}}"#.to_owned(),
            format!(r#"{{"type":"text","text":{deep}}}"#),
            format!(r#"{{"type":{deep_objects}}}"#),
            deep,
            deep_objects,
            "null".to_owned(),
            r#"{"a":1e999,"a":1e999,"\ud800":"\ude00","id":[[]]}"#.to_owned(),
        ];
        let valid = broken.len();
        broken.extend([
            // No JSON, yet with as many ends as beginnings.
            "nonsense".to_owned(),
            r#"{"type":"text" "from":01,}"#.to_owned(),
            "{\"type\":\"text\",\"text\":{\"body\":\"\u{1}\n\0\"}}".to_owned(),
            r#"{"type":"\x"}"#.to_owned(),
            "{1:2}".to_owned(),
        ]);
        for (at, broken) in broken.iter().enumerate() {
            let items = format!("\"messages\":[{},{broken},{}]", text("a"), text("b"));
            let items = format!(r#"{items},"statuses":[{broken},{}]"#, status("s", "read"));
            let mut found = found(&body("messages", &items));
            let last = found.pop_if(|last| last == "broken");
            assert_eq!(last.is_some(), at >= valid, "{broken:.80}");
            for expected in [hi("a"), hi("b"), "s Read".into()] {
                assert!(found.contains(&expected), "{broken:.80}: {found:?}");
            }
        }
    }

    #[test]
    fn texts_that_postgresql_cannot_hold_cost_one_character_each() {
        let bad = r#"{"from":"16505551234","id":"x","timestamp":"1750030073","type":"text","text":{"body":"a\u0000b\ud83d"}}"#;
        let items = format!("\"messages\":[{},{bad},{}]", text("a"), text("b"));
        let body = body("messages", &items);
        let expected = "x: text \"a\u{FFFD}b\u{FFFD}\" of 16505551234".to_owned();
        assert_eq!(found(&body), [hi("a"), expected, hi("b")]);
        let items = parse(body.as_bytes(), OURS, now()).unwrap();
        let Item::Message(message) = &items[1] else {
            panic!("{items:?}");
        };
        assert_eq!(message.content, r#"{"body":"a\uFFFDb\uFFFD"}"#);
        assert_eq!(message.raw, bad);
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        let cut = body("messages", &format!("\"messages\":[{}", text("a")));
        for nothing in [
            "",
            "null",
            "7",
            "\"x\"",
            "[]",
            "[7]",
            "nonsense",
            "<html>{}",
            "{",
            "{]",
            r#"{"entry":"#,
            "a=b",
        ] {
            assert_eq!(
                parse(nothing.as_bytes(), OURS, now()),
                Err(NotAnObject),
                "{nothing}"
            );
        }
        assert_eq!(parse(b"\xFF\xFE{\0}\0", OURS, now()), Err(NotAnObject));
        // Of one that is cut off, what is there is found.
        assert_eq!(
            found(cut.trim_end_matches(['}', ']'])),
            [hi("a"), "broken".into()]
        );
        let latin = [b"{\"a\":\"caf\xE9\",", &cut.as_bytes()[1..]].concat();
        assert!(parse(&latin, OURS, now()).is_ok());
    }
}
