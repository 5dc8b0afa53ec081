//! The bodies of old events are emptied; their keys stay for ever, since a late duplicate must still be one.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::store;
use crate::app::App;
use crate::database::bounded;
use crate::error::Causes;

/// How often it is looked for old bodies, and again after the database failed.
const INTERVAL: Duration = Duration::from_mins(10);
/// Events of one statement.
const BATCH: i64 = 500;
/// The wait between two statements: retention is never in a hurry, others are.
const PAUSE: Duration = Duration::from_millis(100);

/// Empties the bodies of events that are older than so many days, until stopped; any number of processes may.
pub async fn run(app: Arc<App>, days: i32, stop: CancellationToken) {
    let mut emptied = 0;
    loop {
        let pause = match bounded(store::empty_bodies(&app.pool, days, BATCH)).await {
            Ok(0) => INTERVAL,
            Ok(more) => {
                counter!("gateway_webhook_bodies_emptied_total").increment(more);
                emptied += more;
                PAUSE
            }
            Err(error) => {
                // Once in each interval: that is seldom enough.
                tracing::warn!(error = %Causes(&error), "the bodies of old webhook events were not emptied, the next round does it");
                INTERVAL
            }
        };
        if pause == INTERVAL && emptied > 0 {
            tracing::info!(emptied, days, "emptied the bodies of old webhook events");
            emptied = 0;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
