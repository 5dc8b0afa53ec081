//! Poolers before the database: one that would mix up statements or take limits away is found out at the start.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    Client, Database, Finished, Pooler, PoolerMode, Program, Role, event, mock, run,
};

const IGNORED: &str = "options,extra_float_digits";
/// Nothing listens there, and nobody gets that far.
const PROVIDER: &str = "http://127.0.0.1:1";

async fn migrated() -> (Database, Role) {
    let database = Database::new().await;
    let role = database.role("").await;
    let migrated = Program::new("migrate")
        .env("DATABASE_URL", &role.url)
        .finish()
        .await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    (database, role)
}

/// How each command ends that is started through this pooler.
async fn ends(pooler: &Pooler) -> Vec<Finished> {
    let commands: [&[&str]; 5] = [
        &["serve"],
        &["worker"],
        &["migrate"],
        &["seed"],
        &["retry", "--list"],
    ];
    let ends = commands.map(|command| {
        Program::new(command[0])
            .args(&command[1..])
            .env("DATABASE_URL", pooler.url())
            .env("PROVIDER_URL", PROVIDER)
            .end()
    });
    join_all(ends).await
}

/// All of them end at once: what is wrong does not go away, so nothing was waited for.
#[track_caller]
fn assert_refused(ends: &[Finished], with: &str) {
    for end in ends {
        assert_eq!(end.code, Some(1), "{end:?}");
        let last = end.stderr.lines().last().unwrap();
        assert!(last.starts_with("error: "), "{last}");
        assert!(last.contains("leads to a pooler"), "{last}");
        assert!(last.contains(with), "{last}");
        assert!(last.contains("pool_mode to session"), "{last}");
        assert!(!end.stderr.contains("waiting for the database"), "{end:?}");
    }
}

#[tokio::test]
async fn a_pooler_that_shares_prepared_statements_is_refused() {
    let (database, role) = migrated().await;
    // Else it would be refused for its limits.
    limit(&database, &role).await;
    let pooler = Pooler::start(&database, &role, PoolerMode::Transaction, IGNORED).await;
    assert_refused(&ends(&pooler).await, "shares prepared statements");
    let contents = "select count(*) from conversations";
    assert_eq!(database.count(contents).await, 0);
}

#[tokio::test]
async fn a_pooler_that_drops_the_limits_is_refused() {
    let (database, role) = migrated().await;
    let pooler = Pooler::start(&database, &role, PoolerMode::Session, IGNORED).await;
    assert_refused(&ends(&pooler).await, "statement_timeout");
}

#[tokio::test]
async fn a_pooler_that_refuses_the_settings_is_refused_with_what_to_set() {
    let (database, role) = migrated().await;
    for mode in [PoolerMode::Session, PoolerMode::Transaction] {
        for ignored in ["", "extra_float_digits"] {
            let pooler = Pooler::start(&database, &role, mode, ignored).await;
            assert_refused(&ends(&pooler).await, IGNORED);
        }
    }
}

async fn limit(database: &Database, role: &Role) {
    let name = &role.name;
    let limits = format!(
        "alter role {name} set statement_timeout = '5s'; alter role {name} set lock_timeout = '250ms'"
    );
    database.execute(&limits).await;
}

#[tokio::test]
async fn what_the_refusal_says_to_set_is_enough() {
    let (database, role) = migrated().await;
    limit(&database, &role).await;
    let pooler = Pooler::start(&database, &role, PoolerMode::Session, IGNORED).await;
    let mock = mock().await;
    let gateway = Program::new("serve")
        .env("DATABASE_URL", pooler.url())
        .env("PROVIDER_URL", &mock.url())
        .start();
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    let hello = event("evt_1", "user-1", "Hello", "2025-01-01T10:00:00Z");
    client.webhook(&hello).await.expect(200);
    let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
    let sent = client.post("/messages/send", &send).await.expect(201);
    assert_eq!(sent["status"], "SENT", "{sent}");
    client.get("/ready").await.expect(200);
    // The limits of a role are not for what takes long.
    for command in ["migrate", "seed"] {
        let done = run(&database, command, &[]).env("DATABASE_URL", pooler.url());
        let done = done.finish().await;
        assert_eq!(done.code, Some(0), "{done:?}");
    }
}

#[tokio::test]
async fn narrower_limits_of_the_role_are_as_good_and_wider_ones_are_not() {
    let (database, role) = migrated().await;
    let name = &role.name;
    for (statement, lock, code) in [
        ("3s", "100ms", Some(0)),
        ("1min", "250ms", Some(1)),
        ("5s", "0", Some(1)),
    ] {
        let limits = format!(
            "alter role {name} set statement_timeout = '{statement}'; alter role {name} set lock_timeout = '{lock}'"
        );
        database.execute(&limits).await;
        let pooler = Pooler::start(&database, &role, PoolerMode::Session, IGNORED).await;
        let done = run(&database, "retry", &["--list"]).env("DATABASE_URL", pooler.url());
        let done = done.finish().await;
        assert_eq!(done.code, code, "{statement}, {lock}: {done:?}");
    }
}
