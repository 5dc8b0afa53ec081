//! The system under test: one that is started for it, or one that runs already.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mock_meta_provider::{Behaviour, Config, Mock};
use reqwest::Url;
use sqlx::ConnectOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::client::{Credentials, Gateway, Provider};
use super::process::Process;
use super::scenario::Scenario;
use super::whatsapp::{self, PHONE_NUMBER_ID, Wire};
use crate::config::DeliveryOrder;
use crate::database::embedded::Embedded;
use crate::peer;

/// `PROVIDER_TIMEOUT_MS` of a system of our own. A lease is twice as long and 5 s.
const PROVIDER_TIMEOUT_MS: u64 = 1000;
/// The default, which a running system is believed to have.
const USUAL_PROVIDER_TIMEOUT_MS: u64 = 10_000;
/// `RECONCILE_WAIT_MS` of a system of our own: statuses come within it, also on a busy machine, and
/// also those that are made to come late.
const RECONCILE_WAIT_MS: u64 = 6000;
/// Where WhatsApp's events and statuses are posted to.
const WHATSAPP_WEBHOOK: &str = "/webhooks/whatsapp";
/// Of a provider that is started and stopped with the run, on this machine.
const ACCESS_TOKEN: &str = "the-token-of-a-simulation";
const VERIFY_TOKEN: &str = "the-verify-token-of-a-simulation";
/// How long a system of our own may take to be ready.
const START: Duration = Duration::from_mins(1);
/// The most connections of the hand-written transaction. The database server has 100, and the
/// gateway needs some.
const MAX_CONNECTIONS: usize = 64;
/// Idempotency keys that the mock remembers: all of a run.
const LEDGER_KEYS: u32 = 1_000_000;

/// A gateway and its provider, as the outside sees them.
#[derive(Debug)]
pub struct System {
    pub gateway: Arc<Gateway>,
    pub provider: Provider,
    /// Whether the messages of a conversation must be delivered in order.
    pub ordered: bool,
    /// An answer after this time comes when the gateway has given up.
    pub too_late_ms: u64,
    /// If nothing moves for this long, what is left counts as stuck.
    pub stuck_after: Duration,
    pub wire: Wire,
    own: Option<Own>,
}

/// What was started, in the order in which it is stopped.
#[derive(Debug)]
struct Own {
    environment: Vec<(&'static str, String)>,
    server: Mutex<Option<Process>>,
    worker: Mutex<Option<Process>>,
    hand_written: Mutex<Option<Process>>,
    mock: Mock,
    database: Embedded,
    _directory: TempDir,
}

/// The hand-written transaction, as the outside sees it.
#[derive(Debug)]
pub struct HandWritten {
    /// A caller of it; it takes events as the gateway does.
    pub gateway: Gateway,
    /// Its connections to the database.
    pub connections: usize,
}

#[derive(Debug, Clone, Copy)]
pub enum Part {
    Server,
    Worker,
}

impl System {
    /// A system that runs already. Only the mock's answers to the run's own participants are
    /// configured.
    pub async fn running(
        gateway_url: Url,
        mock_url: Url,
        credentials: Credentials,
        order: DeliveryOrder,
    ) -> anyhow::Result<Self> {
        let system = Self {
            gateway: Arc::new(Gateway::new(gateway_url, credentials, Wire::MockMeta)?),
            provider: Provider::new(mock_url)?,
            ordered: order == DeliveryOrder::Conversation,
            too_late_ms: USUAL_PROVIDER_TIMEOUT_MS + 500,
            stuck_after: Duration::from_mins(3),
            wire: Wire::MockMeta,
            own: None,
        };
        system.gateway.ready(Duration::ZERO).await?;
        Ok(system)
    }

    /// Starts a system: a private PostgreSQL in a temporary directory, the mock provider, and
    /// `serve` and `worker` as processes of their own. With `dedupe` the mock delivers an
    /// idempotency key once; and on WhatsApp's wire, where there are none, what nobody told of is
    /// held.
    pub async fn start(order: DeliveryOrder, dedupe: bool, wire: Wire) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gateway-simulate-")
            // The user that PostgreSQL runs as must pass it; the data directory in it is closed.
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir()
            .context("cannot make a temporary directory")?;
        let database = Embedded::start(&directory.path().join("data")).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let credentials = Credentials::random();
        let app_secret = credentials.webhook_secret.clone().unwrap_or_default();
        let config = Config {
            whatsapp: whatsapp::provider(ACCESS_TOKEN, &app_secret),
            ledger_max_keys: LEDGER_KEYS,
            behaviour: Behaviour {
                dedupe,
                ..Behaviour::CALM
            },
            ..Config::calm()
        };
        let mock = Mock::start(config, listener)?;
        let mut environment = environment(&database, &mock, &credentials, order, wire);
        if !dedupe {
            environment.push(("AMBIGUOUS_POLICY", "retry".to_owned()));
        }
        let (server, listening) = Process::start("serve", &environment, "listening").await?;
        let url = address(&listening)?;
        mock.set_whatsapp_webhook_url(peer::below(&url, WHATSAPP_WEBHOOK).as_str())?;
        let gateway = Arc::new(Gateway::new(url, credentials, wire)?);
        gateway.ready(START).await?;
        let (worker, _) = Process::start("worker", &environment, "working").await?;
        Ok(Self {
            gateway,
            provider: Provider::new(mock.url().parse()?)?,
            ordered: order == DeliveryOrder::Conversation,
            too_late_ms: PROVIDER_TIMEOUT_MS + 500,
            stuck_after: Duration::from_mins(1),
            wire,
            own: Some(Own {
                environment,
                server: Mutex::new(Some(server)),
                worker: Mutex::new(Some(worker)),
                hand_written: Mutex::new(None),
                mock,
                database,
                _directory: directory,
            }),
        })
    }

