//! The database of a subcommand: opened for its own time, or waited for by `serve` and `worker`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::timeout;

use crate::app::{App, Role};
use crate::config::{Database, DatabaseArgs};
use crate::database::Inspection;
use crate::database::migrate::DEFAULT_WAIT;
use crate::database::{self, embedded::Embedded, pool::Pool, target::Target};
use crate::error::fault::{self, Outage, Unavailable, Unfit};
use crate::error::{Causes, Error, Result, UsageError};
use crate::log_throttle::LogThrottle;
use crate::webhook;

/// How long `serve` and `worker` wait for the database and its migrations.
pub const WAIT: Duration = Duration::from_mins(1);
const NOT_READY: &str = "the database was not ready within 60 s";
const POLL: Duration = Duration::from_millis(200);

/// The connection limit that the configuration sets, if any; too low for this role is an error.
pub fn max_connections(args: &DatabaseArgs, role: Role) -> Result<Option<u32>, UsageError> {
    let least = role.least_connections();
    match args.max_connections() {
        Some(given) if given < least => Err(UsageError(format!(
            "DATABASE_MAX_CONNECTIONS is {given}, but this command needs at least {least}"
        ))),
        given => Ok(given),
    }
}

/// The database of one command, for as long as it runs.
pub struct CommandDatabase {
    pub target: Target,
    embedded: Option<Embedded>,
}

impl CommandDatabase {
    /// Opens the configured database. A private one is joined if it runs, else started.
    pub async fn open(args: &DatabaseArgs) -> anyhow::Result<Self> {
        max_connections(args, Role::Command)?;
        match args.database()? {
            Database::Given(target) => Ok(Self {
                target,
                embedded: None,
            }),
            Database::Embedded(directory) => {
                let embedded = Embedded::join_or_start(&directory).await?;
                Ok(Self {
                    target: embedded.private_options().into(),
                    embedded: Some(embedded),
                })
            }
        }
    }

    /// Whether it belongs to a `serve` that runs.
    pub fn is_joined(&self) -> bool {
        self.embedded.as_ref().is_some_and(Embedded::is_joined)
    }

    /// Applies what migrations it lacks.
    pub async fn migrate(&self) -> Result<Inspection> {
        inspection(&self.target, true, DEFAULT_WAIT).await
    }

    /// A private database is migrated if need be; any other one must have been.
    pub async fn require_migrated(&self) -> anyhow::Result<Inspection> {
        let is_private = self.embedded.is_some();
        let inspection = inspection(&self.target, is_private, DEFAULT_WAIT).await?;
        if inspection.pending > 0 {
            bail!("the database is not migrated: run gateway migrate");
        }
        Ok(inspection)
    }

    pub async fn close(self) -> anyhow::Result<()> {
        match self.embedded {
            Some(embedded) => Ok(embedded.stop().await?),
            None => Ok(()),
        }
    }
}

/// Looks at the database. If `may_migrate`, pending migrations are applied first: they wait up to
/// `wait` for locks, and then take the time that they need.
async fn inspection(target: &Target, may_migrate: bool, wait: Duration) -> Result<Inspection> {
    let mut inspection = database::inspect(target).await?;
    if may_migrate && inspection.pending > 0 {
        let applied = database::migrate_within(target, wait).await?;
        webhook::retention::make_months(&Pool::new(target.clone(), 1)).await?;
        tracing::info!(applied, "migrated the database");
        inspection.pending = 0;
    }
    Ok(inspection)
}

/// Waits until the database answers and is migrated, and migrates it itself if it may.
pub async fn wait_for_database(
    target: &Target,
    may_migrate: bool,
    deadline: Instant,
) -> anyhow::Result<Inspection> {
    let mut throttle = LogThrottle::default();
    let mut last_error;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match inspection(target, may_migrate, left).await {
            Ok(inspection) if inspection.pending == 0 => return Ok(inspection),
            Ok(Inspection { pending, .. }) => {
                last_error =
                    anyhow::anyhow!("{pending} migrations are not applied: run gateway migrate");
            }
            Err(Error::Unavailable(error)) if is_final(error.outage) => {
                return Err(error.into());
            }
            Err(error) => last_error = error.into(),
        }
        if Instant::now() >= deadline {
            return Err(last_error).context(NOT_READY);
        }
        let cause = Causes(&*last_error).to_string();
        if let Some(passed_over) = throttle.admit(&cause) {
            tracing::warn!(passed_over, "waiting for the database: {cause}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the writers have their connections, before anything else takes them.
pub async fn wait_for_writers(app: &App, deadline: Instant) -> anyhow::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let in_time = timeout(left, app.connected()).await.is_ok();
    match app.trouble() {
        // The inspection looks at one connection, and may have missed what a writer met.
        Some(trouble) if is_final(trouble.outage) => Err(trouble.into()),
        _ if in_time => Ok(()),
        trouble => Err(trouble.unwrap_or(Outage::NoAnswer.into())).context(NOT_READY),
    }
}

/// Whether waiting is of no use.
fn is_final(outage: Outage) -> bool {
    matches!(outage, Outage::Unfit | Outage::Pooler)
}

/// A pooler that the gateway cannot use is a wrong `DATABASE_URL`, and so a usage error.
pub fn pooler_as_usage_error(error: anyhow::Error) -> anyhow::Error {
    let message = error.chain().find_map(|error| {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            let unfit = fault::unfit(error).filter(Unfit::is_pooler);
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
    message.map_or(error, |message| UsageError(message).into())
}
