//! A messaging gateway between Meta-like channels and a customer inbox.

pub mod app;
pub mod cli;
pub mod config;
pub mod conversation;
pub mod database;
pub mod delivery;
pub mod error;
pub mod http;
mod id;
pub mod message;
pub mod provider;
pub mod telemetry;
pub mod webhook;
