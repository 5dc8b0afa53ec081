//! Where a message goes that is sent to one of a person's ids. Without I/O.

use super::said::is_number;
use super::store::Alias;

/// Whose conversation a message belongs to, and what the provider is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The participant of the conversation.
    pub participant_id: String,
    /// What the provider is called with, where that is another id.
    pub address: Option<String>,
}

/// Another person has the number now, so nothing is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedHands;

/// The way to a person: the newest number that leads to their conversation, else a user id. `known`
/// has what is known of `to`, of its participant, and of the ids that lead there.
pub fn route(to: &str, known: &[Alias]) -> Result<Route, ChangedHands> {
    let find = |id: &str| known.iter().find(|alias| alias.alias == id);
    let has_changed_hands = |id: &str| find(id).is_some_and(|alias| alias.changed_hands);
    if has_changed_hands(to) {
        return Err(ChangedHands);
    }
    let participant_id = find(to).map_or(to, |alias| &alias.participant_id);
    let newest = |of_numbers: bool| {
        let leads_here = |alias: &&Alias| {
            alias.participant_id == participant_id && is_number(&alias.alias) == of_numbers
        };
        known
            .iter()
            .filter(leads_here)
            .max_by_key(|alias| alias.since)
    };
    let number = match newest(true) {
        // An older number is not theirs any more.
        Some(number) => (!number.changed_hands).then_some(&*number.alias),
        None => (is_number(participant_id) && !has_changed_hands(participant_id))
            .then_some(participant_id),
    };
    let user_id = || match newest(false) {
        Some(user_id) => Some(&*user_id.alias),
        None => (!is_number(participant_id)).then_some(participant_id),
    };
    let address = number.or_else(user_id).ok_or(ChangedHands)?;
    Ok(Route {
        participant_id: participant_id.to_owned(),
        address: (address != participant_id).then(|| address.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn alias(alias: &str, participant_id: &str, since: i64, changed_hands: bool) -> Alias {
        Alias {
            alias: alias.to_owned(),
            participant_id: participant_id.to_owned(),
            since: DateTime::from_timestamp(since, 0).unwrap(),
            changed_hands,
        }
    }

    fn to(to: &str, known: &[Alias]) -> Result<(String, Option<String>), ChangedHands> {
        route(to, known).map(|route| (route.participant_id, route.address))
    }

    fn found(participant_id: &str, address: &str) -> (String, Option<String>) {
        let address = (address != participant_id).then(|| address.to_owned());
        (participant_id.to_owned(), address)
    }

    #[test]
    fn a_message_goes_to_the_newest_number_of_its_conversation_or_else_to_a_user_id() {
        assert_eq!(to("49151", &[]), Ok(found("49151", "49151")));
        assert_eq!(to("US.1", &[]), Ok(found("US.1", "US.1")));
        let both = [
            alias("49151", "49151", 1, false),
            alias("US.1", "49151", 2, false),
        ];
        assert_eq!(to("49151", &both), Ok(found("49151", "49151")));
        assert_eq!(to("US.1", &both), Ok(found("49151", "49151")));
        let user_first = [
            alias("49151", "US.1", 1, false),
            alias("US.1", "US.1", 2, false),
        ];
        assert_eq!(to("US.1", &user_first), Ok(found("US.1", "49151")));
        assert_eq!(to("49151", &user_first), Ok(found("US.1", "49151")));
        let moved = [
            alias("49151", "49151", 1, false),
            alias("49152", "49151", 2, false),
        ];
        assert_eq!(to("49151", &moved), Ok(found("49151", "49152")));
        let new_user_id = [
            alias("US.1", "US.1", 1, false),
            alias("US.2", "US.1", 2, false),
        ];
        assert_eq!(to("US.1", &new_user_id), Ok(found("US.1", "US.2")));
    }

    #[test]
    fn nothing_goes_to_a_number_that_somebody_else_has_now() {
        let known = [
            alias("49151", "US.2", 2, true),
            alias("US.2", "US.2", 2, false),
        ];
        assert_eq!(to("49151", &known), Err(ChangedHands));
        assert_eq!(to("US.2", &known), Ok(found("US.2", "US.2")));
        // Who had it before is written to by their user id.
        let before = [
            alias("49151", "US.2", 2, true),
            alias("US.1", "49151", 1, false),
        ];
        assert_eq!(to("US.1", &before), Ok(found("49151", "US.1")));
    }
}
