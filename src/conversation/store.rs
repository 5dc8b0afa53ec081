//! The statements of the inbox.

use super::{Channel, Conversation, ConversationId, Filter, Start, Status};
use crate::database::pool::Pool;

/// A statement whose CTE `c` has rows of `conversations`, completed so that they become `Conversation`s.
macro_rules! query_conversations {
    ($head:literal, $tail:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            Conversation,
            $head
                + r#"
select c.id as "id!: ConversationId", c.channel as "channel!: Channel", c.participant_id as "participant_id!", c.status as "status!: Status",
  c.last_message_preview as "last_message_preview!", c.last_message_at as "last_message_at!", c.unread_count as "unread_count!",
  c.last_read_at, c.archived_at, c.created_at as "created_at!"
from c
"#
                + $tail
            $(, $argument)*
        )
    };
}

/// The inbox, or what is archived, newest first.
///
/// Each (channel, status) pair is a branch with its own `order by … limit`, which reads the index of the inbox, or that of what is
/// archived, from its end; without it PostgreSQL sorts the whole table. Ids come from the index alone, whole rows only for what is shown.
pub async fn list(
    pool: &Pool,
    filter: Filter,
    start: Start,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    match (start, filter.archived) {
        (Start::Skip(rows), false) => list_page(pool, filter, rows, limit).await,
        (Start::Skip(rows), true) => list_archived_page(pool, filter, rows, limit).await,
        (Start::After(at, id), false) => list_after(pool, filter, (at, id), limit).await,
        (Start::After(at, id), true) => list_archived_after(pool, filter, (at, id), limit).await,
    }
}

async fn list_page(
    pool: &Pool,
    filter: Filter,
    offset: i64,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    query_conversations!(
        r#"-- conversation::list_page
with page as (
  select * from (
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'whatsapp' and status = 'open'
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'whatsapp' and status = 'closed'
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'instagram' and status = 'open'
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'instagram' and status = 'closed'
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  ) branch order by last_message_at desc, id desc limit $3 offset $4
), c as (
  select c.*, page.last_message_at as place from page cross join lateral (select * from conversations where id = page.id limit 1) c   -- limit 1: row by row, never a join of the tables
)"#,
        "order by c.place desc, c.id desc",
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        limit,
        offset
    )
    .fetch_all(pool)
    .await
}

async fn list_after(
    pool: &Pool,
    filter: Filter,
    (last_message_at, id): (chrono::DateTime<chrono::Utc>, uuid::Uuid),
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    query_conversations!(
        r#"-- conversation::list_after
with page as (
  select * from (
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'whatsapp' and status = 'open' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'whatsapp' and status = 'closed' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'instagram' and status = 'open' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is null and channel = 'instagram' and status = 'closed' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint)
  ) branch order by last_message_at desc, id desc limit $3
), c as (
  select c.*, page.last_message_at as place from page cross join lateral (select * from conversations where id = page.id limit 1) c   -- limit 1: row by row, never a join of the tables
)"#,
        "order by c.place desc, c.id desc",
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        limit,
        last_message_at,
        id
    )
    .fetch_all(pool)
    .await
}

async fn list_archived_page(
    pool: &Pool,
    filter: Filter,
    offset: i64,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    query_conversations!(
        r#"-- conversation::list_archived_page
with page as (
  select * from (
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'whatsapp' and status = 'open'
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'whatsapp' and status = 'closed'
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'instagram' and status = 'open'
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'instagram' and status = 'closed'
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint + $4::bigint)
  ) branch order by last_message_at desc, id desc limit $3 offset $4
), c as (
  select c.*, page.last_message_at as place from page cross join lateral (select * from conversations where id = page.id limit 1) c   -- limit 1: row by row, never a join of the tables
)"#,
        "order by c.place desc, c.id desc",
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        limit,
        offset
    )
    .fetch_all(pool)
    .await
}

async fn list_archived_after(
    pool: &Pool,
    filter: Filter,
    (last_message_at, id): (chrono::DateTime<chrono::Utc>, uuid::Uuid),
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    query_conversations!(
        r#"-- conversation::list_archived_after
with page as (
  select * from (
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'whatsapp' and status = 'open' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'whatsapp' and status = 'closed' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'instagram' and status = 'open' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit $3::bigint)
  union all
  (select id, last_message_at from conversations
    where archived_at is not null and channel = 'instagram' and status = 'closed' and (last_message_at, id) < ($4::timestamptz, $5::uuid)
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit $3::bigint)
  ) branch order by last_message_at desc, id desc limit $3
), c as (
  select c.*, page.last_message_at as place from page cross join lateral (select * from conversations where id = page.id limit 1) c   -- limit 1: row by row, never a join of the tables
)"#,
        "order by c.place desc, c.id desc",
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        limit,
        last_message_at,
        id
    )
    .fetch_all(pool)
    .await
}

/// One conversation.
pub async fn find(pool: &Pool, id: ConversationId) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        r#"-- conversation::find
with c as (select * from conversations where id = $1)"#,
        "",
        id as ConversationId
    )
    .fetch_optional(pool)
    .await
}

/// Nothing unread is left at this moment; a message that comes in later counts again.
pub async fn mark_read(pool: &Pool, id: ConversationId) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        r#"-- conversation::mark_read
with c as (update conversations set unread_count = $2, last_read_at = now() where id = $1 returning *)"#,
        "",
        id as ConversationId,
        0 // a parameter, so that no read takes the same ones as this write: a pooler could mix them up
    )
    .fetch_optional(pool)
    .await
}

/// Opens or closes a conversation.
pub async fn set_status(
    pool: &Pool,
    id: ConversationId,
    status: Status,
) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        r#"-- conversation::set_status
with c as (update conversations set status = $2 where id = $1 returning *)"#,
        "",
        id as ConversationId,
        status as Status
    )
    .fetch_optional(pool)
    .await
}

/// Takes a conversation out of the inbox, or puts it back. One that is archived already keeps its time.
pub async fn set_archived(
    pool: &Pool,
    id: ConversationId,
    archived: bool,
) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        r#"-- conversation::set_archived
with c as (
  update conversations c set archived_at = case when $2::bool then coalesce(c.archived_at, t.at) end
  from (select now() as at) t where c.id = $1 returning c.*)"#,
        "",
        id as ConversationId,
        archived
    )
    .fetch_optional(pool)
    .await
}
