//! `gateway simulate`: tests the guarantees under duplicates, disorder, a failing provider and
//! crashes, and reports which held.
//!
//! In reading order: `args` are what is asked for; `scenario` names what can be done; `plan` makes all requests from the seed,
//! `whatsapp` says what is special there, and `meta` how Meta writes it; `system` is what they go
//! to, with its `process`es; `client` plays the provider and the backend; `drive` carries the plan
//! out; a `listener` hears of it meanwhile; `burst` measures the speed, beside the `baseline`;
//! `check` compares what was seen with what is promised.

mod args;
pub mod baseline;
mod burst;
mod check;
mod client;
mod drive;
pub mod guarantee;
pub mod listener;
mod meta;
mod plan;
mod process;
pub mod repeat;
mod scenario;
mod system;
mod whatsapp;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::HumanCount;
use mock_meta_provider::{FaultStats, Stats};
use serde::Serialize;

use super::output;
use crate::process::signal;

pub use args::Args;
use burst::{Burst, Comparison};
use check::Evidence;
use drive::{Crashes, Seen};
use guarantee::Guarantee;
use listener::Listener;
use plan::{Conversation, RunSettings};
use scenario::Scenario;
use system::System;
use whatsapp::{PREFIX, Wire};

/// What is sent while nothing that is held may be, and the wait after each of them.
const WITNESSES: u32 = 15;
const WITNESS_PAUSE: Duration = Duration::from_millis(200);

