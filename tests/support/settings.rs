//! Settings that many tests start a gateway with.

/// Nothing listens there, and nobody gets that far.
pub const NOWHERE: &str = "http://127.0.0.1:1";

/// A first wait that no test lives to see the end of: only what a test makes due is tried again.
pub const NO_RETRY: (&str, &str) = ("RETRY_BASE_MS", "3600000");
pub const RETRY_AT_ONCE: (&str, &str) = ("RETRY_BASE_MS", "1");
/// A worker makes the first attempt, too.
pub const NO_FIRST_ATTEMPT: (&str, &str) = ("SEND_CONCURRENCY", "0");
/// A caller is answered while the attempt goes on.
pub const SHORT_WAIT: (&str, &str) = ("SEND_WAIT_MS", "1");
/// An attempt goes on for as long as a test wants.
pub const LONG_ATTEMPT: (&str, &str) = ("PROVIDER_TIMEOUT_MS", "60000");
pub const ORDERED: (&str, &str) = ("DELIVERY_ORDER", "conversation");
pub const ALL_LINES: (&str, &str) = ("RUST_LOG", "info,gateway=debug");
