//! The commands of an operator: data on stdout, talk on stderr, and an exit code that says how it went.

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{Database, Finished, Program, Run, System};

#[tokio::test]
async fn migrate_applies_each_migration_once() {
    let database = Database::new().await;
    assert!(
        migrations(&database)
            .await
            .iter()
            .all(|migration| migration["applied"] == false)
    );
    for said in ["applied", "nothing to apply"] {
        let ended = run(&database, "migrate", &[]).finish().await;
        assert_eq!((ended.code, &*ended.stdout), (Some(0), ""));
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
    let migrations = migrations(&database).await;
    assert!(
        !migrations.is_empty()
            && migrations
                .iter()
                .all(|migration| migration["applied"] == true)
    );
    let applied = database
        .count("select count(*) from _sqlx_migrations where success")
        .await;
    assert_eq!(applied, i64::try_from(migrations.len()).unwrap());
}

#[tokio::test]
async fn migrate_status_is_a_table_that_changes_nothing() {
    let database = Database::new().await;
    let ended = run(&database, "migrate", &["--status"]).finish().await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let rows: Vec<&str> = ended.stdout.lines().collect();
    assert!(
        rows[0].contains("VERSION") && rows[0].contains("STATUS"),
        "{ended:?}"
    );
    assert_eq!(rows.len() - 1, migrations(&database).await.len());
    assert!(
        rows[1..].iter().all(|row| row.ends_with("pending")),
        "{ended:?}"
    );
    assert_eq!(
        database
            .count("select count(*) from pg_tables where schemaname = 'public'")
            .await,
        0
    );
}

#[tokio::test]
async fn several_that_migrate_at_once_get_in_nobodys_way() {
    let database = Database::new().await;
    let runs = (0..4).map(|_| run(&database, "migrate", &[]).finish());
    for ended in futures_util::future::join_all(runs).await {
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert!(
        migrations(&database)
            .await
            .iter()
            .all(|migration| migration["applied"] == true)
    );
}

#[tokio::test]
async fn seed_loads_a_consistent_inbox_and_changes_nothing_the_second_time() {
    let system = System::start().await;
    let mut states = Vec::new();
    for _ in 0..2 {
        let ended = run(&system.database, "seed", &[]).finish().await;
        assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:?}");
        assert!(ended.stderr.contains("demo inbox"), "{ended:?}");
        system.database.assert_consistent().await;
        states.push(contents(&system.database).await);
    }
    assert_eq!(states[0], states[1]);
    let inbox = system.client.get("/conversations").await.expect(200);
    assert!(!inbox["data"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn retry_list_shows_what_has_failed_and_sends_nothing() {
    let (system, ids) = with_failed(2).await;
    let table = run(&system.database, "retry", &["--list"]).finish().await;
    assert_eq!((table.code, &*table.stderr), (Some(0), ""));
    let rows: Vec<&str> = table.stdout.lines().collect();
    assert!(
        rows.len() == 3 && rows[0].contains("ID") && rows[0].contains("NEXT ATTEMPT"),
        "{table:?}"
    );
    assert!(
        ids.iter().all(|id| rows[1..]
            .iter()
            .any(|row| row.contains(id) && row.contains("rejected"))),
        "{table:?}"
    );

    let ended = run(&system.database, "retry", &["--list", "--json"])
        .finish()
        .await;
    let listed = data(&ended);
    let listed: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert!(
        listed.len() == 2 && ids.iter().all(|id| listed.contains(&&**id)),
        "{listed:?}"
    );
    assert_eq!(system.mock.stats().calls, 2);
}

#[tokio::test]
async fn retry_by_id_sends_that_one_and_reports_it() {
    let (system, ids) = with_failed(2).await;
    let ended = sending(&system, &[&ids[0], "--json"]).finish().await;
    assert_eq!(data(&ended)[0]["id"], *ids[0]);
    assert_eq!(data(&ended)[0]["status"], "SENT");
    assert!(
        ended.stderr.contains("made 1 of 1 messages due"),
        "{ended:?}"
    );
    assert_eq!(system.message(&ids[0]).await["status"], "SENT");
    assert_eq!(system.message(&ids[1]).await["status"], "FAILED");
    assert_eq!(system.mock.ledger().deliveries(), 1);
}

#[tokio::test]
async fn retry_all_sends_all_and_the_table_is_data() {
    let (system, ids) = with_failed(5).await;
    let ended = sending(&system, &["--all"]).finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rows: Vec<&str> = ended.stdout.lines().collect();
    assert!(rows.len() == 6 && rows[0].contains("STATUS"), "{ended:?}");
    for id in &ids {
        assert!(
            rows[1..]
                .iter()
                .any(|row| row.contains(id) && row.contains("SENT")),
            "{id}: {ended:?}"
        );
        assert_eq!(system.mock.message(id).unwrap().deliveries, 1);
    }
    let none = sending(&system, &["--all", "--json"]).finish().await;
    assert_eq!(data(&none), json!([]));
}

#[tokio::test]
async fn a_retry_that_fails_again_ends_with_1_and_says_how() {
    let (system, ids) = with_failed(1).await;
    system.mock.script("user-0", [Fault::Reject]);
    let ended = sending(&system, &[&ids[0], "--json"]).finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let rows: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&rows[0]["status"], &rows[0]["error"]),
        (&json!("FAILED"), &json!("rejected"))
    );
    assert!(
        ended.stderr.contains("1 of 1 messages were not sent"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn requeue_only_leaves_the_sending_to_a_running_worker() {
    let (system, ids) = with_failed(2).await;
    let ended = run(&system.database, "retry", &["--all", "--requeue-only"])
        .finish()
        .await;
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""));
    for id in &ids {
        system.message_becomes(id, "SENT").await;
        assert_eq!(system.mock.message(id).unwrap().deliveries, 1);
    }
}

#[tokio::test]
async fn retry_of_what_is_unknown_or_has_not_failed_ends_with_1_and_names_it() {
    let (system, failed) = with_failed(1).await;
    let unknown = format!("msg_{}", uuid::Uuid::now_v7().simple());
    let sent = system.send("user-1", "Merhaba").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for id in [&unknown, &sent] {
        for arguments in [vec![&**id, &failed[0]], vec![&**id, "--requeue-only"]] {
            let ended = sending(&system, &arguments).finish().await;
            assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
            assert!(ended.stderr.contains(id.as_str()), "{ended:?}");
        }
    }
    assert_eq!(system.message(&failed[0]).await["status"], "FAILED");
}

#[tokio::test]
async fn retry_of_nothing_in_particular_ends_with_2() {
    for arguments in [vec![], vec!["--json"], vec!["--list", "--all"]] {
        let ended = Program::new("retry").args(&arguments).finish().await;
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains("Usage"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_command_says_that_the_database_is_not_migrated_or_not_there() {
    let database = Database::new().await;
    let ended = run(&database, "retry", &["--list"]).finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("run gateway migrate"), "{ended:?}");
    for arguments in [vec!["migrate"], vec!["seed"], vec!["retry", "--list"]] {
        let run = Program::new(arguments[0]).args(&arguments[1..]);
        let ended = run
            .env(
                "DATABASE_URL",
                "postgres://user:hunter2@127.0.0.1:1/database",
            )
            .finish()
            .await;
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
        assert!(
            ended.stderr.contains("error") && !ended.stderr.contains("hunter2"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_away_is_no_error() {
    let (system, _) = with_failed(1).await;
    for arguments in [
        &["migrate", "--status"][..],
        &["retry", "--list"],
        &["retry", "--list", "--json"],
        &["retry", "--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = run(&system.database, arguments[0], &arguments[1..])
            .stdout(writer)
            .finish()
            .await;
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{arguments:?}");
    }
}

/// A command on this database.
fn run(database: &Database, subcommand: &str, arguments: &[&str]) -> Run {
    Program::new(subcommand)
        .args(arguments)
        .env("DATABASE_URL", database.url())
}

/// `gateway retry` with the provider of this system.
fn sending(system: &System, arguments: &[&str]) -> Run {
    run(&system.database, "retry", arguments).env("PROVIDER_URL", &system.mock.url())
}

/// The JSON on stdout of a command that must have ended well.
#[track_caller]
fn data(ended: &Finished) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

async fn migrations(database: &Database) -> Vec<Value> {
    let ended = run(database, "migrate", &["--status", "--json"])
        .finish()
        .await;
    assert_eq!(ended.stderr, "");
    data(&ended).as_array().unwrap().clone()
}

/// A system with as many messages that have failed for good; their ids.
async fn with_failed(count: usize) -> (System, Vec<String>) {
    let system = System::start().await;
    let mut ids = Vec::new();
    for number in 0..count {
        let to = format!("user-{number}");
        system.mock.script(&*to, [Fault::Reject]);
        let message = system.send(&to, "Merhaba").await;
        assert_eq!(
            (&message["status"], &message["nextAttemptAt"]),
            (&json!("FAILED"), &Value::Null)
        );
        ids.push(message["id"].as_str().unwrap().to_owned());
    }
    (system, ids)
}

/// How many rows each table has, and what is in them.
async fn contents(database: &Database) -> Vec<(i64, i64)> {
    let mut contents = Vec::new();
    for table in ["conversations", "messages", "webhook_events", "deliveries"] {
        let rows = database
            .count(&format!("select count(*) from {table}"))
            .await;
        let hash = format!("select coalesce(sum(hashtext(row::text)), 0)::bigint from {table} row");
        contents.push((rows, database.count(&hash).await));
    }
    contents
}
