//! The statements that store what a webhook of WhatsApp brings.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::channel::{Channel, PREVIEW_LENGTH};
use crate::database::pool::Pool;
use crate::delivery::Status;
use crate::id::{ConversationId, MessageId};
use crate::message::Direction;
use crate::provider::whatsapp::events::{Amendment, Change, Inbound, Origin};
use crate::webhook::MOST_AHEAD;

/// A message, with all that was found out about it.
#[derive(Debug)]
pub struct NewMessage<'a> {
    pub inbound: &'a Inbound,
    pub participant_id: &'a str,
    /// The message that it answers, if that is of the same conversation.
    pub reply_to_id: Option<MessageId>,
    /// Its id, if it is new.
    pub message_id: MessageId,
    /// The conversation's id, if that is new.
    pub conversation_id: ConversationId,
}

/// Stores each new message once, and moves its conversation: the customer's reopen it, and those
/// that somebody is to read are unread. A known one changes nothing. Returns the keys of those that
/// are new, in no order. [`crate::amendment::apply`] must follow.
pub async fn store_messages(
    connection: &mut PgConnection,
    messages: &[NewMessage<'_>],
) -> sqlx::Result<Vec<String>> {
    let columns = Columns::of(messages);
    sqlx::query_scalar!(
        r#"-- whatsapp::store_messages
-- Locks events by event_id, then conversations by (channel, participant_id), then receipts by provider_message_id: sorted, so that
-- batches cannot deadlock.
with inp as (   -- in the order of the keys' columns: by bytes
  select event_id collate "C" as event_id, participant_id collate "C" as participant_id, wamid collate "C" as wamid, type, text, content, name,
         origin, is_unread, reply_to, reply_to_id, timestamp, conversation_id, message_id, body, ord,
         least(timestamp, now() + pg_catalog.make_interval(secs => $17)) as sort_at
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bool[], $11::text[],
      $12::uuid[], $13::timestamptz[], $14::uuid[], $15::uuid[], $16::bytea[])
    with ordinality as t(event_id, participant_id, wamid, type, text, content, name, origin, is_unread, reply_to, reply_to_id, timestamp,
      conversation_id, message_id, body, ord)
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
  select participant_id, count(*) filter (where origin is null)::int as n, count(*) filter (where is_unread)::int as unread,
         max(sort_at) as sort_at, max(sort_at) filter (where origin is null) as window_from,
         (pg_catalog.array_agg(conversation_id order by ord))[1] as id,
         (pg_catalog.array_agg(message_id order by sort_at desc, message_id desc))[1] as message_id,
         (pg_catalog.array_agg(text order by sort_at desc, message_id desc))[1] as preview,
         (pg_catalog.array_agg(name order by sort_at desc, message_id desc) filter (where name is not null))[1] as name
  from fresh group by participant_id
), conv as (
  insert into conversations as c (id, channel, participant_id, unread_count, inbound_count, last_message_id, last_message_at,
    last_message_preview, participant_name, window_from)
  select id, $1::text, participant_id, unread, n, message_id, sort_at, left(preview, $18), name, window_from from agg order by participant_id
  on conflict (participant_id, channel) do update set revision = c.revision + 1,
    unread_count = c.unread_count + excluded.unread_count, inbound_count = c.inbound_count + excluded.inbound_count,
    status = case when excluded.inbound_count > 0 then 'open' else c.status end,
    archived_at = case when excluded.inbound_count > 0 then null else c.archived_at end,
    last_message_id = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_id else c.last_message_id end,
    last_message_preview = case when (excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id) then excluded.last_message_preview else c.last_message_preview end,
    participant_name = case when excluded.last_message_at >= c.last_message_at then coalesce(excluded.participant_name, c.participant_name) else coalesce(c.participant_name, excluded.participant_name) end,
    last_message_at = greatest(excluded.last_message_at, c.last_message_at),
    window_from = greatest(excluded.window_from, c.window_from)
  returning id, participant_id, unread_count
), now_unread as (
  insert into unread (conversation_id)
  select c.id from conv c join agg a on a.participant_id = c.participant_id
  where a.unread > 0 and c.unread_count = a.unread order by c.id   -- nothing was unread
  on conflict do nothing
), msg as (
  insert into messages (id, conversation_id, channel, participant_id, direction, type, text, content, status, provider_message_id, origin,
    participant_name, reply_to, reply_to_id, timestamp, sort_at, sent_at)
  select f.message_id, c.id, $1::text, f.participant_id, case when f.origin is null then 'INBOUND' else 'OUTBOUND' end, f.type, f.text, f.content,
    case when f.origin is null then $19::text else $20::text end, f.wamid, f.origin, case when f.origin is null then f.name end, f.reply_to,
    f.reply_to_id, f.timestamp, f.sort_at, case when f.origin is not null then f.timestamp end
  from fresh f join conv c on c.participant_id = f.participant_id
  returning id, conversation_id, provider_message_id, origin
), bound as (   -- statuses of what was written elsewhere may have come before
  insert into receipts as r (provider_message_id, message_id)
  select provider_message_id, id from msg where origin is not null and provider_message_id is not null order by provider_message_id
  on conflict (provider_message_id) do update set message_id = excluded.message_id where r.message_id is null
), changed as (
  insert into changes (conversation_ids, created_ids)
  select pg_catalog.array_agg(distinct conversation_id), pg_catalog.array_agg(id) from msg having count(*) > 0 on conflict do nothing
)
select f.event_id as "event_id!" from fresh f join msg m on m.id = f.message_id"#,
        Channel::Whatsapp.as_str(),
        &columns.event_ids as &[&str],
        &columns.participant_ids as &[&str],
        &columns.wamids as &[Option<&str>],
        &columns.kinds as &[&str],
        &columns.texts as &[&str],
        &columns.contents as &[&str],
        &columns.names as &[Option<&str>],
        &columns.origins as &[Option<&str>],
        &columns.unread,
        &columns.replies as &[Option<&str>],
        &columns.reply_ids as &[Option<MessageId>],
        &columns.timestamps,
        &columns.conversation_ids as &[ConversationId],
        &columns.message_ids as &[MessageId],
        &columns.bodies as &[&[u8]],
        MOST_AHEAD.as_secs_f64(),
        PREVIEW_LENGTH,
        Status::Received as Status,
        Status::Sent as Status,
    )
    .fetch_all(connection)
    .await
}

