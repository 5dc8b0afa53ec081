//! How messages are delivered: by which provider, how often, and in which order.

use std::time::Duration;

use clap::{Args, ValueEnum};
use strum::VariantNames as _;

use super::usage::{url_of, usage};
use super::whatsapp::WhatsappArgs;
use crate::app::{Role, Settings};
use crate::channel::Channel;
use crate::database::plans::Plans;
use crate::database::target::Target;
use crate::delivery::DeliveryPolicy;
use crate::delivery::backoff::{Ambiguity, Backoff, Unproven};
use crate::error::UsageError;
use crate::peer::{self, Peer};
use crate::process::hidden::Hidden;
use crate::provider::client::Client;
use crate::provider::providers::Providers;
use crate::provider::wire::Wire;

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
    #[command(flatten)]
    whatsapp: WhatsappArgs,
}

impl ProviderArgs {
    /// A client of the provider at this URL.
    fn client(&self, url: &str) -> Result<Client, UsageError> {
        let url = url_of(
            "PROVIDER_URL",
            peer::base_url(url),
            "https://provider.example",
        )?;
        let wire = Wire::mock_meta(&url);
        Client::new(Peer::at(url), wire, self.timeout())
            .or_else(|error| usage(format!("PROVIDER_URL: {error}")))
    }

    /// The providers that were given, if there is one.
    fn providers(&self) -> Result<Option<Providers>, UsageError> {
        let url = self.provider_url.as_deref();
        let usual = url.map(|url| self.client(url)).transpose()?;
        let Some(account) = self.whatsapp.account()? else {
            return Ok(usual.map(Providers::usual));
        };
        let peer = Peer::at(reqwest::Url::clone(&account.graph_url));
        let wire = Wire::Whatsapp(Box::new(account.clone()));
        let client = Client::new(peer, wire, self.timeout())
            .or_else(|error| usage(format!("GRAPH_URL: {error}")))?;
        Ok(Some(Providers::with_whatsapp(usual, client, account)))
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.provider_timeout_ms)
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
    /// What to do with a message that the provider may have accepted although the attempt failed;
    /// unset: retry, but on WhatsApp's own wire, which knows no keys, reconcile
    #[arg(long, env = "AMBIGUOUS_POLICY", value_enum, value_name = "POLICY")]
    ambiguous_policy: Option<AmbiguousPolicy>,
    /// How long a message that WhatsApp may have accepted waits for a status that says so, in
    /// milliseconds; each further time twice as long, up to 15 minutes
    #[arg(long, env = "RECONCILE_WAIT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..=900_000), value_name = "MS")]
    reconcile_wait_ms: u64,
}

/// What to do with a message that the provider may have accepted although the attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousPolicy {
    /// Retry it, with the same idempotency key: a provider that honours keys delivers once
    Retry,
    /// Leave it FAILED until an operator decides: for providers without keys
    Hold,
    /// On WhatsApp's own wire: retry it if statuses of later messages show that none of its own is
    /// to come, else leave it FAILED until an operator decides; elsewhere: retry
    Reconcile,
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

    /// The providers that were given, if there is one.
    pub fn providers(&self) -> Result<Option<Providers>, UsageError> {
        self.provider.providers()
    }

    /// The provider at this URL, for all channels.
    pub fn provider_at(&self, url: &str) -> Result<Providers, UsageError> {
        self.provider.client(url).map(Providers::usual)
    }

    /// The same of messages on a wire whose provider knows no idempotency key.
    fn reconciling(&self) -> Ambiguity {
        let wait = Duration::from_millis(self.reconcile_wait_ms);
        match self.ambiguous_policy {
            Some(AmbiguousPolicy::Hold) => Ambiguity::Hold,
            Some(AmbiguousPolicy::Retry) => Ambiguity::Wait(wait, Unproven::Send),
            Some(AmbiguousPolicy::Reconcile) | None => Ambiguity::Wait(wait, Unproven::Park),
        }
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
            channels: Channel::VARIANTS,
        }
    }

    /// The settings of a gateway between this database and this provider.
    #[must_use]
    pub fn settings(
        &self,
        role: Role,
        (database, connections, plans): (Target, u32, Plans),
        providers: Providers,
    ) -> Settings {
        let policy = DeliveryPolicy {
            channels: providers.channels(),
            ..self.policy()
        };
        Settings {
            role,
            database: database.into(),
            connections,
            plans,
            providers,
            backoff: Backoff {
                max_attempts: self.retry_max_attempts,
                base: Duration::from_millis(self.retry_base_ms),
                cap: Duration::from_millis(self.retry_cap_ms),
                ambiguity: match self.ambiguous_policy {
                    Some(AmbiguousPolicy::Hold) => Ambiguity::Hold,
                    Some(AmbiguousPolicy::Retry | AmbiguousPolicy::Reconcile) | None => {
                        Ambiguity::Retry
                    }
                },
            },
            reconciling: self.reconciling(),
            send_wait: Duration::from_millis(self.send_wait_ms),
            send_concurrency: self.send_concurrency(),
            policy,
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
