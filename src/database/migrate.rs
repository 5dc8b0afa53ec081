//! The migrations: which of them a database lacks, and how they are applied. What they wait for is limited, and said; their own work is not.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use sqlx::migrate::MigrateError;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use super::apply;
use super::connect::{self, Limits, limited};
use super::limits::{CONNECT_TIMEOUT, STATEMENT_TIMEOUT};
use super::store::{self, Wait};
use super::target::Target;
use crate::error::Result;
use crate::error::Unmigrated;
use crate::error::fault::{Fault, Outage, fault};
use crate::log_throttle::LogThrottle;

/// How long is waited for others in all: for what they hold, or for a standby.
pub const DEFAULT_WAIT: Duration = Duration::from_mins(1);
/// How long is waited for a lock at a time, and how long not: whoever else wants that table waits behind a migration that waits.
const HOLD: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(2);
/// How often is looked whether a migration waits, and after how long it is said.
const LOOK: Duration = Duration::from_millis(250);
const SILENCE: Duration = Duration::from_secs(1);

/// One migration that this binary knows.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration {} ({})", self.version, self.description)
    }
}

/// Applies the migrations that the database lacks, and returns how many those were. Safe beside others that do the same. Where none
/// is lacking, nothing is written, and no right to change the schema needed.
pub async fn migrate(target: &Target) -> Result<usize> {
    migrate_within(target, DEFAULT_WAIT).await
}

/// The same, waiting at most so long for others.
pub async fn migrate_within(target: &Target, wait_for_others: Duration) -> Result<usize> {
    let mut watch = Watch::new(target, wait_for_others);
    loop {
        if let Some(applied) = attempt(target, &mut watch).await? {
            return Ok(applied);
        }
        sleep(REST).await;
    }
}

/// One try; none, where it has waited for a lock in vain, and may again.
async fn attempt(target: &Target, watch: &mut Watch) -> Result<Option<usize>> {
    let (mut connection, _) = connect::connect(target, Limits::None, &[]).await?;
    let lacking = pending(&migrations(&mut connection).await?);
    if lacking == 0 {
        connection.close().await?;
        return Ok(Some(0));
    }
    // 0 would be no limit.
    let hold = HOLD
        .min(watch.wait_for_others)
        .max(Duration::from_millis(1));
    store::set_lock_timeout(&mut connection, hold).await?;
    let process = store::backend_pid(&mut connection).await?;
    let migrator = sqlx::migrate!();
    let applied = tokio::select! {
        applied = apply::apply(&mut connection, &migrator) => applied,
        waited = watch.follow(process) => return Err(waited.into()),
    };
    if let Err(error) = applied {
        watch.judge(error, lacking)?;
        return Ok(None);
    }
    let left = pending(&migrations(&mut connection).await?);
    connection.close().await?;
    Ok(Some(lacking - left))
}

