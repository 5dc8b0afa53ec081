//! What can be chosen, from the command line, the environment or code; nothing out of bounds gets past here.

use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;

use clap::builder::{BoolishValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser};
use reqwest::Url;
use serde::{Deserialize, Serialize, Serializer};

use crate::edge::AllowedHosts;
use crate::process::environment;

const DEFAULT_WEBHOOK_URL: &str = "http://localhost:3000/webhooks/mock-meta";
const SECRET_VARIABLE: &str = "WEBHOOK_SECRET";

/// The longest accepted `delayMaxMs`, and delay of a scripted fault, in milliseconds.
pub(crate) const DELAY_MAX_MS: u64 = 600_000;
const HANG_MAX_MS: u64 = 3_600_000;
/// The longest accepted `Retry-After`, in seconds.
const RETRY_AFTER_MAX_SECONDS: u32 = 86_400;

/// What a [`Mock`](crate::Mock) is started with. It cannot be printed: its URL may have a password.
#[derive(Clone, Args)]
pub struct Config {
    /// Where inbound events are posted to
    #[arg(long, env, hide_env_values = true, value_parser = WebhookUrl, default_value = DEFAULT_WEBHOOK_URL)]
    pub webhook_url: String,

    /// Signs the posts (`X-Hub-Signature-256`). Only from the environment or a file, never shown.
    #[arg(skip)]
    pub webhook_secret: Option<Secret>,

    /// Host names without ports that requests may be addressed to beside localhost; *.example.com: its
    /// subdomains, *: any [default: on a loopback address none, else any]
    #[arg(long, env, value_delimiter = ',', value_name = "NAMES", value_parser = AllowedHosts::parse_name)]
    pub allowed_hosts: Vec<String>,

    /// Origins of its own pages beside the Host of a request, comma-separated, such as `https://mock.example`: behind a proxy
    /// that changes Host
    #[arg(long, env, value_delimiter = ',', value_name = "ORIGINS", value_parser = AllowedHosts::parse_origin)]
    pub public_origins: Vec<String>,

    /// Lets the `webhookUrl` of an inbound simulation name a host that is not loopback
    #[arg(long, env, action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = false,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_remote_webhooks: bool,

    /// How often an event is posted until it is given up
    #[arg(long, env, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub webhook_max_tries: u32,

    /// Wait before an event's second try, in milliseconds; doubles with each further one
    #[arg(long, env, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub webhook_retry_base_ms: u64,

    /// Longest wait between two tries of an event, in milliseconds
    #[arg(long, env, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub webhook_retry_cap_ms: u64,

    /// How many messages the ledger keeps; beyond that the oldest are dropped (and no longer deduplicated)
    #[arg(long, env, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub ledger_max_keys: u32,

    /// Makes every random choice reproducible [default: random, and logged]
    #[arg(long, env)]
    pub seed: Option<u64>,

    /// How it behaves at first; `POST /config` changes it while it runs.
    #[command(flatten)]
    pub behaviour: Behaviour,
}

