//! The page in a real browser: what people do there, what they see, and what happens to both when
//! something breaks.
//!
//! `stage` is what a test plays on, `page` what a person does in a browser, `gate` what stands
//! between that and the gateway, `chromium` the browser. Nothing sleeps: a test waits for what it
//! wants to see. After each test the console must be empty, and nothing may have been forbidden by
//! the page's policy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod access;
mod axe;
mod chromium;
mod cloud;
mod connection;
mod drafts;
mod files;
mod gate;
mod harness;
mod hostile;
mod layout;
mod list;
mod login;
mod page;
mod picture;
mod reading;
mod reducer;
mod sending;
mod stage;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports)] // the other tests use the rest
mod support;
mod tabs;
mod thread;
mod typing;
mod whatsapp;
mod wire;
mod words;
mod zones;
