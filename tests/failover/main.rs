//! Proof by failover: the database goes from one server to another under load, and then what was
//! acknowledged is held against it and the provider's ledger.
//!
//!     cargo test --test failover -- --rounds 3 --random-seed 7
//!
//! Several `gateway serve` and `gateway worker` run on a primary with a synchronous standby, with
//! the mock provider, through a proxy that leads connections to where a balancer would, right or
//! wrong; then without it, on a `DATABASE_URL` that names both servers. Callers repeat each request
//! until it is acknowledged, others read what was acknowledged a moment ago. After each fault all
//! must be served again; how long that takes is reported, and breaks no promise. The seed repeats
//! every choice, though not how the processes interleave. Exit code 1: a promise was broken.
//!
//! In reading order: `stage` what plays, `proxy` the way to the database, `scenario` what happens,
//! `measure` for how long, `load::callers` calls, `load::check` compares, `report` tells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

#[path = "../load/mod.rs"]
#[allow(dead_code)] // the other proof uses the rest
mod load;
mod measure;
mod proxy;
mod report;
mod scenario;
mod stage;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports)] // the other tests use the rest
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use gateway::cli::guarantee::Guarantee;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use load::{Order, check};
use measure::Reads;
use report::{Report, Struck};
use scenario::Scenario;
use stage::Stage;

/// How soon all should be served again.
const GOAL: Duration = Duration::from_secs(5);
/// After so long it is said that they never are.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long all is well before a fault, and after it.
const PEACE: Duration = Duration::from_millis(1500);
const READERS: u8 = 4;

/// Move the database from one server to another under load, and compare what was acknowledged with
/// what is there
#[derive(Debug, Parser)]
#[command(name = "failover")]
struct Options {
    /// What happens; several times: one after the other [default: all]
    #[arg(long)]
    scenario: Vec<Scenario>,
    /// How often
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How the gateway finds the primary [default: one run with each]
    #[arg(long)]
    way: Option<Way>,
    /// Repeats every random choice [default: another one each time]
    #[arg(long, default_value_t = rand::random::<u32>().into(), hide_default_value = true)]
    random_seed: u64,
    /// In which order messages are delivered
    #[arg(long, default_value = "conversation")]
    order: Order,
    /// How many `gateway serve`
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    servers: u8,
    /// How many `gateway worker`
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: u8,
    /// How many callers at once
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1000))]
    callers: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Break what a promise rests on, which must be noticed
    #[arg(long = "break", hide = true)]
    broken: Option<Break>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "camelCase")]
enum Way {
    Proxy,
    Hosts,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Proxy => "a proxy",
            Self::Hosts => "a DATABASE_URL with both servers",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Break {
    /// Commits do not wait for the standby.
    Synchronous,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let ways = options
        .way
        .map_or(vec![Way::Proxy, Way::Hosts], |way| vec![way]);
    let chosen = match &*options.scenario {
        [] => Scenario::value_variants(),
        chosen => chosen,
    };
    let runs = ways.into_iter().map(|way| {
        let can = |scenario: &Scenario| way == Way::Proxy || !scenario.needs_proxy();
        (way, chosen.iter().copied().filter(can).collect())
    });
    let runs = runs.filter(|(_, scenarios): &(Way, Vec<Scenario>)| !scenarios.is_empty());
    let runs = runs.map(async |(way, scenarios)| run(&options, way, &scenarios).await);
    load::tell(options.json, runs).await
}

/// One run, from the first process to the comparison.
async fn run(options: &Options, way: Way, scenarios: &[Scenario]) -> Report {
    let mut rng = StdRng::seed_from_u64(options.random_seed);
    let mut stage = Stage::set(options, way).await;
    let processes = stage.start(options).await;
    let scene = Arc::clone(&stage.scene);
    let reads = Arc::new(Reads::default());
    let (stop, stop_reading) = (CancellationToken::new(), CancellationToken::new());
    let listener = load::listen(&scene).await;
    let promises = tokio::spawn(load::call(&scene, options.callers, &mut rng, &stop));
    for _ in 0..READERS {
        let rng = StdRng::from_rng(&mut rng);
        let (scene, reads) = (Arc::clone(&scene), Arc::clone(&reads));
        tokio::spawn(measure::read(scene, reads, rng, stop_reading.clone()));
    }

    let mut struck = Vec::new();
    let mut never = Vec::new();
    for scenario in std::iter::repeat_n(scenarios, usize::from(options.rounds)).flatten() {
        let one = strike(&mut stage, &reads, *scenario).await;
        if one.seconds_until_back.is_none() {
            never.push(scenario.name().to_owned());
        }
        struck.push(one);
    }
    stop.cancel();
    let promises = promises.await.unwrap();
    stop_reading.cancel();
    let mut left = load::settle(async || stage.read_unsent().await).await;
    let primary = stage.cluster.primary.options();
    let pool = PgPoolOptions::new().connect_lazy_with(primary);
    let heard = load::compare(&listener, &pool).await;
    left.extend(load::terminate(processes).await);
    let missing = reads.missing.lock().unwrap().clone();
    let mut rows = vec![
        Guarantee::new(
            "all are served again after each fault",
            format!("{} faults", struck.len()),
            format!("{} times", struck.len() - never.len()),
            never,
        ),
        Guarantee::new(
            "what is acknowledged can be read",
            format!("{} reads", reads.count()),
            format!("{} found nothing", missing.len()),
            missing,
        ),
    ];
    rows.extend(check::check(&scene, &pool, &promises, left).await);
    rows.push(heard);
    let stale = reads.excused.load(Ordering::Relaxed);
    Report::new(options, way, struck, stale, rows)
}

/// One fault, from peace to peace.
async fn strike(stage: &mut Stage, reads: &Reads, scenario: Scenario) -> Struck {
    eprintln!("{}", scenario.name());
    let scene = Arc::clone(&stage.scene);
    let before = Instant::now();
    if until_served(&scene, reads, before).await.is_none() {
        return Struck {
            scenario,
            seconds_without: measure::longest_gaps(&scene, reads, before),
            seconds_until_back: None,
        };
    }
    tokio::time::sleep(PEACE).await;
    let may_be_stale = scenario.may_read_stale();
    reads.may_be_stale.store(may_be_stale, Ordering::Relaxed);
    let from = Instant::now();
    let possible_from = scenario.strike(stage).await;
    let back = until_served(&scene, reads, possible_from).await;
    tokio::time::sleep(PEACE).await;
    let seconds_without = measure::longest_gaps(&scene, reads, from);
    scenario.restore(stage).await;
    reads.may_be_stale.store(false, Ordering::Relaxed);
    Struck {
        scenario,
        seconds_without,
        seconds_until_back: back.map(|back| (back - possible_from).as_secs_f64()),
    }
}

/// Waits until everything was served since then; when it was, if it ever is.
async fn until_served(scene: &load::Scene, reads: &Reads, since: Instant) -> Option<Instant> {
    while since.elapsed() < PATIENCE {
        let back = measure::back_at(scene, reads, since);
        if back.is_some() {
            return back;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}
