//! How messages are delivered: by which provider, how often, and in which order.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::usage::{url_of, usage};
use crate::app::{Role, Settings};
use crate::database::plans::Plans;
use crate::database::target::Target;
use crate::delivery::{DeliveryPolicy, backoff::Backoff};
use crate::error::UsageError;
use crate::peer::{self, Peer};
use crate::process::hidden::Hidden;
use crate::provider::client::Client;

/// A lease outlasts two attempts by this much, for the work before and after them.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// The options for the provider.
#[derive(Debug, Clone, Args)]
pub struct ProviderArgs {
    /// The provider's base URL, without ? and #; unset, and the database too: a built-in mock.
    /// Calls use the proxy of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, but not for NO_PROXY, and never
    /// for this machine
    #[arg(long, env = "PROVIDER_URL", hide_env_values = true, value_name = "URL")]
    provider_url: Option<Hidden<String>>,
    /// The longest time of an attempt, in milliseconds; a lease is twice as long, plus 5 s
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

/// The options for deliveries.
#[derive(Debug, Clone, Args)]
pub struct DeliveryArgs {
    #[command(flatten)]
    provider: ProviderArgs,
    /// The most calls of the provider in a second, for each channel, by all processes together;
    /// unset: no limit
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
    /// The longest time that a message waits behind another of its conversation, in milliseconds
    #[arg(long, env = "ORDER_MAX_WAIT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(0..=86_400_000), value_name = "MS")]
    order_max_wait_ms: u64,
    /// Failed attempts before a message waits for an operator
    #[arg(long, env = "RETRY_MAX_ATTEMPTS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    retry_max_attempts: u32,
    /// The first wait between attempts, in milliseconds; each further one is twice as long
    #[arg(long, env = "RETRY_BASE_MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=3_600_000), value_name = "MS")]
    retry_base_ms: u64,
    /// The longest wait between attempts, in milliseconds
    #[arg(long, env = "RETRY_CAP_MS", default_value_t = 3_600_000, value_parser = clap::value_parser!(u64).range(1..=86_400_000), value_name = "MS")]
    retry_cap_ms: u64,
    /// What to do with a message that the provider may have accepted although the attempt failed
    #[arg(long, env = "AMBIGUOUS_POLICY", value_enum, default_value_t = AmbiguousPolicy::Retry, value_name = "POLICY")]
    ambiguous_policy: AmbiguousPolicy,
}

/// What to do with a message that the provider may have accepted although the attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousPolicy {
    /// Retry it, with the same idempotency key: a provider that honours keys delivers once
    Retry,
    /// Leave it FAILED until an operator decides: for providers without keys
    Hold,
}

/// Which messages wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeliveryOrder {
    /// None: each is sent at once
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

    /// A client of the provider, if one was given.
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

    /// The settings of a gateway between this database and this provider.
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
            app_secrets: Vec::new(),
        }
    }
}

/// The options for a retry worker.
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
