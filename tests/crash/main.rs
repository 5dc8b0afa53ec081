//! Proof by crash: everything is killed under load, again and again, and then what was acknowledged
//! is held against the database and the provider's ledger.
//!
//!     cargo test --features crash-points --test crash -- --seconds 300 --random-seed 7
//!
//! Several `gateway serve` and `gateway worker` run on a PostgreSQL of their own, through a proxy,
//! with the mock provider. Each process lives until a random moment, or dies by itself at a named
//! point of its code (feature `crash-points`); connections are cut before, during and after
//! statements that write; PostgreSQL is killed with everything it runs; and in the end all of them
//! at once. Callers meanwhile repeat each request until it is acknowledged. The seed repeats every
//! choice, though not how the processes interleave. Exit code 1: a promise was broken.
//!
//! In reading order: `stage` what plays, `proxy` cuts connections, `fate` kills processes,
//! `load::callers` calls, `load::check` compares, `recovery` measures, `report` tells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

mod fate;
#[path = "../load/mod.rs"]
#[allow(dead_code)] // the other proof uses the rest
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
use load::{Order, Role, Wire, check};
use report::Report;
use stage::Stage;

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
    /// How the channel whatsapp is spoken [default: one run with each]
    #[arg(long)]
    wire: Option<Wire>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Break {
    /// The provider delivers a repeated key again.
    Dedupe,
    /// On WhatsApp a message whose answer was lost is sent again at once.
    Reconcile,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let orders = options
        .order
        .map_or(vec![Order::None, Order::Conversation], |order| vec![order]);
    let wires = options
        .wire
        .map_or(vec![Wire::MockMeta, Wire::Whatsapp], |wire| vec![wire]);
    let runs = orders
        .iter()
        .flat_map(|order| wires.iter().map(|wire| (*order, *wire)));
    let runs = runs.map(async |(order, wire)| {
        let seed = options.random_seed;
        eprintln!("order {order:?}, wire {wire:?}, random seed {seed}");
        run(&options, order, wire).await
    });
    load::tell(options.json, runs).await
}

/// One run, from the first process to the comparison.
async fn run(options: &Options, order: Order, wire: Wire) -> Report {
    let mut rng = StdRng::seed_from_u64(options.random_seed);
    let stage = Arc::new(Stage::set(options, order, wire, &mut rng).await);
    let watch = tokio::spawn({
        let stage = Arc::clone(&stage);
        async move { stage.watch().await }
    });
    let slots = slots(options, &stage, &mut rng).map(|slot| tokio::spawn(slot.run()));
    let processes = future::try_join_all(slots.collect::<Vec<_>>());
    let stop = CancellationToken::new();
    let listener = load::listen(&stage.scene).await;
    let promises = load::call(&stage.scene, options.callers, &mut rng, &stop);

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
    let mut left = load::settle(async || stage.read_unsent().await).await;
    watch.abort();
    let heard = load::compare(&listener, stage.pool()).await;
    left.extend(load::terminate(processes.unwrap()).await);
    let mut rows = Vec::new();
    if wire == Wire::Whatsapp {
        rows.push(check::statuses(stage.pool()).await);
    }
    rows.extend(check::check(&stage.scene, stage.pool(), &promises, left).await);
    rows.push(heard);
    let recovery = recovery::measure(&stage).await;
    Report::new(options, &stage, &promises, recovery, rows)
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
