//! What the proofs by crash and by failover have in common: callers who remember what they were
//! told, and what that is compared with.

pub mod callers;
pub mod check;
pub mod whatsapp;

use std::process::ExitCode;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future;
use gateway::cli::guarantee::Guarantee;
use gateway::cli::listener::Listener;
use mock_meta_provider::{Behaviour, Config, Mock, WhatsappBehaviour};
use rand::rngs::StdRng;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::callers::{Caller, Kind, Promise, Receipt};
use self::whatsapp::Relay;
use crate::support::{Program, Run};

/// The most time of an attempt. The mock answers long before, or not at all.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(1);
/// Twice the time of an attempt and 5 s.
pub const LEASE: Duration = Duration::from_secs(7);
/// What has not moved for so long is stuck: longer than leases, and than a message on WhatsApp waits
/// for its status after several lost answers.
const STUCK: Duration = Duration::from_secs(100);
/// Remembers the order of acceptance, which the gateway forgets.
pub const ACCEPTED: &str = "
    create table accepted (message_id uuid primary key, seq bigint not null);
    create function accepted() returns trigger language plpgsql as $$ begin
      insert into accepted values (new.message_id, new.seq);
      return new;
    end $$;
    create trigger accepted after insert on deliveries for each row execute function accepted()";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    None,
    Conversation,
}

impl Order {
    /// What `DELIVERY_ORDER` is to be.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Conversation => "conversation",
        }
    }
}

/// How the gateway and its provider speak of the channel `whatsapp`; of `instagram` always as the
/// mock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Wire {
    MockMeta,
    Whatsapp,
}

/// A subcommand that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Server,
    Worker,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "serve",
            Self::Worker => "worker",
        }
    }
}

/// What callers see, and what they have seen.
pub struct Scene {
    pub mock: Mock,
    pub order: Order,
    pub wire: Wire,
    /// How long a caller rests between two things that it asks for.
    pub pause: Duration,
    /// Where each server listens; none while it does not.
    pub servers: Arc<Servers>,
    /// Where the mock posts statuses to.
    _relay: Relay,
    /// What must never happen, and did.
    pub surprises: Mutex<Vec<String>>,
    /// Messages that are not sent yet, as of a moment ago.
    pub unsent: AtomicI64,
    pub acknowledged: Mutex<Vec<Acknowledged>>,
}

/// Where each server listens; none while it does not.
pub type Servers = Vec<Mutex<Option<String>>>;

/// A message that a caller was told of.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub kind: Kind,
    pub message_id: String,
    pub at: Instant,
}

impl Scene {
    /// One with a provider that misbehaves like this.
    pub async fn set(
        (behaviour, whatsapp): (Behaviour, WhatsappBehaviour),
        random_seed: u64,
        servers: u8,
        (order, wire): (Order, Wire),
        pause: Duration,
    ) -> Self {
        let servers: Arc<Servers> = Arc::new((0..servers).map(|_| Mutex::default()).collect());
        let relay = Relay::start(Arc::clone(&servers)).await;
        let config = Config {
            ledger_max_keys: 1_000_000,
            seed: Some(random_seed),
            behaviour,
            webhook_retry_cap_ms: 500,
            webhook_max_tries: 1000,
            whatsapp: whatsapp::settings(whatsapp, &relay),
            ..Config::calm()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            mock: Mock::start(config, listener).unwrap(),
            order,
            wire,
            pause,
            servers,
            _relay: relay,
            surprises: Mutex::default(),
            unsent: AtomicI64::new(0),
            acknowledged: Mutex::default(),
        }
    }

