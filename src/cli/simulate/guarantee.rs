//! What is promised, and how it stood the test. The proofs by crash and by failover (tests/load)
//! tell theirs by it, too.

use std::io;

use serde::Serialize;

use crate::cli::output;

/// Violations of a guarantee that are told; the others are only counted.
const TOLD: usize = 5;

/// A guarantee, and how it stood the test.
#[derive(Debug, Serialize)]
pub struct Guarantee {
    /// What is promised.
    pub promise: &'static str,
    /// What was tried.
    pub tried: String,
    /// What was observed.
    pub observed: String,
    /// Whether it was kept.
    pub held: bool,
    /// How often it was broken.
    pub broken: usize,
    /// The first violations.
    pub violations: Vec<String>,
}

impl Guarantee {
    /// One with all its violations.
    #[must_use]
    pub fn new(
        promise: &'static str,
        tried: String,
        observed: String,
        mut violations: Vec<String>,
    ) -> Self {
        let broken = violations.len();
        violations.truncate(TOLD);
        Self {
            promise,
            tried,
            observed,
            held: broken == 0,
            broken,
            violations,
        }
    }
}

/// Prints the table.
pub fn print(guarantees: &[Guarantee]) -> io::Result<()> {
    let rows = guarantees.iter().map(|guarantee| {
        let held = if guarantee.held { "held" } else { "BROKEN" };
        vec![
            guarantee.promise.to_owned(),
            guarantee.tried.clone(),
            guarantee.observed.clone(),
            held.to_owned(),
        ]
    });
    output::table(&["PROMISED", "TRIED", "OBSERVED", ""], rows)
}

/// Says which are broken, and how.
pub fn say_broken(guarantees: &[Guarantee]) {
    for guarantee in guarantees.iter().filter(|guarantee| !guarantee.held) {
        output::say(&format!(
            "broken {} times: {}",
            guarantee.broken, guarantee.promise
        ));
        for violation in &guarantee.violations {
            output::say(&format!("  {violation}"));
        }
    }
}