/// Without what may have a secret in it: the URL of the webhook may have a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("seed", &self.seed)
            .field("behaviour", &self.behaviour)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// No misbehaviour at all and a fixed seed: what a test starts from.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            webhook_url: DEFAULT_WEBHOOK_URL.to_owned(),
            webhook_secret: None,
            allowed_hosts: Vec::new(),
            public_origins: Vec::new(),
            allow_remote_webhooks: false,
            webhook_max_tries: 30,
            webhook_retry_base_ms: 100,
            webhook_retry_cap_ms: 5000,
            ledger_max_keys: 100_000,
            seed: Some(1),
            behaviour: Behaviour::CALM,
        }
    }

    /// The configuration that the environment alone gives, with the secret; no arguments are read.
    pub fn from_env() -> Result<Self, ConfigError> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Environment {
            #[command(flatten)]
            config: Config,
        }
        let environment = environment::matches(&Environment::command(), [])
            .and_then(|matches| Environment::from_arg_matches(&matches))
            .map_err(|error| ConfigError::Environment(said(&error)))?;
        environment.config.with_secret_from_env()
    }

    /// Adds the secret from `WEBHOOK_SECRET`, or the file that `WEBHOOK_SECRET_FILE` names; empty is none. Of a comma-separated list (the gateway's
    /// form, for rotation) the first one signs.
    pub fn with_secret_from_env(mut self) -> Result<Self, ConfigError> {
        let secrets = environment::secrets(SECRET_VARIABLE)?;
        self.webhook_secret = secrets.into_iter().next().map(Secret::new);
        Ok(self)
    }

    /// Checks what code has set; the command line and the environment were checked when they were read.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let bounded = [
            (
                "webhookMaxTries",
                u64::from(self.webhook_max_tries),
                1,
                1000,
            ),
            ("webhookRetryBaseMs", self.webhook_retry_base_ms, 1, 60_000),
            ("webhookRetryCapMs", self.webhook_retry_cap_ms, 1, 3_600_000),
            (
                "ledgerMaxKeys",
                u64::from(self.ledger_max_keys),
                1,
                1_000_000,
            ),
        ];
        for (field, value, least, most) in bounded {
            check_range(field, value, least, most)?;
        }
        self.behaviour.validate()
    }
}

/// How the provider misbehaves; can be changed while it runs.
///
/// The kinds of fault share one draw for each call, in the order of the fields from `rate_limit_rate` to
/// `unreadable_rate`, `failure_rate` last: each rate is a share of all calls, and where they add up to
/// more than 1 the later ones get what is left.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behaviour {
    /// Share of calls that fail in a retryable way: with 500 or 503, one in ten with 429
    #[arg(long, env, default_value_t = Self::DEFAULT.failure_rate, value_parser = parse_rate)]
    pub failure_rate: f64,
    /// Share of inbound events that are posted again
    #[arg(long, env, default_value_t = Self::DEFAULT.duplicate_rate, value_parser = parse_rate)]
    pub duplicate_rate: f64,
    /// Share of inbound events that a later one overtakes
    #[arg(long, env, default_value_t = Self::DEFAULT.out_of_order_rate, value_parser = parse_rate)]
    pub out_of_order_rate: f64,
    /// Longest random delay of a call, in milliseconds
    #[arg(long, env, default_value_t = Self::DEFAULT.delay_max_ms, value_parser = clap::value_parser!(u64).range(..=DELAY_MAX_MS))]
    pub delay_max_ms: u64,
    /// Share of calls answered 429
    #[arg(long, env, default_value_t = 0.0, value_parser = parse_rate)]
    pub rate_limit_rate: f64,
    /// Share of calls answered 500 or 503
    #[arg(long, env, default_value_t = 0.0, value_parser = parse_rate)]
    pub server_error_rate: f64,
    /// Share of calls refused for good, with 422
    #[arg(long, env, default_value_t = 0.0, value_parser = parse_rate)]
    pub reject_rate: f64,
    /// Share of calls that are accepted, and then cut off without an answer
    #[arg(long, env, default_value_t = 0.0, value_parser = parse_rate)]
    pub lost_answer_rate: f64,
    /// Share of calls that are cut off before anything is accepted
    #[arg(long, env, default_value_t = 0.0, value_parser = parse_rate)]
    pub reset_rate: f64,
    /// Share of calls that are never answered, nor accepted
    #[arg(long, env, default_value_t = 0.0, value_parser = parse_rate)]
    pub hang_rate: f64,
    /// Share of calls that are accepted, and then answered with a 200 that cannot be read
    #[arg(long, env, default_value_t = 0.0, value_parser = parse_rate)]
    pub unreadable_rate: f64,
    /// Sent as Retry-After with 429 and 503, in seconds, also with a fraction [default: none]
    #[arg(long, env, value_parser = parse_seconds)]
    #[serde(serialize_with = "plain_number")]
    pub retry_after_seconds: Option<f64>,
    /// How long an unanswered call is held before it is cut off, in milliseconds
    #[arg(long, env, default_value_t = Self::DEFAULT.hang_ms, value_parser = clap::value_parser!(u64).range(..=HANG_MAX_MS))]
    pub hang_ms: u64,
    /// Whether a repeated Idempotency-Key is delivered only once
    #[arg(long, env, action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = true)]
    pub dedupe: bool,
}

