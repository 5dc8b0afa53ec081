//! Where the database is: one server, or several of which the one is used that can be written to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::gauge;
use sqlx::postgres::PgConnectOptions;

/// What a connection is called in `pg_stat_activity`, unless somebody has named it.
const APPLICATION_NAME: &str = "gateway";

/// How to connect to a database that is on one server or on several. Clones know of each other which server was the last that would
/// do.
#[derive(Clone)]
pub struct Target {
    servers: Arc<[PgConnectOptions]>,
    /// Whether one that cannot be written to will do.
    only_reads: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The server that would do last.
    latest: AtomicUsize,
    /// What was last said of the settings that put what is committed at risk.
    at_risk: Mutex<String>,
}

impl From<PgConnectOptions> for Target {
    fn from(server: PgConnectOptions) -> Self {
        Self::new(vec![server])
    }
}

impl Target {
    /// These servers of one database, in the order in which they are tried.
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

    /// Whether a server that cannot be written to will do.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.only_reads
    }

    /// All servers, as they were given.
    #[must_use]
    pub fn servers(&self) -> &[PgConnectOptions] {
        &self.servers
    }

    /// All servers with their places, first the one that would do last.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &PgConnectOptions)> {
        let first = self.shared.latest.load(Ordering::Relaxed);
        let (before, from) = self
            .servers
            .split_at_checked(first)
            .unwrap_or((&[], &self.servers));
        (first..).zip(from).chain((0..).zip(before))
    }

    /// The server at this place would do.
    pub(super) fn keep(&self, place: usize) {
        self.shared.latest.store(place, Ordering::Relaxed);
    }

    /// Says that these settings of the server, where there are any, put at risk what is committed: once, and when it changes.
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

/// What a server is called in messages.
pub(super) fn name(server: &PgConnectOptions) -> String {
    let host = server.get_host();
    match server.get_socket() {
        Some(directory) => directory.display().to_string(),
        None if host.starts_with('/') => host.to_owned(),
        None if host.contains(':') => format!("[{host}]:{}", server.get_port()),
        None => format!("{host}:{}", server.get_port()),
    }
}
