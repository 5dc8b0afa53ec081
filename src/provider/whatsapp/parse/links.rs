//! Meta's own word that somebody has another id now.

use chrono::{DateTime, Utc};

use super::ids;
use super::value::{Object, Value};
use crate::provider::whatsapp::events::{Ignored, Item, Link, Person};

/// Reads a message of type `system`.
pub(super) fn of_system(item: &Object, now: DateTime<Utc>) -> Item {
    let system = item.object("system").unwrap_or_default();
    let is_link = matches!(
        system.string("type").as_deref(),
        Some("user_changed_number" | "customer_changed_number" | "user_changed_user_id")
    );
    if !is_link {
        return Item::Ignored(Ignored::System);
    }
    let known = [
        item.get("from"),
        item.get("from_user_id"),
        system.get("customer"),
    ];
    let new = [
        system.get("wa_id"),
        system.get("new_wa_id"),
        system.get("user_id"),
    ];
    link(ids::person(known), ids::person(new), item, now)
}

/// Reads an item of `user_id_update`.
pub(super) fn of_update(update: Value, now: DateTime<Utc>) -> Item {
    let Some(update) = update.object() else {
        return Item::Ignored(Ignored::Malformed);
    };
    let ids = update.object("user_id").unwrap_or_default();
    let number = update.get("wa_id");
    let known = ids::person([number, ids.get("previous")]);
    let new = ids::person([number, ids.get("current")]);
    link(known, new, &update, now)
}

fn link(known: Person, new: Person, item: &Object, now: DateTime<Utc>) -> Item {
    if ids::is_nobody(&known) || ids::is_nobody(&new) || known == new {
        return Item::Ignored(Ignored::System);
    }
    let at = ids::time(item.get("timestamp"), now);
    Item::Link(Box::new(Link {
        known,
        now: new,
        at,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{body, found, message};

    #[test]
    fn only_metas_own_word_links_ids() {
        for (fields, expected) in [
            (
                r#""body":"User A changed from 16505551234 to 16505559876","wa_id":"16505559876","type":"user_changed_number""#,
                "16505551234 is 16505559876",
            ),
            (
                r#""new_wa_id":"16505559876","customer":"16505551234","type":"customer_changed_number""#,
                "16505551234 is 16505559876",
            ),
            (
                r#""wa_id":"16505559876","user_id":"US.2","parent_user_id":"US.ENT.2","type":"user_changed_user_id""#,
                "16505551234 is 16505559876+US.2",
            ),
            (
                r#""user_id":"US.2","type":"user_changed_user_id""#,
                "16505551234 is US.2",
            ),
            (
                r#""wa_id":"16505551234","type":"user_changed_number""#,
                "system",
            ),
            (r#""wa_id":"nobody","type":"user_changed_number""#, "system"),
            (
                r#""parent_user_id":"US.ENT.2","type":"user_changed_user_id""#,
                "system",
            ),
            (
                r#""body":"User A changed from 16505551234 to 16505559876","type":"user_changed_number""#,
                "system",
            ),
            (
                r#""wa_id":"16505559876","type":"customer_identity_changed""#,
                "system",
            ),
            (r#""wa_id":"16505559876""#, "system"),
        ] {
            let body = message(&format!(
                r#""id":"w","type":"system","system":{{{fields}}}"#
            ));
            assert_eq!(found(&body), [expected], "{fields}");
        }
        assert_eq!(found(&message(r#""type":"system""#)), ["system"]);
        let no_number = r#""messages":[{"id":"w","from_user_id":"US.1","timestamp":1750030073,"type":"system",
            "system":{"type":"user_changed_user_id","user_id":"US.2"}}]"#;
        assert_eq!(found(&body("messages", no_number)), ["US.1 is US.2"]);
    }

    #[test]
    fn an_update_of_a_user_id_is_a_link() {
        for (update, expected) in [
            (
                r#"{"wa_id":"16505551234","user_id":{"previous":"US.1","current":"US.2"},"parent_user_id":{"previous":"US.ENT.1","current":"US.ENT.2"},"timestamp":"1750030073"}"#,
                "16505551234+US.1 is 16505551234+US.2",
            ),
            (
                r#"{"user_id":{"previous":"US.1","current":"US.2"},"timestamp":"1750030073"}"#,
                "US.1 is US.2",
            ),
            (
                r#"{"wa_id":"16505551234","user_id":{"current":"US.2"}}"#,
                "16505551234 is 16505551234+US.2 now",
            ),
            (r#"{"wa_id":"16505551234","user_id":"US.2"}"#, "system"),
            (r#"{"user_id":{"current":"US.2"}}"#, "system"),
            ("7", "malformed"),
        ] {
            let body = body("user_id_update", &format!("\"user_id_update\":[{update}]"));
            assert_eq!(found(&body), [expected], "{update}");
        }
    }
}
