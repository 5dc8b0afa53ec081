//! What can be done with outbound messages: send, retry, cancel. Each verb runs to its end, also when the caller hangs up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::place::Place;
use super::store::{self, Terms};
use super::{Direction, Message, MessageId, Status};
use crate::app::App;
use crate::caller::Caller;
use crate::conversation::{Channel, ConversationId};
use crate::crash::{self, Point};
use crate::database;
use crate::database::batch::{Batch, overloaded};
use crate::database::fault::Said;
use crate::database::plans::Work;
use crate::database::pool::Pool;
use crate::delivery::{self, Ended, Lease, attempt};
use crate::error::{Error, Result};
use crate::provider::Outgoing;
use crate::trace;

/// A validated request to send.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Where to.
    pub channel: Channel,
    /// To whom.
    pub participant_id: String,
    /// What.
    pub text: String,
    /// The caller's idempotency key.
    pub client_message_id: Option<String>,
}

/// An outbound message, with the ids and the lease that it gets if its key is new.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Its id.
    pub id: MessageId,
    /// The conversation's id, if the participant is new.
    pub conversation_id: ConversationId,
    /// Where to.
    pub channel: Channel,
    /// To whom.
    pub participant_id: String,
    /// What.
    pub text: String,
    /// The caller's idempotency key.
    pub client_message_id: Option<String>,
    /// The name of the key that sends it.
    pub sent_by: Option<Arc<str>>,
    /// Who makes the first attempt at once; none: it is due for a worker.
    pub lease_token: Option<Uuid>,
    /// The trace that it is accepted in, for attempts that others make.
    pub traceparent: Option<String>,
}

/// A request's record.
#[derive(Debug)]
pub struct Sent {
    /// The message as it is now.
    pub message: Message,
    /// Whether an earlier request with the same key made it.
    pub replayed: bool,
    /// Whether this request asked for something else than that one.
    pub mismatch: bool,
}

/// Stores a message and makes the first attempt; answers after it has ended, or after `SEND_WAIT_MS` while it goes on.
///
/// # Errors
/// `Taken`: the record with this key is none that the caller may see.
pub async fn send(app: &Arc<App>, caller: &Caller, outbound: Outbound) -> Result<Sent> {
    let accepted = accept(Arc::clone(app), caller.clone(), outbound);
    let accepted = app.run(accepted).await?;
    let (mut sent, first_attempt) = accepted?;
    let Some(first_attempt) = first_attempt else {
        return Ok(sent);
    };
    match timeout(app.send_wait, first_attempt).await {
        Ok(Ok(Ok(Ended::Superseded))) => {
            // If it cannot be read now, the answer is how it was when it was accepted.
            if let Ok(Some(message)) = store::find(&app.pool, sent.message.id).await {
                sent.message = message;
            }
        }
        Ok(Ok(Ok(ended))) => apply(&mut sent.message, ended),
        // Still in flight, or left to its lease: the record says PENDING, and that is true.
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => {}
    }
    Ok(sent)
}

type FirstAttempt = JoinHandle<Result<Ended>>;

async fn accept(
    app: Arc<App>,
    caller: Caller,
    outbound: Outbound,
) -> Result<(Sent, Option<FirstAttempt>)> {
    let queued = app.places.queue(&caller);
    let queued = queued.ok_or_else(overloaded::<Accept>)?;
    let Outbound {
        channel,
        participant_id,
        text,
        client_message_id,
    } = outbound;
    let place = app.places.take(&caller, channel, &participant_id);
    let token = place.as_ref().map(|_| Uuid::now_v7());
    let asked_at = Instant::now();
    let acceptance = app
        .accept
        .submit(NewMessage {
            id: MessageId::new(),
            conversation_id: ConversationId::new(),
            channel,
            participant_id: participant_id.clone(),
            text: text.clone(),
            client_message_id,
            sent_by: caller.name().cloned(),
            lease_token: token,
            traceparent: trace::traceparent(),
        })
        .await?;
    drop(queued);
    crash::point(Point::AfterAccept);
    log(&caller, &acceptance);
    let message = acceptance.message;
    let replayed = !acceptance.new;
    if replayed && !caller.sees(message.sent_by.as_deref()) {
        return Err(Error::Taken);
    }
    let first_attempt = match (place, acceptance.lease_token) {
        (Some(place), Some(token)) => {
            let lease = Lease {
                outgoing: Outgoing {
                    message_id: message.id,
                    channel,
                    participant_id: participant_id.clone(),
                    text: text.clone(),
                    client_message_id: message.client_message_id.clone(),
                },
                conversation_id: message.conversation_id,
                token,
                expires_at: asked_at + Duration::from_secs_f64(app.terms.lease_seconds),
                attempt: 1,
                failures: 0,
                traceparent: None,
            };
            Some(begin(&app, lease, place))
        }
        _ => None,
    };
    let sent = Sent {
        mismatch: replayed && (message.participant_id != participant_id || message.text != text),
        message,
        replayed,
    };
    Ok((sent, first_attempt))
}

