//! A primary and its standby: nothing but a server that can be written to is ever used, whichever
//! the way leads to.

use std::time::{Duration, Instant};

use gateway::database::connect::{self, Limits};
use gateway::database::pool::Pool;
use gateway::database::target::Target;
use mock_meta_provider::Fault;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use crate::support::{
    Answer, Database, Finished, NO_RETRY, Postgres, Program, Standby, Stopped, Switch, System,
    event, eventually, socket_of,
};

#[track_caller]
fn assert_read_only(answer: &Answer) {
    let refused = answer.expect_problem(503, "database_unavailable");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("read-only"), "{detail}");
}

/// A `gateway serve`, with its worker, on this database by way of these hosts.
async fn serve(database: Database, hosts: &str) -> System {
    let url = format!("postgres://gateway@{hosts}/{}", database.name());
    System::at(&url, database, &["serve"], &[NO_RETRY]).await
}

/// A message that has failed, and waits.
async fn failed(system: &System) -> String {
    let fault = Fault::ServerError {
        http_status: 500,
        retry_after: None,
    };
    system.mock.script_always(None, fault);
    let message = system.send("user-1", "Merhaba").await;
    assert_eq!(message["status"], "FAILED");
    system.mock.script(None, []);
    message["id"].as_str().unwrap().to_owned()
}

