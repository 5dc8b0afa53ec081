//! Sends the messages again, here or by a running worker, and sees how each ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mock_meta_provider::Mock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::rows::{Row, print_ended, seconds};
use super::{Args, requested, requeue};
use crate::app::{App, Role};
use crate::cli::database::CommandDatabase;
use crate::cli::output;
use crate::id::MessageId;
use crate::message::store::{self, Baseline};
use crate::provider::providers::Providers;
use crate::{channel, delivery};

const POLL: Duration = Duration::from_millis(100);

pub async fn send(
    args: &Args,
    opened: &CommandDatabase,
    providers: Option<Providers>,
) -> anyhow::Result<()> {
    let (providers, mock) = if let Some(providers) = providers {
        (providers, None)
    } else {
        let (url, mock) = mock(args, opened).await?;
        (args.delivery.provider_at(&url)?, mock)
    };
    let mut parts = JoinSet::new();
    let connections = Role::Command.least_connections();
    let database = (opened.target.clone(), connections, args.database.plans());
    let settings = args.delivery.settings(Role::Command, database, providers);
    let app = App::new(settings, &mut parts);
    // The session that has looked at the database may still count.
    app.pool.wait_for_room().await?;
    delivery::hold::begin(&app.pool, &app.courier.providers).await?;
    let mut requested = requested(args, &app.pool).await?;
    let count = requested.len();
    let requeued = requeue(args, &app.pool, &mut requested).await?;
    requested.retain(|message| !requeued.held.contains(&message.id));
    let mut ended = Vec::new();
    for paused in channel::store::list_paused(&app.pool).await? {
        let why = if paused.is_held {
            "the provider refuses the token or the account"
        } else {
            "the provider has answered 429"
        };
        output::say(&format!(
            "{} is paused until {}, since {why}: nothing is sent there before",
            paused.channel.as_str(),
            seconds(paused.until)
        ));
    }
    let drained = drain(args, &app, requested, &mut ended).await;
    // Also after an error: what has ended is known.
    let sent = print_ended(args.json, ended, count)?;
    drained?;
    let tasks = app.courier.tasks.tracker();
    tasks.close();
    tasks.wait().await;
    if let Some(mock) = mock {
        mock.stop().await;
    }
    if sent < count {
        bail!("{} of {count} messages were not sent", count - sent);
    }
    Ok(())
}

/// The mock provider of the running `serve` that owns the private database, or else one that lives
/// as long as this command.
async fn mock(args: &Args, opened: &CommandDatabase) -> anyhow::Result<(String, Option<Mock>)> {
    let address = ("127.0.0.1", args.mock.port());
    match TcpListener::bind(address).await {
        Ok(listener) => {
            let mock = Mock::start(args.mock.config()?, listener)?;
            Ok((mock.url(), Some(mock)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && opened.is_joined() => {
            Ok((format!("http://127.0.0.1:{}", args.mock.port()), None))
        }
        Err(error) => Err(error)
            .context("the mock provider cannot listen: choose another port with MOCK_PORT"),
    }
}

/// Sends these messages, or sees a running worker send them, until each has ended once more.
async fn drain(
    args: &Args,
    app: &Arc<App>,
    requested: Vec<Baseline>,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let policy = app.courier.policy;
    let longest = Duration::from_secs_f64(policy.max_wait_seconds + 2.0 * policy.lease_seconds);
    let mut progress_at = Instant::now();
    let mut looked_at = Instant::now();
    let bar = output::progress(requested.len() as u64, "sending");
    // Wide enough that attempts never wait for it.
    let window = 8 * args.worker.concurrency();
    let mut backlog = requested.into_iter();
    let mut open: Vec<Baseline> = backlog.by_ref().take(window).collect();
    let mut worker = app.worker(args.worker.concurrency());
    while !open.is_empty() {
        worker.restrict_to(open.iter().map(|message| message.id).collect());
        let idle = worker.claim_once().await? == 0;
        if !idle && looked_at.elapsed() < POLL {
            continue;
        }
        looked_at = Instant::now();
        let ended = store::list_ended(&app.pool, &open).await?;
        if idle && ended.is_empty() {
            // Woken when one is no longer blocked.
            timeout(POLL, app.courier.wake.notified()).await.ok();
        }
        let ended_ids: HashSet<MessageId> = ended.iter().map(|message| message.id).collect();
        open.retain(|message| !ended_ids.contains(&message.id));
        open.extend(backlog.by_ref().take(ended.len()));
        if !ended.is_empty() {
            progress_at = Instant::now();
        }
        rows.extend(ended.iter().map(Row::of));
        bar.set_position(rows.len() as u64);
        if progress_at.elapsed() > longest {
            bail!(
                "{} messages are still waiting: is their channel paused, or are they held by another process?",
                open.len() + backlog.len()
            );
        }
    }
    bar.finish_and_clear();
    Ok(())
}
