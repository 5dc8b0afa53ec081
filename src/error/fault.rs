//! The meaning of the database's errors, by their SQLSTATE (PostgreSQL's documentation, appendix
//! A), and their text for logs and callers.

use std::fmt;
use std::sync::Arc;

use sqlx::postgres::PgDatabaseError;

/// The oldest PostgreSQL with everything that the statements use.
pub const OLDEST: u32 = 14;
/// The encoding that can store every text of a request.
pub const ENCODING: &str = "UTF8";

/// Why the gateway cannot use a database, and what to do about it. Waiting does not help.
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
    Version(u32),
    /// Code of another role would run as this one.
    #[error(
        "another role may create functions and tables where the gateway's statements look for theirs, and so run code as the gateway: \
         as the schema's owner, run {}", quoted(.0)
    )]
    Open(Vec<String>),
    /// Another role may read and change everything in them.
    #[error(
        "tables of the gateway belong to another role, which could read and change all that is in them: if what they hold is yours, \
         run {} as a superuser; else drop them", quoted(.0)
    )]
    Foreign(Vec<String>),
    /// Statements and settings of one connection reach another.
    #[error(
        "DATABASE_URL leads to a pooler that shares sessions among its clients (pool_mode transaction or statement), so that one would run \
         another's statements, with another's limits: set its pool_mode to session, or connect to PostgreSQL itself"
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

impl Unfit {
    /// Whether the pooler before the database is at fault.
    #[must_use]
    pub fn is_pooler(&self) -> bool {
        matches!(self, Self::Shared | Self::StartUp(_) | Self::Unlimited)
    }
}

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

/// What an error of the database means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The data of a row is wrong: SQLSTATE class 22 (data exception) or 23 (integrity constraint
    /// violation).
    Row,
    /// Two first messages to one participant raced, and this one lost. It is to be repeated.
    LostRace,
    /// Waited longer than `LOCK_TIMEOUT` for a row (55P03).
    Locked,
    /// The database cannot be used at the moment. It may be back in the next one.
    Away(Outage),
    /// Any other error. Its cause may be the data of one row, this connection (such as the plan of
    /// a table that has changed), or a mistake of ours. So a writer reconnects and halves the
    /// batch, and retries an item alone only for a limited time.
    Unexpected,
}

/// Why the database cannot be used. The text is what callers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// It is a standby, or was made read-only (25006).
    #[error("the database is read-only")]
    ReadOnly,
    /// It takes no more connections (53300).
    #[error("there are too many connections to the database")]
    Full,
    /// All connections of this process for reads are in use.
    #[error("all connections to the database are in use")]
    Busy,
    /// Its disk is full (53100).
    #[error("the database's disk is full")]
    DiskFull,
    /// It lacks a table or a column (42P01, 42703).
    #[error("the database is not migrated")]
    NotMigrated,
    /// The gateway's role lacks a right (42501), or may not connect (class 28).
    #[error("the database does not permit it")]
    Forbidden,
    /// No database has that name (3D000).
    #[error("there is no such database")]
    Missing,
    /// The gateway cannot use it.
    #[error("the database cannot be used as it is")]
    Unfit,
    /// The gateway cannot use the pooler before it.
    #[error("the pooler before the database cannot be used as it is")]
    Pooler,
    /// It is away, restarting or stuck.
    #[error("the database does not answer")]
    NoAnswer,
    /// It answers with an unexpected error.
    #[error("the database answers with an error")]
    Failing,
}

impl From<&Unfit> for Outage {
    fn from(unfit: &Unfit) -> Self {
        if unfit.is_pooler() {
            Self::Pooler
        } else {
            Self::Unfit
        }
    }
}

/// One line with what the database, or the connection to it, has reported.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Cause(Arc<str>);

impl Cause {
    /// What this process has found out itself.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<&sqlx::Error> for Cause {
    fn from(error: &sqlx::Error) -> Self {
        Self(ErrorText(error).to_string().into())
    }
}

/// The database could not be used. It is not known whether anything was stored.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{outage}")]
pub struct Unavailable {
    /// For callers.
    pub outage: Outage,
    /// Only for the log.
    #[source]
    pub cause: Option<Cause>,
}

impl From<Outage> for Unavailable {
    fn from(outage: Outage) -> Self {
        Self {
            outage,
            cause: None,
        }
    }
}

impl From<Unavailable> for sqlx::Error {
    fn from(unavailable: Unavailable) -> Self {
        Self::Configuration(Box::new(unavailable))
    }
}

/// The details inside an error that this process has made itself.
fn unavailable(error: &sqlx::Error) -> Option<&Unavailable> {
    match error {
        sqlx::Error::Configuration(cause) => cause.downcast_ref(),
        _ => None,
    }
}

impl From<&sqlx::Error> for Unavailable {
    fn from(error: &sqlx::Error) -> Self {
        if let Some(unavailable) = unavailable(error) {
            return unavailable.clone();
        }
        let outage = match fault(error) {
            Fault::Away(outage) => outage,
            _ => Outage::Failing,
        };
        Self {
            outage,
            cause: Some(error.into()),
        }
    }
}

