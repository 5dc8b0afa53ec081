//! The statements of receipts. None writes a message's status.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::steps::Steps;
use crate::channel::Channel;
use crate::database::pool::Pool;
use crate::delivery::Status;
use crate::id::{ConversationId, MessageId};

/// What is known of a message by the provider's id.
pub struct Row {
    pub provider_message_id: String,
    /// Whether this is the row that was changed now, and not how it was before.
    pub is_changed: bool,
    /// None: no message is known by that id.
    pub message_id: Option<MessageId>,
    /// As they were before.
    pub sent_at: Option<DateTime<Utc>>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
    pub played_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
    pub error_code: Option<i64>,
}

/// Adds what statuses say of each message to its row, which need not be there; never backwards. A
/// row that would stay as it is, is not written. Returns a row for each that was changed, and one
/// for each that there was before.
pub async fn record(
    connection: &mut PgConnection,
    told: &BTreeMap<&str, Steps<'_>>,
) -> sqlx::Result<Vec<Row>> {
    let ids: Vec<&str> = told.keys().copied().collect();
    let times = |of: fn(&Steps<'_>) -> Option<DateTime<Utc>>| -> Vec<Option<DateTime<Utc>>> {
        told.values().map(of).collect()
    };
    let sent = times(|steps| steps.sent_at);
    let delivered = times(|steps| steps.delivered_at);
    let read = times(|steps| steps.read_at);
    let played = times(|steps| steps.played_at);
    let failed = times(|steps| steps.failed_at);
    let codes: Vec<Option<i64>> = told.values().map(|steps| steps.error_code).collect();
    let errors = || told.values().map(|steps| steps.error);
    let titles: Vec<Option<&str>> = errors().map(|error| error.map(|e| &*e.title)).collect();
    let details: Vec<Option<&str>> = errors()
        .map(|error| error.and_then(|e| e.detail.as_deref()))
        .collect();
    sqlx::query_as!(
        Row,
        r#"-- receipt::record
-- Locks receipts by their keys: sorted, so that batches cannot deadlock.
with inp as (
  select provider_message_id collate "C" as provider_message_id, sent_at, delivered_at, read_at, played_at, failed_at, error_code,
    error_title, error_detail
  from unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::bigint[],
      $8::text[], $9::text[])
    as t(provider_message_id, sent_at, delivered_at, read_at, played_at, failed_at, error_code, error_title, error_detail)
), written as (
  insert into receipts as r (provider_message_id, sent_at, delivered_at, read_at, played_at, failed_at, error_code, error_title,
    error_detail, received_at)
  select provider_message_id, sent_at, delivered_at, read_at, played_at, failed_at, error_code, error_title, error_detail, now()
  from inp order by provider_message_id
  on conflict (provider_message_id) do update set revision = r.revision + 1, received_at = coalesce(r.received_at, excluded.received_at),
    sent_at = least(r.sent_at, excluded.sent_at), delivered_at = least(r.delivered_at, excluded.delivered_at),
    read_at = least(r.read_at, excluded.read_at), played_at = least(r.played_at, excluded.played_at),
    failed_at = case when (excluded.error_code is not null, excluded.failed_at, coalesce(excluded.error_code, 0)) > (r.error_code is not null, coalesce(r.failed_at, '-infinity'), coalesce(r.error_code, 0)) then excluded.failed_at else r.failed_at end,
    error_code = case when (excluded.error_code is not null, excluded.failed_at, coalesce(excluded.error_code, 0)) > (r.error_code is not null, coalesce(r.failed_at, '-infinity'), coalesce(r.error_code, 0)) then excluded.error_code else r.error_code end,
    error_title = case when (excluded.error_code is not null, excluded.failed_at, coalesce(excluded.error_code, 0)) > (r.error_code is not null, coalesce(r.failed_at, '-infinity'), coalesce(r.error_code, 0)) then excluded.error_title else r.error_title end,
    error_detail = case when (excluded.error_code is not null, excluded.failed_at, coalesce(excluded.error_code, 0)) > (r.error_code is not null, coalesce(r.failed_at, '-infinity'), coalesce(r.error_code, 0)) then excluded.error_detail else r.error_detail end
  where excluded.sent_at < coalesce(r.sent_at, 'infinity') or excluded.delivered_at < coalesce(r.delivered_at, 'infinity')
    or excluded.read_at < coalesce(r.read_at, 'infinity') or excluded.played_at < coalesce(r.played_at, 'infinity')
    or (excluded.error_code is not null, excluded.failed_at, coalesce(excluded.error_code, 0)) > (r.error_code is not null, coalesce(r.failed_at, '-infinity'), coalesce(r.error_code, 0))
  returning provider_message_id, message_id
), changed as (
  insert into changes (updated_ids)
  select pg_catalog.array_agg(distinct message_id) from written where message_id is not null having count(*) > 0 on conflict do nothing
)
select provider_message_id as "provider_message_id!", true as "is_changed!", message_id as "message_id: MessageId",
  null::timestamptz as sent_at, null::timestamptz as delivered_at, null::timestamptz as read_at, null::timestamptz as played_at,
  null::timestamptz as failed_at, null::bigint as error_code
from written
union all
select provider_message_id, false, message_id, sent_at, delivered_at, read_at, played_at, failed_at, error_code
from receipts where provider_message_id = any($1::text[])"#,
        &ids as &[&str],
        &sent as &[Option<DateTime<Utc>>],
        &delivered as &[Option<DateTime<Utc>>],
        &read as &[Option<DateTime<Utc>>],
        &played as &[Option<DateTime<Utc>>],
        &failed as &[Option<DateTime<Utc>>],
        &codes as &[Option<i64>],
        &titles as &[Option<&str>],
        &details as &[Option<&str>],
    )
    .fetch_all(connection)
    .await
}

