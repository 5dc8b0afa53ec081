//! Keeps statuses, many at once, and settles the messages that they are witnesses of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use secrecy::SecretString;
use sqlx::PgConnection;
use tokio::sync::Notify;

use super::recipient::is_recipient;
use super::steps::Steps;
use super::store::{Row, Witnessed};
use super::{Noted, store};
use crate::amendment;
use crate::channel::Channel;
use crate::database;
use crate::database::batch::{Batch, WriteError};
use crate::delivery::store::Accepted;
use crate::delivery::{self, Status, doubles};
use crate::id::MessageId;
use crate::provider::hashed_id;
use crate::provider::whatsapp::events::StatusUpdate;
use crate::provider::whatsapp::opaque;

/// The batch of statuses. Only what was signed by the provider may be handed in.
#[derive(Debug)]
pub struct Receipts {
    /// The app's secrets, one of which signs what each message is sent with.
    pub app_secrets: Vec<SecretString>,
    /// Whether messages of one conversation wait for each other.
    pub ordered: bool,
    /// Wakes this process's worker.
    pub wake: Arc<Notify>,
}

impl Batch for Receipts {
    type Item = StatusUpdate;
    /// What was new once is known when it is written again after a lost answer: that is only
    /// counted.
    type Answer = Noted;
    const NAME: &'static str = "receipts";
    const RETRY_FOR: Option<Duration> = Some(Duration::from_secs(5));

    async fn write(
        &self,
        connection: &mut PgConnection,
        updates: &[&StatusUpdate],
    ) -> Result<Vec<Noted>, WriteError> {
        let mut told: BTreeMap<&str, Steps<'_>> = BTreeMap::new();
        for update in updates {
            told.entry(&update.wamid).or_default().note(update);
        }
        let rows = store::record(connection, &told).await?;
        let (changed, known): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.is_changed);
        if changed.is_empty() {
            database::store::confirm(&mut *connection).await?;
        }
        let mut bound: HashSet<String> = changed
            .iter()
            .chain(&known)
            .filter(|row| row.message_id.is_some())
            .map(|row| row.provider_message_id.clone())
            .collect();
        let noted = noted(updates, &changed, &known);
        let unbound: Vec<&StatusUpdate> = updates
            .iter()
            .copied()
            .filter(|update| !bound.contains(&update.wamid))
            .collect();
        bound.extend(self.settle(connection, &unbound).await?);
        let is_foreign = |(update, noted): &(&&StatusUpdate, &Noted)| {
            **noted == Noted::New && !bound.contains(&update.wamid)
        };
        let foreign = updates.iter().zip(&noted).filter(is_foreign).count();
        counter!("gateway_foreign_statuses_total").increment(foreign as u64);
        Ok(noted)
    }
}

/// What each status was, after those before it.
fn noted(updates: &[&StatusUpdate], changed: &[Row], known: &[Row]) -> Vec<Noted> {
    let changed: HashSet<&str> = changed
        .iter()
        .map(|row| &*row.provider_message_id)
        .collect();
    let before = |row: &Row| Steps {
        sent_at: row.sent_at,
        delivered_at: row.delivered_at,
        read_at: row.read_at,
        played_at: row.played_at,
        failed_at: row.failed_at,
        error_code: row.error_code,
        error: None,
    };
    let mut steps: HashMap<&str, Steps<'_>> = known
        .iter()
        .map(|row| (&*row.provider_message_id, before(row)))
        .collect();
    let mut noted = Vec::with_capacity(updates.len());
    for update in updates {
        let tells_more = steps.entry(&update.wamid).or_default().note(update);
        // Where the row was not changed, another process has just done it.
        let is_new = tells_more && changed.contains(&*update.wamid);
        noted.push(if is_new { Noted::New } else { Noted::Known });
    }
    noted
}

/// A message of ours that a status is a witness of: the provider has accepted it, by this id.
struct Witness<'a> {
    wamid: &'a str,
    message: Witnessed,
}

