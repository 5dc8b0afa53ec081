//! The configuration: every setting is an option with an environment variable and a limit; secrets are in the environment or in files only.

mod client;
mod listen;
mod otel;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use mock_meta_provider::Config as MockConfig;
use reqwest::Url;

use crate::app::{Role, Settings};
use crate::database::{self, plans::Plans, target::Target};
use crate::delivery::{DeliveryPolicy, backoff::Backoff};
use crate::error::UsageError;
use crate::http::auth::Secrets;
use crate::http::key::{GivenKey, Keys, LEAST_SECRET, Scope, is_short};
use crate::peer::{self, Peer};
use crate::process::{environment, hidden::Hidden};
use crate::provider::client::Client;

pub use client::{ClientArgs, HostArgs, is_public};
pub use listen::{ListenArgs, MetricsArgs};
pub use otel::TraceArgs;

/// A lease outlasts two attempts by this much, for what comes before and after them.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// What half a configuration is told.
const NO_DATABASE: &str = "PROVIDER_URL is set, so DATABASE_URL is required too";

/// Shorthand for a configuration that cannot be.
fn usage<T>(message: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(message.into()))
}

/// Which database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL, such as `postgres://user:password@host/database`; of several hosts, `host1:5432,host2:5432`, the one is used that
    /// can be written to; unset: a private one in the data directory
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<Hidden<String>>,
    /// Where the private PostgreSQL keeps its data
    #[arg(
        long,
        env = "GATEWAY_DATA_DIR",
        default_value = ".gateway",
        value_name = "DIR",
        value_parser = directory
    )]
    data_dir: PathBuf,
    /// The most connections to the database of this process, its writers included (serve needs 5, every other command 2); unset: serve 14,
    /// worker 11, but at most a third of those that the server has for it
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    database_max_connections: Option<u32>,
    /// How the database plans what is written: generic, once for a connection; custom, each time, for databases that can do nothing else
    /// (Citus), which costs more
    #[arg(
        long,
        env = "DATABASE_PLANS",
        value_enum,
        default_value_t,
        value_name = "PLANS"
    )]
    database_plans: Plans,
}

/// Where the database is. It cannot be printed: it may have a password.
#[derive(Clone)]
pub enum Database {
    /// One that somebody else runs.
    Given(Target),
    /// A private one in this directory.
    Embedded(PathBuf),
}

/// A directory as a shell would have it: also where nothing but this program sees the `~`.
fn directory(text: &str) -> Result<PathBuf, &'static str> {
    match text.strip_prefix('~') {
        None => Ok(text.into()),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = std::env::home_dir().filter(|home| home.is_absolute());
            let home = home.ok_or("~ is the home directory, but HOME is not set")?;
            Ok(home.join(rest.trim_start_matches('/')))
        }
        Some(_) => {
            Err("~ with a name is not understood: write the path out, or ./~ where it is meant")
        }
    }
}

impl DatabaseArgs {
    /// The most connections of this process, where somebody has set it.
    #[must_use]
    pub fn max_connections(&self) -> Option<u32> {
        self.database_max_connections
    }

    /// How what is written is planned.
    #[must_use]
    pub fn plans(&self) -> Plans {
        self.database_plans
    }

    /// The database that was asked for.
    pub fn database(&self) -> Result<Database, UsageError> {
        match self.database_url.as_deref() {
            // Also for commands that need no provider: a misspelled DATABASE_URL must not end in a private database.
            None if environment::is_set("PROVIDER_URL") => usage(NO_DATABASE),
            None => Ok(Database::Embedded(self.data_dir.clone())),
            Some(url) => match database::url::parse(url) {
                Ok(target) => Ok(Database::Given(target)),
                Err(error) => usage(error),
            },
        }
    }
}

