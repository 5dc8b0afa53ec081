//! The statements that forget. None writes a status.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Forgotten, Request};
use crate::channel::Channel;
use crate::database::pool::Pool;
use crate::id::{ConversationId, MessageId};

/// Finds the conversation to forget, also by another id of its participant. None: nobody of that name has written or was written to.
pub async fn find(
    pool: &Pool,
    channel: Channel,
    participant_id: &str,
) -> sqlx::Result<Option<Request>> {
    sqlx::query_as!(
        Request,
        r#"-- forget::find
select id as "conversation_id: ConversationId", now() as "at!" from conversations
where channel = $1 and participant_id in ($2, (select participant_id from aliases where alias = $2 and $1 = $3))
order by participant_id = $2 desc limit 1"#,
        channel.as_str(),
        participant_id,
        Channel::Whatsapp.as_str(),
    )
    .fetch_optional(pool)
    .await
}

/// Counts what there is to forget.
///
/// A webhook's body and its message were stored in one statement, so they have the same time, by
/// which the index finds the body. An older version stored the body with the event.
pub async fn count(pool: &Pool, request: Request) -> sqlx::Result<Forgotten> {
    sqlx::query_as!(
        Forgotten,
        r#"-- forget::count
select count(*) filter (where text <> '') as "messages!", count(*) filter (where body) as "webhook_bodies!",
  count(*) filter (where unsent) as "canceled!"
from (
  select m.text,
    exists (select from webhook_bodies where received_at = m.created_at and message_id = m.id)
      or exists (
        select from webhook_events where received_at = m.created_at and message_id = m.id and body is not null) as body,
    exists (select from deliveries where message_id = m.id and due_at is not null) as unsent
  from messages m where m.conversation_id = $1 and m.created_at <= $2) m"#,
        request.conversation_id as ConversationId,
        request.at,
    )
    .fetch_one(pool)
    .await
}

/// Lists the messages that will be sent, or are being sent.
pub async fn list_unsent(pool: &Pool, request: Request) -> sqlx::Result<Vec<MessageId>> {
    sqlx::query_scalar!(
        r#"-- forget::list_unsent
select d.message_id as "message_id: MessageId"
from deliveries d cross join lateral (select created_at from messages where id = d.message_id limit 1) m   -- fence: lookup
where d.conversation_id = $1 and d.due_at is not null and m.created_at <= $2 order by d.message_id"#,
        request.conversation_id as ConversationId,
        request.at,
    )
    .fetch_all(pool)
    .await
}

/// How much a statement has emptied, and the last message that it looked at.
pub struct Emptied {
    pub messages: i64,
    pub webhook_bodies: i64,
    /// None: there was no further message.
    pub sort_at: Option<DateTime<Utc>>,
    pub id: Option<Uuid>,
}

/// Empties the next `limit` messages before this place and the webhooks that they came in, but no
/// message that is still to be sent. Parked messages leave the queue, so that nobody sends an empty
/// text.
pub async fn empty(
    pool: &Pool,
    request: Request,
    (before, before_id): (DateTime<Utc>, Uuid),
    limit: i64,
) -> sqlx::Result<Emptied> {
    sqlx::query_as!(
        Emptied,
        r#"-- forget::empty
-- Locks deliveries by message_id, then their messages, then receipts by their keys.
with old as (
  select id, sort_at, created_at, provider_message_id from messages
  where conversation_id = $1 and created_at <= $2 and (sort_at, id) < ($3, $4) order by sort_at desc, id desc limit $5
), held as (
  select message_id, due_at from deliveries where message_id = any(array(select id from old))
  order by message_id for update
), gone as (
  delete from deliveries where message_id = any(array(select message_id from held where due_at is null))
), shown as (    -- sorted, as whoever writes into messages that are not in the queue
  select id from messages
  where id = any(array(select id from old where id <> all(array(select message_id from held where due_at is not null))))
    and (text <> '' or error_detail <> '' or content is not null or participant_name is not null or reactions is not null)
  order by id for update
), msg as (
  update messages set text = '', error_detail = case when error_detail is not null then '' end, content = null, participant_name = null,
    reactions = null, updated_at = now(), revision = revision + 1
  where id = any(array(select id from shown)) returning id
), told as (     -- the rows stay: without them the messages' revisions would go backwards
  select provider_message_id from receipts
  where provider_message_id = any(array(select provider_message_id from old)) and (error_title <> '' or error_detail <> '')
    and (select count(*) from msg) is not null   -- after the messages
  order by provider_message_id for update
), receipt as (
  update receipts set error_title = null, error_detail = null, revision = revision + 1
  where provider_message_id = any(array(select provider_message_id from told)) returning provider_message_id
), body as (
  delete from webhook_bodies b using old o where b.received_at = o.created_at and b.message_id = o.id
  returning b.message_id
), event as (
  update webhook_events e set body = null from old o
  where e.received_at = o.created_at and e.message_id = o.id and e.body is not null
  returning e.event_id
), changed as (
  insert into changes (updated_ids)
  select pg_catalog.array_agg(id) from old
  where id = any(array(select id from msg)) or provider_message_id = any(array(select provider_message_id from receipt))
  having count(*) > 0 on conflict do nothing
), last as (
  select sort_at, id from old order by sort_at, id limit 1
)
select (select count(*) from msg) as "messages!",
  (select count(*) from body) + (select count(*) from event) as "webhook_bodies!",
  (select sort_at from last) as sort_at, (select id from last) as id"#,
        request.conversation_id as ConversationId,
        request.at,
        before,
        before_id,
        limit,
    )
    .fetch_one(pool)
    .await
}

/// Empties what else is known of who it is: the name, the other ids, and what has come about
/// messages. Of a number that another person has by now, it stays known that it is not this one's.
pub async fn empty_names(pool: &Pool, request: Request) -> sqlx::Result<()> {
    sqlx::query!(
        r#"-- forget::empty_names
-- Locks the conversation, then aliases and changes of messages by their keys.
with who as (
  select participant_id from conversations where id = $1 and channel = $3
), named as (
  update conversations c set participant_name = null, revision = c.revision + 1
  where id = $1 and participant_name is not null returning id
), old_alias as (
  select alias from aliases where participant_id = (select participant_id from who) and not changed_hands order by alias for update
), alias as (
  delete from aliases where alias = any(array(select alias from old_alias))
), old_amendment as (
  select target_id, kind, sender from amendments
  where participant_id = (select participant_id from who) and stored_at <= $2 order by target_id, kind, sender for update
), amendment as (
  delete from amendments a using old_amendment o where a.target_id = o.target_id and a.kind = o.kind and a.sender = o.sender
)
insert into changes (conversation_ids) select array[id] from named on conflict do nothing"#,
        request.conversation_id as ConversationId,
        request.at,
        Channel::Whatsapp.as_str(),
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Empties the preview if the newest message is empty.
pub async fn empty_preview(pool: &Pool, conversation_id: ConversationId) -> sqlx::Result<()> {
    sqlx::query!(
        r#"-- forget::empty_preview
with emptied as (
  update conversations c set last_message_preview = $2, revision = c.revision + 1
  where id = $1 and last_message_preview <> '' and (select text from messages where id = c.last_message_id) = ''
  returning id
)
insert into changes (conversation_ids) select array[id] from emptied on conflict do nothing"#,
        conversation_id as ConversationId,
        ""
    )
    .execute(pool)
    .await?;
    Ok(())
}