/// What a key has changed is in the log.
fn log(caller: &Caller, acceptance: &Acceptance) {
    let message_id = acceptance.message.id;
    let conversation_id = acceptance.message.conversation_id;
    let new = acceptance.new;
    let leased = acceptance.lease_token.is_some();
    if new && caller.place().is_some() {
        tracing::info!(%message_id, %conversation_id, leased, "accepted");
    } else {
        tracing::debug!(%message_id, %conversation_id, new, leased, "accepted");
    }
}

fn begin(app: &Arc<App>, lease: Lease, place: Place) -> FirstAttempt {
    let task = Arc::clone(app);
    app.run_detached(async move {
        let ended = attempt(&task, lease).await;
        drop(place);
        ended
    })
}

fn apply(message: &mut Message, ended: Ended) {
    match ended {
        Ended::Sent {
            provider_message_id,
            at,
        } => {
            message.status = Status::Sent;
            message.provider_message_id = Some(provider_message_id);
            message.sent_at = Some(at);
            message.updated_at = at;
        }
        Ended::Failed {
            failure,
            next_attempt_at,
            retry_count,
            at,
        } => {
            message.status = Status::Failed;
            message.next_attempt_at = next_attempt_at;
            message.retry_count = retry_count;
            message.error_kind = Some(failure.kind);
            message.error_http_status = failure.http_status.map(i32::from);
            message.error_detail = Some(failure.detail);
            message.error_retryable = Some(failure.retryable);
            message.error_ambiguous = Some(failure.ambiguous);
            message.updated_at = at;
        }
        Ended::Superseded => {}
    }
}

/// Makes a failed message due now, with a fresh budget of attempts; nothing changes while an attempt is in flight.
///
/// # Errors
/// `NotFound`, or `NotFailed`.
pub async fn retry(app: &Arc<App>, caller: &Caller, id: MessageId) -> Result<Message> {
    if caller.only().is_some() {
        find(app, caller, id).await?;
    }
    let task = Arc::clone(app);
    let requeued = async move {
        let requeued = requeue(&task.pool, &task.terms, &[id]).await?;
        task.wake.notify_one();
        for row in &requeued {
            tracing::info!(message_id = %row.message_id, conversation_id = %row.conversation_id, "made due again");
        }
        Ok::<_, Error>(requeued)
    };
    let requeued = app.run(requeued).await??;
    let message = find(app, caller, id).await?;
    if !requeued.is_empty() {
        return Ok(message);
    }
    let is_due = message.status == Status::Failed
        || delivery::store::find(&app.pool, id)
            .await?
            .is_some_and(|standing| standing.leased);
    if !is_due {
        return Err(Error::NotFailed);
    }
    database::store::confirm(&app.pool).await?;
    Ok(message)
}

/// Gives those of these messages that have failed a fresh budget and makes them due, or puts them at the end of their
/// conversation's order; returns which those are.
pub async fn requeue(
    pool: &Pool,
    terms: &Terms,
    ids: &[MessageId],
) -> Result<Vec<delivery::store::Requeued>> {
    let max_wait = if terms.ordered {
        terms.max_wait_seconds
    } else {
        0.0
    };
    let requeued = delivery::store::requeue(pool, ids, max_wait).await?;
    let conversation_ids: Vec<_> = requeued.iter().map(|row| row.conversation_id).collect();
    release(pool, terms, &conversation_ids).await?;
    Ok(requeued)
}

/// Ends the attempts at a message that waits for one. One that has ended already is answered as it is.
///
/// # Errors
/// `NotFound`; `NotCancelable` when it is sent, or an attempt is in flight.
pub async fn cancel(app: &Arc<App>, caller: &Caller, id: MessageId) -> Result<Message> {
    if caller.only().is_some() {
        find(app, caller, id).await?;
    }
    let task = Arc::clone(app);
    let canceled = async move {
        let conversation_id = delivery::store::cancel(&task.pool, id).await?;
        if let Some(conversation_id) = conversation_id {
            release(&task.pool, &task.terms, &[conversation_id]).await?;
            task.wake.notify_one();
            tracing::info!(message_id = %id, %conversation_id, "canceled");
        }
        Ok::<_, Error>(conversation_id.is_some())
    };
    let canceled = app.run(canceled).await??;
    let message = find(app, caller, id).await?;
    if canceled {
        return Ok(message);
    }
    match delivery::store::find(&app.pool, id).await? {
        Some(standing) if standing.parked => {
            database::store::confirm(&app.pool).await?;
            Ok(message)
        }
        _ => Err(Error::NotCancelable),
    }
}

/// One message.
///
/// # Errors
/// `NotFound`, also where the caller may not see it.
pub async fn find(app: &App, caller: &Caller, id: MessageId) -> Result<Message> {
    store::find(&app.pool, id)
        .await?
        .filter(|message| caller.sees(message.sent_by.as_deref()))
        .ok_or(Error::NotFound("message"))
}

