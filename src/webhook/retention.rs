//! Empties the bodies of old events, by whole months. Their keys stay for ever, since a late
//! duplicate must still be one.

use std::time::{Duration, Instant};

use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::store;
use crate::database::bounded;
use crate::database::pool::Pool;
use crate::error::{Causes, Result};

/// How often to look for old bodies, also after the database failed or another process was at it.
const INTERVAL: Duration = Duration::from_mins(10);
/// Bodies of one statement, where a month cannot be emptied as a whole.
const BATCH: i64 = 500;
/// The wait between two statements, as a multiple of what the last one took: others come first.
const PAUSE: u32 = 9;
/// The least of these waits.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Empties the bodies of events of months that ended more than so many days ago, and makes the
/// tables of months to come, until stopped. Any number of processes may run it; one at a time
/// works. Without `days` it keeps all.
pub async fn run(pool: Pool, days: Option<i32>, stop: CancellationToken) {
    let mut emptied = 0;
    let mut begins = true;
    loop {
        let began = Instant::now();
        let pause = match step(&pool, days, begins).await {
            Ok(None) => INTERVAL,
            Ok(Some(more)) => {
                counter!("gateway_webhook_bodies_emptied_total").increment(more);
                emptied += more;
                MIN_PAUSE.max(began.elapsed() * PAUSE)
            }
            Err(error) => {
                // Once in each interval: that is seldom enough.
                tracing::warn!(error = %Causes(&error), "could not empty the bodies of old webhook events, retrying in the next round");
                INTERVAL
            }
        };
        begins = pause == INTERVAL;
        if begins && emptied > 0 {
            tracing::info!(emptied, days, "emptied the bodies of old webhook events");
            emptied = 0;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Makes the tables of this month and of those to come, if this role may. Nothing fails without
/// them.
pub async fn make_months(pool: &Pool) -> Result<()> {
    bounded(store::make_months(pool)).await
}

/// Empties some; how many bodies those were. None: there are none left, or somebody else is at it.
async fn step(pool: &Pool, days: Option<i32>, begins: bool) -> Result<Option<u64>> {
    if begins {
        make_months(pool).await?;
    }
    let Some(days) = days else { return Ok(None) };
    if let Some(month) = bounded(store::find_old_month(pool, days)).await? {
        bounded(store::empty_month(pool, &month)).await?;
        let bodies = u64::try_from(month.bodies).expect("a count is never negative");
        return Ok(Some(bodies));
    }
    let emptied = bounded(store::empty_bodies(pool, days, BATCH)).await?;
    Ok(emptied
        .and_then(|emptied| u64::try_from(emptied).ok())
        .filter(|&emptied| emptied > 0))
}
