//! Messages, echoes of them, and what comes about them.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::ids::{self, Contacts};
use super::links;
use super::render::{NOT_UNDERSTOOD, Rendered, render};
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
                // One that nobody understands hides nothing: it is seen beside what was readable.
                (kind != NOT_UNDERSTOOD).then(|| {
                    let kind = kind.to_owned();
                    let edit = Change::Edit {
                        kind,
                        text,
                        content,
                    };
                    (target, edit)
                })
            }
            "revoke" => Some((
                ids::message_id(own.get("original_message_id"))?,
                Change::Deletion,
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{OURS, body, found, message, now};
    use super::*;
    use crate::provider::whatsapp::parse;

    fn messages(items: &str, contacts: &str) -> Vec<String> {
        let contacts = format!("\"contacts\":{contacts},\"messages\":{items}");
        found(&body("messages", &contacts))
    }

    #[test]
    fn the_person_is_whoever_is_named() {
        let hello = r#""id":"w","timestamp":"1750030073","type":"text","text":{"body":"Hi"}"#;
        let ann = r#"[{"profile":{"name":"Ann","username":"@ann"},"wa_id":"16505551234","user_id":"US.1","parent_user_id":"US.ENT.1"}]"#;
        let hidden = r#"[{"profile":{"username":"@ann"},"user_id":"US.1"}]"#;
        let odd = r#"[{"profile":{"name":"Ann"},"wa_id":"US.1","user_id":"foo_bar"}]"#;
        for (ids, contacts, expected) in [
            (r#""from":"16505551234""#, "null", "16505551234"),
            (
                r#""from":"+16505551234","from_user_id":"US.1""#,
                "[{}]",
                "16505551234+US.1",
            ),
            (r#""from":16505551234"#, ann, "16505551234+US.1 (Ann)"),
            (
                r#""from":"16505551234","from_user_id":"foo_bar""#,
                "[]",
                "16505551234",
            ),
            (
                r#""from_user_id":"US.1","from_parent_user_id":"US.ENT.1""#,
                hidden,
                "US.1 (@ann)",
            ),
            (r#""from_user_id":"US.1""#, ann, "16505551234+US.1 (Ann)"),
            (r#""from":"US.1""#, odd, "US.1 (Ann)"),
            (r#""from":"bla""#, ann, "16505551234+US.1 (Ann)"),
            // Of another person nothing is taken.
            (r#""from":"16505550000""#, ann, "16505550000"),
            (r#""from_user_id":"US.2""#, ann, "US.2"),
        ] {
            let found = messages(&format!("[{{{ids},{hello}}}]"), contacts);
            assert_eq!(
                found,
                [format!("w: text \"Hi\" of {expected}")],
                "{ids} {contacts}"
            );
        }
        for ids in [
            r#""from":"bla""#,
            r#""from":null"#,
            r#""from_parent_user_id":"US.ENT.1""#,
        ] {
            assert_eq!(
                messages(&format!("[{{{ids},{hello}}}]"), "[]"),
                ["nobody"],
                "{ids}"
            );
        }
        let nobody = r#"[{"profile":{"name":"Ann"},"parent_user_id":"US.ENT.1"}]"#;
        assert_eq!(messages(&format!("[{{{hello}}}]"), nobody), ["nobody"]);
        assert_eq!(
            messages(r#"["text",7,[]]"#, "[]"),
            ["nobody", "nobody", "nobody"]
        );
    }

    #[test]
    fn a_message_names_the_one_that_it_answers() {
        for (context, expected) in [
            (r#"{"from":"15550783881","id":"w0"}"#, " re w0"),
            (r#"{"id":"w0","forwarded":true}"#, " re w0"),
            (r#"{"forwarded":true,"frequently_forwarded":true}"#, ""),
            (r#"{"id":"","referred_product":{"catalog_id":"1"}}"#, ""),
            (r#"{"message_id":"w0"}"#, " re w0"),
            ("null", ""),
            ("\"w0\"", ""),
        ] {
            let body = message(&format!(
                r#""id":"w","type":"text","text":{{"body":"Hi"}},"context":{context},"referral":{{"ctwa_clid":"x"}}"#
            ));
            assert_eq!(
                found(&body),
                [format!("w: text \"Hi\" of 16505551234{expected}")],
                "{context}"
            );
        }
    }

    #[test]
    fn a_message_without_a_fit_id_is_known_by_its_hash() {
        let long = format!(
            r#""id":"{}","type":"text","text":{{"body":"Hi"}}"#,
            "w".repeat(256)
        );
        for fields in [
            r#""type":"text","text":{"body":"Hi"}"#,
            r#""id":"","type":"text","text":{"body":"Hi"}"#,
            r#""id":"a\nb","type":"text","text":{"body":"Hi"}"#,
            r#""id":{"a":1},"type":"text","text":{"body":"Hi"}"#,
            &long,
        ] {
            let body = message(fields);
            assert_eq!(
                found(&body),
                ["?: text \"Hi\" of 16505551234"],
                "{fields:.30}"
            );
            let items = parse(body.as_bytes(), OURS, now()).unwrap();
            let [Item::Message(message)] = &*items else {
                panic!("{body}");
            };
            assert!(message.raw.ends_with(format!("{fields}}}").as_bytes()));
            assert_eq!(message.event_id, ids::hash(&message.raw));
            assert_eq!(message.event_id.len(), 71);
        }
    }

    #[test]
    fn what_is_about_another_message_is_no_message() {
        for (fields, expected) in [
            (
                r#""type":"reaction","reaction":{"message_id":"w0","emoji":"👍"}"#,
                "👍 to w0",
            ),
            (
                r#""type":"reaction","reaction":{"message_id":"w0","emoji":"\ud83d\udc4d"}"#,
                "👍 to w0",
            ),
            (
                r#""type":"reaction","reaction":{"message_id":"w0","emoji":""}"#,
                "no reaction to w0",
            ),
            (
                r#""type":"reaction","reaction":{"message_id":"w0"}"#,
                "no reaction to w0",
            ),
            (
                r#""type":"edit","edit":{"original_message_id":"w0","message":{"context":{"id":"M0"},"type":"text","text":{"body":"Ho"}}}"#,
                "text \"Ho\" for w0",
            ),
            (
                r#""type":"edit","edit":{"original_message_id":"w0","message":{"type":"image","image":{"id":"1","caption":"Ho"}}}"#,
                "image \"Ho\" for w0",
            ),
            (
                r#""type":"revoke","revoke":{"original_message_id":"w0"}"#,
                "deletes w0",
            ),
        ] {
            let body = message(&format!("\"id\":\"w\",{fields}"));
            assert_eq!(
                found(&body),
                [format!("w: {expected} of 16505551234")],
                "{fields}"
            );
        }
        // Of those that name none, or that nobody understands, it is seen that something came.
        for fields in [
            r#""type":"reaction","reaction":{"emoji":"👍"}"#,
            r#""type":"reaction""#,
            r#""type":"edit","edit":{"message":{"type":"text","text":{"body":"Ho"}}}"#,
            r#""type":"edit","edit":{"original_message_id":"w0"}"#,
            r#""type":"edit","edit":{"original_message_id":"w0","message":{"type":"text"}}"#,
            r#""type":"edit","edit":{"original_message_id":"w0","message":{"type":"hologram","hologram":{}}}"#,
            r#""type":"revoke","revoke":{}"#,
        ] {
            let body = message(&format!("\"id\":\"w\",{fields}"));
            let unsupported = "w: unsupported \"[unsupported message]\" of 16505551234";
            assert_eq!(found(&body), [unsupported], "{fields}");
        }
        let emoji = "x".repeat(1000);
        let body = message(&format!(
            r#""id":"w","type":"reaction","reaction":{{"message_id":"w0","emoji":"{emoji}"}}"#
        ));
        assert_eq!(
            found(&body),
            [format!("w: {} to w0 of 16505551234", "x".repeat(64))]
        );
    }

    #[test]
    fn what_is_of_a_group_or_tells_nothing_is_ignored() {
        let text = r#""id":"w","type":"text","text":{"body":"Hi"}"#;
        assert_eq!(
            found(&message(&format!(
                r#"{text},"group_id":"Y2FwaV9ncm91cA==""#
            ))),
            ["group"]
        );
        assert_eq!(
            found(&message(&format!(r#"{text},"group_id":7"#))),
            ["group"]
        );
        assert_eq!(
            found(&message(&format!(r#"{text},"group_id":"""#))),
            ["w: text \"Hi\" of 16505551234"]
        );
        let welcome = r#""id":"w","type":"request_welcome""#;
        assert_eq!(found(&message(welcome)), ["opened"]);
    }

    #[test]
    fn what_was_written_in_the_app_is_an_echo() {
        let common = r#""id":"w","timestamp":"1750030073""#;
        let text = r#""type":"text","text":{"body":"Hi"}"#;
        for (fields, expected) in [
            (format!(r#""from":"15550783881","to":"16505551234",{text}"#), "text \"Hi\" of 16505551234"),
            (format!(r#""from":"15550783881","to_user_id":"US.1",{text}"#), "text \"Hi\" of US.1"),
            (format!(r#""from":"15550783881","to":"16505551234","message_creation_type":"x",{text}"#), "text \"Hi\" of 16505551234"),
            // Samples have been seen with both turned.
            (format!(r#""from":"16505551234","to":"15550783881",{text}"#), "text \"Hi\" of 16505551234"),
            (r#""to":"16505551234","type":"revoke","revoke":{"original_message_id":"w0"}"#.into(), "deletes w0 of 16505551234"),
            (r#""to":"16505551234","type":"edit","edit":{"original_message_id":"w0","message":{"type":"text","text":{"body":"Ho"}}}"#.into(), "text \"Ho\" for w0 of 16505551234"),
            (r#""to":"16505551234","type":"reaction","reaction":{"message_id":"w0","emoji":"👍"}"#.into(), "👍 to w0 of 16505551234"),
        ] {
            let echoes = format!("\"message_echoes\":[{{{common},{fields}}}]");
            let silent = if expected.contains(" w0 ") { "" } else { " silent" };
            let expected = format!("w: app {expected}{silent}");
            assert_eq!(found(&body("smb_message_echoes", &echoes)), [expected], "{fields}");
        }
        let nobody = format!(r#""message_echoes":[{{{common},"from":"16505551234",{text}}}]"#);
        assert_eq!(found(&body("smb_message_echoes", &nobody)), ["nobody"]);
    }

    #[test]
    fn a_standby_is_silent_and_its_echoes_are_an_agents() {
        let standby = |fields: &str| found(&body("standby", &format!("\"standby\":{{{fields}}}")));
        let text = r#""type":"text","text":{"body":"Hi"}"#;
        let common = r#""id":"w","timestamp":"1750030073""#;
        let messages = format!(
            r#""contacts":[{{"profile":{{"name":"Ann"}},"wa_id":"16505551234"}}],"messages":[{{"from":"16505551234",{common},{text}}}]"#
        );
        assert_eq!(
            standby(&messages),
            ["w: text \"Hi\" of 16505551234 (Ann) silent"]
        );
        for (message, expected) in [
            (format!(r#""to":"16505551234","recipient_type":"individual",{text}"#), "text \"Hi\" of 16505551234"),
            (format!(r#""recipient":"US.1","biz_opaque_callback_data":"x",{text}"#), "text \"Hi\" of US.1"),
            (format!(r#""to":"16505551234","context":{{"message_id":"w0"}},{text}"#), "text \"Hi\" of 16505551234 re w0"),
            (r#""to":"16505551234","type":"template","template":{"name":"sale"}"#.into(), "template \"[template] sale\" of 16505551234"),
            (r#""to":"16505551234","type":"interactive","interactive":{"type":"flow","body":{"text":"Book"}}"#.into(), "interactive \"Book\" of 16505551234"),
            (r#""to":"16505551234","type":"image","image":{"link":"https://example.org/a.png"}"#.into(), "image \"[image]\" of 16505551234"),
        ] {
            let echo = format!(r#""message_echoes":[{{{common},"message":{{{message}}},"flow":{{"id":"1"}}}}]"#);
            assert_eq!(standby(&echo), [format!("w: agent {expected} silent")], "{message}");
        }
        let flat = format!(r#""message_echoes":[{{{common},"to":"16505551234",{text}}}]"#);
        assert_eq!(
            standby(&flat),
            ["w: agent text \"Hi\" of 16505551234 silent"]
        );
        let reaction = format!(
            r#""message_echoes":[{{{common},"message":{{"to":"16505551234","type":"reaction","reaction":{{"message_id":"w0","emoji":"👍"}}}}}}]"#
        );
        assert_eq!(standby(&reaction), ["w: agent 👍 to w0 of 16505551234"]);
        let group = format!(
            r#""message_echoes":[{{{common},"message":{{"to":"Y2Fw","recipient_type":"group",{text}}}}}]"#
        );
        assert_eq!(standby(&group), ["group"]);
        let status = r#""statuses":[{"id":"w","status":"read","timestamp":"1750030073"}]"#;
        assert_eq!(standby(status), ["w Read"]);
        assert!(standby("").is_empty());
    }
}
