//! What can be done with outbound messages: send, retry, cancel, find.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::enqueue::{Enqueue, Enqueued};
use super::permits::{SendPermit, SendPermits};
use super::request::Asked;
use super::{Dialect, Message, NewMessage, Outbound, Status, content, store};
use crate::alias;
use crate::caller::Caller;
use crate::channel::Channel;
use crate::crash::{self, Point};
use crate::database;
use crate::database::pool::Pool;
use crate::database::writer::{Writer, overloaded};
use crate::delivery::attempt::Courier;
use crate::delivery::store::Settled;
use crate::delivery::{self, Claimed, DeliveryPolicy, Lease};
use crate::error::{Error, Result};
use crate::id::{ConversationId, MessageId};
use crate::provider::Outgoing;
use crate::trace;

/// Stores messages and begins their first attempts. What changes something runs to its end, also
/// when the caller hangs up.
#[derive(Debug)]
pub struct Outbox {
    /// Reads, retries and cancellations.
    pub pool: Pool,
    /// Stores messages.
    pub enqueue: Writer<Enqueue>,
    /// One for each first attempt in flight, and for what waits to be stored.
    pub permits: SendPermits,
    /// How long a send waits for its first attempt.
    pub send_wait: Duration,
    /// Makes the first attempts.
    pub courier: Arc<Courier>,
}

/// A request's record.
#[derive(Debug)]
pub struct SendAnswer {
    /// The message as it is now.
    pub message: Message,
    /// Whether an earlier request with the same key made it.
    pub replayed: bool,
    /// Whether this request asked for something else than that one.
    pub mismatch: bool,
}

/// What the answer to a send waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// That the message is stored.
    Commit,
    /// That its first attempt has ended, for at most `SEND_WAIT_MS`.
    Attempt,
}

type FirstAttempt = JoinHandle<Result<Option<Settled>>>;

impl Outbox {
    /// Stores a message and begins the first attempt, which goes on where nobody waits for it.
    ///
    /// # Errors
    /// `Taken`: the record with this key is none that the caller may see. Where there is none:
    /// `NotConnected`, `ParticipantChanged` or `Unanswerable`.
    pub async fn send(
        self: &Arc<Self>,
        caller: &Caller,
        asked: Asked,
        wait_for: WaitFor,
    ) -> Result<SendAnswer> {
        let stored = Arc::clone(self).store(caller.clone(), asked);
        let stored = self.courier.tasks.run(stored).await?;
        let (mut sent, first_attempt) = stored?;
        let Some(first_attempt) = first_attempt.filter(|_| wait_for == WaitFor::Attempt) else {
            return Ok(sent);
        };
        match timeout(self.send_wait, first_attempt).await {
            Ok(Ok(Ok(Some(settled)))) if !settled.is_told => sent.message.settle(settled),
            Ok(Ok(Ok(_))) => {
                // If it cannot be read now, the answer is how it was when it was stored.
                if let Ok(Some(message)) = store::find(&self.pool, sent.message.id).await {
                    sent.message = message;
                }
            }
            // Still in flight, or left to its lease: the record says PENDING, and that is true.
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => {}
        }
        Ok(sent)
    }

    /// What the provider of a channel understands; none: the channel has none.
    #[must_use]
    pub fn dialect(&self, channel: Channel) -> Option<Dialect> {
        let providers = &self.courier.providers;
        if providers.is_whatsapp(channel) {
            return Some(Dialect::Whatsapp);
        }
        providers.has(channel).then_some(Dialect::MockMeta)
    }

    async fn store(
        self: Arc<Self>,
        caller: Caller,
        asked: Asked,
    ) -> Result<(SendAnswer, Option<FirstAttempt>)> {
        let queued = self.permits.queue(&caller);
        let queued = queued.ok_or_else(overloaded::<Enqueue>)?;
        let outbound = match self.resolve(&asked).await {
            Ok(outbound) => Arc::new(outbound),
            // What was asked for before is answered as it is, whatever has become of its recipient.
            Err(refusal) => {
                let known = self.known(&asked.outbound).await?.ok_or(refusal)?;
                let participant_id = &asked.outbound.participant_id;
                return Ok((replay(&caller, known, &asked, participant_id)?, None));
            }
        };
        let permit = self
            .permits
            .take(&caller, outbound.channel, &outbound.participant_id);
        let token = permit.as_ref().map(|_| Uuid::now_v7());
        let asked_at = Instant::now();
        let enqueued = self
            .enqueue
            .submit(NewMessage {
                id: MessageId::new(),
                conversation_id: ConversationId::new(),
                outbound: Arc::clone(&outbound),
                sent_by: caller.key_name().cloned(),
                lease_token: token,
                traceparent: trace::traceparent(),
            })
            .await?;
        drop(queued);
        crash::point(Point::AfterAccept);
        log(&caller, &enqueued);
        let message = enqueued.message;
        if !enqueued.new {
            let known = replay(&caller, message, &asked, &outbound.participant_id)?;
            return Ok((known, None));
        }
        let first_attempt = match (permit, enqueued.lease_token) {
            (Some(permit), Some(token)) => {
                let outgoing = Outgoing {
                    message_id: message.id,
                    outbound,
                };
                let claimed = Claimed::first(outgoing, message.conversation_id);
                let lease = Lease::new(claimed, token, asked_at, &self.courier.policy);
                Some(self.start_attempt(lease, permit))
            }
            _ => None,
        };
        let sent = SendAnswer {
            message,
            replayed: false,
            mismatch: false,
        };
        Ok((sent, first_attempt))
    }

