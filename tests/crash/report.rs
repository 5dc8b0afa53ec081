//! What a run did and what it found, as a table or as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Options;
use crate::load::callers::{Kind, Promise};
use crate::load::check::Row;
use crate::load::{self, Order, table};
use crate::proxy::Cut;
use crate::recovery::Recovery;
use crate::stage::{Moment, Stage};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub held: bool,
    random_seed: u64,
    order: Order,
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
    promises: Vec<Row>,
}

impl Report {
    pub fn new(
        options: &Options,
        stage: &Stage,
        promises: &[Promise],
        recovery: Recovery,
        rows: Vec<Row>,
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

    pub fn print(&self) {
        let mut done = table(&["DONE", "TIMES"]);
        for (kill, count) in &self.kills {
            done.add_row([format!("killed {kill}"), count.to_string()]);
        }
        for (cut, statements) in &self.cuts {
            for (statement, count) in statements {
                done.add_row([format!("cut {cut}: {statement}"), count.to_string()]);
            }
        }
        done.add_row([
            "killed PostgreSQL".to_owned(),
            self.database_restarts.to_string(),
        ]);
        done.add_row([
            "acknowledged events".to_owned(),
            self.acknowledged_events.to_string(),
        ]);
        done.add_row([
            "acknowledged sends".to_owned(),
            self.acknowledged_sends.to_string(),
        ]);
        done.add_row([
            "recovered messages of killed processes".to_owned(),
            self.recovery.messages.to_string(),
        ]);
        done.add_row([
            "recovered messages of living ones".to_owned(),
            self.recovery.of_the_living.to_string(),
        ]);
        println!("{}\n", done.trim_fmt());

        load::print(&self.promises);
        self.print_recovery();
        println!("order {:?}, random seed {}", self.order, self.random_seed);
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
