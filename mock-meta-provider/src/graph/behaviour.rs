//! How WhatsApp's side misbehaves; `POST /config/whatsapp` changes it while it runs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds::{DELAY_MS, LATE_MS, RATE};
use crate::error::ConfigError;

/// How WhatsApp's side misbehaves, besides what [`Behaviour`](crate::Behaviour) says of every call.
///
/// Each rate is a share of all accepted messages, drawn independently.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatsappBehaviour {
    /// Longest random wait before each status, in milliseconds
    #[arg(long, env, default_value_t = Self::DEFAULT.status_delay_max_ms, value_parser = DELAY_MS.parser())]
    pub status_delay_max_ms: u64,
    /// Share of messages whose first status comes before the answer to the call
    #[arg(long, env, default_value_t = Self::DEFAULT.status_early_rate, value_parser = RATE.parser())]
    pub status_early_rate: f64,
    /// Share of messages whose statuses come late
    #[arg(long, env, default_value_t = Self::DEFAULT.status_late_rate, value_parser = RATE.parser())]
    pub status_late_rate: f64,
    /// How late a late status is, in milliseconds
    #[arg(long, env, default_value_t = Self::DEFAULT.status_late_ms, value_parser = LATE_MS.parser())]
    pub status_late_ms: u64,
    /// Share of messages whose statuses all come twice
    #[arg(long, env, default_value_t = Self::DEFAULT.status_duplicate_rate, value_parser = RATE.parser())]
    pub status_duplicate_rate: f64,
    /// Share of messages whose statuses come in the reverse order
    #[arg(long, env, default_value_t = Self::DEFAULT.status_out_of_order_rate, value_parser = RATE.parser())]
    pub status_out_of_order_rate: f64,
    /// Share of messages whose statuses come in one body, with those of others and with what nobody
    /// understands
    #[arg(long, env, default_value_t = Self::DEFAULT.status_batch_rate, value_parser = RATE.parser())]
    pub status_batch_rate: f64,
    /// Share of messages that no status ever comes for
    #[arg(long, env, default_value_t = Self::DEFAULT.status_never_rate, value_parser = RATE.parser())]
    pub status_never_rate: f64,
    /// Share of messages that fail after they were accepted
    #[arg(long, env, default_value_t = Self::DEFAULT.status_failed_rate, value_parser = RATE.parser())]
    pub status_failed_rate: f64,
    /// The code that they fail with
    #[arg(long, env, default_value_t = Self::DEFAULT.status_failed_code)]
    pub status_failed_code: u32,
    /// Share of messages with a status of a message that nobody sent here before theirs
    #[arg(long, env, default_value_t = Self::DEFAULT.status_foreign_rate, value_parser = RATE.parser())]
    pub status_foreign_rate: f64,
    /// Share of messages whose statuses name no recipient
    #[arg(long, env, default_value_t = Self::DEFAULT.status_bare_rate, value_parser = RATE.parser())]
    pub status_bare_rate: f64,
    /// Share of messages whose statuses name the recipient by the user id only
    #[arg(long, env, default_value_t = Self::DEFAULT.status_user_id_rate, value_parser = RATE.parser())]
    pub status_user_id_rate: f64,
    /// Share of delivered messages that are read
    #[arg(long, env, default_value_t = Self::DEFAULT.status_read_rate, value_parser = RATE.parser())]
    pub status_read_rate: f64,
    /// Refuses more than 45 messages at once to one recipient, and then one every 6 seconds
    #[arg(long, env, action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = Self::DEFAULT.pair_limit)]
    pub pair_limit: bool,
    /// Answers with another `wa_id` than the number where Meta knows numbers by another form
    #[arg(long, env, action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = Self::DEFAULT.rewrite_numbers)]
    pub rewrite_numbers: bool,
    /// How long the URL of a media object is good for, in milliseconds
    #[arg(long, env, default_value_t = Self::DEFAULT.media_url_ttl_ms, value_parser = LATE_MS.parser())]
    pub media_url_ttl_ms: u64,
    /// Codes of the failures that `FAILURE_RATE` makes, each with its weight
    #[arg(long = "graph-codes", env = "GRAPH_CODES", value_name = "CODE=WEIGHT,…", default_value_t = Self::DEFAULT.codes)]
    pub codes: Codes,
}

