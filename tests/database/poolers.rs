//! Poolers before the database: one that would mix up sessions or take limits away is found out at
//! the start, and wherever it shows later.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use gateway::error::fault::Unfit;
use gateway::error::fault::{Fault, Outage, fault, unfit};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use crate::support::{
    Client, Database, Finished, Pooler, PoolerVersion, Program, Role, event, hello, mock, relay_to,
    run, serve_at,
};

const BOTH: [PoolerVersion; 2] = [PoolerVersion::Installed, PoolerVersion::Newer];
const IGNORED: &str = "options,extra_float_digits";
const SESSION: &[(&str, &str)] = &[
    ("pool_mode", "session"),
    ("ignore_startup_parameters", IGNORED),
];
const TRANSACTION: &[(&str, &str)] = &[
    ("pool_mode", "transaction"),
    ("ignore_startup_parameters", IGNORED),
];
const COMMANDS: [&[&str]; 7] = [
    &["serve"],
    &["worker"],
    &["migrate"],
    &["migrate", "--status"],
    &["forget", "whatsapp", "user-1"],
    &["seed"],
    &["retry", "--list"],
];

async fn migrated() -> (Database, Role) {
    let database = Database::new().await;
    let role = database.role("").await;
    let migrated = Program::on(&role.url, &["migrate"]).finish().await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    (database, role)
}

/// The same, with a role that has the limits.
async fn limited() -> (Database, Role) {
    let (database, role) = migrated().await;
    let name = &role.name;
    let limits = format!(
        "alter role {name} set statement_timeout = '5s'; alter role {name} set lock_timeout = '250ms'"
    );
    database.execute(&limits).await;
    (database, role)
}

/// How each command ends that is started through this pooler.
async fn ends(pooler: &Pooler, commands: &[&[&str]]) -> Vec<Finished> {
    let ends = commands.iter();
    join_all(ends.map(|command| Program::on(pooler.url(), command).end())).await
}

