//! The statements of the hand-written transaction, on tables of its own. They have what the
//! gateway's tables have for an inbound event.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::channel::Channel;
use crate::id::{ConversationId, MessageId};

/// An inbound event.
pub struct Event {
    pub id: String,
    pub channel: Channel,
    pub participant_id: String,
    pub text: String,
    pub timestamp: DateTime<Utc>,
    pub message_id: MessageId,
    pub body: Bytes,
}

/// Makes the tables. It is an error if they exist.
pub async fn create(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Checked at run time, as all of these are: the tables are no part of the gateway's schema.
    sqlx::raw_sql(
        r#"-- baseline::create
create schema hand_written;
create table hand_written.conversations (
  id uuid primary key,
  channel text collate "C" not null check (channel in ('whatsapp', 'instagram')),
  participant_id text collate "C" not null,
  status text collate "C" not null default 'open' check (status in ('open', 'closed')),
  last_message_id uuid not null,
  last_message_at timestamptz not null,
  last_message_preview text not null,
  unread_count integer not null default 0 check (unread_count >= 0),
  archived_at timestamptz,
  created_at timestamptz not null default now(),
  unique (participant_id, channel)
);
create index conversations_inbox on hand_written.conversations (channel, status, last_message_at desc, id desc)
  where archived_at is null;
create table hand_written.messages (
  id uuid primary key,
  conversation_id uuid not null references hand_written.conversations,
  channel text collate "C" not null,
  participant_id text collate "C" not null,
  direction text not null check (direction in ('INBOUND', 'OUTBOUND')),
  text text not null,
  status text not null,
  timestamp timestamptz not null,
  sort_at timestamptz not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index messages_thread on hand_written.messages (conversation_id, sort_at desc, id desc);
create table hand_written.webhook_events (
  provider text collate "C" not null,
  event_id text collate "C" not null,
  message_id uuid not null,
  body bytea,
  received_at timestamptz not null default now(),
  primary key (event_id, provider)
)"#,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn begin(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(
        "-- baseline::begin
begin",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// After this the event is durable.
pub async fn commit(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(
        "-- baseline::commit
commit",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The first statement. Returns whether the event is new.
pub async fn insert_event(connection: &mut PgConnection, event: &Event) -> sqlx::Result<bool> {
    let inserted = sqlx::query(
        "-- baseline::insert_event
insert into hand_written.webhook_events (provider, event_id, message_id, body) values ('mock-meta', $1, $2, $3)
on conflict (event_id, provider) do nothing",
    )
    .bind(&event.id)
    .bind(event.message_id)
    .bind(&event.body[..])
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The second: makes the event's conversation, or updates it.
pub async fn upsert_conversation(
    connection: &mut PgConnection,
    event: &Event,
) -> sqlx::Result<ConversationId> {
    sqlx::query_scalar(
        "-- baseline::upsert_conversation
insert into hand_written.conversations as c
  (id, channel, participant_id, unread_count, last_message_id, last_message_at, last_message_preview)
values ($1, $2, $3, 1, $4, least($5, now() + interval '10 minutes'), left($6, 200))
on conflict (participant_id, channel) do update set
  unread_count = c.unread_count + 1, status = 'open', archived_at = null,
  last_message_id = case
    when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id)
    then excluded.last_message_id else c.last_message_id end,
  last_message_preview = case
    when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id)
    then excluded.last_message_preview else c.last_message_preview end,
  last_message_at = greatest(excluded.last_message_at, c.last_message_at)
returning id",
    )
    .bind(ConversationId::new())
    .bind(event.channel)
    .bind(&event.participant_id)
    .bind(event.message_id)
    .bind(event.timestamp)
    .bind(&event.text)
    .fetch_one(connection)
    .await
}

/// The third: the message.
pub async fn insert_message(
    connection: &mut PgConnection,
    event: &Event,
    conversation_id: ConversationId,
) -> sqlx::Result<()> {
    sqlx::query(
        "-- baseline::insert_message
insert into hand_written.messages
  (id, conversation_id, channel, participant_id, direction, text, status, timestamp, sort_at)
values ($1, $2, $3, $4, 'INBOUND', $5, 'RECEIVED', $6, least($6, now() + interval '10 minutes'))",
    )
    .bind(event.message_id)
    .bind(conversation_id)
    .bind(event.channel)
    .bind(&event.participant_id)
    .bind(&event.text)
    .bind(event.timestamp)
    .execute(connection)
    .await?;
    Ok(())
}

/// The ids that a known event has made.
pub async fn find_known(
    connection: &mut PgConnection,
    event_id: &str,
) -> sqlx::Result<(ConversationId, MessageId)> {
    sqlx::query_as(
        "-- baseline::find_known
select m.conversation_id, m.id from hand_written.webhook_events e join hand_written.messages m on m.id = e.message_id
where e.provider = 'mock-meta' and e.event_id = $1",
    )
    .bind(event_id)
    .fetch_one(connection)
    .await
}

/// Returns the numbers of events, messages and unread messages.
pub async fn count(connection: &mut PgConnection) -> sqlx::Result<(i64, i64, i64)> {
    sqlx::query_as(
        "-- baseline::count
select (select count(*) from hand_written.webhook_events), (select count(*) from hand_written.messages),
  (select coalesce(pg_catalog.sum(unread_count), 0::bigint) from hand_written.conversations)",
    )
    .fetch_one(connection)
    .await
}
