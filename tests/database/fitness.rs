//! What the database must be, and what is said when it is not: at once where waiting mends nothing, and always with the cause.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Database, Finished, Program, Run, System, event, eventually, mock, run,
};

/// Nothing listens there, and nobody gets that far.
const PROVIDER: &str = "http://127.0.0.1:1";
const COMMANDS: [&[&str]; 5] = [
    &["serve"],
    &["worker"],
    &["migrate"],
    &["seed"],
    &["retry", "--list"],
];

/// A command on this database.
fn of(command: &[&str], url: &str) -> Run {
    Program::new(command[0])
        .args(&command[1..])
        .env("DATABASE_URL", url)
        .env("PROVIDER_URL", PROVIDER)
}

/// How it ends.
async fn end(command: &[&str], url: &str) -> Finished {
    of(command, url).finish().await
}

/// Every command ends at once, with this in its last line.
async fn assert_refused(database: &Database, with: &[&str]) {
    let ends = COMMANDS.map(|command| of(command, database.url()).end());
    for end in join_all(ends).await {
        assert_eq!(end.code, Some(1), "{end:?}");
        let last = end.stderr.lines().last().unwrap();
        for with in with {
            assert!(last.contains(with), "{with}: {last}");
        }
        assert!(!end.stderr.contains("waiting for the database"), "{end:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_utf_8_is_refused_by_every_command() {
    for encoding in ["SQL_ASCII", "LATIN1", "LATIN5", "EUC_JP"] {
        let database = Database::encoded(encoding).await;
        assert_refused(&database, &[encoding, "UTF8"]).await;
    }
}

#[tokio::test]
async fn a_postgresql_that_is_too_old_is_refused_by_every_command() {
    let database = Database::new().await;
    // It says of itself that it is older.
    let pretend = format!(
        "create schema old; create function old.current_setting(name text) returns text language sql as
           $$ select case name when 'server_version_num' then '130023' else pg_catalog.current_setting(name) end $$;
         alter database {} set search_path = old, pg_catalog, public",
        database.name()
    );
    database.execute(&pretend).await;
    assert_refused(&database, &["PostgreSQL 13", "14 or newer"]).await;
}

/// A database with its migrations applied, and what belongs to it.
async fn migrated() -> Database {
    let database = Database::new().await;
    let migrated = run(&database, "migrate", &[]).finish().await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    database
}

fn hello(event_id: &str) -> Value {
    event(event_id, "user-1", "Hello", "2025-01-01T10:00:00Z")
}

#[tokio::test]
async fn rights_on_the_data_are_enough_where_no_migration_is_pending() {
    let database = migrated().await;
    let name = database.name().replace("test_", "data_");
    let role = format!(
        "revoke create on schema public from public; create role {name} login; grant usage on schema public to {name};
         grant select, insert, update, delete on all tables in schema public to {name}"
    );
    database.execute(&role).await;
    let url = database.url().replace("//gateway@", &format!("//{name}@"));
    for command in [
        &["migrate"][..],
        &["seed"],
        &["retry", "--list"],
        &["worker", "--drain"],
    ] {
        let done = end(command, &url).await;
        assert_eq!(done.code, Some(0), "{command:?}: {done:?}");
    }
    let mock = mock().await;
    let gateway = Program::new("serve")
        .env("DATABASE_URL", &url)
        .env("PROVIDER_URL", &mock.url())
        .start();
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    client.get("/ready").await.expect(200);
    client.webhook(&hello("evt_1")).await.expect(200);
    let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
    let sent = client.post("/messages/send", &send).await.expect(201);
    assert_eq!(sent["status"], "SENT", "{sent}");
}

#[tokio::test]
async fn a_read_only_database_is_not_used_and_whoever_asks_is_told() {
    let database = migrated().await;
    let name = database.name().to_owned();
    let read_only = format!("alter database {name} set default_transaction_read_only = on");
    let receipt = {
        let system = System::on(database, &[]).await;
        let receipt = system.client.webhook(&hello("evt_1")).await.expect(200);
        let database = system.database;
        database.execute(&read_only).await;
        (database, receipt)
    };
    let (database, receipt) = receipt;
    // Each command that has nothing to write ends well.
    for command in [&["migrate"][..], &["retry", "--list"]] {
        let done = end(command, database.url()).await;
        assert_eq!(done.code, Some(0), "{command:?}: {done:?}");
    }
    let seed = end(&["seed"], database.url()).await;
    assert_eq!(seed.code, Some(1), "{seed:?}");
    assert!(seed.stderr.contains("read-only"), "{seed:?}");

    let system = System::on(database, &[("SEND_WAIT_MS", "100")]).await;
    let worker = system.worker(&[]).await;
    let client = &system.client;
    let conversation = receipt["conversationId"].as_str().unwrap();
    let read_only = |answer: &Answer| {
        let refused = answer.expect_problem(503, "database_unavailable");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("the database is read-only"), "{detail}");
    };
    let thread = format!("/conversations/{conversation}");
    for path in ["/conversations", &thread, "/messages?status=FAILED"] {
        read_only(&client.get(path).await);
    }
    let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
    for (path, body) in [
        ("/webhooks/mock-meta", hello("evt_2")),
        ("/messages/send", send),
        (&*format!("/conversations/{conversation}/read"), json!({})),
    ] {
        read_only(&client.post(path, &body).await);
    }
    read_only(&client.get("/ready").await);
    client.get("/health").await.expect(200);
    let metrics = client.get("/metrics").await.text;
    assert!(metrics.contains("gateway_database_up 0"), "{metrics}");
    let cause = worker
        .logged("the worker could not claim, it goes on in a moment")
        .await;
    assert!(
        cause["error"].as_str().unwrap().contains("read-only"),
        "{cause}"
    );

    // All goes on when it can be written again, through new connections: the old ones stay as they are.
    system
        .database
        .execute(&format!(
            "alter database {name} reset default_transaction_read_only"
        ))
        .await;
    eventually("/ready is 200", async || {
        (client.get("/ready").await.status == 200).then_some(())
    })
    .await;
    client.webhook(&hello("evt_2")).await.expect(200);
    let read = format!("/conversations/{conversation}/read");
    eventually("it can be marked as read", async || {
        (client.post(&read, &json!({})).await.status == 200).then_some(())
    })
    .await;
    let metrics = client.get("/metrics").await.text;
    assert!(metrics.contains("gateway_database_up 1"), "{metrics}");
}

#[tokio::test]
async fn the_line_that_ends_a_start_has_the_cause_once_and_no_line_of_a_source() {
    let (unmigrated, missing, closed) = (
        Database::new().await,
        Database::new().await,
        Database::new().await,
    );
    let locked_out = missing
        .url()
        .replace("//gateway@", "//nobody_of_that_name@");
    let name = unmigrated.name().replace("test_", "reads_");
    unmigrated
        .execute(&format!(
            "create role {name} login; revoke create on schema public from public"
        ))
        .await;
    let powerless = unmigrated
        .url()
        .replace("//gateway@", &format!("//{name}@"));
    let elsewhere = missing.url().replace("/test_", "/gone_");
    let nowhere = closed.url().replace("host=%2F", "host=%2Fnowhere");
    let cases = [
        (
            &["serve"][..],
            powerless.clone(),
            "permission denied for schema public",
        ),
        (
            &["migrate"],
            powerless,
            "permission denied for schema public",
        ),
        (
            &["worker"],
            unmigrated.url().to_owned(),
            "migrations are not applied: run gateway migrate",
        ),
        (&["serve"], elsewhere.clone(), "does not exist"),
        (&["worker"], elsewhere.clone(), "does not exist"),
        (&["retry", "--list"], elsewhere, "does not exist"),
        (&["serve"], locked_out, "nobody_of_that_name"),
        (&["worker"], nowhere, "No such file or directory"),
    ];
    let ends = cases.map(async |(command, url, cause)| (command, cause, end(command, &url).await));
    for (command, cause, end) in join_all(ends).await {
        assert_eq!(end.code, Some(1), "{end:?}");
        let last = end.stderr.lines().last().unwrap();
        assert_eq!(last.matches(cause).count(), 1, "{command:?}: {last}");
        assert!(last.starts_with("error: "), "{last}");
        assert!(!end.stderr.contains("at line"), "{end:?}");
        if matches!(command[0], "serve" | "worker") {
            assert!(last.contains("not ready within 60 s"), "{last}");
            let waits: Vec<&str> = end
                .stderr
                .lines()
                .filter(|line| line.contains("waiting for the database: "))
                .collect();
            assert!(waits.iter().all(|line| line.contains(cause)), "{waits:?}");
            // At 0, 2, 6, 14, 30 and 62 s.
            assert!((3..=8).contains(&waits.len()), "{waits:?}");
        }
    }
}

#[tokio::test]
async fn a_warning_that_repeats_has_the_cause_and_is_said_at_growing_intervals() {
    let database = migrated().await;
    let role = database.role("").await;
    let tables = "select, insert, update, delete on all tables in schema public";
    database
        .execute(&format!("grant {tables} to {}", role.name))
        .await;
    let worker = Program::new("worker")
        .env("DATABASE_URL", &role.url)
        .env("PROVIDER_URL", PROVIDER)
        .start();
    worker.logged("working").await;
    database
        .execute(&format!("revoke update on deliveries from {}", role.name))
        .await;
    let said = || -> Vec<Value> {
        let lines = worker.log().into_iter();
        let lines = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        lines
            .filter(|line| line["message"] == "the worker could not claim, it goes on in a moment")
            .collect()
    };
    eventually("it is said four times", async || {
        (said().len() >= 4).then_some(())
    })
    .await;
    let said = said();
    let mut passed_over = Vec::new();
    for line in &said {
        let error = line["error"].as_str().unwrap();
        assert_eq!(
            error,
            "the database does not permit it: permission denied for table deliveries"
        );
        passed_over.push(line["passed_over"].as_u64().unwrap());
    }
    // Once a second it goes wrong.
    assert_eq!(passed_over[0], 0);
    assert!(
        passed_over[1] < passed_over[2] && passed_over[2] < passed_over[3],
        "{passed_over:?}"
    );
}

#[tokio::test]
async fn what_a_caller_is_told_says_what_is_the_matter_and_nothing_of_the_inside() {
    let database = migrated().await;
    let role = database.role("").await;
    let tables = "select, insert, update, delete on all tables in schema public";
    database
        .execute(&format!("grant {tables} to {}", role.name))
        .await;
    let mock = mock().await;
    let gateway = Program::new("serve")
        .env("DATABASE_URL", &role.url)
        .env("PROVIDER_URL", &mock.url())
        .start();
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    database
        .execute(&format!(
            "revoke all on conversations, webhook_events from {}",
            role.name
        ))
        .await;
    let get = client.get("/conversations").await;
    let post = client.webhook(&hello("evt_1")).await;
    for answer in [get, post] {
        let problem = answer.expect_problem(503, "database_unavailable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("the database does not permit it"),
            "{detail}"
        );
        assert!(!answer.text.contains("conversations"), "{}", answer.text);
        assert!(!answer.text.contains("webhook_events"), "{}", answer.text);
    }
    let line = gateway.logged("a request was not carried out").await;
    assert_eq!(
        line["error"],
        "the database does not permit it: permission denied for table conversations"
    );
    let batch = gateway.logged("batch write failed, retrying").await;
    assert_eq!(batch["error"], "permission denied for table webhook_events");
}