impl Behaviour {
    /// No misbehaviour: no rate, no delay, deduplication on.
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

    /// What holds where nothing else is chosen.
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
            check_rate(rate).map_err(|message| ConfigError::invalid(field, message))?;
        }
        check_range("delayMaxMs", self.delay_max_ms, 0, DELAY_MAX_MS)?;
        check_range("hangMs", self.hang_ms, 0, HANG_MAX_MS)?;
        check_seconds(self.retry_after_seconds.unwrap_or(0.0))
            .map_err(|message| ConfigError::invalid("retryAfterSeconds", message))
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A secret that cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a configuration is no good.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The environment has a value that cannot be read or is out of bounds.
    #[error("{0}")]
    Environment(String),
    /// The secret in the environment is none.
    #[error(transparent)]
    Secret(#[from] environment::Invalid),
    /// A webhook is at an https URL, and there is nothing to recognise it by.
    #[error(
        "webhookUrl: an https URL needs CA certificates, and there are none: install ca-certificates, or set SSL_CERT_FILE"
    )]
    NoCertificates,
    /// A field is out of bounds.
    #[error("{field}: {message}")]
    Invalid {
        /// The field, by its name on the wire.
        field: &'static str,
        /// What it must be.
        message: String,
    },
}

impl ConfigError {
    fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            message: message.into(),
        }
    }
}

/// Whether a URL's host can only be this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Reads a URL that events can be posted to.
pub(crate) fn parse_webhook_url(value: &str) -> Result<Url, ConfigError> {
    let invalid = |message: String| ConfigError::Invalid {
        field: "webhookUrl",
        message,
    };
    let url = value
        .parse::<Url>()
        .map_err(|error| invalid(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("must be an http or https URL".to_owned()));
    }
    if value.len() > 2048 {
        return Err(invalid("must have at most 2048 characters".to_owned()));
    }
    Ok(url)
}

/// Checks a URL on the command line; unlike clap's own, its error does not repeat what may hold a password.
#[derive(Clone)]
struct WebhookUrl;

impl TypedValueParser for WebhookUrl {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let text = value.to_str().unwrap_or_default();
        match parse_webhook_url(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => {
                let message = format!("--webhook-url (WEBHOOK_URL): {error}\n");
                Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
            }
        }
    }
}

/// What is wrong, without what clap says around it.
fn said(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    text.split("\n\n").next().unwrap_or(text).to_owned()
}

fn parse_rate(value: &str) -> Result<f64, String> {
    let rate = value.parse::<f64>().map_err(|error| error.to_string())?;
    check_rate(rate)?;
    Ok(rate)
}

fn check_rate(rate: f64) -> Result<(), &'static str> {
    if (0.0..=1.0).contains(&rate) {
        Ok(())
    } else {
        Err("must be from 0 to 1")
    }
}

fn parse_seconds(value: &str) -> Result<f64, String> {
    let seconds = value.parse::<f64>().map_err(|error| error.to_string())?;
    check_seconds(seconds)?;
    Ok(seconds)
}

pub(crate) fn check_seconds(seconds: f64) -> Result<(), &'static str> {
    if (0.0..=f64::from(RETRY_AFTER_MAX_SECONDS)).contains(&seconds) {
        Ok(())
    } else {
        Err("must be from 0 to 86400")
    }
}

/// Writes 2 rather than 2.0.
#[expect(clippy::ref_option, reason = "what serde passes")]
fn plain_number<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    let number = number.map(|number| number.to_string().parse::<serde_json::Number>());
    let number = number.transpose().map_err(serde::ser::Error::custom)?;
    number.serialize(serializer)
}

fn check_range(field: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::invalid(
            field,
            format!("must be from {least} to {most}"),
        ))
    }
}
