//! Writes down how attempts ended, many at once, and wakes whatever they unblocked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::Notify;

use super::store::Settled;
use super::{Lease, Next, Settlement, store};
use crate::channel::Channel;
use crate::channel::{self, Pause};
use crate::crash::{self, Point};
use crate::database;
use crate::database::batch::{Batch, WriteError};
use crate::id::{ConversationId, MessageId};
use crate::provider::Failure;

/// The batch of settlements. Outcomes are kept until they are written or refused; the attempts'
/// permits bound them.
#[derive(Debug)]
pub struct Settle {
    /// Whether messages of one conversation wait for each other.
    pub ordered: bool,
    /// Wakes this process's worker.
    pub wake: Arc<Notify>,
}

impl Batch for Settle {
    type Item = Settlement;
    /// None: somebody else has settled it, or holds it by now; or this is a repetition, and it was
    /// settled before.
    type Answer = Option<Settled>;
    const NAME: &'static str = "settle";
    const RETRY_FOR: Option<Duration> = None;

    async fn write(
        &self,
        connection: &mut PgConnection,
        settlements: &[&Settlement],
    ) -> Result<Vec<Option<Settled>>, WriteError> {
        let (mut sent, mut failed, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
        for settlement in settlements {
            match settlement {
                Settlement::Sent {
                    lease,
                    provider_message_id,
                } => sent.push((&**lease, &**provider_message_id)),
                Settlement::Failed {
                    lease,
                    failure,
                    next,
                    pause,
                } => {
                    failed.push((&**lease, failure, *next));
                    pauses.extend(*pause);
                }
            }
        }
        crash::point(Point::BeforeSettle);
        // Before anything else is written: what is stored or claimed from now on waits.
        pause_channels(connection, pauses).await?;
        let mut settled = self.mark_sent(connection, &sent).await?;
        settled.extend(self.mark_failed(connection, &failed).await?);
        let mut settled: HashMap<MessageId, Settled> = settled
            .into_iter()
            .map(|row| (row.message_id, row))
            .collect();
        let answer = |settlement: &&Settlement| settled.remove(&settlement.message_id());
        Ok(settlements.iter().map(answer).collect())
    }
}

impl Settle {
    async fn mark_sent(
        &self,
        connection: &mut PgConnection,
        sent: &[(&Lease, &str)],
    ) -> sqlx::Result<Vec<Settled>> {
        if sent.is_empty() {
            return Ok(Vec::new());
        }
        let accepted: Vec<_> = sent
            .iter()
            .map(|(l, id)| (l.outgoing.message_id, *id))
            .collect();
        let settled = store::mark_sent(connection, &accepted).await?;
        crash::point(Point::AfterSettle);
        confirm(connection, &settled).await?;
        let conversation_ids = sent.iter().map(|(lease, _)| lease.conversation_id);
        self.release(connection, conversation_ids).await?;
        Ok(settled)
    }

    async fn mark_failed(
        &self,
        connection: &mut PgConnection,
        failed: &[(&Lease, &Failure, Next)],
    ) -> sqlx::Result<Vec<Settled>> {
        if failed.is_empty() {
            return Ok(Vec::new());
        }
        let settled = store::mark_failed(connection, failed).await?;
        crash::point(Point::AfterSettle);
        confirm(connection, &settled).await?;
        let parked = failed.iter().filter(|(.., next)| *next == Next::Park);
        self.release(connection, parked.map(|(lease, ..)| lease.conversation_id))
            .await?;
        Ok(settled)
    }

    /// Also where a row was settled before: perhaps by this batch, whose release was then lost with
    /// the connection.
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

/// Pauses each channel for the longest of its pauses.
async fn pause_channels(connection: &mut PgConnection, pauses: Vec<Pause>) -> sqlx::Result<()> {
    let mut longest: HashMap<Channel, Pause> = HashMap::new();
    for pause in pauses {
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

/// Where nothing was written, all was settled before. The batch may only be forgotten once that is
/// as safe as a settlement of its own.
async fn confirm(connection: &mut PgConnection, settled: &[Settled]) -> sqlx::Result<()> {
    if settled.is_empty() {
        database::store::confirm(connection).await?;
    }
    Ok(())
}