    /// A process of the gateway on this database, which calls this provider and tries again soon.
    pub fn process(&self, role: Role, database_url: &str) -> Run {
        let run = Program::on(database_url, &[role.name()]);
        let run = match self.wire {
            Wire::MockMeta => run,
            Wire::Whatsapp => run.envs(&whatsapp::environment(&self.mock.url())),
        };
        run.env("PROVIDER_URL", &self.mock.url())
            .env(
                "PROVIDER_TIMEOUT_MS",
                &PROVIDER_TIMEOUT.as_millis().to_string(),
            )
            .env("DELIVERY_ORDER", self.order.name())
            .envs(&[
                ("RETRY_BASE_MS", "50"),
                ("RETRY_CAP_MS", "500"),
                ("RETRY_MAX_ATTEMPTS", "1000"),
                // Order is not given up, however long a conversation is held up.
                ("ORDER_MAX_WAIT_MS", "86400000"),
                ("RUST_LOG", "warn,gateway::cli=info"),
            ])
    }

    pub fn surprise(&self, what: String) {
        self.surprises.lock().unwrap().push(what);
    }

    fn acknowledge(&self, kind: Kind, receipt: &Receipt) {
        let message_id = receipt.message_id.clone();
        let at = Instant::now();
        self.acknowledged.lock().unwrap().push(Acknowledged {
            kind,
            message_id,
            at,
        });
    }
}

/// Listens to whichever server there is.
pub async fn listen(scene: &Arc<Scene>) -> Listener {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let scene = Arc::clone(scene);
    let ask = move |path: &str| {
        let mut servers = scene.servers.iter();
        let server = servers.find_map(|server| server.lock().unwrap().clone())?;
        Some(http.get(format!("{server}{path}")))
    };
    Listener::start(Arc::new(ask), None).await.unwrap()
}

/// Compares what was heard with what the API shows.
pub async fn compare(listener: &Listener, pool: &PgPool) -> Guarantee {
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from conversations")
        .fetch_all(pool)
        .await
        .unwrap();
    let ids: Vec<String> = ids
        .iter()
        .map(|id| format!("conv_{}", id.simple()))
        .collect();
    listener.compare(&ids).await.unwrap()
}

/// Callers at once, until told to stop; what each was told.
pub fn call(
    scene: &Arc<Scene>,
    callers: u16,
    rng: &mut StdRng,
    stop: &CancellationToken,
) -> impl Future<Output = Vec<Promise>> + use<> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let callers = (0..usize::from(callers)).map(|number| {
        let caller = Caller::new(scene, &http, number, rng);
        tokio::spawn(caller.run(stop.clone()))
    });
    let promises = future::try_join_all(callers.collect::<Vec<_>>());
    async move { promises.await.unwrap().into_iter().flatten().collect() }
}

/// Waits until everything is sent; what has not moved for long is stuck, and told.
pub async fn settle(read_unsent: impl AsyncFn() -> Option<i64>) -> Vec<String> {
    let mut moved_at = Instant::now();
    let mut before = i64::MAX;
    loop {
        let unsent = read_unsent().await.unwrap();
        match unsent {
            0 => return Vec::new(),
            _ if unsent < before => {
                before = unsent;
                moved_at = Instant::now();
            }
            _ if moved_at.elapsed() > STUCK => {
                return vec![format!("{unsent} messages are stuck")];
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Ends the last processes in an orderly way; tells what was not.
pub async fn terminate(processes: Vec<Program>) -> Vec<String> {
    let mut left = Vec::new();
    for mut process in processes {
        let status = process.terminate().await;
        if !status.success() {
            left.push(format!("SIGTERM: {status}: {:#?}", process.log()));
        }
    }
    left
}

/// Prints the reports, as tables or as JSON; whether every promise was held.
pub async fn tell<R: Report>(
    json: bool,
    runs: impl IntoIterator<Item: Future<Output = R>>,
) -> ExitCode {
    let mut reports = Vec::new();
    for run in runs {
        let report = run.await;
        if !json {
            report.print();
        }
        reports.push(report);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&reports).unwrap());
    }
    if reports.iter().all(Report::held) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a run tells.
pub trait Report: serde::Serialize {
    /// As tables.
    fn print(&self);
    /// Whether every promise was held.
    fn held(&self) -> bool;
}
