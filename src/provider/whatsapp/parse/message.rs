//! Messages, echoes of them, and what comes about them.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::ids::{self, Contacts};
use super::links;
use super::render::{Rendered, render};
use super::value::{Object, Value};
use crate::provider::whatsapp::events::{
    Amendment, Change, Ignored, Inbound, Item, Origin, Person,
};

/// The longest reaction, in characters: emoji are made of several.
const LONGEST_REACTION: usize = 64;

/// What the items of a value have in common.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub contacts: &'a Contacts,
    /// The business's own number, as it is displayed.
    pub displayed: Option<&'a str>,
    /// Whether another handles the conversation.
    pub is_standby: bool,
    pub now: DateTime<Utc>,
}

/// An item, and the message in it.
#[derive(Debug)]
struct Letter<'a> {
    raw: Value<'a>,
    item: Object<'a>,
    /// Of an agent's, what was sent is in a field of its own.
    message: Option<Object<'a>>,
    origin: Origin,
}

/// Reads an item of `messages` or `message_echoes`.
pub(super) fn read(raw: Value, origin: Origin, context: &Context) -> Item {
    let item = raw.object().unwrap_or_default();
    let is_echo = origin != Origin::Customer;
    let message = is_echo.then(|| item.object("message")).flatten();
    let letter = Letter {
        raw,
        item,
        message,
        origin,
    };
    if letter.is_of_group() {
        return Item::Ignored(Ignored::Group);
    }
    match letter.string("type").as_deref() {
        Some("system") => links::of_system(&letter.item, context.now),
        Some("request_welcome") => Item::Ignored(Ignored::Opened),
        _ => letter.read(context),
    }
}

impl<'a> Letter<'a> {
    fn get(&self, name: &str) -> Option<Value<'a>> {
        let message = self.message.as_ref();
        let inner = message.and_then(|message| message.get(name));
        inner.or_else(|| self.item.get(name))
    }

    fn string(&self, name: &str) -> Option<String> {
        self.get(name)?.string()
    }

    fn is_of_group(&self) -> bool {
        let group = self.get("group_id").and_then(Value::word);
        group.is_some_and(|group| !group.is_empty())
            || self.string("recipient_type").as_deref() == Some("group")
    }

    /// The customer, and what they call themselves.
    fn person(&self, context: &Context) -> (Person, Option<String>) {
        let fields: &[&str] = match self.origin {
            Origin::Customer => &["from", "from_user_id"],
            _ if self.is_turned(context) => &["from", "from_user_id"],
            _ => &["to", "to_user_id", "recipient"],
        };
        let mut person = ids::person(fields.iter().map(|field| self.get(field)));
        let contact = context.contacts.find(&person);
        if let Some(contact) = contact {
            contact.complete(&mut person);
        }
        (person, contact.and_then(|contact| contact.name.clone()))
    }

    /// Whether an echo says that it was sent to the business's own number.
    fn is_turned(&self, context: &Context) -> bool {
        let number = |field| ids::person([self.get(field)]).number;
        let is_ours = |number: &String| Some(&**number) == context.displayed;
        number("to").as_ref().is_some_and(is_ours) && !number("from").as_ref().is_some_and(is_ours)
    }

    fn read(&self, context: &Context) -> Item {
        let (person, name) = self.person(context);
        if ids::is_nobody(&person) {
            return Item::Ignored(Ignored::Nobody);
        }
        let wamid = ids::message_id(self.item.get("id"));
        let raw = self.raw.bytes();
        let event_id = wamid.clone().unwrap_or_else(|| ids::hash(raw));
        let timestamp = ids::time(
            self.item.get("timestamp").or_else(|| self.get("timestamp")),
            context.now,
        );
        let raw = Bytes::copy_from_slice(raw);
        if let Some((target, change)) = self.change() {
            return Item::Amendment(Box::new(Amendment {
                event_id,
                target,
                person,
                origin: self.origin,
                at: timestamp,
                change,
                raw,
            }));
        }
        let message = self.message.as_ref().unwrap_or(&self.item);
        let Rendered {
            kind,
            text,
            content,
        } = render(message, self.raw);
        Item::Message(Box::new(Inbound {
            event_id,
            wamid,
            person,
            name,
            origin: self.origin,
            is_unread: self.origin == Origin::Customer && !context.is_standby,
            kind: kind.to_owned(),
            text,
            content,
            reply_to: self.reply_to(),
            timestamp,
            raw,
        }))
    }

    fn reply_to(&self) -> Option<String> {
        let context = self.get("context")?.object()?;
        let id = ids::message_id(context.get("id"));
        // So it is called where a message is sent.
        id.or_else(|| ids::message_id(context.get("message_id")))
    }

    /// What it changes about which message. None: it is a message, or names none.
    fn change(&self) -> Option<(String, Change)> {
        let kind = self.string("type")?;
        let own = self.get(&kind)?.object()?;
        match &*kind {
            "reaction" => {
                let emoji = own.string("emoji").unwrap_or_default();
                let emoji: String = emoji.chars().take(LONGEST_REACTION).collect();
                let emoji = Some(emoji).filter(|emoji| !emoji.is_empty());
                Some((
                    ids::message_id(own.get("message_id"))?,
                    Change::Reaction(emoji),
                ))
            }
            "edit" => {
                let target = ids::message_id(own.get("original_message_id"))?;
                let whole = own.get("message")?;
                let Rendered {
                    kind,
                    text,
                    content,
                } = render(&whole.object()?, whole);
                let kind = kind.to_owned();
                Some((
                    target,
                    Change::Edit {
                        kind,
                        text,
                        content,
                    },
                ))
            }
            "revoke" => Some((
                ids::message_id(own.get("original_message_id"))?,
                Change::Deletion,
            )),
            _ => None,
        }
    }
}
