//! Looks at a database before anything is done with it.

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::connect::{Limits, connect, limited};
use super::limits::bounded;
use super::target::Target;
use super::{migrate, store};
use crate::error::Result;
use crate::peer;

/// What is known of a database before anything is done with it.
#[derive(Debug)]
pub struct Inspection {
    /// How many migrations it lacks.
    pub pending: usize,
    /// How many connections it lets this role have.
    pub connection_limit: u32,
    /// Whether others on the network can read what is sent.
    pub is_clear_text: bool,
}

/// Checks that the gateway can use a database, through whatever stands before it. Whether it can
/// be written to is not checked: each writer finds out for itself.
pub async fn inspect(target: &Target) -> Result<Inspection> {
    let target = limited(target.clone()).for_reading();
    let (mut connection, _) = connect(&target, Limits::Ours, &[]).await?;
    let look = async {
        let migrations = migrate::migrations(&mut connection).await?;
        let is_clear_text = target.servers().iter().any(may_be_clear_text)
            && !store::is_encrypted(&mut connection).await?;
        let connection_limit = store::connection_limit(&mut connection).await?;
        Ok((migrations, connection_limit, is_clear_text))
    };
    let (migrations, connection_limit, is_clear_text) = bounded(look).await?;
    connection.close().await?;
    Ok(Inspection {
        pending: migrate::pending(&migrations),
        // At least the one that has answered.
        connection_limit: u32::try_from(connection_limit).unwrap_or(1),
        is_clear_text,
    })
}

/// Whether the server is on another machine, and TLS is not required.
fn may_be_clear_text(server: &PgConnectOptions) -> bool {
    let requires_tls = !matches!(
        server.get_ssl_mode(),
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer
    );
    let host = server.get_host();
    !requires_tls
        && server.get_socket().is_none()
        && !host.starts_with('/')
        && !peer::is_loopback(host)
}
