//! A messaging provider that misbehaves like the real ones, on purpose and reproducibly.
//!
//! It accepts messages (`POST /messages`), keeps a [`Ledger`] of what it delivered to whom, makes
//! up inbound events (`POST /simulate/inbound`), and posts them to a webhook. It fails as
//! configured: at random, by the rates of its [`Behaviour`], or exactly, by scripted [`Fault`]s.
//! Beside that wire of its own it speaks WhatsApp's, as Meta's Graph API has it (`graph`).
//!
//! The modules from the top down; each imports only what stands below it:
//!
//! - `mock`: starts and stops the provider; `serve`: its connections; `router`: every route once
//! - `router_fallback`: what is answered where there is none
//! - `message`: `POST /messages`; `inbound`: `POST /simulate/inbound`; `admin`: the other routes
//! - `graph`: the same for WhatsApp, in modules of its own
//! - `call`: how a call comes in, is answered, or is not; `post`: one event on its way
//! - `app`: what handlers and tasks share
//! - `webhook`: clients, allowed URLs, the signature; `ledger`, `stats`: what has happened
//! - `chance`: every random choice; `script`: faults set in advance; `fault`: what can go wrong
//! - `wire`: the provider's messages and events; `body`, `answer`: HTTP requests and answers
//! - `config`, `behaviour`, `webhook_url`, `bounds`, `error`: what can be configured
//! - [`edge`], [`process`]: connections, environment, log and signals, compiled from the gateway's
//!   own files
//!
//! Invariants: every random choice comes from the seed; no lock is held across an `await`; every
//! task ends with the [`Mock`]; secrets and texts are never logged; everything has a limit.

mod admin;
mod answer;
mod app;
mod behaviour;
mod body;
mod bounds;
mod call;
mod chance;
mod config;
#[path = "../../src/edge/mod.rs"]
pub mod edge;
mod error;
mod fault;
mod graph;
mod inbound;
mod ledger;
mod message;
mod mock;
mod post;
#[path = "../../src/process/mod.rs"]
pub mod process;
mod router;
mod router_fallback;
mod script;
mod serve;
mod stats;
mod webhook;
mod webhook_url;
mod wire;

pub use behaviour::Behaviour;
pub use config::Config;
pub use error::{ConfigError, StartError};
pub use fault::Fault;
pub use graph::behaviour::{Codes, WhatsappBehaviour};
pub use graph::settings::Whatsapp;
pub use ledger::{Ledger, LedgerConversation, LedgerMessage, LedgerSend};
pub use mock::Mock;
pub use script::Script;
pub use stats::{FaultStats, Stats, WebhookStats, WhatsappStats};
pub use wire::Channel;
