//! How far messages of the business have come.

use chrono::{DateTime, Utc};

use super::ids;
use super::value::{Object, Value};
use crate::provider::clean;
use crate::provider::whatsapp::events::{Ignored, Item, StatusError, StatusUpdate, Step};

/// The longest value that Meta gives back, in characters.
const LONGEST_OPAQUE: usize = 512;

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
            let text = |field| filled(&error.string(field)?);
            let (title, message) = (text("title"), text("message"));
            let data = error.object("error_data").unwrap_or_default();
            let details = data.string("details").as_deref().and_then(filled);
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

/// A text of an error, if more than spaces are in it.
fn filled(text: &str) -> Option<String> {
    Some(clean(text)).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{body, found};

    #[track_caller]
    fn assert_status(fields: &str, expected: &str) {
        let body = body("messages", &format!("\"statuses\":[{{{fields}}}]"));
        assert_eq!(found(&body), [expected], "{fields}");
    }

    #[test]
    fn only_its_id_and_what_it_says_are_needed() {
        assert_status(r#""id":"w","status":"sent""#, "w Sent now");
        let common = r#""id":"w","timestamp":"1750030073""#;
        for (fields, expected) in [
            (
                r#""status":"sent","recipient_id":"16505551234","conversation":{"id":"c","expiration_timestamp":1750116480,"origin":{"type":"service"}},"pricing":{"billable":true}"#,
                "w Sent to 16505551234",
            ),
            (
                r#""status":"delivered","recipient_id":"16505551234","recipient_user_id":"US.1","recipient_parent_user_id":"US.ENT.1""#,
                "w Delivered to 16505551234+US.1",
            ),
            (
                r#""status":"delivered","recipient_user_id":"US.1""#,
                "w Delivered to US.1",
            ),
            (r#""status":"read","recipient_id":"US.1""#, "w Read to US.1"),
            (r#""status":"played","recipient_id":[7]"#, "w Played"),
            (
                r#""status":"sent","biz_opaque_callback_data":"gw1.0.1.a""#,
                "w Sent as gw1.0.1.a",
            ),
            (
                r#""status":"sent","biz_opaque_callback_data":["gw1"]"#,
                "w Sent",
            ),
            // Of a group, one for each of its people.
            (
                r#""status":"read","recipient_id":"Y2FwaV9ncm91cA==","recipient_type":"group","recipient_participant_id":"16505551234""#,
                "w Read",
            ),
        ] {
            assert_status(&format!("{common},{fields}"), expected);
        }
        let long = "x".repeat(513);
        assert_status(
            &format!(r#"{common},"status":"sent","biz_opaque_callback_data":"{long}""#),
            "w Sent",
        );
    }

    #[test]
    fn why_it_failed_is_told_as_far_as_it_can_be_read() {
        for (errors, expected) in [
            (
                r#"[{"code":131026,"title":"Message undeliverable","message":"Message undeliverable","error_data":{"details":"Not on WhatsApp"},"href":"x"}]"#,
                r#" since 131026 "Message undeliverable" Some("Not on WhatsApp")"#,
            ),
            (
                r#"[{"code":131047,"title":"Re-engagement message"}]"#,
                r#" since 131047 "Re-engagement message" None"#,
            ),
            (
                r#"[{"code":"131053","message":"text/html"}]"#,
                r#" since 131053 "text/html" None"#,
            ),
            (
                r#"[{"code":131014,"title":"a\u0000b\nc","details":"d"}]"#,
                r#" since 131014 "a�bc" Some("d")"#,
            ),
            (
                r#"[7,{},{"code":130472,"title":"x","message":"y","error_data":"z"}]"#,
                r#" since 130472 "x" Some("y")"#,
            ),
            (r#"{"title":"x"}"#, r#" since 0 "x" None"#),
            (r#"[{"code":131000}]"#, r#" since 131000 "" None"#),
            ("[]", ""),
            ("\"no\"", ""),
        ] {
            let fields =
                format!(r#""id":"w","timestamp":"1750030073","status":"failed","errors":{errors}"#);
            assert_status(&fields, &format!("w Failed{expected}"));
        }
    }

    #[test]
    fn what_is_no_step_is_ignored() {
        for status in [r#""in_orbit""#, r#""deleted""#, r#""warning""#, "7", "null"] {
            assert_status(&format!(r#""id":"w","status":{status}"#), "status");
        }
        assert_status(r#""id":"","status":"sent""#, "malformed");
        assert_status(r#""status":"sent""#, "malformed");
        assert_eq!(
            found(&body("messages", r#""statuses":["sent"]"#)),
            ["malformed"]
        );
    }
}
