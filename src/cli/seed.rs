//! `gateway seed`.

use anyhow::bail;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use sqlx::{ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use super::{CommandDatabase, max_connections, output, prepare};
use crate::app::Role;
use crate::config::DatabaseArgs;
use crate::conversation::store::{self, Seeded};
use crate::database::connect::{self, Limits, Settings};
use crate::database::plans::Work;
use crate::database::pool::Pool;
use crate::error::UsageError;
use crate::process::signal;

/// The demo inbox, as one transaction that changes nothing the second time.
const DEMO: &str = include_str!("../../seeds/demo.sql");

const MAX_CONVERSATIONS: u64 = 1_000_000;
const MAX_MESSAGES: u64 = 10_000_000;
/// Messages of a conversation, on average, where only one of the two numbers is given, and at most.
const USUAL_SIZE: u64 = 20;
const MAX_SIZE: u64 = 10_000;
/// Messages of one statement, or one conversation where that has more.
const BATCH: u64 = 10_000;
/// Statements at a time.
const CONNECTIONS: usize = 2;

/// Load the demo inbox, or make a large one; again changes nothing
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("size").multiple(true).args(["conversations", "messages"])),
    after_help = "Examples:\n  gateway seed\n  gateway seed --conversations 10000 --messages 1000000 --random-seed 7\n\n\
        A large inbox has few long conversations and many short ones with participants seed-<S>-<number>: both channels, several \
        languages, read and unread, open, closed and archived, and some messages that failed for good (no worker sends any). Its \
        times are spread over the 90 days before the hour in which it was first loaded. Each part is loaded whole or not at all: \
        after an interruption the same command goes on."
)]
pub struct Args {
    /// Make a large inbox with this many conversations [default: one for every 20 messages]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_CONVERSATIONS), value_name = "N")]
    conversations: Option<u64>,
    /// Make a large inbox with this many messages in all, at most 10000 for each conversation [default: 20 for each]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_MESSAGES), value_name = "M")]
    messages: Option<u64>,
    /// The same number makes the same large inbox, and the same command again changes nothing [default: a random one, which is said]
    #[arg(long, requires = "size", value_name = "S")]
    random_seed: Option<u64>,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let large = Large::of(&args)?;
    max_connections(&args.database, Role::Command)?;
    let opened = CommandDatabase::open(&args.database).await?;
    prepare(&opened.target, true).await?;
    let done = match large {
        Some(large) => {
            large
                .load(&opened, args.database.plans().of(Work::Bulk))
                .await
        }
        None => demo(&opened).await,
    };
    opened.close().await?;
    done
}

async fn demo(opened: &CommandDatabase) -> anyhow::Result<()> {
    let (mut connection, _) = connect::connect(&opened.target, Limits::None, &[]).await?;
    let new = store::seed(&mut connection, DEMO).await?;
    connection.close().await?;
    match new {
        0 => output::say("the demo inbox is there already"),
        new => output::say(&format!("loaded the demo inbox: {new} conversations")),
    }
    Ok(())
}

/// A large inbox.
struct Large {
    conversations: u64,
    messages: u64,
    seed: String,
}

impl Large {
    /// The one that was asked for.
    fn of(args: &Args) -> Result<Option<Self>, UsageError> {
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
        Ok(Some(Self {
            conversations,
            messages,
            seed: seed.to_string(),
        }))
    }

    async fn load(&self, opened: &CommandDatabase, settings: Settings) -> anyhow::Result<()> {
        output::say(&format!("random seed {}", self.seed));
        // Such a statement is slow, and long.
        let target = opened.target.clone();
        let target = target.map(ConnectOptions::disable_statement_logging);
        let pool = Pool::with(target, Limits::None, settings, u32::try_from(CONNECTIONS)?);
        let stop = signal::stop()?;
        let (conversations, messages) = self.write(&pool, &stop).await?;
        output::say(&format!(
            "new: {conversations} of {} conversations, {messages} of {} messages",
            self.conversations, self.messages
        ));
        if stop.is_cancelled() {
            bail!(
                "interrupted: the same command with --random-seed {} goes on",
                self.seed
            );
        }
        if messages > 0 {
            store::analyze(&pool).await?;
        }
        Ok(())
    }

    /// Writes what is not there yet, until stopped; how many conversations and messages those are.
    async fn write(&self, pool: &Pool, stop: &CancellationToken) -> sqlx::Result<(i64, i64)> {
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped.cancelled().await;
            output::say("interrupted: ends when what is being written is committed");
        });
        let bar = output::progress(self.messages, "seeding");
        let write = async |(numbers, sizes): (Vec<i64>, Vec<i64>)| {
            let new = store::seed_large(pool, &self.seed, &numbers, &sizes).await;
            bar.inc(sizes.iter().sum::<i64>().unsigned_abs());
            new
        };
        let mut batches = Batches::of(self).take_while(|_| !stop.is_cancelled());
        // The others count their times from the first conversation.
        let first = stream::iter(batches.by_ref().take(1)).then(&write);
        let first = sum(first).await?;
        let others = stream::iter(batches).map(&write);
        let others = sum(others.buffer_unordered(CONNECTIONS)).await?;
        bar.finish_and_clear();
        Ok((first.0 + others.0, first.1 + others.1))
    }

    /// How many messages the conversations before this one have together: each one at least, and the lower its number the more.
    fn messages_before(&self, number: u64) -> u64 {
        const ONE: u64 = 1 << 20;
        // In whole numbers, so that it is the same everywhere: with x = number / conversations, 2√x - x of what is to be shared.
        let root = (number * ONE * ONE / self.conversations).isqrt();
        let share = ONE * ONE - (ONE - root) * (ONE - root);
        let shared = u128::from(self.messages - self.conversations) * u128::from(share)
            / u128::from(ONE * ONE);
        number + u64::try_from(shared).unwrap_or(u64::MAX)
    }
}

/// New conversations and messages of all these statements.
async fn sum(statements: impl Stream<Item = sqlx::Result<Seeded>>) -> sqlx::Result<(i64, i64)> {
    let add = async |(conversations, messages), new: Seeded| {
        Ok((conversations + new.conversations, messages + new.messages))
    };
    statements.try_fold((0, 0), add).await
}

/// The numbers and the sizes of the conversations of each statement.
struct Batches<'a> {
    large: &'a Large,
    number: u64,
}

impl<'a> Batches<'a> {
    fn of(large: &'a Large) -> Self {
        Self { large, number: 0 }
    }
}

impl Iterator for Batches<'_> {
    type Item = (Vec<i64>, Vec<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut numbers, mut sizes) = (Vec::new(), Vec::new());
        let begun = self.large.messages_before(self.number);
        while self.number < self.large.conversations {
            let before = self.large.messages_before(self.number);
            let after = self.large.messages_before(self.number + 1);
            if !numbers.is_empty() && after - begun > BATCH {
                break;
            }
            numbers.push(self.number.cast_signed());
            sizes.push((after - before).cast_signed());
            self.number += 1;
        }
        (!numbers.is_empty()).then_some((numbers, sizes))
    }
}
