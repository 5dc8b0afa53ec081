//! `gateway seed`.

use sqlx::{ConnectOptions, Connection};

use super::{Opened, output};
use crate::config::DatabaseArgs;
use crate::{conversation, database};

/// The demo inbox, as one transaction that changes nothing the second time.
const DEMO: &str = include_str!("../../seeds/demo.sql");

/// Load the demo inbox; again changes nothing
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let opened = Opened::open(&args.database).await?;
    database::migrate(&opened.options).await?;
    let mut connection = opened.options.connect().await?;
    let new = conversation::store::seed(&mut connection, DEMO).await?;
    connection.close().await?;
    match new {
        0 => output::say("the demo inbox is there already"),
        new => output::say(&format!("loaded the demo inbox: {new} conversations")),
    }
    opened.close().await
}