impl WhatsappBehaviour {
    /// No misbehaviour: `sent`, `delivered`, `read` at once, in this order.
    pub const CALM: Self = Self {
        status_delay_max_ms: 0,
        status_early_rate: 0.0,
        status_late_rate: 0.0,
        status_late_ms: 120_000,
        status_duplicate_rate: 0.0,
        status_out_of_order_rate: 0.0,
        status_batch_rate: 0.0,
        status_never_rate: 0.0,
        status_failed_rate: 0.0,
        status_failed_code: 131_026,
        status_foreign_rate: 0.0,
        status_bare_rate: 0.0,
        status_user_id_rate: 0.0,
        status_read_rate: 1.0,
        pair_limit: false,
        rewrite_numbers: false,
        media_url_ttl_ms: 300_000,
        codes: Codes::USUAL,
    };

    /// The defaults of the command line.
    pub const DEFAULT: Self = Self {
        status_delay_max_ms: 2000,
        status_early_rate: 0.1,
        status_duplicate_rate: 0.1,
        status_out_of_order_rate: 0.1,
        status_batch_rate: 0.1,
        status_foreign_rate: 0.05,
        status_bare_rate: 0.05,
        status_user_id_rate: 0.05,
        status_read_rate: 0.8,
        ..Self::CALM
    };

    /// Checks every bound, and names the first field that is out of it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let rates = [
            ("statusEarlyRate", self.status_early_rate),
            ("statusLateRate", self.status_late_rate),
            ("statusDuplicateRate", self.status_duplicate_rate),
            ("statusOutOfOrderRate", self.status_out_of_order_rate),
            ("statusBatchRate", self.status_batch_rate),
            ("statusNeverRate", self.status_never_rate),
            ("statusFailedRate", self.status_failed_rate),
            ("statusForeignRate", self.status_foreign_rate),
            ("statusBareRate", self.status_bare_rate),
            ("statusUserIdRate", self.status_user_id_rate),
            ("statusReadRate", self.status_read_rate),
        ];
        for (field, rate) in rates {
            RATE.check_field(field, rate)?;
        }
        DELAY_MS.check_field("statusDelayMaxMs", self.status_delay_max_ms)?;
        LATE_MS.check_field("statusLateMs", self.status_late_ms)?;
        LATE_MS.check_field("mediaUrlTtlMs", self.media_url_ttl_ms)
    }
}

/// Codes with their weights, such as `130429=1,131000=4`, in the order of the codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes(Cow<'static, [(u32, u32)]>);

impl Codes {
    /// Seldom a throttle, else what may be repeated.
    pub const USUAL: Self = Self(Cow::Borrowed(&[
        (2, 4),
        (130_429, 1),
        (131_000, 4),
        (131_056, 1),
    ]));

    /// Only this code.
    #[must_use]
    pub fn only(code: u32) -> Self {
        Self(vec![(code, 1)].into())
    }

    /// The code at this share of all weights, from 0 to 1.
    pub(crate) fn at(&self, share: f64) -> u32 {
        let total: u64 = self.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = share * f64::from(u32::try_from(total).unwrap_or(u32::MAX));
        for &(code, weight) in self.0.iter() {
            left -= f64::from(weight);
            if left < 0.0 {
                return code;
            }
        }
        131_000
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (code, weight)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{code}={weight}")?;
        }
        Ok(())
    }
}

impl FromStr for Codes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (code, weight) = pair.split_once('=').unwrap_or((pair, "1"));
            Some((code.trim().parse().ok()?, weight.trim().parse().ok()?))
        };
        let codes: Option<BTreeMap<u32, u32>> = text.split(',').map(pair).collect();
        let codes = codes.ok_or("must be codes with weights, such as 130429=1,131000=4")?;
        Ok(codes.into())
    }
}

impl From<BTreeMap<u32, u32>> for Codes {
    fn from(codes: BTreeMap<u32, u32>) -> Self {
        Self(codes.into_iter().collect())
    }
}

impl Serialize for Codes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl<'de> Deserialize<'de> for Codes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_as_often_as_it_weighs() {
        let codes: Codes = "130429=1,2=3".parse().unwrap();
        assert_eq!(
            (codes.at(0.8), codes.at(0.99), codes.at(0.7), codes.at(0.0)),
            (130_429, 130_429, 2, 2)
        );
        assert_eq!(codes.to_string(), "2=3,130429=1");
        assert!("often".parse::<Codes>().is_err());
    }
}
