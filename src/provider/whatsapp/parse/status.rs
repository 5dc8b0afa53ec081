//! How far messages of the business have come.

use chrono::{DateTime, Utc};

use super::ids;
use super::value::{Object, Value};
use crate::provider::whatsapp::events::{Ignored, Item, StatusError, StatusUpdate, Step};

/// The longest value that Meta gives back, in characters.
const LONGEST_OPAQUE: usize = 512;
/// The longest text of an error, in characters.
const LONGEST_TEXT: usize = 500;

/// Reads an item of `statuses`. Only its id and what it says are needed.
pub(super) fn read(raw: Value, now: DateTime<Utc>) -> Item {
    let item = raw.object().unwrap_or_default();
    let Some(wamid) = ids::message_id(item.get("id")) else {
        return Item::Ignored(Ignored::Malformed);
    };
    let step = match item.string("status").as_deref() {
        Some("sent") => Step::Sent,
        Some("delivered") => Step::Delivered,
        Some("read") => Step::Read,
        Some("played") => Step::Played,
        Some("failed") => Step::Failed,
        _ => return Item::Ignored(Ignored::Status),
    };
    let recipient = ids::person([item.get("recipient_id"), item.get("recipient_user_id")]);
    let opaque = item.string("biz_opaque_callback_data");
    Item::Status(Box::new(StatusUpdate {
        wamid,
        step,
        at: ids::time(item.get("timestamp"), now),
        recipient: (!ids::is_nobody(&recipient)).then_some(recipient),
        opaque: opaque.filter(|opaque| opaque.chars().count() <= LONGEST_OPAQUE),
        error: error(&item),
    }))
}

/// The first error that says anything.
fn error(item: &Object) -> Option<StatusError> {
    item.each("errors")
        .filter_map(Value::object)
        .find_map(|error| {
            let code = error.get("code").and_then(Value::integer);
            let text = |field| clean(&error.string(field)?);
            let (title, message) = (text("title"), text("message"));
            let data = error.object("error_data").unwrap_or_default();
            let details = data.string("details").as_deref().and_then(clean);
            let title = title.or_else(|| message.clone());
            if code.is_none() && title.is_none() {
                return None;
            }
            let title = title.unwrap_or_default();
            let detail = details.or_else(|| text("details")).or(message);
            Some(StatusError {
                code: code.unwrap_or_default(),
                detail: detail.filter(|detail| *detail != title),
                title,
            })
        })
}

/// Without control characters, and not too long.
fn clean(text: &str) -> Option<String> {
    let seen = text.chars().filter(|char| !char.is_control());
    let text: String = seen.take(LONGEST_TEXT).collect();
    (!text.trim().is_empty()).then_some(text)
}
