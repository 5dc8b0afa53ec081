//! Stores a batch of items: finds out whose they are, stores what is new, and writes what has come
//! about messages into them.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::store::{Named, NewAmendment, NewMessage};
use super::{Arrival, Became, News, store};
use crate::alias::{self, Said};
use crate::channel::Channel;
use crate::database::batch::WriteError;
use crate::id::MessageId;
use crate::message::Direction;
use crate::provider::whatsapp::events::{Amendment, Change, Inbound, Origin};
use crate::{amendment, database};

/// Stores all of them, in a few statements, and answers each, in their order. Repeating it changes
/// nothing.
pub async fn write(
    connection: &mut PgConnection,
    arrivals: &[&Arrival],
) -> Result<Vec<Became>, WriteError> {
    let said: Vec<Said<'_>> = arrivals.iter().map(|arrival| said(&arrival.news)).collect();
    let participants = alias::resolve(connection, &said).await?;
    let names = Names::find(connection, arrivals).await?;
    let mut batch = Batch::default();
    let settled: Vec<Option<Became>> = arrivals
        .iter()
        .zip(&participants)
        .map(|(arrival, participant)| batch.sort(arrival, participant.as_deref()?, &names))
        .collect();
    let new = batch.store(connection).await?;
    let known = find_known(connection, &batch, &new, &settled).await?;
    answers(arrivals, &participants, &settled, new, &known)
}

fn said(news: &News) -> Said<'_> {
    match news {
        News::Message(message) => Said::Message(&message.person, message.timestamp),
        News::Amendment(amendment) => Said::Message(&amendment.person, amendment.at),
        News::Link(link) => Said::Link(link),
    }
}

/// The messages that others name, by the provider's ids.
struct Names(HashMap<String, Named>);

impl Names {
    /// Finds those that decide something: what is answered, what is changed, and what may have been
    /// sent by the gateway itself.
    async fn find(connection: &mut PgConnection, arrivals: &[&Arrival]) -> sqlx::Result<Self> {
        let wamids: Vec<&str> = arrivals
            .iter()
            .flat_map(|arrival| match &arrival.news {
                News::Message(message) => {
                    let is_echo = message.origin != Origin::Customer;
                    let own = message.wamid.as_deref().filter(|_| is_echo);
                    [own, message.reply_to.as_deref()]
                }
                News::Amendment(amendment) => [Some(&*amendment.target), None],
                News::Link(_) => [None, None],
            })
            .flatten()
            .collect();
        if wamids.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let found = store::find_named(connection, &wamids).await?.into_iter();
        Ok(Self(found.map(|one| (one.wamid.clone(), one)).collect()))
    }

    /// The message that one of this conversation answers: another's words are shown to nobody.
    fn answered(&self, message: &Inbound, participant_id: &str) -> Option<MessageId> {
        let named = self.0.get(message.reply_to.as_deref()?)?;
        named.is_of(participant_id).then_some(named.message_id)
    }

    /// Whether a message that was written elsewhere is there already: the gateway has sent it.
    fn has_other(&self, message: &Inbound, message_id: MessageId) -> bool {
        let is_echo = message.origin != Origin::Customer;
        let named = message.wamid.as_ref().and_then(|id| self.0.get(id));
        is_echo && named.is_some_and(|named| named.message_id != message_id)
    }

    /// Whether it is about a message that its sender may not change.
    fn is_foreign(&self, amendment: &Amendment, participant_id: &str) -> bool {
        let Some(named) = self.0.get(&amendment.target) else {
            return false;
        };
        let by_customer = amendment.origin == Origin::Customer;
        let is_own = by_customer == (named.direction == Direction::Inbound);
        let is_reaction = matches!(amendment.change, Change::Reaction(_));
        !named.is_of(participant_id) || !(is_reaction || is_own)
    }
}

impl Named {
    fn is_of(&self, participant_id: &str) -> bool {
        self.channel == Channel::Whatsapp && self.participant_id == participant_id
    }
}

