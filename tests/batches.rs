//! What a batch costs does not grow faster than the batch.

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use crate::support::{System, rows_of, statement};

/// The nodes of the plan that a writer's statement is carried out by, made while its tables were as they are.
async fn plan(system: &System, header: &str, arguments: &str) -> Vec<Value> {
    let mut connection = system.database.pool().acquire().await.unwrap().detach();
    let settings = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off";
    let prepare = format!("prepare batch as {}", statement(header));
    for sql in [settings.to_owned(), prepare] {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let explain = format!("explain (analyze, format json) execute batch ({arguments})");
    let row = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let plan: Value = serde_json::from_str(row.try_get_unchecked(0).unwrap()).unwrap();
    let mut nodes = vec![plan[0]["Plan"].clone()];
    let mut next = 0;
    while let Some(node) = nodes.get(next) {
        let children = node["Plans"].as_array().cloned().unwrap_or_default();
        nodes.extend(children);
        next += 1;
    }
    nodes
}

#[tokio::test]
async fn finish_reads_each_row_of_its_batch_a_few_times_whatever_else_is_queued() {
    let system = System::without_worker(&[("SEND_CONCURRENCY", "0")]).await;
    let users: Vec<String> = (0..64).map(|n| format!("user-{n}")).collect();
    join_all(users.iter().map(|user| system.send(user, "Merhaba!"))).await;
    // Theirs are not in the batch.
    let others = "insert into deliveries (message_id, conversation_id, seq, due_at) select gen_random_uuid(), gen_random_uuid(), 1, now() from generate_series(1, 2000)";
    system.database.execute(others).await;
    let arguments = "select format('%L, %L', array_agg(id), array_agg('mid-' || id)) from messages";
    let arguments: String = sqlx::query_scalar(arguments)
        .fetch_one(system.database.pool())
        .await
        .unwrap();
    let nodes = plan(&system, "delivery::finish", &arguments).await;
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
