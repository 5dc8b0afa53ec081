//! The statements of messages: storing outbound ones, and reading.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::columns::{Columns, More};
use super::{Direction, Message, NewMessage, Origin, PREVIEW_LENGTH, Receipt, Status};
use crate::channel::Channel;
use crate::cursor::{Cursor, Start};
use crate::database::pool::Pool;
use crate::delivery::DeliveryPolicy;
use crate::id::{ConversationId, MessageId};
use crate::provider::ErrorKind;

/// A statement whose CTE `m` has rows of `messages`, completed so that they become `Message`s.
macro_rules! query_messages {
    ($head:literal, $tail:literal $(, $argument:expr)*) => {
        sqlx::query!(
            $head
                + r#"
select m.id as "id!: MessageId", m.conversation_id as "conversation_id!: ConversationId", m.channel as "channel!: Channel",
  m.participant_id as "participant_id!", m.direction as "direction!: Direction", m.type as "kind!", m.text as "text!", m.content, m.reply_to,
  m.reply_to_id as "reply_to_id: MessageId", m.origin as "origin: Origin", m.participant_name, m.reactions::text as reactions,
  m.edited_at, m.deleted_at, m.status as "status!: Status", m.client_message_id,
  m.provider_message_id, m.retry_count as "retry_count!", m.next_attempt_at, m.error_kind as "error_kind: ErrorKind", m.error_http_status,
  m.error_code, m.error_detail, m.error_retryable, m.error_ambiguous, m.timestamp as "timestamp!", m.sort_at as "sort_at!",
  m.created_at as "created_at!", m.updated_at as "updated_at!", m.sent_at, m.sent_by,
  r.sent_at as "told_sent_at?", r.delivered_at as "delivered_at?", r.read_at as "read_at?", r.played_at as "played_at?",
  r.failed_at as "failed_at?", r.error_code as "told_error_code?", r.error_title as "error_title?", r.error_detail as "told_error_detail?",
  m.revision + coalesce(r.revision, 0) as "revision!"
from m left join lateral (select * from receipts where provider_message_id = m.provider_message_id limit 1) r on true   -- fence: lookup
"#
                + $tail
            $(, $argument)*
        )
        .map(|row| Message {
            id: row.id,
            conversation_id: row.conversation_id,
            channel: row.channel,
            participant_id: row.participant_id,
            direction: row.direction,
            kind: row.kind,
            text: row.text,
            content: row.content,
            reply_to: row.reply_to,
            reply_to_id: row.reply_to_id,
            origin: row.origin,
            participant_name: row.participant_name,
            reactions: row.reactions,
            edited_at: row.edited_at,
            deleted_at: row.deleted_at,
            status: row.status,
            client_message_id: row.client_message_id,
            sent_by: row.sent_by,
            provider_message_id: row.provider_message_id,
            retry_count: row.retry_count,
            next_attempt_at: row.next_attempt_at,
            error_kind: row.error_kind,
            error_http_status: row.error_http_status,
            error_code: row.error_code,
            error_detail: row.error_detail,
            error_retryable: row.error_retryable,
            error_ambiguous: row.error_ambiguous,
            timestamp: row.timestamp,
            sort_at: row.sort_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            sent_at: row.sent_at,
            receipt: Receipt {
                sent_at: row.told_sent_at,
                delivered_at: row.delivered_at,
                read_at: row.read_at,
                played_at: row.played_at,
                failed_at: row.failed_at,
                error_code: row.told_error_code,
                error_title: row.error_title,
                error_detail: row.told_error_detail,
            },
            revision: row.revision,
        })
    };
}

/// A message that `enqueue` has stored.
pub struct Stored {
    pub id: MessageId,
    pub conversation_id: ConversationId,
    pub created_at: DateTime<Utc>,
    /// Whether the caller's token holds its lease. If not, it is due or blocked, and a `release`
    /// must follow.
    pub leased: bool,
    /// Whether it is due only because its channel's calls are spread: the caller may claim it.
    pub claimable: bool,
}

