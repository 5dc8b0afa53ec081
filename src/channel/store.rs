//! The statements of channels. Those that lease what may be called are `delivery::claim` and
//! `message::enqueue`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Channel, LONGEST_RAMP, Pause};
use crate::database::pool::Pool;
use crate::id::MessageId;

/// A channel that is paused.
pub struct Paused {
    pub channel: Channel,
    /// When it may be called again.
    pub until: DateTime<Utc>,
    /// Whether its token or its account is at fault.
    pub is_held: bool,
}

/// Pauses channels, each at most once, and returns those whose pause has become longer. Afterwards
/// their calls are spread for as long as the pause was, but for `LONGEST_RAMP` at most; or, where
/// it is held, one at a time tries it.
pub async fn pause(connection: &mut PgConnection, pauses: &[Pause]) -> sqlx::Result<Vec<Paused>> {
    let channels: Vec<&str> = pauses.iter().map(|p| p.channel.as_str()).collect();
    let waits: Vec<f64> = pauses.iter().map(|p| p.wait.as_secs_f64()).collect();
    let tokens: Vec<Option<&str>> = pauses.iter().map(|p| p.held_token.as_deref()).collect();
    sqlx::query_as!(
        Paused,
        r#"-- channel::pause
-- Locks channels by their name.
with held as (
  select c.channel, now() + pg_catalog.make_interval(secs => p.wait) as until,
    now() + pg_catalog.make_interval(secs => p.wait)
      + pg_catalog.make_interval(secs => least(p.wait, $3::float8)) as ramp_until, p.token
  from unnest($1::text[], $2::float8[], $4::text[]) as p(channel, wait, token) join channels c on c.channel = p.channel
  order by c.channel for update of c
)
update channels c set paused_until = greatest(c.paused_until, h.until),
  ramp_until = case when h.token is not null or c.held_for is not null then 'infinity' else h.ramp_until end,
  held_for = case when h.token is not null then 'unauthorized' else c.held_for end, held_token = coalesce(h.token, c.held_token)
from held h where c.channel = h.channel and (c.paused_until < h.until or h.token is not null and c.held_for is null)
returning c.channel as "channel: Channel", c.paused_until as until, c.held_for is not null as "is_held!""#,
        &channels as &[&str],
        &waits,
        LONGEST_RAMP.as_secs_f64(),
        &tokens as &[Option<&str>],
    )
    .fetch_all(connection)
    .await
}

/// Ends the hold of these channels, and returns those that were held: the provider has accepted
/// something. Their calls are spread for as long as after the longest pause.
pub async fn lift(
    connection: &mut PgConnection,
    channels: &[Channel],
) -> sqlx::Result<Vec<Channel>> {
    let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
    sqlx::query_scalar!(
        r#"-- channel::lift
update channels set held_for = null, held_token = null, paused_until = now(), next_call_at = now(),
  ramp_until = now() + pg_catalog.make_interval(secs => $2)
where channel = any($1::text[]) and held_for is not null
returning channel as "channel: Channel""#,
        &channels as &[&str],
        LONGEST_RAMP.as_secs_f64(),
    )
    .fetch_all(connection)
    .await
}

/// Lets one call try a channel now that is held with another token than this one.
pub async fn try_token(pool: &Pool, channel: Channel, token: &str) -> sqlx::Result<bool> {
    let tried = sqlx::query!(
        r#"-- channel::try_token
update channels set paused_until = now(), next_call_at = now(), held_token = $2
where channel = any($1::text[]) and held_for is not null and held_token is distinct from $2"#,
        &[channel.as_str()] as &[&str],
        token,
    )
    .execute(pool)
    .await?;
    Ok(tried.rows_affected() > 0)
}

/// Lets one call try the channels of these messages now, if they are held.
pub async fn try_now(pool: &Pool, message_ids: &[MessageId]) -> sqlx::Result<Vec<Channel>> {
    sqlx::query_scalar!(
        r#"-- channel::try_now
update channels set paused_until = now(), next_call_at = now()
where held_for is not null and channel in (select channel from messages where id = any($1::uuid[]))
returning channel as "channel: Channel""#,
        message_ids as &[MessageId],
    )
    .fetch_all(pool)
    .await
}

/// Seconds until the first due delivery may be sent. None if nothing is due, or if it is not the
/// pace that holds it.
pub async fn next_call_in(
    pool: &Pool,
    channels: &'static [&'static str],
) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"-- channel::next_call_in
select extract(epoch from min(greatest(c.paused_until, c.next_call_at)) - now())::float8
from channels c
where c.channel = any($1::text[]) and greatest(c.paused_until, c.next_call_at) > now() - interval '1 second'   -- a moment ago it may have been that
  and (select due_at from deliveries where channel = c.channel and due_at <= now() order by due_at limit 1) is not null   -- fence: ordered"#,
        channels as &[&str],
    )
    .fetch_one(pool)
    .await
}

/// The channels that are paused although something is due for them.
pub async fn list_paused(pool: &Pool) -> sqlx::Result<Vec<Paused>> {
    sqlx::query_as!(
        Paused,
        r#"-- channel::list_paused
select c.channel as "channel: Channel", c.paused_until as until, c.held_for is not null as "is_held!" from channels c
where c.paused_until > now() and (select due_at from deliveries where channel = c.channel and due_at <= now() order by due_at limit 1) is not null   -- fence: ordered
order by c.channel"#
    )
    .fetch_all(pool)
    .await
}
