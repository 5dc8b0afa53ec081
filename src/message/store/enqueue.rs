//! The statements that store outbound messages: each new one once, with its delivery.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::delivery::DeliveryPolicy;
use crate::id::{ConversationId, MessageId};
use crate::message::columns::{Columns, More};
use crate::message::{NewMessage, PREVIEW_LENGTH};

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
