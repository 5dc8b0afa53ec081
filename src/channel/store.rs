//! The statements of channels. Those that lease what may be called are `delivery::claim` and
//! `message::enqueue`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Channel, LONGEST_RAMP, Pause};
use crate::database::pool::Pool;

/// A channel that is paused.
pub struct Paused {
    pub channel: Channel,
    /// When it may be called again.
    pub until: DateTime<Utc>,
}

/// Pauses channels, each at most once, and returns those whose pause has become longer. Afterwards
/// their calls are spread for as long as the pause was, but for `LONGEST_RAMP` at most.
pub async fn pause(connection: &mut PgConnection, pauses: &[Pause]) -> sqlx::Result<Vec<Paused>> {
    let channels: Vec<&str> = pauses.iter().map(|p| p.channel.as_str()).collect();
    let waits: Vec<f64> = pauses.iter().map(|p| p.wait.as_secs_f64()).collect();
    sqlx::query_as!(
        Paused,
        r#"-- channel::pause
-- Locks channels by their name.
with held as (
  select c.channel, now() + pg_catalog.make_interval(secs => p.wait) as until,
    now() + pg_catalog.make_interval(secs => p.wait)
      + pg_catalog.make_interval(secs => least(p.wait, $3::float8)) as ramp_until
  from unnest($1::text[], $2::float8[]) as p(channel, wait) join channels c on c.channel = p.channel
  order by c.channel for update of c
)
update channels c set paused_until = h.until, ramp_until = h.ramp_until
from held h where c.channel = h.channel and c.paused_until < h.until
returning c.channel as "channel: Channel", c.paused_until as until"#,
        &channels as &[&str],
        &waits,
        LONGEST_RAMP.as_secs_f64(),
    )
    .fetch_all(connection)
    .await
}

/// Seconds until the first due delivery may be sent. None if nothing is due, or if it is not the
/// pace that holds it.
pub async fn next_call_in(pool: &Pool) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"-- channel::next_call_in
select extract(epoch from min(greatest(c.paused_until, c.next_call_at)) - now())::float8
from channels c
where greatest(c.paused_until, c.next_call_at) > now() - interval '1 second'   -- a moment ago it may have been that
  and (select due_at from deliveries where channel = c.channel and due_at <= now() order by due_at limit 1) is not null   -- fence: ordered"#
    )
    .fetch_one(pool)
    .await
}

/// The channels that are paused although something is due for them.
pub async fn list_paused(pool: &Pool) -> sqlx::Result<Vec<Paused>> {
    sqlx::query_as!(
        Paused,
        r#"-- channel::list_paused
select c.channel as "channel: Channel", c.paused_until as until from channels c
where c.paused_until > now() and (select due_at from deliveries where channel = c.channel and due_at <= now() order by due_at limit 1) is not null   -- fence: ordered
order by c.channel"#
    )
    .fetch_all(pool)
    .await
}
