//! The statements of ingest: the event's key decides what is new.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Event, MOST_AHEAD, PROVIDER};
use crate::database::pool::Pool;
use crate::id::{ConversationId, MessageId};
use crate::message::PREVIEW_LENGTH;

/// The message of a new event.
pub struct Ingested {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
}

/// Stores each new event once, with its message, and moves its conversation. A known event changes
/// nothing. Returns a row for each new event, in no order.
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
-- Locks events by event_id, then conversations by (channel, participant_id): sorted, so that batches cannot deadlock.
with inp as (   -- in the order of the keys' columns: by bytes
  select event_id collate "C" as event_id, channel collate "C" as channel, participant_id collate "C" as participant_id,
         text, timestamp, conversation_id, message_id, body, ord,
         least(timestamp, now() + pg_catalog.make_interval(secs => $10)) as sort_at
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::uuid[], $8::uuid[], $9::bytea[])
    with ordinality as t(event_id, channel, participant_id, text, timestamp, conversation_id, message_id, body, ord)
), first as (
  select distinct on (event_id) * from inp order by event_id, ord
), event as (
  insert into webhook_events (provider, event_id, message_id)
  select $1::text, event_id, message_id from first order by event_id
  on conflict (event_id, provider) do nothing returning event_id
), fresh as (
  select f.* from first f join event e on e.event_id = f.event_id
), body as (
  insert into webhook_bodies (message_id, body) select message_id, body from fresh
), agg as (
  select channel, participant_id, count(*)::int as n, max(sort_at) as sort_at,
         (pg_catalog.array_agg(conversation_id order by ord))[1] as id,
         (pg_catalog.array_agg(message_id order by sort_at desc, message_id desc))[1] as message_id,
         (pg_catalog.array_agg(text order by sort_at desc, message_id desc))[1] as preview
  from fresh group by channel, participant_id
), conv as (
  insert into conversations as c (id, channel, participant_id, unread_count, inbound_count, last_message_id, last_message_at,
    last_message_preview)
  select id, channel, participant_id, n, n, message_id, sort_at, left(preview, $11) from agg order by channel, participant_id
  on conflict (participant_id, channel) do update set revision = c.revision + 1,
    unread_count = c.unread_count + excluded.unread_count, inbound_count = c.inbound_count + excluded.inbound_count, status = 'open', archived_at = null,
    last_message_id = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_id else c.last_message_id end,
    last_message_preview = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_preview else c.last_message_preview end,
    last_message_at = greatest(excluded.last_message_at, c.last_message_at)
  returning id, channel, participant_id, unread_count
), now_unread as (
  insert into unread (conversation_id)
  select c.id from conv c join agg a on a.channel = c.channel and a.participant_id = c.participant_id
  where c.unread_count = a.n order by c.id   -- nothing was unread
  on conflict do nothing
), msg as (
  insert into messages (id, conversation_id, channel, participant_id, direction, text, status, timestamp, sort_at)
  select f.message_id, c.id, f.channel, f.participant_id, 'INBOUND', f.text, 'RECEIVED', f.timestamp, f.sort_at
  from fresh f join conv c on c.channel = f.channel and c.participant_id = f.participant_id
  returning id, conversation_id
), changed as (
  insert into changes (conversation_ids, created_ids)
  select pg_catalog.array_agg(distinct conversation_id), pg_catalog.array_agg(id) from msg having count(*) > 0 on conflict do nothing
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
        MOST_AHEAD.as_secs_f64(),
        PREVIEW_LENGTH,
    )
    .fetch_all(connection)
    .await
}

/// The message and the conversation of an event that was stored before.
#[expect(clippy::struct_field_names, reason = "columns of these names")]
pub struct Known {
    pub event_id: String,
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
}

/// Finds what known events made, and confirms it (see [`crate::database::store::confirm`]). A
/// statement of its own: `ingest` cannot see rows that were committed after it began.
pub async fn find_known(
    connection: &mut PgConnection,
    event_ids: &[&str],
) -> sqlx::Result<Vec<Known>> {
    sqlx::query_as!(
        Known,
        r#"-- webhook::find_known
with confirmed as materialized (   -- as database::confirm does
  select case when current_setting('synchronous_standby_names') <> ''
    then pg_catalog.pg_logical_emit_message(true, 'gateway', ''::text) end as at
)
select e.event_id, m.id as "message_id: MessageId", m.conversation_id as "conversation_id: ConversationId"
from confirmed cross join webhook_events e cross join lateral (
  select id, conversation_id from messages where id = e.message_id limit 1) m   -- fence: lookup
where e.provider = $1 and e.event_id = any($2::text[])"#,
        PROVIDER,
        event_ids as &[&str],
    )
    .fetch_all(connection)
    .await
}

