//! The database and the providers together: both are given, or neither.

use std::net::IpAddr;
use std::path::PathBuf;

use super::database::{Database, DatabaseArgs, NO_DATABASE};
use super::usage::usage;
use super::whatsapp::NUMBER;
use crate::database::target::Target;
use crate::error::UsageError;
use crate::provider::providers::Providers;

/// The database and the providers of a `serve`. They are never printed: their URLs may hold secrets.
pub enum Backends {
    /// Both were given.
    Given(Target, Box<Providers>),
    /// Neither was: a private database in this directory, and the mock provider.
    Embedded(PathBuf),
}

impl Backends {
    /// A real customer's message must never end in a mock. So half a configuration is an error, and
    /// so is none at all if other machines can connect.
    pub fn of(
        database: &DatabaseArgs,
        providers: Option<Providers>,
        host: IpAddr,
    ) -> Result<Self, UsageError> {
        match (database.database()?, providers) {
            (Database::Given(target), Some(providers)) => {
                Ok(Self::Given(target, Box::new(providers)))
            }
            (Database::Embedded(directory), None) if host.is_loopback() => {
                Ok(Self::Embedded(directory))
            }
            (Database::Embedded(_), None) => usage(format!(
                "DATABASE_URL and PROVIDER_URL are required when HOST is {host}: the private database and the mock provider are for this machine only"
            )),
            (Database::Embedded(_), Some(_)) => usage(NO_DATABASE),
            (Database::Given(_), None) => usage(format!(
                "DATABASE_URL is set, so PROVIDER_URL or {NUMBER} is required too"
            )),
        }
    }

    /// Both of them, where private ones are no choice.
    pub fn required(
        database: &DatabaseArgs,
        providers: Option<Providers>,
    ) -> Result<(Target, Providers), UsageError> {
        match (database.database()?, providers) {
            (Database::Given(target), Some(providers)) => Ok((target, providers)),
            (Database::Embedded(_), _) => usage("DATABASE_URL is required"),
            (_, None) => usage(format!("PROVIDER_URL or {NUMBER} is required")),
        }
    }
}
