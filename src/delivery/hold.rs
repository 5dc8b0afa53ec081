//! A channel whose token or account is at fault: when it is tried, and what was refused meanwhile.

use sqlx::PgConnection;

use super::store;
use crate::channel::{self, Channel};
use crate::database::pool::Pool;
use crate::id::MessageId;
use crate::provider::providers::Providers;

/// Ends the hold of these channels, since one of their messages was accepted. What was refused goes
/// now. Whether something was held.
pub async fn lift(connection: &mut PgConnection, channels: &[Channel]) -> sqlx::Result<bool> {
    let lifted = channel::store::lift(connection, channels).await?;
    if lifted.is_empty() {
        return Ok(false);
    }
    for channel in &lifted {
        tracing::info!(channel = channel.as_str(), "a channel is no longer held");
    }
    store::wake_refused(connection, &lifted).await?;
    Ok(true)
}

/// Tries the channels at once that are held with another token than this process has.
pub async fn begin(pool: &Pool, providers: &Providers) -> sqlx::Result<()> {
    let Some(account) = providers.whatsapp() else {
        return Ok(());
    };
    let (channel, token) = (Channel::Whatsapp, account.fingerprint());
    if channel::store::try_token(pool, channel, &token).await? {
        wake(pool, &[channel]).await?;
    }
    Ok(())
}

/// Tries the channels of these messages at once, if they are held: an operator says so. Also of
/// those that were due before, and that another message's failure holds up.
pub async fn try_now(pool: &Pool, message_ids: &[MessageId]) -> sqlx::Result<()> {
    let tried = channel::store::try_now(pool, message_ids).await?;
    if !tried.is_empty() {
        wake(pool, &tried).await?;
    }
    Ok(())
}

async fn wake(pool: &Pool, channels: &[Channel]) -> sqlx::Result<()> {
    let mut pooled = pool.acquire().await?;
    let woken = store::wake_refused(pooled.connection()?, channels).await;
    pooled.ended(&woken);
    woken
}
