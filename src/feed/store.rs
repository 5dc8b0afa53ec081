//! The statements of the feed.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::token::{Epoch, Position};
use crate::database::pool::Pool;
use crate::id::{ConversationId, MessageId};

/// The most rows that are read at once.
pub const MOST_ROWS: usize = 500;
/// The most rows that one statement deletes.
pub const MOST_DELETED: i64 = 1000;
const MOST_EMPTIED: i32 = 20_000;

/// What one statement's snapshot says of the feed.
#[derive(Debug)]
pub struct Look {
    pub at: DateTime<Utc>,
    /// The value that ends a history when it changes.
    pub epoch_id: Uuid,
    pub epoch: Epoch,
    /// Whether the rows are those of another server: this is a copy.
    pub is_copy: bool,
    /// All rows below this position may be deleted.
    deleted_below: i64,
    /// Behind the last row.
    fresh: i64,
    /// Above all transactions that have begun.
    ends: i64,
    running: Vec<i64>,
}

impl Look {
    /// The position behind all rows.
    #[must_use]
    pub fn fresh(&self) -> Position {
        Position::new(self.fresh, &self.running)
    }

    /// The position behind these rows, which were read from another one.
    #[must_use]
    pub fn behind(&self, position: &Position, rows: &[Change]) -> Position {
        let last = rows.iter().map(|row| row.position + 1).max();
        let next = last.map_or(position.next(), |last| last.max(position.next()));
        Position::new(next, &self.running)
    }

    /// Whether rows that a reader at this position has not seen may be deleted already. These are
    /// the rows that it finds.
    #[must_use]
    pub fn is_expired(&self, position: &Position, rows: &[Change]) -> bool {
        let is_deleted = |id: &&i64| **id < self.deleted_below;
        let mut pending = position.pending().iter().filter(is_deleted);
        position.next() < self.deleted_below
            || pending
                .any(|id| !self.running.contains(id) && rows.iter().all(|row| row.position != *id))
    }

    /// Whether no transaction of this history can have led to this position.
    #[must_use]
    pub fn is_beyond(&self, position: &Position) -> bool {
        position.next() > self.ends.max(self.fresh)
    }
}

/// What one statement has changed.
#[derive(Debug)]
pub struct Change {
    pub position: i64,
    pub at: DateTime<Utc>,
    pub conversation_ids: Vec<ConversationId>,
    pub created_ids: Vec<MessageId>,
    pub updated_ids: Vec<MessageId>,
    /// So much that it is not told one by one.
    pub is_bulk: bool,
}

/// The rows that a reader at this position has not seen, at most [`MOST_ROWS`] and those of its
/// running transactions; and what the same snapshot says of the feed.
pub async fn read(pool: &Pool, position: &Position) -> sqlx::Result<(Look, Vec<Change>)> {
    let rows = sqlx::query!(
        r#"-- feed::read
with look as (
  select now() as at, f.epoch, f.system_identifier <> c.system_identifier as is_copy, f.deleted_below,
    c.system_identifier, left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8) as timeline, d.oid::bigint as database,
    greatest(coalesce((select position from changes order by position desc limit 1) + 1, 0), f.deleted_below) as fresh,
    pg_catalog.pg_snapshot_xmax(s)::text::bigint as ends,
    array(select x::text::bigint from pg_catalog.pg_snapshot_xip(s) x) as running
  from feed f cross join pg_catalog.pg_control_system() c cross join pg_catalog.pg_current_snapshot() s
    join pg_catalog.pg_database d on d.datname = current_database()
), unseen as (
  (select * from changes where position >= $1::bigint order by position limit $3)
  union all
  select * from changes where position = any($2::bigint[]) and position < $1::bigint
)
select null as position, at as "at!", null as "conversation_ids: Vec<ConversationId>", null as "created_ids: Vec<MessageId>",
  null as "updated_ids: Vec<MessageId>", null as bulk, epoch, is_copy, deleted_below, system_identifier, timeline, database, fresh, ends, running
from look
union all
select position, at, conversation_ids, created_ids, updated_ids, bulk, null, null, null, null, null, null, null, null, null
from unseen"#,
        position.next(),
        position.pending(),
        i64::try_from(MOST_ROWS).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?;
    let mut look = None;
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(position) = row.position {
            changes.push(Change {
                position,
                at: row.at,
                conversation_ids: row.conversation_ids.unwrap_or_default(),
                created_ids: row.created_ids.unwrap_or_default(),
                updated_ids: row.updated_ids.unwrap_or_default(),
                is_bulk: row.bulk.unwrap_or_default(),
            });
        } else if let (Some(epoch), Some(server), Some(timeline), Some(database)) =
            (row.epoch, row.system_identifier, row.timeline, row.database)
        {
            look = Some(Look {
                at: row.at,
                epoch_id: epoch,
                epoch: Epoch::new(server, &timeline, database, epoch),
                is_copy: row.is_copy.unwrap_or_default(),
                deleted_below: row.deleted_below.unwrap_or_default(),
                fresh: row.fresh.unwrap_or_default(),
                ends: row.ends.unwrap_or_default(),
                running: row.running.unwrap_or_default(),
            });
        }
    }
    // The one row of `feed` is there since the migration.
    let look = look.ok_or(sqlx::Error::RowNotFound)?;
    Ok((look, changes))
}

/// Begins another history where these rows are those of another server, or where this one's epoch
/// is the given one: their positions mean nothing. They are deleted first, many at a time; whether
/// there may be more of them.
pub async fn adopt(pool: &Pool, ended: Option<Uuid>) -> sqlx::Result<bool> {
    let emptied = sqlx::query_scalar!(
        r#"-- feed::adopt
with other as (
  select c.system_identifier from feed f cross join pg_catalog.pg_control_system() c
  where f.system_identifier <> c.system_identifier or f.epoch = $1
  for update of f
), emptied as (
  delete from changes where position = any(array(
    select c.position from other cross join lateral (select position from changes order by position limit $2::int) c))
  returning position
), adopted as (
  update feed set epoch = pg_catalog.gen_random_uuid(), system_identifier = other.system_identifier, deleted_below = 0
  from other where (select count(*) from emptied) < $2::int
)
select count(*) as "emptied!" from emptied"#,
        ended,
        MOST_EMPTIED
    )
    .fetch_one(pool)
    .await?;
    Ok(emptied == i64::from(MOST_EMPTIED))
}

/// Deletes the oldest rows, if they are older than so many minutes; how many. They lie in the order
/// of their positions, so that no more are looked at than may be deleted.
pub async fn prune(pool: &Pool, minutes: i32) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- feed::prune
with old as (
  select position from changes
  where at < now() - pg_catalog.make_interval(mins => $1)
    and position <= (select max(position) from (select position from changes order by position limit $2) first)
  order by position limit $2 for update skip locked
), gone as (
  delete from changes where position = any(array(select position from old)) returning position
), noted as (
  update feed set deleted_below = greatest(deleted_below, (select max(position) + 1 from gone)) where exists (select from gone)
)
select count(*) as "deleted!" from gone"#,
        minutes,
        MOST_DELETED
    )
    .fetch_one(pool)
    .await
}
