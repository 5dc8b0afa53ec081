//! How the provider misbehaves; `POST /config` changes it while it runs.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize, Serializer};

use crate::bounds::{DELAY_MS, HANG_MS, RATE, RETRY_AFTER_SECONDS};
use crate::error::ConfigError;

/// How the provider misbehaves.
///
/// Each rate is a share of all calls or events. The kinds of fault share one draw for each call, in
/// the order of the fields from `rate_limit_rate` to `unreadable_rate`, `failure_rate` last. Where
/// they add up to more than 1, the later ones get what is left.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behaviour {
    /// Share of calls that fail and may be retried: 500 or 503, and 429 for one in ten of them
    #[arg(long, env, default_value_t = Self::DEFAULT.failure_rate, value_parser = RATE.parser())]
    pub failure_rate: f64,
    /// Share of inbound events that are posted again
    #[arg(long, env, default_value_t = Self::DEFAULT.duplicate_rate, value_parser = RATE.parser())]
    pub duplicate_rate: f64,
    /// Share of inbound events that a later event overtakes
    #[arg(long, env, default_value_t = Self::DEFAULT.out_of_order_rate, value_parser = RATE.parser())]
    pub out_of_order_rate: f64,
    /// Longest random delay of a call, in milliseconds
    #[arg(long, env, default_value_t = Self::DEFAULT.delay_max_ms, value_parser = DELAY_MS.parser())]
    pub delay_max_ms: u64,
    /// Share of calls answered with 429
    #[arg(long, env, default_value_t = Self::DEFAULT.rate_limit_rate, value_parser = RATE.parser())]
    pub rate_limit_rate: f64,
    /// Share of calls answered with 500 or 503
    #[arg(long, env, default_value_t = Self::DEFAULT.server_error_rate, value_parser = RATE.parser())]
    pub server_error_rate: f64,
    /// Share of calls refused for good, with 422
    #[arg(long, env, default_value_t = Self::DEFAULT.reject_rate, value_parser = RATE.parser())]
    pub reject_rate: f64,
    /// Share of calls that are accepted, and then cut off without an answer
    #[arg(long, env, default_value_t = Self::DEFAULT.lost_answer_rate, value_parser = RATE.parser())]
    pub lost_answer_rate: f64,
    /// Share of calls that are cut off before anything is accepted
    #[arg(long, env, default_value_t = Self::DEFAULT.reset_rate, value_parser = RATE.parser())]
    pub reset_rate: f64,
    /// Share of calls that are neither accepted nor answered
    #[arg(long, env, default_value_t = Self::DEFAULT.hang_rate, value_parser = RATE.parser())]
    pub hang_rate: f64,
    /// Share of calls that are accepted, and then answered with a 200 whose JSON breaks off
    #[arg(long, env, default_value_t = Self::DEFAULT.unreadable_rate, value_parser = RATE.parser())]
    pub unreadable_rate: f64,
    /// Retry-After of a 429 or 503, in seconds, fractions allowed [default: none]
    #[arg(long, env, value_parser = RETRY_AFTER_SECONDS.parser())]
    #[serde(serialize_with = "without_needless_fraction")]
    pub retry_after_seconds: Option<f64>,
    /// How long an unanswered call is held before it is cut off, in milliseconds
    #[arg(long, env, default_value_t = Self::DEFAULT.hang_ms, value_parser = HANG_MS.parser())]
    pub hang_ms: u64,
    /// Whether calls with the same Idempotency-Key deliver only once
    #[arg(long, env, action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = Self::DEFAULT.dedupe)]
    pub dedupe: bool,
}

impl Behaviour {
    /// No misbehaviour: no fault, no delay, deduplication on.
    pub const CALM: Self = Self {
        failure_rate: 0.0,
        duplicate_rate: 0.0,
        out_of_order_rate: 0.0,
        delay_max_ms: 0,
        rate_limit_rate: 0.0,
        server_error_rate: 0.0,
        reject_rate: 0.0,
        lost_answer_rate: 0.0,
        reset_rate: 0.0,
        hang_rate: 0.0,
        unreadable_rate: 0.0,
        retry_after_seconds: None,
        hang_ms: 60_000,
        dedupe: true,
    };

    /// The defaults of the command line.
    pub const DEFAULT: Self = Self {
        failure_rate: 0.3,
        duplicate_rate: 0.2,
        out_of_order_rate: 0.15,
        delay_max_ms: 2000,
        ..Self::CALM
    };

    /// Checks every bound, and names the first field that is out of it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let rates = [
            ("failureRate", self.failure_rate),
            ("duplicateRate", self.duplicate_rate),
            ("outOfOrderRate", self.out_of_order_rate),
            ("rateLimitRate", self.rate_limit_rate),
            ("serverErrorRate", self.server_error_rate),
            ("rejectRate", self.reject_rate),
            ("lostAnswerRate", self.lost_answer_rate),
            ("resetRate", self.reset_rate),
            ("hangRate", self.hang_rate),
            ("unreadableRate", self.unreadable_rate),
        ];
        for (field, rate) in rates {
            RATE.check_field(field, rate)?;
        }
        DELAY_MS.check_field("delayMaxMs", self.delay_max_ms)?;
        HANG_MS.check_field("hangMs", self.hang_ms)?;
        RETRY_AFTER_SECONDS.check_field(
            "retryAfterSeconds",
            self.retry_after_seconds.unwrap_or_default(),
        )
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Writes 2 rather than 2.0.
#[expect(clippy::ref_option, reason = "what serde passes")]
fn without_needless_fraction<S: Serializer>(
    number: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let number = number.map(|number| number.to_string().parse::<serde_json::Number>());
    let number = number.transpose().map_err(serde::ser::Error::custom)?;
    number.serialize(serializer)
}
