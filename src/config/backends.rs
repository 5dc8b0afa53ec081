//! The database and the provider together: both are given, or neither.

use std::net::IpAddr;
use std::path::PathBuf;

use super::database::{Database, DatabaseArgs, NO_DATABASE};
use super::usage::usage;
use crate::database::target::Target;
use crate::error::UsageError;
use crate::provider::client::Client;

/// The database and the provider of a `serve`. They are never printed: their URLs may hold secrets.
pub enum Backends {
    /// Both were given.
    Given(Target, Box<Client>),
    /// Neither was: a private database in this directory, and the mock provider.
    Embedded(PathBuf),
}

impl Backends {
    /// A real customer's message must never end in a mock. So half a configuration is an error, and
    /// so is none at all if other machines can connect.
    pub fn of(
        database: &DatabaseArgs,
        provider: Option<Client>,
        host: IpAddr,
    ) -> Result<Self, UsageError> {
        match (database.database()?, provider) {
            (Database::Given(target), Some(provider)) => {
                Ok(Self::Given(target, Box::new(provider)))
            }
            (Database::Embedded(directory), None) if host.is_loopback() => {
                Ok(Self::Embedded(directory))
            }
            (Database::Embedded(_), None) => usage(format!(
                "DATABASE_URL and PROVIDER_URL are required when HOST is {host}: the private database and the mock provider are for this machine only"
            )),
            (Database::Embedded(_), Some(_)) => usage(NO_DATABASE),
            (Database::Given(_), None) => {
                usage("DATABASE_URL is set, so PROVIDER_URL is required too")
            }
        }
    }

    /// Both of them, where private ones are no choice.
    pub fn required(
        database: &DatabaseArgs,
        provider: Option<Client>,
    ) -> Result<(Target, Client), UsageError> {
        match (database.database()?, provider) {
            (Database::Given(target), Some(provider)) => Ok((target, provider)),
            (Database::Embedded(_), _) => usage("DATABASE_URL is required"),
            (_, None) => usage("PROVIDER_URL is required"),
        }
    }
}
