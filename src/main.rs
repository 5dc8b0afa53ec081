//! The program `gateway`: parses the command line, runs it, and exits with 0, 1 for a failure or 2
//! for a usage error.

use std::process::ExitCode;

use gateway::cli::Cli;
use gateway::error::{Causes, UsageError};
use gateway::process::stderr;
use git_version::git_version;
use mimalloc::MiMalloc;

/// A request allocates much. This allocator is faster than the system's, and keeps less memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The version and the commit of the build. Without a repository, `GATEWAY_VERSION` may say it.
const VERSION: &str = git_version!(
    args = ["--always", "--abbrev=12", "--exclude=*"],
    prefix = concat!(env!("CARGO_PKG_VERSION"), " ("),
    suffix = ")",
    fallback = match option_env!("GATEWAY_VERSION") {
        Some(version) => version,
        None => env!("CARGO_PKG_VERSION"),
    }
);

fn main() -> ExitCode {
    let code = match Cli::parse_args(VERSION).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::line(&format!("error: {}", Causes(&*error)));
            if error.is::<UsageError>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    };
    stderr::finish();
    code
}
