//! The statements of ingest: the event's key decides what is new.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Event, PROVIDER};
use crate::conversation::ConversationId;
use crate::database::pool::Pool;
use crate::message::MessageId;

/// The message of a new event.
pub struct Ingested {
    /// The message.
    pub message_id: MessageId,
    /// Its conversation.
    pub conversation_id: ConversationId,
}

/// Stores each new event once, with its message, and moves its conversation; a known event changes nothing. One row a new
/// event, in no order.
pub async fn ingest(
    connection: &mut PgConnection,
    events: &[&Event],
) -> sqlx::Result<Vec<Ingested>> {
    let event_ids: Vec<&str> = events.iter().map(|e| &*e.event_id).collect();
    let channels: Vec<&str> = events.iter().map(|e| e.channel.as_str()).collect();
    let participant_ids: Vec<&str> = events.iter().map(|e| &*e.participant_id).collect();
    let texts: Vec<&str> = events.iter().map(|e| &*e.text).collect();
    let timestamps: Vec<DateTime<Utc>> = events.iter().map(|e| e.timestamp).collect();
    let conversation_ids: Vec<ConversationId> = events.iter().map(|e| e.conversation_id).collect();
    let message_ids: Vec<MessageId> = events.iter().map(|e| e.message_id).collect();
    let bodies: Vec<&[u8]> = events.iter().map(|e| &*e.body).collect();
    sqlx::query_as!(
        Ingested,
        r#"-- webhook::ingest
-- Locks events by event_id, then conversations by (channel, participant_id): sorted, so that concurrent batches cannot deadlock.
with inp as (   -- in the order of the keys' columns: by bytes
  select event_id collate "C" as event_id, channel collate "C" as channel, participant_id collate "C" as participant_id, text, timestamp,
         conversation_id, message_id, body, ord, least(timestamp, now() + interval '10 minutes') as sort_at
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::uuid[], $8::uuid[], $9::bytea[])
    with ordinality as t(event_id, channel, participant_id, text, timestamp, conversation_id, message_id, body, ord)
), first as (
  select distinct on (event_id) * from inp order by event_id, ord
), event as (
  insert into webhook_events (provider, event_id, message_id, body)
  select $1::text, event_id, message_id, body from first order by event_id
  on conflict (event_id, provider) do nothing returning event_id
), fresh as (
  select f.* from first f join event e on e.event_id = f.event_id
), agg as (
  select channel, participant_id, count(*)::int as n, max(sort_at) as sort_at, (pg_catalog.array_agg(conversation_id order by ord))[1] as id,
         (pg_catalog.array_agg(message_id order by sort_at desc, message_id desc))[1] as message_id,
         (pg_catalog.array_agg(text order by sort_at desc, message_id desc))[1] as preview
  from fresh group by channel, participant_id
), conv as (
  insert into conversations as c (id, channel, participant_id, unread_count, last_message_id, last_message_at, last_message_preview)
  select id, channel, participant_id, n, message_id, sort_at, left(preview, 200) from agg order by channel, participant_id
  on conflict (participant_id, channel) do update set
    unread_count = c.unread_count + excluded.unread_count, status = 'open', archived_at = null,
    last_message_id = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_id else c.last_message_id end,
    last_message_preview = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_preview else c.last_message_preview end,
    last_message_at = greatest(excluded.last_message_at, c.last_message_at)
  returning id, channel, participant_id
), msg as (
  insert into messages (id, conversation_id, channel, participant_id, direction, text, status, timestamp, sort_at)
  select f.message_id, c.id, f.channel, f.participant_id, 'INBOUND', f.text, 'RECEIVED', f.timestamp, f.sort_at
  from fresh f join conv c on c.channel = f.channel and c.participant_id = f.participant_id
  returning id, conversation_id
)
select id as "message_id: MessageId", conversation_id as "conversation_id: ConversationId" from msg"#,
        PROVIDER,
        &event_ids as &[&str],
        &channels as &[&str],
        &participant_ids as &[&str],
        &texts as &[&str],
        &timestamps,
        &conversation_ids as &[ConversationId],
        &message_ids as &[MessageId],
        &bodies as &[&[u8]],
    )
    .fetch_all(connection)
    .await
}

/// The message and the conversation of an event that was stored before.
pub struct Known {
    /// The event.
    pub event_id: String,
    /// Its message.
    pub message_id: MessageId,
    /// Its conversation.
    pub conversation_id: ConversationId,
}

/// Finds what known events made, and confirms it (see [`crate::database::store::confirm`]). A statement of its own: `ingest` cannot
/// see rows that were committed after it began.
pub async fn find_known(
    connection: &mut PgConnection,
    event_ids: &[&str],
) -> sqlx::Result<Vec<Known>> {
    sqlx::query_as!(
        Known,
        r#"-- webhook::find_known
with confirmed as materialized (   -- as database::confirm does
  select case when current_setting('synchronous_standby_names') <> '' then pg_catalog.pg_logical_emit_message(true, 'gateway', ''::text) end as at
)
select e.event_id, m.id as "message_id: MessageId", m.conversation_id as "conversation_id: ConversationId"
from confirmed cross join webhook_events e cross join lateral (
  select id, conversation_id from messages where id = e.message_id limit 1) m   -- limit 1: row by row, never a join of the tables
where e.provider = $1 and e.event_id = any($2::text[])"#,
        PROVIDER,
        event_ids as &[&str],
    )
    .fetch_all(connection)
    .await
}

/// Empties the bodies of at most `limit` events that were received longer ago than this, the oldest first, and returns how many
/// those are. Their keys stay. Never waits for a lock.
pub async fn empty_bodies(pool: &Pool, older_than_days: i32, limit: i64) -> sqlx::Result<u64> {
    let emptied = sqlx::query!(
        r#"-- webhook::empty_bodies
with old as (
  select event_id from webhook_events
  where received_at < now() - pg_catalog.make_interval(days => $2) and body is not null and provider = $1
  order by received_at limit $3 for update skip locked
)
update webhook_events set body = null where provider = $1 and event_id = any(array(select event_id from old))"#,
        PROVIDER,
        older_than_days,
        limit,
    )
    .execute(pool)
    .await?;
    Ok(emptied.rows_affected())
}