/// Which provider.
#[derive(Debug, Clone, Args)]
pub struct ProviderArgs {
    /// The provider's base URL, without ? and #; unset, and the database too: a built-in mock. A proxy of HTTPS_PROXY, HTTP_PROXY
    /// or ALL_PROXY is asked, but not for NO_PROXY, and never for this machine
    #[arg(long, env = "PROVIDER_URL", hide_env_values = true, value_name = "URL")]
    provider_url: Option<Hidden<String>>,
    /// The most time that an attempt takes, in milliseconds; a lease is twice as long and 5 s
    #[arg(long, env = "PROVIDER_TIMEOUT_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000), value_name = "MS")]
    provider_timeout_ms: u64,
}

impl ProviderArgs {
    /// A client of the provider at this URL.
    fn client(&self, url: &str) -> Result<Client, UsageError> {
        let url = url_of(
            "PROVIDER_URL",
            peer::base_url(url),
            "https://provider.example",
        )?;
        let timeout = Duration::from_millis(self.provider_timeout_ms);
        Client::new(Peer::at(url), timeout).or_else(|error| usage(format!("PROVIDER_URL: {error}")))
    }
}

/// How messages are delivered.
#[derive(Debug, Clone, Args)]
pub struct DeliveryArgs {
    #[command(flatten)]
    provider: ProviderArgs,
    /// Calls of the provider in a second, at most: for each channel, by all processes together; unset: no limit
    #[arg(long, env = "PROVIDER_MAX_PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    provider_max_per_second: Option<u32>,
    /// How long a send waits for its first attempt before it is answered PENDING, in milliseconds
    #[arg(long, env = "SEND_WAIT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(0..=600_000), value_name = "MS")]
    send_wait_ms: u64,
    /// First attempts in flight at once; a send beyond them is stored for a worker
    #[arg(long, env = "SEND_CONCURRENCY", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=65_536), value_name = "N")]
    send_concurrency: u32,
    /// Whether outbound messages of one conversation reach the provider one after the other
    #[arg(long, env = "DELIVERY_ORDER", value_enum, default_value_t = DeliveryOrder::None)]
    delivery_order: DeliveryOrder,
    /// How long a message waits behind another of its conversation at the most, in milliseconds
    #[arg(long, env = "ORDER_MAX_WAIT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(0..=86_400_000), value_name = "MS")]
    order_max_wait_ms: u64,
    /// Attempts that may fail before a message waits for an operator
    #[arg(long, env = "RETRY_MAX_ATTEMPTS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    retry_max_attempts: u32,
    /// The first wait between attempts, in milliseconds; each further one is twice as long
    #[arg(long, env = "RETRY_BASE_MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=3_600_000), value_name = "MS")]
    retry_base_ms: u64,
    /// The longest wait between attempts, in milliseconds
    #[arg(long, env = "RETRY_CAP_MS", default_value_t = 3_600_000, value_parser = clap::value_parser!(u64).range(1..=86_400_000), value_name = "MS")]
    retry_cap_ms: u64,
    /// What becomes of a message that the provider may have accepted although the attempt failed
    #[arg(long, env = "AMBIGUOUS_POLICY", value_enum, default_value_t = AmbiguousPolicy::Retry, value_name = "POLICY")]
    ambiguous_policy: AmbiguousPolicy,
}

/// What becomes of a message whose attempt failed in such a way that the provider may have accepted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousPolicy {
    /// It is retried, with the same idempotency key: a provider that honours keys delivers once
    Retry,
    /// It stays FAILED until an operator decides: for providers that do not
    Hold,
}

/// Which messages wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeliveryOrder {
    /// None: each goes as soon as it is accepted
    None,
    /// Those of one conversation
    Conversation,
}

impl DeliveryArgs {
    /// First attempts in flight at once.
    #[must_use]
    pub fn send_concurrency(&self) -> usize {
        usize::try_from(self.send_concurrency).unwrap_or(usize::MAX)
    }

    /// A client of the provider, where one was given.
    pub fn provider(&self) -> Result<Option<Client>, UsageError> {
        let url = self.provider.provider_url.as_deref();
        url.map(|url| self.provider_at(url)).transpose()
    }

