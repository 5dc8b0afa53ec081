//! What a run is asked for.

use reqwest::Url;

use super::client::Credentials;
use super::scenario::Scenario;
use super::system::System;
use super::whatsapp::Wire;
use crate::cli::output;
use crate::config::{self, DeliveryOrder};
use crate::error::UsageError;
use crate::peer;
use crate::process::hidden::Hidden;

/// Test the guarantees under duplicates, disorder, provider failures and crashes, and report which
/// held
///
/// Runs the scenarios that are named, or all. The exit code is 1 if a guarantee is broken.
///
/// It starts a system of its own, and stops it at the end: a private PostgreSQL in a temporary
/// directory, a mock provider, `serve` and `worker`.
///
/// With --whatsapp the provider speaks WhatsApp's Cloud API. There it knows no idempotency keys, but
/// tells by statuses what became of each message: they come early, late, twice, in any order, many
/// in a body, or never.
///
/// With --against and --mock it drives a running gateway instead. It uses API_KEYS and
/// WEBHOOK_SECRET of the environment (or the files that API_KEYS_FILE and WEBHOOK_SECRET_FILE
/// name), and writes only as participants named `sim-<seed>-…`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  gateway simulate\n  gateway simulate --crash --lost-answer --events 5000\n  \
                  gateway simulate --whatsapp --lost-answer --silence\n  \
                  gateway simulate --duplicate --against http://localhost:3000 --mock http://localhost:4000"
)]
pub struct Args {
    /// Deliver each event 2 to 5 times, at once and later
    #[arg(long)]
    duplicate: bool,
    /// Deliver later events before earlier ones
    #[arg(long)]
    out_of_order: bool,
    /// The provider answers 429 with Retry-After a few times; each pauses a whole channel
    #[arg(long)]
    rate_limit: bool,
    /// The provider answers 500 and 503
    #[arg(long)]
    server_error: bool,
    /// The provider does not answer, or answers after the gateway has given up
    #[arg(long)]
    timeout: bool,
    /// The connection breaks before or after the provider has accepted the message, or its answer
    /// cannot be read
    #[arg(long)]
    lost_answer: bool,
    /// The provider is slow
    #[arg(long)]
    delay: bool,
    /// Kill the server and the worker, and start them again; not with --against
    #[arg(long, conflicts_with = "against")]
    crash: bool,
    /// Measure throughput and latency at full speed, and compare with a transaction per event
    ///
    /// There are 5 rounds of N events. Each round goes to the gateway, and then to a transaction as
    /// one would write it by hand: insert the event, upsert the conversation, insert the message.
    /// That one runs behind a server of its own on the same database server, with a connection for
    /// each caller (at most 64) and without the gateway's checks. The report has the ratio. With
    /// --against there is no database for the transaction, and so no ratio.
    #[arg(long)]
    burst: bool,
    /// Let the provider speak WhatsApp's Cloud API; not with --against
    #[arg(long, conflicts_with = "against")]
    whatsapp: bool,
    /// Deliver many events in a body, among items that nobody understands; with --whatsapp
    #[arg(long, requires = "whatsapp")]
    batches: bool,
    /// Statuses come early, late, twice, in any order and many in a body; with --whatsapp
    #[arg(long, requires = "whatsapp")]
    statuses: bool,
    /// Messages fail after they were accepted; with --whatsapp
    #[arg(long, requires = "whatsapp")]
    undelivered: bool,
    /// No statuses come, while answers are lost; with --whatsapp
    #[arg(long, requires = "whatsapp")]
    silence: bool,
    /// Run all scenarios; with --against: all except --crash
    #[arg(long)]
    all: bool,
    /// Events, or messages, of each scenario
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub events: u32,
    /// Conversations at the same time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "C")]
    pub concurrency: u32,
    /// Repeat the run with this seed [default: a random one, which is printed]
    #[arg(long, value_name = "S")]
    pub random_seed: Option<u64>,
    /// The base URL of a running gateway to test, without ? and #
    #[arg(
        long,
        env = "SIMULATE_AGAINST",
        hide_env_values = true,
        value_name = "URL",
        requires = "mock"
    )]
    against: Option<Hidden<String>>,
    /// The base URL of the running gateway's mock provider
    #[arg(
        long,
        env = "SIMULATE_MOCK",
        hide_env_values = true,
        value_name = "URL",
        requires = "against"
    )]
    mock: Option<Hidden<String>>,
    /// The delivery order that the system keeps [default: conversation; with --against: none]
    #[arg(long, env = "DELIVERY_ORDER", value_enum, value_name = "ORDER")]
    delivery_order: Option<DeliveryOrder>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Let the mock provider deliver a repeated idempotency key again, and WhatsApp be sent again what
    /// nobody told of, to show a broken guarantee
    #[arg(long, hide = true, conflicts_with = "against")]
    break_deduplication: bool,
}

impl Args {
    /// What was asked for, in order.
    pub fn scenarios(&self) -> Vec<Scenario> {
        let requested = |scenario: &Scenario| match scenario {
            Scenario::Duplicate => self.duplicate,
            Scenario::OutOfOrder => self.out_of_order,
            Scenario::RateLimit => self.rate_limit,
            Scenario::ServerError => self.server_error,
            Scenario::Timeout => self.timeout,
            Scenario::LostAnswer => self.lost_answer,
            Scenario::Delay => self.delay,
            Scenario::Crash => self.crash,
            Scenario::BurstOfEvents | Scenario::BurstOfSends => self.burst,
            Scenario::Batches => self.batches,
            Scenario::Statuses => self.statuses,
            Scenario::Undelivered => self.undelivered,
            Scenario::Silence => self.silence,
        };
        let mut scenarios = Scenario::ALL.to_vec();
        scenarios.retain(|scenario| self.whatsapp || !scenario.is_of_whatsapp());
        if self.all || !scenarios.iter().any(requested) {
            scenarios.retain(|scenario| self.against.is_none() || *scenario != Scenario::Crash);
        } else {
            scenarios.retain(requested);
        }
        scenarios
    }

    fn wire(&self) -> Wire {
        if self.whatsapp {
            Wire::Whatsapp
        } else {
            Wire::MockMeta
        }
    }

    /// What is tested: a running gateway, or a system of its own.
    pub async fn system(&self) -> anyhow::Result<System> {
        let order = self.delivery_order;
        if let (Some(gateway), Some(mock)) = (&self.against, &self.mock) {
            let gateway = base_url("SIMULATE_AGAINST", gateway)?;
            let mock = base_url("SIMULATE_MOCK", mock)?;
            let (api_key, webhook_secret) = config::credentials()?;
            let credentials = Credentials {
                api_key,
                webhook_secret,
            };
            let order = order.unwrap_or(DeliveryOrder::None);
            return System::running(gateway, mock, credentials, order).await;
        }
        output::say("bringing up a system of its own");
        let order = order.unwrap_or(DeliveryOrder::Conversation);
        System::start(order, !self.break_deduplication, self.wire()).await
    }
}

fn base_url(name: &str, url: &str) -> Result<Url, UsageError> {
    peer::base_url(url)
        .map_err(|wrong| UsageError(format!("{name} {wrong}, such as http://localhost:3000")))
}
