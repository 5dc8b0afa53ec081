//! `gateway simulate`: tries the guarantees out under duplicates, disorder, a failing provider and crashes, and reports which held.
//!
//! In reading order: `plan` what is done, from the seed alone; `system` to what, with its `process`es; `client` the sides that
//! are played; `drive` carries the plan out; `burst` how fast that goes, beside the `baseline`; `check` holds what was seen against
//! what is promised.

pub mod baseline;
mod burst;
mod check;
mod client;
mod drive;
pub mod guarantee;
mod plan;
mod process;
pub mod repeat;
mod scenario;
mod system;

use std::time::Instant;

use anyhow::bail;
use indicatif::HumanCount;
use mock_meta_provider::{FaultStats, Stats};
use reqwest::Url;
use serde::Serialize;

use super::output;
use crate::config::{self, DeliveryOrder};
use crate::error::UsageError;
use crate::peer;
use crate::process::{hidden::Hidden, signal};
use burst::{Burst, Comparison};
use check::Evidence;
use client::Credentials;
use drive::{Crashes, Seen};
use guarantee::Guarantee;
use plan::{Conversation, RunSettings};
use scenario::Scenario;
use system::System;

/// Try the guarantees out: duplicates, disorder, a failing provider, crashes; then a report of which held
///
/// Without a scenario: all of them. Brings up a system of its own and takes it down again: a private PostgreSQL in a temporary
/// directory, a mock provider, `serve` and `worker`. With --against and --mock it drives a running one instead, with API_KEYS and
/// WEBHOOK_SECRET of the environment (or of the files that API_KEYS_FILE and WEBHOOK_SECRET_FILE name), and touches nobody but participants named `sim-<seed>-…`. Exits with 1 when a guarantee is
/// broken.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  gateway simulate\n  gateway simulate --crash --lost-answer --events 5000\n  \
                  gateway simulate --duplicate --against http://localhost:3000 --mock http://localhost:4000"
)]
pub struct Args {
    /// Deliver each event 2 to 5 times, at once and later
    #[arg(long)]
    duplicate: bool,
    /// Deliver later events before earlier ones
    #[arg(long)]
    out_of_order: bool,
    /// The provider answers 429 with Retry-After, a few times: each pauses a whole channel
    #[arg(long)]
    rate_limit: bool,
    /// The provider answers 500 and 503
    #[arg(long)]
    server_error: bool,
    /// The provider does not answer, or only after the call was given up
    #[arg(long)]
    timeout: bool,
    /// The connection breaks before or after the provider has taken the message, or the answer cannot be read
    #[arg(long)]
    lost_answer: bool,
    /// The provider is slow
    #[arg(long)]
    delay: bool,
    /// Kill the server and the worker, and start them again; only in a system of its own
    #[arg(long, conflicts_with = "against")]
    crash: bool,
    /// As fast as it goes: throughput and latency. The events come in 5 rounds of N; each round goes in turns to the gateway and to a
    /// transaction that one would write by hand (insert the event, upsert the conversation, insert the message), behind a server of its
    /// own on the same database server, with a connection for each caller (64 at most) and without the gateway's checks; then the ratio.
    /// With --against there is no database for that, and no ratio
    #[arg(long)]
    burst: bool,
    /// All of them; with --against: except --crash
    #[arg(long)]
    all: bool,
    /// Events, or messages, of each scenario
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    events: u32,
    /// Conversations at the same time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "C")]
    concurrency: u32,
    /// Repeats a run's choices [default: random, and printed]
    #[arg(long, value_name = "S")]
    random_seed: Option<u64>,
    /// The running gateway to try out: its base URL, without ? and #
    #[arg(
        long,
        env = "SIMULATE_AGAINST",
        hide_env_values = true,
        value_name = "URL",
        requires = "mock"
    )]
    against: Option<Hidden<String>>,
    /// The mock provider of the running gateway
    #[arg(
        long,
        env = "SIMULATE_MOCK",
        hide_env_values = true,
        value_name = "URL",
        requires = "against"
    )]
    mock: Option<Hidden<String>>,
    /// The order that is kept, by the system of its own, or by the running one [default: conversation; with --against: none]
    #[arg(long, env = "DELIVERY_ORDER", value_enum, value_name = "ORDER")]
    delivery_order: Option<DeliveryOrder>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Let the mock provider deliver repeated idempotency keys again: shows what a broken guarantee looks like
    #[arg(long, hide = true, conflicts_with = "against")]
    break_deduplication: bool,
}

