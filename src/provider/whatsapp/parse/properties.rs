//! Whatever stands beside a good item, the good item is found; whatever comes, nothing fails.

use std::time::{Duration, Instant};

use chrono::Datelike;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::value::RawValue;

use super::parse;
use super::samples::{OURS, change, line, message, now};
use crate::json;
use crate::provider::whatsapp::events::{Change, Item, Person};

/// Names that mean something, and some that do not.
const NAMES: &[&str] = &[
    "object",
    "entry",
    "changes",
    "field",
    "value",
    "metadata",
    "phone_number_id",
    "contacts",
    "profile",
    "name",
    "username",
    "wa_id",
    "user_id",
    "messages",
    "message_echoes",
    "statuses",
    "errors",
    "standby",
    "user_id_update",
    "id",
    "from",
    "from_user_id",
    "to",
    "timestamp",
    "type",
    "text",
    "body",
    "image",
    "caption",
    "audio",
    "voice",
    "location",
    "latitude",
    "interactive",
    "button_reply",
    "title",
    "order",
    "product_items",
    "quantity",
    "item_price",
    "reaction",
    "message_id",
    "emoji",
    "edit",
    "message",
    "original_message_id",
    "revoke",
    "system",
    "context",
    "group_id",
    "status",
    "code",
    "error_data",
    "x",
];

/// Texts that mean something.
const TEXTS: &[&str] = &[
    "text",
    "image",
    "voice",
    "location",
    "contacts",
    "interactive",
    "order",
    "reaction",
    "edit",
    "revoke",
    "system",
    "unsupported",
    "user_changed_number",
    "messages",
    "standby",
    "smb_message_echoes",
    "sent",
    "failed",
    "16505551234",
    "US.1",
    "US.ENT.1",
    "wamid.x",
    "1750030073",
    "1e999",
    "whatsapp_business_account",
];

/// A JSON string, also with what no text can hold.
fn any_string() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(TEXTS).prop_map(|text| format!("\"{text}\"")),
        1 => "\"([ !#-\\[\\]-~é🙂]|\\\\u(d8|dc|00)[0-9a-f]{2}|\\\\[nt\"\\\\]){0,8}\"",
    ]
}

/// A JSON value.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => any_string(),
        1 => select(&["null", "true", "7", "-0.5", "1e999", "131052", "{}", "[]"][..]).prop_map(str::to_owned),
        1 => (1_usize..200).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let field = (select(NAMES), inner.clone());
        let fields = vec(
            field.prop_map(|(name, value)| format!("\"{name}\":{value}")),
            0..6,
        );
        prop_oneof![
            2 => fields.prop_map(|fields| format!("{{{}}}", fields.join(","))),
            1 => vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
        ]
    })
}

/// What may stand beside an item: JSON or not, but with as many ends as beginnings.
fn any_neighbour() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any_value(),
        1 => "[a-z0-9:.+\u{1}\n -]{1,10}".boxed(),
        1 => "\\{[a-z:, \u{0}]{0,10}\\}".boxed(),
        1 => "\"[a-z\u{0}-\u{1f}é]{0,10}\"".boxed(),
    ]
}

/// An array of these in this order, with anything between them.
fn mixed(good: Vec<String>) -> impl Strategy<Value = String> {
    let count = good.len() + 1;
    vec(vec(any_neighbour(), 0..3), count).prop_map(move |between| {
        let good = good
            .iter()
            .map(|good| vec![good.clone()])
            .chain([Vec::new()]);
        let all: Vec<String> = between
            .into_iter()
            .zip(good)
            .flat_map(|(between, good)| [between, good].concat())
            .collect();
        format!("[{}]", all.join(","))
    })
}

fn good_message(id: usize) -> String {
    format!(
        r#"{{"from":"16505551234","id":"m{id}","timestamp":"1750030073","type":"text","text":{{"body":"t{id}"}}}}"#
    )
}

