//! The statements of aliases.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::said::is_number;
use crate::channel::Channel;
use crate::database::pool::Pool;

/// What is known of an id.
#[derive(Debug)]
pub struct Found {
    pub id: String,
    /// Where it leads; none: it is no alias yet.
    pub participant_id: Option<String>,
    /// Of a number: the user id that it came with last.
    pub user_id: Option<String>,
    /// The time of the newest event that says so.
    pub since: Option<DateTime<Utc>>,
    pub changed_hands: Option<bool>,
    /// Whether it is itself the participant of a conversation.
    pub has_conversation: bool,
}

/// Finds what is known of these ids.
pub async fn find(connection: &mut PgConnection, ids: &[&str]) -> sqlx::Result<Vec<Found>> {
    sqlx::query_as!(
        Found,
        r#"-- alias::find
select t.id as "id!", a.participant_id as "participant_id?", a.user_id, a.since as "since?", a.changed_hands as "changed_hands?",
  c.id is not null as "has_conversation!"
from (select pg_catalog.unnest($2::text[]) as id) t
left join lateral (select * from aliases where alias = t.id limit 1) a on true   -- fence: lookup
left join lateral (select id from conversations where channel = $1 and participant_id = t.id limit 1) c on true   -- fence: lookup"#,
        Channel::Whatsapp.as_str(),
        ids as &[&str],
    )
    .fetch_all(connection)
    .await
}

/// What an alias is to become, and what it was when it was read.
#[derive(Debug)]
pub struct Change<'a> {
    pub alias: &'a str,
    pub to: &'a Row,
    pub from: Option<&'a Row>,
}

/// An alias, but for its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it leads.
    pub participant_id: String,
    /// Of a number: the user id that it came with last.
    pub user_id: Option<String>,
    /// The time of the newest event that says so.
    pub since: DateTime<Utc>,
    /// Of a number: another person has it now.
    pub changed_hands: bool,
}

/// Writes those that are still as they were read; how many these are. A number that is new only with
/// the user id that it came with: alone it would lead elsewhere than what others made of that.
pub async fn write(connection: &mut PgConnection, changes: &[Change<'_>]) -> sqlx::Result<usize> {
    let aliases: Vec<&str> = changes.iter().map(|c| c.alias).collect();
    let participant_ids: Vec<&str> = changes.iter().map(|c| &*c.to.participant_id).collect();
    let user_ids: Vec<Option<&str>> = changes.iter().map(|c| c.to.user_id.as_deref()).collect();
    let since: Vec<DateTime<Utc>> = changes.iter().map(|c| c.to.since).collect();
    let changed_hands: Vec<bool> = changes.iter().map(|c| c.to.changed_hands).collect();
    let from = || changes.iter().map(|c| c.from);
    let from_participant_ids: Vec<Option<&str>> =
        from().map(|row| Some(&*row?.participant_id)).collect();
    let from_user_ids: Vec<Option<&str>> = from().map(|row| row?.user_id.as_deref()).collect();
    let from_since: Vec<Option<DateTime<Utc>>> = from().map(|row| Some(row?.since)).collect();
    let numbers: Vec<bool> = changes.iter().map(|c| is_number(c.alias)).collect();
    let written = sqlx::query_scalar!(
        r#"-- alias::write
-- Locks aliases: new user ids by their key, then new numbers, then what there is. An insert waits for whoever changes what is in its
-- way; so those that change, insert nothing afterwards.
with inp as (
  select alias collate "C" as alias, participant_id, user_id collate "C" as user_id, since, changed_hands, from_participant_id, from_user_id,
    from_since, is_number
  from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bool[], $6::text[], $7::text[], $8::timestamptz[], $9::bool[])
    as t(alias, participant_id, user_id, since, changed_hands, from_participant_id, from_user_id, from_since, is_number)
), made as (
  insert into aliases (alias, participant_id, user_id, since, changed_hands)
  select alias, participant_id, user_id, since, changed_hands from inp where from_since is null and not is_number order by alias
  on conflict (alias) do nothing returning alias
), number as (
  insert into aliases (alias, participant_id, user_id, since, changed_hands)
  select alias, participant_id, user_id, since, changed_hands from inp
  where from_since is null and is_number and (select count(*) from made) is not null   -- afterwards
    and (user_id is null
      or user_id = any(array(select alias from made)) or user_id <> all(array(select alias from inp where from_since is null)))
  order by alias
  on conflict (alias) do nothing returning alias
), held as (
  select alias, participant_id, user_id, since from aliases
  where alias = any(array(select alias from inp where from_since is not null)) and (select count(*) from number) is not null   -- afterwards
  order by alias for update
), same as (
  select i.* from inp i join held h on h.alias = i.alias
  where (i.from_since, i.from_participant_id, i.from_user_id) is not distinct from (h.since, h.participant_id, h.user_id)
), changed as (
  update aliases a set participant_id = s.participant_id, user_id = s.user_id, since = s.since, changed_hands = s.changed_hands
  from same s where a.alias = s.alias
  returning a.alias
)
select (select count(*) from made) + (select count(*) from number) + (select count(*) from changed) as "written!""#,
        &aliases as &[&str],
        &participant_ids as &[&str],
        &user_ids as &[Option<&str>],
        &since,
        &changed_hands,
        &from_participant_ids as &[Option<&str>],
        &from_user_ids as &[Option<&str>],
        &from_since as &[Option<DateTime<Utc>>],
        &numbers,
    )
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(written).unwrap_or_default())
}

/// An id that leads to a participant.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "a column of this name")]
pub struct Alias {
    pub alias: String,
    pub participant_id: String,
    /// The time of the newest event that says so.
    pub since: DateTime<Utc>,
    /// Of a number: another person has it now.
    pub changed_hands: bool,
}

/// The most aliases that are read of one participant.
const MOST: i64 = 100;

/// What is known of an id, of the participant that it leads to, and of the newest ids that lead
/// there.
pub async fn list_for_route(pool: &Pool, id: &str) -> sqlx::Result<Vec<Alias>> {
    sqlx::query_as!(
        Alias,
        r#"-- alias::list_for_route
with own as (
  select coalesce((select participant_id from aliases where alias = $1), $1) as participant_id
)
select alias as "alias!", participant_id as "participant_id!", since as "since!", changed_hands as "changed_hands!" from aliases
where alias = any(array(select $1 union all select participant_id from own))
union all
(select alias, participant_id, since, changed_hands from aliases
where participant_id = (select participant_id from own) and alias <> all(array(select $1 union all select participant_id from own))
order by since desc limit $2)"#,
        id,
        MOST,
    )
    .fetch_all(pool)
    .await
}

/// The newest ids that lead to a participant, the newest first.
pub async fn list(pool: &Pool, participant_id: &str) -> sqlx::Result<Vec<Alias>> {
    sqlx::query_as!(
        Alias,
        r#"-- alias::list
select alias, participant_id, since, changed_hands from aliases
where participant_id = $1 order by since desc, alias limit $2"#,
        participant_id,
        MOST,
    )
    .fetch_all(pool)
    .await
}
