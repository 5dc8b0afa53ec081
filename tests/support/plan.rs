//! How PostgreSQL carries out a statement of the program.

use gateway::database::plans::{Plans, Work};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Database, statement};

/// The nodes of the plan that PostgreSQL carries a statement out by, prepared and used often, as
/// the program does.
pub async fn plan(database: &Database, header: &str, types: &str, arguments: &str) -> Vec<Value> {
    let mut connection = database.pool().acquire().await.unwrap();
    let prepare = format!("prepare listing ({types}) as {}", statement(header));
    let again = format!("execute listing ({arguments});").repeat(10);
    for sql in settings(Work::Reads).chain([prepare, again]) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    let nodes = explain(&mut connection, &format!("execute listing ({arguments})")).await;
    sqlx::raw_sql("deallocate listing")
        .execute(&mut *connection)
        .await
        .unwrap();
    nodes
}

/// What makes a connection one that the program has for this work.
pub fn settings(work: Work) -> impl Iterator<Item = String> {
    let settings = Plans::default().of(work).iter();
    settings.map(|(name, value)| format!("set {name} = {value}"))
}

/// The nodes of the plan that this call of a prepared statement is carried out by.
pub async fn explain(connection: &mut PgConnection, call: &str) -> Vec<Value> {
    let explain = format!("explain (analyze, buffers, format json) {call}");
    let row = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_one(connection)
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

/// How many rows a node has read or made, in all its turns.
pub fn rows_of(node: &Value) -> f64 {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops")
}
