//! Proof by crash: everything is killed under load, again and again, and then what was acknowledged is held against the
//! database and the provider's ledger.
//!
//!     cargo test --features crash-points --test crash -- --seconds 300 --random-seed 7
//!
//! Several `gateway serve` and `gateway worker` run on a PostgreSQL of their own, through a proxy, with the mock provider. Each
//! process lives until a random moment, or dies by itself at a named point of its code (feature `crash-points`); connections are
//! cut before, during and after statements that write; PostgreSQL is killed with everything it runs; and in the end all of them
//! at once. Callers meanwhile repeat each request until it is acknowledged. The seed repeats every choice, though not how the
//! processes interleave. Exit code 1: a promise was broken.
//!
//! In reading order: `stage` what plays, `proxy` cuts connections, `fate` kills processes, `load` calls, `check` compares,
//! `recovery` measures, `report` tells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

mod check;
mod fate;
mod load;
mod proxy;
mod recovery;
mod report;
mod stage;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports)] // the other tests use the rest
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use futures_util::future;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use fate::Slot;
use load::{Caller, Promise};
use report::Report;
use stage::{LEASE, Role, Stage};
use support::Program;

/// Kill everything under load, and compare what was acknowledged with what is there
#[derive(Debug, Parser)]
#[command(name = "crash")]
struct Options {
    /// How long things are killed, in each order
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Repeats every random choice [default: another one each time]
    #[arg(long, default_value_t = rand::random::<u32>().into(), hide_default_value = true)]
    random_seed: u64,
    /// In which order messages are delivered [default: one run with each]
    #[arg(long)]
    order: Option<Order>,
    /// How many `gateway serve`
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    servers: u8,
    /// How many `gateway worker`
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=16))]
    workers: u8,
    /// How many callers at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
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
enum Order {
    None,
    Conversation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Break {
    /// The provider delivers a repeated key again.
    Dedupe,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let orders = options
        .order
        .map_or(vec![Order::None, Order::Conversation], |order| vec![order]);
    let mut reports = Vec::new();
    for order in orders {
        eprintln!("order {order:?}, random seed {}", options.random_seed);
        let report = run(&options, order).await;
        if !options.json {
            report.print();
        }
        reports.push(report);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&reports).unwrap());
    }
    if reports.iter().all(|report| report.held) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One run, from the first process to the comparison.
async fn run(options: &Options, order: Order) -> Report {
    let mut rng = StdRng::seed_from_u64(options.random_seed);
    let stage = Arc::new(Stage::set(options, order == Order::Conversation, &mut rng).await);
    let watch = tokio::spawn({
        let stage = Arc::clone(&stage);
        async move { stage.watch().await }
    });
    let slots = slots(options, &stage, &mut rng).map(|slot| tokio::spawn(slot.run()));
    let processes = future::try_join_all(slots.collect::<Vec<_>>());
    let stop = CancellationToken::new();
    let callers =
        callers(options, &stage, &mut rng).map(|caller| tokio::spawn(caller.run(stop.clone())));
    let promises = future::try_join_all(callers.collect::<Vec<_>>());

    let time = Duration::from_secs(options.seconds);
    let calls = async {
        // What crashes leave behind in the last quarter, no later request puts right.
        tokio::time::sleep(time * 3 / 4).await;
        stop.cancel();
    };
    let violence = async {
        kill_databases(&stage, time, &mut rng).await;
        // The blackout: each slot kills its process, too.
        stage.calm.cancel();
        stage.proxy.calm();
        stage.restart_database().await;
    };
    let (processes, promises, (), ()) = tokio::join!(processes, promises, calls, violence);
    let promises: Vec<Promise> = promises.unwrap().into_iter().flatten().collect();
    let mut left = settle(&stage).await;
    watch.abort();
    left.extend(terminate(processes.unwrap()).await);
    let rows = check::check(&stage, &promises, left).await;
    let recovery = recovery::measure(&stage).await;
    Report::new(options, order, &stage, &promises, recovery, rows)
}

fn slots<'a>(
    options: &Options,
    stage: &'a Arc<Stage>,
    rng: &'a mut StdRng,
) -> impl Iterator<Item = Slot> + use<'a> {
    let servers = (0..options.servers).map(|place| (Role::Server, place));
    let workers = (0..options.workers).map(|place| (Role::Worker, place));
    let roles = servers.chain(workers);
    roles.map(|(role, place)| Slot::new(stage, role, usize::from(place), rng))
}

fn callers<'a>(
    options: &Options,
    stage: &'a Arc<Stage>,
    rng: &'a mut StdRng,
) -> impl Iterator<Item = Caller> + use<'a> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    (0..usize::from(options.callers)).map(move |number| Caller::new(stage, &http, number, rng))
}

/// Kills PostgreSQL now and then, for this long.
async fn kill_databases(stage: &Stage, seconds: Duration, rng: &mut StdRng) {
    let deadline = Instant::now() + seconds;
    loop {
        let pause = Duration::from_millis(rng.random_range(6_000..15_000));
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(pause.min(left)).await;
        if Instant::now() >= deadline {
            return;
        }
        stage.restart_database().await;
    }
}

/// Waits until everything is sent; what has not moved for a multiple of a lease is stuck, and told.
async fn settle(stage: &Stage) -> Vec<String> {
    let mut moved_at = Instant::now();
    let mut before = i64::MAX;
    loop {
        let unsent = stage.read_unsent().await.unwrap();
        match unsent {
            0 => return Vec::new(),
            _ if unsent < before => {
                before = unsent;
                moved_at = Instant::now();
            }
            _ if moved_at.elapsed() > LEASE * 5 => {
                return vec![format!("{unsent} messages are stuck")];
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Ends the last processes in an orderly way; tells what was not.
async fn terminate(processes: Vec<Program>) -> Vec<String> {
    let mut left = Vec::new();
    for mut process in processes {
        let status = process.terminate().await;
        if !status.success() {
            left.push(format!("SIGTERM: {status}: {:#?}", process.log()));
        }
    }
    left
}
