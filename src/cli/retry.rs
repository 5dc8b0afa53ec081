//! `gateway retry`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mock_meta_provider::Mock;
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Opened, output, prepare};
use crate::app::App;
use crate::config::{Backends, DatabaseArgs, DeliveryArgs, MockArgs, WorkerArgs};
use crate::database;
use crate::delivery::worker::Worker;
use crate::message::{Message, MessageId, Status, service, store};

/// Messages of one statement.
const PAGE: usize = 100;
const POLL: Duration = Duration::from_millis(100);

/// List the messages that failed, or send them again
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "all", "list"])))]
pub struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    mock: MockArgs,
    /// The messages to send again
    #[arg(value_name = "ID")]
    ids: Vec<MessageId>,
    /// Send all messages that failed
    #[arg(long)]
    all: bool,
    /// List the messages that failed; send none
    #[arg(long)]
    list: bool,
    /// Only make them due: a running worker sends them
    #[arg(long, conflicts_with = "list")]
    requeue_only: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let sends = !args.list && !args.requeue_only;
    let provider_url = args.delivery.provider_url()?;
    if sends {
        // Half a configuration is an error before anything is begun.
        let localhost = std::net::Ipv4Addr::LOCALHOST.into();
        Backends::of(&args.database, provider_url.clone(), localhost)?;
    }
    let opened = Opened::open(&args.database).await?;
    if prepare(&opened.options, opened.embedded.is_some()).await? > 0 {
        bail!("the database is not migrated: run gateway migrate");
    }
    let done = match (args.list, args.requeue_only) {
        (true, _) => list(&args, &opened.options).await,
        (_, true) => requeue_only(&args, &opened.options).await,
        _ => send(&args, &opened, provider_url).await,
    };
    opened.close().await?;
    done
}

async fn list(args: &Args, options: &PgConnectOptions) -> anyhow::Result<()> {
    let failed = failed(&database::pool(options.clone())).await?;
    let rows: Vec<Row> = failed.iter().map(Row::from).collect();
    if args.json {
        return output::json(&rows);
    }
    if rows.is_empty() {
        output::say("no message has failed");
        return Ok(());
    }
    let headers = [
        "ID",
        "CHANNEL",
        "TO",
        "ATTEMPTS",
        "ERROR",
        "SINCE",
        "NEXT ATTEMPT",
    ];
    let cells = rows.into_iter().map(|row| {
        let next = row.next_attempt_at.unwrap_or_else(|| "none".to_owned());
        vec![
            row.id,
            row.channel,
            row.to,
            row.attempts.to_string(),
            row.error,
            row.since,
            next,
        ]
    });
    Ok(output::table(&headers, cells)?)
}

