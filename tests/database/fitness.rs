//! What the database must be, and what is said when it is not: at once where waiting mends nothing,
//! and always with the cause.

use futures_util::future::join_all;
use serde_json::json;

use super::assert_refused;
use crate::support::{Answer, Database, NOWHERE, Program, System, eventually, hello, serve_at};

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

#[tokio::test]
async fn a_read_only_database_is_not_used_and_whoever_asks_is_told() {
    let database = Database::migrated().await;
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
        let done = Program::on(database.url(), command).finish().await;
        assert_eq!(done.code, Some(0), "{command:?}: {done:?}");
    }
    let seed = Program::on(database.url(), &["seed"]).finish().await;
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
        (
            &*format!("/conversations/{conversation}/read"),
            json!({ "inboundCount": 1 }),
        ),
    ] {
        read_only(&client.post(path, &body).await);
    }
    read_only(&client.get("/ready").await);
    client.get("/health").await.expect(200);
    let metrics = client.get("/metrics").await.text;
    assert!(metrics.contains("gateway_database_up 0"), "{metrics}");
    let cause = worker.logged("claim failed, retrying").await;
    assert!(
        cause["error"].as_str().unwrap().contains("read-only"),
        "{cause}"
    );

    // All goes on when it can be written again, through new connections: the old ones stay as they
    // are.
    system
        .database
        .execute(&format!(
            "alter database {name} reset default_transaction_read_only"
        ))
        .await;
    client.becomes_ready().await;
    client.webhook(&hello("evt_2")).await.expect(200);
    let read = format!("/conversations/{conversation}/read");
    eventually("it can be marked as read", async || {
        (client.post_empty(&read).await.status == 200).then_some(())
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
    let locked_out = missing.url_of("nobody_of_that_name");
    let name = unmigrated.name().replace("test_", "reads_");
    unmigrated
        .execute(&format!(
            "create role {name} login; revoke create on schema public from public"
        ))
        .await;
    let powerless = unmigrated.url_of(&name);
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
    let ends = cases.map(async |(command, url, cause)| {
        (command, cause, Program::on(&url, command).finish().await)
    });
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
    let database = Database::migrated().await;
    let role = database.role_for_data().await;
    let worker = Program::on(&role.url, &["worker"]).start();
    worker.logged("working").await;
    database
        .execute(&format!("revoke update on deliveries from {}", role.name))
        .await;
    let said = || worker.lines("claim failed, retrying");
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
    let database = Database::migrated().await;
    let role = database.role_for_data().await;
    let (gateway, client) = serve_at(&role.url, NOWHERE, &["serve"], &[]).await;
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
    let line = gateway.logged("request not served").await;
    assert_eq!(
        line["error"],
        "the database does not permit it: permission denied for table conversations"
    );
    let batch = gateway.logged("batch write failed, retrying").await;
    assert_eq!(batch["error"], "permission denied for table webhook_events");
}
