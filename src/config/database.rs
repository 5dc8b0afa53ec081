//! Which database, and how many connections to it.

use std::path::PathBuf;

use clap::Args;

use super::usage::usage;
use super::whatsapp::NUMBER;
use crate::database::plans::Plans;
use crate::database::target::Target;
use crate::database::url;
use crate::error::UsageError;
use crate::process::environment;
use crate::process::hidden::Hidden;

/// The message for half a configuration.
pub(super) const NO_DATABASE: &str = "PROVIDER_URL is set, so DATABASE_URL is required too";

/// The options for the database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL, such as `postgres://user:password@host/database`; of several hosts, such as
    /// `host1:5432,host2:5432`, the writable one is used; unset: a private one in the data
    /// directory
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<Hidden<String>>,
    /// Where the private PostgreSQL keeps its data
    #[arg(
        long,
        env = "GATEWAY_DATA_DIR",
        default_value = ".gateway",
        value_name = "DIR",
        value_parser = directory
    )]
    data_dir: PathBuf,
    /// The most database connections of this process, its writers included (serve needs 5, every
    /// other command 2); unset: serve 14, worker 11, but at most a third of those that the server
    /// allows
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    database_max_connections: Option<u32>,
    /// How the database plans writes: generic, once for a connection; custom, each time: slower,
    /// for databases that can do nothing else (Citus)
    #[arg(
        long,
        env = "DATABASE_PLANS",
        value_enum,
        default_value_t,
        value_name = "PLANS"
    )]
    database_plans: Plans,
}

/// Where the database is. It is never printed: it may hold a password.
#[derive(Clone)]
pub enum Database {
    /// A database that somebody else runs.
    Given(Target),
    /// A private one in this directory.
    Embedded(PathBuf),
}

impl DatabaseArgs {
    /// The most connections of this process, if that is set.
    #[must_use]
    pub fn max_connections(&self) -> Option<u32> {
        self.database_max_connections
    }

    /// How the database plans writes.
    #[must_use]
    pub fn plans(&self) -> Plans {
        self.database_plans
    }

    /// The database that was asked for.
    pub fn database(&self) -> Result<Database, UsageError> {
        match self.database_url.as_deref() {
            // Also for commands that need no provider: with a misspelt DATABASE_URL they must not
            // use a private database.
            None if environment::is_set("PROVIDER_URL") => usage(NO_DATABASE),
            // A customer's message must never end in a private database.
            None if environment::is_set(NUMBER) => {
                usage(format!("{NUMBER} is set, so DATABASE_URL is required too"))
            }
            None => Ok(Database::Embedded(self.data_dir.clone())),
            Some(url) => match url::parse(url) {
                Ok(target) => Ok(Database::Given(target)),
                Err(error) => usage(error),
            },
        }
    }
}

/// A directory. A `~` at its beginning is the home directory: in files of variables no shell
/// replaces it.
fn directory(text: &str) -> Result<PathBuf, &'static str> {
    match text.strip_prefix('~') {
        None => Ok(text.into()),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = std::env::home_dir().filter(|home| home.is_absolute());
            let home = home.ok_or("~ is the home directory, but HOME is not set")?;
            Ok(home.join(rest.trim_start_matches('/')))
        }
        Some(_) => {
            Err("~ with a name is not understood: write the path out, or ./~ where it is meant")
        }
    }
}
