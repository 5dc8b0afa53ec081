//! The command line: one file a subcommand.
//!
//! `process` is what `serve` and `worker` share, `database` what all that need one share, and
//! `output` is the only printing.

mod completions;
mod database;
mod forget;
mod healthcheck;
mod migrate;
mod output;
mod process;
mod retry;
mod seed;
mod serve;
mod simulate;
mod worker;

// For the proofs by crash and by failover.
pub use output::table;
pub use simulate::{guarantee, listener, repeat};

use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::TraceArgs;
use crate::database::pooler;
use crate::error::UsageError;
use crate::process::{environment, memory};
use crate::telemetry::{self, LogFormat};
use crate::trace;

/// How long a command waits for its last spans. `serve` and `worker` have sent theirs by then.
const TRACE_WAIT: Duration = Duration::from_secs(5);

/// A messaging gateway between Meta-like channels and a customer inbox
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Try it: gateway serve, then open http://localhost:3000/api"
)]
pub struct Cli {
    /// The form of log lines, on stderr. RUST_LOG says what is logged [default: info for serve and
    /// worker, warn for the others]
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_enum,
        default_value = "text",
        global = true,
        display_order = 1000
    )]
    log_format: LogFormat,
    #[command(flatten)]
    trace: TraceArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Worker(Box<worker::Args>),
    Migrate(migrate::Args),
    Seed(seed::Args),
    Retry(Box<retry::Args>),
    Forget(forget::Args),
    Simulate(simulate::Args),
    #[command(hide = true)]
    Baseline(simulate::baseline::Args),
    #[command(hide = true)]
    Healthcheck(healthcheck::Args),
    #[command(hide = true)]
    Completions(completions::Args),
}

impl Cli {
    /// Parses the command line of a program of this version. Ends the process after help or an
    /// error.
    #[must_use]
    pub fn parse_args(version: &'static str) -> Self {
        let command = Self::command().version(version);
        environment::matches(&command, std::env::args_os())
            .and_then(|matches| Self::from_arg_matches(&matches))
            .unwrap_or_else(|error| error.exit())
    }

    pub fn run(self) -> anyhow::Result<()> {
        let is_service = matches!(self.command, Command::Serve(_) | Command::Worker(_));
        let default = if is_service {
            telemetry::INFO
        } else {
            telemetry::WARN
        };
        let collector = self.trace.collector()?;
        let makes_attempts = is_service || matches!(self.command, Command::Retry(_));
        telemetry::log(
            self.log_format,
            default,
            collector.as_ref().filter(|_| makes_attempts),
        )?;
        self.trace.warn_of_unknown_exporters();
        if let Err(error) = memory::keep_private() {
            tracing::warn!(%error, "a core dump of this process would have secrets and texts in it");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let done = runtime.block_on(async {
            let work = async {
                match self.command {
                    Command::Serve(args) => serve::run(*args).await,
                    Command::Worker(args) => worker::run(*args).await,
                    Command::Migrate(args) => migrate::run(args).await,
                    Command::Seed(args) => seed::run(args).await,
                    Command::Retry(args) => retry::run(*args).await,
                    Command::Forget(args) => forget::run(args).await,
                    Command::Simulate(args) => simulate::run(args).await,
                    Command::Baseline(args) => simulate::baseline::run(args).await,
                    Command::Healthcheck(args) => healthcheck::run(&args).await,
                    Command::Completions(args) => completions::run(&args, Self::command()),
                }
            };
            let done = tokio::select! {
                biased;
                // Nothing is finished then: the next statement could run in another's session.
                shared = pooler::shared_session() => return Err(UsageError(shared.to_string()).into()),
                done = work => done,
            };
            trace::stop(TRACE_WAIT).await;
            done
        });
        // Attempts that a shutdown has left to their leases must not hold the process.
        runtime.shutdown_background();
        done.map_err(database::pooler_as_usage_error)
    }
}
