//! The ids of people: telephone numbers and user ids, told apart by their shape.

/// Whether it is a telephone number as WhatsApp has them: 1 to 20 digits.
#[must_use]
pub fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A telephone number without the plus that may be before it.
#[must_use]
pub fn number(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    is_number(digits).then_some(digits)
}

/// Whether it is an id that a business has for a person, such as `US.13491208655302741918`. That of
/// a parent has another dot.
#[must_use]
pub fn is_user_id(text: &str) -> bool {
    let Some((country, id)) = text.split_once('.') else {
        return false;
    };
    country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_user_ids_are_told_by_their_shape() {
        for (text, number, user_id) in [
            ("16505551234", true, false),
            ("5678", true, false),
            ("123456789012345678901", false, false),
            ("US.13491208655302741918", false, true),
            ("DE.aB1", false, true),
            ("CC.ENT.1234", false, false),
            ("us.1", false, false),
            ("US.", false, false),
            ("user-1", false, false),
            ("", false, false),
        ] {
            assert_eq!(
                (is_number(text), is_user_id(text)),
                (number, user_id),
                "{text}"
            );
        }
    }
}
