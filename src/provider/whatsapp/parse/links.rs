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
