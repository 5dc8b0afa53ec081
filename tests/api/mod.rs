//! The API: what a request is answered, and who may make it.

mod bodies;
mod callers;
mod errors;
mod inbox;
pub mod openapi;
mod ownership;
mod paths;
mod refusals;
mod security;
mod sending;
mod strangers;
mod webhooks;