/// Classifies an error.
#[must_use]
pub fn fault(error: &sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::PoolTimedOut => Fault::Away(Outage::Busy),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Fault::Away(Outage::NoAnswer),
            _ if let Some(unfit) = unfit(error) => Fault::Away((&unfit).into()),
            _ => unavailable(error).map_or(Fault::Unexpected, |it| Fault::Away(it.outage)),
        };
    };
    // First: an error about a wrong statement's parameters is not about a row's data.
    if let Some(unfit) = unfit(error) {
        return Fault::Away((&unfit).into());
    }
    let code = database.code().unwrap_or_default();
    match (&*code, code.get(..2).unwrap_or_default()) {
        // There is only one foreign key. A pooler or proxy may drop or change its name.
        ("23503", _) => Fault::LostRace,
        ("55P03", _) => Fault::Locked,
        (_, "22" | "23") => Fault::Row,
        ("25006", _) => Fault::Away(Outage::ReadOnly),
        ("53300", _) => Fault::Away(Outage::Full),
        ("53100", _) => Fault::Away(Outage::DiskFull),
        ("42P01" | "42703", _) => Fault::Away(Outage::NotMigrated),
        ("42501", _) | (_, "28") => Fault::Away(Outage::Forbidden),
        ("3D000", _) => Fault::Away(Outage::Missing),
        (_, "08" | "40" | "53" | "55" | "57" | "58") => Fault::Away(Outage::NoAnswer),
        _ => Fault::Unexpected,
    }
}

/// What waiting cannot mend. Any other error may come from a database that is still being set up:
/// not there yet, starting, full, without the role, its password, a right (28, 3D000, 42501) or its
/// migrations.
#[must_use]
pub fn unfit(error: &sqlx::Error) -> Option<Unfit> {
    match error {
        sqlx::Error::Configuration(cause) => cause.downcast_ref().cloned(),
        sqlx::Error::Database(database) => {
            let message = database.message();
            match &*database.code().unwrap_or_default() {
                // A statement that this connection has not prepared exists; or one that it has
                // prepared is gone, or is another one with other parameters.
                "42P05" | "26000" | "22P03" => Some(Unfit::Shared),
                "08P01" if is_protocol_violation(error) || message == UNKNOWN => {
                    Some(Unfit::Shared)
                }
                "08P01" if message.contains("unsupported startup parameter") => {
                    Some(Unfit::StartUp(message.to_owned()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// With several servers, none of them usable, callers are told the first of these that occurred.
const MOST_TELLING: [Outage; 9] = [
    Outage::Forbidden,
    Outage::Missing,
    Outage::NotMigrated,
    Outage::DiskFull,
    Outage::Full,
    Outage::Busy,
    Outage::Failing,
    Outage::NoAnswer,
    Outage::ReadOnly,
];

/// One error for all servers that were tried, each with its place and name.
#[must_use]
pub fn all_failed(mut failures: Vec<(usize, String, sqlx::Error)>) -> sqlx::Error {
    let final_one = failures
        .iter()
        .position(|(_, _, error)| unfit(error).is_some());
    if failures.len() == 1 || final_one.is_some() {
        return failures.swap_remove(final_one.unwrap_or_default()).2;
    }
    let (mut outages, mut said) = (Vec::new(), Vec::new());
    for (_, name, error) in &failures {
        outages.push(Unavailable::from(error).outage);
        said.push(match error {
            sqlx::Error::Io(error) => format!("{name}: {error}"),
            error => format!("{name}: {}", ErrorText(error)),
        });
    }
    let outage = MOST_TELLING.into_iter().find(|it| outages.contains(it));
    let unavailable = Unavailable {
        outage: outage.unwrap_or(Outage::NoAnswer),
        cause: Some(Cause(said.join("; ").into())),
    };
    unavailable.into()
}

/// `PgBouncer`'s message for a prepared statement that it does not know.
const UNKNOWN: &str = "prepared statement did not exist";

/// Whether PostgreSQL itself (in any language) did not understand a message. Poolers use this code
/// for all their errors.
fn is_protocol_violation(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    let error = database.and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    let routine = error.and_then(PgDatabaseError::routine).unwrap_or_default();
    routine.starts_with("exec_") || routine.starts_with("pq_")
}

/// The text of an error: each cause once, without the line of PostgreSQL's source, and without the
/// data in its details.
pub struct ErrorText<'a>(pub &'a sqlx::Error);

impl fmt::Display for ErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(unfit) = unfit(self.0) {
            return unfit.fmt(f);
        }
        if let Some(Unavailable { outage, cause }) = unavailable(self.0) {
            return match cause {
                Some(cause) => cause.fmt(f),
                None => outage.fmt(f),
            };
        }
        match self.0 {
            sqlx::Error::Database(error) => f.write_str(error.message()),
            sqlx::Error::PoolTimedOut => f.write_str("no connection was free in time"),
            error => error.fmt(f),
        }
    }
}
