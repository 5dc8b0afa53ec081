//! The statements of the inbox.

use super::{Conversation, Filter, Status};
use crate::channel::Channel;
use crate::cursor::{Cursor, Start};
use crate::database::pool::Pool;
use crate::id::ConversationId;
use crate::message::Direction;

/// Completes the CTE `c`, which has rows of `conversations`, to a statement that returns
/// `Conversation`s.
macro_rules! query_conversations {
    ([$($head:literal)+], $tail:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            Conversation,
            $($head +)+ r#"
select c.id as "id!: ConversationId", c.channel as "channel!: Channel", c.participant_id as "participant_id!",
  c.status as "status!: Status", c.last_message_preview as "last_message_preview!",
  coalesce((select direction from messages where id = c.last_message_id), 'INBOUND') as "last_message_direction!: Direction",
  c.last_message_at as "last_message_at!", c.unread_count as "unread_count!",
  c.inbound_count as "inbound_count!", c.last_read_at, c.archived_at, c.created_at as "created_at!", c.revision as "revision!",
  c.participant_name, c.window_from
from c
"#
                + $tail
            $(, $argument)*
        )
    };
}

/// A list: the newest of the conversations that are `$which`.
///
/// Each (channel, status) pair is a branch of its own (SCHEMA.md, "Lists and plans"). Ids come from
/// the index alone, whole rows only for what is shown.
macro_rules! query_list {
    ($head:literal, $which:literal, $rows:literal, $page:literal $(, $argument:expr)*) => {
        query_conversations!(
            [$head "with page as (
  select * from (   -- fence: branches
  (select id, last_message_at from conversations
    where channel = 'whatsapp' and status = 'open' and " $which "
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit " $rows ")
  union all
  (select id, last_message_at from conversations
    where channel = 'whatsapp' and status = 'closed' and " $which "
      and coalesce($1::text, 'whatsapp') = 'whatsapp' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit " $rows ")
  union all
  (select id, last_message_at from conversations
    where channel = 'instagram' and status = 'open' and " $which "
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'open') = 'open'
    order by last_message_at desc, id desc limit " $rows ")
  union all
  (select id, last_message_at from conversations
    where channel = 'instagram' and status = 'closed' and " $which "
      and coalesce($1::text, 'instagram') = 'instagram' and coalesce($2::text, 'closed') = 'closed'
    order by last_message_at desc, id desc limit " $rows ")
  ) branch order by last_message_at desc, id desc limit " $page "
), c as (
  select c.*, page.last_message_at as place
  from page cross join lateral (select * from conversations where id = page.id limit 1) c   -- fence: lookup
)"],
            "order by c.place desc, c.id desc"
            $(, $argument)*
        )
    };
}

/// The inbox, or what is archived, newest first; of a filter's `unread` see [`super::search`].
pub async fn list(
    pool: &Pool,
    filter: Filter,
    start: Start,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    match (start, filter.archived) {
        (Start::Skip(rows), false) => list_page(pool, filter, rows, limit).await,
        (Start::Skip(rows), true) => list_archived_page(pool, filter, rows, limit).await,
        (Start::After(cursor), false) => list_after(pool, filter, cursor, limit).await,
        (Start::After(cursor), true) => list_archived_after(pool, filter, cursor, limit).await,
    }
}

