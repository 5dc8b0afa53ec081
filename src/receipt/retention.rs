//! Removes what has come about messages that never became known.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::store;
use crate::database::bounded;
use crate::database::pool::Pool;
use crate::error::{Causes, Result};

/// How long what is known of an unknown message is kept.
const DAYS: i32 = 30;
/// How often to look, also after the database failed.
const INTERVAL: Duration = Duration::from_mins(10);
/// Rows of each kind that one statement removes.
const BATCH: i64 = 1000;
/// The wait between two statements, as a multiple of what the last one took: others come first.
const PAUSE: u32 = 9;
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Removes what is old, until stopped. Any number of processes may run it.
pub async fn run(pool: Pool, stop: CancellationToken) {
    loop {
        let began = Instant::now();
        let pause = match step(&pool).await {
            Ok(true) => MIN_PAUSE.max(began.elapsed() * PAUSE),
            Ok(false) => INTERVAL,
            Err(error) => {
                // Once in each interval: that is seldom enough.
                tracing::warn!(error = %Causes(&error), "could not remove the statuses of unknown messages, retrying in the next round");
                INTERVAL
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Removes some; whether there may be more.
async fn step(pool: &Pool) -> Result<bool> {
    let purged = bounded(store::purge(pool, DAYS, BATCH)).await?;
    let (receipts, amendments) = (purged.receipts, purged.amendments);
    if receipts + amendments > 0 {
        tracing::info!(
            receipts,
            amendments,
            "removed what has come about unknown messages"
        );
    }
    Ok(receipts == BATCH || amendments == BATCH)
}