    /// A client of the provider at this URL.
    pub fn provider_at(&self, url: &str) -> Result<Client, UsageError> {
        self.provider.client(url)
    }

    /// How messages are delivered.
    #[must_use]
    pub fn policy(&self) -> DeliveryPolicy {
        let attempt = Duration::from_millis(self.provider.provider_timeout_ms);
        DeliveryPolicy {
            lease_seconds: (attempt * 2 + LEASE_MARGIN).as_secs_f64(),
            ordered: self.delivery_order == DeliveryOrder::Conversation,
            max_wait_seconds: Duration::from_millis(self.order_max_wait_ms).as_secs_f64(),
            max_per_second: self.provider_max_per_second.map(f64::from),
        }
    }

    /// What a gateway between this database and this provider is made with.
    #[must_use]
    pub fn settings(
        &self,
        role: Role,
        (database, connections, plans): (Target, u32, Plans),
        provider: Client,
    ) -> Settings {
        Settings {
            role,
            database: database.into(),
            connections,
            plans,
            provider,
            backoff: Backoff {
                max_attempts: self.retry_max_attempts,
                base: Duration::from_millis(self.retry_base_ms),
                cap: Duration::from_millis(self.retry_cap_ms),
                holds_ambiguous: self.ambiguous_policy == AmbiguousPolicy::Hold,
            },
            send_wait: Duration::from_millis(self.send_wait_ms),
            send_concurrency: self.send_concurrency(),
            policy: self.policy(),
        }
    }
}

/// How a retry worker works.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Attempts of the retry worker in flight at once
    #[arg(long, env = "WORKER_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "N")]
    worker_concurrency: u32,
}

impl WorkerArgs {
    /// Attempts in flight at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        usize::try_from(self.worker_concurrency).unwrap_or(usize::MAX)
    }
}

/// How long what came in is kept as it came.
#[derive(Debug, Clone, Args)]
pub struct RetentionArgs {
    /// After how many days the bodies of webhook events are emptied, a month of them at a time; their ids and messages stay. 0: never
    #[arg(long, env = "WEBHOOK_BODY_RETENTION_DAYS", default_value_t = 90, value_parser = clap::value_parser!(i32).range(0..=36_500), value_name = "DAYS")]
    webhook_body_retention_days: i32,
}

impl RetentionArgs {
    /// The days; none: for ever.
    #[must_use]
    pub fn webhook_body_days(&self) -> Option<i32> {
        (self.webhook_body_retention_days > 0).then_some(self.webhook_body_retention_days)
    }
}

/// The built-in mock provider.
#[derive(Debug, Clone, Args)]
pub struct MockArgs {
    /// The port of the built-in mock provider, on 127.0.0.1
    #[arg(long, env = "MOCK_PORT", default_value_t = 4000)]
    mock_port: u16,
}

impl MockArgs {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.mock_port
    }

    /// What the environment says of the mock's behaviour.
    pub fn config(&self) -> Result<MockConfig, UsageError> {
        MockConfig::from_env().map_err(|error| UsageError(error.to_string()))
    }
}

/// How to stop.
#[derive(Debug, Clone, Args)]
pub struct ShutdownArgs {
    /// How long what runs may take to finish after SIGTERM or Ctrl-C, in milliseconds
    #[arg(long, env = "SHUTDOWN_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(0..=600_000), value_name = "MS")]
    shutdown_timeout_ms: u64,
}

impl ShutdownArgs {
    /// How long.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }
}

/// Both databases and providers of a `serve`: given, or private ones for trying the gateway out. They cannot be printed.
pub enum Backends {
    /// Both were given.
    Given(Target, Box<Client>),
    /// Neither was: a private database in this directory, and the mock provider.
    Embedded(PathBuf),
}