/// A message that a status was sent with the signed id of.
#[derive(Debug)]
pub struct Witnessed {
    /// The place in the arguments, from 1.
    pub place: i64,
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub participant_id: String,
    /// What the provider was called with, where that is not `participant_id`.
    pub address: Option<String>,
    pub status: Status,
    /// Whether somebody has claimed it at some time, and so may have sent it.
    pub was_attempted: bool,
    /// The participants that the recipient's ids lead to.
    pub number_leads_to: Option<String>,
    pub user_id_leads_to: Option<String>,
}

/// Finds these outbound messages, each with what the ids of a recipient lead to.
pub async fn find_witnessed(
    connection: &mut PgConnection,
    channel: Channel,
    message_ids: &[MessageId],
    numbers: &[Option<&str>],
    user_ids: &[Option<&str>],
) -> sqlx::Result<Vec<Witnessed>> {
    sqlx::query_as!(
        Witnessed,
        r#"-- receipt::find_witnessed
select t.place as "place!", m.id as "message_id: MessageId", m.conversation_id as "conversation_id: ConversationId", m.participant_id,
  m.address, m.status as "status: Status",   -- requeued by an operator, it counts its claims anew
  coalesce(d.attempt > 0, true) or m.retry_count > 0 or coalesce(m.error_ambiguous, false) as "was_attempted!",
  (select participant_id from aliases where alias = t.number) as number_leads_to,
  (select participant_id from aliases where alias = t.user_id) as user_id_leads_to
from unnest($1::uuid[], $2::text[], $3::text[]) with ordinality as t(message_id, number, user_id, place)
cross join lateral (select * from messages where id = t.message_id limit 1) m   -- fence: lookup
left join lateral (select attempt from deliveries where message_id = t.message_id limit 1) d on true   -- fence: lookup
where m.direction = 'OUTBOUND' and m.origin is null and m.channel = $4"#,
        message_ids as &[MessageId],
        numbers as &[Option<&str>],
        user_ids as &[Option<&str>],
        channel.as_str(),
    )
    .fetch_all(connection)
    .await
}

/// A message that was found out to have this id at the provider.
pub struct Bound {
    pub provider_message_id: String,
    pub message_id: MessageId,
    /// The id that it was settled with: another one, if it was sent twice.
    pub settled_with: String,
}

/// Writes down which message each of these ids is of, if no message is known by it and its message
/// is settled. Rows only for those.
pub async fn bind(
    connection: &mut PgConnection,
    provider_message_ids: &[&str],
    message_ids: &[MessageId],
) -> sqlx::Result<Vec<Bound>> {
    sqlx::query_as!(
        Bound,
        r#"-- receipt::bind
-- Locks receipts by their keys.
with held as (   -- fence: hidden (checked below)
  select provider_message_id, message_id from receipts where provider_message_id = any($1::text[]) order by provider_message_id for update
), settled as (
  select t.provider_message_id, m.id, m.provider_message_id as settled_with
  from unnest($1::text[], $2::uuid[]) as t(provider_message_id, message_id)
  cross join lateral (select * from messages where id = t.message_id limit 1) m   -- fence: lookup
  where m.provider_message_id is not null and t.provider_message_id = any(array(select provider_message_id from held where message_id is null))
), bound as (
  update receipts r set message_id = s.id, revision = r.revision + 1
  from settled s where r.provider_message_id = s.provider_message_id and r.provider_message_id = any($1::text[])   -- fence: keys
  returning r.provider_message_id, r.message_id, s.settled_with
), changed as (
  insert into changes (updated_ids) select pg_catalog.array_agg(distinct message_id) from bound having count(*) > 0 on conflict do nothing
)
select provider_message_id as "provider_message_id!", message_id as "message_id!: MessageId", settled_with as "settled_with!" from bound"#,
        provider_message_ids as &[&str],
        message_ids as &[MessageId],
    )
    .fetch_all(connection)
    .await
}

/// How much was removed, of each kind.
#[derive(Debug)]
pub struct Purged {
    pub receipts: i64,
    pub amendments: i64,
}

/// Removes at most `limit` receipts, and as many changes, of messages that have not become known
/// for so many days.
pub async fn purge(pool: &Pool, days: i32, limit: i64) -> sqlx::Result<Purged> {
    sqlx::query_as!(
        Purged,
        r#"-- receipt::purge
with old_receipt as (
  select provider_message_id from receipts
  where message_id is null and received_at < now() - pg_catalog.make_interval(days => $1)
  order by received_at limit $2 for update skip locked
), receipt as (
  delete from receipts where provider_message_id = any(array(select provider_message_id from old_receipt)) returning 1
), old_amendment as (
  select target_id, kind, sender from amendments
  where stored_at < now() - pg_catalog.make_interval(days => $1) order by stored_at limit $2 for update skip locked
), amendment as (
  delete from amendments a using old_amendment o where a.target_id = o.target_id and a.kind = o.kind and a.sender = o.sender
  returning 1
)
select (select count(*) from receipt) as "receipts!", (select count(*) from amendment) as "amendments!""#,
        days,
        limit,
    )
    .fetch_one(pool)
    .await
}
