//! The commands of an operator: data on stdout, talk on stderr, and an exit code that says how it
//! went.

use mock_meta_provider::Fault;
use serde_json::Value;

use crate::support::{Database, Program, System, run};

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
        states.push(system.database.contents().await);
    }
    assert_eq!(states[0], states[1]);
    let inbox = system.client.get("/conversations").await.expect(200);
    assert!(!inbox["data"].as_array().unwrap().is_empty());
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
    let system = System::start().await;
    system.mock.script("user-1", [Fault::Reject]);
    system.send("user-1", "Merhaba").await;
    for arguments in [
        &["migrate", "--status"][..],
        &["retry", "--list"],
        &["retry", "--list", "--json"],
        &["retry", "--help"],
        &["--help"],
        &["completions", "bash"],
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

#[tokio::test]
async fn keys_compare_by_bytes_and_begin_with_what_tells_rows_apart() {
    let database = Database::migrated().await;
    let by_language = "select count(*) from pg_index i
        cross join lateral unnest(i.indcollation) as c(key)
        join pg_class on pg_class.oid = indexrelid
        where relnamespace = 'public'::regnamespace and c.key <> 0 and c.key <> '\"C\"'::regcollation";
    let of_the_migrator = " and indrelid <> '_sqlx_migrations'::regclass";
    assert_eq!(
        database
            .count(&format!("{by_language}{of_the_migrator}"))
            .await,
        0
    );
    let first = "select count(*) from pg_index i
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indisunique and i.indnatts > 1 and a.attname in ('provider', 'channel', 'status', 'direction')";
    assert_eq!(database.count(first).await, 0);
}

async fn migrations(database: &Database) -> Vec<Value> {
    let ended = run(database, "migrate", &["--status", "--json"])
        .finish()
        .await;
    assert_eq!(ended.stderr, "");
    ended.data().as_array().unwrap().clone()
}
