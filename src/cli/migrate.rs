//! `gateway migrate`.

use std::time::Duration;

use sqlx::Connection;

use super::database::CommandDatabase;
use super::output;
use crate::config::DatabaseArgs;
use crate::database;
use crate::database::connect::{self, Limits};
use crate::database::pool::Pool;
use crate::error::Error;
use crate::error::fault::Outage;
use crate::webhook;

/// Apply the migrations, or list them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  gateway migrate\n  gateway migrate --status --json")]
pub struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How long to wait for locks that others hold, and for a synchronous standby, in milliseconds.
    /// A migration's own work is not limited
    #[arg(long, env = "MIGRATE_WAIT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..=86_400_000), value_name = "MS")]
    wait_ms: u64,
    /// List the migrations, and which are applied; apply none
    #[arg(long)]
    status: bool,
    /// Print JSON
    #[arg(long, requires = "status")]
    json: bool,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let opened = CommandDatabase::open(&args.database).await?;
    let inspection = database::inspect(&opened.target).await?;
    if args.status {
        status(&opened, args.json).await?;
    } else {
        let wait = Duration::from_millis(args.wait_ms);
        let applied = match inspection.pending {
            0 => 0,
            _ => database::migrate_within(&opened.target, wait).await?,
        };
        // Also without a pending migration: the tables of bodies are made for a year ahead.
        match webhook::retention::make_months(&Pool::new(opened.target.clone(), 1)).await {
            Err(Error::Unavailable(error)) if applied == 0 && error.outage == Outage::ReadOnly => {
                output::say("read-only: no tables for the bodies of coming months were made");
            }
            made => made?,
        }
        match applied {
            0 => output::say("nothing to apply: the database is up to date"),
            applied => output::say(&format!("applied {applied} migrations")),
        }
    }
    opened.close().await
}

async fn status(opened: &CommandDatabase, json: bool) -> anyhow::Result<()> {
    let target = opened.target.clone().for_reading();
    let (mut connection, _) = connect::connect(&target, Limits::None, &[]).await?;
    let migrations = database::migrations(&mut connection).await?;
    connection.close().await?;
    if json {
        return output::json(&migrations);
    }
    let row = |migration: &database::Migration| {
        let applied = if migration.applied {
            "applied"
        } else {
            "pending"
        };
        vec![
            migration.version.to_string(),
            migration.description.clone(),
            applied.to_owned(),
        ]
    };
    Ok(output::table(
        &["VERSION", "DESCRIPTION", "STATUS"],
        migrations.iter().map(row),
    )?)
}
