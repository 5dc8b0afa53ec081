//! The hand-written transaction itself: begin, three statements, commit.

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use super::store::{self, Event};
use crate::id::{ConversationId, MessageId};

/// What an event was stored as.
pub struct Receipt {
    pub event_id: String,
    pub duplicate: bool,
    pub conversation_id: ConversationId,
    pub message_id: MessageId,
}

/// All that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub events: i64,
    pub messages: i64,
    /// Unread messages, as the conversations count them.
    pub unread: i64,
}

pub async fn store(pool: &PgPool, event: Event) -> sqlx::Result<Receipt> {
    let mut connection = pool.acquire().await?;
    let stored = transaction(&mut connection, event).await;
    if stored.is_err() {
        // Ends the transaction too.
        connection.close_on_drop();
    }
    stored
}

async fn transaction(connection: &mut PgConnection, event: Event) -> sqlx::Result<Receipt> {
    store::begin(connection).await?;
    let is_new = store::insert_event(connection, &event).await?;
    let (conversation_id, message_id) = if is_new {
        let conversation_id = store::upsert_conversation(connection, &event).await?;
        store::insert_message(connection, &event, conversation_id).await?;
        (conversation_id, event.message_id)
    } else {
        store::find_known(connection, &event.id).await?
    };
    store::commit(connection).await?;
    Ok(Receipt {
        event_id: event.id,
        duplicate: !is_new,
        conversation_id,
        message_id,
    })
}

pub async fn stored(pool: &PgPool) -> sqlx::Result<Stored> {
    let (events, messages, unread) = store::count(&mut *pool.acquire().await?).await?;
    Ok(Stored {
        events,
        messages,
        unread,
    })
}