/// Stores each new message `PENDING`, with its place in its conversation's order and its delivery:
/// leased to the caller's token; or due, where there is no token or the channel is paused or its
/// calls are spread, but no sooner than its conversation's pause ends; or blocked. A known key or id
/// changes nothing at all. Returns a row for each new message, in no order. Fails with
/// [`crate::error::fault::Fault::LostRace`] when two first messages to one participant raced.
/// SCHEMA.md says what each part of the statement does.
pub async fn enqueue(
    connection: &mut PgConnection,
    messages: &[&NewMessage],
    policy: &DeliveryPolicy,
) -> sqlx::Result<Vec<Stored>> {
    let new = Columns::of(messages);
    sqlx::query_as!(
        Stored,
        r#"-- message::enqueue
-- Locks messages by (channel, key, id), then conversations by (channel, participant_id).
with inp as (   -- in the order of the keys' columns: by bytes
  select id, conversation_id, channel collate "C" as channel, participant_id collate "C" as participant_id, text,
         client_message_id collate "C" as client_message_id, lease_token, traceparent, sent_by, more, ord
  from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $11::text[], $13::text[], $15::jsonb[])
    with ordinality as t(id, conversation_id, channel, participant_id, text, client_message_id, lease_token, traceparent, sent_by, more, ord)
), pace as materialized (   -- once, not for each message
  select channel, paused_until > now() as paused, $12::bool or ramp_until > now() as spread from channels
), place as (   -- the conversation: the one that exists, else the batch's first id for it
  select i.id, i.channel, i.participant_id, i.text, i.client_message_id, i.lease_token, i.traceparent, i.sent_by, i.more, i.ord,
         coalesce(c.outbound_seq, 0) as seen, coalesce(c.id, pg_catalog.first_value(i.conversation_id) over w) as conversation_id,
         now() + (row_number() over w)::float8 * interval '1 microsecond' as sort_at
  from inp i left join lateral (
    select id, outbound_seq from conversations where channel = i.channel and participant_id = i.participant_id limit 1) c on true   -- fence: lookup
  window w as (partition by i.channel, i.participant_id order by i.ord)
), msg as (     -- what is known already, by key or by id, ends here
  insert into messages (id, conversation_id, channel, participant_id, direction, text, status, client_message_id, sent_by,
    timestamp, sort_at, created_at, updated_at, type, content, address, reply_to, reply_to_id)
  select id, conversation_id, channel, participant_id, 'OUTBOUND', text, 'PENDING', client_message_id, sent_by, sort_at,
    sort_at, sort_at, sort_at, coalesce(more ->> 'type', 'text'), more ->> 'content', more ->> 'address', more ->> 'reply_to', (more ->> 'reply_to_id')::uuid
  from place order by channel, client_message_id, id
  on conflict do nothing returning id
), fresh as (
  select p.*, row_number() over (partition by conversation_id order by ord) as rank from place p join msg on msg.id = p.id
), agg as (
  select conversation_id, channel, participant_id, count(*) as n, max(sort_at) as sort_at,
         (pg_catalog.array_agg(id order by sort_at desc, id desc))[1] as message_id, (pg_catalog.array_agg(text order by sort_at desc, id desc))[1] as preview
  from fresh group by conversation_id, channel, participant_id
), conv as (    -- the lock that gives the order
  insert into conversations as c (id, channel, participant_id, last_message_id, last_message_at, last_message_preview, outbound_seq)
  select conversation_id, channel, participant_id, message_id, sort_at, left(preview, $14), n from agg order by channel, participant_id
  on conflict (participant_id, channel) do update set
    outbound_seq = c.outbound_seq + excluded.outbound_seq, revision = c.revision + 1,
    last_message_id = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_id else c.last_message_id end,
    last_message_preview = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_preview else c.last_message_preview end,
    last_message_at = greatest(excluded.last_message_at, c.last_message_at)
  returning id, outbound_seq, paused_until
), planned as (
  select f.id, f.conversation_id, f.channel,
         case when p.spread or c.paused_until > now() then null else f.lease_token end as lease_token,
         f.lease_token is not null and p.spread and not p.paused and c.paused_until > now() is not true as claimable,
         case when c.paused_until > now() then c.paused_until + f.rank * interval '1 microsecond' end as paused_until,
         f.traceparent, f.sent_by, f.sort_at,
         c.outbound_seq - a.n + f.rank as seq,
         $10::bool and (
           f.rank > 1                                   -- behind one of this batch,
           or c.outbound_seq - a.n <> f.seen            -- or one put in order since this statement's snapshot,
           or (select d.seq from deliveries d           -- or one in the queue; fence: ordered
               where d.conversation_id = f.conversation_id and d.due_at is not null order by d.seq limit 1) is not null) as blocked
  from fresh f join agg a on a.conversation_id = f.conversation_id join conv c on c.id = f.conversation_id
  left join pace p on p.channel = f.channel
), delivery as (
  insert into deliveries (message_id, conversation_id, channel, seq, due_at, lease_token, attempt, traceparent, sent_by)
  select id, conversation_id, channel, seq,
         greatest(paused_until, now() + case when blocked then pg_catalog.make_interval(secs => $9)
           when lease_token is null then interval '0' else pg_catalog.make_interval(secs => $8) end),
         case when blocked then null else lease_token end,
         case when blocked or lease_token is null then 0 else 1 end, traceparent, sent_by
  from planned
), changed as (
  insert into changes (conversation_ids, created_ids)
  select pg_catalog.array_agg(distinct conversation_id), pg_catalog.array_agg(id) from planned having count(*) > 0 on conflict do nothing
)
select id as "id!: MessageId", conversation_id as "conversation_id!: ConversationId", sort_at as "created_at!",
       lease_token is not null and not blocked as "leased!", coalesce(claimable and not blocked, false) as "claimable!"
from planned"#,
        &new.ids as &[MessageId],
        &new.conversation_ids as &[ConversationId],
        &new.channels as &[&str],
        &new.participant_ids as &[&str],
        &new.texts as &[&str],
        &new.client_message_ids as &[Option<&str>],
        &new.tokens as &[Option<Uuid>],
        policy.lease_seconds,
        policy.max_wait_seconds,
        policy.ordered,
        &new.traceparents as &[Option<&str>],
        policy.max_per_second.is_some(),
        &new.sent_by as &[Option<&str>],
        PREVIEW_LENGTH,
        &new.more as &[Option<Json<More<'_>>>],
    )
    .fetch_all(connection)
    .await
}

