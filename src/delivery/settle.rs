//! Writes down how attempts ended, many at once, and wakes whatever they unblocked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tokio::sync::Notify;

use super::store::{Accepted, Failed, Settled};
use super::{Lease, Next, PauseOf, Settlement, doubles, hold, store};
use crate::channel::{self, Channel, Pause};
use crate::crash::{self, Point};
use crate::database;
use crate::database::batch::{Batch, WriteError};
use crate::id::{ConversationId, MessageId};
use crate::provider::Recipient;
use crate::{alias, amendment};

/// An acceptance.
struct Sent<'a> {
    lease: &'a Lease,
    provider_message_id: &'a str,
    recipient: &'a Recipient,
    began: Instant,
    is_keyless: bool,
}

impl Sent<'_> {
    fn accepted(&self) -> Accepted<'_> {
        Accepted {
            message_id: self.lease.outgoing.message_id,
            provider_message_id: self.provider_message_id,
            is_keyless: self.is_keyless,
            call_seconds: Some(self.began.elapsed().as_secs_f64()),
        }
    }

    /// What the provider was called with.
    fn address(&self) -> &str {
        let outbound = &self.lease.outgoing.outbound;
        let address = outbound.address.as_deref();
        address.unwrap_or(&outbound.participant_id)
    }

    fn channel(&self) -> Channel {
        self.lease.outgoing.outbound.channel
    }
}

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
        let (mut sent, mut failed, mut unproven) = (Vec::new(), Vec::new(), Vec::new());
        let (mut pauses, mut pair_pauses) = (Vec::new(), HashMap::new());
        for settlement in settlements {
            match settlement {
                Settlement::Sent {
                    lease,
                    provider_message_id,
                    recipient,
                    began,
                    is_keyless,
                } => sent.push(Sent {
                    lease,
                    provider_message_id,
                    recipient,
                    began: *began,
                    is_keyless: *is_keyless,
                }),
                Settlement::Failed {
                    lease,
                    failure,
                    next,
                    pause,
                    is_keyless,
                } => {
                    failed.push(Failed {
                        lease,
                        failure,
                        next: *next,
                        is_keyless: *is_keyless,
                    });
                    match pause {
                        Some(PauseOf::Channel(pause)) => pauses.push(pause.clone()),
                        Some(PauseOf::Conversation(wait)) => {
                            let longest = pair_pauses.entry(lease.conversation_id);
                            let longest = longest.or_insert(*wait);
                            *longest = (*longest).max(*wait);
                        }
                        None => {}
                    }
                }
                Settlement::Unproven { lease } => unproven.push(&**lease),
            }
        }
        crash::point(Point::BeforeSettle);
        // Before anything else is written: what is stored or claimed from now on waits.
        pause_channels(connection, pauses).await?;
        let mut settled = self.mark_sent(connection, &sent).await?;
        settled.extend(self.mark_failed(connection, &failed).await?);
        settled.extend(self.leave(connection, &unproven).await?);
        // Afterwards: so what failed comes before what was to follow it.
        pause_conversations(connection, pair_pauses).await?;
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
        sent: &[Sent<'_>],
    ) -> sqlx::Result<Vec<Settled>> {
        if sent.is_empty() {
            return Ok(Vec::new());
        }
        let accepted: Vec<Accepted<'_>> = sent.iter().map(Sent::accepted).collect();
        let settled = store::mark_sent(connection, &accepted).await?;
        crash::point(Point::AfterSettle);
        confirm(connection, &settled).await?;
        let conversation_ids = sent.iter().map(|sent| sent.lease.conversation_id);
        self.release(connection, conversation_ids).await?;
        let keyless: Vec<&Sent<'_>> = sent.iter().filter(|sent| sent.is_keyless).collect();
        if !keyless.is_empty() {
            self.after_keyless(connection, &keyless, &settled).await?;
        }
        Ok(settled)
    }

    /// What follows an acceptance by a provider that tells more of a message later.
    async fn after_keyless(
        &self,
        connection: &mut PgConnection,
        sent: &[&Sent<'_>],
        settled: &[Settled],
    ) -> sqlx::Result<()> {
        let accepted: Vec<Accepted<'_>> = sent.iter().map(|sent| sent.accepted()).collect();
        doubles::bind(connection, &accepted, settled).await?;
        let ids: Vec<&str> = accepted.iter().map(|it| it.provider_message_id).collect();
        amendment::apply(connection, &ids).await?;
        let now = Utc::now();
        let answers = sent.iter().filter_map(|sent| {
            let told = sent.recipient.number.as_deref()?;
            Some((sent.address(), told, now))
        });
        let answers: Vec<(&str, &str, DateTime<Utc>)> = answers.collect();
        alias::learn(connection, &answers).await?;
        let mut channels: Vec<Channel> = sent.iter().map(|sent| sent.channel()).collect();
        channels.dedup();
        if hold::lift(connection, &channels).await? {
            self.wake.notify_one();
        }
        Ok(())
    }

    async fn mark_failed(
        &self,
        connection: &mut PgConnection,
        failed: &[Failed<'_>],
    ) -> sqlx::Result<Vec<Settled>> {
        if failed.is_empty() {
            return Ok(Vec::new());
        }
        let settled = store::mark_failed(connection, failed).await?;
        crash::point(Point::AfterSettle);
        confirm(connection, &settled).await?;
        let parked = failed.iter().filter(|failed| failed.next == Next::Park);
        let conversation_ids = parked.map(|failed| failed.lease.conversation_id);
        self.release(connection, conversation_ids).await?;
        Ok(settled)
    }

    async fn leave(
        &self,
        connection: &mut PgConnection,
        leases: &[&Lease],
    ) -> sqlx::Result<Vec<Settled>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let settled = store::leave(connection, leases).await?;
        confirm(connection, &settled).await?;
        let conversation_ids = leases.iter().map(|lease| lease.conversation_id);
        self.release(connection, conversation_ids).await?;
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
        match longest.entry(pause.channel) {
            Entry::Vacant(first) => {
                first.insert(pause);
            }
            Entry::Occupied(known) => {
                let known = known.into_mut();
                known.wait = known.wait.max(pause.wait);
                known.held_token = known.held_token.take().or(pause.held_token);
            }
        }
    }
    if longest.is_empty() {
        return Ok(());
    }
    let pauses: Vec<Pause> = longest.into_values().collect();
    for paused in channel::store::pause(connection, &pauses).await? {
        let (channel, until) = (paused.channel.as_str(), paused.until);
        if paused.is_held {
            tracing::error!(channel, %until, "a channel is held: its token or its account is at fault; one message tries it every 15 minutes, and at once after a start with another token or an operator's retry");
        } else {
            tracing::warn!(channel, %until, "a channel is paused: the provider has answered 429");
        }
    }
    Ok(())
}

/// Leaves each participant alone for so long.
async fn pause_conversations(
    connection: &mut PgConnection,
    pauses: HashMap<ConversationId, Duration>,
) -> sqlx::Result<()> {
    if pauses.is_empty() {
        return Ok(());
    }
    let pauses: Vec<(ConversationId, Duration)> = pauses.into_iter().collect();
    for paused in store::pause_conversations(connection, &pauses).await? {
        let (conversation_id, until) = (paused.conversation_id, paused.until);
        tracing::warn!(%conversation_id, %until, "a conversation is paused: too many messages to one participant");
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
