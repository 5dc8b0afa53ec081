//! What a provider is started with; nothing out of bounds gets past here.

use std::fmt;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
use secrecy::SecretString;

use crate::behaviour::Behaviour;
use crate::bounds::{LEDGER_KEYS, WEBHOOK_RETRY_BASE_MS, WEBHOOK_RETRY_CAP_MS, WEBHOOK_TRIES};
use crate::edge::AllowedHosts;
use crate::error::ConfigError;
use crate::graph::settings::Whatsapp;
use crate::process::environment;
use crate::webhook_url::WebhookUrl;

const SECRET_VARIABLE: &str = "WEBHOOK_SECRET";
const DEFAULT_WEBHOOK_URL: &str = "http://localhost:3000/webhooks/mock-meta";
const DEFAULT_WEBHOOK_TRIES: u32 = 30;
const DEFAULT_WEBHOOK_RETRY_BASE_MS: u64 = 100;
const DEFAULT_WEBHOOK_RETRY_CAP_MS: u64 = 5000;
const DEFAULT_LEDGER_KEYS: u32 = 100_000;

/// What a [`Mock`](crate::Mock) is started with.
#[derive(Clone, Args)]
pub struct Config {
    /// URL that inbound events are posted to
    #[arg(long, env, hide_env_values = true, value_parser = WebhookUrl("--webhook-url (WEBHOOK_URL)"), default_value = DEFAULT_WEBHOOK_URL)]
    pub webhook_url: String,

    /// Signs the posts (`X-Hub-Signature-256`). Read only from the environment or a file, never
    /// shown.
    #[arg(skip)]
    pub webhook_secret: Option<SecretString>,

    /// Host names without ports that requests may name besides localhost; *.example.com allows its
    /// subdomains, * allows any [default: none on a loopback address, else any]
    #[arg(long, env, value_delimiter = ',', value_name = "NAMES", value_parser = AllowedHosts::parse_name)]
    pub allowed_hosts: Vec<String>,

    /// Origins of its own pages besides the request's Host, comma-separated, such as
    /// `https://mock.example`; needed behind a proxy that changes Host
    #[arg(long, env, value_delimiter = ',', value_name = "ORIGINS", value_parser = AllowedHosts::parse_origin)]
    pub public_origins: Vec<String>,

    /// Allows the `webhookUrl` of an inbound simulation to name a host that is not loopback
    #[arg(long, env, action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = false,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_remote_webhooks: bool,

    /// How often an event is posted before it is given up
    #[arg(long, env, default_value_t = DEFAULT_WEBHOOK_TRIES, value_parser = WEBHOOK_TRIES.parser())]
    pub webhook_max_tries: u32,

    /// Wait before an event's second try, in milliseconds; it doubles with each further try
    #[arg(long, env, default_value_t = DEFAULT_WEBHOOK_RETRY_BASE_MS, value_parser = WEBHOOK_RETRY_BASE_MS.parser())]
    pub webhook_retry_base_ms: u64,

    /// Longest wait between two tries of an event, in milliseconds
    #[arg(long, env, default_value_t = DEFAULT_WEBHOOK_RETRY_CAP_MS, value_parser = WEBHOOK_RETRY_CAP_MS.parser())]
    pub webhook_retry_cap_ms: u64,

    /// How many idempotency keys the ledger keeps; the oldest are dropped, and then no longer
    /// deduplicated
    #[arg(long, env, default_value_t = DEFAULT_LEDGER_KEYS, value_parser = LEDGER_KEYS.parser())]
    pub ledger_max_keys: u32,

    /// Makes every random choice reproducible [default: random, and logged]
    #[arg(long, env)]
    pub seed: Option<u64>,

    /// How it behaves at first; `POST /config` changes it while it runs.
    #[command(flatten)]
    pub behaviour: Behaviour,

    /// WhatsApp's side.
    #[command(flatten)]
    pub whatsapp: Whatsapp,
}

/// Leaves out the webhook's URL, which may have a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("seed", &self.seed)
            .field("behaviour", &self.behaviour)
            .field("whatsapp", &self.whatsapp)
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
            webhook_max_tries: DEFAULT_WEBHOOK_TRIES,
            webhook_retry_base_ms: DEFAULT_WEBHOOK_RETRY_BASE_MS,
            webhook_retry_cap_ms: DEFAULT_WEBHOOK_RETRY_CAP_MS,
            ledger_max_keys: DEFAULT_LEDGER_KEYS,
            seed: Some(1),
            behaviour: Behaviour::CALM,
            whatsapp: Whatsapp::calm(),
        }
    }

    /// Reads the configuration and the secret from the environment, without any arguments.
    pub fn from_env() -> Result<Self, ConfigError> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Environment {
            #[command(flatten)]
            config: Config,
        }
        let environment = environment::matches(&Environment::command(), [])
            .and_then(|matches| Environment::from_arg_matches(&matches))
            .map_err(|error| ConfigError::Environment(first_paragraph(&error)))?;
        environment.config.with_secret_from_env()
    }

    /// Adds the secret from `WEBHOOK_SECRET`, or from the file that `WEBHOOK_SECRET_FILE` names.
    ///
    /// The gateway may have a list of secrets there, for rotation: the first one signs. WhatsApp's
    /// secrets are read likewise.
    pub fn with_secret_from_env(mut self) -> Result<Self, ConfigError> {
        let secrets = environment::secrets(SECRET_VARIABLE)?;
        self.webhook_secret = secrets.into_iter().next().map(SecretString::from);
        self.whatsapp = self.whatsapp.with_secrets_from_env()?;
        Ok(self)
    }

    /// Checks what code has set; command line and environment were checked when they were read.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        WEBHOOK_TRIES.check_field("webhookMaxTries", self.webhook_max_tries)?;
        WEBHOOK_RETRY_BASE_MS.check_field("webhookRetryBaseMs", self.webhook_retry_base_ms)?;
        WEBHOOK_RETRY_CAP_MS.check_field("webhookRetryCapMs", self.webhook_retry_cap_ms)?;
        LEDGER_KEYS.check_field("ledgerMaxKeys", self.ledger_max_keys)?;
        self.behaviour.validate()?;
        self.whatsapp.validate()
    }
}

/// What is wrong, without clap's hints about usage.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    text.split("\n\n").next().unwrap_or(text).to_owned()
}
