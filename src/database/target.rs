//! Where the database is: one server, or several of which the writable one is used.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::gauge;
use sqlx::postgres::PgConnectOptions;

/// The connection's name in `pg_stat_activity`, unless the URL gives one.
const APPLICATION_NAME: &str = "gateway";

/// How to connect to a database on one or several servers. Clones share which server was used last.
#[derive(Clone)]
pub struct Target {
    servers: Arc<[PgConnectOptions]>,
    /// Whether a server that cannot be written to is good enough.
    only_reads: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The server that was used last.
    latest: AtomicUsize,
    /// The risky settings that were logged last.
    at_risk: Mutex<String>,
}

impl From<PgConnectOptions> for Target {
    fn from(server: PgConnectOptions) -> Self {
        Self::new(vec![server])
    }
}

impl Target {
    /// The servers of one database, in the order in which they are tried.
    #[must_use]
    pub fn new(servers: Vec<PgConnectOptions>) -> Self {
        let named = servers
            .into_iter()
            .map(|server| match server.get_application_name() {
                Some(_) => server,
                None => server.application_name(APPLICATION_NAME),
            });
        Self {
            servers: named.collect(),
            only_reads: false,
            shared: Arc::default(),
        }
    }

    /// The same servers with other options.
    #[must_use]
    pub fn map(self, change: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Self {
        let servers = self.servers.iter().cloned().map(change).collect();
        Self { servers, ..self }
    }

    /// For what only reads: a server that can be written to, or else one that cannot.
    #[must_use]
    pub fn for_reading(self) -> Self {
        Self {
            only_reads: true,
            ..self
        }
    }

    /// Whether a server that cannot be written to is good enough.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.only_reads
    }

    /// All servers, as they were given.
    #[must_use]
    pub fn servers(&self) -> &[PgConnectOptions] {
        &self.servers
    }

    /// All servers with their places, beginning with the one that was used last.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &PgConnectOptions)> {
        let first = self.shared.latest.load(Ordering::Relaxed);
        let (before, from) = self
            .servers
            .split_at_checked(first)
            .unwrap_or((&[], &self.servers));
        (first..).zip(from).chain((0..).zip(before))
    }

    /// Remembers the server that was used.
    pub(super) fn keep(&self, place: usize) {
        self.shared.latest.store(place, Ordering::Relaxed);
    }

    /// Logs which settings of the server put commits at risk: once, and when that changes.
    pub(super) fn note_risk(&self, at_risk: &str) {
        let is_durable = at_risk.is_empty();
        gauge!("gateway_database_durable").set(if is_durable { 1.0 } else { 0.0 });
        let mut said = self
            .shared
            .at_risk
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *said == at_risk {
            return;
        }
        at_risk.clone_into(&mut said);
        if is_durable {
            tracing::info!("the database's fsync and full_page_writes are on again");
        } else {
            tracing::warn!(
                off = at_risk,
                "what is acknowledged may be lost when the database's machine fails: a setting is off, and should be on unless its storage needs none"
            );
        }
    }
}

/// A server's name in messages.
pub(super) fn name(server: &PgConnectOptions) -> String {
    let host = server.get_host();
    match server.get_socket() {
        Some(directory) => directory.display().to_string(),
        None if host.starts_with('/') => host.to_owned(),
        None if host.contains(':') => format!("[{host}]:{}", server.get_port()),
        None => format!("{host}:{}", server.get_port()),
    }
}
