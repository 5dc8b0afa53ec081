//! The statements of the queue. Only the settling ones here write `SENT` or `FAILED`.
//!
//! The columns `attempt` and `failures` count claims and failed attempts. They keep their names,
//! since older binaries run beside a newer schema. Here they are called what they count.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::states::query_states;
use super::{Claimed, DeliveryPolicy, Evidence, Lease, Next, Status, Trace};
use crate::channel::{
    BURSTS_PER_SECOND, Channel, LONGEST_RAMP, RAMP_FACTOR, RAMP_START_PER_SECOND, TRIAL_EVERY,
};
use crate::database::pool::Pool;
use crate::id::{ConversationId, MessageId};
use crate::provider::{ErrorKind, Failure, Outbound, Outgoing};

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

/// A statement that settles, whose last part updates messages `m`: it returns what it has made of
/// each of them. `$told` is what the provider has told of it before: the receipts `r`.
macro_rules! query_settled {
    ($head:literal, ($bound:literal, $told:literal, $from:literal) $(, $argument:expr)*) => {
        sqlx::query_as!(
            Settled,
            $head
                + r#"

  returning m.id, m.status, m.provider_message_id, m.retry_count, m.next_attempt_at, m.error_kind, m.error_http_status,
    m.error_code, m.error_detail, m.error_retryable, m.error_ambiguous, m.updated_at, m.sent_at, m.revision
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(id) from settled having count(*) > 0 on conflict do nothing
)"#
                + $bound
                + r#"
select id as "message_id!: MessageId", status as "status!: Status", s.provider_message_id, retry_count as "retry_count!",
  next_attempt_at, error_kind as "error_kind: ErrorKind", error_http_status, s.error_code, s.error_detail, error_retryable, error_ambiguous,
  updated_at as "updated_at!", s.sent_at, "#
                + $told
                + r#"
from settled s"#
                + $from
            $(, $argument)*
        )
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

/// What a settlement has made of its message: all that an attempt can change.
#[derive(Debug)]
pub struct Settled {
    pub message_id: MessageId,
    pub status: Status,
    pub provider_message_id: Option<String>,
    pub retry_count: i32,
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub error_kind: Option<ErrorKind>,
    pub error_http_status: Option<i32>,
    pub error_code: Option<i64>,
    pub error_detail: Option<String>,
    pub error_retryable: Option<bool>,
    pub error_ambiguous: Option<bool>,
    pub updated_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
    /// Whether the provider has told something of it before, which is not in here.
    pub is_told: bool,
    pub revision: i64,
}

/// An acceptance by the provider.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    pub message_id: MessageId,
    pub provider_message_id: &'a str,
    /// Whether the provider knows no idempotency key, but tells what becomes of a message: then the
    /// receipt of this id is the message's.
    pub is_keyless: bool,
    /// For how long the call has been going on when its answer was written down, in seconds. None:
    /// a status says so, and nobody knows which call it was.
    pub call_seconds: Option<f64>,
}

/// A failure, and what follows.
pub struct Failed<'a> {
    pub lease: &'a Lease,
    pub failure: &'a Failure,
    pub next: Next,
    /// Whether the provider knows no idempotency key: then a doubt is kept, and an attempt that
    /// nobody has settled is settled with this one.
    pub is_keyless: bool,
}

