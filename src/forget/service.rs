//! Forgets in small statements: after an interruption, the same call goes on.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Forgotten, Request, store};
use crate::database::{self, pool::Pool};
use crate::delivery;
use crate::error::Result;

/// Messages of one statement.
const BATCH: i64 = 500;
/// How often attempts in flight are looked at.
const POLL: Duration = Duration::from_millis(200);

/// Forgets a conversation, and returns also how many of its messages are still being sent.
///
/// First cancels what waits to be sent, and waits up to `wait` for attempts in flight, which have
/// the texts. Then empties what there was.
pub async fn forget(pool: &Pool, request: Request, wait: Duration) -> Result<(Forgotten, i64)> {
    let mut forgotten = Forgotten::default();
    let deadline = Instant::now() + wait;
    loop {
        let unsent = store::list_unsent(pool, request).await?;
        for message_id in &unsent {
            let canceled = delivery::store::cancel(pool, *message_id, &[]).await?;
            forgotten.canceled += i64::from(canceled.is_some());
        }
        if store::list_unsent(pool, request).await?.is_empty() || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    // Before the messages, so that nothing is written into them again.
    store::empty_names(pool, request).await?;
    let mut before = (DateTime::<Utc>::MAX_UTC, Uuid::max());
    loop {
        let emptied = store::empty(pool, request, before, BATCH).await?;
        forgotten.messages += emptied.messages;
        forgotten.webhook_bodies += emptied.webhook_bodies;
        match (emptied.sort_at, emptied.id) {
            (Some(sort_at), Some(id)) => before = (sort_at, id),
            _ => break,
        }
    }
    store::empty_preview(pool, request.conversation_id).await?;
    let mut pooled = pool.acquire().await?;
    delivery::store::release(pooled.connection()?, &[request.conversation_id]).await?;
    drop(pooled);
    // An interrupted call may have committed without knowing it: this waits for those commits too.
    database::store::confirm(pool).await?;
    Ok((forgotten, store::count(pool, request).await?.canceled))
}
