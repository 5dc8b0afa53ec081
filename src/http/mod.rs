//! What every request passes through, whatever it is for: this folder knows no feature.

pub mod admit;
pub mod audit;
pub mod auth;
pub mod body;
pub mod docs;
pub mod extract;
pub mod field;
pub mod key;
pub mod observe;
pub mod once;
pub mod origin;
pub mod page;
pub mod problem;
pub mod response_budget;
pub mod security_headers;
pub mod server;
pub mod step;
pub mod timestamp;
