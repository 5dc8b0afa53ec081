//! `gateway retry`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mock_meta_provider::Mock;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::database::CommandDatabase;
use super::output;
use super::process::warn_of_clear_text;
use crate::app::{App, Role};
use crate::channel::Channel;
use crate::config::{Backends, DatabaseArgs, DeliveryArgs, MockArgs, WorkerArgs};
use crate::database::pool::Pool;
use crate::database::target::Target;
use crate::id::MessageId;
use crate::message::store::{Baseline, Failures};
use crate::message::{Message, Status, outbox, store};
use crate::provider::ErrorKind;
use crate::provider::providers::Providers;
use crate::{channel, delivery};

/// Messages that one statement reads or changes.
const PAGE: usize = 500;
const POLL: Duration = Duration::from_millis(100);
/// The longest `--since`.
const MAX_SINCE: Duration = Duration::from_hours(24 * 3660);

/// List the messages that failed, or send them again
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "all", "list", "channel", "kind", "since"])),
    after_help = "Examples:\n  gateway retry --list\n  gateway retry --since 2h --kind timeout,connection --dry-run\n  gateway retry --all\n\n\
        Each message gets a new budget of attempts and is attempted once, here or by a running worker. If it is being sent \
        at this moment, the command waits for it. A table on stdout says how each ended. The exit code is 0 if all were \
        sent, and 1 if not.\n\n\
        What may have arrived already is sent again only where the provider can tell that it is the same message, or with \
        --ambiguous. WhatsApp cannot."
)]
pub struct Args {
    /// The messages to send again
    #[arg(value_name = "ID", conflicts_with_all = ["all", "list", "channel", "kind", "since", "limit"])]
    ids: Vec<MessageId>,
    /// Send all messages that failed, or all that the options below select
    #[arg(long, conflicts_with = "list")]
    all: bool,
    /// List the messages that failed, oldest first; send none
    #[arg(long)]
    list: bool,
    /// Only messages of this channel
    #[arg(long, value_enum)]
    channel: Option<Channel>,
    /// Only messages whose last error is of this kind, or of one of these kinds, comma-separated
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<ErrorKind>,
    /// Only messages that changed within this time, such as 30m, 2h or 1d: their last attempt
    /// failed, or an operator canceled them or made them due. SINCE in the list is that moment
    #[arg(long, value_parser = since, value_name = "DURATION")]
    since: Option<Duration>,
    /// At most this many messages, the oldest first
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    limit: Option<u64>,
    /// Send also what may have arrived already, where the provider cannot tell that it is the same
    /// message: it may arrive twice
    #[arg(long, conflicts_with = "list")]
    ambiguous: bool,
    /// List what would become due, oldest first; change and send nothing
    #[arg(long, conflicts_with = "list")]
    dry_run: bool,
    /// Make the messages due, and leave the sending to a running worker
    #[arg(long, conflicts_with = "list")]
    requeue_only: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    mock: MockArgs,
}

impl Args {
    fn is_filtered(&self) -> bool {
        self.channel.is_some() || !self.kind.is_empty() || self.since.is_some()
    }
}

fn since(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > MAX_SINCE {
        return Err("must be at most ten years".to_owned());
    }
    Ok(duration)
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let sends = !args.list && !args.dry_run && !args.requeue_only;
    let providers = args.delivery.providers()?;
    if sends {
        // Half a configuration is an error before anything starts.
        let localhost = std::net::Ipv4Addr::LOCALHOST.into();
        Backends::of(&args.database, providers.clone(), localhost)?;
    }
    let opened = CommandDatabase::open(&args.database).await?;
    let inspection = opened.require_migrated().await?;
    if let Some(providers) = providers.as_ref().filter(|_| sends) {
        warn_of_clear_text(&inspection, providers);
    }
    let done = match (args.list, args.dry_run, args.requeue_only) {
        (true, _, _) => list(&args, &opened.target).await,
        (_, true, _) => dry_run(&args, &opened.target).await,
        (_, _, true) => requeue_only(&args, &opened.target).await,
        _ => send(&args, &opened, providers).await,
    };
    opened.close().await?;
    done
}

async fn list(args: &Args, target: &Target) -> anyhow::Result<()> {
    let rows = failed(args, &Pool::new(target.clone().for_reading(), 1), Row::of).await?;
    if rows.is_empty() && !args.json {
        output::say(if args.is_filtered() {
            "no message that failed is like that"
        } else {
            "no message has failed"
        });
        return Ok(());
    }
    print_failed(args, rows)
}

