//! A toolkit for handlers; it knows no feature.
//!
//! A request passes through [`server`] (connections), [`security_headers`] and [`observe`] (its id,
//! span and count), then through what its [`route`] asks for: [`origin`], [`auth`],
//! [`response_budget`] and [`admit`]. [`extract`] parses it for the handler. On the way back an
//! error is a [`problem::Problem`] inside a response that has only a status: whoever refuses a
//! request need not know its id. [`observe`] writes the body of the problem, and its line in the log.

pub mod admit;
pub mod audit;
pub mod auth;
pub mod body;
pub mod body_budget;
pub mod docs;
pub mod extract;
pub mod field;
pub mod key;
pub mod middleware;
pub mod observe;
pub mod once;
pub mod origin;
pub mod page;
pub mod prefer;
pub mod problem;
pub mod response_budget;
pub mod route;
pub mod security_headers;
pub mod server;
pub mod timestamp;
