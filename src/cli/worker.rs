//! `gateway worker`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::database::{WAIT, max_connections, wait_for_database, wait_for_writers};
use super::process::{
    client_limits, part_ended, shut_down, start_background_work, start_retention_of_feed,
    stop_signal, until_stopped, warn_of_clear_text, warn_when_open,
};
use crate::app::{App, Role};
use crate::config::{
    Backends, ClientArgs, DatabaseArgs, DeliveryArgs, HostArgs, MetricsArgs, RetentionArgs,
    ShutdownArgs, WorkerArgs, secrets,
};
use crate::database::bounded;
use crate::delivery;
use crate::http::server::Server;
use crate::telemetry;
use crate::{api_state, router};

/// Retry failed messages until stopped; run any number of workers beside any number of serve
///
/// Some settings are secrets, and are read from the environment only:
///
/// API_KEYS: keys, comma-separated. Whoever reads /metrics must have one with the scope admin.
/// Unset: no key is needed.
///
/// WHATSAPP_ACCESS_TOKEN, META_APP_SECRET and META_VERIFY_TOKEN: as for `gateway serve`.
///
/// Each may be in a file instead: API_KEYS_FILE and so on name it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples, with DATABASE_URL and PROVIDER_URL set:\n  gateway worker --metrics-addr 127.0.0.1:9100\n  gateway worker --drain"
)]
pub struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    shutdown: ShutdownArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    client: ClientArgs,
    /// Stop when nothing is due
    #[arg(long)]
    drain: bool,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let (database, providers) = Backends::required(&args.database, args.delivery.providers()?)?;
    let max_connections = max_connections(&args.database, Role::Worker)?;
    let metrics_addr = args.metrics.address();
    let secrets = Arc::new(secrets(metrics_addr.map(|address| address.ip()))?);
    let address = metrics_addr.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip());
    let hosts = Arc::new(args.host.hosts(address));
    let metrics = telemetry::metrics()?;
    let stop = stop_signal()?;
    let limits = client_limits(&args.client, args.worker.concurrency())?;
    let server = match metrics_addr {
        Some(address) => {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on METRICS_ADDR {address}"))?;
            let server = Server::start(listener, router::starting(), limits)?;
            tracing::info!(address = %format!("http://{}", server.address()), "serving metrics");
            warn_when_open(&secrets, &server, Role::Worker);
            Some(server)
        }
        None => None,
    };
    let mut parts = JoinSet::new();
    let ready = async {
        let deadline = Instant::now() + WAIT;
        let inspection = wait_for_database(&database, false, deadline).await?;
        warn_of_clear_text(&inspection, &providers);
        let connections = max_connections
            .unwrap_or_else(|| Role::Worker.usual_connections(inspection.connection_limit));
        let database = (database.clone(), connections, args.database.plans());
        let settings = args.delivery.settings(Role::Worker, database, providers);
        let app = App::new(settings, &mut parts);
        wait_for_writers(&app, deadline).await?;
        bounded(delivery::hold::begin(&app.pool, &app.courier.providers)).await?;
        anyhow::Ok(app)
    };
    let app = tokio::select! {
        ready = ready => ready?,
        () = stop.cancelled() => return Ok(()),
    };

    if let Some(server) = &server {
        let state = api_state::Parts {
            media: None,
            app: Arc::clone(&app),
            stopping: stop.clone(),
            secrets,
            hosts,
            demo: None,
            places: Arc::default(),
            metrics,
        };
        server.replace(router::operations(state.into()));
    }
    let worker = app.worker(args.worker.concurrency());
    tracing::info!(concurrency = args.worker.concurrency(), "working");
    let worked = if args.drain {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            drained = worker.drain() => drained.map_err(Into::into),
            Some(ended) = parts.join_next() => Err(part_ended(ended)),
        }
    } else {
        start_background_work(&app, worker, &args.retention, &stop, &mut parts);
        start_retention_of_feed(&app, &args.retention, &stop, &mut parts);
        until_stopped(&stop, &mut parts).await
    };
    tracing::info!("stopping");
    stop.cancel();
    shut_down(app, server, args.shutdown.timeout()).await;
    worked
}
