//! What happened and how long nobody was served, as a table or as JSON.

use gateway::cli;
use gateway::cli::guarantee::{self, Guarantee};
use serde::Serialize;

use crate::load::{self, Order};
use crate::measure::Each;
use crate::scenario::Scenario;
use crate::{GOAL, Options, Way};

/// What happened to the database.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Struck {
    pub scenario: Scenario,
    /// The longest time without a success.
    pub seconds_without: Each<f64>,
    /// From the moment since when service could be back until all of it was; none: it never was.
    pub seconds_until_back: Option<f64>,
}

impl Struck {
    fn is_in_time(&self) -> bool {
        self.seconds_until_back
            .is_some_and(|seconds| seconds <= GOAL.as_secs_f64())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    held: bool,
    random_seed: u64,
    order: Order,
    way: Way,
    struck: Vec<Struck>,
    /// Faults after which service was not back in time; they break no promise.
    late: usize,
    /// Reads that a server had answered that was primary no more.
    stale_reads: u64,
    promises: Vec<Guarantee>,
}

impl Report {
    pub fn new(
        options: &Options,
        way: Way,
        struck: Vec<Struck>,
        stale_reads: u64,
        promises: Vec<Guarantee>,
    ) -> Self {
        Self {
            held: promises.iter().all(|row| row.held),
            random_seed: options.random_seed,
            order: options.order,
            way,
            late: struck.iter().filter(|one| !one.is_in_time()).count(),
            struck,
            stale_reads,
            promises,
        }
    }
}

impl load::Report for Report {
    fn held(&self) -> bool {
        self.held
    }

    fn print(&self) {
        let done = self.struck.iter().map(|one| {
            let Each {
                webhooks,
                sends,
                reads,
            } = one.seconds_without;
            let back = one.seconds_until_back;
            vec![
                one.scenario.name().to_owned(),
                format!("{webhooks:.1}"),
                format!("{sends:.1}"),
                format!("{reads:.1}"),
                back.map_or_else(|| "never".to_owned(), |back| format!("{back:.1}")),
                (if one.is_in_time() { "held" } else { "missed" }).to_owned(),
            ]
        });
        let headers = [
            "SECONDS WITHOUT",
            "WEBHOOKS",
            "SENDS",
            "READS",
            "BACK AFTER",
            "GOAL 5 S",
        ];
        cli::table(&headers, done).unwrap();
        println!();
        guarantee::print(&self.promises).unwrap();
        println!();
        guarantee::say_broken(&self.promises);
        if self.stale_reads > 0 {
            println!(
                "reads that a former primary answered, on connections that were kept: {}",
                self.stale_reads
            );
        }
        println!(
            "through {}, order {:?}, random seed {}",
            self.way.name(),
            self.order,
            self.random_seed
        );
    }
}
