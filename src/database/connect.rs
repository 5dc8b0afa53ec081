//! The one way to a connection: each passes the same check before it is used.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::target::{self, Target};
use super::{CONNECT_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT, bounded, pooler, store};
use crate::error::fault::{ENCODING, OLDEST, Outage, Unavailable, Unfit, all_failed};
use crate::peer;

/// How long the servers before it keep one from being tried: longer than one that is well takes.
const HEAD_START: Duration = Duration::from_millis(500);
/// What every connection is given. Each statement is one transaction: what stricter isolation would find in them is a failure to be
/// repeated.
const ALWAYS: Settings = &[("default_transaction_isolation", "read committed")];

/// Settings of a connection, by name.
pub type Settings = &'static [(&'static str, &'static str)];

/// What a connection says of the database when it is new.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Whether its session is known to be its own: else it has none of the settings.
    pub is_own: bool,
    /// Whether nothing can be written through it.
    pub read_only: bool,
    /// How texts are stored.
    pub encoding: String,
    /// PostgreSQL's version, such as 150004.
    pub version: i32,
    /// The limit of a statement, in milliseconds; 0: none.
    pub statement_timeout_ms: i64,
    /// The limit of waiting for a lock, in milliseconds; 0: none.
    pub lock_timeout_ms: i64,
    /// The settings that are off and should not be: what is committed might be lost.
    pub at_risk: String,
    /// What takes from others the right to create in a schema of the search path.
    pub open: Vec<String>,
    /// What takes the gateway's tables from others.
    pub foreign: Vec<String>,
}

/// What may change while a connection is open.
#[derive(Debug, Clone)]
pub struct Look {
    /// Whether something can be written through it.
    pub writable: bool,
    /// As in a [`Greeting`].
    pub at_risk: String,
}

impl Greeting {
    fn check(&self, limits: Limits) -> Result<(), Unfit> {
        if !self.is_own {
            return Err(Unfit::Shared);
        }
        if self.encoding != ENCODING {
            return Err(Unfit::Encoding(self.encoding.clone()));
        }
        let major = self.version / 10_000;
        if major < OLDEST {
            return Err(Unfit::Version(major));
        }
        if !self.open.is_empty() {
            return Err(Unfit::Open(self.open.clone()));
        }
        if !self.foreign.is_empty() {
            return Err(Unfit::Foreign(self.foreign.clone()));
        }
        if limits == Limits::Ours && !self.is_limited() {
            return Err(Unfit::Unlimited);
        }
        Ok(())
    }

    /// Whoever runs the database may set limits that are narrower.
    fn is_limited(&self) -> bool {
        let within = |ms: i64, most: Duration| {
            u128::try_from(ms).is_ok_and(|ms| (1..=most.as_millis()).contains(&ms))
        };
        within(self.statement_timeout_ms, STATEMENT_TIMEOUT)
            && within(self.lock_timeout_ms, LOCK_TIMEOUT)
    }
}

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
    /// For what takes long. Also where the role has limits.
    None,
}

/// A new connection with these settings, within [`CONNECT_TIMEOUT`], to a database that the gateway can use, and to a server of it
/// that can be written to; one that is for reading, to another where there is none.
///
/// The servers are tried in turn. One that does not answer holds up the next for a moment only, and is listened to all the same.
pub async fn connect(
    target: &Target,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<(PgConnection, Greeting)> {
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
                let met = timeout_at(deadline, meet(server, limits, settings)).await;
                let met = met.unwrap_or_else(|_| Err(too_slow()));
                (place, server, met.inspect_err(pooler::look_at))
            });
            next_at = Instant::now() + head_start;
        }
        let is_more = servers.peek().is_some();
        let tried = tokio::select! {
            tried = tries.next() => tried,
            () = sleep_until(next_at), if is_more => continue,
        };
        let Some((place, server, met)) = tried else {
            failures.sort_by_key(|(place, ..)| *place);
            return readable.ok_or_else(|| all_failed(failures));
        };
        // Another one need not wait for it any more.
        next_at = Instant::now();
        let error = match met {
            Ok((connection, greeting)) if !greeting.read_only => {
                target.keep(place);
                return Ok((connection, greeting));
            }
            Ok(met) if target.only_reads() => {
                readable = Some(met);
                continue;
            }
            Ok(_) => read_only(),
            Err(error) => error,
        };
        failures.push((place, target::name(server), error));
    }
}

/// Connects to this server, if it is one that can be used, and to a session that nobody else gets into.
async fn meet(
    server: &PgConnectOptions,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<(PgConnection, Greeting)> {
    let name = pooler::new_name();
    let named = server.clone().options([(pooler::SESSION, &name)]);
    let mut connection = named.connect().await?;
    let mut greeting = ask(&mut connection, Some(&name), limits, settings).await?;
    if !greeting.is_own {
        pooler::check(&mut connection, &name, server.connect()).await?;
        greeting = ask(&mut connection, Some(&name), limits, settings).await?;
    }
    greeting.check(limits)?;
    Ok((connection, greeting))
}

/// Gives a connection that was used before these settings, if it is one that can be used.
pub(super) async fn greet(
    connection: &mut PgConnection,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<Greeting> {
    let greeting = ask(connection, None, limits, settings).await?;
    greeting.check(limits)?;
    Ok(greeting)
}

async fn ask(
    connection: &mut PgConnection,
    name: Option<&str>,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<Greeting> {
    let mut settings = [settings, ALWAYS].concat();
    if limits == Limits::None {
        settings.extend([("statement_timeout", "0"), ("lock_timeout", "0")]);
    }
    store::greet(connection, name, &settings).await
}

/// For a connection to where nothing can be written.
pub(super) fn read_only() -> sqlx::Error {
    Unavailable::from(Outage::ReadOnly).into()
}

/// For what is bounded on this side.
pub(super) fn too_slow() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}

/// What is known of a database before anything is done with it.
#[derive(Debug)]
pub struct Survey {
    /// How many migrations it lacks.
    pub pending: usize,
    /// How many connections it lets this role have.
    pub room: u32,
    /// Whether what goes there and back can be read on the way.
    pub in_the_clear: bool,
}

/// Whether the way leads to another machine, without insisting on TLS.
fn may_be_in_the_clear(server: &PgConnectOptions) -> bool {
    let mode = server.get_ssl_mode();
    let insists = !matches!(
        mode,
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer
    );
    let host = server.get_host();
    !insists && server.get_socket().is_none() && !host.starts_with('/') && !peer::is_loopback(host)
}

/// Looks at a database: whether it can be used at all, and through whatever stands before it. Whether it can be written to is seen by
/// whoever writes.
pub async fn survey(target: &Target) -> crate::error::Result<Survey> {
    let target = limited(target.clone()).for_reading();
    let (mut connection, _) = connect(&target, Limits::Ours, &[]).await?;
    let look = async {
        let migrations = super::migrations(&mut connection).await?;
        let in_the_clear = target.servers().iter().any(may_be_in_the_clear)
            && !store::is_encrypted(&mut connection).await?;
        let room = store::room(&mut connection).await?;
        Ok((migrations, room, in_the_clear))
    };
    let (migrations, room, in_the_clear) = bounded(look).await?;
    connection.close().await?;
    Ok(Survey {
        pending: super::pending(&migrations),
        room: u32::try_from(room).unwrap_or(1),
        in_the_clear,
    })
}
