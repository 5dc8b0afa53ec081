//! The rules by which ids lead to participants. Without I/O.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::said::{Said, is_number};
use super::store::{Change, Found, Row};
use crate::provider::whatsapp::events::{Link, Person};

/// How much newer an event must be to be written down, if it says what is known already.
const REFRESH: TimeDelta = TimeDelta::hours(1);

/// What is known of some ids, and what becomes of it.
#[derive(Debug, Default)]
pub struct Book(BTreeMap<String, Entry>);

#[derive(Debug, Default)]
struct Entry {
    /// What was read.
    read: Option<Row>,
    row: Option<Row>,
    has_conversation: bool,
}

impl Book {
    pub fn new(found: Vec<Found>) -> Self {
        let entry = |found: Found| {
            let row = match (found.participant_id, found.since, found.changed_hands) {
                (Some(participant_id), Some(since), Some(changed_hands)) => Some(Row {
                    participant_id,
                    user_id: found.user_id,
                    since,
                    changed_hands,
                }),
                _ => None,
            };
            let entry = Entry {
                read: row.clone(),
                row,
                has_conversation: found.has_conversation,
            };
            (found.id, entry)
        };
        Self(found.into_iter().map(entry).collect())
    }

    /// What differs from what was read.
    pub fn changes(&self) -> Vec<Change<'_>> {
        let changed = self.0.iter().filter_map(|(alias, entry)| {
            let to = entry.row.as_ref()?;
            let from = entry.read.as_ref();
            (from != Some(to)).then_some(Change { alias, to, from })
        });
        changed.collect()
    }

    /// Takes in what is said, and returns the participant that it is about.
    pub fn hear(&mut self, said: Said<'_>) -> Option<String> {
        let participant = match said {
            Said::Message(person, at) => self.message(person, at)?,
            Said::Link(link) => self.link(link)?,
            Said::Answer(asked, told, at) => self.answer(asked, told, at),
        };
        if matches!(said, Said::Message(..)) {
            // It is going to have one.
            let entry = self.0.entry(participant.clone()).or_default();
            entry.has_conversation = true;
        }
        Some(participant)
    }

    fn message(&mut self, person: &Person, at: DateTime<Utc>) -> Option<String> {
        match (&person.number, &person.user_id) {
            (Some(number), Some(user_id)) => Some(self.both(number, user_id, at)),
            (Some(id), None) | (None, Some(id)) => {
                let participant = self.leads_to(id).unwrap_or(id).to_owned();
                self.lead(id, &participant, None, at);
                Some(participant)
            }
            (None, None) => None,
        }
    }

    /// A message came with both ids.
    fn both(&mut self, number: &str, user_id: &str, at: DateTime<Utc>) -> String {
        let theirs = self.leads_to(user_id);
        let participant = match self.row(number) {
            None if self.has_conversation(number) => number,
            None => match theirs {
                Some(participant) => participant,
                None if self.has_conversation(user_id) => user_id,
                None => number,
            },
            Some(row) if row.user_id.as_deref().is_none_or(|known| known == user_id) => {
                &row.participant_id
            }
            // They are known to be the same person.
            Some(row) if theirs == Some(&row.participant_id) => &row.participant_id,
            // Another person has this number now; or had it, if what is known is newer.
            Some(row) => {
                let has_it_now = at >= row.since;
                let participant = theirs.unwrap_or(user_id).to_owned();
                if has_it_now {
                    self.set(number, &participant, Some(user_id), at, true);
                }
                self.lead(user_id, &participant, None, at);
                return participant;
            }
        };
        let participant = participant.to_owned();
        self.lead(number, &participant, Some(user_id), at);
        self.lead(user_id, &participant, None, at);
        participant
    }

    /// Meta's word that somebody has another id now. Of two conversations, the one that they had
    /// goes on.
    fn link(&mut self, link: &Link) -> Option<String> {
        if let Some(participant) = self.was_the_same(link) {
            return Some(participant);
        }
        let Link { known, now, at } = link;
        let ids = [&known.number, &known.user_id, &now.number, &now.user_id];
        let ids: Vec<&str> = ids.into_iter().filter_map(|id| id.as_deref()).collect();
        let found = ids.iter().find_map(|id| self.conversation_of(id));
        let participant = found.or(ids.first().copied())?.to_owned();
        if let Some(number) = &now.number {
            let mine = known.number.as_deref().and_then(|number| self.row(number));
            let mine = mine.and_then(|row| row.user_id.clone());
            let of_them = [&known.user_id, &now.user_id, &mine];
            self.assign(number, &participant, now.user_id.as_deref(), &of_them, *at);
        } else if let (Some(number), Some(user_id)) = (&known.number, &now.user_id) {
            self.assign(number, &participant, Some(user_id), &[&known.user_id], *at);
        }
        for user_id in [&known.user_id, &now.user_id].into_iter().flatten() {
            self.lead(user_id, &participant, None, *at);
        }
        Some(participant)
    }

    /// A message with somebody's new user id has overtaken the word that it is theirs, so that their
    /// number was taken for another person's: it has not changed hands, and leads to their
    /// conversation again.
    fn was_the_same(&mut self, link: &Link) -> Option<String> {
        let Link { known, now, at } = link;
        let number = known.number.as_deref()?;
        let (before, after) = (known.user_id.as_deref()?, now.user_id.as_deref()?);
        let stays = now.number.as_deref().is_none_or(|now| now == number);
        let row = self.row(number)?;
        let is_taken_away = row.changed_hands
            && row.user_id.as_deref() == Some(after)
            && row.participant_id != number;
        if !(stays && is_taken_away && self.leads_to(before) == Some(number)) {
            return None;
        }
        let since = [number, after].into_iter().filter_map(|id| self.row(id));
        let since = since.fold(*at, |newest, row| newest.max(row.since));
        self.set(number, number, Some(after), since, false);
        self.set(after, number, None, since, false);
        Some(number.to_owned())
    }

    /// What was sent to one id has gone to another one. Of two conversations, that of the id which
    /// it went to goes on.
    fn answer(&mut self, asked: &str, told: &str, at: DateTime<Utc>) -> String {
        let user_id = (!is_number(asked)).then(|| asked.to_owned());
        let known = self.row(told).and_then(|row| row.user_id.as_deref());
        let is_others = user_id.is_some() && known.is_some() && known != user_id.as_deref();
        let by_told = self.conversation_of(told).filter(|_| !is_others);
        let found = by_told.or_else(|| self.conversation_of(asked));
        let participant = found.unwrap_or(asked).to_owned();
        match &user_id {
            Some(_) => self.assign(told, &participant, Some(asked), &[&user_id], at),
            None => self.lead(told, &participant, None, at),
        }
        // The id that it went to is the newer one.
        self.lead(asked, &participant, None, at - TimeDelta::microseconds(1));
        participant
    }

    fn row(&self, id: &str) -> Option<&Row> {
        self.0.get(id)?.row.as_ref()
    }

    fn leads_to(&self, id: &str) -> Option<&str> {
        self.row(id).map(|row| &*row.participant_id)
    }

    fn has_conversation(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|entry| entry.has_conversation)
    }

    /// Where it leads, or its own conversation.
    fn conversation_of<'a>(&'a self, id: &'a str) -> Option<&'a str> {
        self.leads_to(id)
            .or_else(|| self.has_conversation(id).then_some(id))
    }

    /// From then on the id leads there, unless something newer says otherwise.
    fn lead(&mut self, id: &str, to: &str, user_id: Option<&str>, at: DateTime<Utc>) {
        let entry = self.0.entry(id.to_owned()).or_default();
        let Some(row) = &mut entry.row else {
            entry.row = Some(Row {
                participant_id: to.to_owned(),
                user_id: user_id.map(str::to_owned),
                since: at,
                changed_hands: false,
            });
            return;
        };
        let user_id = user_id.or(row.user_id.as_deref());
        if row.participant_id != to || row.user_id.is_some() && row.user_id.as_deref() != user_id {
            if at >= row.since {
                row.user_id = user_id.map(str::to_owned);
                to.clone_into(&mut row.participant_id);
                row.since = at;
            }
            return;
        }
        row.user_id = user_id.map(str::to_owned);
        if at - row.since > REFRESH {
            row.since = at;
        }
    }

    /// The number is theirs by Meta's word. Whoever had it, with another user id than `of_them`, has
    /// it no more.
    fn assign(
        &mut self,
        number: &str,
        to: &str,
        user_id: Option<&str>,
        of_them: &[&Option<String>],
        at: DateTime<Utc>,
    ) {
        let Some(row) = self.row(number) else {
            return self.lead(number, to, user_id, at);
        };
        // What was told before, and comes once more, changes nothing.
        if at < row.since || at == row.since && row.participant_id != number {
            return;
        }
        let is_others =
            row.participant_id != to && row.user_id.is_some() && !of_them.contains(&&row.user_id);
        let changed_hands = row.changed_hands || is_others;
        self.set(number, to, user_id, at, changed_hands);
    }

    fn set(
        &mut self,
        id: &str,
        to: &str,
        user_id: Option<&str>,
        since: DateTime<Utc>,
        changed_hands: bool,
    ) {
        let entry = self.0.entry(id.to_owned()).or_default();
        entry.row = Some(Row {
            participant_id: to.to_owned(),
            user_id: user_id.map(str::to_owned),
            since,
            changed_hands,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: &str = "491510000001";
    const NEW: &str = "491510000002";
    const U: &str = "DE.100";
    const OTHER: &str = "DE.200";

    /// What is known of ids that have a conversation and are no aliases yet.
    fn book(conversations: &[&str]) -> Book {
        let found = |id: &&str| Found {
            id: (*id).to_owned(),
            participant_id: None,
            user_id: None,
            since: None,
            changed_hands: None,
            has_conversation: true,
        };
        Book::new(conversations.iter().map(found).collect())
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn person(number: &str, user_id: &str) -> Person {
        let some = |id: &str| (!id.is_empty()).then(|| id.to_owned());
        Person {
            number: some(number),
            user_id: some(user_id),
        }
    }

    impl Book {
        /// A message of somebody with these ids.
        fn says(&mut self, number: &str, user_id: &str, seconds: i64) -> String {
            let person = person(number, user_id);
            self.hear(Said::Message(&person, at(seconds))).unwrap()
        }

        fn is_linked(&mut self, known: Person, now: Person, seconds: i64) -> Option<String> {
            let at = at(seconds);
            self.hear(Said::Link(&Link { known, now, at }))
        }

        fn has_changed_hands(&self, id: &str) -> bool {
            self.row(id).unwrap().changed_hands
        }
    }

    #[test]
    fn both_ids_lead_to_one_participant_whichever_comes_first() {
        let mut one = book(&[]);
        assert_eq!(one.says(P, U, 1), P);
        assert_eq!(one.says("", U, 2), P);
        assert_eq!(one.says(P, "", 3), P);
        let mut one = book(&[]);
        assert_eq!(one.says("", U, 1), U);
        assert_eq!(one.says(P, U, 2), U);
        assert_eq!(one.says(P, "", 3), U);
        let mut one = book(&[]);
        assert_eq!(one.says(P, "", 1), P);
        assert_eq!(one.says(P, U, 2), P);
        assert_eq!(one.says("", U, 3), P);
        // Also where the one that says so comes late.
        let mut one = book(&[]);
        assert_eq!(one.says(P, "", 9), P);
        assert_eq!(one.says(P, U, 2), P);
        assert_eq!(one.says("", U, 3), P);
    }

    #[test]
    fn of_two_conversations_that_of_the_number_goes_on() {
        let mut one = book(&[P, U]);
        assert_eq!(one.says("", U, 1), U);
        assert_eq!(one.says(P, U, 2), P);
        assert_eq!(one.says("", U, 3), P);
        let mut one = book(&[U]);
        assert_eq!(one.says(P, U, 2), U);
    }

    #[test]
    fn a_number_with_another_user_id_is_another_person_and_closed_to_sending() {
        let mut one = book(&[]);
        assert_eq!(one.says(P, U, 1), P);
        assert_eq!(one.says(P, OTHER, 2), OTHER);
        assert!(one.has_changed_hands(P));
        assert_eq!(one.says(P, "", 3), OTHER);
        assert_eq!(one.says("", U, 4), P);
        // What the first owner wrote comes late, or once more.
        assert_eq!(one.says(P, U, 1), P);
        assert_eq!(one.says(P, OTHER, 5), OTHER);
        // Once and for all.
        assert_eq!(one.says(P, U, 6), P);
        assert!(one.has_changed_hands(P));
        // Also within a second, which is as fine as their times are: what comes last counts.
        let mut one = book(&[]);
        assert_eq!(one.says(P, U, 1), P);
        assert_eq!(one.says(P, OTHER, 1), OTHER);
        assert!(one.has_changed_hands(P));
        assert_eq!(one.says(P, "", 1), OTHER);
    }

    #[test]
    fn an_older_event_with_another_user_id_takes_no_number_away() {
        let mut one = book(&[]);
        assert_eq!(one.says(P, U, 5), P);
        assert_eq!(one.says(P, OTHER, 4), OTHER);
        assert_eq!(one.says(P, U, 6), P);
        assert!(!one.has_changed_hands(P));
    }

    #[test]
    fn meta_may_say_that_somebody_has_another_number_or_user_id() {
        let mut one = book(&[]);
        assert_eq!(one.says(P, U, 1), P);
        let to = one.is_linked(person(P, ""), person(NEW, ""), 2);
        assert_eq!(to.as_deref(), Some(P));
        assert_eq!(one.says(NEW, OTHER, 3), P);
        assert_eq!(one.says("", OTHER, 4), P);
        assert!(!one.has_changed_hands(NEW));

        let mut one = book(&[]);
        assert_eq!(one.says(P, U, 1), P);
        one.is_linked(person(P, ""), person("", OTHER), 2);
        assert_eq!(one.says(P, OTHER, 3), P);
        // Without the number, too.
        let mut one = book(&[]);
        assert_eq!(one.says(P, U, 1), P);
        one.is_linked(person("", U), person("", OTHER), 2);
        assert_eq!(one.says(P, OTHER, 3), P);
        assert!(!one.has_changed_hands(P));
    }

    #[test]
    fn metas_word_may_come_after_a_message_with_the_new_user_id() {
        for (word, number) in [(1, P), (2, P), (9, P), (1, "")] {
            let mut one = book(&[]);
            assert_eq!(one.says(P, U, 0), P);
            assert_eq!(one.says(P, OTHER, 2), OTHER);
            assert_eq!(one.says("", OTHER, 5), OTHER);
            assert!(one.has_changed_hands(P));
            let to = one.is_linked(person(P, U), person(number, OTHER), word);
            assert_eq!(to.as_deref(), Some(P), "{word}");
            assert!(!one.has_changed_hands(P));
            assert_eq!(one.says(P, OTHER, 10), P);
            assert_eq!(one.says("", OTHER, 11), P);
            assert_eq!(one.says("", U, 12), P);
            // Who has the number after that is somebody else, also when the word comes once more.
            assert_eq!(one.says(P, "DE.300", 13), "DE.300");
            one.is_linked(person(P, U), person(number, OTHER), word);
            assert!(one.has_changed_hands(P));
            assert_eq!(one.says(P, "", 14), "DE.300");
        }
        // It says nothing of whoever had the number before both.
        let mut one = book(&[]);
        assert_eq!(one.says(P, "DE.300", 0), P);
        assert_eq!(one.says(P, U, 1), U);
        assert_eq!(one.says(P, OTHER, 3), OTHER);
        one.is_linked(person(P, U), person(P, OTHER), 2);
        assert!(one.has_changed_hands(P));
    }

    #[test]
    fn a_number_that_meta_gives_to_somebody_was_somebody_elses() {
        let mut one = book(&[]);
        assert_eq!(one.says(NEW, OTHER, 1), NEW);
        assert_eq!(one.says(P, U, 1), P);
        one.is_linked(person(P, U), person(NEW, ""), 2);
        assert_eq!(one.says(NEW, "", 3), P);
        assert!(one.has_changed_hands(NEW));
        assert_eq!(one.says("", OTHER, 3), NEW);
        // The same word once more says nothing new, whoever has the old number by now.
        assert_eq!(one.says(P, "DE.300", 4), "DE.300");
        one.is_linked(person(P, ""), person(NEW, ""), 2);
        assert_eq!(one.says(NEW, "", 5), P);
    }

    #[test]
    fn an_answer_with_another_id_makes_both_one() {
        let mut one = book(&[P]);
        assert_eq!(one.hear(Said::Answer(P, NEW, at(1))).as_deref(), Some(P));
        assert_eq!(one.says(NEW, U, 2), P);
        // Where they have written by it, that conversation goes on.
        let mut one = book(&[P, NEW]);
        assert_eq!(one.hear(Said::Answer(P, NEW, at(1))).as_deref(), Some(NEW));
        assert_eq!(one.says(P, "", 2), NEW);
        let mut one = book(&[U]);
        assert_eq!(one.hear(Said::Answer(U, P, at(1))).as_deref(), Some(U));
        assert_eq!(one.says(P, "", 2), U);
        let mut one = book(&[U]);
        assert_eq!(one.says(P, OTHER, 1), P);
        assert_eq!(one.hear(Said::Answer(U, P, at(2))).as_deref(), Some(U));
        assert_eq!(one.says(P, U, 3), U);
        assert!(one.has_changed_hands(P));
    }

    #[test]
    fn what_says_nothing_new_writes_nothing_for_an_hour() {
        let mut one = book(&[]);
        one.says(P, U, 1);
        let rows: Vec<(String, Row)> = one
            .changes()
            .iter()
            .map(|change| (change.alias.to_owned(), change.to.clone()))
            .collect();
        assert_eq!(rows.len(), 2);
        let found = rows.into_iter().map(|(id, row)| Found {
            id,
            participant_id: Some(row.participant_id),
            user_id: row.user_id,
            since: Some(row.since),
            changed_hands: Some(row.changed_hands),
            has_conversation: false,
        });
        let mut again = Book::new(found.collect());
        again.says(P, U, 3601);
        again.says("", U, 2);
        assert!(again.changes().is_empty());
        again.says(P, U, 3602);
        assert_eq!(again.changes().len(), 2);
    }
}
