//! Whether a status is about a message to this participant.

use super::store::Witnessed;
use crate::provider::whatsapp::events::Person;

/// Digits of such a number that has the digit that may be missing.
const LONG: usize = 13;

/// Whether a message went to the one whom its status names, if it names anybody: else another app
/// has sent something of its own with what it saw of ours.
pub fn is_recipient(message: &Witnessed, recipient: Option<&Person>) -> bool {
    let Some(recipient) = recipient else {
        return true;
    };
    let known = [Some(&message.participant_id), message.address.as_ref()];
    let led_to = [&message.number_leads_to, &message.user_id_leads_to];
    let told: Vec<&String> = [&recipient.number, &recipient.user_id]
        .into_iter()
        .flatten()
        .collect();
    let is_led = led_to
        .into_iter()
        .flatten()
        .any(|led_to| *led_to == message.participant_id);
    let is_same = |told: &&String| {
        let mut known = known.into_iter().flatten();
        known.any(|known| known == *told || same_number(known, told))
    };
    told.is_empty() || is_led || may_be_new(message, recipient) || told.iter().any(is_same)
}

/// Whether a status names a message's number by a user id alone that nobody is known by: Meta leaves
/// the number out, and the answer that would have said whose the id is was lost.
fn may_be_new(message: &Witnessed, recipient: &Person) -> bool {
    let is_unknown = recipient.number.is_none() && message.user_id_leads_to.is_none();
    is_unknown && is_number(&message.participant_id)
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether two spellings are one telephone number: Meta writes some otherwise than it was asked,
/// and an answer that would say so was lost.
fn same_number(one: &str, other: &str) -> bool {
    is_number(one) && is_number(other) && plain(one) == plain(other)
}

/// Without the digit that is there or not: Mexico 52 (1), Argentina 54 (9), Brazil 55, two digits of
/// the area, (9).
fn plain(number: &str) -> (&str, &str) {
    let (place, digit) = match number.get(..2) {
        Some("52") => (2, '1'),
        Some("54") => (2, '9'),
        Some("55") if number.len() > 4 => (4, '9'),
        _ => return (number, ""),
    };
    let (begin, rest) = number.split_at(place);
    let is_long = number.len() == LONG;
    let plain = rest.strip_prefix(digit).filter(|_| is_long);
    (begin, plain.unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Status;
    use crate::id::{ConversationId, MessageId};

    fn message(participant: &str, address: Option<&str>) -> Witnessed {
        Witnessed {
            place: 1,
            message_id: MessageId(uuid::Uuid::nil()),
            conversation_id: ConversationId(uuid::Uuid::nil()),
            participant_id: participant.to_owned(),
            address: address.map(str::to_owned),
            status: Status::Pending,
            was_attempted: true,
            number_leads_to: None,
            user_id_leads_to: None,
        }
    }

    fn person(number: Option<&str>, user_id: Option<&str>) -> Person {
        Person {
            number: number.map(str::to_owned),
            user_id: user_id.map(str::to_owned),
        }
    }

    #[test]
    fn a_recipient_is_known_by_every_id_that_leads_to_the_participant() {
        let to_number = message("491701234567", None);
        let to_user = message("DE.123", Some("491701234567"));
        let number = person(Some("491701234567"), None);
        for (message, recipient, expected) in [
            (&to_number, None, true),
            (&to_number, Some(person(None, None)), true),
            (&to_number, Some(number.clone()), true),
            (&to_user, Some(number), true),
            (&to_user, Some(person(None, Some("DE.123"))), true),
            (&to_user, Some(person(Some("1555"), Some("DE.123"))), true),
            (&to_number, Some(person(Some("491701234568"), None)), false),
            (&to_number, Some(person(None, Some("DE.123"))), true),
            (
                &to_number,
                Some(person(Some("1555"), Some("DE.123"))),
                false,
            ),
            (&to_user, Some(person(None, Some("DE.124"))), false),
        ] {
            let found = is_recipient(message, recipient.as_ref());
            assert_eq!(found, expected, "{message:?} {recipient:?}");
        }
        let led = |to: &str| Witnessed {
            user_id_leads_to: Some(to.to_owned()),
            ..message("491701234567", None)
        };
        let user = person(None, Some("DE.9"));
        assert!(is_recipient(&led("491701234567"), Some(&user)));
        assert!(!is_recipient(&led("491701234568"), Some(&user)));
    }

    #[test]
    fn a_number_is_the_same_with_and_without_the_digit_that_meta_adds_or_takes_away() {
        for (one, other) in [
            ("525512345678", "5215512345678"),
            ("541112345678", "5491112345678"),
            ("551187654321", "5511987654321"),
        ] {
            assert!(same_number(one, other) && same_number(other, one), "{one}");
            assert!(same_number(one, one) && same_number(other, other));
        }
        for (one, other) in [
            ("525512345678", "5225512345678"),
            ("525512345678", "5215512345679"),
            ("541112345678", "551112345678"),
            ("551187654321", "5512987654321"),
            ("551187654321", "9551187654321"),
            ("52", "521"),
            ("DE.1", "DE.12"),
            ("", "52"),
        ] {
            assert!(!same_number(one, other), "{one} {other}");
        }
    }
}
