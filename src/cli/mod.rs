//! The command line: one file a subcommand.

mod completions;
mod forget;
mod migrate;
mod output;
mod retry;
mod seed;
mod serve;
mod simulate;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Role};
use crate::config::{ClientArgs, Database, DatabaseArgs, RetentionArgs, TraceArgs, is_public};
use crate::database::connect::{self, Survey};
use crate::database::migrate::DEFAULT_WAIT;
use crate::database::{self, embedded::Embedded, pool::Pool, pooler, target::Target};
use crate::delivery::worker::Worker;
use crate::error::fault::{self, Outage, Unavailable, Unfit};
use crate::error::{Causes, Error, Result, UsageError};
use crate::http::auth::Secrets;
use crate::http::server::{Limits, MAX_CONNECTIONS, Server};
use crate::log_throttle::LogThrottle;
use crate::process::{environment, memory, signal};
use crate::provider::client::Client;
use crate::telemetry::{self, LogFormat};
use crate::trace;
use crate::webhook;

/// How long `serve` and `worker` wait for the database and its migrations.
const DATABASE_WAIT: Duration = Duration::from_mins(1);
const NOT_READY: &str = "the database was not ready within 60 s";
/// How long a command waits for its last spans; `serve` and `worker` have done so within their shutdown.
const TRACE_WAIT: Duration = Duration::from_secs(5);
const DATABASE_POLL: Duration = Duration::from_millis(200);
/// Files of a process for whatever it is not asked to do: the database, the logs, the runtime.
const OWN_FILES: usize = 64;

/// A messaging gateway between Meta-like channels and a customer inbox
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Try it: gateway serve, then open http://localhost:3000/api"
)]
pub struct Cli {
    /// How log lines look, on stderr; what is logged is in RUST_LOG (default: info; warn where a command ends by itself)
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

/// What each one does is said at its arguments.
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
    Completions(completions::Args),
}

impl Cli {
    /// What was asked for on the command line of a program of this version; ends the process where that is help, or nonsense.
    #[must_use]
    pub fn parse_args(version: &'static str) -> Self {
        let command = Self::command().version(version);
        environment::matches(&command, std::env::args_os())
            .and_then(|matches| Self::from_arg_matches(&matches))
            .unwrap_or_else(|error| error.exit())
    }

    /// Carries the command out.
    pub fn run(self) -> anyhow::Result<()> {
        let goes_on = matches!(self.command, Command::Serve(_) | Command::Worker(_));
        let default = if goes_on {
            telemetry::INFO
        } else {
            telemetry::WARN
        };
        let collector = self.trace.collector()?;
        let makes_attempts = goes_on || matches!(self.command, Command::Retry(_));
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
                    Command::Completions(args) => completions::run(&args),
                }
            };
            let done = tokio::select! {
                biased;
                // Nothing is finished then: the next statement could be anybody's.
                shared = pooler::shared() => return Err(UsageError(shared.to_string()).into()),
                done = work => done,
            };
            trace::stop(TRACE_WAIT).await;
            done
        });
        // What a shutdown has left to its leases must not hold the process.
        runtime.shutdown_background();
        done.map_err(blame)
    }
}

/// Cancelled by SIGTERM or Ctrl-C, for a process that goes on and so outlives its terminal.
fn stop_signal() -> std::io::Result<CancellationToken> {
    signal::outlive_terminal()?;
    signal::stop()
}

/// Shares the files that this process may open between its clients and its attempts, which must never starve together, having
/// raised the limit as far as that is needed and allowed.
fn client_limits(clients: &ClientArgs, attempts: usize) -> anyhow::Result<Limits> {
    // Twice: a connection that was replaced may not be closed yet, and a built-in mock has the other ends.
    let others = OWN_FILES.saturating_add(attempts.saturating_mul(2));
    let wanted = others.saturating_add(MAX_CONNECTIONS);
    let open_files = rlimit::increase_nofile_limit(u64::try_from(wanted)?)
        .context("the limit of open files could not be raised")?;
    let open_files = usize::try_from(open_files)?;
    let connections = MAX_CONNECTIONS.min(open_files.saturating_sub(others).max(open_files / 2));
    if connections < MAX_CONNECTIONS {
        tracing::warn!(
            open_files,
            connections,
            "the limit of open files allows fewer connections than usual"
        );
    }
    Ok(Limits {
        connections,
        client_timeout: clients.client_timeout(),
        proxies: clients.proxies(),
    })
}