/// Messages, column by column.
#[derive(Default)]
struct Columns<'a> {
    event_ids: Vec<&'a str>,
    participant_ids: Vec<&'a str>,
    wamids: Vec<Option<&'a str>>,
    kinds: Vec<&'a str>,
    texts: Vec<&'a str>,
    contents: Vec<&'a str>,
    names: Vec<Option<&'a str>>,
    origins: Vec<Option<&'a str>>,
    unread: Vec<bool>,
    replies: Vec<Option<&'a str>>,
    reply_ids: Vec<Option<MessageId>>,
    timestamps: Vec<DateTime<Utc>>,
    conversation_ids: Vec<ConversationId>,
    message_ids: Vec<MessageId>,
    bodies: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(messages: &[NewMessage<'a>]) -> Self {
        let mut columns = Self::default();
        for message in messages {
            let inbound = message.inbound;
            columns.event_ids.push(&inbound.event_id);
            columns.participant_ids.push(message.participant_id);
            columns.wamids.push(inbound.wamid.as_deref());
            columns.kinds.push(&inbound.kind);
            columns.texts.push(&inbound.text);
            columns.contents.push(&inbound.content);
            columns.names.push(inbound.name.as_deref());
            columns.origins.push(written_by(inbound.origin));
            columns.unread.push(inbound.is_unread);
            columns.replies.push(inbound.reply_to.as_deref());
            columns.reply_ids.push(message.reply_to_id);
            columns.timestamps.push(inbound.timestamp);
            columns.conversation_ids.push(message.conversation_id);
            columns.message_ids.push(message.message_id);
            columns.bodies.push(&inbound.raw);
        }
        columns
    }
}