async fn release(pool: &Pool, terms: &Terms, conversation_ids: &[ConversationId]) -> Result<()> {
    if terms.ordered && !conversation_ids.is_empty() {
        let mut pooled = pool.acquire().await?;
        let released = delivery::store::release(pooled.connection()?, conversation_ids).await;
        pooled.ended(&released);
        released?;
    }
    Ok(())
}

/// The batch of messages to be accepted.
#[derive(Debug)]
pub struct Accept {
    /// How they are delivered.
    pub terms: Terms,
    /// Wakes this process's worker.
    pub wake: Arc<Notify>,
}

/// A message's record, and what its caller has to do with it.
#[derive(Debug)]
pub struct Acceptance {
    /// The record.
    pub message: Message,
    /// Whether this caller made it.
    pub new: bool,
    /// The lease under which this caller makes the first attempt.
    pub lease_token: Option<Uuid>,
}

impl Batch for Accept {
    type Item = NewMessage;
    type Answer = Acceptance;
    const NAME: &'static str = "accept";
    const WORK: Work = Work::InputBatches;
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));

    async fn write(
        &self,
        connection: &mut PgConnection,
        messages: &[&NewMessage],
    ) -> sqlx::Result<Vec<Acceptance>> {
        let accepted: HashMap<MessageId, store::Accepted> =
            store::accept(connection, messages, &self.terms)
                .await?
                .into_iter()
                .map(|row| (row.id, row))
                .collect();
        let mut known = self.known(connection, messages, &accepted).await?;
        let claimed = self.claim(connection, &accepted).await;
        let answers: sqlx::Result<Vec<Acceptance>> = messages
            .iter()
            .map(|message| {
                let mut acceptance = accepted
                    .get(&message.id)
                    .map(|row| created(message, row))
                    .or_else(|| known.remove(&message.id))
                    .ok_or(sqlx::Error::RowNotFound)?;
                if claimed.message_ids.contains(&message.id) {
                    acceptance.lease_token = Some(claimed.token);
                }
                Ok(acceptance)
            })
            .collect();
        let answers = answers?;
        let idle = |answer: &&Acceptance| answer.new && answer.lease_token.is_none();
        let waiting: Vec<ConversationId> = answers
            .iter()
            .filter(idle)
            .map(|answer| answer.message.conversation_id)
            .collect();
        if !waiting.is_empty() {
            if self.terms.ordered {
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

impl Accept {
    /// Claims as much of what was born due as may be called at this moment, where that is why it was. What is not claimed is
    /// accepted all the same: a worker sends it.
    async fn claim(
        &self,
        connection: &mut PgConnection,
        accepted: &HashMap<MessageId, store::Accepted>,
    ) -> Claimed {
        let claimable: Vec<MessageId> = accepted
            .values()
            .filter(|row| row.claimable)
            .map(|row| row.id)
            .collect();
        let token = Uuid::now_v7();
        let mut message_ids = HashSet::new();
        if !claimable.is_empty() {
            let limit = i64::try_from(claimable.len()).unwrap_or(i64::MAX);
            let claim =
                delivery::store::claim_only(connection, &claimable, limit, token, &self.terms);
            match claim.await {
                Ok(rows) => message_ids.extend(rows.into_iter().map(|row| row.message_id)),
                Err(error) => {
                    tracing::warn!(messages = claimable.len(), error = %Said(&error), "what was accepted could not be claimed at once");
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
        accepted: &HashMap<MessageId, store::Accepted>,
    ) -> sqlx::Result<HashMap<MessageId, Acceptance>> {
        let asked: Vec<&NewMessage> = messages
            .iter()
            .filter(|message| !accepted.contains_key(&message.id))
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
            let acceptance = Acceptance {
                message: records.get(&row.id)?.clone(),
                // Its own id: the answer was lost, and this is the batch sent again.
                new: row.id == asker.id,
                lease_token: asker.lease_token.filter(|_| row.leased),
            };
            Some((asker.id, acceptance))
        };
        Ok(replayed.into_iter().filter_map(answer).collect())
    }
}

fn created(message: &NewMessage, row: &store::Accepted) -> Acceptance {
    let created_at = row.created_at;
    Acceptance {
        message: Message {
            id: message.id,
            conversation_id: row.conversation_id,
            channel: message.channel,
            participant_id: message.participant_id.clone(),
            direction: Direction::Outbound,
            text: message.text.clone(),
            status: Status::Pending,
            client_message_id: message.client_message_id.clone(),
            sent_by: message.sent_by.as_deref().map(str::to_owned),
            provider_message_id: None,
            retry_count: 0,
            next_attempt_at: None,
            error_kind: None,
            error_http_status: None,
            error_detail: None,
            error_retryable: None,
            error_ambiguous: None,
            timestamp: created_at,
            sort_at: created_at,
            created_at,
            updated_at: created_at,
            sent_at: None,
        },
        new: true,
        lease_token: message.lease_token.filter(|_| row.leased),
    }
}
