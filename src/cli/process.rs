//! The life of `serve` and `worker`: their limits, their warnings, and how they start and stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Role};
use crate::config::{ClientArgs, RetentionArgs, is_public};
use crate::database::Inspection;
use crate::delivery::worker::Worker;
use crate::feed;
use crate::http::auth::Secrets;
use crate::http::server::{Limits, MAX_CONNECTIONS, Server};
use crate::process::signal;
use crate::provider::providers::Providers;
use crate::receipt;
use crate::trace;
use crate::webhook;

/// Open files for what serves no client and makes no attempt: the database, the logs, the runtime.
const OWN_FILES: usize = 64;

/// Cancelled by SIGTERM or Ctrl-C, but not by a terminal that is closed.
pub fn stop_signal() -> std::io::Result<CancellationToken> {
    signal::outlive_terminal()?;
    signal::stop()
}

/// Raises the limit of open files as far as needed and allowed, and divides the files between
/// clients and attempts, so that neither can starve the other.
pub fn client_limits(clients: &ClientArgs, attempts: usize) -> anyhow::Result<Limits> {
    // Twice: a replaced connection may still be closing, and a built-in mock has the other ends.
    let others = OWN_FILES.saturating_add(attempts.saturating_mul(2));
    let wanted = others.saturating_add(MAX_CONNECTIONS);
    let open_files = rlimit::increase_nofile_limit(u64::try_from(wanted)?)
        .context("the limit of open files could not be raised")?;
    let open_files = usize::try_from(open_files)?;
    let connections = MAX_CONNECTIONS.min(open_files.saturating_sub(others).max(open_files / 2));
    if connections < MAX_CONNECTIONS {
        tracing::warn!(
            open_files,
            connections,
            "the limit of open files allows fewer connections than usual"
        );
    }
    Ok(Limits {
        connections,
        client_timeout: clients.client_timeout(),
        proxies: clients.proxies(),
    })
}

/// Warns of what anybody who can connect may do, because a secret is not set.
pub fn warn_when_open(secrets: &Secrets, server: &Server, role: Role) {
    let is_public = is_public(server.address().ip());
    let serves = role.serves();
    if is_public && !secrets.has_api_keys() {
        let what = if serves {
            "read and send messages"
        } else {
            "read the metrics"
        };
        tracing::warn!("API_KEYS is not set: everybody who can connect can {what}");
    }
    if serves && is_public && secrets.has_api_keys() {
        tracing::warn!(
            "HOST is public and this is plain http: keys and texts are in the clear, but for what a proxy with TLS in front carries"
        );
    }
}

/// Warns once if the mock's wire, which only `WEBHOOK_SECRET` protects, takes anybody's webhooks.
pub fn warn_of_unsigned_webhooks(secrets: &Secrets, server: &Server) {
    let is_public = is_public(server.address().ip());
    if (is_public || secrets.has_api_keys()) && !secrets.has_webhook_secrets() {
        tracing::warn!("WEBHOOK_SECRET is not set: everybody who can connect can post webhooks");
    }
}

/// Warns once if customers' texts leave this machine unencrypted.
pub fn warn_of_clear_text(inspection: &Inspection, providers: &Providers) {
    if inspection.is_clear_text {
        tracing::warn!(
            "DATABASE_URL leads to another machine without TLS: customers' texts and the password's exchange are in the clear; sslmode=verify-full encrypts them"
        );
    }
    if providers.is_in_the_clear() {
        tracing::warn!(
            "PROVIDER_URL is http and leads to another machine: customers' texts are in the clear"
        );
    }
}

/// Starts the work that no request asks for: retries, and the retention of webhook bodies and of
/// statuses.
pub fn start_background_work(
    app: &Arc<App>,
    worker: Worker,
    retention: &RetentionArgs,
    stop: &CancellationToken,
    parts: &mut JoinSet<()>,
) {
    let tasks = app.courier.tasks.tracker();
    parts.spawn(tasks.track_future(worker.run(stop.clone())));
    let days = retention.webhook_body_days();
    let of_webhooks = webhook::retention::run(app.pool.clone(), days, stop.clone());
    parts.spawn(tasks.track_future(of_webhooks));
    let of_receipts = receipt::retention::run(app.pool.clone(), stop.clone());
    parts.spawn(tasks.track_future(of_receipts));
}

/// Starts the retention of changes, which every process that runs for long takes part in.
pub fn start_retention_of_feed(
    app: &Arc<App>,
    retention: &RetentionArgs,
    stop: &CancellationToken,
    parts: &mut JoinSet<()>,
) {
    let tasks = app.courier.tasks.tracker();
    let minutes = retention.feed_minutes();
    let of_feed = feed::retention::run(app.pool.clone(), minutes, stop.clone());
    parts.spawn(tasks.track_future(of_feed));
}

/// Runs until the process is told to stop. A part that ends before that is an error.
pub async fn until_stopped(
    stop: &CancellationToken,
    parts: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        Some(ended) = parts.join_next() => Err(part_ended(ended)),
    }
}

/// A writer or the worker has ended, although nothing stopped it: it panicked.
pub fn part_ended(ended: Result<(), JoinError>) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow::anyhow!("a part of the engine ended by itself"),
        Err(error) => anyhow::Error::new(error).context("a part of the engine failed"),
    }
}

/// Lets running work finish within `limit`. Attempts that take longer are left to their leases.
pub async fn shut_down(app: Arc<App>, server: Option<Server>, limit: Duration) {
    let deadline = Instant::now() + limit;
    let tasks = app.courier.tasks.tracker();
    tasks.close();
    let finished = async {
        if let Some(server) = &server {
            server.drain().await;
        }
        tasks.wait().await;
    };
    if timeout(limit, finished).await.is_err() {
        tracing::warn!(
            tasks = tasks.len(),
            "shutdown timed out, what is left is taken over when its leases expire"
        );
    }
    trace::stop(deadline.saturating_duration_since(Instant::now())).await;
    if let Some(server) = server {
        server.close();
    }
}
