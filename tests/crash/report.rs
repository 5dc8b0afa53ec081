//! What a run did and what it found, as a table or as JSON.

use std::collections::BTreeMap;

use gateway::cli;
use gateway::cli::guarantee::{self, Guarantee};
use serde::Serialize;

use crate::Options;
use crate::load::callers::{Kind, Promise};
use crate::load::{self, Order, Wire};
use crate::proxy::Cut;
use crate::recovery::Recovery;
use crate::stage::{Moment, Stage};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    held: bool,
    random_seed: u64,
    order: Order,
    wire: Wire,
    seconds: u64,
    /// How often, by the moment.
    kills: BTreeMap<String, u64>,
    /// How often, by the moment, then by the statement.
    cuts: BTreeMap<&'static str, BTreeMap<String, u64>>,
    database_restarts: usize,
    longest_outage_ms: i64,
    acknowledged_events: usize,
    acknowledged_sends: usize,
    recovery: Recovery,
    promises: Vec<Guarantee>,
}

impl Report {
    pub fn new(
        options: &Options,
        stage: &Stage,
        promises: &[Promise],
        recovery: Recovery,
        rows: Vec<Guarantee>,
    ) -> Self {
        let mut kills = BTreeMap::new();
        for kill in &*stage.kills.lock().unwrap() {
            let moment = match kill.moment {
                Moment::Random => "random moment",
                Moment::Point(point) => point.name(),
                Moment::Blackout => "blackout",
            };
            *kills
                .entry(format!("{}: {moment}", kill.role.name()))
                .or_default() += 1;
        }
        let mut cuts: BTreeMap<_, BTreeMap<_, _>> = Cut::ALL
            .iter()
            .map(|cut| (cut.name(), BTreeMap::new()))
            .collect();
        for ((cut, statement), count) in stage.proxy.cuts() {
            cuts.entry(cut.name()).or_default().insert(statement, count);
        }
        let outages = stage.outages.lock().unwrap();
        let outages = outages.iter().map(|(from, back)| *back - *from);
        let acknowledged = |kind| {
            let promises = promises
                .iter()
                .filter(|promise| promise.request.kind == kind);
            promises
                .filter(|promise| !promise.receipts.is_empty())
                .count()
        };
        Self {
            held: rows.iter().all(|row| row.held),
            random_seed: options.random_seed,
            order: stage.scene.order,
            wire: stage.scene.wire,
            seconds: options.seconds,
            kills,
            cuts,
            database_restarts: outages.len(),
            longest_outage_ms: outages.max().map_or(0, |outage| outage.num_milliseconds()),
            acknowledged_events: acknowledged(Kind::Event),
            acknowledged_sends: acknowledged(Kind::Send),
            recovery,
            promises: rows,
        }
    }

    fn print_recovery(&self) {
        let Recovery {
            messages,
            waits,
            waits_for_gateway,
            goal_ms,
            late,
            ..
        } = &self.recovery;
        println!(
            "time to recover: p50 {} ms, max {} ms; without PostgreSQL's absence: p50 {} ms, max {} ms, goal {goal_ms} ms",
            waits.p50_ms, waits.max_ms, waits_for_gateway.p50_ms, waits_for_gateway.max_ms
        );
        println!(
            "PostgreSQL was away for up to {} ms",
            self.longest_outage_ms
        );
        if *late > 0 {
            println!("goal missed: {late} of {messages} messages");
        }
    }
}

impl load::Report for Report {
    fn held(&self) -> bool {
        self.held
    }

    fn print(&self) {
        let kills = self.kills.iter();
        let mut done: Vec<_> = kills
            .map(|(kill, count)| (format!("killed {kill}"), *count))
            .collect();
        for (cut, statements) in &self.cuts {
            for (statement, count) in statements {
                done.push((format!("cut {cut}: {statement}"), *count));
            }
        }
        for (what, count) in [
            ("killed PostgreSQL", self.database_restarts),
            ("acknowledged events", self.acknowledged_events),
            ("acknowledged sends", self.acknowledged_sends),
            (
                "recovered messages of killed processes",
                self.recovery.messages,
            ),
            (
                "recovered messages of living ones",
                self.recovery.of_the_living,
            ),
        ] {
            done.push((what.to_owned(), count as u64));
        }
        let done = done
            .into_iter()
            .map(|(what, count)| vec![what, count.to_string()]);
        cli::table(&["DONE", "TIMES"], done).unwrap();
        println!();
        guarantee::print(&self.promises).unwrap();
        println!();
        guarantee::say_broken(&self.promises);
        self.print_recovery();
        let (order, wire) = (self.order, self.wire);
        println!(
            "order {order:?}, wire {wire:?}, random seed {}",
            self.random_seed
        );
    }
}