/// Says what everybody who can connect may do, for want of secrets.
fn warn_when_open(secrets: &Secrets, server: &Server, role: Role) {
    let is_public = is_public(server.address().ip());
    let serves = role == Role::Serve;
    if is_public && !secrets.has_api_keys() {
        let what = if serves {
            "read and send messages"
        } else {
            "read the metrics"
        };
        tracing::warn!("API_KEYS is not set: everybody who can connect can {what}");
    }
    if serves && is_public && secrets.has_api_keys() {
        tracing::warn!(
            "HOST is public and this is plain http: keys and texts are in the clear, but for what a proxy with TLS in front carries"
        );
    }
    if serves && (is_public || secrets.has_api_keys()) && !secrets.has_webhook_secrets() {
        tracing::warn!("WEBHOOK_SECRET is not set: everybody who can connect can post webhooks");
    }
}

/// The most connections of a process with this role, where somebody has set it.
fn max_connections(args: &DatabaseArgs, role: Role) -> Result<Option<u32>, UsageError> {
    let least = role.least_connections();
    match args.max_connections() {
        Some(given) if given < least => Err(UsageError(format!(
            "DATABASE_MAX_CONNECTIONS is {given}, but this command needs at least {least}"
        ))),
        given => Ok(given),
    }
}

/// A database for the time of one command.
struct CommandDatabase {
    target: Target,
    embedded: Option<Embedded>,
}

impl CommandDatabase {
    /// The one that was asked for; a private one is joined where it runs, else started.
    async fn open(args: &DatabaseArgs) -> anyhow::Result<Self> {
        match args.database()? {
            Database::Given(target) => Ok(Self {
                target,
                embedded: None,
            }),
            Database::Embedded(directory) => {
                let embedded = Embedded::join_or_start(&directory).await?;
                Ok(Self {
                    target: embedded.own_options().into(),
                    embedded: Some(embedded),
                })
            }
        }
    }

    /// Whether it is one that a running `serve` owns.
    fn is_joined(&self) -> bool {
        self.embedded.as_ref().is_some_and(Embedded::is_joined)
    }

    async fn close(self) -> anyhow::Result<()> {
        match self.embedded {
            Some(embedded) => Ok(embedded.stop().await?),
            None => Ok(()),
        }
    }
}

/// Waits until the database answers and is migrated, applying the migrations itself if it may.
async fn wait_for_database(
    target: &Target,
    migrate: bool,
    deadline: Instant,
) -> anyhow::Result<Survey> {
    let mut throttle = LogThrottle::default();
    let mut seen;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match prepare_within(target, migrate, left).await {
            Ok(survey) if survey.pending == 0 => return Ok(survey),
            Ok(Survey { pending, .. }) => {
                seen = anyhow::anyhow!("{pending} migrations are not applied: run gateway migrate");
            }
            Err(Error::Unavailable(error)) if is_final(error.outage) => {
                return Err(error.into());
            }
            Err(error) => seen = error.into(),
        }
        if Instant::now() >= deadline {
            return Err(seen).context(NOT_READY);
        }
        let cause = Causes(&*seen).to_string();
        if let Some(passed_over) = throttle.admit(&cause) {
            tracing::warn!(passed_over, "waiting for the database: {cause}");
        }
        tokio::time::sleep(DATABASE_POLL).await;
    }
}

/// Whether waiting does not mend it.
fn is_final(outage: Outage) -> bool {
    matches!(outage, Outage::Unfit | Outage::Pooler)
}

