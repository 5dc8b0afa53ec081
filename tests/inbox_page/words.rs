//! What the page says of a message: what it is, how far it has come, and why it did not.

use serde_json::{Value, json};

use crate::stage::{Stage, play};

const TABLES: &str = include_str!("tables.js");

/// What a table of `tables.js` finds wrong.
async fn differing(stage: &Stage, table: &str) -> Value {
    let page = &stage.page;
    page.open().await;
    let script = format!(
        "const done = arguments[arguments.length - 1];
        {TABLES}
        const names = ['contents', 'ticks', 'trouble', 'reasons', 'window'];
        Promise.all(names.map((name) => import(`/inbox/${{name}}.js`))).then((all) => {{
          done(differing(arguments[0], Object.fromEntries(all.map((each, at) => [names[at], each]))));
        }}).catch((error) => done([String(error.stack)]));"
    );
    let given = vec![json!(table)];
    let said = page.driver.execute_async(script, given).await.unwrap();
    said.json().clone()
}

#[tokio::test]
async fn what_a_message_is_is_read_from_its_type_never_from_its_text() {
    play(async |stage| assert_eq!(differing(stage, "contents").await, json!([]))).await;
}

#[tokio::test]
async fn each_step_of_a_message_has_its_tick_and_its_words() {
    play(async |stage| assert_eq!(differing(stage, "ticks").await, json!([]))).await;
}

#[tokio::test]
async fn each_reason_is_said_in_words_with_the_code_of_the_provider() {
    play(async |stage| assert_eq!(differing(stage, "reasons").await, json!([]))).await;
}

#[tokio::test]
async fn the_window_of_24_hours_is_said_in_words() {
    play(async |stage| assert_eq!(differing(stage, "window").await, json!([]))).await;
}
