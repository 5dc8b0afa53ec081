//! A messaging gateway between Meta-like channels and a customer inbox.
//!
//! It never loses or doubles an acknowledged event or message, and the inbox is never wrong, under
//! concurrency, crashes and a failing provider. [`guide`] is for those who run it.
//!
//! # The map
//!
//! Read it from the top down. A module imports only what stands below it, and a test reads the
//! imports: there is no circle, not even between two files.
//!
//! 1. [`cli`]: the command line, one file a subcommand. `simulate` is a folder, and tests all of
//!    this from outside.
//! 2. [`config`]: the settings. [`telemetry`]: logs and metrics.
//! 3. [`router`]: every route once. [`api_state`]: what the handlers share.
//! 4. [`app`]: assembles a gateway from its parts.
//! 5. [`operations`]: health, readiness, metrics.
//! 6. The features. [`feed`]: tells live what changes. [`inbox`]: the page for agents.
//!    [`webhook`]: events come in. [`conversation`]: the inbox. [`forget`]: a customer is
//!    forgotten. [`seed`]: made-up conversations. [`media`]: files of messages, passed on from the
//!    provider. [`message`]: messages go out.
//! 7. [`receipt`]: how far messages have come, as the provider tells, and what was accepted although
//!    the answer was lost. [`delivery`]: the lease, the attempt, the outcome, and the worker.
//! 8. [`provider`]: the only caller of the provider, and what its answers mean. [`channel`]: how
//!    fast each channel may be called.
//! 9. [`http`]: a toolkit for handlers that knows no feature. [`session`]: browsers that have logged
//!    in with a key. [`caller`]: who makes a request, and what that caller may see. [`share`]: limits
//!    how much of something one caller may hold.
//! 10. [`database`]: connections, migrations and faults; [`database::writer`] is the group commit of
//!     webhooks, sends and outcomes; [`database::embedded`] is the private PostgreSQL.
//! 11. [`tasks`], [`trace`], [`handles`], [`log_throttle`]. [`peer`]: URLs, proxies and
//!     certificates of whoever is called over HTTP.
//! 12. [`error`], [`id`]. [`json`]: repairs bodies that others wrote. [`edge`]: connections, and
//!     the check of Host and Origin. [`process`]: environment, signals, standard error. [`crash`]:
//!     where the proof by crash kills a process.
//!
//! The files of a feature have the same few roles: `mod.rs` has the nouns, `store.rs` the SQL (one
//! function, one statement), `http.rs` the handlers. A batch has the name of its metric:
//! `ingest.rs`, `enqueue.rs`, `settle.rs`. A verb of several steps has a file too, such as
//! `outbox.rs` or `service.rs`. Reads go from the handler to the store.
//!
//! # Invariants
//!
//! 1. SQL stands only in `store.rs` files. Nothing begins a transaction: one write is one
//!    statement. (Migrations, and what `gateway simulate` compares the gateway with, are
//!    exceptions.)
//! 2. Nothing holds a database connection while it calls the provider.
//! 3. Only the settling statements of `delivery::store` write `SENT` or `FAILED`. `SENT` is a fact:
//!    any attempt that the provider has accepted writes it, and only the first write counts.
//!    `FAILED` needs the token of the current lease.
//! 4. A 2xx answer to a write means that the write is committed.
//! 5. HTTP status codes stand only in `http/` and `http.rs` files. Only `cli/output.rs` prints, and
//!    [`process::stderr`] on standard error.
//! 6. Attempts and batches run in tracked tasks, never in a request's future, and shutdown waits
//!    for them. If an attempt panics, it has failed as `internal`. If a writer or the worker
//!    panics, the process ends with an error.
//! 7. Everything has a limit: queues, bodies, batches, attempts, pages, waits, statements.

pub mod cli;

pub mod config;
pub(crate) mod telemetry;

pub(crate) mod api_state;
pub(crate) mod router;

pub mod app;

pub(crate) mod operations;

pub(crate) mod conversation;
pub(crate) mod feed;
pub(crate) mod forget;
pub(crate) mod inbox;
pub(crate) mod media;
pub mod message;
pub(crate) mod receipt;
pub(crate) mod seed;
pub mod webhook;

pub mod cursor;
pub mod delivery;

pub(crate) mod alias;
pub(crate) mod amendment;

pub mod channel;
pub mod provider;

pub mod http;
pub(crate) mod session;

pub(crate) mod caller;
pub(crate) mod share;

pub mod database;

pub(crate) mod handles;
pub(crate) mod log_throttle;
pub(crate) mod peer;
pub(crate) mod tasks;
pub(crate) mod trace;

pub mod crash;
pub mod edge;
pub mod error;
pub(crate) mod id;
pub(crate) mod json;
pub mod process;

#[cfg(doc)]
pub mod guide;