impl Backends {
    /// A real customer's message must never end in a mock, so half a configuration is an error, and so is none where others
    /// than this machine can connect.
    pub fn of(
        database: &DatabaseArgs,
        provider: Option<Client>,
        host: IpAddr,
    ) -> Result<Self, UsageError> {
        match (database.database()?, provider) {
            (Database::Given(target), Some(provider)) => {
                Ok(Self::Given(target, Box::new(provider)))
            }
            (Database::Embedded(directory), None) if host.is_loopback() => {
                Ok(Self::Embedded(directory))
            }
            (Database::Embedded(_), None) => usage(format!(
                "DATABASE_URL and PROVIDER_URL are required when HOST is {host}: the private database and the mock provider are for this machine only"
            )),
            (Database::Embedded(_), Some(_)) => usage(NO_DATABASE),
            (Database::Given(_), None) => {
                usage("DATABASE_URL is set, so PROVIDER_URL is required too")
            }
        }
    }

    /// Both, given.
    pub fn required(
        database: &DatabaseArgs,
        provider: Option<Client>,
    ) -> Result<(Target, Client), UsageError> {
        match (database.database()?, provider) {
            (Database::Given(target), Some(provider)) => Ok((target, provider)),
            (Database::Embedded(_), _) => usage("DATABASE_URL is required"),
            (_, None) => usage("PROVIDER_URL is required"),
        }
    }
}

/// The secrets of the environment, for a listener on this address, where there is one.
pub fn secrets(address: Option<IpAddr>) -> Result<Secrets, UsageError> {
    let mut keys = Keys::default();
    for (item, key) in (1..).zip(api_keys()?) {
        check_length("API_KEYS", item, key.is_short(), address)?;
        keys.add(key).or_else(|error| key_error(item, error))?;
    }
    let webhook = environment::secrets("WEBHOOK_SECRET")?;
    for (item, secret) in (1..).zip(&webhook) {
        check_length("WEBHOOK_SECRET", item, is_short(secret), address)?;
    }
    Ok(Secrets::new(keys, &webhook))
}

/// A secret that could be guessed is said loudly on this machine, and refused where others can try.
fn check_length(
    variable: &str,
    item: usize,
    is_short: bool,
    address: Option<IpAddr>,
) -> Result<(), UsageError> {
    match address {
        Some(address) if is_short && is_public(address) => usage(format!(
            "{variable}: item {item} has a secret of fewer than {LEAST_SECRET} characters, which others than this machine could guess at {address}"
        )),
        Some(_) if is_short => {
            tracing::warn!(
                variable,
                item,
                "a secret has fewer than {LEAST_SECRET} characters: it could be guessed"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a caller of a gateway with this environment proves to be allowed with: the secret of the first API key that may both send
/// and read the inbox, and a webhook secret, where there are.
pub fn credentials() -> Result<(Option<String>, Option<String>), UsageError> {
    let keys = api_keys()?;
    let has_keys = !keys.is_empty();
    let mut able = keys
        .into_iter()
        .filter(|key| key.allows(&[Scope::Inbox, Scope::Send]));
    let key = able.next().map(GivenKey::into_secret);
    if has_keys && key.is_none() {
        return usage("API_KEYS: no key has both of the scopes inbox and send");
    }
    Ok((
        key,
        environment::secrets("WEBHOOK_SECRET")?.into_iter().next(),
    ))
}

fn api_keys() -> Result<Vec<GivenKey>, UsageError> {
    let items = (1..).zip(environment::secrets("API_KEYS")?);
    items
        .map(|(item, key)| GivenKey::parse(&key).or_else(|error| key_error(item, error)))
        .collect()
}

/// Says which item it is by its place: whatever of it was repeated could be the secret.
fn key_error<T>(item: usize, error: &str) -> Result<T, UsageError> {
    usage(format!("API_KEYS: item {item} {error}"))
}

/// A URL, or what is wrong with the variable that has it: without the URL, which may hold a secret.
fn url_of(name: &str, url: Result<Url, &str>, example: &str) -> Result<Url, UsageError> {
    url.or_else(|wrong| usage(format!("{name} {wrong}, such as {example}")))
}
