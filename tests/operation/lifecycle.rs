//! How the programs begin and end: at once, whatever the database does, and without cutting
//! anything off.

use std::net::TcpListener;

use gateway::database::embedded::Embedded;
use mock_meta_provider::Fault;
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::support::{
    Client, Database, Held, NO_FIRST_ATTEMPT, Program, System, eventually, hello,
};

const CLOSED: &str = "postgres://gateway:hunter2@127.0.0.1:1/gateway";
const PROVIDER: &str = "http://user:hunter2@127.0.0.1:1";

#[tokio::test]
async fn serve_listens_before_its_database_exists_and_migrates_it_when_it_does() {
    let database = Database::new().await;
    rename(&database, false).await;
    let gateway = Program::new("serve")
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", PROVIDER)
        .start();
    gateway.logged("listening").await;
    let client = Client::new(gateway.url());
    assert_eq!(
        client.get("/health").await.expect(200),
        json!({ "status": "ok" })
    );
    let reason = client
        .get("/ready")
        .await
        .expect_problem(503, "database_unavailable");
    assert!(
        reason["detail"]
            .as_str()
            .unwrap()
            .contains("waiting for the database"),
        "{reason}"
    );
    let hello = hello("evt_1");
    client
        .webhook(&hello)
        .await
        .expect_problem(503, "database_unavailable");
    for path in ["/conversations", "/metrics"] {
        client
            .get(path)
            .await
            .expect_problem(503, "database_unavailable");
    }

    rename(&database, true).await;
    gateway.logged("ready").await;
    client.get("/ready").await.expect(200);
    client.webhook(&hello).await.expect(200);
}

