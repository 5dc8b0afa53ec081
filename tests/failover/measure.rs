//! How long nobody was served, by what was asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::load::callers::Kind;
use crate::load::{Acknowledged, Scene};

/// Among so many that were acknowledged last, one is read.
const NEWEST: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than any answer takes.
const ANSWER: Duration = Duration::from_secs(30);

/// What readers saw of messages that others were told of.
#[derive(Default)]
pub struct Reads {
    /// When one was read, and when it had been acknowledged.
    seen: Mutex<Vec<(Instant, Instant)>>,
    /// Whether a message may be missing at the moment.
    pub may_be_stale: AtomicBool,
    /// How many were missing while they might be.
    pub excused: AtomicU64,
    /// Those that were missing otherwise.
    pub missing: Mutex<Vec<String>>,
}

impl Reads {
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// Reads what was acknowledged a moment ago, from one server after the other, until told to stop.
pub async fn read(scene: Arc<Scene>, reads: Arc<Reads>, mut rng: StdRng, stop: CancellationToken) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    while !stop.is_cancelled() {
        tokio::time::sleep(PAUSE).await;
        let Some(known) = choose(&scene, &mut rng) else {
            continue;
        };
        let server = &scene.servers[rng.random_range(0..scene.servers.len())];
        let Some(url) = server.lock().unwrap().clone() else {
            continue;
        };
        let get = http.get(format!("{url}/messages/{}", known.message_id));
        let Ok(answer) = get.timeout(ANSWER).send().await else {
            continue;
        };
        match answer.status().as_u16() {
            200 => {
                let mut seen = reads.seen.lock().unwrap();
                seen.push((Instant::now(), known.at));
            }
            503 => {}
            404 if reads.may_be_stale.load(Ordering::Relaxed) => {
                reads.excused.fetch_add(1, Ordering::Relaxed);
            }
            status => {
                let missing = format!("{}: read {status}", known.message_id);
                reads.missing.lock().unwrap().push(missing);
            }
        }
    }
}

fn choose(scene: &Scene, rng: &mut StdRng) -> Option<Acknowledged> {
    let acknowledged = scene.acknowledged.lock().unwrap();
    let newest = acknowledged.len().min(NEWEST);
    (newest > 0).then(|| acknowledged[acknowledged.len() - 1 - rng.random_range(0..newest)].clone())
}

/// A number for each thing that is asked for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Each<T> {
    pub webhooks: T,
    pub sends: T,
    pub reads: T,
}

/// How long each was served to nobody, from then until now.
pub fn longest_gaps(scene: &Scene, reads: &Reads, from: Instant) -> Each<f64> {
    let until = Instant::now();
    let gap = |times: Vec<Instant>| {
        let before = times.iter().filter(|at| **at <= from).max().copied();
        let mut times: Vec<Instant> = times.into_iter().filter(|at| *at > from).collect();
        times.extend([before.unwrap_or(from), until]);
        times.sort_unstable();
        let gaps = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64());
        gaps.fold(0.0, f64::max)
    };
    let seen = reads.seen.lock().unwrap();
    Each {
        webhooks: gap(times(scene, Kind::Event)),
        sends: gap(times(scene, Kind::Send)),
        reads: gap(seen.iter().map(|(at, _)| *at).collect()),
    }
}

/// When each was served again after this moment, if all of them were: reads of what was
/// acknowledged since.
pub fn back_at(scene: &Scene, reads: &Reads, since: Instant) -> Option<Instant> {
    let seen = reads.seen.lock().unwrap();
    let read = seen
        .iter()
        .filter(|(_, acknowledged_at)| *acknowledged_at > since);
    let read = read.map(|(at, _)| *at).min()?;
    let first = |kind| {
        times(scene, kind)
            .into_iter()
            .filter(|at| *at > since)
            .min()
    };
    Some(read.max(first(Kind::Event)?).max(first(Kind::Send)?))
}

fn times(scene: &Scene, kind: Kind) -> Vec<Instant> {
    let acknowledged = scene.acknowledged.lock().unwrap();
    let of_kind = acknowledged.iter().filter(|known| known.kind == kind);
    of_kind.map(|known| known.at).collect()
}
