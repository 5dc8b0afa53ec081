//! The migrations: which of them a database lacks, and how they are applied. Waiting for others has
//! a limit, and is logged; a migration's own work has none.

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

/// How long to wait for others in all: for their locks, or for a standby.
pub const DEFAULT_WAIT: Duration = Duration::from_mins(1);
/// How long to wait for a lock at a time, and how long to let others pass in between: everybody who
/// wants that table queues behind a waiting migration.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_secs(2);
/// How often to check what a migration waits for, and how long it may wait before that is logged.
const CHECK_EVERY: Duration = Duration::from_millis(250);
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

/// Applies the migrations that the database lacks, and returns how many. Several processes may do
/// so at once. If none is lacking, nothing is written, and no right to change the schema is needed.
pub async fn migrate(target: &Target) -> Result<usize> {
    migrate_within(target, DEFAULT_WAIT).await
}

/// The same, waiting at most this long for others.
pub async fn migrate_within(target: &Target, wait_for_others: Duration) -> Result<usize> {
    let mut watch = Watch::new(target, wait_for_others);
    loop {
        if let Some(applied) = attempt(target, &mut watch).await? {
            return Ok(applied);
        }
        sleep(LOCK_PAUSE).await;
    }
}

/// One try. None: it gave up waiting for a lock, and may try again.
async fn attempt(target: &Target, watch: &mut Watch) -> Result<Option<usize>> {
    let (mut connection, _) = connect::connect(target, Limits::None, &[]).await?;
    let lacking = pending(&migrations(&mut connection).await?);
    if lacking == 0 {
        connection.close().await?;
        return Ok(Some(0));
    }
    // 0 would mean no limit.
    let hold = LOCK_WAIT
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

/// How many of them the database lacks.
#[must_use]
pub fn pending(migrations: &[Migration]) -> usize {
    let applied = migrations.iter().filter(|migration| migration.applied);
    migrations.len() - applied.count()
}

impl Wait {
    fn is_for_a_standby(&self) -> bool {
        self.event.as_deref() == Some("SyncRep")
    }

    /// What is waited for, as a sentence says it. None: it is working.
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

/// Watches a migration through a second connection: logs what it waits for, and limits that.
struct Watch {
    target: Target,
    wait_for_others: Duration,
    connection: Option<PgConnection>,
    throttle: LogThrottle,
    /// The migration that waited last, and for what.
    last: Option<(String, String)>,
    /// Since when others have been in the way.
    since: Option<Instant>,
    /// Since when a commit has waited for a standby.
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

    /// Returns when a commit has waited too long for a standby. It holds locks that others wait
    /// for, so the server ends its process.
    async fn follow(&mut self, process: i32) -> Unmigrated {
        loop {
            sleep(CHECK_EVERY).await;
            // If this fails, the limit of locks still holds.
            let Some(wait) = self.find_wait(process).await else {
                continue;
            };
            if !wait.is_for_a_standby() {
                self.committed = None;
            }
            let Some(what) = wait.what() else { continue };
            self.log(&what);
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

    async fn find_wait(&mut self, process: i32) -> Option<Wait> {
        let found = timeout(CONNECT_TIMEOUT + STATEMENT_TIMEOUT, async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => connect::connect(&self.target, Limits::Ours, &[]).await?.0,
            };
            let wait = store::find_wait(&mut connection, process).await?;
            let which = migrations(&mut connection).await?;
            self.connection = Some(connection);
            Ok::<_, sqlx::Error>((wait, which))
        });
        let (wait, migrations) = match found.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot tell what the migration waits for");
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

    /// Logs only what takes long, and then at growing intervals.
    fn log(&mut self, what: &str) {
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
            tracing::warn!(%error, process, "could not end the migration's server process");
        }
    }

    /// Decides whether to try again: only if somebody else holds a lock and there is time left.
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
