//! Bad neighbours: whatever they do, the gateway's memory is bounded, it says what is wrong, and
//! afterwards it is in full service.

mod clients;
mod databases;
mod providers;
mod strangers;

use crate::support::Program;

/// That a program's memory never grows by more than this.
struct Bounded<'a> {
    program: &'a Program,
    at_most_mib: u64,
}

impl<'a> Bounded<'a> {
    fn to(growth_mib: u64, program: &'a Program) -> Self {
        Self {
            program,
            at_most_mib: program.peak_memory_mib() + growth_mib,
        }
    }

    #[track_caller]
    fn check(&self) {
        let peak = self.program.peak_memory_mib();
        assert!(
            peak <= self.at_most_mib,
            "{peak} MiB, more than {} MiB",
            self.at_most_mib
        );
    }
}
