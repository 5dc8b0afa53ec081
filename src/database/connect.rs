//! The only way to a connection: each is checked before it is used.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::limits::{CONNECT_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT, timed_out};
use super::plans::Settings;
use super::pooler;
use super::store::{self, Session};
use super::target::{self, Target};
use crate::error::fault::{ENCODING, OLDEST, Outage, Unavailable, Unfit, all_failed};

/// How long to wait for one server before the next is tried too: longer than a healthy one takes.
const HEAD_START: Duration = Duration::from_millis(500);
/// What every connection is given. Each statement is one transaction: stricter isolation would
/// only find failures in them that must be repeated.
const ALWAYS: Settings = &[("default_transaction_isolation", "read committed")];

/// The limits that every connection of a running gateway gets.
#[must_use]
pub fn limited(target: Target) -> Target {
    target.map(|server| {
        server
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT.as_millis()),
                ("lock_timeout", LOCK_TIMEOUT.as_millis()),
            ])
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1))
    })
}

/// How long statements may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// As long as those of a running gateway, which [`limited`] targets ask for.
    Ours,
    /// As long as they need, even where the role has limits.
    None,
}

/// Makes a new connection with these settings, within [`CONNECT_TIMEOUT`], to a server that can be
/// written to. A target for reading takes one that cannot, where there is no other.
///
/// The servers are tried in turn. One that does not answer delays the next only for a moment, and
/// may still answer then.
pub async fn connect(
    target: &Target,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<(PgConnection, Session)> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let count = u32::try_from(target.servers().len()).unwrap_or(u32::MAX);
    let head_start = HEAD_START.min(CONNECT_TIMEOUT / count.max(1));
    let mut next_at = Instant::now();
    let mut servers = target.in_turn().peekable();
    let mut tries = FuturesUnordered::new();
    let mut failures: Vec<(usize, String, sqlx::Error)> = Vec::new();
    let mut readable = None;
    loop {
        if Instant::now() >= next_at
            && let Some((place, server)) = servers.next()
        {
            tries.push(async move {
                let connected = timeout_at(deadline, connect_to(server, limits, settings)).await;
                let connected = connected.unwrap_or_else(|_| Err(timed_out()));
                (place, server, connected.inspect_err(pooler::note))
            });
            next_at = Instant::now() + head_start;
        }
        let is_more = servers.peek().is_some();
        let tried = tokio::select! {
            tried = tries.next() => tried,
            () = sleep_until(next_at), if is_more => continue,
        };
        let Some((place, server, connected)) = tried else {
            failures.sort_by_key(|(place, ..)| *place);
            return readable.ok_or_else(|| all_failed(failures));
        };
        // This one has ended: the next need not wait for it.
        next_at = Instant::now();
        let error = match connected {
            Ok((connection, session)) if !session.read_only => {
                target.keep(place);
                return Ok((connection, session));
            }
            Ok(connected) if target.only_reads() => {
                readable = Some(connected);
                continue;
            }
            Ok(_) => read_only(),
            Err(error) => error,
        };
        failures.push((place, target::name(server), error));
    }
}

/// Connects to this server, if the gateway can use it, and to a session that nobody else gets into.
async fn connect_to(
    server: &PgConnectOptions,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<(PgConnection, Session)> {
    let name = pooler::new_name();
    let named = server.clone().options([(pooler::SESSION, &name)]);
    let mut connection = named.connect().await?;
    let mut session = set_up(&mut connection, Some(&name), limits, settings).await?;
    if !session.is_own {
        pooler::check(&mut connection, &name, server.connect()).await?;
        session = set_up(&mut connection, Some(&name), limits, settings).await?;
    }
    check(&session, limits)?;
    Ok((connection, session))
}

/// Gives other settings to a connection that was used before, if the gateway can still use it.
pub(super) async fn set_up_again(
    connection: &mut PgConnection,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<Session> {
    let session = set_up(connection, None, limits, settings).await?;
    check(&session, limits)?;
    Ok(session)
}

async fn set_up(
    connection: &mut PgConnection,
    name: Option<&str>,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<Session> {
    let mut settings = [settings, ALWAYS].concat();
    if limits == Limits::None {
        settings.extend([("statement_timeout", "0"), ("lock_timeout", "0")]);
    }
    store::set_up_session(connection, name, &settings).await
}

/// Whether the gateway can use a database that says this of itself.
fn check(session: &Session, limits: Limits) -> Result<(), Unfit> {
    if !session.is_own {
        return Err(Unfit::Shared);
    }
    if session.encoding != ENCODING {
        return Err(Unfit::Encoding(session.encoding.clone()));
    }
    let major = session.version.unsigned_abs() / 10_000;
    if major < OLDEST {
        return Err(Unfit::Version(major));
    }
    if !session.open.is_empty() {
        return Err(Unfit::Open(session.open.clone()));
    }
    if !session.foreign.is_empty() {
        return Err(Unfit::Foreign(session.foreign.clone()));
    }
    if limits == Limits::Ours && !is_limited(session) {
        return Err(Unfit::Unlimited);
    }
    Ok(())
}

/// Whether the limits are ours or narrower: an operator may set narrower ones.
fn is_limited(session: &Session) -> bool {
    let within = |ms: i64, limit: Duration| {
        u128::try_from(ms).is_ok_and(|ms| (1..=limit.as_millis()).contains(&ms))
    };
    within(session.statement_timeout_ms, STATEMENT_TIMEOUT)
        && within(session.lock_timeout_ms, LOCK_TIMEOUT)
}

/// The error for a server that cannot be written to.
pub(super) fn read_only() -> sqlx::Error {
    Unavailable::from(Outage::ReadOnly).into()
}
