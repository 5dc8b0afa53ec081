//! Migrations: what they wait for is said and limited, and nobody waits long behind one that waits.

use std::process::Stdio;

use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::support::{
    Client, Database, Postgres, Program, Run, assert_full_service, eventually, hello, mock, run,
    serve_at,
};

/// Lacks the migration of that number, which adds this column.
async fn without_sent_by(database: &Database) {
    database.migrate().await;
    database
        .execute(
            "alter table messages drop column sent_by; alter table deliveries drop column sent_by;
             delete from _sqlx_migrations where version = 8",
        )
        .await;
}

/// Somebody else's session.
async fn other(database: &Database, sql: &'static str) -> PgConnection {
    let options = database.options().application_name("report");
    let mut connection: PgConnection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection
}

fn migrate(database: &Database, wait_ms: &str) -> Run {
    run(database, "migrate", &["--wait-ms", wait_ms])
}

/// What it says of its waiting, the first time.
async fn waits(program: &Program) -> String {
    eventually("it says what it waits for", async || {
        let log = program.log();
        log.into_iter().find(|line| line.contains(" waits for "))
    })
    .await
}

const HELD: &str = "begin; lock table messages in access share mode";

#[tokio::test]
async fn a_lock_that_others_hold_is_waited_for_and_said_while_everybody_else_goes_on() {
    let database = Database::new().await;
    without_sent_by(&database).await;
    let holder = other(&database, HELD).await;
    let mut migrate = migrate(&database, "60000").start();
    let said = waits(&migrate).await;
    for part in [
        "migration 8 (sent by) waits for a lock that others hold: process ",
        "(report, role gateway, idle in transaction",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // It lets others by: a statement of a running gateway waits for 250 ms at most.
    let mut passed = 0;
    for _ in 0..20 {
        let sql = "set lock_timeout = '250ms'; select count(*) from messages";
        let mut reader: PgConnection = database.options().connect().await.unwrap();
        passed += u32::from(sqlx::raw_sql(sql).execute(&mut reader).await.is_ok());
    }
    assert!(passed > 0);
    assert!(migrate.try_ended().is_none());
    holder.close().await.unwrap();
    assert!(migrate.ended().await.success());
    let column = "select count(*) from information_schema.columns where column_name = 'sent_by'";
    assert_eq!(database.count(column).await, 2);
}

#[tokio::test]
async fn a_lock_that_stays_is_given_up_with_whoever_holds_it_and_nothing_is_left() {
    let database = Database::new().await;
    without_sent_by(&database).await;
    let holder = other(&database, HELD).await;
    let ended = migrate(&database, "2500").end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    for part in [
        "error: migration 8 (sent by) was given up after ",
        "it waits for a lock that others hold: process ",
        "(report, role gateway, idle in transaction",
    ] {
        assert!(last.contains(part), "{part}: {last}");
    }
    drop(holder);
    let again = migrate(&database, "60000").end().await;
    assert_eq!(again.code, Some(0), "{again:?}");
}

#[tokio::test]
async fn another_migration_is_waited_for_and_said() {
    let database = Database::new().await;
    // The lock that the migrator takes for this database.
    let key = 0x3d32_ad9e * i64::from(crc32(database.name().as_bytes()));
    let sql = format!("select pg_advisory_lock({key})");
    let holder = other(&database, Box::leak(sql.into_boxed_str())).await;
    let mock = mock().await;
    // Also one that serves.
    let serve = Program::new("serve")
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", &mock.url())
        .start();
    for program in [&migrate(&database, "60000").start(), &serve] {
        let said = waits(program).await;
        assert!(
            said.contains("migration 1 (tables) waits for another migration: process "),
            "{said}"
        );
    }
    let ended = migrate(&database, "1500").end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("waits for another migration"),
        "{ended:?}"
    );
    holder.close().await.unwrap();
    serve.logged("ready").await;
    Client::new(serve.url()).get("/ready").await.expect(200);
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc));
    !bytes.iter().fold(u32::MAX, byte)
}

#[tokio::test]
async fn a_standby_that_is_not_there_is_said_and_given_up() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let settings = [
        (
            "alter system set synchronous_standby_names = 'tokyo'",
            "tokyo",
        ),
        ("alter system reset synchronous_standby_names", ""),
    ];
    let [alone, together] = settings;
    set_standbys(&database, alone).await;
    let ended = migrate(&database, "3000").end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let said = "migration 1 (tables) waits for a synchronous standby to confirm what is committed on this server \
                (synchronous_standby_names is 'tokyo')";
    assert!(lines[0].contains(said), "{lines:#?}");
    let last = lines.last().unwrap();
    assert!(
        last.starts_with(
            "error: migration 1 (tables) was given up after 3 s: it waits for a synchronous"
        ),
        "{last}"
    );
    // Nothing of it is left to hold up others.
    eventually("no process waits any more", async || {
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        (database.count(waiting).await == 0).then_some(())
    })
    .await;
    set_standbys(&database, together).await;
    let again = migrate(&database, "60000").end().await;
    assert_eq!(again.code, Some(0), "{again:?}");
    let status = run(&database, "migrate", &["--status", "--json"]);
    let status = status.finish().await.data();
    let all = status.as_array().unwrap();
    assert!(all.iter().all(|migration| migration["applied"] == true));

    // Where none is lacking, nothing is written, and so nothing waited for.
    set_standbys(&database, alone).await;
    let nothing = migrate(&database, "60000").end().await;
    assert_eq!(nothing.code, Some(0), "{nothing:?}");
}

