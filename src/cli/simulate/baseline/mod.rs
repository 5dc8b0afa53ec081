//! What the gateway's burst is compared with: a transaction for each event, as one would write it
//! by hand, behind a server of its own.
//!
//! Where there is a choice, it has the faster way: a connection for each caller, which is never
//! tested; prepared statements; `axum::serve` as it comes. It checks no signature and no field, and
//! has no limits, metrics or log.

mod http;
mod store;
pub mod transaction;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use axum::serve::ListenerExt;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;

use crate::process::{hidden::Hidden, signal};

/// Longer than a caller ever waits for its connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_mins(1);

/// Store each webhook by a hand-written transaction, for `gateway simulate --burst`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database, in which it makes the schema `hand_written`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Hidden<String>,
    /// Connections to it
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", value_name = "N")]
    database_max_connections: u32,
}

/// Serves until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = signal::stop()?;
    let options: PgConnectOptions = args
        .database_url
        .parse()
        .map_err(|_| anyhow::anyhow!("DATABASE_URL is not a URL"))?;
    let connections = args.database_max_connections;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options.disable_statement_logging())
        .await
        .context("cannot connect")?;
    store::create(&mut *pool.acquire().await?).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = format!("http://{}", listener.local_addr()?);
    tracing::info!(address, "listening");
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection broke");
        }
    });
    axum::serve(listener, http::router(pool))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await?;
    Ok(())
}