/// Who wrote an outbound message, as the database has it; none: the customer, an inbound one.
fn written_by(origin: Origin) -> Option<&'static str> {
    match origin {
        Origin::Customer => None,
        Origin::App => Some("app"),
        Origin::Agent => Some("agent"),
    }
}

/// An amendment, and whose conversation it came in.
#[derive(Debug)]
pub struct NewAmendment<'a> {
    pub amendment: &'a Amendment,
    pub participant_id: &'a str,
}

/// Keeps each new amendment once, of each sender the newest, and returns the keys of those that are
/// new, in no order. [`crate::amendment::apply`] must follow.
pub async fn store_amendments(
    connection: &mut PgConnection,
    amendments: &[NewAmendment<'_>],
) -> sqlx::Result<Vec<String>> {
    let given = || amendments.iter().map(|a| a.amendment);
    let event_ids: Vec<&str> = given().map(|a| &*a.event_id).collect();
    let targets: Vec<&str> = given().map(|a| &*a.target).collect();
    let kinds: Vec<&str> = given().map(|a| a.change.name()).collect();
    let senders: Vec<&str> = amendments.iter().map(NewAmendment::sender).collect();
    let participant_ids: Vec<&str> = amendments.iter().map(|a| a.participant_id).collect();
    let times: Vec<DateTime<Utc>> = given().map(|a| a.at).collect();
    let mut emojis: Vec<Option<&str>> = Vec::with_capacity(amendments.len());
    let mut edits: [Vec<Option<&str>>; 3] = Default::default();
    for amendment in given() {
        let (emoji, edit) = match &amendment.change {
            Change::Reaction(emoji) => (emoji.as_deref(), [None; 3]),
            Change::Edit {
                kind,
                text,
                content,
            } => (None, [Some(&**kind), Some(&**text), Some(&**content)]),
            Change::Deletion => (None, [None; 3]),
        };
        emojis.push(emoji.filter(|emoji| !emoji.is_empty()));
        for (all, one) in edits.iter_mut().zip(edit) {
            all.push(one);
        }
    }
    let [types, texts, contents] = &edits;
    sqlx::query_scalar!(
        r#"-- whatsapp::store_amendments
-- Locks events by event_id, then amendments by their key.
with inp as (
  select event_id collate "C" as event_id, target_id collate "C" as target_id, kind collate "C" as kind, sender collate "C" as sender,
         participant_id, at, emoji, type, text, content, ord
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::text[])
    with ordinality as t(event_id, target_id, kind, sender, participant_id, at, emoji, type, text, content, ord)
), first as (
  select distinct on (event_id) * from inp order by event_id, ord
), event as (
  insert into webhook_events (provider, event_id)
  select $1::text, event_id from first order by event_id
  on conflict (event_id, provider) do nothing returning event_id
), newest as (
  select distinct on (f.target_id, f.kind, f.sender) f.* from first f join event e on e.event_id = f.event_id
  order by f.target_id, f.kind, f.sender, f.at desc, coalesce(f.emoji, f.text, U&'\+10FFFF') collate "C" desc   -- of two in a second, what was taken back is gone
), stored as (
  insert into amendments as a (target_id, kind, sender, participant_id, at, emoji, type, text, content)
  select target_id, kind, sender, participant_id, at, emoji, type, text, content from newest order by target_id, kind, sender
  on conflict (target_id, kind, sender) do update set participant_id = excluded.participant_id, at = excluded.at, emoji = excluded.emoji,
    type = excluded.type, text = excluded.text, content = excluded.content, stored_at = now()
  where (excluded.at, coalesce(excluded.emoji, excluded.text, U&'\+10FFFF') collate "C") > (a.at, coalesce(a.emoji, a.text, U&'\+10FFFF') collate "C")
)
select event_id as "event_id!" from event"#,
        Channel::Whatsapp.as_str(),
        &event_ids as &[&str],
        &targets as &[&str],
        &kinds as &[&str],
        &senders as &[&str],
        &participant_ids as &[&str],
        &times,
        &emojis as &[Option<&str>],
        types as &[Option<&str>],
        texts as &[Option<&str>],
        contents as &[Option<&str>],
    )
    .fetch_all(connection)
    .await
}