    /// The message with what only the database knows: whom the recipient's id leads to, and what the
    /// provider calls the message that is answered.
    async fn resolve(&self, asked: &Asked) -> Result<Outbound> {
        let mut outbound = asked.outbound.clone();
        let channel = outbound.channel;
        match self.dialect(channel) {
            None => return Err(Error::NotConnected(channel.as_str())),
            Some(Dialect::MockMeta) => return Ok(outbound),
            Some(Dialect::Whatsapp) => {}
        }
        let route = alias::resolve_send(&self.pool, &outbound.participant_id).await?;
        let route = route.map_err(|_| Error::ParticipantChanged)?;
        outbound.participant_id = route.participant_id;
        outbound.address = route.address;
        if let Some(id) = asked.reply_to {
            let answered = store::find(&self.pool, id).await?.filter(|message| {
                message.channel == channel && message.participant_id == outbound.participant_id
            });
            let provider_message_id = answered.and_then(|message| message.provider_message_id);
            outbound.reply_to = Some(provider_message_id.ok_or(Error::Unanswerable)?);
            outbound.reply_to_id = Some(id);
        }
        Ok(outbound)
    }

    /// The record that has this message's key.
    async fn known(&self, outbound: &Outbound) -> Result<Option<Message>> {
        let Some(key) = &outbound.client_message_id else {
            return Ok(None);
        };
        let known = store::find_by_key(&self.pool, outbound.channel, key).await?;
        if known.is_some() {
            database::store::confirm(&self.pool).await?;
        }
        Ok(known)
    }

    fn start_attempt(&self, lease: Lease, permit: SendPermit) -> FirstAttempt {
        let courier = Arc::clone(&self.courier);
        self.courier.tasks.spawn(async move {
            let ended = courier.attempt(lease).await;
            drop(permit);
            ended
        })
    }

    /// Makes a failed message due now, with a fresh budget of attempts. Changes nothing while an
    /// attempt is in flight.
    ///
    /// # Errors
    /// `NotFound`, `NotFailed`, or `Ambiguous`: it may arrive twice, and that was not asked for.
    pub async fn retry(
        self: &Arc<Self>,
        caller: &Caller,
        id: MessageId,
        may_repeat: MayRepeat,
    ) -> Result<Message> {
        if caller.only_sender().is_some() {
            self.find(caller, id).await?;
        }
        let task = Arc::clone(self);
        let keyless = self.courier.providers.keyless();
        let held = (may_repeat == MayRepeat::No).then_some(keyless);
        let requeued = async move {
            let policy = &task.courier.policy;
            let requeued = requeue(&task.pool, policy, &[id], held).await?;
            task.courier.wake.notify_one();
            for row in &requeued {
                tracing::info!(message_id = %row.message_id, conversation_id = %row.conversation_id, "made due again");
            }
            Ok::<_, Error>(requeued)
        };
        let requeued = self.courier.tasks.run(requeued).await??;
        let message = self.find(caller, id).await?;
        if !requeued.is_empty() {
            return Ok(message);
        }
        let state = delivery::store::find(&self.pool, id, keyless).await?;
        let is_leased = state.as_ref().is_some_and(|state| state.leased);
        if message.status != Status::Failed && !is_leased {
            return Err(Error::NotFailed);
        }
        let is_unsure = state.is_some_and(|state| state.unsure);
        if is_unsure && may_repeat == MayRepeat::No && !is_leased {
            return Err(Error::Ambiguous);
        }
        if !is_leased {
            // It is due already: nothing but a channel that is held may keep it.
            let task = Arc::clone(self);
            let tried = async move {
                delivery::hold::try_now(&task.pool, &[id]).await?;
                task.courier.wake.notify_one();
                Ok::<_, Error>(())
            };
            self.courier.tasks.run(tried).await??;
        }
        database::store::confirm(&self.pool).await?;
        Ok(message)
    }

