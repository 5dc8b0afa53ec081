//! `gateway seed`.

use anyhow::bail;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use sqlx::{ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use super::database::CommandDatabase;
use super::output;
use crate::config::DatabaseArgs;
use crate::database::connect::{self, Limits};
use crate::database::plans::{Settings, Work};
use crate::database::pool::Pool;
use crate::error::UsageError;
use crate::process::signal;
use crate::seed::store::{self, Seeded};
use crate::seed::{DEMO, Large};

const MAX_CONVERSATIONS: u64 = 1_000_000;
const MAX_MESSAGES: u64 = 10_000_000;
/// Messages of a conversation on average, if only one of the two numbers is given.
const USUAL_SIZE: u64 = 20;
/// Messages of a conversation on average, at most.
const MAX_SIZE: u64 = 10_000;
/// Statements that run at once.
const CONNECTIONS: usize = 2;

/// Load the demo inbox, or a large made-up one; the same command again changes nothing
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("size").multiple(true).args(["conversations", "messages"])),
    after_help = "Examples:\n  gateway seed\n  gateway seed --conversations 10000 --messages 1000000 --random-seed 7\n\n\
        A large inbox has few long conversations and many short ones. They are on both channels and in several languages; they \
        are read or unread, open, closed or archived; and some of their messages have failed for good, so that no worker sends \
        them. Participants are named seed-<S>-<number>. Times are spread over the 90 days before the hour of the first load. \
        Each part is loaded whole or not at all: after an interruption, run the same command again."
)]
pub struct Args {
    /// Make a large inbox with this many conversations [default: one for 20 messages]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_CONVERSATIONS), value_name = "N")]
    conversations: Option<u64>,
    /// Make a large inbox with this many messages in all, on average at most 10000 for a
    /// conversation [default: 20 for each]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_MESSAGES), value_name = "M")]
    messages: Option<u64>,
    /// The same number makes the same large inbox [default: a random one, which is printed]
    #[arg(long, requires = "size", value_name = "S")]
    random_seed: Option<u64>,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let large = large(&args)?;
    let opened = CommandDatabase::open(&args.database).await?;
    opened.migrate().await?;
    let done = match large {
        Some(large) => load(&large, &opened, args.database.plans().of(Work::Bulk)).await,
        None => demo(&opened).await,
    };
    opened.close().await?;
    done
}

async fn demo(opened: &CommandDatabase) -> anyhow::Result<()> {
    let (mut connection, _) = connect::connect(&opened.target, Limits::None, &[]).await?;
    let new = store::load_script(&mut connection, DEMO).await?;
    connection.close().await?;
    match new {
        0 => output::say("the demo inbox is there already"),
        new => output::say(&format!("loaded the demo inbox: {new} conversations")),
    }
    Ok(())
}

/// The large inbox that the arguments describe, if they describe one.
fn large(args: &Args) -> Result<Option<Large>, UsageError> {
    let (conversations, messages) = match (args.conversations, args.messages) {
        (None, None) => return Ok(None),
        (Some(conversations), Some(messages)) => (conversations, messages),
        (Some(conversations), None) => {
            (conversations, MAX_MESSAGES.min(conversations * USUAL_SIZE))
        }
        (None, Some(messages)) => ((messages / USUAL_SIZE).max(1), messages),
    };
    if messages < conversations || messages > conversations * MAX_SIZE {
        return Err(UsageError(format!(
            "--messages must be from 1 to {MAX_SIZE} for each conversation: from {conversations} to {} for {conversations}",
            MAX_MESSAGES.min(conversations * MAX_SIZE)
        )));
    }
    let seed = args
        .random_seed
        .unwrap_or_else(|| rand::random::<u32>().into());
    Ok(Some(Large {
        conversations,
        messages,
        seed: seed.to_string(),
    }))
}

async fn load(large: &Large, opened: &CommandDatabase, settings: Settings) -> anyhow::Result<()> {
    output::say(&format!("random seed {}", large.seed));
    // These statements are slow by design: not worth a warning each.
    let target = opened.target.clone();
    let target = target.map(ConnectOptions::disable_statement_logging);
    let pool = Pool::with(target, Limits::None, settings, u32::try_from(CONNECTIONS)?);
    let stop = signal::stop()?;
    let (conversations, messages) = insert(large, &pool, &stop).await?;
    output::say(&format!(
        "new: {conversations} of {} conversations, {messages} of {} messages",
        large.conversations, large.messages
    ));
    if stop.is_cancelled() {
        bail!(
            "interrupted: the same command with --random-seed {} goes on",
            large.seed
        );
    }
    if messages > 0 {
        store::analyze(&pool).await?;
    }
    Ok(())
}

/// Inserts what is not there yet, until stopped, and returns how many conversations and messages
/// are new.
async fn insert(large: &Large, pool: &Pool, stop: &CancellationToken) -> sqlx::Result<(i64, i64)> {
    let stopped = stop.clone();
    tokio::spawn(async move {
        stopped.cancelled().await;
        output::say("interrupted: ends when what is being written is committed");
    });
    let bar = output::progress(large.messages, "seeding");
    let insert = async |(numbers, sizes): (Vec<i64>, Vec<i64>)| {
        let new = store::insert_large(pool, &large.seed, &numbers, &sizes).await;
        bar.inc(sizes.iter().sum::<i64>().unsigned_abs());
        new
    };
    let mut batches = large.batches().take_while(|_| !stop.is_cancelled());
    // First alone: all times are counted from the first conversation.
    let first = stream::iter(batches.by_ref().take(1)).then(&insert);
    let first = sum(first).await?;
    let others = stream::iter(batches).map(&insert);
    let others = sum(others.buffer_unordered(CONNECTIONS)).await?;
    bar.finish_and_clear();
    Ok((first.0 + others.0, first.1 + others.1))
}

/// Counts the new conversations and messages of all these statements.
async fn sum(statements: impl Stream<Item = sqlx::Result<Seeded>>) -> sqlx::Result<(i64, i64)> {
    let add = async |(conversations, messages), new: Seeded| {
        Ok((conversations + new.conversations, messages + new.messages))
    };
    statements.try_fold((0, 0), add).await
}