async fn dry_run(args: &Args, target: &Target) -> anyhow::Result<()> {
    let pool = Pool::new(target.clone().for_reading(), 1);
    let requested = requested(args, &pool).await?;
    let ids: Vec<MessageId> = requested.iter().map(|message| message.id).collect();
    let keyless = held(args)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut held = Vec::new();
    for page in ids.chunks(PAGE) {
        let due = delivery::store::list_requeueable(&pool, page, keyless).await?;
        held.extend(list_held(&pool, page, keyless).await?);
        let mut messages = store::list_by_id(&pool, &due).await?;
        messages.sort_unstable_by_key(|message| message.id);
        rows.extend(messages.iter().map(Row::of));
    }
    output::say(&format!(
        "would make {} of {} messages due; nothing was changed",
        rows.len(),
        requested.len()
    ));
    say_held(&held);
    if rows.is_empty() && !args.json {
        return Ok(());
    }
    print_failed(args, rows)
}

fn print_failed(args: &Args, rows: Vec<Row>) -> anyhow::Result<()> {
    if args.json {
        return output::json(&rows);
    }
    let headers = [
        "ID",
        "CHANNEL",
        "TO",
        "ATTEMPTS",
        "ERROR",
        "CODE",
        "AMBIGUOUS",
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
            row.code.map(|code| code.to_string()).unwrap_or_default(),
            (if row.ambiguous { "yes" } else { "no" }).to_owned(),
            row.since,
            next,
        ]
    });
    Ok(output::table(&headers, cells)?)
}

async fn requeue_only(args: &Args, target: &Target) -> anyhow::Result<()> {
    let pool = Pool::new(target.clone(), 1);
    let mut requested = requested(args, &pool).await?;
    let count = requested.len();
    let requeued = requeue(args, &pool, &mut requested).await?;
    if args.json {
        output::json(&requeued.due)?;
    }
    if !requeued.held.is_empty() {
        bail!("{} of {count} messages were left", requeued.held.len());
    }
    Ok(())
}

/// Where a message that may have arrived already is not sent again: the channels whose provider
/// cannot tell that it is the same one. None: it is sent all the same.
fn held(args: &Args) -> anyhow::Result<Option<&'static [Channel]>> {
    let providers = args.delivery.providers()?;
    let keyless = providers.map_or(&[][..], |providers| providers.keyless());
    Ok((!args.ambiguous).then_some(keyless))
}

/// Those of these messages that would become due, if they could not arrive twice.
async fn list_held(
    pool: &Pool,
    ids: &[MessageId],
    keyless: Option<&[Channel]>,
) -> anyhow::Result<Vec<MessageId>> {
    if keyless.is_none() {
        return Ok(Vec::new());
    }
    let safe = delivery::store::list_requeueable(pool, ids, keyless).await?;
    let mut held = delivery::store::list_requeueable(pool, ids, None).await?;
    held.retain(|id| !safe.contains(id));
    held.sort_unstable();
    Ok(held)
}

fn say_held(held: &[MessageId]) {
    for id in held {
        output::say(&format!(
            "{id} may have arrived already: only --ambiguous sends it again"
        ));
    }
}

