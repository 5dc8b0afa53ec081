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
//! - `mock`: the running provider, started and stopped; `serve`: its connections, cut where a fault says so; `socket`: one of
//!   them, and its client; `places`: how many there may be; `framing`: where a request ends (the gateway serves on these too)
//! - `http`: routes, bodies and refusals; `browser`: what web pages may not do (the gateway asks it too); `admin`: the routes that configure and observe
//! - `message`: one call of `POST /messages`; `ledger` and `stats`: what is remembered of it
//! - [`process`]: its environment, its log, its signals, in the gateway's own files
//! - `inbound`: `POST /simulate/inbound`; `webhook`: signed posts, repeated until they are taken
//!
//! Invariants: every random choice comes from the seed; no lock is held across an `await`; every task is
//! tracked and ends with the [`Mock`]; the secret and the texts are never logged; everything has a limit.

mod admin;
mod browser;
mod chance;
mod config;
mod fault;
mod framing;
mod http;
mod inbound;
mod ledger;
mod message;
mod mock;
mod places;
#[path = "../../src/process/mod.rs"]
pub mod process;
mod script;
mod serve;
mod socket;
mod stats;
mod webhook;

pub use browser::Hosts;
pub use config::{Behaviour, Config, ConfigError, Secret, listen_address};
pub use fault::Fault;
pub use framing::Ambiguous;
pub use http::is_plain;
pub use ledger::{Ledger, LedgerConversation, LedgerMessage};
pub use message::Channel;
pub use mock::{Mock, StartError};
pub use places::{Network, Place, Places};
pub use script::Script;
pub use serve::without_trailing_slash;
pub use socket::{IDLE, Peer, Socket, bound};
pub use stats::{FaultStats, Stats, WebhookStats};
