//! Measures speed: the gateway's burst, beside the same events through a hand-written transaction
//! each, in turns.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use indicatif::HumanCount;
use serde::Serialize;

use super::client::Gateway;
use super::drive::{self, Seen};
use super::plan::{Conversation, RunSettings};
use super::repeat::Refusal;
use super::scenario::Scenario;
use super::system::{HandWritten, System};
use crate::cli::output;

/// Rounds, each with new events for both sides in turn.
const ROUNDS: usize = 5;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Burst {
    scenario: &'static str,
    requests: usize,
    #[serde(flatten)]
    speed: Speed,
}

impl Burst {
    pub fn measure(scenario: Scenario, seen: &[Seen], took: Duration) -> Self {
        Self {
            scenario: scenario.name(),
            requests: requests(seen),
            speed: Speed::measure(seen, took),
        }
    }

    fn row(&self) -> Vec<String> {
        self.speed.row(self.scenario, self.requests)
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Speed {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Speed {
    fn measure(seen: &[Seen], took: Duration) -> Self {
        let mut times: Vec<Duration> = seen.iter().flat_map(|seen| &seen.times).copied().collect();
        times.sort_unstable();
        let percentile = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            let time = times.get(place).copied().unwrap_or_default();
            time.as_secs_f64() * 1000.0
        };
        Self {
            per_second: f64::from(
                u32::try_from(times.len()).expect("a run has at most 500,000 events"),
            ) / took.as_secs_f64(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
        }
    }

    /// Each figure's median over the rounds.
    fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure));
        Self {
            per_second: of(|round| round.per_second),
            p50_ms: of(|round| round.p50_ms),
            p99_ms: of(|round| round.p99_ms),
        }
    }

    fn row(&self, name: &str, requests: usize) -> Vec<String> {
        vec![
            name.to_owned(),
            HumanCount(requests as u64).to_string(),
            format!("{:.0}", self.per_second),
            format!("{:.1}", self.p50_ms),
            format!("{:.1}", self.p99_ms),
        ]
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn requests(seen: &[Seen]) -> usize {
    seen.iter().map(|seen| seen.times.len()).sum()
}

/// The gateway and the hand-written transaction, with the same events from as many callers, on one
/// database server.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    rounds: usize,
    callers: usize,
    /// Of the hand-written transaction's pool.
    connections: usize,
    /// How many times as many webhooks a second the gateway stores: the median of the rounds'
    /// ratios.
    ratio: f64,
    gateway: Side,
    hand_written: Side,
}

/// The requests to a side, and what it has stored in the end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    requests: usize,
    events: usize,
    messages: usize,
    #[serde(flatten)]
    speed: Speed,
}

/// The rounds of a burst of events.
pub struct Rounds {
    pub burst: Burst,
    /// None if there is no database for the hand-written transaction. The gateway's messages are
    /// not counted yet.
    pub comparison: Option<Comparison>,
    /// What the gateway was asked and answered.
    pub conversations: Vec<(Conversation, Seen)>,
}

impl Comparison {
    /// Counts the gateway's messages.
    pub fn count(&mut self, conversations: &[(Conversation, Seen)]) {
        let burst = conversations
            .iter()
            .filter(|(conversation, _)| conversation.scenario == Scenario::BurstOfEvents);
        for (_, seen) in burst {
            let inbound = seen.view.iter().flat_map(|view| &view.messages);
            self.gateway.messages += inbound.filter(|message| !message.is_outbound()).count();
        }
    }
}

/// Delivers the events of one round at full speed.
async fn deliver(
    system: &System,
    gateway: &Gateway,
    plan: &[Conversation],
    callers: usize,
) -> anyhow::Result<(Vec<Seen>, Speed)> {
    let events: usize = plan
        .iter()
        .map(|conversation| conversation.events.len())
        .sum();
    let bar = output::progress(events as u64, Scenario::BurstOfEvents.name());
    let began_at = Instant::now();
    let seen = drive::burst(system, gateway, plan, callers, &bar).await?;
    let speed = Speed::measure(&seen, began_at.elapsed());
    bar.finish_and_clear();
    Ok((seen, speed))
}