impl Args {
    fn scenarios(&self) -> Vec<Scenario> {
        let asked = |scenario: &Scenario| match scenario {
            Scenario::Duplicate => self.duplicate,
            Scenario::OutOfOrder => self.out_of_order,
            Scenario::RateLimit => self.rate_limit,
            Scenario::ServerError => self.server_error,
            Scenario::Timeout => self.timeout,
            Scenario::LostAnswer => self.lost_answer,
            Scenario::Delay => self.delay,
            Scenario::Crash => self.crash,
            Scenario::BurstOfEvents | Scenario::BurstOfSends => self.burst,
        };
        let mut scenarios = Scenario::ALL.to_vec();
        if self.all || !scenarios.iter().any(asked) {
            scenarios.retain(|scenario| self.against.is_none() || *scenario != Scenario::Crash);
        } else {
            scenarios.retain(asked);
        }
        scenarios
    }

    async fn system(&self) -> anyhow::Result<System> {
        let order = self.delivery_order;
        if let (Some(gateway), Some(mock)) = (&self.against, &self.mock) {
            let gateway = base_url("SIMULATE_AGAINST", gateway)?;
            let mock = base_url("SIMULATE_MOCK", mock)?;
            let (api_key, webhook_secret) = config::credentials()?;
            let credentials = Credentials {
                api_key,
                webhook_secret,
            };
            let order = order.unwrap_or(DeliveryOrder::None);
            return System::running(gateway, mock, credentials, order).await;
        }
        output::say("bringing up a system of its own");
        let order = order.unwrap_or(DeliveryOrder::Conversation);
        System::bring_up(order, !self.break_deduplication).await
    }
}

fn base_url(name: &str, url: &str) -> Result<Url, UsageError> {
    peer::base_url(url)
        .map_err(|wrong| UsageError(format!("{name} {wrong}, such as http://localhost:3000")))
}

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

/// How a run ended.
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

/// What went wrong on purpose.
#[derive(Debug, Serialize)]
struct Fault {
    fault: &'static str,
    times: u64,
}

/// Carries every scenario out, waits until nothing more happens, and checks.
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
    };
    let concurrency = usize::try_from(args.concurrency)?;
    let before = system.provider.stats().await?;
    let mut run = Run::default();
    for scenario in scenarios {
        if *scenario == Scenario::BurstOfEvents {
            run.burst_of_events(system, &settings, concurrency).await?;
            continue;
        }
        let plan = settings.plan(*scenario);
        run.carry_out(system, *scenario, plan, concurrency).await?;
    }
    run.settle(system, concurrency).await?;
    let ledger = system.provider.ledger(&settings.prefix).await?;
    let after = system.provider.stats().await?;
    let evidence = Evidence {
        conversations: &run.conversations,
        ledger: &ledger,
        ordered: system.ordered,
    };
    let guarantees = evidence.check();
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
        let driven = drive::requests(system, &plan, concurrency, &bar);
        let seen = if scenario == Scenario::Crash {
            let killed = drive::crashes(system, requests, &bar);
            let (seen, killed) = tokio::try_join!(driven, killed)?;
            self.crashes = killed;
            seen
        } else {
            driven.await?
        };
        if scenario == Scenario::BurstOfSends {
            self.bursts
                .push(Burst::measure(scenario, &seen, began_at.elapsed()));
        }
        bar.finish_and_clear();
        self.conversations.extend(plan.into_iter().zip(seen));
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

    /// The faults that really happened.
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

/// In a running system a seed may have been used before: what it made then must not count again.
fn prefix(seed: u64, system: &System) -> String {
    if system.is_shared() {
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
