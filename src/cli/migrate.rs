//! `gateway migrate`.

use sqlx::Connection;

use super::{Opened, max_connections, output};
use crate::app::Role;
use crate::config::DatabaseArgs;
use crate::database;
use crate::database::connect::{self, Limits};
use crate::database::pool::Pool;
use crate::webhook;

/// Apply the migrations, or list them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  gateway migrate\n  gateway migrate --status --json")]
pub struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// List the migrations and whether they are applied; apply none
    #[arg(long)]
    status: bool,
    /// Print JSON
    #[arg(long, requires = "status")]
    json: bool,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    max_connections(&args.database, Role::Command)?;
    let opened = Opened::open(&args.database).await?;
    if args.status {
        status(&opened, args.json).await?;
    } else {
        let survey = connect::survey(&opened.target).await?;
        let applied = match survey.pending {
            0 => 0,
            _ => database::migrate(&opened.target).await?,
        };
        // Also when nothing is to be applied: a year after the last time their tables run out.
        webhook::retention::make_months(&Pool::new(opened.target.clone(), 1)).await?;
        match applied {
            0 => output::say("nothing to apply: the database is up to date"),
            applied => output::say(&format!("applied {applied} migrations")),
        }
    }
    opened.close().await
}

async fn status(opened: &Opened, json: bool) -> anyhow::Result<()> {
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
