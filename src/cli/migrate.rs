//! `gateway migrate`.

use sqlx::{ConnectOptions, Connection};

use super::{Opened, output};
use crate::config::DatabaseArgs;
use crate::database;

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
    let opened = Opened::open(&args.database).await?;
    if args.status {
        status(&opened, args.json).await?;
    } else {
        match database::migrate(&opened.options).await? {
            0 => output::say("nothing to apply: the database is up to date"),
            applied => output::say(&format!("applied {applied} migrations")),
        }
    }
    opened.close().await
}

async fn status(opened: &Opened, json: bool) -> anyhow::Result<()> {
    let mut connection = opened.options.connect().await?;
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
