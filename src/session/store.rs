//! The statements of sessions.

use chrono::{DateTime, Utc};

use super::{LIFETIME, MAX_IDLE, MAX_OF_KEY, Origin};
use crate::caller::SessionId;
use crate::database::pool::Pool;

/// A row of `sessions` whose session has not ended.
pub struct Found {
    pub token_hash: Vec<u8>,
    pub key_hash: Vec<u8>,
    pub scopes: String,
    pub expires_at: DateTime<Utc>,
    /// Seconds until it ends, if nobody uses it.
    pub ends_in: f64,
    /// Seconds since its last use was written.
    pub unused_for: f64,
}

/// The sessions that have not ended, of those with these ids.
pub async fn find(pool: &Pool, ids: &[SessionId]) -> sqlx::Result<Vec<Found>> {
    let ids: Vec<&[u8]> = ids.iter().map(|id| &id.0[..]).collect();
    sqlx::query_as!(
        Found,
        r#"-- session::find
select s.token_hash, s.key_hash, s.scopes, s.ends_at as "expires_at!",
  extract(epoch from least(s.ends_at, s.idle_at) - now())::float8 as "ends_in!",
  extract(epoch from now() - s.used_at)::float8 as "unused_for!"
from (
  select token_hash, key_hash, scopes, used_at, made_at + pg_catalog.make_interval(secs => $2::float8) as ends_at,
    used_at + pg_catalog.make_interval(secs => $3::float8) as idle_at
  from sessions where token_hash = any($1::bytea[])) s
where s.ends_at > now() and s.idle_at > now()"#,
        &ids as &[&[u8]],
        LIFETIME.as_secs_f64(),
        MAX_IDLE.as_secs_f64(),
    )
    .fetch_all(pool)
    .await
}

/// Begins a session at the first free place of its key, or else in that of the key's oldest. False:
/// another log-in was faster there, and this one is to be repeated.
pub async fn begin(pool: &Pool, id: SessionId, origin: &Origin) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        r#"-- session::begin
with place as (
  select p.slot::smallint as slot, s.token_hash
  from pg_catalog.generate_series(0, $4::int - 1) as p (slot)
    left join sessions s on s.key_hash = $2 and s.slot = p.slot
  order by s.made_at nulls first, p.slot limit 1
)
insert into sessions (token_hash, key_hash, scopes, slot)
select $1, $2, $3, slot from place
on conflict (key_hash, slot) do update
  set token_hash = excluded.token_hash, scopes = excluded.scopes, made_at = now(), used_at = now()
  where sessions.token_hash = (select token_hash from place)"#,
        &id.0[..],
        &origin.key_hash[..],
        origin.scopes,
        i32::from(MAX_OF_KEY),
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends sessions.
pub async fn end(pool: &Pool, ids: &[SessionId]) -> sqlx::Result<()> {
    let ids: Vec<&[u8]> = ids.iter().map(|id| &id.0[..]).collect();
    sqlx::query!(
        r#"-- session::end
delete from sessions where token_hash = any($1::bytea[])"#,
        &ids as &[&[u8]]
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes that a session is used, unless it was written within the last `seconds`. One that has
/// ended stays ended.
pub async fn touch(pool: &Pool, id: SessionId, seconds: f64) -> sqlx::Result<()> {
    sqlx::query!(
        r#"-- session::touch
update sessions set used_at = now()
where token_hash = $1 and used_at < now() - pg_catalog.make_interval(secs => $2::float8)
  and used_at > now() - pg_catalog.make_interval(secs => $3::float8)"#,
        &id.0[..],
        seconds,
        MAX_IDLE.as_secs_f64(),
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Deletes up to `limit` sessions that have ended by themselves.
pub async fn prune(pool: &Pool, limit: i64) -> sqlx::Result<()> {
    sqlx::query!(
        r#"-- session::prune
delete from sessions where token_hash = any(array(
  select token_hash from sessions
  where made_at <= now() - pg_catalog.make_interval(secs => $1::float8)
    or used_at <= now() - pg_catalog.make_interval(secs => $2::float8)
  order by token_hash limit $3))"#,
        LIFETIME.as_secs_f64(),
        MAX_IDLE.as_secs_f64(),
        limit,
    )
    .execute(pool)
    .await?;
    Ok(())
}