async fn list_page(
    pool: &Pool,
    filter: Filter,
    offset: i64,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    query_list!(
        r#"-- conversation::list_page
"#,
        "archived_at is null",
        "$3::bigint + $4::bigint",
        "$3 offset $4",
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
    Cursor { at, id }: Cursor,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    query_list!(
        r#"-- conversation::list_after
"#,
        "archived_at is null and (last_message_at, id) < ($4::timestamptz, $5::uuid)",
        "$3::bigint",
        "$3",
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        limit,
        at,
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
    query_list!(
        r#"-- conversation::list_archived_page
"#,
        "archived_at is not null",
        "$3::bigint + $4::bigint",
        "$3 offset $4",
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
    Cursor { at, id }: Cursor,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    query_list!(
        r#"-- conversation::list_archived_after
"#,
        "archived_at is not null and (last_message_at, id) < ($4::timestamptz, $5::uuid)",
        "$3::bigint",
        "$3",
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        limit,
        at,
        id
    )
    .fetch_all(pool)
    .await
}

/// How many conversations have a participant in this range (the end is not in it), up to a limit.
pub async fn count_matching(
    pool: &Pool,
    (begin, end): (&str, &str),
    limit: i64,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- conversation::count_matching
select count(*) as "count!" from (
  select from conversations
  where participant_id >= (select $1::text) and (participant_id, channel) < ((select $2::text), '')   -- fence: guess
  order by participant_id, channel limit $3) c"#,
        begin,
        end,
        limit
    )
    .fetch_one(pool)
    .await
}

/// The newest of the conversations that have a participant in this range. There must be at most
/// `most` of them, with what the filter leaves out.
pub async fn list_matching(
    pool: &Pool,
    (begin, end): (&str, &str),
    most: i64,
    filter: Filter,
    start: Start,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    let (offset, after) = start.split();
    query_conversations!(
        [r#"-- conversation::list_matching
with found as (
  select * from conversations
  where participant_id >= (select $1::text) and (participant_id, channel) < ((select $2::text), '')   -- fence: guess
  order by participant_id, channel limit $3
), c as (
  select * from found
  where coalesce($4, channel) = channel and coalesce($5, status) = status and (archived_at is not null) = $6
    and (unread_count > 0 or not $7::bool) and ($8::timestamptz is null or (last_message_at, id) < ($8, $9))
  order by last_message_at desc, id desc limit $10 offset $11
)"#],
        "order by c.last_message_at desc, c.id desc",
        begin,
        end,
        most,
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        filter.archived,
        filter.unread,
        after.map(|cursor| cursor.at),
        after.map(|cursor| cursor.id),
        limit,
        offset
    )
    .fetch_all(pool)
    .await
}

/// How many conversations have unread messages, up to a limit.
pub async fn count_unread(pool: &Pool, limit: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- conversation::count_unread
select count(*) as "count!" from (select from unread limit $1) u"#,
        limit
    )
    .fetch_one(pool)
    .await
}

/// The newest of the conversations that have unread messages, and a participant in this range if
/// there is one. There must be at most `most` of them, with what the filter leaves out.
pub async fn list_unread(
    pool: &Pool,
    range: Option<(&str, &str)>,
    most: i64,
    filter: Filter,
    start: Start,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    let (offset, after) = start.split();
    query_conversations!(
        [r#"-- conversation::list_unread
with found as (
  select * from conversations where id = any(array(select conversation_id from unread limit $3)) limit $3
), c as (
  select * from found
  where unread_count > 0   -- what was read while a message came in may still be there
    and ($1::text is null or participant_id >= $1 and participant_id < $2)
    and coalesce($4, channel) = channel and coalesce($5, status) = status and (archived_at is not null) = $6
    and ($7::timestamptz is null or (last_message_at, id) < ($7, $8))
  order by last_message_at desc, id desc limit $9 offset $10
)"#],
        "order by c.last_message_at desc, c.id desc",
        range.map(|(begin, _)| begin),
        range.map(|(_, end)| end),
        most,
        filter.channel.map(Channel::as_str),
        filter.status.map(Status::as_str),
        filter.archived,
        after.map(|cursor| cursor.at),
        after.map(|cursor| cursor.id),
        limit,
        offset
    )
    .fetch_all(pool)
    .await
}

pub async fn find(pool: &Pool, id: ConversationId) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        [r#"-- conversation::find
with c as (select * from conversations where id = $1)"#],
        "",
        id as ConversationId
    )
    .fetch_optional(pool)
    .await
}

/// The conversations with these ids, for the feed.
pub async fn list_changed(pool: &Pool, ids: &[ConversationId]) -> sqlx::Result<Vec<Conversation>> {
    query_conversations!(
        [r#"-- conversation::list_changed
with c as (select * from conversations where id = any($1::uuid[]) limit $2)"#],
        "",
        ids as &[ConversationId],
        // A second parameter: `delivery::release` has only the first one.
        i64::try_from(ids.len()).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await
}

/// Leaves unread what came in after the first `seen` messages, but never more than is unread.
pub async fn mark_read(
    pool: &Pool,
    id: ConversationId,
    seen: i64,
) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        [r#"-- conversation::mark_read
with c as (
  update conversations set unread_count = least(unread_count, greatest(inbound_count - $1, 0)), last_read_at = now(), revision = revision + 1
  where id = $2 returning *
), seen as (
  delete from unread where conversation_id in (select id from c where unread_count = 0)
), changed as (insert into changes (conversation_ids) select array[id] from c on conflict do nothing)"#],
        "",
        seen, // First: no read may take the parameters of a write, since a pooler could mix them up.
        id as ConversationId
    )
    .fetch_optional(pool)
    .await
}

pub async fn set_status(
    pool: &Pool,
    id: ConversationId,
    status: Status,
) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        [r#"-- conversation::set_status
with c as (
  update conversations set status = $2, revision = revision + 1 where id = $1 returning *
), changed as (insert into changes (conversation_ids) select array[id] from c on conflict do nothing)"#],
        "",
        id as ConversationId,
        status as Status
    )
    .fetch_optional(pool)
    .await
}

/// Moves a conversation out of the inbox, or back. One that is archived already keeps its time.
pub async fn set_archived(
    pool: &Pool,
    id: ConversationId,
    archived: bool,
) -> sqlx::Result<Option<Conversation>> {
    query_conversations!(
        [r#"-- conversation::set_archived
with c as (
  update conversations c set archived_at = case when $2::bool then coalesce(c.archived_at, t.at) end, revision = c.revision + 1
  from (select now() as at) t where c.id = $1 returning c.*
), changed as (insert into changes (conversation_ids) select array[id] from c on conflict do nothing)"#],
        "",
        id as ConversationId,
        archived
    )
    .fetch_optional(pool)
    .await
}