/// Everything that is acknowledged is there at once for whoever asks, and a worker sends what is
/// due.
async fn assert_in_order(system: &System, key: &str, failed: &str) {
    let client = &system.client;
    let hello = event(key, key, "Hello", "2025-01-01T10:00:00Z");
    let receipt = eventually("a webhook is stored", async || {
        let answer = client.webhook(&hello).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    let conversation = receipt["conversationId"].as_str().unwrap();
    let thread = format!("/conversations/{conversation}");
    // A read may be refused; it is never behind.
    let read = eventually("it is read", async || {
        let answer = client.get(&thread).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(read["messages"][0]["text"], "Hello");
    let seen = client.post_empty(&format!("{thread}/read")).await;
    assert_eq!(seen.expect(200)["unreadCount"], 0);
    let send = json!({ "channel": "whatsapp", "to": key, "text": "Merhaba" });
    let sent = client.post("/messages/send", &send).await.expect(201);
    let id = sent["id"].as_str().unwrap();
    assert_eq!(system.message(id).await["status"], "SENT");
    client
        .post(&format!("/messages/{failed}/retry"), &json!({}))
        .await
        .expect(202);
    system.message_becomes(failed, "SENT").await;
    client.get("/ready").await.expect(200);
    assert!(system.client.metric("gateway_database_up").await > 0.5);
}

#[tokio::test]
async fn a_standby_is_never_used_and_the_primary_is_when_it_is_there_again() {
    let primary = Postgres::start().await;
    let database = primary.database().await;
    let name = database.name().to_owned();
    let switch = Switch::to(socket_of(&primary)).await;
    let system = serve(database, &format!("127.0.0.1:{}", switch.port)).await;
    let failed = failed(&system).await;
    let standby = Standby::of(&primary).await;
    // What it lacks from now on would show.
    standby
        .options("postgres")
        .connect()
        .await
        .map(drop)
        .unwrap();
    standby
        .count(&name, "select count(pg_wal_replay_pause()::text)")
        .await;

    switch.lead_to(standby.socket());
    switch.cut();
    let client = &system.client;
    for path in ["/ready", "/conversations", "/messages?status=FAILED"] {
        let refused = eventually(path, async || {
            let answer = client.get(path).await;
            (answer.text.contains("read-only")).then_some(answer)
        });
        assert_read_only(&refused.await);
    }
    assert!(system.client.metric("gateway_database_up").await < 0.5);
    let hello = event("evt_1", "user-2", "Hello", "2025-01-01T10:00:00Z");
    assert_read_only(&client.webhook(&hello).await);
    let due = format!("/messages/{failed}/retry");
    assert_read_only(&client.post(&due, &json!({})).await);
    for command in ["seed", "migrate"] {
        let url = format!("postgres://gateway@127.0.0.1:{}/{name}", switch.port);
        let ended = run(command, &[], &url).await;
        // Nothing is to be migrated, so that is not refused.
        let is_done = command == "migrate";
        assert_eq!(ended.code == Some(0), is_done, "{ended:?}");
        assert!(is_done || ended.stderr.contains("read-only"), "{ended:?}");
    }

    // The connections to the standby are not cut.
    switch.lead_to(socket_of(&primary));
    assert_in_order(&system, "evt_2", &failed).await;
    let left = "select count(*) from pg_stat_activity where application_name = 'gateway'";
    eventually("nothing is left at the standby", async || {
        (standby.count(&name, left).await == 0).then_some(())
    })
    .await;
    standby
        .count(&name, "select count(pg_wal_replay_resume()::text)")
        .await;
}

async fn run(subcommand: &str, arguments: &[&str], url: &str) -> Finished {
    Program::on(url, &[&[subcommand], arguments].concat())
        .finish()
        .await
}

#[tokio::test]
async fn of_several_hosts_the_one_is_used_that_can_be_written_to_and_a_failover_is_followed() {
    let primary = Postgres::start().await;
    let database = primary.database().await;
    let name = database.name().to_owned();
    let standby = Standby::of(&primary).await;
    let (first, second) = (
        Switch::to(standby.socket()).await,
        Switch::to(socket_of(&primary)).await,
    );
    // The first of them refuses everybody.
    let hosts = format!(
        "127.0.0.1:1,127.0.0.1:{},127.0.0.1:{}",
        first.port, second.port
    );
    let system = serve(database, &hosts).await;
    let failed_one = failed(&system).await;
    let failed_two = failed(&system).await;
    assert_in_order(&system, "evt_1", &failed_one).await;
    let positions = "select (pg_current_wal_lsn() - '0/0')::bigint";
    let written = system.database.count(positions).await;
    let replayed = "select (pg_last_wal_replay_lsn() - '0/0')::bigint";
    eventually("the standby has it all", async || {
        (standby.count(&name, replayed).await >= written).then_some(())
    })
    .await;

    // The old primary says nothing from now on: whoever asks it waits in vain.
    let asleep = Stopped::all_of(&primary);
    standby.promote();
    let url = format!("postgres://gateway@{hosts}/{name}?target_session_attrs=read-write");
    for (command, arguments) in [
        ("migrate", &["--status"][..]),
        ("seed", &[]),
        ("retry", &["--all", "--requeue-only"]),
        ("forget", &["whatsapp", "evt_1", "--dry-run"]),
        ("forget", &["whatsapp", "nobody"]),
    ] {
        let ended = run(command, arguments, &url).await;
        let code = i32::from(arguments.contains(&"nobody"));
        assert_eq!(ended.code, Some(code), "{command}: {ended:?}");
    }
    let client = &system.client;
    let hello = event("evt_2", "evt_2", "Hello", "2025-01-01T10:00:00Z");
    let receipt = eventually("a webhook is stored", async || {
        let answer = client.webhook(&hello).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    let thread = format!(
        "/conversations/{}",
        receipt["conversationId"].as_str().unwrap()
    );
    eventually("it is read", async || {
        (client.get(&thread).await.status == 200).then_some(())
    })
    .await;
    // One of the commands has made it due.
    system.message_becomes(&failed_two, "SENT").await;
    let kept = "select count(*) from messages where text = 'Hello'";
    assert_eq!(standby.count(&name, kept).await, 2);
    // Nobody shall write there when it goes on.
    second.lead_to("/nowhere".into());
    second.cut();
    drop(asleep);
}

#[tokio::test]
async fn an_error_names_every_host_and_why_it_is_not_used() {
    let primary = Postgres::start().await;
    let database = primary.database().await;
    let standby = Standby::of(&primary).await;
    let switch = Switch::to(standby.socket()).await;
    let asleep = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let asleep = asleep.local_addr().unwrap();
    let (name, port) = (database.name(), switch.port);
    let url = format!("postgres://gateway@127.0.0.1:1,{asleep},127.0.0.1:{port}/{name}");
    let ended = run("seed", &[], &url).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    for said in [
        "127.0.0.1:1: Connection refused",
        &format!("{asleep}: no answer in time"),
        &format!("127.0.0.1:{port}: the database is read-only"),
    ] {
        // An empty database is migrated first, which needs one that can be written to.
        assert!(last.contains(said), "{said}: {last}");
    }
}

const RELOAD: &str = "select pg_reload_conf()";

async fn execute(admin: &mut PgConnection, statements: &[&str]) {
    for sql in statements {
        let statement = sqlx::raw_sql(AssertSqlSafe(*sql));
        statement.execute(&mut *admin).await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_that_is_read_only_is_closed_within_seconds() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let pool = Pool::new(database.options(), 3);
    let slow = || sqlx::query_scalar::<_, i32>("select 1 from pg_sleep(0.2)").fetch_one(&pool);
    let (one, two, three) = tokio::join!(slow(), slow(), slow());
    assert_eq!((one.unwrap(), two.unwrap(), three.unwrap()), (1, 1, 1));
    assert_eq!(pool.sizes(), (3, 3));
    let mut admin = postgres.embedded.options().connect().await.unwrap();
    let name = "default_transaction_read_only";
    let read_only = format!("alter system set {name} = on");
    execute(&mut admin, &[&read_only, RELOAD]).await;
    let began = Instant::now();
    eventually("none is left", async || {
        (pool.sizes() == (0, 0)).then_some(())
    })
    .await;
    // What is idle for 30 s is closed anyway.
    assert!(began.elapsed() < Duration::from_secs(20));
    let refused = slow().await.unwrap_err();
    assert!(format!("{refused:?}").contains("ReadOnly"), "{refused:?}");
    let reads = Pool::new(Target::from(database.options()).for_reading(), 1);
    let read = sqlx::query_scalar::<_, i32>("select 1").fetch_one(&reads);
    assert_eq!(read.await.unwrap(), 1);
    let (writable, reset) = (
        format!("set {name} = off"),
        format!("alter system reset {name}"),
    );
    execute(&mut admin, &[&writable, &reset, RELOAD]).await;
    eventually("it is used again", async || slow().await.ok()).await;
}

#[tokio::test]
async fn every_connection_waits_for_its_commits_whatever_the_role_is_set_to() {
    let database = Database::new().await;
    let role = database.role("").await;
    let options = database.options().username(&role.name);
    let asked = "select current_setting('synchronous_commit') || ' ' || current_setting('transaction_isolation')";
    for (set, is) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        let name = &role.name;
        let alter = format!(
            "alter role {name} set synchronous_commit = {set};
             alter role {name} set default_transaction_isolation = 'serializable'"
        );
        database.execute(&alter).await;
        for limits in [Limits::Ours, Limits::None] {
            let target = connect::limited(options.clone().into());
            let (mut connection, _) = connect::connect(&target, limits, &[]).await.unwrap();
            let settings: String = sqlx::query_scalar(asked)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(settings, format!("{is} read committed"), "{set}");
            connection.close().await.unwrap();
        }
    }
}

/// The settings that it has said to be off.
fn said(system: &System) -> Vec<Value> {
    let lines = system.gateway.log();
    let lines = lines.iter().filter(|line| line.contains("may be lost"));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["off"].clone()).collect()
}

#[tokio::test]
async fn durability_that_is_switched_off_is_said_and_a_gauge() {
    // What a private PostgreSQL is set to cannot be changed.
    let primary = Postgres::start().await;
    let database = primary.database().await;
    let other = Standby::of(&primary).await;
    let switch = Switch::to(other.socket()).await;
    other.promote();
    let system = serve(database, &format!("127.0.0.1:{}", switch.port)).await;
    let durable = async || system.client.metric("gateway_database_durable").await > 0.5;
    assert!(durable().await);
    assert_eq!(said(&system), Vec::<Value>::new());
    let mut admin = other.options("postgres").connect().await.unwrap();
    for setting in ["full_page_writes", "fsync"] {
        let off = format!("alter system set {setting} = off");
        execute(&mut admin, &[&off, RELOAD]).await;
        eventually(&off, async || (!durable().await).then_some(())).await;
        let on = format!("alter system set {setting} = on");
        execute(&mut admin, &[&on, RELOAD]).await;
        eventually(&on, async || durable().await.then_some(())).await;
    }
    // Once, by whichever writer looked first.
    assert_eq!(said(&system), ["full_page_writes", "fsync"]);
    // The tests' shared server runs without fsync.
    let system = System::start().await;
    assert_eq!(said(&system), ["fsync"]);
    assert!(system.client.metric("gateway_database_durable").await < 0.5);
}
