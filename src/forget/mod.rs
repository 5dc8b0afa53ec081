//! A customer who is to be forgotten: what was said is emptied and nothing more is sent; keys stay, so that duplicates stay duplicates.

pub mod store;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::channel::Channel;
use crate::database::{self, pool::Pool};
use crate::delivery;
use crate::error::Result;
use crate::id::ConversationId;

/// Messages of one statement.
const BATCH: i64 = 500;
/// How often it is looked whether attempts in flight have ended.
const LOOK: Duration = Duration::from_millis(200);

/// A conversation, at the moment in which it was asked to be forgotten.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// What was stored later is not a part of it.
    pub at: DateTime<Utc>,
}

/// How much was forgotten, or would be.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// Messages whose text was emptied.
    pub messages: i64,
    /// Webhooks whose body was emptied.
    pub webhook_bodies: i64,
    /// Messages that are not sent any more.
    pub canceled: i64,
}

/// What is to be forgotten of a participant; none: nobody of that name has ever written or been written to.
pub async fn find(pool: &Pool, channel: Channel, participant_id: &str) -> Result<Option<Asked>> {
    Ok(store::find(pool, channel, participant_id).await?)
}

/// Cancels what waits to be sent, and waits for attempts in flight, whose texts would go out again; for so long. Then empties what
/// there was, in small statements: after an interruption the same command goes on. Returns also how many messages are left, since
/// they are still being sent.
pub async fn forget(pool: &Pool, asked: Asked, patience: Duration) -> Result<(Forgotten, i64)> {
    let mut forgotten = Forgotten::default();
    let deadline = Instant::now() + patience;
    loop {
        let unsent = store::list_unsent(pool, asked).await?;
        for message_id in &unsent {
            let canceled = delivery::store::cancel(pool, *message_id).await?;
            forgotten.canceled += i64::from(canceled.is_some());
        }
        if store::list_unsent(pool, asked).await?.is_empty() || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut before = (DateTime::<Utc>::MAX_UTC, Uuid::max());
    loop {
        let emptied = store::empty(pool, asked, before, BATCH).await?;
        forgotten.messages += emptied.messages;
        forgotten.webhook_bodies += emptied.webhook_bodies;
        match (emptied.sort_at, emptied.id) {
            (Some(sort_at), Some(id)) => before = (sort_at, id),
            _ => break,
        }
    }
    store::empty_preview(pool, asked.conversation_id).await?;
    let mut pooled = pool.acquire().await?;
    delivery::store::release(pooled.connection()?, &[asked.conversation_id]).await?;
    drop(pooled);
    // What an earlier command has done is told as well.
    database::store::confirm(pool).await?;
    Ok((forgotten, store::count(pool, asked).await?.canceled))
}
