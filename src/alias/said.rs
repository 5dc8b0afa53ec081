//! What is said about the ids of persons.

use chrono::{DateTime, Utc};

use crate::provider::whatsapp::events::{Link, Person};

/// What is no telephone number is a user id.
pub use crate::provider::whatsapp::is_number;

/// What is said about the ids of a person.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// A message has come from a person of these ids, or went to them.
    Message(&'a Person, DateTime<Utc>),
    /// Meta's own word.
    Link(&'a Link),
    /// What was sent to the first id has gone to the second one.
    Answer(&'a str, &'a str, DateTime<Utc>),
}

impl<'a> Said<'a> {
    pub(super) fn ids(self) -> Vec<&'a str> {
        let of = |person: &'a Person| {
            let ids = [&person.number, &person.user_id];
            ids.into_iter().filter_map(|id| id.as_deref())
        };
        match self {
            Self::Message(person, _) => of(person).collect(),
            Self::Link(link) => of(&link.known).chain(of(&link.now)).collect(),
            Self::Answer(asked, told, _) => vec![asked, told],
        }
    }
}
