//! The program `gateway`: parses, runs, and tells by its exit code how it went.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use gateway::cli::Cli;
use gateway::config::UsageError;

fn main() -> ExitCode {
    let error = match Cli::parse().run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    // Nobody is left to be told that stderr is gone.
    writeln!(std::io::stderr(), "error: {error:#}").ok();
    if error.is::<UsageError>() {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}
