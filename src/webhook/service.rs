//! Takes events in: gathered, stored in one statement, and answered only after the commit.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;

use super::{Event, Receipt, store};
use crate::database::batch::Batch;

/// The batch of events.
#[derive(Debug)]
pub struct Ingest;

impl Batch for Ingest {
    type Item = Event;
    type Answer = Receipt;
    const NAME: &'static str = "ingest";
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));

    async fn write(
        &self,
        connection: &mut PgConnection,
        events: &[&Event],
    ) -> sqlx::Result<Vec<Receipt>> {
        let ingested = store::ingest(connection, events).await?;
        let known_ids: Vec<&str> = events
            .iter()
            .zip(&ingested)
            .filter(|(_, row)| row.message_id.is_none())
            .map(|(event, _)| &*event.event_id)
            .collect();
        let known: HashMap<String, Receipt> = if known_ids.is_empty() {
            HashMap::new()
        } else {
            let rows = store::find_known(connection, &known_ids).await?;
            rows.into_iter()
                .map(|row| {
                    let receipt = Receipt {
                        message_id: row.message_id,
                        conversation_id: row.conversation_id,
                        duplicate: true,
                    };
                    (row.event_id, receipt)
                })
                .collect()
        };
        events
            .iter()
            .zip(ingested)
            .map(|(event, row)| receipt(event, &row, &known))
            .collect()
    }
}

fn receipt(
    event: &Event,
    row: &store::Ingested,
    known: &HashMap<String, Receipt>,
) -> sqlx::Result<Receipt> {
    if let (Some(message_id), Some(conversation_id)) = (row.message_id, row.conversation_id) {
        return Ok(Receipt {
            message_id,
            conversation_id,
            duplicate: false,
        });
    }
    let known = known.get(&event.event_id).ok_or(sqlx::Error::RowNotFound)?;
    Ok(Receipt {
        // Its own id: the answer of the statement was lost, and this is the batch sent again.
        duplicate: known.message_id != event.message_id,
        ..*known
    })
}
