//! How long it took until what a killed process held was taken over.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::load::LEASE;
use crate::stage::Stage;

/// How much longer than a lease it may take.
const MARGIN: Duration = Duration::from_secs(1);

/// What was taken over, and when.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// Messages whose holder was killed, claimed by another.
    pub messages: usize,
    /// Messages whose holder lived: the claim's answer was cut off, or the database was away for
    /// too long.
    pub of_the_living: usize,
    /// From the kill to that claim.
    pub waits: Percentiles,
    /// The same without the time after the end of the lease in which PostgreSQL was away, and
    /// nobody could claim.
    pub waits_for_gateway: Percentiles,
    /// A lease and a second.
    pub goal_ms: u64,
    /// Those that waited longer for a gateway.
    pub late: usize,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    pub p50_ms: u64,
    pub max_ms: u64,
}

/// Reads the journal of leases: a message is recovered by the first claim after the kill of its
/// holder.
pub async fn measure(stage: &Stage) -> Recovery {
    let taken_over =
        "select life, ends_at, taken_over_at from leases where taken_over_at is not null";
    let taken_over: Vec<(i32, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(taken_over)
        .fetch_all(stage.pool())
        .await
        .unwrap();
    let kills = stage.kills.lock().unwrap();
    let killed_at: HashMap<i32, DateTime<Utc>> =
        kills.iter().map(|kill| (kill.life, kill.at)).collect();
    let outages = stage.outages.lock().unwrap();
    let mut waits = Vec::new();
    let mut waits_for_gateway = Vec::new();
    for (life, ends_at, at) in &taken_over {
        // Its lease may have ended, and been taken over, before it was killed.
        let wait = killed_at
            .get(life)
            .map(|killed_at| (*at - killed_at).to_std());
        let Some(Ok(wait)) = wait else { continue };
        let away = outages
            .iter()
            .filter_map(|(from, back)| (*back.min(at) - *from.max(ends_at)).to_std().ok());
        waits_for_gateway.push(wait.saturating_sub(away.sum()));
        waits.push(wait);
    }
    let goal = LEASE + MARGIN;
    Recovery {
        messages: waits.len(),
        of_the_living: taken_over.len() - waits.len(),
        late: waits_for_gateway
            .iter()
            .filter(|wait| **wait > goal)
            .count(),
        waits: percentiles(waits),
        waits_for_gateway: percentiles(waits_for_gateway),
        goal_ms: ms(goal),
    }
}

fn percentiles(mut waits: Vec<Duration>) -> Percentiles {
    waits.sort_unstable();
    let Some(max) = waits.last() else {
        return Percentiles::default();
    };
    Percentiles {
        p50_ms: ms(waits[waits.len() / 2]),
        max_ms: ms(*max),
    }
}

fn ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap()
}