/// What there is to store.
#[derive(Default)]
struct Batch<'a> {
    messages: Vec<NewMessage<'a>>,
    amendments: Vec<NewAmendment<'a>>,
}

impl<'a> Batch<'a> {
    /// Adds an item, or says what becomes of it without being stored.
    fn sort(
        &mut self,
        arrival: &'a Arrival,
        participant_id: &'a str,
        names: &Names,
    ) -> Option<Became> {
        match &arrival.news {
            News::Link(_) => Some(Became::New),
            News::Message(inbound) if names.has_other(inbound, arrival.message_id) => {
                Some(Became::Duplicate)
            }
            News::Message(inbound) => {
                self.messages.push(NewMessage {
                    inbound,
                    participant_id,
                    reply_to_id: names.answered(inbound, participant_id),
                    message_id: arrival.message_id,
                    conversation_id: arrival.conversation_id,
                });
                None
            }
            News::Amendment(amendment) if names.is_foreign(amendment, participant_id) => {
                Some(Became::Ignored)
            }
            News::Amendment(amendment) => {
                self.amendments.push(NewAmendment {
                    amendment,
                    participant_id,
                });
                None
            }
        }
    }

    /// Stores it, and returns the keys of what is new.
    async fn store(&self, connection: &mut PgConnection) -> sqlx::Result<HashSet<String>> {
        let mut new = HashSet::new();
        if !self.messages.is_empty() {
            new.extend(store::store_messages(connection, &self.messages).await?);
        }
        if !self.amendments.is_empty() {
            new.extend(store::store_amendments(connection, &self.amendments).await?);
        }
        let messages = self.messages.iter();
        let own = messages.filter_map(|message| message.inbound.wamid.as_deref());
        let targets = self.amendments.iter().map(|one| &*one.amendment.target);
        // Also those of what is known: the last time may have been cut short here.
        let wamids: Vec<&str> = own.chain(targets).collect();
        amendment::apply(connection, &wamids).await?;
        Ok(new)
    }

    fn event_ids(&self) -> impl Iterator<Item = &str> {
        let messages = self.messages.iter().map(|one| &*one.inbound.event_id);
        let amendments = self.amendments.iter().map(|one| &*one.amendment.event_id);
        messages.chain(amendments)
    }
}

/// What the known ones have made, by their keys. What is answered without a write is confirmed.
async fn find_known(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    new: &HashSet<String>,
    settled: &[Option<Became>],
) -> sqlx::Result<HashMap<String, Option<MessageId>>> {
    let all: Vec<&str> = batch.event_ids().collect();
    if all.len() == new.len() {
        if settled.contains(&Some(Became::Duplicate)) {
            database::store::confirm(connection).await?;
        }
        return Ok(HashMap::new());
    }
    let known = store::find_events(connection, &all).await?.into_iter();
    Ok(known.map(|row| (row.event_id, row.message_id)).collect())
}

/// What became of each. The same item twice in a batch is new once.
fn answers(
    arrivals: &[&Arrival],
    participants: &[Option<String>],
    settled: &[Option<Became>],
    mut new: HashSet<String>,
    known: &HashMap<String, Option<MessageId>>,
) -> Result<Vec<Became>, WriteError> {
    let answer =
        |((arrival, participant), settled): ((&&Arrival, &Option<String>), &Option<Became>)| {
            if participant.is_none() {
                return Ok(Became::Ignored);
            }
            if let Some(taken) = settled {
                return Ok(*taken);
            }
            let event_id = match &arrival.news {
                News::Message(message) => &message.event_id,
                News::Amendment(amendment) => &amendment.event_id,
                News::Link(_) => return Ok(Became::New),
            };
            if new.remove(event_id) {
                return Ok(Became::New);
            }
            match known.get(event_id) {
                // Its own id: the answer was lost, and this is the batch sent again.
                Some(Some(message_id)) if *message_id == arrival.message_id => Ok(Became::New),
                Some(_) => Ok(Became::Duplicate),
                None => Err(WriteError::NoAnswer),
            }
        };
    arrivals
        .iter()
        .zip(participants)
        .zip(settled)
        .map(answer)
        .collect()
}
