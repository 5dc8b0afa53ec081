//! What each number may be, wherever it comes from: command line, environment, HTTP or code.

use std::fmt::Display;
use std::str::FromStr;

use crate::error::ConfigError;

/// The least and the largest value of a number, both allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<T>(T, T);

/// A share of all calls or events.
pub(crate) const RATE: Bounds<f64> = Bounds(0.0, 1.0);
/// The delay of a call.
pub(crate) const DELAY_MS: Bounds<u64> = Bounds(0, 600_000);
/// How long an unanswered call is held.
pub(crate) const HANG_MS: Bounds<u64> = Bounds(0, 3_600_000);
/// `Retry-After` in seconds.
pub(crate) const RETRY_AFTER_SECONDS: Bounds<f64> = Bounds(0.0, 86_400.0);
/// The status of a `serverError`.
pub(crate) const SERVER_ERROR: Bounds<u16> = Bounds(500, 599);
/// The status of a scripted answer.
pub(crate) const SCRIPTED_STATUS: Bounds<u16> = Bounds(200, 599);
/// How often one event is posted.
pub(crate) const WEBHOOK_TRIES: Bounds<u32> = Bounds(1, 1000);
/// The wait after the first try of an event.
pub(crate) const WEBHOOK_RETRY_BASE_MS: Bounds<u64> = Bounds(1, 60_000);
/// The longest wait between two tries of an event.
pub(crate) const WEBHOOK_RETRY_CAP_MS: Bounds<u64> = Bounds(1, 3_600_000);
/// How long after an acceptance a late status is posted.
pub(crate) const LATE_MS: Bounds<u64> = Bounds(0, 3_600_000);
/// How many idempotency keys the ledger keeps.
pub(crate) const LEDGER_KEYS: Bounds<u32> = Bounds(1, 1_000_000);

impl<T: PartialOrd + Display> Bounds<T> {
    /// Returns the value, or says what it must be.
    pub(crate) fn check(&self, value: impl Into<Option<T>>) -> Result<T, String> {
        let Self(least, most) = self;
        value
            .into()
            .filter(|value| (least..=most).contains(&value))
            .ok_or_else(|| format!("must be from {least} to {most}"))
    }

    /// Checks what code has set, and names the field.
    pub(crate) fn check_field(&self, field: &'static str, value: T) -> Result<(), ConfigError> {
        match self.check(value) {
            Ok(_) => Ok(()),
            Err(message) => Err(ConfigError::Invalid { field, message }),
        }
    }

    /// Reads an option of the command line.
    pub(crate) fn parser(self) -> impl Fn(&str) -> Result<T, String> + Clone
    where
        T: FromStr<Err: Display> + Clone,
    {
        move |text| {
            let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
            self.check(value)
        }
    }
}