/// Delivers the events of each round at full speed: to the gateway, then to the hand-written
/// transaction.
pub async fn of_events(
    system: &System,
    settings: &RunSettings,
    callers: usize,
) -> anyhow::Result<Rounds> {
    let hand_written = system.start_hand_written(callers).await?;
    if hand_written.is_none() {
        output::say(
            "not compared with a hand-written transaction: that needs a database of its own, and so a run without --against",
        );
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut new_to_us, mut new_to_them) = (0, 0);
    let mut conversations = Vec::new();
    for round in 0..ROUNDS {
        let plan = settings.round(round).plan(Scenario::BurstOfEvents);
        let deliver = |gateway| deliver(system, gateway, &plan, callers);
        let (seen, speed) = deliver(&system.gateway).await?;
        new_to_us += new(&seen);
        ours.push(speed);
        if let Some(hand_written) = &hand_written {
            let (seen, speed) = deliver(&hand_written.gateway).await?;
            new_to_them += new(&seen);
            theirs.push(speed);
        }
        conversations.extend(plan.into_iter().zip(seen));
    }
    let requests = conversations.iter().map(|(_, seen)| seen.times.len()).sum();
    let comparison = match hand_written {
        Some(HandWritten {
            gateway,
            connections,
        }) => {
            let (events, messages) = stored(&gateway, new_to_them).await?;
            let pairs = ours.iter().zip(&theirs);
            Some(Comparison {
                rounds: ROUNDS,
                callers,
                connections,
                ratio: median(pairs.map(|(ours, theirs)| ours.per_second / theirs.per_second)),
                gateway: Side {
                    requests,
                    events: new_to_us,
                    messages: 0,
                    speed: Speed::median(&ours),
                },
                hand_written: Side {
                    requests,
                    events,
                    messages,
                    speed: Speed::median(&theirs),
                },
            })
        }
        None => None,
    };
    system.end_hand_written().await?;
    Ok(Rounds {
        burst: Burst {
            scenario: Scenario::BurstOfEvents.name(),
            requests,
            speed: Speed::median(&ours),
        },
        comparison,
        conversations,
    })
}

/// Events that were answered as new.
fn new(seen: &[Seen]) -> usize {
    let answers = seen.iter().flat_map(|seen| seen.events.iter().flatten());
    answers.filter(|answer| !answer.duplicate).count()
}

/// How many events and messages the hand-written transaction has. It is a fair measure only if it
/// has stored all that it acknowledged.
async fn stored(hand_written: &Gateway, acknowledged: usize) -> anyhow::Result<(usize, usize)> {
    let stored = match hand_written.stored().await {
        Ok(stored) => stored,
        Err(Refusal::Final(error)) => return Err(error),
        Err(Refusal::Again(reason)) => bail!("the hand-written transaction fails: {reason}"),
    };
    let (events, messages) = (
        usize::try_from(stored.events)?,
        usize::try_from(stored.messages)?,
    );
    ensure!(
        events == acknowledged && messages == events && stored.unread == stored.messages,
        "the hand-written transaction is no measure: it has acknowledged {acknowledged} events, and has {stored:?}"
    );
    Ok((events, messages))
}

pub fn print(bursts: &[Burst], comparison: Option<&Comparison>) -> anyhow::Result<()> {
    if bursts.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let by_hand = comparison.map(|Comparison { hand_written, .. }| {
        let Side {
            requests, speed, ..
        } = hand_written;
        speed.row("the same events, by hand", *requests)
    });
    let headers = [
        "AS FAST AS IT GOES",
        "REQUESTS",
        "PER SECOND",
        "P50 MS",
        "P99 MS",
    ];
    let rows = bursts.iter().map(Burst::row).chain(by_hand);
    output::table(&headers, rows)?;
    if let Some(Comparison {
        rounds,
        callers,
        connections,
        ratio,
        ..
    }) = comparison
    {
        output::line(&format!(
            "\n{ratio:.1} times as many events a second as a hand-written transaction each takes in, on the same database server: \
             {rounds} rounds in turns, {callers} callers; by hand: {connections} connections"
        ))?;
    }
    Ok(())
}
