//! The gateway from outside: the real program, a real PostgreSQL, the mock provider over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod ambiguity;
mod command_line;
mod containers;
mod embedded;
mod embedded_gateway;
mod errors;
mod fuzzing;
mod inbox;
mod invariants;
mod leases;
mod lifecycle;
mod logs;
mod manners;
mod model;
mod neighbours;
mod networks;
mod observability;
mod openapi;
mod operator;
mod order;
mod outages;
mod pacing;
mod reference;
mod retention;
mod retries;
mod secrecy;
mod security;
mod seed;
mod sending;
mod settings;
mod simulate;
mod support;
mod traces;
mod webhooks;