    /// Ends the attempts at a message that waits for one. One that has failed for good stays as it
    /// is.
    ///
    /// # Errors
    /// `NotFound`; `NotCancelable` when it is sent, or an attempt is in flight.
    pub async fn cancel(self: &Arc<Self>, caller: &Caller, id: MessageId) -> Result<Message> {
        if caller.only_sender().is_some() {
            self.find(caller, id).await?;
        }
        let task = Arc::clone(self);
        let canceled = async move {
            let keyless = task.courier.providers.keyless();
            let conversation_id = delivery::store::cancel(&task.pool, id, keyless).await?;
            if let Some(conversation_id) = conversation_id {
                release(&task.pool, &task.courier.policy, &[conversation_id]).await?;
                task.courier.wake.notify_one();
                tracing::info!(message_id = %id, %conversation_id, "canceled");
            }
            Ok::<_, Error>(conversation_id.is_some())
        };
        let canceled = self.courier.tasks.run(canceled).await??;
        let message = self.find(caller, id).await?;
        if canceled {
            return Ok(message);
        }
        match delivery::store::find(&self.pool, id, &[]).await? {
            Some(state) if state.parked => {
                database::store::confirm(&self.pool).await?;
                Ok(message)
            }
            _ => Err(Error::NotCancelable),
        }
    }

    /// One message.
    ///
    /// # Errors
    /// `NotFound`, also where the caller may not see it.
    pub async fn find(&self, caller: &Caller, id: MessageId) -> Result<Message> {
        store::find(&self.pool, id)
            .await?
            .filter(|message| caller.may_see(message.sent_by.as_deref()))
            .ok_or(Error::NotFound("message"))
    }
}

/// Whether a message that the provider may have accepted is sent again, where the provider cannot
/// tell that it is the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayRepeat {
    /// Whoever asks takes the risk.
    Yes,
    /// It stays as it is.
    No,
}

/// Gives those of these messages that have failed a fresh budget and makes them due, or puts them
/// at the end of their conversation's order; returns which those are. Where the channels are given
/// whose provider knows no idempotency key, what it may have accepted stays as it is.
pub async fn requeue(
    pool: &Pool,
    policy: &DeliveryPolicy,
    ids: &[MessageId],
    keyless: Option<&[Channel]>,
) -> Result<Vec<delivery::store::Requeued>> {
    let max_wait = if policy.ordered {
        policy.max_wait_seconds
    } else {
        0.0
    };
    let requeued = delivery::store::requeue(pool, ids, max_wait, keyless).await?;
    let conversation_ids: Vec<_> = requeued.iter().map(|row| row.conversation_id).collect();
    release(pool, policy, &conversation_ids).await?;
    let message_ids: Vec<_> = requeued.iter().map(|row| row.message_id).collect();
    if !message_ids.is_empty() {
        delivery::hold::try_now(pool, &message_ids).await?;
    }
    Ok(requeued)
}

async fn release(
    pool: &Pool,
    policy: &DeliveryPolicy,
    conversation_ids: &[ConversationId],
) -> Result<()> {
    if policy.ordered && !conversation_ids.is_empty() {
        let mut pooled = pool.acquire().await?;
        let released = delivery::store::release(pooled.connection()?, conversation_ids).await;
        pooled.ended(&released);
        released?;
    }
    Ok(())
}

/// The answer to a request whose key is known.
fn replay(
    caller: &Caller,
    message: Message,
    asked: &Asked,
    participant_id: &str,
) -> Result<SendAnswer> {
    if !caller.may_see(message.sent_by.as_deref()) {
        return Err(Error::Taken);
    }
    let outbound = &asked.outbound;
    // The recipient may have had another id when it was stored.
    let is_to = [participant_id, &outbound.participant_id].contains(&&*message.participant_id);
    let is_same = is_to
        && message.kind == outbound.kind
        && message.text == outbound.text
        && message.reply_to_id == asked.reply_to
        && content::is_same(message.content.as_deref(), outbound.content.as_deref());
    Ok(SendAnswer {
        message,
        replayed: true,
        mismatch: !is_same,
    })
}

/// What a key has changed is in the log.
fn log(caller: &Caller, enqueued: &Enqueued) {
    let message_id = enqueued.message.id;
    let conversation_id = enqueued.message.conversation_id;
    let new = enqueued.new;
    let leased = enqueued.lease_token.is_some();
    if new && caller.key_index().is_some() {
        tracing::info!(%message_id, %conversation_id, leased, "accepted");
    } else {
        tracing::debug!(%message_id, %conversation_id, new, leased, "accepted");
    }
}
