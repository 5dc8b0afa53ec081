//! `gateway forget`.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use super::database::CommandDatabase;
use super::output;
use crate::channel::Channel;
use crate::config::DatabaseArgs;
use crate::database::connect::Limits;
use crate::database::plans::Work;
use crate::database::pool::Pool;
use crate::forget::{Forgotten, service, store};
use crate::id::ConversationId;

/// How long to wait for attempts in flight: the lease under the usual `PROVIDER_TIMEOUT_MS`, and 5
/// s.
const WAIT: Duration = Duration::from_secs(30);

/// Forget a customer: empty all texts, and send nothing more
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  gateway forget whatsapp +905550100101 --dry-run\n  gateway forget instagram mara.designs\n\n\
        This empties the texts of all messages with the participant, in and out, the preview, the details of errors and the \
        bodies of webhooks. It cancels messages that wait to be sent. It cannot be undone.\n\n\
        Ids, times, states, the participant and clientMessageIds stay: without these keys a late duplicate would be a new \
        message. Later messages are stored as usual. The exit code is 1 if there is no such participant, or if a message is \
        still being sent."
)]
pub struct Args {
    /// The participant's channel
    #[arg(value_enum)]
    channel: Channel,
    /// The participant, exactly as in the inbox; put -- before one that begins with -
    participant: String,
    /// Count what would be forgotten; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    conversation_id: ConversationId,
    dry_run: bool,
    #[serde(flatten)]
    forgotten: Forgotten,
    /// Messages that are still being sent.
    left: i64,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let opened = CommandDatabase::open(&args.database).await?;
    opened.require_migrated().await?;
    let done = forget(&args, &opened).await;
    opened.close().await?;
    done
}

async fn forget(args: &Args, opened: &CommandDatabase) -> anyhow::Result<()> {
    let target = opened.target.clone();
    let target = if args.dry_run {
        target.for_reading()
    } else {
        target
    };
    let settings = args.database.plans().of(Work::Reads);
    let pool = Pool::with(target, Limits::None, settings, 1);
    let Some(request) = store::find(&pool, args.channel, &args.participant).await? else {
        bail!("nobody of that name is known on {}", args.channel.as_str());
    };
    let (forgotten, left) = if args.dry_run {
        (store::count(&pool, request).await?, 0)
    } else {
        service::forget(&pool, request, WAIT).await?
    };
    let Forgotten {
        messages,
        webhook_bodies,
        canceled,
    } = forgotten;
    let how = if args.dry_run {
        "would empty"
    } else {
        "emptied"
    };
    output::say(&format!(
        "{how} {messages} messages and {webhook_bodies} webhook bodies, {canceled} messages canceled"
    ));
    if args.json {
        output::json(&Report {
            conversation_id: request.conversation_id,
            dry_run: args.dry_run,
            forgotten,
            left,
        })?;
    }
    if left > 0 {
        bail!("{left} messages are still being sent: run the command again");
    }
    Ok(())
}
