//! Bodies for tests, and what is found in them, in a line each.

use std::fmt::Display;

use chrono::{DateTime, Utc};

use super::parse;
use crate::provider::whatsapp::events::{
    Amendment, Change, Inbound, Item, Origin, Person, StatusUpdate,
};

/// The number that is ours.
pub const OURS: &str = "106540352242922";

/// The time of what has none.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

/// A body of one change.
pub fn body(field: &str, fields: &str) -> String {
    format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"0\",\"changes\":[{}]}}]}}",
        change(field, fields)
    )
}

/// A change of our number.
pub fn change(field: &str, fields: &str) -> String {
    format!(
        "{{\"field\":\"{field}\",\"value\":{{\"messaging_product\":\"whatsapp\",\"metadata\":{{\
         \"display_phone_number\":\"+1 555-078-3881\",\"phone_number_id\":\"{OURS}\"}},{fields}}}}}"
    )
}

/// A body of one message of the customer 16505551234, at 1750030073.
pub fn message(fields: &str) -> String {
    let common = "\"from\":\"16505551234\",\"timestamp\":\"1750030073\"";
    body("messages", &format!("\"messages\":[{{{common},{fields}}}]"))
}

/// What is found in a body.
#[track_caller]
pub fn found(body: &str) -> Vec<String> {
    let items = parse(body.as_bytes(), OURS, now()).unwrap();
    items.iter().map(line).collect()
}

/// An item in a line.
pub fn line(item: &Item) -> String {
    match item {
        Item::Message(message) => {
            let Inbound { kind, text, .. } = &**message;
            let is_hash = message.event_id.starts_with("sha256:");
            assert_eq!(message.wamid.is_none(), is_hash);
            let id = message.wamid.as_deref().unwrap_or("?");
            let (origin, person) = (by(message.origin), of(&message.person));
            let name = told(message.name.as_ref().map(|name| format!("({name})")), "");
            let reply_to = told(message.reply_to.as_ref(), "re ");
            let silent = if message.is_unread { "" } else { " silent" };
            let at = at(message.timestamp);
            format!("{id}: {origin}{kind} {text:?} of {person}{name}{reply_to}{at}{silent}")
        }
        Item::Amendment(amendment) => {
            let change = match &amendment.change {
                Change::Reaction(Some(emoji)) => format!("{emoji} to"),
                Change::Reaction(None) => "no reaction to".into(),
                Change::Edit { kind, text, .. } => format!("{kind} {text:?} for"),
                Change::Deletion => "deletes".into(),
            };
            let Amendment {
                event_id,
                target,
                person,
                ..
            } = &**amendment;
            let (origin, person, at) = (by(amendment.origin), of(person), at(amendment.at));
            format!("{event_id}: {origin}{change} {target} of {person}{at}")
        }
        Item::Status(status) => {
            let StatusUpdate { wamid, step, .. } = &**status;
            let recipient = told(status.recipient.as_ref().map(of), "to ");
            let opaque = told(status.opaque.as_ref(), "as ");
            let error = status
                .error
                .as_ref()
                .map(|error| format!("{} {:?} {:?}", error.code, error.title, error.detail));
            let error = told(error, "since ");
            format!(
                "{wamid} {step:?}{recipient}{opaque}{error}{}",
                at(status.at)
            )
        }
        Item::Link(link) => format!("{} is {}{}", of(&link.known), of(&link.now), at(link.at)),
        Item::Ignored(why) => <&str>::from(why).into(),
    }
}

fn told(what: Option<impl Display>, before: &str) -> String {
    what.map(|what| format!(" {before}{what}"))
        .unwrap_or_default()
}

fn by(origin: Origin) -> &'static str {
    match origin {
        Origin::Customer => "",
        Origin::App => "app ",
        Origin::Agent => "agent ",
    }
}

fn of(person: &Person) -> String {
    let ids = [&person.number, &person.user_id];
    let ids: Vec<&str> = ids.into_iter().flatten().map(|id| &**id).collect();
    ids.join("+")
}

/// Only a time that is not the usual one is told.
fn at(time: DateTime<Utc>) -> String {
    match time.timestamp() {
        1_750_030_073 => String::new(),
        _ if time == now() => " now".into(),
        seconds => format!(" at {seconds}"),
    }
}
