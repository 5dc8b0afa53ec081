//! Claims about the provider, each checked over real HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admin;
mod callers;
mod fault;
mod graph;
mod inbound;
mod message;
mod program;
mod script;
mod support;