async fn set_standbys(database: &Database, (sql, names): (&str, &str)) {
    database.execute(sql).await;
    database.execute("select pg_reload_conf()").await;
    eventually("the setting is in force", async || {
        let is = format!(
            "select count(*) from pg_settings where name = 'synchronous_standby_names' and setting = '{names}'"
        );
        (database.count(&is).await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_role_with_rights_on_the_data_alone_does_everything_but_a_migration_and_says_who_can() {
    let database = Database::migrated().await;
    let url = database.role_for_data().await.url;
    let mock = mock().await;
    let of = |command: &[&str]| {
        Program::on(&url, command)
            .env("PROVIDER_URL", &mock.url())
            .stdout(Stdio::null())
    };
    let (_gateway, client) = serve_at(&url, &mock.url(), &["serve"], &[]).await;
    client.webhook(&hello("evt_1")).await.expect(200);
    assert_full_service(&client).await;
    for command in [
        &["migrate"][..],
        &["migrate", "--status"],
        &["seed"],
        &["seed", "--messages", "100", "--random-seed", "7"],
        &["retry", "--list"],
        &["retry", "--all"],
        &["forget", "whatsapp", "user-1"],
        &["worker", "--drain"],
    ] {
        let done = of(command).end().await;
        assert_eq!(done.code, Some(0), "{command:?}: {done:?}");
    }

    // One is lacking, and it does not own what that changes.
    database
        .execute("delete from _sqlx_migrations where version = 8")
        .await;
    for command in [&["migrate"][..], &["seed"]] {
        let refused = of(command).end().await;
        assert_eq!(refused.code, Some(1), "{command:?}: {refused:?}");
        let last = refused.stderr.lines().last().unwrap();
        for part in [
            "error: 1 migrations are not applied, and this role may not apply them",
            "run gateway migrate as the role that owns",
            "permission denied for schema public",
        ] {
            assert!(last.contains(part), "{part}: {last}");
        }
    }
}

#[tokio::test]
async fn what_came_in_before_an_upgrade_is_counted_and_can_be_read_up_to_a_place() {
    let database = Database::new().await;
    let mut connection = database.options().connect().await.unwrap();
    let files = sqlx::migrate!();
    let older = files.iter().filter(|file| file.version < 12).cloned();
    let older = Migrator::with_migrations(older.collect());
    older.run(&mut connection).await.unwrap();
    // As an older version has stored them: two customers, with 5 and 0 messages, and answers.
    let rows = "insert into conversations (id, channel, participant_id, last_message_id, last_message_at, last_message_preview, unread_count)
          select gen_random_uuid(), 'whatsapp', 'user-' || n, gen_random_uuid(), now(), '', case n when 1 then 3 else 0 end from generate_series(1, 2) n;
        insert into messages (id, conversation_id, channel, participant_id, direction, text, status, sent_at, timestamp, sort_at)
          select gen_random_uuid(), c.id, c.channel, c.participant_id, d.direction, 'Hello', d.status, d.sent_at, now(), now()
          from conversations c cross join generate_series(1, 5) n cross join (values ('INBOUND', 'RECEIVED', null), ('OUTBOUND', 'SENT', now())) d(direction, status, sent_at)
          where d.direction = 'OUTBOUND' or c.participant_id = 'user-1'";
    database.execute(rows).await;

    let mock = mock().await;
    let (_gateway, client) = serve_at(database.url(), &mock.url(), &["serve"], &[]).await;
    let counts = async |participant: &str| {
        let conversation = client.conversation(participant).await;
        ["inboundCount", "unreadCount", "revision"].map(|name| conversation[name].as_i64().unwrap())
    };
    assert_eq!(counts("user-1").await, [5, 3, 1]);
    assert_eq!(counts("user-2").await, [0, 0, 1]);
    client.webhook(&hello("evt_1")).await.expect(200);
    assert_eq!(counts("user-1").await, [6, 4, 2]);
    let conversation = client.conversation("user-1").await;
    let path = format!(
        "/conversations/{}/read",
        conversation["id"].as_str().unwrap()
    );
    let read = client.post(&path, &json!({ "inboundCount": 5 })).await;
    assert_eq!(read.expect(200)["unreadCount"], 1);
}