/// A pooler that the gateway cannot use is the fault of `DATABASE_URL`, which must lead elsewhere.
fn blame(error: anyhow::Error) -> anyhow::Error {
    let said = error.chain().find_map(|error| {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            let unfit = fault::unfit(error).filter(Unfit::is_of_a_pooler);
            return unfit.map(|unfit| unfit.to_string());
        }
        let unavailable = match error.downcast_ref() {
            Some(Error::Unavailable(unavailable)) => unavailable,
            _ => error.downcast_ref::<Unavailable>()?,
        };
        let cause = unavailable.cause.as_ref();
        let cause = cause.filter(|_| unavailable.outage == Outage::Pooler);
        cause.map(ToString::to_string)
    });
    said.map_or(error, |said| UsageError(said).into())
}

/// Says once where customers' texts can be read on the way.
fn warn_of_clear_text(survey: &Survey, provider: &Client) {
    if survey.in_the_clear {
        tracing::warn!(
            "DATABASE_URL leads to another machine without TLS: customers' texts and the password's exchange are in the clear; sslmode=verify-full encrypts them"
        );
    }
    if provider.is_in_the_clear() {
        tracing::warn!(
            "PROVIDER_URL is http and leads to another machine: customers' texts are in the clear"
        );
    }
}

/// Waits until the writers have their connections, before anything else takes them.
async fn wait_for_writers(app: &App, deadline: Instant) -> anyhow::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let in_time = timeout(left, app.connected()).await.is_ok();
    match app.trouble() {
        // What the survey has missed.
        Some(trouble) if is_final(trouble.outage) => Err(trouble.into()),
        _ if in_time => Ok(()),
        trouble => Err(trouble.unwrap_or(Outage::NoAnswer.into())).context(NOT_READY),
    }
}

/// The same as [`prepare_within`], for a command.
async fn prepare(target: &Target, migrate: bool) -> Result<Survey> {
    prepare_within(target, migrate, DEFAULT_WAIT).await
}

/// What the database is like, after the migrations that it lacks were applied, if they may be. Those wait for others as long as `wait`,
/// but take the time that they need.
async fn prepare_within(target: &Target, migrate: bool, wait: Duration) -> Result<Survey> {
    let mut survey = connect::survey(target).await?;
    if migrate && survey.pending > 0 {
        let applied = database::migrate_within(target, wait).await?;
        webhook::retention::make_months(&Pool::new(target.clone(), 1)).await?;
        tracing::info!(applied, "migrated the database");
        survey.pending = 0;
    }
    Ok(survey)
}

/// Begins the work that needs no request: retries, and the end of what is too old.
fn begin_work(
    app: &Arc<App>,
    worker: Worker,
    retention: &RetentionArgs,
    stop: &CancellationToken,
    parts: &mut JoinSet<()>,
) {
    let tasks = app.courier.tasks.tracker();
    parts.spawn(tasks.track_future(worker.run(stop.clone())));
    let days = retention.webhook_body_days();
    let retention = webhook::retention::run(app.pool.clone(), days, stop.clone());
    parts.spawn(tasks.track_future(retention));
}

/// A writer or the worker ended although nobody stopped it: it panicked.
fn part_ended(ended: std::result::Result<(), tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow::anyhow!("a part of the engine ended by itself"),
        Err(error) => anyhow::Error::new(error).context("a part of the engine failed"),
    }
}

/// Finishes what runs; what takes longer is left to its leases.
async fn shut_down(app: Arc<App>, server: Option<Server>, limit: Duration) {
    let deadline = Instant::now() + limit;
    let tasks = app.courier.tasks.tracker();
    tasks.close();
    let finished = async {
        if let Some(server) = &server {
            server.drain().await;
        }
        tasks.wait().await;
    };
    if timeout(limit, finished).await.is_err() {
        tracing::warn!(
            tasks = tasks.len(),
            "not everything was finished in time, the rest is left to its leases"
        );
    }
    trace::stop(deadline.saturating_duration_since(Instant::now())).await;
    if let Some(server) = server {
        server.close();
    }
}
