//! What each attempt is sent with, and what comes back in its statuses: which message it was, so
//! that a lost answer is found again. Signed, since whoever shares the account can send with it.

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::edge::signature::tag;
use crate::id::MessageId;

/// Of the signature, so many hex digits.
const DIGITS: usize = 12;

/// The value of an attempt at a message: `gw1.<message id>.<attempt>.<signature>`.
#[must_use]
pub fn make(secret: &SecretString, message_id: MessageId, attempt: i32) -> String {
    let signed = format!("gw1.{}.{attempt}", message_id.0.simple());
    let signature = signature(secret, &signed);
    format!("{signed}.{signature}")
}

/// The message that a value names, if it was made with one of these secrets.
#[must_use]
pub fn read(value: &str, secrets: &[SecretString]) -> Option<MessageId> {
    let (signed, given) = value.rsplit_once('.')?;
    let mut parts = signed.strip_prefix("gw1.")?.split('.');
    let (Some(id), Some(_attempt), None) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let is_made_with = |secret: &&SecretString| {
        let made = signature(secret, signed);
        bool::from(made.as_bytes().ct_eq(given.as_bytes()))
    };
    // All are tried.
    if secrets.iter().filter(is_made_with).count() == 0 {
        return None;
    }
    Uuid::try_parse(id).ok().map(MessageId)
}

fn signature(secret: &SecretString, signed: &str) -> String {
    let mut signature = tag(secret.expose_secret(), signed.as_bytes());
    signature.truncate(DIGITS);
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_with_one_of_the_secrets_is_read_and_nothing_else_is() {
        let (old, new) = (SecretString::from("old"), SecretString::from("new"));
        let id = MessageId::new();
        let value = make(&old, id, 3);
        assert_eq!(value.len(), 4 + 32 + 1 + 1 + 1 + 12, "{value}");
        let secrets = [new.clone(), old];
        assert_eq!(read(&value, &secrets), Some(id));
        assert_eq!(read(&make(&new, id, 1), &secrets), Some(id));
        assert_eq!(read(&value, &[new]), None);
        assert_eq!(read(&value, &[]), None);
        let other = MessageId::new().0.simple().to_string();
        let signature = value.rsplit_once('.').unwrap().1;
        for forged in [
            "",
            "gw1",
            "gw1.a.b.c",
            &value[..value.len() - 1],
            &format!("{value}0"),
            &value.replace("gw1", "gw2"),
            &value.replace(".3.", ".4."),
            &value.replace(".3.", ".3.3."),
            &format!("gw1.{other}.3.{signature}"),
            &format!("gw1.{}.3.", id.0.simple()),
            "order-1001",
        ] {
            assert_eq!(read(forged, &secrets), None, "{forged}");
        }
    }
}
