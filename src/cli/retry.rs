//! `gateway retry`.

mod rows;
mod send;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::bail;

use super::database::CommandDatabase;
use super::output;
use super::process::warn_of_clear_text;
use crate::channel::Channel;
use crate::config::{Backends, DatabaseArgs, DeliveryArgs, MockArgs, WorkerArgs};
use crate::database::pool::Pool;
use crate::database::target::Target;
use crate::delivery;
use crate::id::MessageId;
use crate::message::store::{self, Baseline, Failures};
use crate::message::{Message, Status, outbox};
use crate::provider::ErrorKind;
use rows::{Row, print_failed};

/// Messages that one statement reads or changes.
const PAGE: usize = 500;
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
        _ => send::send(&args, &opened, providers).await,
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
    print_failed(args.json, rows)
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
    print_failed(args.json, rows)
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
        let left = list_held(pool, &ids, keyless).await?;
        let is_due = |id: &MessageId| requeued.iter().any(|row| row.message_id == *id);
        let waiting = ids.iter().filter(|id| !is_due(id) && !left.contains(id));
        let waiting: Vec<MessageId> = waiting.copied().collect();
        if !waiting.is_empty() {
            delivery::hold::try_now(pool, &waiting).await?;
        }
        due.extend(requeued.iter().map(|row| row.message_id));
        held.extend(left);
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
