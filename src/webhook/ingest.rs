//! Ingests events: gathers them, stores those of a wire in one statement, answers after the commit.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;

use super::whatsapp::{self, Arrival, Became};
use super::{Event, Receipt, store};
use crate::database::batch::{Batch, WriteError};
use crate::database::plans::Work;
use crate::id::ConversationId;
use crate::id::MessageId;

/// The batch of events.
#[derive(Debug)]
pub struct Ingest;

/// What a webhook brings.
#[derive(Debug)]
pub enum Item {
    /// An event of the plain wire.
    Event(Box<Event>),
    /// An item of WhatsApp's own wire.
    Arrival(Arrival),
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// What the event was stored as.
    Event(Receipt),
    /// What became of the item.
    Arrival(Became),
}

impl Batch for Ingest {
    type Item = Item;
    type Answer = Answer;
    const NAME: &'static str = "ingest";
    const RETRY_FOR: Option<Duration> = Some(Duration::from_secs(5));
    const WORK: Work = Work::InputBatches;

    async fn write(
        &self,
        connection: &mut PgConnection,
        items: &[&Item],
    ) -> Result<Vec<Answer>, WriteError> {
        let mut events = Vec::with_capacity(items.len());
        let mut arrivals = Vec::new();
        for item in items {
            match item {
                Item::Event(event) => events.push(&**event),
                Item::Arrival(arrival) => arrivals.push(arrival),
            }
        }
        let mut receipts = Vec::new();
        if !events.is_empty() {
            receipts = write_events(connection, &events).await?;
        }
        let mut taken = Vec::new();
        if !arrivals.is_empty() {
            taken = whatsapp::ingest::write(connection, &arrivals).await?;
        }
        let (mut receipts, mut taken) = (receipts.into_iter(), taken.into_iter());
        let answer = |item: &&Item| match item {
            Item::Event(_) => receipts.next().map(Answer::Event),
            Item::Arrival(_) => taken.next().map(Answer::Arrival),
        };
        let answers = items.iter().map(answer);
        answers.collect::<Option<_>>().ok_or(WriteError::NoAnswer)
    }
}

async fn write_events(
    connection: &mut PgConnection,
    events: &[&Event],
) -> Result<Vec<Receipt>, WriteError> {
    let new: HashMap<MessageId, ConversationId> = store::ingest(connection, events)
        .await?
        .into_iter()
        .map(|row| (row.message_id, row.conversation_id))
        .collect();
    let known_ids: Vec<&str> = events
        .iter()
        .filter(|event| !new.contains_key(&event.message_id))
        .map(|event| &*event.event_id)
        .collect();
    let known: HashMap<String, store::Known> = if known_ids.is_empty() {
        HashMap::new()
    } else {
        let rows = store::find_known(connection, &known_ids).await?;
        rows.into_iter()
            .map(|row| (row.event_id.clone(), row))
            .collect()
    };
    let receipt = |event: &&Event| match new.get(&event.message_id) {
        Some(&conversation_id) => Ok(Receipt {
            message_id: event.message_id,
            conversation_id,
            duplicate: false,
        }),
        None => known
            .get(&event.event_id)
            .map(|known| Receipt {
                message_id: known.message_id,
                conversation_id: known.conversation_id,
                // Its own id: the answer was lost, and this is the batch sent again.
                duplicate: known.message_id != event.message_id,
            })
            .ok_or(WriteError::NoAnswer),
    };
    events.iter().map(receipt).collect()
}
