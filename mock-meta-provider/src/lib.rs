//! A messaging provider that misbehaves like the real ones, on purpose and reproducibly.
//!
//! It takes messages in (`POST /messages`), keeps a [`Ledger`] of what it delivered to whom, makes up
//! inbound events (`POST /simulate/inbound`) and posts them to a webhook. On the way it fails as told: at
//! random, by the rates of its [`Behaviour`], or exactly, by scripted [`Fault`]s.
//!
//! The modules in reading order, along a call's way:
//!
//! - `config`: what can be chosen; `chance`: every random choice, made from the seed
//! - `fault`: what can go wrong with a call; `script`: the faults that are set in advance
//! - `mock`: the running provider, started and stopped; `serve`: its connections, cut where a fault says so
//! - `http`: routes, bodies and refusals; `admin`: the routes that configure and observe
//! - `message`: one call of `POST /messages`; `ledger` and `stats`: what is remembered of it
//! - [`process`]: its environment, its log, its signals; [`edge`]: its connections: both are the gateway's own files
//! - `inbound`: `POST /simulate/inbound`; `webhook`: signed posts, repeated until they are taken
//!
//! Invariants: every random choice comes from the seed; no lock is held across an `await`; every task is
//! tracked and ends with the [`Mock`]; the secret and the texts are never logged; everything has a limit.

mod admin;
mod chance;
mod config;
#[path = "../../src/edge/mod.rs"]
pub mod edge;
mod fault;
mod http;
mod inbound;
mod ledger;
mod message;
mod mock;
#[path = "../../src/process/mod.rs"]
pub mod process;
mod script;
mod serve;
mod stats;
mod webhook;

pub use config::{Behaviour, Config, ConfigError, Secret};
pub use fault::Fault;
pub use ledger::{Ledger, LedgerConversation, LedgerMessage};
pub use message::Channel;
pub use mock::{Mock, StartError};
pub use script::Script;
pub use stats::{FaultStats, Stats, WebhookStats};