async fn requeue_only(args: &Args, options: &PgConnectOptions) -> anyhow::Result<()> {
    let pool = database::pool(options.clone());
    let asked = asked(args, &pool).await?;
    let due = requeue(args, &pool, &asked).await?;
    output::say(&format!(
        "made {} of {} messages due",
        due.len(),
        asked.len()
    ));
    if args.json {
        output::json(&due.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    }
    Ok(())
}

async fn send(args: &Args, opened: &Opened, provider_url: Option<String>) -> anyhow::Result<()> {
    let (provider_url, mock) = match provider_url {
        Some(url) => (url, None),
        None => mock(args, opened).await?,
    };
    let mut engine = JoinSet::new();
    let settings = args
        .delivery
        .settings(opened.options.clone(), &provider_url)?;
    let app = App::new(settings, &mut engine);
    let asked = asked(args, &app.pool).await?;
    let before: HashMap<MessageId, i32> = find(&app.pool, &asked)
        .await?
        .iter()
        .map(|message| (message.id, message.retry_count))
        .collect();
    let due = requeue(args, &app.pool, &asked).await?;
    output::say(&format!(
        "made {} of {} messages due",
        due.len(),
        asked.len()
    ));
    let ended = drain(args, &app, &asked, &before).await?;
    report(args, &ended)?;
    app.tasks.close();
    app.tasks.wait().await;
    if let Some(mock) = mock {
        mock.stop().await;
    }
    let sent = ended
        .iter()
        .filter(|message| message.status == Status::Sent)
        .count();
    if sent < asked.len() {
        bail!(
            "{} of {} messages were not sent",
            asked.len() - sent,
            asked.len()
        );
    }
    Ok(())
}

/// The mock provider of the running `serve` that owns the private database, or else one for the time of this command.
async fn mock(args: &Args, opened: &Opened) -> anyhow::Result<(String, Option<Mock>)> {
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

/// The messages that the command is about.
async fn asked(args: &Args, pool: &PgPool) -> anyhow::Result<Vec<MessageId>> {
    if args.all {
        let failed = failed(pool).await?;
        // Oldest first: that is the order in which they are put in line again.
        return Ok(failed.iter().rev().map(|message| message.id).collect());
    }
    let mut ids = args.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    let known: HashMap<MessageId, Status> = find(pool, &ids)
        .await?
        .into_iter()
        .map(|message| (message.id, message.status))
        .collect();
    for id in &ids {
        match known.get(id) {
            None => bail!("{id}: no such message"),
            Some(Status::Failed) => {}
            Some(status) => {
                bail!("{id}: only a message that has failed can be retried, this one is {status:?}")
            }
        }
    }
    Ok(ids)
}

async fn failed(pool: &PgPool) -> anyhow::Result<Vec<Message>> {
    let limit = i64::try_from(PAGE)?;
    let mut failed: Vec<Message> = Vec::new();
    loop {
        let last = failed.last().map(|message| message.id);
        let page = store::list_unsent(pool, Status::Failed, None, last, limit).await?;
        let complete = page.len() < PAGE;
        failed.extend(page);
        if complete {
            return Ok(failed);
        }
    }
}

async fn find(pool: &PgPool, ids: &[MessageId]) -> anyhow::Result<Vec<Message>> {
    let mut connection = pool.acquire().await?;
    let mut found = Vec::new();
    for page in ids.chunks(PAGE) {
        found.extend(store::list_by_id(&mut connection, page).await?);
    }
    Ok(found)
}

/// Makes them due; one that is being sent at this moment, or is due already, stays as it is and is waited for too.
async fn requeue(args: &Args, pool: &PgPool, ids: &[MessageId]) -> anyhow::Result<Vec<MessageId>> {
    let mut due = Vec::new();
    for page in ids.chunks(PAGE) {
        due.extend(service::requeue(pool, &args.delivery.terms(), page).await?);
    }
    Ok(due)
}

/// Sends these messages, or sees them sent by a running worker, until each has ended once more.
async fn drain(
    args: &Args,
    app: &Arc<App>,
    ids: &[MessageId],
    before: &HashMap<MessageId, i32>,
) -> anyhow::Result<Vec<Message>> {
    let terms = app.terms;
    let longest = Duration::from_secs_f64(terms.max_wait_seconds + 2.0 * terms.lease_seconds);
    let mut progress_at = Instant::now();
    let bar = output::progress(ids.len() as u64, "sending");
    let mut open = ids.to_vec();
    let mut ended: Vec<Message> = Vec::new();
    let mut worker = Worker::new(Arc::clone(app), args.worker.concurrency());
    while !open.is_empty() {
        let front: Vec<MessageId> = open.iter().take(PAGE).copied().collect();
        worker.narrow(front.clone());
        worker.claim_once().await?;
        tokio::time::sleep(POLL).await;
        let is_over = |message: &Message| {
            let failed_before = before.get(&message.id).copied().unwrap_or_default();
            message.status == Status::Sent || message.retry_count > failed_before
        };
        let over: Vec<Message> = find(&app.pool, &front)
            .await?
            .into_iter()
            .filter(is_over)
            .collect();
        open.retain(|id| !over.iter().any(|message| message.id == *id));
        if !over.is_empty() {
            progress_at = Instant::now();
        }
        ended.extend(over);
        bar.set_position(ended.len() as u64);
        if progress_at.elapsed() > longest {
            bail!(
                "{} messages are still waiting: are they held by another process?",
                open.len()
            );
        }
    }
    bar.finish_and_clear();
    Ok(ended)
}

fn report(args: &Args, ended: &[Message]) -> anyhow::Result<()> {
    let rows: Vec<Row> = ended.iter().map(Row::from).collect();
    if args.json {
        return output::json(&rows);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let headers = ["ID", "CHANNEL", "TO", "STATUS", "ERROR", "NEXT ATTEMPT"];
    let cells = rows.into_iter().map(|row| {
        let error = if row.status == "SENT" {
            String::new()
        } else {
            row.error
        };
        vec![
            row.id,
            row.channel,
            row.to,
            row.status,
            error,
            row.next_attempt_at.unwrap_or_default(),
        ]
    });
    Ok(output::table(&headers, cells)?)
}

/// A message as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    channel: String,
    to: String,
    status: String,
    attempts: i32,
    error: String,
    since: String,
    next_attempt_at: Option<String>,
}

impl From<&Message> for Row {
    fn from(message: &Message) -> Self {
        let time = |at: chrono::DateTime<chrono::Utc>| {
            at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        };
        Self {
            id: message.id.to_string(),
            channel: message.channel.as_str().to_owned(),
            to: message.participant_id.clone(),
            status: message.status.as_str().to_owned(),
            attempts: message.retry_count,
            error: message
                .error_kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            since: time(message.created_at),
            next_attempt_at: message.next_attempt_at.map(time),
        }
    }
}
