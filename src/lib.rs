//! A messaging gateway between Meta-like channels and a customer inbox.
//!
//! Under concurrency, crashes and a hostile provider, no acknowledged event or message is ever lost, none is doubled, and the
//! inbox is never wrong. [`guide`] is for whoever runs it.
//!
//! # The map
//!
//! A feature is a folder with the same few roles: `mod.rs` the nouns, `store.rs` the SQL (one function, one statement),
//! `service.rs` the verbs that need more than one step, `http.rs` wire types and handlers. Reads go handler → store, writes
//! handler → service → store.
//!
//! - [`webhook`]: events come in. [`message`]: messages go out. [`conversation`]: the inbox.
//! - [`delivery`]: a lease, an attempt, a settlement: the only road to `SENT` or `FAILED`; and the worker.
//! - [`forget`]: a customer who is to be forgotten.
//! - [`provider`]: what the provider's answers mean, and its only caller. [`pace`]: how fast it may be called.
//!   [`peer`]: which URLs, proxies and certificates are for whoever is called over HTTP.
//! - [`database`]: connections to a [`database::target`], each of which passes [`database::connect`], faults, migrations; [`database::batch`] is the group
//!   commit that webhooks, sends and settlements share; [`database::embedded`] is the private PostgreSQL.
//! - [`http`]: the router, and what every request passes through. [`cli`]: one file a subcommand, but a folder for `simulate`,
//!   which tries all of this out from the outside.
//! - [`caller`]: who asks, and what that one may see. [`share`]: places of which nobody holds more than a share.
//! - [`app`]: what a running gateway is made of. [`config`]: its settings, for which [`process`] reads the environment; signals and
//!   standard error too. [`error`]: what can go wrong, [`throttle`]: and how often that is said. [`telemetry`]: logs, metrics.
//!   [`trace`]: traces. [`json`]: bodies that others wrote, repaired. [`crash`]: where the proof by crash kills a process.
//!
//! # Invariants
//!
//! 1. SQL only in `store.rs` files, and no transaction that outlives a statement: there is no `begin`, but in what `gateway simulate`
//!    compares the gateway with.
//! 2. No database connection is held while the provider is called.
//! 3. Only `delivery::store`'s settling statements write `SENT` or `FAILED`. `SENT` is a fact that whoever learns it may write,
//!    once; `FAILED` needs the current token.
//! 4. An HTTP 2xx on a write means committed.
//! 5. Status codes only in `http/` and `*/http.rs`; printing only in `cli/output.rs`, and on standard error by [`process::stderr`].
//! 6. Work that must not be cut short (attempt, settle, batch) runs in a tracked task, never inside a request's future;
//!    shutdown waits for those tasks. A panic in an attempt is settled as `internal`; one in a writer or in the worker's loop
//!    ends the process with an error: it never leaves a silent half.
//! 7. Everything has a limit: queues, bodies, batches, attempts, pages, waits, statements.

pub(crate) mod api_state;
pub mod app;
pub(crate) mod caller;
pub mod channel;
pub mod cli;
pub mod config;
pub(crate) mod conversation;
pub mod crash;
pub mod cursor;
pub mod database;
pub mod delivery;
pub mod edge;
pub mod error;
pub(crate) mod forget;
#[cfg(doc)]
pub mod guide;
pub(crate) mod handles;
pub mod http;
pub(crate) mod id;
pub(crate) mod json;
pub(crate) mod log_throttle;
pub mod message;
pub(crate) mod operations;
pub(crate) mod peer;
pub mod process;
pub(crate) mod provider;
pub(crate) mod router;
pub(crate) mod seed;
pub(crate) mod share;
pub(crate) mod tasks;
pub(crate) mod telemetry;
pub(crate) mod trace;
pub mod webhook;