/// All of them end at once: what is wrong does not go away, so nothing was waited for.
#[track_caller]
fn assert_refused(ends: &[Finished], with: &str) {
    for end in ends {
        assert_eq!(end.code, Some(2), "{end:?}");
        let last = end.stderr.lines().last().unwrap();
        assert!(last.starts_with("error: DATABASE_URL leads to a"), "{last}");
        assert!(last.contains(with), "{last}");
        assert!(last.contains("pool_mode to session"), "{last}");
        assert!(!end.stderr.contains("waiting for the database"), "{end:?}");
    }
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn a_pooler_that_shares_sessions_is_refused_by_every_command() {
    let (database, role) = limited().await;
    for version in BOTH {
        for mode in ["transaction", "statement"] {
            let settings = [("pool_mode", mode), ("ignore_startup_parameters", IGNORED)];
            let pooler = Pooler::start(version, &database, &role, &settings).await;
            assert_refused(&ends(&pooler, &COMMANDS).await, "shares sessions");
        }
    }
    let contents = "select count(*) from conversations";
    assert_eq!(database.count(contents).await, 0);
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn sessions_that_are_shared_are_found_out_however_they_are_dealt_out() {
    let (database, role) = limited().await;
    for version in BOTH {
        for settings in [
            &[("default_pool_size", "1")][..],
            &[],
            &[("server_round_robin", "1")],
            &[("server_reset_query_always", "1")],
            &[("max_prepared_statements", "0")],
        ] {
            // Debian 12's does not know it.
            if version == PoolerVersion::Installed && settings == [("max_prepared_statements", "0")]
            {
                continue;
            }
            let settings = [TRANSACTION, settings].concat();
            let pooler = Pooler::start(version, &database, &role, &settings).await;
            let options: PgConnectOptions = pooler.url().parse().unwrap();
            let sizes = if settings.contains(&("default_pool_size", "1")) {
                1..=1
            } else {
                1..=4
            };
            // With one more session each time, which are all idle when a command comes.
            for size in sizes {
                join_all((0..size).map(|_| sleep(&options))).await;
                let ends = ends(&pooler, &[&["retry", "--list"]]).await;
                assert_refused(&ends, "shares sessions");
            }
        }
    }
}

/// Has the pooler open one more session, where others do so at the same time.
async fn sleep(options: &PgConnectOptions) {
    let mut connection: PgConnection = options.connect().await.unwrap();
    sqlx::raw_sql("select pg_sleep(0.2)")
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn a_pooler_that_drops_the_limits_is_refused() {
    let (database, role) = migrated().await;
    for version in BOTH {
        let pooler = Pooler::start(version, &database, &role, SESSION).await;
        assert_refused(&ends(&pooler, &COMMANDS).await, "statement_timeout");
    }
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn a_pooler_that_refuses_the_settings_is_refused_with_what_to_set() {
    let (database, role) = migrated().await;
    for version in BOTH {
        for mode in ["session", "transaction"] {
            for ignored in ["", "extra_float_digits"] {
                let settings = [("pool_mode", mode), ("ignore_startup_parameters", ignored)];
                let pooler = Pooler::start(version, &database, &role, &settings).await;
                assert_refused(&ends(&pooler, &COMMANDS).await, IGNORED);
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn what_the_refusal_says_to_set_is_enough() {
    let (database, role) = limited().await;
    let mock = mock().await;
    for (version, settings) in [
        (PoolerVersion::Installed, &[][..]),
        (PoolerVersion::Newer, &[]),
        (PoolerVersion::Newer, &[("server_round_robin", "1")]),
    ] {
        let settings = [SESSION, settings].concat();
        let pooler = Pooler::start(version, &database, &role, &settings).await;
        let (mut gateway, client) = serve_at(pooler.url(), &mock.url(), &["serve"], &[]).await;
        let hello = hello("evt_1");
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
        assert!(gateway.terminate().await.success());
    }
}

#[tokio::test]
async fn narrower_limits_of_the_role_are_as_good_and_wider_ones_are_not() {
    let (database, role) = migrated().await;
    let name = &role.name;
    for (statement, lock, code) in [
        ("3s", "100ms", Some(0)),
        ("1min", "250ms", Some(2)),
        ("5s", "0", Some(2)),
    ] {
        let limits = format!(
            "alter role {name} set statement_timeout = '{statement}'; alter role {name} set lock_timeout = '{lock}'"
        );
        database.execute(&limits).await;
        let pooler = Pooler::start(PoolerVersion::Installed, &database, &role, SESSION).await;
        let done = run(&database, "retry", &["--list"]).env("DATABASE_URL", pooler.url());
        let done = done.finish().await;
        assert_eq!(done.code, code, "{statement}, {lock}: {done:?}");
    }
}

/// Both end, and say why. Meanwhile half of the conversations are only ever read, at both.
async fn both_end(mut gateways: [(Program, Client); 2], ids: &[String]) {
    let (read, changed) = ids.split_at(ids.len() / 2);
    let clients = gateways.each_ref().map(|(_, client)| client.clone());
    let traffic = (0..4).map(|n| {
        let client = &clients[n % 2];
        async move {
            // As long as there is anybody to answer.
            for round in 0.. {
                let get = client.url(&format!("/conversations/{}", read[round % read.len()]));
                let verb = ["read", "close", "archive"][round % 3];
                let id = &changed[round % changed.len()];
                let post = client.url(&format!("/conversations/{id}/{verb}"));
                let got = client.call(client.http.get(get)).await;
                let posted = client.call(client.http.post(post)).await;
                if got.is_err() && posted.is_err() {
                    break;
                }
            }
        }
    });
    join_all(traffic).await;
    for (gateway, _) in &mut gateways {
        assert_eq!(gateway.ended().await.code(), Some(2));
        let log = gateway.log();
        // Others may still have had something to say.
        let said = log.iter().find(|line| line.starts_with("error: "));
        let said = said.unwrap_or_else(|| panic!("{log:#?}"));
        assert!(
            said.contains("DATABASE_URL leads to a pooler that shares sessions"),
            "{said}"
        );
    }
}

async fn conversations(client: &Client, database: &Database) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..40 {
        let hello = event(
            &format!("evt_{n}"),
            &format!("user-{n}"),
            "Hello",
            "2025-01-01T10:00:00Z",
        );
        let receipt = client.webhook(&hello).await.expect(200);
        ids.push(receipt["conversationId"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        database.count("select count(*) from conversations").await,
        40
    );
    ids
}

/// Nothing has changed in those that were only ever read.
async fn assert_only_read(database: &Database) {
    let changed = "select count(*) from conversations where split_part(participant_id, '-', 2)::int < 20
        and (last_read_at is not null or unread_count <> 1 or status <> 'open' or archived_at is not null)";
    assert_eq!(database.count(changed).await, 0);
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn a_pooler_that_begins_to_share_sessions_ends_the_process_and_no_read_changes_anything() {
    for version in BOTH {
        let (database, role) = limited().await;
        let mock = mock().await;
        let pooler = Pooler::start(version, &database, &role, SESSION).await;
        let gateways = [
            serve_at(pooler.url(), &mock.url(), &["serve"], &[]).await,
            serve_at(pooler.url(), &mock.url(), &["serve"], &[]).await,
        ];
        let ids = conversations(&gateways[0].1, &database).await;
        for (n, id) in ids.iter().enumerate() {
            // Each has its statements, in an order of its own.
            let client = &gateways[n % 2].1;
            let path = format!("/conversations/{id}");
            client.get(&path).await.expect(200);
        }
        pooler.reload(TRANSACTION);
        both_end(gateways, &ids).await;
        assert_only_read(&database).await;
        assert_refused(&ends(&pooler, &COMMANDS).await, "shares sessions");
    }
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn a_pooler_that_comes_between_later_ends_the_process_before_it_is_used() {
    let (database, role) = limited().await;
    let mock = mock().await;
    let server = database
        .options()
        .get_socket()
        .unwrap()
        .join(".s.PGSQL.5432");
    for version in BOTH {
        let target = Arc::new(Mutex::new(server.clone()));
        let port = relay_to("127.0.0.1", Arc::clone(&target)).await;
        let url = format!(
            "postgres://{}@127.0.0.1:{port}/{}",
            role.name,
            database.name()
        );
        let (mut gateway, client) = serve_at(&url, &mock.url(), &["serve"], &[]).await;
        client.get("/ready").await.expect(200);
        let pooler = Pooler::start(version, &database, &role, TRANSACTION).await;
        *target.lock().unwrap() = pooler.socket();
        database
            .execute(&format!(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
                role.name
            ))
            .await;
        assert_eq!(gateway.ended().await.code(), Some(2));
        let log = gateway.log();
        let said = log.iter().find(|line| line.starts_with("error: "));
        assert!(
            said.is_some_and(|said| said.contains("shares sessions")),
            "{log:#?}"
        );
    }
}

#[tokio::test]
#[ignore = "needs PgBouncer: .ci/run gets two, and runs it"]
async fn two_gateways_share_a_pooler_that_keeps_sessions() {
    let (database, role) = limited().await;
    let mock = mock().await;
    let pooler = Pooler::start(PoolerVersion::Newer, &database, &role, SESSION).await;
    let first = serve_at(pooler.url(), &mock.url(), &["serve"], &[]).await;
    let second = serve_at(pooler.url(), &mock.url(), &["serve"], &[]).await;
    let ids = conversations(&first.1, &database).await;
    for id in &ids[..20] {
        for client in [&first.1, &second.1] {
            client
                .get(&format!("/conversations/{id}"))
                .await
                .expect(200);
        }
    }
    for id in &ids[20..] {
        let path = format!("/conversations/{id}/read");
        second.1.post_empty(&path).await.expect(200);
    }
    assert_only_read(&database).await;
}

/// Two statements, as one client prepares them.
const FIRST: &str = "select $1::int4";
const SECOND: &str = "select $1::int4 + 1";

#[tokio::test]
async fn whatever_postgresql_says_when_another_was_there_is_understood() {
    let database = Database::new().await;
    let cases = [
        ("42P05", "prepare sqlx_s_2 as select 1", SECOND),
        ("26000", "deallocate all", FIRST),
        (
            "08P01",
            "deallocate all; prepare sqlx_s_1 as select $1::int4, $2::int4",
            FIRST,
        ),
        (
            "08P01",
            "deallocate all; prepare sqlx_s_1 (int8) as select $1",
            FIRST,
        ),
        (
            "22P03",
            "deallocate all; prepare sqlx_s_1 (int2) as select $1",
            FIRST,
        ),
    ];
    for (code, another, statement) in cases {
        let mut connection: PgConnection = database.options().connect().await.unwrap();
        let call = sqlx::query(FIRST).bind(1);
        call.execute(&mut connection).await.unwrap();
        let another = sqlx::raw_sql(another);
        another.execute(&mut connection).await.unwrap();
        let call = sqlx::query(statement).bind(1);
        let error = call.execute(&mut connection).await.unwrap_err();
        let said = error.as_database_error().unwrap().code();
        assert_eq!(said.as_deref(), Some(code), "{error}");
        assert_eq!(unfit(&error), Some(Unfit::Shared), "{error}");
        assert_eq!(fault(&error), Fault::Away(Outage::Pooler), "{error}");
    }
}