    /// How WhatsApp's statuses come from now on.
    pub fn behave(&self, scenario: Scenario) -> anyhow::Result<()> {
        if let Some(own) = self.own.as_ref().filter(|_| self.wire == Wire::Whatsapp) {
            let behaviour = whatsapp::behaviour(scenario);
            own.mock.set_whatsapp_behaviour(behaviour)?;
        }
        Ok(())
    }

    /// Sends something whose statuses are a witness that statuses come. Whether it works is not what
    /// is tried.
    pub async fn witness(&self) {
        if self.wire == Wire::Whatsapp {
            self.gateway.witness().await.ok();
        }
    }

    /// Whether others use it too.
    pub fn is_shared(&self) -> bool {
        self.own.is_none()
    }

    /// Starts the hand-written transaction on the gateway's database, with a connection for each
    /// caller; none if that database is not ours.
    pub async fn start_hand_written(&self, callers: usize) -> anyhow::Result<Option<HandWritten>> {
        let Some(own) = &self.own else {
            return Ok(None);
        };
        let connections = callers.min(MAX_CONNECTIONS);
        let mut environment = own.environment.clone();
        environment.push(("DATABASE_MAX_CONNECTIONS", connections.to_string()));
        let (process, listening) = Process::start("baseline", &environment, "listening").await?;
        *own.hand_written.lock().await = Some(process);
        Ok(Some(HandWritten {
            // It checks no signature, but making one costs the caller the same as with the gateway.
            gateway: Gateway::new(address(&listening)?, Credentials::random(), Wire::MockMeta)?,
            connections,
        }))
    }

    /// Ends the hand-written transaction.
    pub async fn end_hand_written(&self) -> anyhow::Result<()> {
        let Some(own) = &self.own else {
            return Ok(());
        };
        match own.hand_written.lock().await.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Kills a part of a system of our own and starts it again.
    pub async fn crash(&self, part: Part) -> anyhow::Result<()> {
        let Some(own) = &self.own else {
            return Ok(());
        };
        let (process, subcommand, message) = match part {
            Part::Server => (&own.server, "serve", "listening"),
            Part::Worker => (&own.worker, "worker", "working"),
        };
        let mut process = process.lock().await;
        if let Some(running) = process.take() {
            running.kill().await?;
        }
        let (started, fields) = Process::start(subcommand, &own.environment, message).await?;
        *process = Some(started);
        if matches!(part, Part::Server) {
            let url = address(&fields)?;
            own.mock
                .set_whatsapp_webhook_url(peer::below(&url, WHATSAPP_WEBHOOK).as_str())?;
            self.gateway.moved(url);
        }
        Ok(())
    }

    /// An error, if a process of ours has ended by itself.
    pub async fn check(&self) -> anyhow::Result<()> {
        let Some(own) = &self.own else {
            return Ok(());
        };
        for process in [&own.server, &own.worker, &own.hand_written] {
            if let Some(process) = process.lock().await.as_mut() {
                process.check()?;
            }
        }
        Ok(())
    }

    /// Stops what was started.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Some(own) = self.own else {
            return Ok(());
        };
        for process in [own.server, own.worker, own.hand_written] {
            if let Some(process) = process.into_inner() {
                process.kill().await?;
            }
        }
        own.mock.stop().await;
        Ok(own.database.stop().await?)
    }
}

fn environment(
    database: &Embedded,
    mock: &Mock,
    credentials: &Credentials,
    order: DeliveryOrder,
    wire: Wire,
) -> Vec<(&'static str, String)> {
    let order = match order {
        DeliveryOrder::None => "none",
        DeliveryOrder::Conversation => "conversation",
    };
    let mut environment = vec![
        (
            "DATABASE_URL",
            database.options().to_url_lossy().to_string(),
        ),
        ("PORT", "0".to_owned()),
        ("DELIVERY_ORDER", order.to_owned()),
        // The usual behaviour, but faster.
        ("PROVIDER_TIMEOUT_MS", PROVIDER_TIMEOUT_MS.to_string()),
        ("SEND_WAIT_MS", "500".to_owned()),
        ("RETRY_BASE_MS", "50".to_owned()),
        ("RETRY_CAP_MS", "1000".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
        ("RUST_LOG", "warn,gateway::cli=info".to_owned()),
    ];
    environment.extend(credentials.environment(wire));
    environment.extend(match wire {
        Wire::MockMeta => vec![("PROVIDER_URL", mock.url())],
        Wire::Whatsapp => vec![
            ("GRAPH_URL", mock.url()),
            ("WHATSAPP_PHONE_NUMBER_ID", PHONE_NUMBER_ID.to_owned()),
            ("WHATSAPP_ACCESS_TOKEN", ACCESS_TOKEN.to_owned()),
            ("META_VERIFY_TOKEN", VERIFY_TOKEN.to_owned()),
            ("RECONCILE_WAIT_MS", RECONCILE_WAIT_MS.to_string()),
        ],
    });
    environment
}

fn address(listening: &serde_json::Value) -> anyhow::Result<Url> {
    let address = listening["address"].as_str().map(str::parse);
    Ok(address.context("gateway serve did not say where it listens")??)
}
