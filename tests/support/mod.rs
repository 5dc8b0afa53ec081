//! What every test stands on: a database of its own, a mock provider of its own, and the real
//! program.

#[allow(dead_code)] // the proof by failover uses the rest
mod cluster;
mod collector;
mod database;
pub mod graph;
mod held;
mod http;
mod listener;
mod plan;
mod pooler;
mod process;
mod proxy;
mod repository;
mod settings;
mod standby;
pub mod whatsapp;

use std::time::{Duration, Instant};

use mock_meta_provider::{Config, Mock};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use cluster::Cluster;
pub use collector::{Collector, Span};
pub use database::{Database, Postgres, Role, Stopped};
pub use held::{Held, HeldCall};
pub use http::{Answer, Client, WEBHOOK, assert_full_service, rest, signature};
pub use listener::{Event, Listener};
pub use plan::{explain, plan, rows_of, settings};
pub use pooler::{Pooler, PoolerVersion};
pub use process::{Finished, Program, Run, copy_program, signal};
pub use proxy::{Proxy, relay, relay_to};
pub use repository::{Statement, files, read, statement, statements};
pub use settings::{
    ALL_LINES, LONG_ATTEMPT, NO_FIRST_ATTEMPT, NO_RETRY, NOWHERE, ORDERED, RETRY_AT_ONCE,
    SHORT_WAIT,
};
pub use standby::{Standby, Switch, socket_of};

/// How long to wait for what must happen; on a busy machine things take long, and no test passes by
/// waiting.
const DEADLINE: Duration = Duration::from_mins(1);

/// Waits until `probe` has something to show.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A mock provider without misbehaviour; scripts and `set_behaviour` add it.
pub async fn mock() -> Mock {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Mock::start(Config::calm(), listener).unwrap()
}

/// A gateway between a database and a mock provider of its own.
pub struct System {
    pub database: Database,
    pub mock: Mock,
    pub gateway: Program,
    pub client: Client,
}

impl System {
    /// `gateway serve` with its defaults.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// `gateway serve` with these environment variables.
    pub async fn with(environment: &[(&str, &str)]) -> Self {
        Self::on(Database::new().await, environment).await
    }

    /// `gateway serve` on this database, with these environment variables.
    pub async fn on(database: Database, environment: &[(&str, &str)]) -> Self {
        let url = database.url().to_owned();
        Self::at(&url, database, &["serve"], environment).await
    }

    /// `gateway serve --no-worker` with these environment variables.
    pub async fn without_worker(environment: &[(&str, &str)]) -> Self {
        let database = Database::new().await;
        let url = database.url().to_owned();
        Self::at(&url, database, &["serve", "--no-worker"], environment).await
    }

    /// This `gateway serve` on this database, by way of this URL.
    pub async fn at(
        url: &str,
        database: Database,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mock = mock().await;
        let (gateway, client) = serve_at(url, &mock.url(), arguments, environment).await;
        Self {
            database,
            mock,
            gateway,
            client,
        }
    }

    /// One more `gateway serve` on the same database and provider.
    pub async fn another(&self, environment: &[(&str, &str)]) -> (Program, Client) {
        let (database, provider) = (self.database.url(), self.mock.url());
        serve_at(database, &provider, &["serve"], environment).await
    }

    /// A `gateway worker` on the same database and provider.
    pub async fn worker(&self, environment: &[(&str, &str)]) -> Program {
        let worker = self.run(&["worker"], environment).start();
        worker.logged("working").await;
        worker
    }

    /// `gateway worker --drain` on the same database and provider: when it returns, nothing is due,
    /// and nothing of its own in flight.
    pub async fn drain(&self, environment: &[(&str, &str)]) {
        let drained = self.run(&["worker", "--drain"], environment).finish().await;
        assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
        Program::on(self.database.url(), arguments)
            .env("PROVIDER_URL", &self.mock.url())
            .envs(environment)
    }

    /// Sends a text to a participant on whatsapp; the message.
    pub async fn send(&self, to: &str, text: &str) -> Value {
        let body = json!({ "channel": "whatsapp", "to": to, "text": text });
        self.client.post("/messages/send", &body).await.expect(201)
    }

    /// Has an operator `retry` or `cancel` a message, which must be answered with this status.
    pub async fn act(&self, message: &Value, verb: &str, status: u16) -> Value {
        let path = format!("/messages/{}/{verb}", id(message));
        self.client.post(&path, &json!({})).await.expect(status)
    }

    /// The message as it is now.
    pub async fn message(&self, id: &str) -> Value {
        self.client
            .get(&format!("/messages/{id}"))
            .await
            .expect(200)
    }

    /// Waits until the message has this status.
    pub async fn message_becomes(&self, id: &str, status: &str) -> Value {
        eventually(&format!("{id} becomes {status}"), async || {
            let message = self.message(id).await;
            (message["status"] == status).then_some(message)
        })
        .await
    }

    /// Ends every lease now, as if its time were over.
    pub async fn expire_leases(&self) {
        self.database
            .execute("update deliveries set due_at = now() where lease_token is not null")
            .await;
    }

    /// Ends the pauses of all channels, and what follows them, as if their time were over.
    pub async fn end_pauses(&self) {
        self.database
            .execute("update channels set paused_until = 'epoch', ramp_until = 'epoch'")
            .await;
    }

    /// Makes what waits for its next attempt due now; not what waits behind another message.
    pub async fn skip_backoffs(&self) {
        self.database
            .execute("update deliveries set due_at = now() where lease_token is null and attempt > 0 and due_at is not null")
            .await;
    }

    /// Makes everything that waits for a time due now, so that no test waits for it.
    pub async fn skip_waits(&self) {
        self.end_pauses().await;
        self.database
            .execute("update deliveries set due_at = now() where due_at is not null")
            .await;
    }
}

/// A `gateway serve` that is ready.
pub async fn serve(database: &Database, mock: &Mock, environment: &[(&str, &str)]) -> Program {
    let (program, _) = serve_at(database.url(), &mock.url(), &["serve"], environment).await;
    program
}

/// A `gateway serve`, with these arguments, that is ready; and a caller of it.
pub async fn serve_at(
    database_url: &str,
    provider_url: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Program, Client) {
    let program = Program::on(database_url, arguments)
        .env("PROVIDER_URL", provider_url)
        .envs(environment)
        .start();
    program.logged("ready").await;
    let client = Client::new(program.url());
    (program, client)
}

/// A command on this database.
pub fn run(database: &Database, subcommand: &str, arguments: &[&str]) -> Run {
    Program::new(subcommand)
        .args(arguments)
        .env("DATABASE_URL", database.url())
}

/// A webhook's body.
pub fn event(event_id: &str, from: &str, text: &str, timestamp: &str) -> Value {
    json!({ "eventId": event_id, "channel": "whatsapp", "from": from, "text": text, "timestamp": timestamp })
}

/// One that nothing is special about.
pub fn hello(event_id: &str) -> Value {
    event(event_id, "user-1", "Hello", "2025-01-01T10:00:00Z")
}

/// The id of a message or a conversation.
pub fn id(shown: &Value) -> &str {
    shown["id"].as_str().unwrap()
}

/// A time as the API shows it, as many seconds from now.
pub fn seconds_from_now(seconds: i64) -> String {
    let time = chrono::Utc::now() + chrono::Duration::seconds(seconds);
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