/// A record that `enqueue` found in its way.
pub struct Replayed {
    /// The place in the arguments, from 1.
    pub place: i64,
    /// The record's id. The caller's own: the first answer was lost.
    pub id: MessageId,
    /// Whether the caller's token holds its lease.
    pub leased: bool,
}

/// Finds the records that have the ids or the keys of these messages, and confirms them (see
/// [`crate::database::store::confirm`]). A statement of its own: `enqueue` cannot see rows that
/// were committed after it began.
pub async fn find_replayed(
    connection: &mut PgConnection,
    messages: &[&NewMessage],
) -> sqlx::Result<Vec<Replayed>> {
    let ids: Vec<MessageId> = messages.iter().map(|m| m.id).collect();
    let outbound = || messages.iter().map(|m| &m.outbound);
    let channels: Vec<&str> = outbound().map(|o| o.channel.as_str()).collect();
    let client_message_ids: Vec<Option<&str>> =
        outbound().map(|o| o.client_message_id.as_deref()).collect();
    let tokens: Vec<Option<Uuid>> = messages.iter().map(|m| m.lease_token).collect();
    sqlx::query_as!(
        Replayed,
        r#"-- message::find_replayed
with confirmed as materialized (   -- as database::confirm does
  select case when current_setting('synchronous_standby_names') <> ''
    then pg_catalog.pg_logical_emit_message(true, 'gateway', ''::text) end as at
)
select t.ord as "place!", m.id as "id!: MessageId", coalesce(d.lease_token = t.lease_token, false) as "leased!"
from confirmed
cross join unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[]) with ordinality
  as t(id, channel, client_message_id, lease_token, ord)
cross join lateral (
  select id from messages where id = t.id
  union all
  select id from messages where channel = t.channel and client_message_id = t.client_message_id and id <> t.id) m
left join lateral (select lease_token from deliveries where message_id = m.id limit 1) d on true   -- fence: lookup"#,
        &ids as &[MessageId],
        &channels as &[&str],
        &client_message_ids as &[Option<&str>],
        &tokens as &[Option<Uuid>],
    )
    .fetch_all(connection)
    .await
}

/// The messages with these ids, in no order.
pub async fn list_by_id(
    connection: impl PgExecutor<'_>,
    ids: &[MessageId],
) -> sqlx::Result<Vec<Message>> {
    query_messages!(
        r#"-- message::list_by_id
with m as (select * from messages where id = any($1::uuid[]))"#,
        "",
        ids as &[MessageId]
    )
    .fetch_all(connection)
    .await
}

