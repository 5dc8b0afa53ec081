//! The gateway from outside: the real program, a real PostgreSQL, the mock provider over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod api;
mod cli;
mod database;
mod delivery;
mod feed;
mod operation;
mod proof;
mod support;
mod whatsapp;
