//! The statements of amendments. What stores them is `whatsapp::store_amendments`.

use sqlx::PgConnection;

use super::DELETED;
use crate::channel::{Channel, PREVIEW_LENGTH};

/// Writes what has come about these messages into them, and returns how many have changed.
///
/// Of each sender the newest reaction counts, and of edits the newest; a deletion is final. They
/// change only a message of the conversation that they came in, edits and deletions only one of the
/// same side: of the customer what came in, of the business what went out, by whichever way.
pub async fn apply(connection: &mut PgConnection, wamids: &[&str]) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- amendment::apply
-- Locks conversations by (channel, participant_id), then messages by id, then amendments by their key.
with change as materialized (
  select target_id, kind from amendments where target_id = any($1::text[])
), seen as materialized (
  select t.target_id, m.id, m.conversation_id, t.hides
  from (select target_id, pg_catalog.bool_or(kind <> 'reaction') as hides from change group by target_id) t
  cross join lateral (   -- what came in is found by its event, what went out by its receipt
    select k.message_id from (
      (select message_id from webhook_events where event_id = t.target_id and provider = $2 and message_id is not null limit 1)
      union all
      (select message_id from receipts where provider_message_id = t.target_id and message_id is not null limit 1)) k limit 1) k
  cross join lateral (select id, conversation_id from messages where id = k.message_id limit 1) m
), locked as materialized (   -- those whose preview may change
  select id, last_message_id, last_message_preview from conversations
  where id = any(array(select conversation_id from seen where hides))
  order by channel, participant_id for no key update
), held as materialized (   -- the aggregate is read before the first message is locked
  select m.id, m.channel, m.participant_id, m.direction, m.type, m.text, m.content, m.reactions, m.edited_at, m.deleted_at
  from (select count(*) as n from locked) l cross join messages m
  where l.n >= 0 and m.id = any(array(select id from seen))
  order by m.id for update of m
), said as materialized (   -- behind the messages' locks: what was forgotten meanwhile is gone
  select a.target_id, a.kind, a.sender, a.participant_id, a.at, a.emoji, a.type, a.text, a.content
  from (select count(*) as n from held) h cross join amendments a
  where h.n >= 0 and a.target_id = any(array(select target_id from seen))
  order by a.target_id, a.kind, a.sender for key share of a
), allowed as materialized (   -- in the conversation that it came in; edits and deletions by whoever wrote the message
  select h.id, c.kind, c.sender, c.at, c.emoji, c.type, c.text, c.content
  from held h join seen s on s.id = h.id join said c on c.target_id = s.target_id
  where h.channel = $2 and c.participant_id = h.participant_id
    and (c.kind = 'reaction' or (c.sender = '') = (h.direction = 'OUTBOUND'))
), gone as (
  select id, min(at) as at from allowed where kind = 'deletion' group by id
), edit as (
  select distinct on (id) id, at, type, text, content from allowed where kind = 'edit' order by id, at desc, text collate "C" desc
), reacted as (
  select id, pg_catalog.jsonb_object_agg(sender, reaction) as reactions from (
    select distinct on (id, sender) id, sender, reaction from (
      select a.id, a.sender, pg_catalog.jsonb_build_object('emoji', a.emoji,
        'at', pg_catalog.to_char(a.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) as reaction
      from allowed a where a.kind = 'reaction'
      union all
      select h.id, r.key collate "C", r.value from held h cross join lateral pg_catalog.jsonb_each(h.reactions) r
    ) every_one order by id, sender, reaction ->> 'at' collate "C" desc, reaction ->> 'emoji' collate "C" desc nulls first
  ) newest group by id
), next as materialized (
  select h.id, d.deleted_at, coalesce(r.reactions, h.reactions) as reactions,
    case when is_edited then e.at else h.edited_at end as edited_at,
    case when is_edited then e.type else h.type end as type,
    case when d.deleted_at is not null then $3 when is_edited then e.text else h.text end as text,
    case when d.deleted_at is not null then null when is_edited then e.content else h.content end as content
  from held h left join gone g on g.id = h.id left join edit e on e.id = h.id left join reacted r on r.id = h.id
  cross join lateral (select coalesce(h.deleted_at, g.at) as deleted_at) d
  cross join lateral (
    select d.deleted_at is null and e.id is not null
      and (e.at, e.text collate "C") > (coalesce(h.edited_at, '-infinity'), h.text collate "C") as is_edited) i
  where is_edited or (d.deleted_at, coalesce(r.reactions, h.reactions)) is distinct from (h.deleted_at, h.reactions)
), amended as (
  update messages m set type = n.type, text = n.text, content = n.content, reactions = n.reactions, edited_at = n.edited_at,
    deleted_at = n.deleted_at, updated_at = now(), revision = m.revision + 1
  from next n where m.id = n.id and m.id = any(array(select id from next))   -- fence: keys
  returning m.id, m.text
), shown as (
  select l.id, left(a.text, $4) as preview from locked l join amended a on a.id = l.last_message_id
  where l.last_message_preview <> left(a.text, $4)
), moved as (
  update conversations c set last_message_preview = s.preview, revision = c.revision + 1
  from shown s where c.id = s.id and c.id = any(array(select id from shown))   -- fence: keys
  returning c.id
), changed as (
  insert into changes (conversation_ids, updated_ids)
  select coalesce((select pg_catalog.array_agg(id) from moved), '{}'), pg_catalog.array_agg(id) from amended having count(*) > 0
  on conflict do nothing
)
select count(*) as "amended!" from amended"#,
        wamids as &[&str],
        Channel::Whatsapp.as_str(),
        DELETED,
        PREVIEW_LENGTH,
    )
    .fetch_one(connection)
    .await
}
