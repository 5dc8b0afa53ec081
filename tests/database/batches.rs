//! What a batch costs does not grow faster than the batch.

use futures_util::future::join_all;
use gateway::database::plans::Work;
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::support::{System, explain, rows_of, settings, statement};

/// The nodes of the plan that a writer's statement is carried out by, made while its tables were as
/// they are.
async fn plan(system: &System, header: &str, arguments: &str) -> Vec<Value> {
    let mut connection = system.database.pool().acquire().await.unwrap().detach();
    let prepare = format!("prepare batch as {}", statement(header));
    for sql in settings(Work::Batches).chain([prepare]) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    explain(&mut connection, &format!("execute batch ({arguments})")).await
}

#[tokio::test]
async fn finish_reads_each_row_of_its_batch_a_few_times_whatever_else_is_queued() {
    let system = System::without_worker(&[("SEND_CONCURRENCY", "0")]).await;
    let users: Vec<String> = (0..64).map(|n| format!("user-{n}")).collect();
    join_all(users.iter().map(|user| system.send(user, "Merhaba!"))).await;
    // Theirs are not in the batch.
    let others = "insert into deliveries (message_id, conversation_id, seq, due_at) select gen_random_uuid(), gen_random_uuid(), 1, now() from generate_series(1, 2000)";
    system.database.execute(others).await;
    let arguments = "select format('%L, %L, %L, %L', array_agg(id), array_agg('mid-' || id), array_agg(false), array_agg(null::float8)) from messages";
    let arguments: String = sqlx::query_scalar(arguments)
        .fetch_one(system.database.pool())
        .await
        .unwrap();
    let nodes = plan(&system, "delivery::mark_sent", &arguments).await;
    for node in &nodes {
        assert!(rows_of(node) <= 128.0, "{node:#}");
    }
    let wrong = "select count(*) from messages where status <> 'SENT' or provider_message_id <> 'mid-' || id";
    assert_eq!(system.database.count(wrong).await, 0);
    assert_eq!(
        system
            .database
            .count("select count(*) from deliveries")
            .await,
        2000
    );
}