pub async fn run(args: Args) -> anyhow::Result<()> {
    let scenarios = args.scenarios();
    let seed = args
        .random_seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let stop = signal::stop()?;
    let simulated = async {
        let system = args.system().await?;
        output::say(&format!(
            "random seed {seed}: --random-seed {seed} does the same again"
        ));
        let simulated = simulate(&args, &scenarios, seed, &system).await;
        system.stop().await?;
        simulated
    };
    let report = tokio::select! {
        report = simulated => report?,
        () = stop.cancelled() => bail!("interrupted"),
    };
    print(&args, &report)?;
    let broken = report.guarantees.iter().filter(|guarantee| !guarantee.held);
    match broken.count() {
        0 => Ok(()),
        broken => bail!(
            "{broken} of {} guarantees are broken",
            report.guarantees.len()
        ),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    held: bool,
    random_seed: u64,
    participants: String,
    scenarios: Vec<&'static str>,
    seconds: f64,
    guarantees: Vec<Guarantee>,
    faults: Vec<Fault>,
    bursts: Vec<Burst>,
    comparison: Option<Comparison>,
}

/// A failure that was caused on purpose.
#[derive(Debug, Serialize)]
struct Fault {
    fault: &'static str,
    times: u64,
}

/// Runs every scenario, waits until nothing more happens, and checks.
async fn simulate(
    args: &Args,
    scenarios: &[Scenario],
    seed: u64,
    system: &System,
) -> anyhow::Result<Report> {
    let started_at = Instant::now();
    let settings = RunSettings {
        seed,
        prefix: prefix(seed, system),
        events: usize::try_from(args.events)?,
        too_late_ms: system.too_late_ms,
        wire: system.wire,
    };
    let concurrency = usize::try_from(args.concurrency)?;
    let before = system.provider.stats().await?;
    // On WhatsApp some have user ids; but then nobody else is there.
    let prefix = Some(settings.prefix.clone()).filter(|_| system.wire == Wire::MockMeta);
    let ask = Arc::clone(&system.gateway).ask();
    let listener = Listener::start(ask, prefix.clone()).await?;
    let mut run = Run::default();
    for scenario in scenarios {
        if *scenario == Scenario::BurstOfEvents {
            run.burst_of_events(system, &settings, concurrency).await?;
            continue;
        }
        system.behave(*scenario)?;
        let plan = settings.plan(*scenario);
        run.carry_out(system, *scenario, plan, concurrency).await?;
        if system.wire == Wire::Whatsapp {
            // How statuses come is not changed before all of the scenario's have come.
            run.settle(system, concurrency).await?;
        }
    }
    run.outlast_silence(system).await?;
    run.settle(system, concurrency).await?;
    let ledger = system
        .provider
        .ledger(prefix.as_deref().unwrap_or_default())
        .await?;
    let after = system.provider.stats().await?;
    let evidence = Evidence {
        conversations: &run.conversations,
        ledger: &ledger,
        ordered: system.ordered,
        wire: system.wire,
    };
    let mut guarantees = evidence.check();
    guarantees.push(listener.compare(&run.conversation_ids()).await?);
    if system.wire == Wire::Whatsapp {
        guarantees.push(listener.steps());
    }
    if let Some(comparison) = &mut run.comparison {
        comparison.count(&run.conversations);
    }
    Ok(Report {
        held: guarantees.iter().all(|guarantee| guarantee.held),
        random_seed: seed,
        participants: format!("{}*", settings.prefix),
        scenarios: scenarios.iter().map(|scenario| scenario.name()).collect(),
        seconds: started_at.elapsed().as_secs_f64(),
        guarantees,
        faults: run.faults(&before, &after),
        bursts: run.bursts,
        comparison: run.comparison,
    })
}

/// What has been done so far.
#[derive(Default)]
struct Run {
    conversations: Vec<(Conversation, Seen)>,
    crashes: Crashes,
    bursts: Vec<Burst>,
    comparison: Option<Comparison>,
}

impl Run {
    async fn burst_of_events(
        &mut self,
        system: &System,
        settings: &RunSettings,
        concurrency: usize,
    ) -> anyhow::Result<()> {
        let rounds = burst::of_events(system, settings, concurrency).await?;
        self.bursts.push(rounds.burst);
        self.comparison = rounds.comparison;
        self.conversations.extend(rounds.conversations);
        Ok(())
    }

    async fn carry_out(
        &mut self,
        system: &System,
        scenario: Scenario,
        plan: Vec<Conversation>,
        concurrency: usize,
    ) -> anyhow::Result<()> {
        for conversation in plan.iter().filter(|conversation| conversation.is_sent_to()) {
            system.provider.script(conversation).await?;
        }
        let requests = plan
            .iter()
            .map(|conversation| conversation.requests().count() as u64);
        let requests = requests.sum();
        let bar = output::progress(requests, scenario.name());
        let began_at = Instant::now();
        let driven = || drive::requests(system, &plan, concurrency, &bar);
        let seen = if scenario == Scenario::Batches {
            drive::batches(system, &plan, &bar).await?
        } else if scenario == Scenario::Crash {
            let killed = drive::crashes(system, requests, &bar);
            let (seen, killed) = tokio::try_join!(driven(), killed)?;
            self.crashes = killed;
            seen
        } else {
            driven().await?
        };
        if scenario == Scenario::BurstOfSends {
            self.bursts
                .push(Burst::measure(scenario, &seen, began_at.elapsed()));
        }
        bar.finish_and_clear();
        self.conversations.extend(plan.into_iter().zip(seen));
        Ok(())
    }

    fn conversation_ids(&self) -> Vec<String> {
        let seen = self.conversations.iter();
        seen.filter_map(|(_, seen)| seen.conversation_id().map(str::to_owned))
            .collect()
    }

    /// After a silence statuses come again: nothing that is held may be sent for that.
    async fn outlast_silence(&self, system: &System) -> anyhow::Result<()> {
        let mut scenarios = self.conversations.iter().map(|(c, _)| c.scenario);
        if scenarios.any(|scenario| scenario == Scenario::Silence) {
            system.behave(Scenario::BurstOfSends)?;
            for _ in 0..WITNESSES {
                system.witness().await;
                tokio::time::sleep(WITNESS_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn settle(&mut self, system: &System, concurrency: usize) -> anyhow::Result<()> {
        let bar = output::progress(self.conversations.len() as u64, "settling");
        drive::settle(system, &mut self.conversations, concurrency, &bar).await?;
        bar.finish_and_clear();
        let conversations = self
            .conversations
            .iter()
            .map(|(conversation, _)| conversation);
        for conversation in conversations.filter(|conversation| conversation.is_sent_to()) {
            system.provider.end_script(conversation).await?;
        }
        Ok(())
    }

    /// The faults that did happen.
    fn faults(&self, before: &Stats, after: &Stats) -> Vec<Fault> {
        let count = |of: fn(&Conversation) -> usize| -> u64 {
            let counts = self
                .conversations
                .iter()
                .map(|(conversation, _)| of(conversation) as u64);
            counts.sum()
        };
        let since =
            |of: fn(&FaultStats) -> u64| of(&after.faults).saturating_sub(of(&before.faults));
        let faults = [
            (
                "event delivered again",
                count(Conversation::repeated_events),
            ),
            (
                "event overtaken by a later one",
                count(Conversation::overtaken_events),
            ),
            ("answered 429", since(|faults| faults.rate_limit)),
            ("answered 5xx", since(|faults| faults.server_error)),
            ("taken, answer lost", since(|faults| faults.lost_answer)),
            (
                "taken, answer unreadable",
                since(|faults| faults.unreadable),
            ),
            ("connection reset", since(|faults| faults.reset)),
            ("never answered", since(|faults| faults.hang)),
            ("answered late", since(|faults| faults.delay)),
            ("server killed", self.crashes.servers),
            ("worker killed", self.crashes.workers),
        ];
        let happened = faults.into_iter().filter(|(_, times)| *times > 0);
        happened
            .map(|(fault, times)| Fault { fault, times })
            .collect()
    }
}

/// The beginning of every participant's name. A running system may have seen the same seed before,
/// and what that run made must not count again.
fn prefix(seed: u64, system: &System) -> String {
    if system.wire == Wire::Whatsapp {
        PREFIX.to_owned()
    } else if system.is_shared() {
        format!("sim-{seed}-{:x}-", chrono::Utc::now().timestamp_millis())
    } else {
        format!("sim-{seed}-")
    }
}

fn print(args: &Args, report: &Report) -> anyhow::Result<()> {
    if args.json {
        return output::json(report);
    }
    guarantee::print(&report.guarantees)?;
    if !report.faults.is_empty() {
        output::line("")?;
        let faults = report
            .faults
            .iter()
            .map(|fault| vec![fault.fault.to_owned(), HumanCount(fault.times).to_string()]);
        output::table(&["WHAT WENT WRONG ON PURPOSE", "TIMES"], faults)?;
    }
    burst::print(&report.bursts, report.comparison.as_ref())?;
    guarantee::say_broken(&report.guarantees);
    output::say(&format!(
        "{:.1} s, random seed {}",
        report.seconds, report.random_seed
    ));
    Ok(())
}