async fn send(
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
    let sent = report(args, ended, count)?;
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

/// The messages that the command is about, oldest first. They become due in this order.
async fn requested(args: &Args, pool: &Pool) -> anyhow::Result<Vec<Baseline>> {
    let baseline = |message: &Message| Baseline {
        id: message.id,
        retry_count: message.retry_count,
    };
    if args.ids.is_empty() {
        return failed(args, pool, baseline).await;
    }
    let mut ids = args.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    let mut known: HashMap<MessageId, Message> = HashMap::new();
    for page in ids.chunks(PAGE) {
        let found = store::list_by_id(pool, page).await?;
        known.extend(found.into_iter().map(|message| (message.id, message)));
    }
    let requested = ids.iter().map(|id| match known.get(id) {
        None => bail!("{id}: no such message"),
        Some(message) if message.status == Status::Failed => Ok(baseline(message)),
        Some(message) => bail!(
            "{id}: only a message that has failed can be retried, this one is {:?}",
            message.status
        ),
    });
    requested.collect()
}

/// Reads each failed message that the options select, and keeps what `needed` takes of it.
async fn failed<T>(
    args: &Args,
    pool: &Pool,
    needed: impl Fn(&Message) -> T,
) -> anyhow::Result<Vec<T>> {
    let which = Failures {
        channel: args.channel,
        kinds: args.kind.clone(),
        within: args.since,
    };
    let limit = args.limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let mut failed = Vec::new();
    let mut last = None;
    while failed.len() < limit {
        let Some(end) = store::find_window(pool, last, i64::try_from(PAGE)?).await? else {
            break;
        };
        let page = store::list_failed(pool, &which, last, end).await?;
        failed.extend(page.iter().take(limit - failed.len()).map(&needed));
        last = Some(end);
    }
    Ok(failed)
}

/// What has become of messages that were to be made due.
struct Requeued {
    due: Vec<MessageId>,
    /// They may have arrived already.
    held: Vec<MessageId>,
}

/// Makes the messages due, and returns which have become so. One that is being sent at this
/// moment, or is due already, stays as it is.
async fn requeue(args: &Args, pool: &Pool, requested: &mut [Baseline]) -> anyhow::Result<Requeued> {
    let policy = args.delivery.policy();
    let keyless = held(args)?;
    let bar = output::progress(requested.len() as u64, "making due");
    let (mut due, mut held) = (Vec::new(), Vec::new());
    for page in requested.chunks_mut(PAGE) {
        let ids: Vec<MessageId> = page.iter().map(|message| message.id).collect();
        let requeued = outbox::requeue(pool, &policy, &ids, keyless).await?;
        due.extend(requeued.iter().map(|row| row.message_id));
        held.extend(list_held(pool, &ids, keyless).await?);
        let counts: HashMap<MessageId, i32> = requeued
            .into_iter()
            .map(|row| (row.message_id, row.retry_count))
            .collect();
        for message in page.iter_mut() {
            // A failure from before it became due is not this retry's.
            if let Some(count) = counts.get(&message.id) {
                message.retry_count = *count;
            }
        }
        bar.inc(page.len() as u64);
    }
    bar.finish_and_clear();
    let count = due.len();
    output::say(&format!("made {count} of {} messages due", requested.len()));
    say_held(&held);
    Ok(Requeued { due, held })
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

/// Prints how each ended, and returns how many were sent.
fn report(args: &Args, ended: Vec<Row>, requested: usize) -> anyhow::Result<usize> {
    let sent = ended.iter().filter(|row| row.status == Status::Sent);
    let sent = sent.count();
    let retried = ended.iter().filter(|row| row.next_attempt_at.is_some());
    let retried = retried.count();
    let mut parts = vec![format!("{sent} sent")];
    for (count, how) in [
        (retried, "failed again"),
        (ended.len() - sent - retried, "failed for good"),
        (requested - ended.len(), "not ended"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {how}"));
        }
    }
    if args.json {
        output::json(&ended)?;
    } else if !ended.is_empty() {
        let headers = ["ID", "CHANNEL", "TO", "STATUS", "ERROR", "NEXT ATTEMPT"];
        let cells = ended.into_iter().map(|row| {
            let error = if row.status == Status::Sent {
                String::new()
            } else {
                row.error
            };
            vec![
                row.id,
                row.channel,
                row.to,
                row.status.as_str().to_owned(),
                error,
                row.next_attempt_at.unwrap_or_default(),
            ]
        });
        output::table(&headers, cells)?;
    }
    if requested > 0 {
        output::say(&parts.join(", "));
    }
    Ok(sent)
}

/// A time as it is printed, to the second.
fn seconds(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// A message as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    channel: String,
    to: String,
    status: Status,
    attempts: i32,
    error: String,
    /// The provider's own number for it.
    code: Option<i64>,
    ambiguous: bool,
    since: String,
    next_attempt_at: Option<String>,
}

impl Row {
    fn of(message: &Message) -> Self {
        Self {
            id: message.id.to_string(),
            channel: message.channel.as_str().to_owned(),
            to: message.participant_id.clone(),
            status: message.status,
            attempts: message.retry_count,
            error: message
                .error_kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            code: message.error_code,
            ambiguous: message.is_ambiguous(),
            since: seconds(message.updated_at),
            next_attempt_at: message.next_attempt_at.map(seconds),
        }
    }
}
