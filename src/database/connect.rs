//! The one way to a connection: each passes the same check before it is used.

use std::io;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::timeout;

use super::fault::{Fault, Outage, fault};
use super::{CONNECT_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT, bounded, store};
use crate::peer;

/// The oldest PostgreSQL that has all that the statements use.
const OLDEST: i32 = 14;
/// The encoding that every text of a request fits into.
const ENCODING: &str = "UTF8";

/// Settings of a connection, by name.
pub type Settings = &'static [(&'static str, &'static str)];

/// What makes a database one that the gateway cannot use, and what to do about it: waiting does not mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Texts would be refused, or cut within a character.
    #[error(
        "the database's encoding is {0}, but must be {ENCODING}: create one with \
         `create database … encoding 'UTF8' template template0`"
    )]
    Encoding(String),
    /// The statements would fail.
    #[error("the database is PostgreSQL {0}, but must be {OLDEST} or newer")]
    Version(i32),
    /// Another role's code would run as this one.
    #[error(
        "another role may create functions and tables where the gateway's statements look for theirs, and so run code as the gateway: \
         as the schema's owner, run {}", quoted(.0)
    )]
    Open(Vec<String>),
    /// Another role may read, change and do with them what it likes.
    #[error(
        "tables of the gateway belong to another role, which could read and change all that is in them: if what they hold is yours, \
         run {} as a superuser; else drop them", quoted(.0)
    )]
    Foreign(Vec<String>),
    /// Statements of one connection are met by another.
    #[error(
        "DATABASE_URL leads to a pooler that shares prepared statements among its clients, so that one would run those of another: \
         set its pool_mode to session, or connect to PostgreSQL itself"
    )]
    Shared,
    /// A pooler refuses the settings.
    #[error(
        "DATABASE_URL leads to a pooler that does not take the gateway's settings ({0}): connect to PostgreSQL itself, or set the pooler's \
         pool_mode to session and its ignore_startup_parameters to options,extra_float_digits, and {ROLE}"
    )]
    StartUp(String),
    /// A pooler drops the settings: statements would run, and wait for locks, without a limit.
    #[error(
        "DATABASE_URL leads to a pooler that drops the gateway's settings (statement_timeout, lock_timeout): connect to PostgreSQL itself, or \
         set the pooler's pool_mode to session and {ROLE}"
    )]
    Unlimited,
}

/// Statements, as a sentence has them.
fn quoted(statements: &[String]) -> String {
    format!("`{}`", statements.join("` and `"))
}

const ROLE: &str = "run `alter role … set statement_timeout = '5s'` and `alter role … set lock_timeout = '250ms'` for the role that it \
                    connects as, then make the pooler reconnect";

impl From<Unfit> for sqlx::Error {
    fn from(unfit: Unfit) -> Self {
        Self::Configuration(Box::new(unfit))
    }
}

/// What a connection says of the database when it is new.
#[derive(Debug, Clone)]
pub struct Greeting {
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
    /// What takes from others the right to create in a schema of the search path.
    pub open: Vec<String>,
    /// What takes the gateway's tables from others.
    pub foreign: Vec<String>,
}

impl Greeting {
    fn check(&self) -> Result<(), Unfit> {
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
        Ok(())
    }

    /// Whoever runs the database may set limits that are narrower.
    fn check_limits(&self) -> Result<(), Unfit> {
        let within = |ms: i64, most: Duration| {
            u128::try_from(ms).is_ok_and(|ms| (1..=most.as_millis()).contains(&ms))
        };
        if within(self.statement_timeout_ms, STATEMENT_TIMEOUT)
            && within(self.lock_timeout_ms, LOCK_TIMEOUT)
        {
            return Ok(());
        }
        Err(Unfit::Unlimited)
    }
}

/// The limits that every connection of a running gateway gets.
#[must_use]
pub fn limited(options: PgConnectOptions) -> PgConnectOptions {
    options
        .application_name("gateway")
        .options([
            ("statement_timeout", STATEMENT_TIMEOUT.as_millis()),
            ("lock_timeout", LOCK_TIMEOUT.as_millis()),
        ])
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1))
}

/// How long statements may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// As long as those of a running gateway, which [`limited`] options ask for.
    Ours,
    /// For what takes long. Also where the role has limits.
    None,
}

/// A new connection with these settings, within [`CONNECT_TIMEOUT`], if it is to a database that the gateway can use.
pub async fn connect(
    options: &PgConnectOptions,
    limits: Limits,
    settings: Settings,
) -> sqlx::Result<(PgConnection, Greeting)> {
    let mut settings = settings.to_vec();
    if limits == Limits::None {
        settings.extend([("statement_timeout", "0"), ("lock_timeout", "0")]);
    }
    let greet = async {
        let mut connection = options.connect().await?;
        let greeting = store::greet(&mut connection, &settings).await?;
        Ok::<_, sqlx::Error>((connection, greeting))
    };
    let (connection, greeting) = timeout(CONNECT_TIMEOUT, greet)
        .await
        .map_err(|_| too_slow())??;
    greeting.check()?;
    if limits == Limits::Ours {
        greeting.check_limits()?;
    }
    Ok((connection, greeting))
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
fn may_be_in_the_clear(options: &PgConnectOptions) -> bool {
    let mode = options.get_ssl_mode();
    let insists = !matches!(
        mode,
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer
    );
    let host = options.get_host();
    !insists && options.get_socket().is_none() && !host.starts_with('/') && !peer::is_loopback(host)
}

/// Looks at a database: whether it can be used at all, and through whatever stands before it.
///
/// Two connections, which behind a pooler in transaction mode are one: then the second finds that what it prepares is there already.
pub async fn survey(options: &PgConnectOptions) -> crate::error::Result<Survey> {
    let options = limited(options.clone());
    let (mut connection, _) = connect(&options, Limits::Ours, &[]).await?;
    match connect(&options, Limits::Ours, &[]).await {
        Ok((other, _)) => other.close().await?,
        // Nothing is known of a pooler then; this one may still be enough.
        Err(error) if fault(&error) == Fault::Away(Outage::Full) => {}
        Err(error) => return Err(error.into()),
    }
    let look = async {
        let migrations = super::migrations(&mut connection).await?;
        let in_the_clear =
            may_be_in_the_clear(&options) && !store::is_encrypted(&mut connection).await?;
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