impl Receipts {
    /// Settles what these statuses are witnesses of, whose ids are of no known message yet. Returns
    /// those that are by now.
    async fn settle(
        &self,
        connection: &mut PgConnection,
        unbound: &[&StatusUpdate],
    ) -> sqlx::Result<Vec<String>> {
        let witnesses = self.find_witnesses(connection, unbound).await?;
        if witnesses.is_empty() {
            return Ok(Vec::new());
        }
        // One id for each message: a second one is bound below, as the double that it is.
        let unsent = witnesses
            .iter()
            .filter(|witness| witness.message.status != Status::Sent);
        let unsent: BTreeMap<MessageId, &Witness<'_>> = unsent
            .rev()
            .map(|witness| (witness.message.message_id, witness))
            .collect();
        if !unsent.is_empty() {
            let accepted: Vec<Accepted<'_>> = unsent
                .iter()
                .map(|(id, witness)| Accepted {
                    message_id: *id,
                    provider_message_id: witness.wamid,
                    is_keyless: true,
                    call_seconds: None,
                })
                .collect();
            for settled in delivery::store::mark_sent(connection, &accepted).await? {
                let message_id = settled.message_id;
                tracing::info!(%message_id, wamid = settled.provider_message_id.as_deref().map(hashed_id), "sent, as a status says");
            }
            self.release(connection, &unsent).await?;
        }
        let ids: Vec<&str> = witnesses.iter().map(|witness| witness.wamid).collect();
        let message_ids: Vec<MessageId> = witnesses.iter().map(|w| w.message.message_id).collect();
        for bound in store::bind(connection, &ids, &message_ids).await? {
            if bound.settled_with != bound.provider_message_id {
                let (first, second) = (&bound.settled_with, &bound.provider_message_id);
                doubles::report(bound.message_id, first, second);
            }
        }
        // What has come about them before they were known.
        amendment::apply(connection, &ids).await?;
        Ok(ids.into_iter().map(str::to_owned).collect())
    }

    /// Those of these statuses that were sent with a value of ours, about a message that was
    /// attempted, and whose recipient is its participant.
    async fn find_witnesses<'a>(
        &self,
        connection: &mut PgConnection,
        unbound: &[&'a StatusUpdate],
    ) -> sqlx::Result<Vec<Witness<'a>>> {
        let signed = unbound.iter().filter_map(|update| {
            let message_id = opaque::read(update.opaque.as_deref()?, &self.app_secrets)?;
            Some((*update, message_id))
        });
        let signed: Vec<(&'a StatusUpdate, MessageId)> = signed.collect();
        if signed.is_empty() {
            return Ok(Vec::new());
        }
        let message_ids: Vec<MessageId> = signed.iter().map(|(_, id)| *id).collect();
        let recipients = || signed.iter().map(|(update, _)| update.recipient.as_ref());
        let numbers: Vec<Option<&str>> = recipients()
            .map(|person| person.and_then(|person| person.number.as_deref()))
            .collect();
        let user_ids: Vec<Option<&str>> = recipients()
            .map(|person| person.and_then(|person| person.user_id.as_deref()))
            .collect();
        let found = store::find_witnessed(
            connection,
            Channel::Whatsapp,
            &message_ids,
            &numbers,
            &user_ids,
        )
        .await?;
        let mut witnesses: Vec<Witness<'a>> = Vec::new();
        for message in found {
            let place = usize::try_from(message.place - 1).unwrap_or(usize::MAX);
            let Some((update, _)) = signed.get(place) else {
                continue;
            };
            let is_known = witnesses.iter().any(|known| known.wamid == update.wamid);
            if !is_known
                && message.was_attempted
                && is_recipient(&message, update.recipient.as_ref())
            {
                witnesses.push(Witness {
                    wamid: &update.wamid,
                    message,
                });
            }
        }
        Ok(witnesses)
    }

    async fn release(
        &self,
        connection: &mut PgConnection,
        sent: &BTreeMap<MessageId, &Witness<'_>>,
    ) -> sqlx::Result<()> {
        if !self.ordered {
            return Ok(());
        }
        let conversations = sent.values().map(|witness| witness.message.conversation_id);
        let conversations: Vec<_> = conversations.collect();
        let released = delivery::store::release(connection, &conversations).await?;
        if !released.is_empty() {
            self.wake.notify_one();
        }
        Ok(())
    }
}