/// The migrations that this binary knows, and which of them the database has.
pub async fn migrations(connection: &mut PgConnection) -> sqlx::Result<Vec<Migration>> {
    let applied: HashSet<i64> = store::applied_migrations(connection).await?;
    Ok(sqlx::migrate!()
        .iter()
        .map(|migration| Migration {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect())
}

/// How many of them it lacks.
#[must_use]
pub fn pending(migrations: &[Migration]) -> usize {
    let applied = migrations.iter().filter(|migration| migration.applied);
    migrations.len() - applied.count()
}

impl Wait {
    fn is_for_a_standby(&self) -> bool {
        self.event.as_deref() == Some("SyncRep")
    }

    /// As a sentence has it; none, when it works.
    fn what(&self) -> Option<String> {
        if self.is_for_a_standby() {
            return Some(format!(
                "waits for a synchronous standby to confirm what is committed on this server (synchronous_standby_names is '{}')",
                self.standbys
            ));
        }
        if self.kind.as_deref() != Some("Lock") {
            return None;
        }
        let holders = self.holders.join(" and ");
        Some(if self.event.as_deref() == Some("advisory") {
            format!("waits for another migration: {holders}")
        } else {
            format!("waits for a lock that others hold: {holders}")
        })
    }
}

/// Looks at a migration through a connection of its own: what it waits for is said, and limited.
struct Watch {
    target: Target,
    wait_for_others: Duration,
    connection: Option<PgConnection>,
    throttle: LogThrottle,
    /// What was waited for last, and by which one.
    last: Option<(String, String)>,
    /// Since when others have been in the way.
    since: Option<Instant>,
    /// Since when a commit waits.
    committed: Option<Instant>,
}

impl Watch {
    fn new(target: &Target, wait_for_others: Duration) -> Self {
        Self {
            target: limited(target.clone()),
            wait_for_others,
            connection: None,
            throttle: LogThrottle::default(),
            last: None,
            since: None,
            committed: None,
        }
    }

    /// Until a commit has waited for too long. What is in the way of that must not hold up others for ever: the server ends the process.
    async fn follow(&mut self, process: i32) -> Unmigrated {
        loop {
            sleep(LOOK).await;
            // Without a look the limit of locks holds all the same.
            let Some(wait) = self.look(process).await else {
                continue;
            };
            if !wait.is_for_a_standby() {
                self.committed = None;
            }
            let Some(what) = wait.what() else { continue };
            self.say(&what);
            if !wait.is_for_a_standby() {
                continue;
            }
            let waited = self.committed.get_or_insert_with(Instant::now).elapsed();
            if waited >= self.wait_for_others {
                self.end(process).await;
                return self.waited(waited);
            }
        }
    }

    async fn look(&mut self, process: i32) -> Option<Wait> {
        let looked = timeout(CONNECT_TIMEOUT + STATEMENT_TIMEOUT, async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => connect::connect(&self.target, Limits::Ours, &[]).await?.0,
            };
            let wait = store::find_wait(&mut connection, process).await?;
            let which = migrations(&mut connection).await?;
            self.connection = Some(connection);
            Ok::<_, sqlx::Error>((wait, which))
        });
        let (wait, migrations) = match looked.await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::debug!(%error, "nobody sees what the migration waits for");
                return None;
            }
            Err(_) => return None,
        };
        let wait = wait?;
        let which = migrations.iter().find(|migration| !migration.applied);
        let which = which.map_or_else(|| "the last migration".to_owned(), ToString::to_string);
        if let Some(what) = wait.what() {
            self.last = Some((which, what));
        }
        Some(wait)
    }

    /// At first only when it takes long, then at growing intervals.
    fn say(&mut self, what: &str) {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        let which = self.last.as_ref().map(|(which, _)| which.as_str());
        let which = which.unwrap_or("a migration");
        if waited >= SILENCE && self.throttle.admit(&format!("{which} {what}")).is_some() {
            let seconds = waited.as_secs();
            tracing::warn!(seconds, "{which} {what}");
        }
    }

    async fn end(&mut self, process: i32) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Err(error) = store::end_process(connection, process).await {
            tracing::warn!(%error, process, "the server goes on with the migration's process");
        }
    }

    /// What an error means: nothing yet, where somebody else holds a lock, and there is time left.
    fn judge(
        &mut self,
        error: MigrateError,
        lacking: usize,
    ) -> std::result::Result<(), Unmigrated> {
        let fault = match &error {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => fault(cause),
            _ => return Err(Unmigrated::Failed(error)),
        };
        match fault {
            Fault::Locked => {
                let waited = self.since.get_or_insert_with(Instant::now).elapsed();
                if waited < self.wait_for_others {
                    Ok(())
                } else {
                    Err(self.waited(waited))
                }
            }
            Fault::Away(Outage::Forbidden) => Err(Unmigrated::Forbidden(lacking, error)),
            _ => Err(Unmigrated::Failed(error)),
        }
    }

    fn waited(&mut self, waited: Duration) -> Unmigrated {
        let unseen = || {
            (
                "a migration".to_owned(),
                "waits for a lock that others hold".to_owned(),
            )
        };
        let (which, what) = self.last.take().unwrap_or_else(unseen);
        Unmigrated::Waited {
            which,
            what,
            waited,
        }
    }
}
