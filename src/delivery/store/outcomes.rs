//! The statements that settle: what an attempt has made of its message, and of whatever else waits
//! for that provider. Nothing else writes `SENT` or, but for `cancel`, `FAILED`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::channel::Channel;
use crate::delivery::states::query_states;
use crate::delivery::{Lease, Next, Status};
use crate::id::{ConversationId, MessageId};
use crate::provider::{ErrorKind, Failure};

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
  select s.provider_message_id, s.id, now() - pg_catalog.make_interval(secs => ($4::float8[])[s.nth])
  from (select id, provider_message_id, pg_catalog.array_position($1::uuid[], id) as nth from settled) s   -- fence: place
  where ($3::bool[])[s.nth]
  order by s.provider_message_id collate "C"
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
    pub first: String,
    pub second: String,
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
    let call_seconds: Vec<Option<f64>> = accepted.iter().map(|it| it.call_seconds).collect();
    sqlx::query_as!(
        Double,
        r#"-- delivery::bind
-- Locks receipts by provider_message_id.
with inp as (
  select distinct on (t.provider_message_id collate "C") t.provider_message_id collate "C" as provider_message_id, t.message_id,
    now() - pg_catalog.make_interval(secs => t.call_seconds) as accepted_at
  from unnest($1::uuid[], $2::text[], $3::float8[]) as t(message_id, provider_message_id, call_seconds)
  order by t.provider_message_id collate "C", t.message_id, t.call_seconds
), bound as (   -- locks also those that are bound already
  insert into receipts as r (provider_message_id, message_id, accepted_at)
  select provider_message_id, message_id, accepted_at from inp order by provider_message_id
  on conflict (provider_message_id) do update set message_id = excluded.message_id, accepted_at = coalesce(r.accepted_at, excluded.accepted_at)
    where r.message_id is null
  returning r.provider_message_id, r.message_id
), dated as (   -- a status was first, which does not say when the call began
  update receipts r set accepted_at = i.accepted_at
  from inp i where r.provider_message_id = i.provider_message_id and r.accepted_at is null and i.accepted_at is not null
    and (r.message_id is null or r.message_id = i.message_id)   -- it may have become that just now
    and r.provider_message_id <> all(array(select provider_message_id from bound)) and r.provider_message_id = any($2::text[])   -- fence: keys
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(distinct message_id) from bound having count(*) > 0 on conflict do nothing
)
select m.id as "message_id: MessageId", m.provider_message_id as "first!", b.provider_message_id as "second!"
from bound b cross join lateral (select id, provider_message_id from messages where id = b.message_id limit 1) m   -- fence: lookup
where m.provider_message_id <> b.provider_message_id"#,
        &message_ids as &[MessageId],
        &provider_message_ids as &[&str],
        &call_seconds as &[Option<f64>],
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
), queued as (
  select q.message_id from paused p cross join lateral (
    select message_id from deliveries where conversation_id = p.id and due_at is not null order by seq limit 1000000) q   -- fence: ordered
), held as (
  select d.message_id, d.conversation_id, d.due_at, d.seq, p.until
  from deliveries d join paused p on p.id = d.conversation_id
  where d.message_id = any(array(select message_id from queued))   -- fence: keys
    and d.lease_token is null and d.due_at < p.until
  order by d.message_id for update of d
), later as (
  update deliveries d set due_at = o.due_at
  from (
    select message_id, until + row_number() over (partition by conversation_id order by due_at, seq) * interval '1 microsecond' as due_at
    from held) o
  where d.message_id = o.message_id and d.message_id = any(array(select message_id from held))   -- fence: keys
  returning d.message_id, d.due_at
), shown as (   -- as it is behind the locks: it may just have failed
  select id, next_attempt_at from messages where id = any(array(select message_id from later)) order by id for update   -- fence: keys
), msg as (
  update messages m set next_attempt_at = l.due_at, updated_at = now(), revision = m.revision + 1
  from later l where m.id = l.message_id
    and m.id = any(array(select id from shown where next_attempt_at is not null))   -- fence: keys
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
