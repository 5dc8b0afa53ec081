//! `biz_opaque_callback_data` as the gateway writes it: which message it is, and which attempt.

use uuid::Uuid;

/// A message and an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opaque {
    pub(crate) message_id: String,
    pub(crate) attempt: u64,
}

/// Reads `gw1.<32 hex>.<attempt>.<12 hex>`; anything else names no message.
pub(crate) fn parse(value: &str) -> Option<Opaque> {
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut parts = value.split('.');
    let (prefix, id, attempt, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_one = prefix == "gw1" && is_hex(id, 32) && is_hex(mac, 12) && parts.next().is_none();
    is_one.then_some(())?;
    Some(Opaque {
        message_id: Uuid::try_parse(id).ok()?.to_string(),
        attempt: attempt.parse().ok()?,
    })
}

/// The ledger's key of a message that the gateway shows as `msg_<32 hex>`; any other stays.
pub(crate) fn key(message_id: &str) -> String {
    let digits = message_id.strip_prefix("msg_").unwrap_or(message_id);
    Uuid::try_parse(digits).map_or_else(|_| message_id.to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_the_gateway_names_a_message() {
        let id = "019be0a44c7d7f3a9d2ab8c1d2e3f405";
        let read = parse(&format!("gw1.{id}.3.0123456789ab"));
        let expected = Opaque {
            message_id: "019be0a4-4c7d-7f3a-9d2a-b8c1d2e3f405".to_owned(),
            attempt: 3,
        };
        assert_eq!(read, Some(expected));
        for other in [
            format!("gw2.{id}.3.0123456789ab"),
            format!("gw1.{id}.3"),
            format!("gw1.{id}.x.0123456789ab"),
            format!("gw1.{id}.3.0123456789ab.more"),
            "gw1.12.3.0123456789ab".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse(&other), None, "{other}");
        }
    }
}