/// Makes the tables of bodies of this month and the next twelve, if this role owns them and nobody
/// else is at it. This month gets none when some of its bodies are elsewhere already.
pub async fn make_months(pool: &Pool) -> sqlx::Result<()> {
    // Checked at run time: it cannot be prepared.
    sqlx::raw_sql(
        "-- webhook::make_months
-- Webhooks go on meanwhile: to attach a table locks the rest, but neither the whole nor the other months.
do $$
declare
  home text;
  may boolean;
  month timestamp := pg_catalog.date_trunc('month', now() at time zone 'UTC');
  name text;
  who regrole;
begin
  select n.nspname, pg_catalog.pg_has_role(t.relowner, 'usage') and pg_catalog.has_schema_privilege(n.oid, 'create') into home, may
  from pg_catalog.pg_class t join pg_catalog.pg_namespace n on n.oid = t.relnamespace where t.oid = pg_catalog.to_regclass('webhook_bodies')::oid;
  if may is not true or not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.to_regclass('webhook_bodies')::oid::bigint) then
    return;
  end if;
  if exists (select from webhook_bodies_rest where received_at >= month at time zone 'UTC') then
    month := month + interval '1 month';
  end if;
  for n in 1..13 loop
    name := pg_catalog.format('%I.%I', home, 'webhook_bodies_' || pg_catalog.to_char(month, 'YYYY_MM'));
    if pg_catalog.to_regclass(name) is null then
      execute pg_catalog.format('create table %s (like %I.webhook_bodies including defaults)', name, home);
      execute pg_catalog.format('alter table %I.webhook_bodies attach partition %s for values from (%L) to (%L)', home, name,
        pg_catalog.to_char(month, 'YYYY-MM-DD 00:00:00+00'), pg_catalog.to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'));
    end if;
    -- Whoever may delete bodies may empty a month of them.
    for who in
      select distinct a.grantee from pg_catalog.pg_class t cross join lateral pg_catalog.aclexplode(t.relacl) a
      where t.oid = pg_catalog.to_regclass('webhook_bodies')::oid and a.privilege_type = 'DELETE' and a.grantee <> 0::oid
        and not pg_catalog.has_table_privilege(a.grantee, pg_catalog.to_regclass(name)::oid, 'truncate')
    loop
      execute pg_catalog.format('grant truncate on %s to %s', name, who);
    end loop;
    month := month + interval '1 month';
  end loop;
end $$",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A month whose bodies are old.
pub struct Month {
    /// The name of its table, as SQL has it.
    pub name: String,
    /// About how many bodies it has.
    pub bodies: i64,
}

/// The oldest month that has bodies, if all were received longer ago than this, and this role may
/// empty it as a whole.
pub async fn find_old_month(pool: &Pool, older_than_days: i32) -> sqlx::Result<Option<Month>> {
    // PostgreSQL's estimate, which it has of all but the smallest tables. A count would read all.
    sqlx::query_as!(
        Month,
        r#"-- webhook::find_old_month
select pg_catalog.format('%I.%I', n.nspname, t.relname) as "name!",
  case when t.reltuples >= 0::float4 then t.reltuples::bigint else (
    select count(*) from webhook_bodies b where b.received_at >= m.day::timestamp at time zone 'UTC'
      and b.received_at < (m.day + interval '1 month') at time zone 'UTC') end as "bodies!"
from pg_catalog.pg_inherits i join pg_catalog.pg_class t on t.oid = i.inhrelid join pg_catalog.pg_namespace n on n.oid = t.relnamespace
cross join lateral (select pg_catalog.to_date(pg_catalog.right(t.relname, 7), 'YYYY_MM') as day) m
where i.inhparent = pg_catalog.to_regclass('webhook_bodies')::oid and t.relname ~ '^webhook_bodies_[0-9]{4}_(0[1-9]|1[0-2])$'
  and pg_catalog.right(t.relname, 7) collate "C" < pg_catalog.to_char((now() - pg_catalog.make_interval(days => $1)) at time zone 'UTC', 'YYYY_MM')
  and pg_catalog.pg_relation_size(t.oid) > 0 and pg_catalog.has_table_privilege(t.oid, 'truncate')
order by t.relname limit 1"#,
        older_than_days,
    )
    .fetch_optional(pool)
    .await
}

/// Empties a month as a whole. Nothing but that month is locked.
pub async fn empty_month(pool: &Pool, month: &Month) -> sqlx::Result<()> {
    // Checked at run time: a table's name is no parameter.
    sqlx::raw_sql(AssertSqlSafe(format!(
        "-- webhook::empty_month
truncate {}",
        month.name
    )))
    .execute(pool)
    .await?;
    Ok(())
}

/// Empties at most `limit` bodies of old months that could not be emptied as a whole, the oldest
/// first, and as many that older versions have stored with their events. Returns their number; none
/// if somebody else is at it. Keys stay. Never waits for a lock.
pub async fn empty_bodies(
    pool: &Pool,
    older_than_days: i32,
    limit: i64,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"-- webhook::empty_bodies
with turn as materialized (     -- one at a time in each schema
  select pg_catalog.date_trunc('month', now() - pg_catalog.make_interval(days => $2), 'UTC') as before
  where pg_catalog.pg_try_advisory_xact_lock(pg_catalog.to_regclass('webhook_bodies')::oid::bigint)
), old_body as (
  select received_at, message_id from webhook_bodies
  where received_at < (select before from turn) order by received_at limit $3 for update skip locked
), body as (
  delete from webhook_bodies b using old_body o where b.received_at = o.received_at and b.message_id = o.message_id
  returning b.message_id
), old_event as (
  select event_id from webhook_events
  where received_at < (select before from turn) and body is not null and provider = $1
  order by received_at limit $3 for update skip locked
), event as (
  update webhook_events set body = null where provider = $1 and event_id = any(array(select event_id from old_event))
  returning event_id
)
select (select count(*) from body) + (select count(*) from event) as "emptied!" from turn"#,
        PROVIDER,
        older_than_days,
        limit,
    )
    .fetch_optional(pool)
    .await
}
