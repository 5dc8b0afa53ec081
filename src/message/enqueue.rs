//! Stores outbound messages, many in one statement, each with its delivery.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Direction, Message, NewMessage, Outbound, Receipt, Status, store};
use crate::database::batch::{Batch, WriteError};
use crate::database::plans::Work;
use crate::delivery::{self, DeliveryPolicy};
use crate::error::fault::ErrorText;
use crate::id::{ConversationId, MessageId};

/// The batch of messages to be stored.
#[derive(Debug)]
pub struct Enqueue {
    /// How they are delivered.
    pub policy: DeliveryPolicy,
    /// Wakes this process's worker.
    pub wake: Arc<Notify>,
}

/// A message's record, and what its caller has to do with it.
#[derive(Debug)]
pub struct Enqueued {
    /// The record.
    pub message: Message,
    /// Whether this caller made it.
    pub new: bool,
    /// The lease under which this caller makes the first attempt.
    pub lease_token: Option<Uuid>,
}

impl Batch for Enqueue {
    type Item = NewMessage;
    type Answer = Enqueued;
    const NAME: &'static str = "accept";
    const WORK: Work = Work::InputBatches;
    const RETRY_FOR: Option<Duration> = Some(Duration::from_secs(5));

    async fn write(
        &self,
        connection: &mut PgConnection,
        messages: &[&NewMessage],
    ) -> Result<Vec<Enqueued>, WriteError> {
        let stored: HashMap<MessageId, store::Stored> =
            store::enqueue(connection, messages, &self.policy)
                .await?
                .into_iter()
                .map(|row| (row.id, row))
                .collect();
        let mut known = self.known(connection, messages, &stored).await?;
        let claimed = self.claim(connection, &stored).await;
        let answers: Result<Vec<Enqueued>, WriteError> = messages
            .iter()
            .map(|message| {
                let mut enqueued = stored
                    .get(&message.id)
                    .map(|row| created(message, row))
                    .or_else(|| known.remove(&message.id))
                    .ok_or(WriteError::NoAnswer)?;
                if claimed.message_ids.contains(&message.id) {
                    enqueued.lease_token = Some(claimed.token);
                }
                Ok(enqueued)
            })
            .collect();
        let answers = answers?;
        let idle = |answer: &&Enqueued| answer.new && answer.lease_token.is_none();
        let waiting: Vec<ConversationId> = answers
            .iter()
            .filter(idle)
            .map(|answer| answer.message.conversation_id)
            .collect();
        if !waiting.is_empty() {
            if self.policy.ordered {
                delivery::store::release(connection, &waiting).await?;
            }
            self.wake.notify_one();
        }
        Ok(answers)
    }
}

/// What was leased at once although its channel's calls are spread.
struct Claimed {
    token: Uuid,
    message_ids: HashSet<MessageId>,
}

impl Enqueue {
    /// Claims what was stored without a lease only because its channel's calls are spread, as much
    /// as may be called now. A worker sends the rest.
    async fn claim(
        &self,
        connection: &mut PgConnection,
        stored: &HashMap<MessageId, store::Stored>,
    ) -> Claimed {
        let claimable: Vec<MessageId> = stored
            .values()
            .filter(|row| row.claimable)
            .map(|row| row.id)
            .collect();
        let token = Uuid::now_v7();
        let mut message_ids = HashSet::new();
        if !claimable.is_empty() {
            let limit = i64::try_from(claimable.len()).unwrap_or(i64::MAX);
            let claim =
                delivery::store::claim_only(connection, &claimable, limit, token, &self.policy);
            match claim.await {
                Ok(rows) => {
                    message_ids.extend(rows.into_iter().map(|row| row.outgoing.message_id));
                }
                Err(error) => {
                    tracing::warn!(messages = claimable.len(), error = %ErrorText(&error), "claim of stored messages failed, a worker sends them");
                }
            }
        }
        Claimed { token, message_ids }
    }

    /// The records that were there before, by the id that the caller would have had.
    async fn known(
        &self,
        connection: &mut PgConnection,
        messages: &[&NewMessage],
        stored: &HashMap<MessageId, store::Stored>,
    ) -> sqlx::Result<HashMap<MessageId, Enqueued>> {
        let asked: Vec<&NewMessage> = messages
            .iter()
            .filter(|message| !stored.contains_key(&message.id))
            .copied()
            .collect();
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let replayed = store::find_replayed(connection, &asked).await?;
        let ids: Vec<MessageId> = replayed.iter().map(|row| row.id).collect();
        let records: HashMap<MessageId, Message> = store::list_by_id(&mut *connection, &ids)
            .await?
            .into_iter()
            .map(|message| (message.id, message))
            .collect();
        let answer = |row: store::Replayed| {
            let asker = asked.get(usize::try_from(row.place - 1).ok()?)?;
            let enqueued = Enqueued {
                message: records.get(&row.id)?.clone(),
                // Its own id: the answer was lost, and this is the batch sent again.
                new: row.id == asker.id,
                lease_token: asker.lease_token.filter(|_| row.leased),
            };
            Some((asker.id, enqueued))
        };
        Ok(replayed.into_iter().filter_map(answer).collect())
    }
}

/// The record of a message that was stored a moment ago. It is made here from what was handed in:
/// the statement would send every text back over the socket, and the rest of it is known.
fn created(message: &NewMessage, row: &store::Stored) -> Enqueued {
    let Outbound {
        channel,
        participant_id,
        address: _,
        kind,
        text,
        content,
        reply_to,
        reply_to_id,
        client_message_id,
    } = (*message.outbound).clone();
    let created_at = row.created_at;
    Enqueued {
        message: Message {
            id: message.id,
            conversation_id: row.conversation_id,
            channel,
            participant_id,
            direction: Direction::Outbound,
            kind,
            text,
            content,
            reply_to,
            reply_to_id,
            origin: None,
            participant_name: None,
            reactions: None,
            edited_at: None,
            deleted_at: None,
            status: Status::Pending,
            client_message_id,
            sent_by: message.sent_by.as_deref().map(str::to_owned),
            provider_message_id: None,
            retry_count: 0,
            next_attempt_at: None,
            error_kind: None,
            error_http_status: None,
            error_code: None,
            error_detail: None,
            error_retryable: None,
            error_ambiguous: None,
            timestamp: created_at,
            sort_at: created_at,
            created_at,
            updated_at: created_at,
            sent_at: None,
            receipt: Receipt::default(),
            revision: 1,
        },
        new: true,
        lease_token: message.lease_token.filter(|_| row.leased),
    }
}
