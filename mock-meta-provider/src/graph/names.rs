//! Ids as Meta makes them. Those of messages never repeat; a customer's user id follows from the
//! number, so that it is always the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The id of a message, such as `wamid.HBgL…`.
pub(crate) fn wamid() -> String {
    format!(
        "wamid.{}",
        STANDARD.encode(format!("\u{1d}mock {}", Uuid::now_v7().simple()))
    )
}

/// The id of a media object: digits.
pub(crate) fn media() -> String {
    digits(Uuid::now_v7().as_bytes())
}

/// What Meta's support asks for.
pub(crate) fn trace() -> String {
    format!("A{}", &Uuid::now_v7().simple().to_string()[10..])
}

/// The business-scoped user id of whoever has this number.
pub(crate) fn user_id(number: &str) -> String {
    format!("US.{}", digits(&Sha256::digest(number)))
}

/// Whether this is a user id rather than a number.
pub(crate) fn is_user_id(id: &str) -> bool {
    let Some((country, rest)) = id.split_once('.') else {
        return false;
    };
    country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && (1..=128).contains(&rest.len())
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The number that Meta knows somebody by, who may be called by another one: Mexico's, Argentina's
/// and Brazil's mobile numbers have two forms.
pub(crate) fn rewritten(number: &str) -> String {
    match (number.len(), number.get(..2)) {
        (12, Some("52")) => format!("521{}", &number[2..]),
        (12, Some("54")) => format!("549{}", &number[2..]),
        (13, Some("55")) if number[4..].starts_with('9') => {
            format!("{}{}", &number[..4], &number[5..])
        }
        _ => number.to_owned(),
    }
}

/// 16 digits that follow from these bytes, the first one not 0.
fn digits(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    format!(
        "{}",
        1_000_000_000_000_000 + u64::from_be_bytes(first) % 9_000_000_000_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_two_forms_are_rewritten_and_others_stay() {
        for (asked, known) in [
            ("525512345678", "5215512345678"),
            ("541112345678", "5491112345678"),
            ("5511912345678", "551112345678"),
            ("15551234567", "15551234567"),
            ("5215512345678", "5215512345678"),
        ] {
            assert_eq!(rewritten(asked), known);
        }
    }

    #[test]
    fn a_user_id_is_told_from_a_number() {
        assert!(is_user_id("US.1234") && is_user_id(&user_id("15551234567")));
        for other in [
            "15551234567",
            "US.",
            "us.12",
            "US.ENT.12",
            "US.1-2",
            "USA.1",
        ] {
            assert!(!is_user_id(other), "{other}");
        }
    }
}