/// The same for the feed, in the order of the ids.
pub async fn list_changed(pool: &Pool, ids: &[MessageId]) -> sqlx::Result<Vec<Message>> {
    query_messages!(
        r#"-- message::list_changed
with m as (select * from messages where id = any($1::uuid[]) limit $2)"#,
        "order by m.id",
        ids as &[MessageId],
        // A second parameter: `delivery::release` has only the first one.
        i64::try_from(ids.len()).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await
}

/// The message that has this key on this channel.
pub async fn find_by_key(
    pool: &Pool,
    channel: Channel,
    client_message_id: &str,
) -> sqlx::Result<Option<Message>> {
    query_messages!(
        r#"-- message::find_by_key
with m as (select * from messages where channel = $1 and client_message_id = $2 limit $3)"#,
        "",
        channel.as_str(),
        client_message_id,
        // A third parameter: `channel::try_token` has two texts.
        1
    )
    .fetch_optional(pool)
    .await
}

/// One message.
pub async fn find(pool: &Pool, id: MessageId) -> sqlx::Result<Option<Message>> {
    query_messages!(
        r#"-- message::find
with m as (select * from messages where id = $1)"#,
        "",
        id as MessageId
    )
    .fetch_optional(pool)
    .await
}

/// The messages of a conversation, newest first.
pub async fn list_thread(
    pool: &Pool,
    conversation_id: ConversationId,
    start: Start,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    match start {
        Start::Skip(rows) => list_thread_page(pool, conversation_id, rows, limit).await,
        Start::After(cursor) => list_thread_after(pool, conversation_id, cursor, limit).await,
    }
}

async fn list_thread_page(
    pool: &Pool,
    conversation_id: ConversationId,
    offset: i64,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    query_messages!(
        r#"-- message::list_thread_page
with m as (
  select * from messages where conversation_id = $1 order by sort_at desc, id desc limit $2 offset $3)"#,
        "order by m.sort_at desc, m.id desc",
        conversation_id as ConversationId,
        limit,
        offset
    )
    .fetch_all(pool)
    .await
}

async fn list_thread_after(
    pool: &Pool,
    conversation_id: ConversationId,
    Cursor { at, id }: Cursor,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    query_messages!(
        r#"-- message::list_thread_after
with m as (
  select * from messages where conversation_id = $1 and (sort_at, id) < ($2, $3) order by sort_at desc, id desc limit $4)"#,
        "order by m.sort_at desc, m.id desc",
        conversation_id as ConversationId,
        at,
        id,
        limit
    )
    .fetch_all(pool)
    .await
}

/// Which outbound messages that are not sent.
#[derive(Debug, Clone, Copy)]
pub struct Unsent<'a> {
    pub channel: Option<Channel>,
    /// Only those sent by this key.
    pub sent_by: Option<&'a str>,
    /// Only those before this one.
    pub before: Option<MessageId>,
}

/// Messages that are `PENDING`, newest first. Read through the queue, so that `messages` needs no
/// index on the status. What is parked there has failed, and is not looked at.
pub async fn list_pending(
    pool: &Pool,
    which: Unsent<'_>,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    query_messages!(
        r#"-- message::list_pending
with live as materialized (   -- fence: once
  select message_id from deliveries   -- what has failed in an attempt is not pending either
  where due_at is not null and failures = 0 and message_id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    and ($3::text is null or channel = $3) and ($4::text is null or sent_by = $4)
), m as (
  select m.* from live d cross join lateral (select * from messages where id = d.message_id limit 1) m   -- fence: lookup
  where m.status = $1
  order by d.message_id desc limit $5)"#,
        "order by m.id desc",
        Status::Pending as Status,
        which.before as Option<MessageId>,
        which.channel.map(Channel::as_str),
        which.sent_by,
        limit
    )
    .fetch_all(pool)
    .await
}