#[tokio::test]
async fn serve_waits_for_a_server_that_starts_later() {
    let place = open_place();
    let data = place.path().join("data");
    let socket = data
        .join("socket")
        .display()
        .to_string()
        .replace('/', "%2F");
    let gateway = Program::new("serve")
        .env(
            "DATABASE_URL",
            &format!("postgres://gateway@localhost/gateway?host={socket}"),
        )
        .env("PROVIDER_URL", PROVIDER)
        .start();
    gateway.logged("listening").await;
    let client = Client::new(gateway.url());
    client.get("/health").await.expect(200);
    client
        .get("/ready")
        .await
        .expect_problem(503, "database_unavailable");
    let server = Embedded::start(&data).await.unwrap();
    gateway.logged("ready").await;
    client.get("/ready").await.expect(200);
    drop(gateway);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn no_migrate_waits_for_somebody_who_does() {
    let database = Database::new().await;
    let gateway = Program::new("serve")
        .args(&["--no-migrate"])
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", PROVIDER)
        .start();
    says(&gateway, "run gateway migrate").await;
    let client = Client::new(gateway.url());
    client.get("/health").await.expect(200);
    client
        .get("/ready")
        .await
        .expect_problem(503, "database_unavailable");
    assert_eq!(
        database
            .count("select count(*) from pg_tables where tablename = 'messages'")
            .await,
        0
    );
    database.migrate().await;
    gateway.logged("ready").await;
    client.get("/ready").await.expect(200);
}

#[tokio::test]
async fn a_worker_waits_for_the_schema_and_tells_how_it_is() {
    let database = Database::new().await;
    let mut worker = Program::new("worker")
        .env("METRICS_ADDR", "127.0.0.1:0")
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", PROVIDER)
        .start();
    let serving = worker.logged("serving metrics").await;
    let client = Client::new(serving["address"].as_str().unwrap());
    says(&worker, "run gateway migrate").await;
    client.get("/health").await.expect(200);
    client
        .get("/ready")
        .await
        .expect_problem(503, "database_unavailable");
    database.migrate().await;
    worker.logged("working").await;
    client.get("/ready").await.expect(200);
    client.get("/health").await.expect(200);
    let metrics = client.get("/metrics").await;
    assert!(
        metrics.text.contains("gateway_deliveries{state=\"due\"} 0"),
        "{}",
        metrics.text
    );
    client
        .get("/conversations")
        .await
        .expect_problem(404, "not_found");
    assert_eq!(worker.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_lets_the_attempt_in_flight_end_and_refuses_what_is_new() {
    ends_gracefully("TERM").await;
}

#[tokio::test]
async fn ctrl_c_lets_the_attempt_in_flight_end_and_refuses_what_is_new() {
    ends_gracefully("INT").await;
}

async fn ends_gracefully(signal: &str) {
    let database = Database::new().await;
    let provider = Held::start().await;
    let mut gateway = Program::new("serve")
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", provider.url())
        .env("SHUTDOWN_TIMEOUT_MS", "600000")
        .start();
    gateway.logged("ready").await;
    let waiting = Client::new(gateway.url());
    let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
    let waiting = tokio::spawn(async move { waiting.post("/messages/send", &send).await });
    let call = provider.call().await;

    gateway.signal(signal);
    eventually("/ready is 503", async || {
        let request = reqwest::get(format!("{}/ready", gateway.url())).await;
        (request.ok()?.status() == 503).then_some(())
    })
    .await;
    let late = Client::new(gateway.url());
    let hello = hello("evt_1");
    late.webhook(&hello).await.expect_problem(503, "overloaded");
    late.get("/ready").await.expect_problem(503, "overloaded");
    assert!(!waiting.is_finished());

    call.accept("msg_1").await;
    assert_eq!(waiting.await.unwrap().expect(201)["status"], "SENT");
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(
        database
            .count("select count(*) from messages where status = 'SENT'")
            .await,
        1
    );
}

#[tokio::test]
async fn what_takes_longer_than_the_shutdown_is_left_to_its_lease() {
    let patient = [
        ("SHUTDOWN_TIMEOUT_MS", "100"),
        ("PROVIDER_TIMEOUT_MS", "600000"),
        ("SEND_WAIT_MS", "600000"),
    ];
    let mut system = System::with(&patient).await;
    system.mock.script("user-1", [Fault::Hang]);
    let client = system.client.clone();
    let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
    let hanging = tokio::spawn(async move { client.try_post("/messages/send", &send).await });
    eventually("the call", async || {
        (system.mock.stats().calls == 1).then_some(())
    })
    .await;
    assert_eq!(system.gateway.terminate().await.code(), Some(0));
    assert!(hanging.await.unwrap().is_err());
    let leased = "select count(*) from deliveries where due_at > now() and lease_token is not null";
    assert_eq!(system.database.count(leased).await, 1);

    let mut worker = system.worker(&[]).await;
    system.skip_waits().await;
    let sent = "select count(*) from messages where status = 'SENT'";
    eventually("the worker sends it", async || {
        (system.database.count(sent).await == 1).then_some(())
    })
    .await;
    assert_eq!(system.mock.ledger().deliveries(), 1);
    assert_eq!(worker.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_ends_those_that_still_wait_for_their_database() {
    for subcommand in ["serve", "worker"] {
        for signal in ["TERM", "INT"] {
            let mut waiting = Program::new(subcommand)
                .env("DATABASE_URL", CLOSED)
                .env("PROVIDER_URL", PROVIDER)
                .start();
            says(&waiting, "waiting for the database").await;
            waiting.signal(signal);
            assert_eq!(
                waiting.ended().await.code(),
                Some(0),
                "{subcommand} {signal}"
            );
            assert!(
                !waiting.log().concat().contains("hunter2"),
                "{:?}",
                waiting.log()
            );
        }
    }
}

#[tokio::test]
async fn a_worker_ends_on_ctrl_c_while_its_attempt_ends() {
    let mut system = System::start().await;
    system
        .mock
        .script("user-1", [Fault::rate_limit_after(3600)]);
    let message = system.send("user-1", "Merhaba").await;
    assert_eq!(message["status"], "FAILED");
    system.gateway.terminate().await;
    let provider = Held::start().await;
    let mut worker = system.worker(&[("PROVIDER_URL", provider.url())]).await;
    system.skip_waits().await;
    let call = provider.call().await;
    worker.signal("INT");
    call.accept("msg_1").await;
    assert_eq!(worker.ended().await.code(), Some(0));
    assert_eq!(
        system
            .database
            .count("select count(*) from messages where status = 'SENT'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let mut system = System::with(&[("RUST_LOG", "debug")]).await;
    system.gateway.stop_reading();
    for text in ["one", "two", "three"] {
        let message = system.send("user-1", text).await;
        assert_eq!(message["status"], "SENT", "{message}");
    }
    assert_eq!(system.gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = address.rsplit(':').next().unwrap();
    for (subcommand, variable, value, advice) in [
        ("serve", "PORT", port, "PORT"),
        ("worker", "METRICS_ADDR", &address, "METRICS_ADDR"),
    ] {
        let run = Program::new(subcommand)
            .env("DATABASE_URL", CLOSED)
            .env("PROVIDER_URL", PROVIDER);
        let ended = run.env(variable, value).finish().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains(&address) && ended.stderr.contains(advice),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_second_interrupt_ends_at_once_and_a_second_sigterm_does_not() {
    for (subcommand, signals, code) in [
        ("serve", ["INT", "INT"], 130),
        ("worker", ["TERM", "INT"], 130),
        ("serve", ["TERM", "TERM"], 0),
    ] {
        let (database, provider) = (Database::new().await, Held::start().await);
        let environment = [
            ("DATABASE_URL", database.url()),
            ("PROVIDER_URL", provider.url()),
            ("SHUTDOWN_TIMEOUT_MS", "600000"),
            ("PROVIDER_TIMEOUT_MS", "600000"),
            ("SEND_WAIT_MS", "0"),
            // A worker makes the attempt: that of `serve`, or another one.
            NO_FIRST_ATTEMPT,
        ];
        let server = Program::new("serve").envs(&environment);
        let mut program = match subcommand {
            "serve" => server.start(),
            _ => server.args(&["--no-worker"]).start(),
        };
        program.logged("ready").await;
        let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
        let client = Client::new(program.url());
        client.post("/messages/send", &body).await.expect(201);
        if subcommand == "worker" {
            program = Program::new("worker").envs(&environment).start();
        }
        let call = provider.call().await;
        program.signal(signals[0]);
        program.logged("stopping").await;
        program.signal(signals[1]);
        if code == 0 {
            // Its end is an orderly one, whenever it sees the second signal.
            call.accept("msg_1").await;
        }
        let ended = program.ended().await.code();
        assert_eq!(ended, Some(code), "{subcommand} {signals:?}");
    }
}

#[tokio::test]
async fn sighup_changes_nothing_and_is_said() {
    let system = System::start().await;
    let worker = system.worker(&[]).await;
    for mut program in [system.gateway, worker] {
        for _ in 0..2 {
            program.signal("HUP");
            let said = "SIGHUP changes nothing: settings are read at the start";
            program.logged(said).await;
        }
        assert_eq!(program.terminate().await.code(), Some(0));
    }
}

/// Waits until a program has said so, among other things.
async fn says(program: &Program, what: &str) {
    let said = async || {
        program
            .log()
            .iter()
            .any(|line| line.contains(what))
            .then_some(())
    };
    eventually(&format!("it says {what}: {:?}", program.log()), said).await;
}

/// Gives the database another name, so that there is none of its own, or its own again. Quicker
/// than making it twice.
async fn rename(database: &Database, is_there: bool) {
    let options = database.options();
    let name = options.get_database().unwrap().to_owned();
    let (from, to) = if is_there {
        (format!("{name}_away"), name)
    } else {
        (name.clone(), format!("{name}_away"))
    };
    let statement = format!("alter database {from} rename to {to}");
    let mut server = options.database("postgres").connect().await.unwrap();
    let renamed = sqlx::raw_sql(AssertSqlSafe(statement));
    renamed.execute(&mut server).await.unwrap();
    server.close().await.unwrap();
}

/// A directory that every user can reach.
fn open_place() -> tempfile::TempDir {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new()
        .permissions(permissions)
        .tempdir()
        .unwrap()
}
