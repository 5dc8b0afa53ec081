//! Deletes old rows of `changes`. What they told is in the records themselves.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::store;
use crate::database::bounded;
use crate::database::pool::Pool;
use crate::error::{Causes, Result};

/// Into how many rounds the time is divided for which rows are kept.
const ROUNDS: u32 = 12;
/// The wait between two statements, as a multiple of what the last one took: others come first.
const PAUSE: u32 = 9;
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// Deletes rows that are older than so many minutes, until stopped. Any number of processes may run
/// it.
pub async fn run(pool: Pool, minutes: i32, stop: CancellationToken) {
    let interval = Duration::from_mins(u64::from(minutes.unsigned_abs())) / ROUNDS;
    let mut begins = true;
    loop {
        let began = Instant::now();
        let pause = match step(&pool, minutes, begins).await {
            Ok(true) => MIN_PAUSE.max(began.elapsed() * PAUSE),
            Ok(false) => interval,
            Err(error) => {
                // Once in each interval: that is seldom enough.
                tracing::warn!(error = %Causes(&error), "could not delete old rows of the feed, retrying in the next round");
                interval
            }
        };
        begins = pause == interval;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Deletes some; whether there may be more.
async fn step(pool: &Pool, minutes: i32, begins: bool) -> Result<bool> {
    if begins {
        // Before positions of another history are noted as deleted ones of this.
        while bounded(store::adopt(pool, None)).await? {}
    }
    let deleted = bounded(store::prune(pool, minutes)).await?;
    Ok(deleted == store::MOST_DELETED)
}