/// Messages that are `FAILED`, newest first. Read through the queue, too: what is parked from the
/// end of its index, the others by their status.
pub async fn list_failed_latest(
    pool: &Pool,
    which: Unsent<'_>,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    query_messages!(
        r#"-- message::list_failed_latest
with live as materialized (   -- fence: once
  select message_id from deliveries
  where due_at is not null and message_id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    and ($3::text is null or channel = $3) and ($4::text is null or sent_by = $4)
), failed as (
  (select p.message_id from channels c cross join lateral (   -- fence: hidden
    select message_id from deliveries
    where due_at is null and channel >= c.channel
      and (channel, message_id) < (c.channel, coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
      and ($4::text is null or sent_by = $4)
    order by channel desc, message_id desc limit $5) p
  where $3::text is null or c.channel = $3)
  union all
  (select d.message_id from live d cross join lateral (select status from messages where id = d.message_id limit 1) m   -- fence: lookup
  where m.status = $1
  order by d.message_id desc limit $5)
), m as (
  select m.* from (select message_id from failed order by message_id desc limit $5) f cross join lateral (select * from messages where id = f.message_id limit 1) m   -- fence: lookup
  where m.status = $1)"#,
        "order by m.id desc",
        Status::Failed as Status,
        which.before as Option<MessageId>,
        which.channel.map(Channel::as_str),
        which.sent_by,
        limit
    )
    .fetch_all(pool)
    .await
}

/// Which failed messages; by default all.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    pub channel: Option<Channel>,
    /// Only those whose last error is of one of these kinds; empty: of any.
    pub kinds: Vec<ErrorKind>,
    /// Only those whose last attempt, or change by an operator, is no longer ago than this.
    pub within: Option<Duration>,
}

/// The last of the next so many messages in the queue, after this one; none: there are none.
pub async fn find_window(
    pool: &Pool,
    after: Option<MessageId>,
    length: i64,
) -> sqlx::Result<Option<MessageId>> {
    sqlx::query_scalar!(
        r#"-- message::find_window
select message_id as "message_id: MessageId" from (
  select message_id from deliveries
  where message_id > coalesce($1::uuid, '00000000-0000-0000-0000-000000000000'::uuid) order by message_id limit $2) w
order by message_id desc limit 1"#,
        after as Option<MessageId>,
        length
    )
    .fetch_optional(pool)
    .await
}

/// Messages of a part of the queue that are `FAILED`, oldest first: those after `after`, up to
/// `last`. Whatever the filter, a statement reads no more than that part.
pub async fn list_failed(
    pool: &Pool,
    which: &Failures,
    after: Option<MessageId>,
    last: MessageId,
) -> sqlx::Result<Vec<Message>> {
    let kinds: Vec<&str> = which.kinds.iter().map(|kind| kind.as_str()).collect();
    query_messages!(
        r#"-- message::list_failed
with m as (
  select m.* from deliveries d cross join lateral (select * from messages where id = d.message_id limit 1) m   -- fence: lookup
  where d.message_id > coalesce($2::uuid, '00000000-0000-0000-0000-000000000000'::uuid) and d.message_id <= $6
    and ($3::text is null or d.channel = $3) and m.status = $1
    and (pg_catalog.cardinality($4::text[]) = 0 or m.error_kind = any($4::text[]))
    and m.updated_at >= coalesce(now() - pg_catalog.make_interval(secs => $5), '-infinity'::timestamptz))"#,
        "order by m.id",
        Status::Failed as Status,
        after as Option<MessageId>,
        which.channel.map(Channel::as_str),
        &kinds as &[&str],
        which.within.map(|within| within.as_secs_f64()),
        last as MessageId
    )
    .fetch_all(pool)
    .await
}

/// A message, and how many of its attempts had failed at some moment.
#[derive(Debug, Clone, Copy)]
pub struct Baseline {
    pub id: MessageId,
    pub retry_count: i32,
}

/// Those of these messages that have ended since: sent, failed once more, or parked.
pub async fn list_ended(pool: &Pool, since: &[Baseline]) -> sqlx::Result<Vec<Message>> {
    let ids: Vec<MessageId> = since.iter().map(|one| one.id).collect();
    let retry_counts: Vec<i32> = since.iter().map(|one| one.retry_count).collect();
    query_messages!(
        r#"-- message::list_ended
with m as (
  select m.* from unnest($1::uuid[], $2::int[]) as t(id, retry_count)
  cross join lateral (select * from messages where id = t.id limit 1) m   -- fence: lookup
  left join lateral (select due_at from deliveries where message_id = t.id limit 1) d on true   -- fence: lookup
  where d.due_at is null or m.retry_count > t.retry_count)"#,
        "",
        &ids as &[MessageId],
        &retry_counts
    )
    .fetch_all(pool)
    .await
}
