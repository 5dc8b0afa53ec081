//! The database away, stuck or locked: nobody is told a lie, nothing acknowledged is lost, and all
//! goes on by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mock_meta_provider::Fault;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Executor as _};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Answer, Client, Postgres, Program, Stopped, System, WEBHOOK, event, eventually, hello,
};

pub const CALLERS: usize = 16;
/// What a caller bears; no answer takes as long as that.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_killed_database_loses_nothing_that_was_acknowledged() {
    let postgres = Postgres::start().await;
    let mut system = System::on(postgres.database().await, &[]).await;
    let load = Load::default();
    let outage = async {
        load.goes_on().await;
        // Back at once; then away until the gateway has noticed.
        Stopped::all_of(&postgres).kill();
        load.goes_on().await;
        let away = Away::take(&postgres);
        system.client.becomes_unready().await;
        drop(away);
        system.client.becomes_ready().await;
        load.goes_on().await;
        load.over.cancel();
    };
    let (promises, ()) = tokio::join!(load.run(&system.client), outage);
    assert_kept(&system, &promises).await;
    assert!(system.gateway.terminate().await.success());
}

#[tokio::test]
async fn a_stuck_database_is_503_in_bounded_time_and_loses_nothing() {
    let postgres = Postgres::start().await;
    let mut system = System::on(postgres.database().await, &[("SEND_WAIT_MS", "1000")]).await;
    let load = Load::default();
    let outage = async {
        load.goes_on().await;
        let stopped = Stopped::all_of(&postgres);
        system.client.becomes_unready().await;
        for path in ["/conversations", "/messages?status=FAILED"] {
            let request = system
                .client
                .http
                .get(system.client.url(path))
                .timeout(PATIENCE);
            let answer = system.client.call(request).await.unwrap();
            let refused = answer.expect_problem(503, "database_unavailable");
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.contains("does not answer"), "{detail}");
        }
        // The statement that hangs is seen while it does.
        eventually("an item in a writer's hand grows old", async || {
            (system
                .client
                .metric("gateway_batch_oldest_seconds{writer=\"ingest\"}")
                .await
                > 0.5)
                .then_some(())
        })
        .await;
        eventually("every caller is refused", async || {
            (load.refused() == CALLERS).then_some(())
        })
        .await;
        drop(stopped);
        system.client.becomes_ready().await;
        load.goes_on().await;
        load.over.cancel();
    };
    let (promises, ()) = tokio::join!(load.run(&system.client), outage);
    for writer in ["ingest", "accept"] {
        let age = format!("gateway_batch_oldest_seconds{{writer=\"{writer}\"}}");
        assert!(system.client.metric(&age).await < 0.1);
    }
    assert_kept(&system, &promises).await;
    assert!(system.gateway.terminate().await.success());
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once_and_counted() {
    let postgres = Postgres::start().await;
    let system = System::on(postgres.database().await, &[]).await;
    let stopped = Stopped::all_of(&postgres);
    let hello = |n: usize| hello(&format!("evt_{n}"));
    let refused = eventually("the queue is full", async || {
        // A caller that hangs up leaves its place taken.
        let calls = (0..100).map(async |n| {
            let request = system
                .client
                .http
                .post(system.client.url("/webhooks/mock-meta"));
            let request = request.json(&hello(n)).timeout(Duration::from_millis(200));
            system.client.call(request).await.ok()
        });
        let mut answers = join_all(calls).await.into_iter().flatten();
        answers.find(|answer| answer.json()["code"] == "overloaded")
    })
    .await;
    refused.expect_problem(503, "overloaded");
    let metrics = system.client.get("/metrics").await.text;
    let counted = "gateway_queue_full_total{writer=\"ingest\"} ";
    let counted = metrics.lines().find_map(|line| line.strip_prefix(counted));
    assert_ne!(counted.unwrap(), "0");
    drop(stopped);
    system.client.becomes_ready().await;
    eventually("there is room again", async || {
        let answer = system.client.webhook(&hello(0)).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_start_before_a_stuck_database_waits_and_says_so() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let stopped = Stopped::all_of(&postgres);
    let run = Program::new("serve").env("DATABASE_URL", database.url());
    let gateway = run.env("PROVIDER_URL", "http://127.0.0.1:1").start();
    let waits = async || {
        let log = gateway.log().concat();
        log.contains("waiting for the database").then_some(())
    };
    eventually("it says that it waits", waits).await;
    let client = Client::new(gateway.url());
    client.get("/health").await.expect(200);
    let ready = client.get("/ready").await;
    ready.expect_problem(503, "database_unavailable");
    drop(stopped);
    gateway.logged("ready").await;
    client.get("/ready").await.expect(200);
}

#[tokio::test]
async fn a_worker_outlives_its_database() {
    let postgres = Postgres::start().await;
    let mut system = System::on(postgres.database().await, &[]).await;
    system
        .mock
        .script_always(None, Fault::rate_limit_after(3600));
    let message = system.send("user-1", "Merhaba").await;
    assert_eq!(message["status"], "FAILED");
    system.gateway.terminate().await;
    let mut worker = system.worker(&[]).await;

    let away = Away::take(&postgres);
    notices(&worker, 1).await;
    drop(away);
    eventually("the server is back", async || {
        postgres.embedded.options().connect().await.ok()
    })
    .await;
    let stuck = Stopped::all_of(&postgres);
    let noticed = complaints(&worker);
    notices(&worker, noticed + 1).await;
    drop(stuck);
    system.mock.script(None, []);
    system.skip_waits().await;
    let sent = "select count(*) from messages where status = 'SENT'";
    eventually("it is sent", async || {
        (system.database.count(sent).await == 1).then_some(())
    })
    .await;
    assert!(worker.terminate().await.success());
}

#[tokio::test]
async fn a_locked_conversation_is_503_and_the_others_go_on() {
    let system = System::start().await;
    let hello = event("first", "locked", "Hello", "2025-01-01T10:00:00Z");
    system.client.webhook(&hello).await.expect(200);
    let mut stranger = system.database.options().connect().await.unwrap();
    let lock = "begin; select * from conversations where participant_id = 'locked' for update";
    stranger.execute(sqlx::raw_sql(lock)).await.unwrap();

    let is_locked = |n: usize| n % 16 < 2;
    let requests = (0..64).map(|n| {
        let user = format!("user-{n}");
        request(
            n,
            &format!("key-{n}"),
            if is_locked(n) { "locked" } else { &user },
        )
    });
    let requests: Vec<(&str, Value)> = requests.collect();
    let post_all = || {
        join_all(
            requests
                .iter()
                .map(|(path, body)| system.client.post(path, body)),
        )
    };
    for (n, answer) in post_all().await.iter().enumerate() {
        match requests[n].0 {
            _ if is_locked(n) => drop(answer.expect_problem(503, "database_unavailable")),
            WEBHOOK => drop(answer.expect(200)),
            _ => assert_eq!(answer.expect(201)["status"], "SENT"),
        }
    }
    eventually("it is said of an event which", async || {
        let lines = system.gateway.lines("request not served");
        let events = lines.iter().map(|line| &line["span"]["event_id"]);
        let mut known = events.filter_map(Value::as_str);
        known.any(|id| id.starts_with("key-")).then_some(())
    })
    .await;
    // Until here it was locked.
    stranger.execute("rollback").await.unwrap();
    for answer in post_all().await {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
    }
    let messages = system.database.count("select count(*) from messages").await;
    assert_eq!((messages, system.mock.ledger().deliveries()), (65, 32));
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_locked_conversation_cannot_be_read_until_it_is_free() {
    let system = System::start().await;
    let at = "2025-01-01T10:00:00Z";
    let receipt = system
        .client
        .webhook(&event("evt_1", "user-1", "Hello", at))
        .await
        .expect(200);
    let read = format!(
        "/conversations/{}/read",
        receipt["conversationId"].as_str().unwrap()
    );
    let mut stranger = system.database.options().connect().await.unwrap();
    stranger
        .execute(sqlx::raw_sql(
            "begin; select * from conversations for update",
        ))
        .await
        .unwrap();
    system
        .client
        .post_empty(&read)
        .await
        .expect_problem(503, "database_unavailable");
    assert_eq!(system.client.conversation("user-1").await["unreadCount"], 1);
    stranger.execute("rollback").await.unwrap();
    assert_eq!(
        system.client.post_empty(&read).await.expect(200)["unreadCount"],
        0
    );
}

/// A webhook or a send, which can be repeated.
fn request(number: usize, key: &str, participant: &str) -> (&'static str, Value) {
    if number.is_multiple_of(2) {
        (
            WEBHOOK,
            event(key, participant, key, "2025-01-01T10:00:00Z"),
        )
    } else {
        let send = json!({ "channel": "whatsapp", "to": participant, "text": key, "clientMessageId": key });
        ("/messages/send", send)
    }
}

/// Callers that go on, and repeat each request until it is acknowledged.
#[derive(Default)]
pub struct Load {
    pub over: CancellationToken,
    acknowledged: [AtomicUsize; CALLERS],
    refused: [AtomicUsize; CALLERS],
}

/// The ids that requests were acknowledged with, by their keys: those of events, and those of
/// messages to be sent.
#[derive(Default)]
pub struct Promises {
    received: BTreeMap<String, String>,
    sent: BTreeMap<String, String>,
}

impl Load {
    pub async fn run(&self, client: &Client) -> Promises {
        let mut promises = Promises::default();
        for of_caller in join_all((0..CALLERS).map(|caller| self.call(client, caller))).await {
            promises.received.extend(of_caller.received);
            promises.sent.extend(of_caller.sent);
        }
        promises
    }

    async fn call(&self, client: &Client, caller: usize) -> Promises {
        let mut promises = Promises::default();
        for number in 0.. {
            if self.over.is_cancelled() {
                break;
            }
            let key = format!("{caller}-{number}");
            let (path, body) = request(caller + number, &key, &format!("user-{}", number % 5));
            let answer = self.acknowledge(client, caller, path, &body).await;
            if path == WEBHOOK {
                promises
                    .received
                    .insert(key, answer["messageId"].as_str().unwrap().to_owned());
            } else {
                promises
                    .sent
                    .insert(key, answer["id"].as_str().unwrap().to_owned());
            }
        }
        promises
    }

    /// What is not a 2xx must say that it may be repeated.
    async fn acknowledge(&self, client: &Client, caller: usize, path: &str, body: &Value) -> Value {
        loop {
            let request = client
                .http
                .post(client.url(path))
                .json(body)
                .timeout(PATIENCE);
            let answer: Answer = client.call(request).await.unwrap();
            if [200, 201].contains(&answer.status) {
                self.acknowledged[caller].fetch_add(1, Ordering::Relaxed);
                return answer.json();
            }
            answer.expect_problem(503, "database_unavailable");
            self.refused[caller].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many callers were refused at some time.
    pub fn refused(&self) -> usize {
        self.refused
            .iter()
            .filter(|count| count.load(Ordering::Relaxed) > 0)
            .count()
    }

    /// Waits until every caller was served some more times.
    pub async fn goes_on(&self) {
        let counts = || {
            self.acknowledged
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed))
        };
        let before = counts();
        eventually("every caller is served", async || {
            counts()
                .iter()
                .zip(before)
                .all(|(now, before)| *now >= before + 5)
                .then_some(())
        })
        .await;
    }
}

/// Each acknowledged request is one message, those to be sent were delivered once, and there is
/// nothing else.
pub async fn assert_kept(system: &System, promises: &Promises) {
    // What is stored but was not acknowledged then has nobody who sends it before its lease has
    // ended.
    system.skip_waits().await;
    let unsent = "select count(*) from messages where status in ('PENDING', 'FAILED')";
    eventually("all is sent", async || {
        (system.database.count(unsent).await == 0).then_some(())
    })
    .await;

    assert_stored(system, "INBOUND", &promises.received).await;
    assert_stored(system, "OUTBOUND", &promises.sent).await;
    let ledger = system.mock.ledger();
    assert!(
        ledger
            .messages
            .iter()
            .all(|message| message.deliveries == 1)
    );
    assert!(
        promises
            .sent
            .values()
            .all(|id| system.mock.message(id).is_some())
    );
    assert_eq!(ledger.deliveries(), promises.sent.len());
    system.database.assert_consistent().await;
}

async fn assert_stored(system: &System, direction: &str, promised: &BTreeMap<String, String>) {
    let ids: Vec<&str> = promised
        .values()
        .map(|id| id.strip_prefix("msg_").unwrap())
        .collect();
    let stored = format!("select count(*) from messages where direction = '{direction}'");
    let kept = format!("{stored} and id = any('{{{}}}')", ids.join(","));
    let count = i64::try_from(promised.len()).unwrap();
    assert_eq!(
        system.database.count(&kept).await,
        count,
        "{direction}: lost"
    );
    assert_eq!(
        system.database.count(&stored).await,
        count,
        "{direction}: doubled"
    );
}

/// How often a worker has said that its database fails it.
fn complaints(worker: &Program) -> usize {
    worker
        .log()
        .iter()
        .filter(|line| line.contains("claim failed, retrying"))
        .count()
}

async fn notices(worker: &Program, times: usize) {
    eventually("the worker notices", async || {
        (complaints(worker) >= times).then_some(())
    })
    .await;
}

/// A server that was killed, and cannot start as long as this lives: its files have another name.
struct Away([PathBuf; 2]);

impl Away {
    fn take(postgres: &Postgres) -> Self {
        let (here, away) = (
            postgres.cluster(),
            postgres.cluster().with_extension("away"),
        );
        let stopped = Stopped::all_of(postgres);
        std::fs::rename(&here, &away).unwrap();
        stopped.kill();
        Self([here, away])
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let [here, away] = &self.0;
        std::fs::rename(away, here).unwrap();
    }
}