impl NewAmendment<'_> {
    /// The participant, or empty: the business.
    fn sender(&self) -> &str {
        match self.amendment.origin {
            Origin::Customer => self.participant_id,
            Origin::App | Origin::Agent => "",
        }
    }
}

/// A message that others name.
#[derive(Debug)]
pub struct Named {
    pub wamid: String,
    pub message_id: MessageId,
    pub channel: Channel,
    pub participant_id: String,
    pub direction: Direction,
}

/// Finds the messages that have these ids of the provider: in, out, and written elsewhere.
pub async fn find_named(
    connection: &mut PgConnection,
    wamids: &[&str],
) -> sqlx::Result<Vec<Named>> {
    sqlx::query_as!(
        Named,
        r#"-- whatsapp::find_named
select t.wamid as "wamid!", m.id as "message_id: MessageId", m.channel as "channel: Channel", m.participant_id,
  m.direction as "direction: Direction"
from (select distinct pg_catalog.unnest($2::text[]) as wamid) t
cross join lateral (   -- what came in is found by its event, what went out by its receipt
  select k.message_id from (
    (select message_id from webhook_events where event_id = t.wamid and provider = $1 and message_id is not null limit 1)
    union all
    (select message_id from receipts where provider_message_id = t.wamid and message_id is not null limit 1)) k limit 1) k
cross join lateral (select id, channel, participant_id, direction from messages where id = k.message_id limit 1) m"#,
        Channel::Whatsapp.as_str(),
        wamids as &[&str],
    )
    .fetch_all(connection)
    .await
}

/// What a known event has made.
#[derive(Debug)]
pub struct Known {
    pub event_id: String,
    /// None: no message.
    pub message_id: Option<MessageId>,
}

/// Finds known events, and confirms them (see [`crate::database::store::confirm`]). A statement of
/// its own: those that store cannot see rows that were committed after they began.
pub async fn find_events(
    connection: &mut PgConnection,
    event_ids: &[&str],
) -> sqlx::Result<Vec<Known>> {
    sqlx::query_as!(
        Known,
        r#"-- whatsapp::find_events
with confirmed as materialized (   -- as database::confirm does
  select case when current_setting('synchronous_standby_names') <> ''
    then pg_catalog.pg_logical_emit_message(true, 'gateway', ''::text) end as at
)
select e.event_id as "event_id!", e.message_id as "message_id: MessageId" from confirmed cross join webhook_events e
where e.provider = $1 and e.event_id = any($2::text[])"#,
        Channel::Whatsapp.as_str(),
        event_ids as &[&str],
    )
    .fetch_all(connection)
    .await
}

/// Keeps a body that nobody can read, and of all such bodies the newest so many.
pub async fn keep_unreadable(pool: &Pool, body: &[u8], most: i64) -> sqlx::Result<()> {
    sqlx::query!(
        r#"-- whatsapp::keep_unreadable
with gone as (
  delete from unreadable_webhooks
  where id <= (select id from unreadable_webhooks order by id desc offset $2::bigint - 1 limit 1)
)
insert into unreadable_webhooks (body) values ($1)"#,
        body,
        most,
    )
    .execute(pool)
    .await?;
    Ok(())
}
