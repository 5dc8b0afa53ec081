//! Logs and metrics.

mod fields;
mod log;
mod metrics;

pub use self::log::{INFO, LogFormat, WARN, log};
pub use self::metrics::metrics;
