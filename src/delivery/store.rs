//! The statements of the queue. Only the settling ones, and `cancel`, write `SENT` or `FAILED`.
//!
//! The columns `attempt` and `failures` count claims and failed attempts. They keep their names,
//! since older binaries run beside a newer schema. Here they are called what they count.

mod outcomes;

pub use self::outcomes::{
    Accepted, Failed, Settled, bind, leave, mark_failed, mark_sent, pause_conversations,
    wake_refused,
};

use std::sync::Arc;

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::states::query_states;
use super::{Claimed, DeliveryPolicy, Evidence, Trace};
use crate::channel::{
    BURSTS_PER_SECOND, Channel, LONGEST_RAMP, RAMP_FACTOR, RAMP_START_PER_SECOND, TRIAL_EVERY,
};
use crate::database::pool::Pool;
use crate::id::{ConversationId, MessageId};
use crate::provider::{ErrorKind, Outbound, Outgoing};

/// A statement that leases what `$due` selects of the due deliveries of a channel, `room` of which
/// may be called at this moment.
macro_rules! query_claimed {
    ($head:literal, $due:literal, ($limit:expr, $token:expr, $policy:expr) $(, $argument:expr)*) => {
        sqlx::query!(
            $head
                + r#"-- Locks channels whose calls are spread, by their name, then deliveries, without waiting for them.
with pace as (      -- null: as fast as it goes; numeric, since a long pause to come would be an underflow
  select channel, least($4::float8, case when held_for is not null then $10::float8::numeric   -- one call tries it
    when ramp_until > now() then $5::float8::numeric * pg_catalog.power($6::float8::numeric,
      least(extract(epoch from now() - paused_until), $7::float8::numeric)) end) as per_second
  from channels where channel = any($9::text[])
), spread as (      -- in bursts, and never more than per_second in any second
  select c.channel, c.next_call_at, greatest(floor(p.per_second / $8::float8), 1) as burst, p.per_second
  from channels c join pace p on p.channel = c.channel
  where p.per_second is not null and c.paused_until <= now()
    and (select due_at from deliveries where channel = c.channel and due_at <= now() order by due_at limit 1) is not null   -- fence: ordered
  order by c.channel for update of c
), slot as (        -- the token bucket: when its next call is, and how long each takes of it
  select channel, every, greatest(next_call_at, now() - (burst - 1::float8) * every) as first_at
  from spread cross join lateral (   -- a burst and what follows it are per_second in a second; rounded up
    select interval '1 second' / (per_second - burst + 1::float8) + interval '1 microsecond' as every) e
), room as (
  select channel, $1::bigint as n from pace where per_second is null
  union all
  select channel, least($1::bigint, 1::numeric + floor(extract(epoch from now() - first_at) / extract(epoch from every)))::bigint
  from slot where first_at <= now()
), due as (
  select d.message_id, d.channel from room cross join lateral ("#
                + $due
                + r#") d
  order by d.due_at limit $1::bigint
), taken as (
  update channels c set next_call_at = n.next_call_at
  from (
    select s.channel, s.first_at + s.every * t.n::float8 as next_call_at
    from slot s join (select channel, count(*) as n from due group by channel) t on t.channel = s.channel) n
  where c.channel = n.channel
), leased as (
  update deliveries d set lease_token = $2::uuid, attempt = d.attempt + 1,
    due_at = now() + pg_catalog.make_interval(secs => $3)
  where d.message_id = any(array(select message_id from due))   -- fence: keys
  returning d.message_id, d.attempt as claims, d.failures as failed_attempts, d.spared, d.doubts, d.unsure_since, d.traceparent
)
select m.id as "message_id: MessageId", m.channel as "channel: Channel", m.participant_id, m.address, m.type as kind, m.text,
  m.content, m.reply_to, m.client_message_id, l.claims, l.failed_attempts, l.spared, l.doubts,
  case when l.unsure_since is not null then exists (
    select from receipts where accepted_at > l.unsure_since and received_at is not null and message_id is not null) end as has_evidence,
  m.conversation_id as "conversation_id: ConversationId", l.traceparent
from leased l cross join lateral (select * from messages where id = l.message_id limit 1) m   -- fence: lookup"#,
            $limit,
            $token,
            $policy.lease_seconds,
            $policy.max_per_second,
            RAMP_START_PER_SECOND,
            RAMP_FACTOR,
            LONGEST_RAMP.as_secs_f64(),
            BURSTS_PER_SECOND,
            $policy.channels as &[&str],
            1.0 / TRIAL_EVERY.as_secs_f64()
            $(, $argument)*
        )
        .map(|row| Claimed {
            outgoing: Outgoing {
                message_id: row.message_id,
                outbound: Arc::new(Outbound {
                    channel: row.channel,
                    participant_id: row.participant_id,
                    address: row.address,
                    kind: row.kind,
                    text: row.text,
                    content: row.content,
                    reply_to: row.reply_to,
                    reply_to_id: None,
                    client_message_id: row.client_message_id,
                }),
            },
            conversation_id: row.conversation_id,
            claims: row.claims,
            failed_attempts: row.failed_attempts,
            spared: row.spared,
            doubts: row.doubts,
            evidence: row.has_evidence.map(|has| if has { Evidence::Some } else { Evidence::None }),
            trace: row.traceparent.map_or(Trace::Current, Trace::Carried),
        })
    };
}

/// What a process has in flight of each conversation, and how much of one that may be.
#[derive(Debug)]
pub struct InFlight {
    pub conversation_ids: Vec<ConversationId>,
    /// Attempts in flight of each.
    pub counts: Vec<i64>,
    /// The most of one conversation.
    pub share: i64,
}

/// Leases at most `limit` due deliveries to this token: of each channel no more than may be called
/// now, of each conversation no more than its share. Nobody else holds a valid lease on them. It
/// returns nothing if nothing is due but what has to wait.
pub async fn claim(
    pool: &Pool,
    limit: i64,
    token: Uuid,
    in_flight: &InFlight,
    policy: &DeliveryPolicy,
) -> sqlx::Result<Vec<Claimed>> {
    query_claimed!(
        r#"-- delivery::claim
"#,
        "   -- what is beyond its share is locked, but not written: it is free again at the end
    select message_id, channel, due_at from (
      select f.message_id, f.channel, f.due_at, 
        coalesce(h.n, 0) + row_number() over (partition by f.conversation_id order by f.due_at) as nth
      from (
        select message_id, channel, conversation_id, due_at from deliveries
        where channel = room.channel and due_at <= now()
          and conversation_id <> all(array(select id from unnest($11::uuid[], $12::bigint[]) as full_ones(id, n) where n >= $13))
        order by due_at limit room.n for update skip locked) f
      left join unnest($11::uuid[], $12::bigint[]) as h(id, n) on h.id = f.conversation_id) ranked
    where nth <= $13",
        (limit, token, policy),
        &in_flight.conversation_ids as &[ConversationId],
        &in_flight.counts,
        in_flight.share
    )
    .fetch_all(pool)
    .await
}

/// The same of these deliveries only.
pub async fn claim_only(
    connection: impl PgExecutor<'_>,
    message_ids: &[MessageId],
    limit: i64,
    token: Uuid,
    policy: &DeliveryPolicy,
) -> sqlx::Result<Vec<Claimed>> {
    query_claimed!(
        r#"-- delivery::claim_only
"#,
        "
    select message_id, channel, due_at from deliveries   -- fence: hidden
    where message_id = any($11::uuid[]) and channel = room.channel and coalesce(due_at <= now(), false)
    order by due_at limit room.n for update skip locked",
        (limit, token, policy),
        message_ids as &[MessageId]
    )
    .fetch_all(connection)
    .await
}

/// Makes the head of each conversation due, if it is blocked, and returns those. A statement of its
/// own, after every `mark_sent`, parking, requeue, cancel, and every `enqueue` that was blocked:
/// only a fresh snapshot sees what the others wrote. Repeating it is harmless.
pub async fn release(
    connection: &mut PgConnection,
    conversation_ids: &[ConversationId],
) -> sqlx::Result<Vec<MessageId>> {
    query_states!(query_scalar [
        r#"-- delivery::release
-- Locks deliveries by message_id.
with head as (
  select d.message_id, d.seq from (select distinct pg_catalog.unnest($1::uuid[]) as id) c
  cross join lateral (
    select message_id, seq, attempt, lease_token, due_at from deliveries
    where conversation_id = c.id and due_at is not null order by seq limit 1) d
  where "# blocked r#"
    and not exists (select from conversations p where p.id = c.id and p.paused_until > now())
), held as (   -- fence: hidden (checked below)
  select message_id, seq, attempt, lease_token, due_at from deliveries
  where message_id = any(array(select message_id from head)) order by message_id for update   -- fence: keys
), free as (   -- by its number too: one that was parked and requeued meanwhile is no head any more
  select message_id from held join head using (message_id, seq) where "# blocked r#"
)
update deliveries set due_at = now() where message_id = any(array(select message_id from free))   -- fence: keys
returning message_id as "message_id: MessageId""#],
        conversation_ids as &[ConversationId],
    )
    .fetch_all(connection)
    .await
}

/// Conversations whose head is blocked although nothing is in front of it: a crash has lost a
/// release.
pub async fn list_unreleased(pool: &Pool, limit: i64) -> sqlx::Result<Vec<ConversationId>> {
    query_states!(query_scalar [
        r#"-- delivery::list_unreleased
select b.conversation_id as "conversation_id!: ConversationId"
from (select distinct conversation_id from deliveries where "# blocked r#") b
cross join lateral (
  select attempt, lease_token, due_at from deliveries
  where conversation_id = b.conversation_id and due_at is not null order by seq limit 1) head
where "# blocked r#"
  and not exists (select from conversations p where p.id = b.conversation_id and p.paused_until > now())
limit $1"#],
        limit,
    )
    .fetch_all(pool)
    .await
}

/// A delivery that was made due again.
pub struct Requeued {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    /// Attempts that have failed, over the message's whole life.
    pub retry_count: i32,
}

fn names(channels: &[Channel]) -> Vec<&'static str> {
    channels.iter().map(|channel| channel.as_str()).collect()
}

/// Gives these failed messages a fresh budget. Parked ones go to the end of their conversation's
/// order: they are blocked for at most `max_wait_seconds` (0: due now), and a `release` must
/// follow. The others become due, also those whose lease has expired. Leased and blocked ones stay,
/// and so do those that the provider may have accepted and could not tell as the same, where the
/// channels that are so (`keyless`) are given.
pub async fn requeue(
    pool: &Pool,
    message_ids: &[MessageId],
    max_wait_seconds: f64,
    keyless: Option<&[Channel]>,
) -> sqlx::Result<Vec<Requeued>> {
    let keyless = keyless.map(names);
    query_states!(query_as Requeued [
        r#"-- delivery::requeue
-- Locks conversations by (channel, participant_id), then deliveries by message_id, then their messages.
with locked as (
  select id from conversations
  where id in (select conversation_id from deliveries where message_id = any($1::uuid[]) and "# parked r#")
  order by channel, participant_id for no key update
), free as (    -- the aggregate is read before the first delivery is locked
  select d.message_id, d.conversation_id, d.seq, d.due_at is null as parked
  from (select coalesce(pg_catalog.array_agg(id), '{}') as ids from locked) l cross join deliveries d
  where d.message_id = any($1::uuid[])
    and ("# parked r#" and d.conversation_id = any(l.ids) or "# waiting r#"
      or "# due r#" and attempt > 0
        and (lease_token is null or (select status from messages where id = d.message_id) <> 'PENDING'))
    and ($3::text[] is null or not (unsure_since is not null or lease_token is not null and d.channel = any($3)))
  order by d.message_id for update of d
), moved as (
  update conversations c set outbound_seq = c.outbound_seq + p.n
  from (select conversation_id, count(*) as n from free where parked group by conversation_id) p
  where c.id = p.conversation_id returning c.id, c.outbound_seq - p.n as before
), place as (
  select f.message_id, f.parked,
    now() + case when f.parked then pg_catalog.make_interval(secs => $2) else interval '0' end as due_at,
    m.before + row_number() over (partition by f.conversation_id, f.parked order by f.seq) as seq
  from free f left join moved m on m.id = f.conversation_id
), requeued as (
  update deliveries d set lease_token = null, attempt = 0, failures = 0, spared = 0, unsure_since = null, doubts = 0,
    seq = case when p.parked then p.seq else d.seq end, due_at = p.due_at
  from place p where d.message_id = p.message_id
  returning d.message_id
), msg as (
  update messages m set next_attempt_at = now(), updated_at = now(), revision = m.revision + 1
  from requeued r where m.id = r.message_id
  returning m.id, m.conversation_id, m.retry_count
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(id) from msg having count(*) > 0 on conflict do nothing
)
select id as "message_id!: MessageId", conversation_id as "conversation_id!: ConversationId",
  retry_count as "retry_count!"
from msg"#],
        message_ids as &[MessageId],
        max_wait_seconds,
        keyless as Option<Vec<&str>>,
    )
    .fetch_all(pool)
    .await
}

/// Those of these failed messages that `requeue` would make due at this moment.
pub async fn list_requeueable(
    pool: &Pool,
    message_ids: &[MessageId],
    keyless: Option<&[Channel]>,
) -> sqlx::Result<Vec<MessageId>> {
    let keyless = keyless.map(names);
    query_states!(query_scalar [
        r#"-- delivery::list_requeueable
select message_id as "message_id: MessageId" from deliveries
where message_id = any($1::uuid[]) and ("# parked r#" or "# waiting r#" or "# due r#" and attempt > 0)
  and ($2::text[] is null or not (unsure_since is not null or lease_token is not null and channel = any($2)))"#],
        message_ids as &[MessageId],
        keyless as Option<Vec<&str>>,
    )
    .fetch_all(pool)
    .await
}

/// Parks a delivery that nobody holds, as `FAILED` and canceled, and returns its conversation, to
/// be released. It is ambiguous if it was before, or if somebody who held it never settled it.
pub async fn cancel(
    pool: &Pool,
    message_id: MessageId,
    keyless: &[Channel],
) -> sqlx::Result<Option<ConversationId>> {
    query_states!(query_scalar [
        r#"-- delivery::cancel
-- Locks the delivery, then its message.
with held as (
  select message_id, case when attempt > failures and channel = any($3) then coalesce(unsure_since, now()) else unsure_since end as unsure_since
  from deliveries
  where message_id = $1 and ("# due r#" or "# waiting r#" or "# blocked r#") for update
), stopped as (
  update deliveries d set due_at = null, lease_token = null, unsure_since = h.unsure_since
  from held h where d.message_id = h.message_id
  returning d.message_id, d.attempt > d.failures as unsettled
), msg as (
  update messages m set status = 'FAILED', next_attempt_at = null, updated_at = now(), revision = m.revision + 1,
    error_kind = $2, error_http_status = null, error_code = null, error_detail = 'canceled by an operator', error_retryable = false,
    error_ambiguous = coalesce(m.error_ambiguous, false) or s.unsettled
  from stopped s where m.id = s.message_id
  returning m.id, m.conversation_id
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(id) from msg having count(*) > 0 on conflict do nothing
)
select conversation_id as "conversation_id: ConversationId" from msg"#],
        message_id as MessageId,
        ErrorKind::Canceled.as_str(),
        &names(keyless) as &[&str],
    )
    .fetch_optional(pool)
    .await
}

/// How a delivery stands at this moment.
pub struct DeliveryState {
    /// An attempt is in flight.
    pub leased: bool,
    pub parked: bool,
    /// The provider may have accepted the message, and could not tell that it is the same one.
    pub unsure: bool,
}

/// How the delivery of a message stands. None: it has none, or not any more.
pub async fn find(
    pool: &Pool,
    message_id: MessageId,
    keyless: &[Channel],
) -> sqlx::Result<Option<DeliveryState>> {
    query_states!(query_as DeliveryState [
        r#"-- delivery::find
select coalesce("# leased r#", false) as "leased!", "# parked r#" as "parked!", unsure_since is not null or lease_token is not null and channel = any($2) as "unsure!"
from deliveries where message_id = $1"#],
        message_id as MessageId,
        &names(keyless) as &[&str],
    )
    .fetch_optional(pool)
    .await
}

/// How much is in the queue.
pub struct Backlog {
    pub due: i64,
    /// Due, but its channel is paused.
    pub paused: i64,
    pub leased: i64,
    pub waiting: i64,
    pub blocked: i64,
    pub parked: i64,
    /// For how long the oldest due one could have been sent.
    pub due_age_seconds: f64,
}

/// Counts the queue; what is parked up to `most_parked`.
pub async fn backlog(pool: &Pool, most_parked: i64) -> sqlx::Result<Backlog> {
    query_states!(query_as Backlog [
        r#"-- delivery::backlog
select count(*) filter (where "# due r#" and paused_until <= now()) as "due!",
  count(*) filter (where "# due r#" and paused_until > now()) as "paused!",
  count(*) filter (where "# leased r#") as "leased!",
  count(*) filter (where "# waiting r#") as "waiting!",
  count(*) filter (where "# blocked r#") as "blocked!",
  (select count(*) from (
    select from deliveries where "# parked r#" order by channel, message_id limit $1) p) as "parked!",   -- fence: ordered
  coalesce(extract(epoch from now() - min(greatest(due_at, paused_until))
    filter (where greatest(due_at, paused_until) <= now())), 0)::float8 as "due_age_seconds!"
from deliveries join channels using (channel) where due_at is not null"#],
        most_parked,
    )
    .fetch_one(pool)
    .await
}

/// Counts all that is parked.
pub async fn count_parked(pool: &Pool) -> sqlx::Result<i64> {
    query_states!(query_scalar [
        r#"-- delivery::count_parked
select count(*) as "count!" from deliveries where "# parked])
    .fetch_one(pool)
    .await
}

/// Whether nothing is due now, apart from channels that are paused for longer than this.
pub async fn is_idle(
    pool: &Pool,
    channels: &'static [&'static str],
    longest_pause_seconds: f64,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"-- delivery::is_idle
select not exists (
  select from channels c
  where c.channel = any($2::text[]) and greatest(c.paused_until, c.next_call_at) <= now() + pg_catalog.make_interval(secs => $1)
    and (select due_at from deliveries where channel = c.channel and due_at <= now() order by due_at limit 1) is not null) as "idle!"   -- fence: ordered"#,
        longest_pause_seconds,
        channels as &[&str],
    )
    .fetch_one(pool)
    .await
}
