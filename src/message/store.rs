//! The statements of messages: what is read of them here, what stores outbound ones in `enqueue`.

mod enqueue;

pub use self::enqueue::{Replayed, Stored, enqueue, find_replayed};

use std::time::Duration;

use sqlx::PgExecutor;

use super::{Direction, Message, Origin, Receipt, Status};
use crate::channel::Channel;
use crate::cursor::{Cursor, Start};
use crate::database::pool::Pool;
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
