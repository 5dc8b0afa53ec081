//! What a caller may ask for costs others nothing: deep pages, and readiness that thousands ask
//! for.

use std::time::Instant;

use futures_util::future::join_all;
use gateway::database::pool::Pool;
use serde_json::json;
use sqlx::ConnectOptions as _;
use tokio_util::sync::CancellationToken;

use crate::support::{Database, System, eventually};

#[tokio::test]
async fn a_page_is_at_most_so_deep_and_beyond_it_a_cursor_is_named() {
    let system = System::start().await;
    let sent = system.send("user-1", "Hi").await;
    let thread = format!(
        "/conversations/{}",
        sent["conversationId"].as_str().unwrap()
    );
    for path in ["/conversations", &thread] {
        for good in [
            "page=1000&limit=100",
            "page=100000&limit=1",
            "page=50000&limit=2",
            "page=1&limit=100",
            "limit=100",
        ] {
            system
                .client
                .get(&format!("{path}?{good}"))
                .await
                .expect(200);
        }
        for deep in [
            "page=1001&limit=100",
            "page=100001&limit=1",
            "page=10001",
            "page=3334&limit=30",
            "page=4294967295&limit=100",
        ] {
            let answer = system.client.get(&format!("{path}?{deep}")).await;
            assert_eq!(answer.fields(), ["cursor"], "{path} {deep}");
        }
    }
    let path = format!("{thread}?page=500&limit=200");
    system.client.get(&path).await.expect(200);
    let path = format!("{thread}?page=501&limit=200");
    assert_eq!(system.client.get(&path).await.fields(), ["cursor"]);
}

#[tokio::test]
async fn however_many_ask_whether_it_is_ready_the_database_is_asked_once_a_second() {
    let system = System::start().await;
    // Each look at the migrations is counted.
    system
        .database
        .execute(
            "create sequence looks; alter table _sqlx_migrations rename to migrations;
             create view _sqlx_migrations as select m.* from (select nextval('looks')) look, migrations m",
        )
        .await;
    let began = Instant::now();
    for _ in 0..5 {
        let answers = join_all((0..60).map(|_| system.client.get("/ready"))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
    }
    let most = i64::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let looks = "select case when is_called then last_value else 0 end from looks";
    let looks = system.database.count(looks).await;
    assert!((1..=most).contains(&looks), "{looks} of {most}");
}

#[tokio::test]
async fn readers_do_not_keep_the_worker_from_what_is_due() {
    let environment = [("DATABASE_MAX_CONNECTIONS", "6"), ("SEND_CONCURRENCY", "0")];
    let system = System::with(&environment).await;
    let hold = "update channels set paused_until = now() + interval '1 hour', ramp_until = now() + interval '1 hour'";
    system.database.execute(hold).await;
    let due = system.send("user-1", "Merhaba").await;
    assert_eq!(due["status"], "PENDING");
    // The one connection of readers waits for a lock, and they for that connection.
    let mut lock = system.database.options().connect().await.unwrap();
    let statements = "begin; lock table conversations in access exclusive mode";
    sqlx::raw_sql(statements).execute(&mut lock).await.unwrap();
    let over = CancellationToken::new();
    let readers = join_all((0..40).map(async |_| {
        while !over.is_cancelled() {
            let answer = system.client.get("/conversations").await;
            assert_eq!(answer.status, 503, "{answer:?}");
        }
    }));
    let sent = async {
        // So long that each claim would have given up waiting.
        eventually("readers are refused for want of a connection", async || {
            let log = system.gateway.log();
            let is_it = |line: &String| line.contains("no connection was free in time");
            log.iter().any(is_it).then_some(())
        })
        .await;
        system.end_pauses().await;
        eventually("the message is sent", async || {
            (system.mock.stats().calls == 1).then_some(json!(null))
        })
        .await;
        over.cancel();
    };
    tokio::join!(readers, sent);
}

#[tokio::test]
async fn claims_have_a_connection_of_their_own_and_where_the_server_has_no_more_one_of_the_readers()
{
    let database = Database::new().await;
    let readers = Pool::new(database.options(), 1);
    let claims = readers.one_more();
    let reading = readers.acquire().await.unwrap();
    claims.acquire().await.unwrap();
    drop(reading);

    let role = database.role("connection limit 2").await;
    let readers = Pool::new(database.options().username(&role.name), 2);
    let claims = readers.one_more();
    let (first, second) = tokio::join!(readers.acquire(), readers.acquire());
    let held = first.unwrap();
    drop(second.unwrap());
    claims.acquire().await.unwrap();
    assert_eq!((readers.sizes().0, claims.sizes().0), (1, 1));
    drop(held);
}