/// Writes `SENT`, once, with the provider's id, and the delivery goes. By message id: an acceptance
/// is final, whoever holds the lease. Rows only for those that it settled. Must not touch
/// conversations; a `release` of theirs must follow.
///
/// Where the provider knows no keys, the receipt of its id is the message's from now on, and has
/// the time at which the call began: so it is evidence only for what was lost before that.
pub async fn mark_sent(
    connection: &mut PgConnection,
    accepted: &[Accepted<'_>],
) -> sqlx::Result<Vec<Settled>> {
    let message_ids: Vec<MessageId> = accepted.iter().map(|it| it.message_id).collect();
    let provider_message_ids: Vec<&str> =
        accepted.iter().map(|it| it.provider_message_id).collect();
    let keyless: Vec<bool> = accepted.iter().map(|it| it.is_keyless).collect();
    let call_seconds: Vec<Option<f64>> = accepted.iter().map(|it| it.call_seconds).collect();
    query_settled!(
        r#"-- delivery::mark_sent
-- Locks deliveries by message_id, then their messages, then receipts by provider_message_id.
with held as (
  select message_id from deliveries where message_id = any($1::uuid[]) order by message_id for update
), gone as (
  delete from deliveries where message_id = any(array(select message_id from held)) returning message_id   -- fence: keys
), settled as (
  update messages m set status = 'SENT', provider_message_id = ($2::text[])[pg_catalog.array_position($1::uuid[], id)],   -- fence: place
    next_attempt_at = null, sent_at = now(), updated_at = now(), revision = m.revision + 1
  where id = any(array(select message_id from gone))   -- fence: keys"#,
        (
            r#", bound as (
  insert into receipts as r (provider_message_id, message_id, accepted_at)
  select t.provider_message_id, t.message_id, now() - pg_catalog.make_interval(secs => t.call_seconds)
  from settled s join unnest($1::uuid[], $2::text[], $3::bool[], $4::float8[]) as t(message_id, provider_message_id, is_keyless, call_seconds)
    on t.message_id = s.id and t.provider_message_id = s.provider_message_id
  where t.is_keyless
  order by t.provider_message_id collate "C"
  on conflict (provider_message_id) do update set message_id = excluded.message_id, accepted_at = excluded.accepted_at
    where r.message_id is null
  returning r.provider_message_id, r.revision, r.received_at
)"#,
            r#"coalesce(b.received_at, r.received_at) is not null as "is_told!", s.revision + coalesce(b.revision, r.revision, 0) as "revision!""#,
            r#" left join bound b on b.provider_message_id = s.provider_message_id
left join lateral (select revision, received_at from receipts where provider_message_id = s.provider_message_id limit 1) r on true   -- fence: lookup"#
        ),
        &message_ids as &[MessageId],
        &provider_message_ids as &[&str],
        &keyless,
        &call_seconds as &[Option<f64>]
    )
    .fetch_all(connection)
    .await
}

/// A message that the provider has accepted twice.
pub struct Double {
    pub message_id: MessageId,
    pub first_id: String,
    pub second_id: String,
}

/// Writes down of which message these ids are whose messages were settled before, and returns those
/// whose message has another id: the provider has accepted it twice.
pub async fn bind(
    connection: &mut PgConnection,
    accepted: &[&Accepted<'_>],
) -> sqlx::Result<Vec<Double>> {
    let message_ids: Vec<MessageId> = accepted.iter().map(|it| it.message_id).collect();
    let provider_message_ids: Vec<&str> =
        accepted.iter().map(|it| it.provider_message_id).collect();
    sqlx::query_as!(
        Double,
        r#"-- delivery::bind
-- Locks receipts by provider_message_id.
with bound as (
  insert into receipts as r (provider_message_id, message_id)
  select distinct on (t.provider_message_id collate "C") t.provider_message_id, t.message_id
  from unnest($1::uuid[], $2::text[]) as t(message_id, provider_message_id)
  order by t.provider_message_id collate "C", t.message_id
  on conflict (provider_message_id) do update set message_id = excluded.message_id where r.message_id is null
  returning r.provider_message_id, r.message_id
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(distinct message_id) from bound having count(*) > 0 on conflict do nothing
)
select m.id as "message_id: MessageId", m.provider_message_id as "first_id!", b.provider_message_id as "second_id!"
from bound b cross join lateral (select id, provider_message_id from messages where id = b.message_id limit 1) m   -- fence: lookup
where m.provider_message_id <> b.provider_message_id"#,
        &message_ids as &[MessageId],
        &provider_message_ids as &[&str],
    )
    .fetch_all(connection)
    .await
}

/// Writes `FAILED` with its error and gives the lease back: due after a wait, or parked. Only for
/// the holder of the current token; rows only for those. A `release` of the parked ones'
/// conversations must follow.
pub async fn mark_failed(
    connection: &mut PgConnection,
    failed: &[Failed<'_>],
) -> sqlx::Result<Vec<Settled>> {
    let failures = || failed.iter().map(|it| it.failure);
    let message_ids: Vec<MessageId> = failed
        .iter()
        .map(|it| it.lease.outgoing.message_id)
        .collect();
    let tokens: Vec<Uuid> = failed.iter().map(|it| it.lease.token).collect();
    let next = failed.iter().map(|it| match it.next {
        Next::Retry(wait) => (false, wait.as_secs_f64()),
        Next::Park => (true, 0.0),
    });
    let (parked, waits): (Vec<bool>, Vec<f64>) = next.unzip();
    let kinds: Vec<&str> = failures().map(|f| f.kind.as_str()).collect();
    let http_statuses: Vec<Option<i32>> =
        failures().map(|f| f.http_status.map(i32::from)).collect();
    let codes: Vec<Option<i64>> = failures().map(|f| f.code).collect();
    let details: Vec<&str> = failures().map(|f| &*f.detail).collect();
    let retryables: Vec<bool> = failures().map(|f| f.retryable).collect();
    let ambiguous: Vec<bool> = failures().map(|f| f.ambiguous).collect();
    let spared: Vec<bool> = failures().map(|f| !f.counts).collect();
    let keyless: Vec<bool> = failed.iter().map(|it| it.is_keyless).collect();
    query_settled!(
        r#"-- delivery::mark_failed
-- Locks deliveries by message_id, then their messages.
with inp as (
  select * from unnest($1::uuid[], $2::uuid[], $3::bool[], $4::float8[], $5::text[], $6::int[],
      $7::text[], $8::bool[], $9::bool[], $10::bigint[], $11::bool[], $12::bool[])
    as t(message_id, lease_token, parked, wait, error_kind, error_http_status, error_detail, error_retryable, error_ambiguous, error_code,
      is_spared, is_keyless)
), held as (
  select i.*, case when not i.parked then now() + pg_catalog.make_interval(secs => i.wait) end as again_at,
    case when i.is_keyless and i.error_ambiguous then now() end as unsure_since
  from deliveries d join inp i on i.message_id = d.message_id and i.lease_token = d.lease_token
  where d.message_id = any($1::uuid[])   -- fence: keys
  order by d.message_id for update of d
), later as (
  update deliveries d set due_at = h.again_at, lease_token = null, failures = d.failures + 1,
    attempt = case when h.is_keyless then d.failures + 1 else d.attempt end,
    spared = d.spared + case when h.is_spared then 1 else 0 end,
    unsure_since = h.unsure_since,
    doubts = case when h.unsure_since is not null then d.doubts + 1 else 0 end
  from held h where d.message_id = h.message_id and d.message_id = any($1::uuid[])   -- fence: keys
  returning h.*, d.due_at
), settled as (
  update messages m set status = 'FAILED', retry_count = m.retry_count + 1, next_attempt_at = l.due_at, updated_at = now(),
    error_kind = l.error_kind, error_http_status = l.error_http_status, error_code = l.error_code,
    error_detail = l.error_detail,
    error_retryable = l.error_retryable, error_ambiguous = l.error_ambiguous, revision = m.revision + 1
  from later l where m.id = l.message_id and m.id = any($1::uuid[])   -- fence: keys"#,
        ("", r#"false as "is_told!", s.revision as "revision!""#, ""),
        &message_ids as &[MessageId],
        &tokens,
        &parked,
        &waits,
        &kinds as &[&str],
        &http_statuses as &[Option<i32>],
        &details as &[&str],
        &retryables,
        &ambiguous,
        &codes as &[Option<i64>],
        &spared,
        &keyless
    )
    .fetch_all(connection)
    .await
}

/// Parks deliveries without an attempt: their last error stays what it was. Only for the holder of
/// the current token; rows only for those. A `release` of their conversations must follow.
pub async fn leave(connection: &mut PgConnection, leases: &[&Lease]) -> sqlx::Result<Vec<Settled>> {
    let message_ids: Vec<MessageId> = leases.iter().map(|it| it.outgoing.message_id).collect();
    let tokens: Vec<Uuid> = leases.iter().map(|it| it.token).collect();
    query_settled!(
        r#"-- delivery::leave
-- Locks deliveries by message_id, then their messages.
with held as (
  select d.message_id from deliveries d
  join unnest($1::uuid[], $2::uuid[]) as t(message_id, lease_token) on t.message_id = d.message_id and t.lease_token = d.lease_token
  where d.message_id = any($1::uuid[])   -- fence: keys
  order by d.message_id for update of d
), parked as (   -- the claim was none: no attempt was made under it
  update deliveries d set due_at = null, lease_token = null, attempt = d.attempt - 1
  where d.message_id = any(array(select message_id from held))   -- fence: keys
  returning d.message_id
), settled as (
  update messages m set next_attempt_at = null, updated_at = now(), revision = m.revision + 1
  where id = any(array(select message_id from parked))   -- fence: keys"#,
        ("", r#"false as "is_told!", s.revision as "revision!""#, ""),
        &message_ids as &[MessageId],
        &tokens
    )
    .fetch_all(connection)
    .await
}

/// A conversation to whose participant nobody writes.
pub struct PausedConversation {
    pub conversation_id: ConversationId,
    pub until: DateTime<Utc>,
}

/// Leaves participants alone: what is queued for them, and nobody holds, waits, in its order; what
/// is sent to them meanwhile will wait too. Each conversation at most once; returns those whose
/// pause has become longer.
pub async fn pause_conversations(
    connection: &mut PgConnection,
    pauses: &[(ConversationId, Duration)],
) -> sqlx::Result<Vec<PausedConversation>> {
    let conversation_ids: Vec<ConversationId> = pauses.iter().map(|(id, _)| *id).collect();
    let waits: Vec<f64> = pauses.iter().map(|(_, wait)| wait.as_secs_f64()).collect();
    sqlx::query_as!(
        PausedConversation,
        r#"-- delivery::pause_conversations
-- Locks conversations by (channel, participant_id), then deliveries by message_id, then their messages.
with locked as (
  select c.id, now() + pg_catalog.make_interval(secs => t.wait) as until
  from unnest($1::uuid[], $2::float8[]) as t(id, wait) join conversations c on c.id = t.id
  where c.id = any($1::uuid[])   -- fence: keys
  order by c.channel, c.participant_id for no key update of c
), paused as (
  update conversations c set paused_until = l.until
  from locked l where c.id = l.id and c.id = any($1::uuid[]) and (c.paused_until is null or c.paused_until < l.until)   -- fence: keys
  returning c.id, c.paused_until as until
), held as (
  select d.message_id, d.conversation_id, d.due_at, d.seq, p.until
  from paused p join deliveries d on d.conversation_id = p.id
  where d.lease_token is null and d.due_at < p.until
  order by d.message_id for update of d
), later as (
  update deliveries d set due_at = o.due_at
  from (
    select message_id, until + row_number() over (partition by conversation_id order by due_at, seq) * interval '1 microsecond' as due_at
    from held) o
  where d.message_id = o.message_id and d.message_id = any(array(select message_id from held))   -- fence: keys
  returning d.message_id, d.due_at
), msg as (
  update messages m set next_attempt_at = l.due_at, updated_at = now(), revision = m.revision + 1
  from later l where m.id = l.message_id and m.next_attempt_at is not null
    and m.id = any(array(select message_id from later))   -- fence: keys
  returning m.id
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(id) from msg having count(*) > 0 on conflict do nothing
)
select id as "conversation_id!: ConversationId", until as "until!" from paused"#,
        &conversation_ids as &[ConversationId],
        &waits,
    )
    .fetch_all(connection)
    .await
}

/// Makes due now what waits on these channels because the token or the account was at fault.
pub async fn wake_refused(connection: &mut PgConnection, channels: &[Channel]) -> sqlx::Result<()> {
    let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
    query_states!(query [
        r#"-- delivery::wake_refused
-- Locks deliveries by message_id, then their messages.
with held as (
  select d.message_id from deliveries d
  cross join lateral (select error_kind from messages where id = d.message_id limit 1) m   -- fence: lookup
  where d.channel = any($1::text[]) and "# waiting r#" and m.error_kind = $2
  order by d.message_id for update of d
), due as (
  update deliveries d set due_at = now() where d.message_id = any(array(select message_id from held))   -- fence: keys
  returning d.message_id, d.due_at
), msg as (
  update messages m set next_attempt_at = d.due_at, updated_at = now(), revision = m.revision + 1
  from due d where m.id = d.message_id and m.id = any(array(select message_id from due))   -- fence: keys
  returning m.id
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(id) from msg having count(*) > 0 on conflict do nothing
)
select count(*) from msg"#],
        &channels as &[&str],
        ErrorKind::Unauthorized.as_str(),
    )
    .fetch_one(connection)
    .await
    .map(drop)
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