fn good_status(id: usize) -> String {
    format!(r#"{{"id":"m{id}","status":"read","timestamp":"1750030073"}}"#)
}

/// A body of some good messages and statuses, and of anything else.
fn mixed_body(messages: usize) -> impl Strategy<Value = (usize, String)> {
    let ids = |from: usize| from * 2..from * 2 + 2;
    let change = move |at: usize| {
        let messages = mixed(ids(at).map(good_message).collect());
        let statuses = mixed(ids(at).map(good_status).collect());
        (messages, statuses, any_value()).prop_map(|(messages, statuses, neighbour)| {
            change(
                "messages",
                &format!(r#""x":{neighbour},"messages":{messages},"statuses":{statuses}"#),
            )
        })
    };
    let changes: Vec<_> = (0..messages).map(change).collect();
    changes
        .prop_flat_map(mixed)
        .prop_flat_map(|changes| mixed(vec![format!(r#"{{"changes":{changes}}}"#)]))
        .prop_map(move |entries| {
            let body = format!(r#"{{"object":"whatsapp_business_account","entry":{entries}}}"#);
            (messages * 2, body)
        })
}

fn is_somebody(person: &Person) -> bool {
    person.number.is_some() || person.user_id.is_some()
}

fn assert_storable(kind: &str, text: &str, content: &str) {
    assert!(!kind.is_empty());
    assert!(
        !text.is_empty() && text.chars().count() <= 65_536 && !text.contains('\0'),
        "{text}"
    );
    assert!(content.len() <= 64 * 1024);
    serde_json::from_str::<&RawValue>(content).unwrap();
    assert_eq!(json::repaired(content.as_bytes()), content);
}

/// What the database takes for granted.
fn assert_bounded(item: &Item) {
    let is_id =
        |id: &str| (1..=255).contains(&id.chars().count()) && !id.chars().any(char::is_control);
    match item {
        Item::Message(message) => {
            assert!(is_id(&message.event_id) && message.wamid.as_deref().is_none_or(is_id));
            assert!(is_somebody(&message.person) && message.reply_to.as_deref().is_none_or(is_id));
            assert!(
                message
                    .name
                    .as_ref()
                    .is_none_or(|name| (1..=256).contains(&name.chars().count()))
            );
            assert!((1..=9999).contains(&message.timestamp.year()));
            assert_storable(&message.kind, &message.text, &message.content);
        }
        Item::Amendment(amendment) => {
            assert!(is_id(&amendment.event_id) && is_id(&amendment.target));
            assert!(is_somebody(&amendment.person));
            if let Change::Edit {
                kind,
                text,
                content,
            } = &amendment.change
            {
                assert_storable(kind, text, content);
            }
        }
        Item::Status(status) => {
            assert!(is_id(&status.wamid));
            assert!(status.recipient.as_ref().is_none_or(is_somebody));
            assert!(
                status
                    .opaque
                    .as_ref()
                    .is_none_or(|opaque| !opaque.contains('\0'))
            );
        }
        Item::Link(link) => assert!(is_somebody(&link.known) && is_somebody(&link.now)),
        Item::Ignored(_) => {}
    }
}

proptest! {
    #[test]
    fn good_items_are_found_whatever_stands_beside_them(
        (count, body) in (0_usize..3).prop_flat_map(mixed_body),
        is_wrapped: bool,
    ) {
        let body = if is_wrapped { format!(" [ {body} ] ") } else { body };
        let items = parse(body.as_bytes(), OURS, now());
        let lines: Vec<String> = items.iter().flatten().map(line).collect();
        let of_message = |line: &&String| line.starts_with('m') && line.contains(": text \"t");
        let messages: Vec<&String> = lines.iter().filter(of_message).collect();
        prop_assert_eq!(messages.len(), count, "{}", body);
        for (id, line) in messages.iter().enumerate() {
            let expected = format!("m{id}: text \"t{id}\" of 16505551234");
            prop_assert!(line.starts_with(&expected), "{}", line);
        }
        let is_status = |line: &&String| line.starts_with('m') && line.ends_with(" Read");
        let statuses: Vec<&String> = lines.iter().filter(is_status).collect();
        let expected: Vec<String> = (0..count).map(|id| format!("m{id} Read")).collect();
        prop_assert_eq!(statuses, expected.iter().collect::<Vec<_>>(), "{}", body);
        items.iter().flatten().for_each(assert_bounded);
    }

    #[test]
    fn any_message_is_something_that_can_be_stored(fields in vec((select(NAMES), any_value()), 0..8)) {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let body = message(&[vec!["\"id\":\"w\"".to_owned()], fields].concat().join(","));
        let items = parse(body.as_bytes(), OURS, now()).unwrap();
        prop_assert_eq!(items.len(), 1, "{}", body);
        items.iter().for_each(assert_bounded);
    }

    #[test]
    fn whatever_comes_is_read_to_its_end(
        (_, body) in (0_usize..2).prop_flat_map(mixed_body),
        changes in vec((any::<Index>(), 0_usize..40, vec(any::<u8>(), 0..4)), 0..6),
    ) {
        let mut body = body.into_bytes();
        for (at, cut, new) in changes {
            let at = at.index(body.len() + 1);
            let end = body.len().min(at + cut);
            body.splice(at..end, new);
        }
        parse(&body, OURS, now()).iter().flatten().for_each(assert_bounded);
    }
}

#[test]
fn what_a_body_costs_grows_with_its_length_only() {
    let size = 1_000_000;
    let contact = |at: usize| format!(r#"{{"wa_id":"{}"}}"#, 10_000 + at);
    let contacts: Vec<String> = (0..size / 30).map(contact).collect();
    let person = |at: usize| format!(r#"{{"from":"{}"}}"#, 10_000 + at);
    let people: Vec<String> = (0..size / 30).map(person).collect();
    let people = format!(
        r#""contacts":[{}],"messages":[{}]"#,
        contacts.join(","),
        people.join(",")
    );
    let repeated = |text: &str| text.repeat(size / text.len());
    for fields in [
        people,
        format!(r#""messages":[{}]"#, repeated("{},")),
        format!(r#""messages":[{}]"#, repeated(r#""\u0000","#)),
        format!(
            r#""messages":[{{"from":"16505551234",{}}}]"#,
            repeated(r#""a":1,"#)
        ),
        format!(
            r#""messages":[{{"from":"16505551234",{}"x":1}}]"#,
            repeated(r#""errors":[],"#)
        ),
        format!(
            r#""messages":[{{"from":"16505551234","type":"text","text":{{"body":"{}"}}}}]"#,
            repeated(r"\u0000")
        ),
        format!(
            r#""messages":[{{"from":"16505551234","type":"contacts","contacts":[{}]}}]"#,
            repeated(r#"{"name":[]},"#)
        ),
        format!(
            r#""messages":[{{"from":"16505551234","type":"image","image":{}"#,
            "{\"a\":[".repeat(size / 6)
        ),
        repeated(r#""messages":[],"#) + r#""x":1"#,
        repeated(r#""contacts":[],"#) + r#""x":1"#,
    ] {
        let body = format!(
            r#"{{"entry":[{{"changes":[{}]}}]}}"#,
            change("messages", &fields)
        );
        let start = Instant::now();
        parse(body.as_bytes(), OURS, now())
            .iter()
            .flatten()
            .for_each(assert_bounded);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}: {fields:.60}");
    }
}
