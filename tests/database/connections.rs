//! Few connections to the database: those that write come first, and reads share what is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use gateway::database::connect::{self, Limits};
use gateway::database::pool::Pool;
use mock_meta_provider::Mock;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    Client, Database, NO_RETRY, Program, Role, System, event, eventually, mock, run, serve_at,
};

async fn serve(role: &Role, mock: &Mock, environment: &[(&str, &str)]) -> (Program, Client) {
    let (gateway, client) = serve_at(&role.url, &mock.url(), &["serve"], environment).await;
    (gateway, client)
}

/// Readers that never pause, while something else is tried; how many of their requests were
/// answered with 200.
async fn while_reading(client: &Client, tried: impl Future<Output = ()>) -> usize {
    let over = CancellationToken::new();
    let read = AtomicUsize::new(0);
    let readers = join_all((0..20).map(async |_| {
        while !over.is_cancelled() {
            let answer = client.get("/conversations").await;
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            if answer.status == 200 {
                read.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let tried = async {
        tried.await;
        over.cancel();
    };
    tokio::join!(readers, tried);
    read.into_inner()
}

/// Whether a webhook is stored, and a message sent, at the first try.
async fn write(client: &Client) -> bool {
    let key = Uuid::now_v7().to_string();
    let hello = event(&key, "user-1", "Hello", "2025-01-01T10:00:00Z");
    let send =
        json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba", "clientMessageId": key });
    let (webhook, send) =
        tokio::join!(client.webhook(&hello), client.post("/messages/send", &send));
    (webhook.status, send.status) == (200, 201)
}

async fn assert_writes(client: &Client, times: usize) {
    for _ in 0..times {
        assert!(write(client).await);
        client.get("/ready").await.expect(200);
    }
}

#[tokio::test]
async fn reads_leave_the_writers_their_connections() {
    let mock = mock().await;
    // The last asks for more than there are.
    for (rights, environment) in [
        ("connection limit 5", &[][..]),
        ("connection limit 7", &[]),
        ("", &[("DATABASE_MAX_CONNECTIONS", "5")]),
        ("connection limit 6", &[("DATABASE_MAX_CONNECTIONS", "14")]),
    ] {
        let database = Database::new().await;
        let role = database.role(rights).await;
        let (_gateway, client) = serve(&role, &mock, environment).await;
        let read = while_reading(&client, assert_writes(&client, 20)).await;
        assert!(read > 0);
        let open = format!(
            "select count(*) from pg_stat_activity where usename = '{}'",
            role.name
        );
        assert!(database.count(&open).await <= 7);
    }
}

#[tokio::test]
async fn writers_get_their_connections_back_while_reads_take_all_there_are() {
    let database = Database::new().await;
    let role = database.role("connection limit 6").await;
    let mock = mock().await;
    let (_gateway, client) = serve(&role, &mock, &[("DATABASE_MAX_CONNECTIONS", "14")]).await;
    let cut = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '{}'",
        role.name
    );
    let tried = async {
        for _ in 0..3 {
            database.count(&cut).await;
            eventually("it is written again", async || {
                write(&client).await.then_some(())
            })
            .await;
            assert_writes(&client, 5).await;
        }
    };
    assert!(while_reading(&client, tried).await > 0);
}

#[tokio::test]
async fn ready_and_the_gauge_know_that_no_writer_can_connect() {
    let database = Database::new().await;
    let role = database.role("").await;
    let mock = mock().await;
    let (_gateway, client) = serve(&role, &mock, &[]).await;
    let name = &role.name;
    let shut = format!("alter role {name} connection limit 0");
    database.execute(&shut).await;
    let cut = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '{name}'"
    );
    database.count(&cut).await;
    let unready = eventually("/ready is 503", async || {
        let ready = client.get("/ready").await;
        (ready.status == 503).then_some(ready)
    })
    .await;
    let unready = unready.expect_problem(503, "database_unavailable");
    let detail = unready["detail"].as_str().unwrap();
    assert!(detail.contains("too many connections"), "{detail}");
    let metrics = client.get("/metrics").await.text;
    assert!(metrics.contains("gateway_database_up 0"), "{metrics}");
    database
        .execute(&format!("alter role {name} connection limit 5"))
        .await;
    eventually("/ready is 200", async || {
        (client.get("/ready").await.status == 200).then_some(())
    })
    .await;
    assert_writes(&client, 1).await;
}

#[tokio::test]
async fn two_serve_and_a_worker_share_a_database_with_twenty_connections() {
    let database = Database::new().await;
    let role = database.role("connection limit 20").await;
    let mock = mock().await;
    let (one, one_client) = serve(&role, &mock, &[]).await;
    let tried = async {
        let (other, other_client) = serve(&role, &mock, &[]).await;
        let worker = Program::new("worker")
            .env("DATABASE_URL", &role.url)
            .env("PROVIDER_URL", &mock.url())
            .start();
        worker.logged("working").await;
        let both = async {
            tokio::join!(
                assert_writes(&one_client, 20),
                assert_writes(&other_client, 20)
            );
        };
        assert!(while_reading(&other_client, Box::pin(both)).await > 0);
        for program in [&one, &other, &worker] {
            let log = program.log().concat();
            assert!(!log.contains("too many connections"), "{log}");
        }
    };
    assert!(while_reading(&one_client, Box::pin(tried)).await > 0);
}

#[tokio::test]
async fn fewer_connections_than_a_command_needs_are_a_usage_error() {
    for (command, given, least) in [
        (&["serve"][..], "4", Some("5")),
        (&["worker"], "1", Some("2")),
        (&["migrate"], "1", Some("2")),
        (&["seed"], "1", Some("2")),
        (&["retry", "--list"], "1", Some("2")),
        (&["serve"], "0", None),
        (&["worker"], "many", None),
    ] {
        let ended = Program::new(command[0])
            .args(&command[1..])
            .env("DATABASE_URL", "postgres://gateway@127.0.0.1:1/gateway")
            .env("PROVIDER_URL", "http://127.0.0.1:1")
            .env("DATABASE_MAX_CONNECTIONS", given)
            .finish()
            .await;
        assert_eq!(ended.code, Some(2), "{command:?}: {ended:?}");
        let names = ["DATABASE_MAX_CONNECTIONS", "--database-max-connections"];
        assert!(
            names.iter().any(|name| ended.stderr.contains(name)),
            "{ended:?}"
        );
        if let Some(least) = least {
            let needs = format!("at least {least}");
            assert!(ended.stderr.contains(&needs), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn two_connections_are_enough_for_every_command_but_serve() {
    let system = System::with(&[NO_RETRY]).await;
    system.mock.script_always(
        None,
        mock_meta_provider::Fault::ServerError {
            http_status: 500,
            retry_after: None,
        },
    );
    let message = system.send("user-1", "Merhaba").await;
    assert_eq!(message["status"], "FAILED");
    system.mock.script(None, []);
    let role = system.database.role("connection limit 2").await;
    let tables = "select, insert, update, delete on all tables in schema public";
    let grant = format!("grant {tables} to {}", role.name);
    system.database.execute(&grant).await;
    system
        .database
        .execute("grant all on _sqlx_migrations to public")
        .await;
    for command in [
        &["migrate"][..],
        &["seed"],
        &["retry", "--all"],
        &["worker", "--drain"],
    ] {
        for most in ["2", "9"] {
            // The server ends a session a moment after its process.
            let left = format!(
                "select count(*) from pg_stat_activity where usename = '{}'",
                role.name
            );
            eventually("the command before has left", async || {
                (system.database.count(&left).await == 0).then_some(())
            })
            .await;
            let done = run(&system.database, command[0], &command[1..])
                .env("DATABASE_URL", &role.url)
                .env("PROVIDER_URL", &system.mock.url())
                .env("DATABASE_MAX_CONNECTIONS", most)
                .finish()
                .await;
            assert_eq!(done.code, Some(0), "{command:?} {most}: {done:?}");
        }
    }
    let id = message["id"].as_str().unwrap();
    assert_eq!(system.message(id).await["status"], "SENT");
}

#[tokio::test]
async fn the_pool_gives_its_connections_back_when_nobody_reads() {
    let system = System::without_worker(&[]).await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'gateway'";
    eventually("there are more connections than the writers'", async || {
        join_all((0..100).map(async |_| system.client.get("/conversations").await)).await;
        (system.database.count(open).await > 6).then_some(())
    })
    .await;
    eventually("the writers' are left", async || {
        (system.database.count(open).await == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_read_that_is_cut_short_holds_up_nobody_and_its_connection_is_used_again() {
    let database = Database::new().await;
    let pool = Pool::new(database.options(), 2);
    let slow = sqlx::query_scalar::<_, i32>("select 1 from pg_sleep(4)");
    let cut = timeout(Duration::from_millis(500), slow.fetch_one(&pool)).await;
    assert!(cut.is_err());
    // Its connection is not to be had before the statement has ended.
    let pid = || sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&pool);
    let first = pid().await.unwrap();
    eventually("the other one is back", async || {
        (pool.sizes() == (2, 2)).then_some(())
    })
    .await;
    assert_ne!(pid().await.unwrap(), first);
    let refused = sqlx::query_scalar::<_, i32>("select 1 / 0").fetch_one(&pool);
    refused.await.unwrap_err();
    eventually("both are back", async || {
        (pool.sizes() == (2, 2)).then_some(())
    })
    .await;
    let first = pid().await.unwrap();
    assert_eq!(pid().await.unwrap(), first);
    // One that the server has ended is replaced.
    let end = format!("select count(pg_terminate_backend({first}))");
    database.count(&end).await;
    assert_ne!(pid().await.unwrap(), first);
}

#[tokio::test]
async fn a_command_waits_for_the_room_of_a_session_that_is_about_to_leave() {
    let database = Database::new().await;
    let role = database.role("connection limit 1").await;
    let options: PgConnectOptions = role.url.parse().unwrap();
    let leaving = options.connect().await.unwrap();
    let pool = Pool::new(options, 2);
    let asked = tokio::spawn({
        let pool = pool.clone();
        async move { pool.wait_for_room().await }
    });
    // It is tried, and refused.
    for sizes in [(1, 0), (0, 0)] {
        while pool.sizes() != sizes {
            assert!(!asked.is_finished(), "{:?}", asked.await);
            tokio::task::yield_now().await;
        }
    }
    leaving.close().await.unwrap();
    asked.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_has_the_settings_that_it_was_given() {
    let database = Database::new().await;
    let limits = "select current_setting('statement_timeout') || ' ' || current_setting('lock_timeout') || ' ' || current_setting('plan_cache_mode')";
    let slow = database
        .options()
        .options([("statement_timeout", "1s"), ("lock_timeout", "1s")]);
    for (target, with, expected) in [
        (
            connect::limited(database.options().into()),
            Limits::Ours,
            "5s 250ms force_custom_plan",
        ),
        (slow.into(), Limits::None, "0 0 force_custom_plan"),
    ] {
        let plans = &[("plan_cache_mode", "force_custom_plan")];
        let (mut connection, _) = connect::connect(&target, with, plans).await.unwrap();
        let settings: String = sqlx::query_scalar(limits)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(settings, expected);
    }
}
