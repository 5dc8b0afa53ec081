//! Writes down how attempts ended, many at once, and wakes whatever they unblocked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::Notify;

use super::{Accepted, Failed, store};
use crate::channel::Channel;
use crate::channel::{self, Pause};
use crate::crash::{self, Point};
use crate::database;
use crate::database::batch::{Batch, WriteError};
use crate::id::ConversationId;
use crate::id::MessageId;

/// How one attempt ended.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// The provider has accepted it.
    Accepted(Accepted),
    /// It failed.
    Failed(Failed),
}

impl From<Accepted> for Settlement {
    fn from(accepted: Accepted) -> Self {
        Self::Accepted(accepted)
    }
}

impl From<Failed> for Settlement {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// The batch of settlements. Outcomes are kept until they are written or refused; the attempts' permits bound them.
#[derive(Debug)]
pub struct Settle {
    /// Whether messages of one conversation wait for each other.
    pub ordered: bool,
    /// Wakes this process's worker.
    pub wake: Arc<Notify>,
}

impl Batch for Settle {
    type Item = Settlement;
    /// None: somebody else has settled it, or holds it by now; or this is a repetition, and it was settled before.
    type Answer = Option<store::Settled>;
    const NAME: &'static str = "settle";
    const RETRY_FOR: Option<Duration> = None;

    async fn write(
        &self,
        connection: &mut PgConnection,
        settlements: &[&Settlement],
    ) -> Result<Vec<Option<store::Settled>>, WriteError> {
        let mut accepted = Vec::new();
        let mut failed = Vec::new();
        for settlement in settlements {
            match settlement {
                Settlement::Accepted(item) => accepted.push(item),
                Settlement::Failed(item) => failed.push(item),
            }
        }
        crash::point(Point::BeforeSettle);
        pause_channels(connection, &failed).await?;
        let mut sent = self.mark_sent(connection, &accepted).await?;
        let mut rescheduled = self.mark_failed(connection, &failed).await?;
        let answer = |settlement: &&Settlement| match settlement {
            Settlement::Accepted(item) => sent.remove(&item.message_id),
            Settlement::Failed(item) => rescheduled.remove(&item.message_id),
        };
        Ok(settlements.iter().map(answer).collect())
    }
}

impl Settle {
    async fn mark_sent(
        &self,
        connection: &mut PgConnection,
        accepted: &[&Accepted],
    ) -> sqlx::Result<HashMap<MessageId, store::Settled>> {
        if accepted.is_empty() {
            return Ok(HashMap::new());
        }
        let settled = store::mark_sent(connection, accepted).await?;
        crash::point(Point::AfterSettle);
        confirm(connection, &settled).await?;
        self.release(connection, accepted.iter().map(|item| item.conversation_id))
            .await?;
        Ok(by_message(settled))
    }

    async fn mark_failed(
        &self,
        connection: &mut PgConnection,
        failed: &[&Failed],
    ) -> sqlx::Result<HashMap<MessageId, store::Settled>> {
        if failed.is_empty() {
            return Ok(HashMap::new());
        }
        let settled = store::mark_failed(connection, failed).await?;
        crash::point(Point::AfterSettle);
        confirm(connection, &settled).await?;
        let parked = failed.iter().filter(|item| item.wait.is_none());
        self.release(connection, parked.map(|item| item.conversation_id))
            .await?;
        Ok(by_message(settled))
    }

    /// Also where a row was settled before: that may have been this batch, whose release was then lost with the connection.
    async fn release(
        &self,
        connection: &mut PgConnection,
        conversation_ids: impl Iterator<Item = ConversationId>,
    ) -> sqlx::Result<()> {
        let conversation_ids: Vec<ConversationId> = conversation_ids.collect();
        if !self.ordered || conversation_ids.is_empty() {
            return Ok(());
        }
        if !store::release(connection, &conversation_ids)
            .await?
            .is_empty()
        {
            self.wake.notify_one();
        }
        Ok(())
    }
}

/// Pauses channels before anything else is written: what is accepted or claimed from now on waits.
async fn pause_channels(connection: &mut PgConnection, failed: &[&Failed]) -> sqlx::Result<()> {
    let mut longest: HashMap<Channel, Pause> = HashMap::new();
    for pause in failed.iter().filter_map(|failed| failed.pause) {
        let known = longest.entry(pause.channel).or_insert(pause);
        known.wait = known.wait.max(pause.wait);
    }
    if longest.is_empty() {
        return Ok(());
    }
    let pauses: Vec<Pause> = longest.into_values().collect();
    for paused in channel::store::pause(connection, &pauses).await? {
        tracing::warn!(channel = paused.channel.as_str(), until = %paused.until, "a channel is paused: the provider has answered 429");
    }
    Ok(())
}

/// Where nothing was written, all of it was settled before: it is forgotten only when that is as safe as a settlement of its own.
async fn confirm(connection: &mut PgConnection, settled: &[store::Settled]) -> sqlx::Result<()> {
    if settled.is_empty() {
        database::store::confirm(connection).await?;
    }
    Ok(())
}

fn by_message(settled: Vec<store::Settled>) -> HashMap<MessageId, store::Settled> {
    settled
        .into_iter()
        .map(|row| (row.message_id, row))
        .collect()
}
