//! What a screen reader and a keyboard find, in every view.

use serde_json::json;

use crate::axe::faults;
use crate::page::Page;
use crate::stage::{Stage, play, play_with};
use crate::support::NO_RETRY;
use crate::wire;

async fn assert_accessible(page: &Page, what: &str) {
    for is_dark in [false, true] {
        page.as_dark(is_dark).await;
        let faults = faults(page).await;
        assert!(faults.is_empty(), "{what}, dark: {is_dark}: {faults:#?}");
    }
}

async fn opened(stage: &Stage) -> String {
    let conversation = stage
        .writes("user-1", "Hello, see https://example.com")
        .await;
    stage.writes("user-2", "Hello").await;
    let mock = &stage.system.mock;
    mock.script("user-1", [mock_meta_provider::Fault::Reject]);
    stage.page.open().await;
    conversation
}

#[tokio::test]
async fn list_thread_and_dialog_are_accessible() {
    play_with(&[NO_RETRY], async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        assert_accessible(page, "list").await;
        page.select(&conversation).await;
        page.send("Good morning").await;
        page.becomes("Good morning", "FAILED").await;
        assert_accessible(page, "thread").await;
        page.click("#help-open").await;
        page.until(
            "the dialog is there",
            "return document.querySelector('dialog[open]')?.id",
        )
        .await;
        assert_accessible(page, "dialog").await;
        page.press(thirtyfour::Key::Escape).await;
        stage.gate.cut();
        stage.page.expect("net::ERR_");
        stage.page.expect("Failed to load resource");
        stage.page.banner(true).await;
        assert_accessible(&stage.page, "banner").await;
    })
    .await;
}

#[tokio::test]
async fn a_telephone_and_an_empty_inbox_are_accessible() {
    play_with(&[NO_RETRY], async |stage| {
        stage.page.open().await;
        assert_accessible(&stage.page, "empty inbox").await;
        stage.page.as_telephone().await;
        let conversation = opened(stage).await;
        let page = &stage.page;
        page.until("the rows are there", "return rows().length === 2")
            .await;
        assert_accessible(page, "list on a telephone").await;
        page.select(&conversation).await;
        assert_accessible(page, "thread on a telephone").await;
    })
    .await;
}

#[tokio::test]
async fn the_newest_message_alone_is_read_aloud() {
    play_with(&[], async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        stage.writes("user-1", "Only this").await;
        let script = "const live = [...document.querySelectorAll('[aria-live=polite], [role=status]')];
            return live.some((node) => node.textContent.includes('Only this') && !node.textContent.includes('Hello'))";
        page.until("it is read aloud", script).await;
        let log = page.eval("return document.querySelector('[role=log]').getAttribute('aria-live')").await;
        assert_eq!(log, json!("off"));
    })
    .await;
}

#[tokio::test]
async fn messages_of_each_type_are_accessible() {
    play(async |stage| {
        let conversation = wire::one_of_each(stage).await;
        let shown = stage.conversation(&conversation).await;
        let newest = shown["messages"][0]["id"].as_str().unwrap();
        let reactions = json!({ "": { "emoji": "👍", "at": "2026-11-26T10:00:00Z" } }).to_string();
        let what = "reactions = $2::jsonb, reply_to = 'wamid', edited_at = now()";
        wire::change(stage, newest, what, &[&reactions]).await;
        let mut ours = Vec::new();
        for text in ["The first", "The second", "The third"] {
            ours.push(wire::sends(stage, text).await);
        }
        wire::is_told(stage, &ours[0], "read_at = now()").await;
        wire::is_told(stage, &ours[1], "failed_at = now(), error_code = 131026").await;
        let replies = format!("origin = 'app', reply_to = 'wamid', reply_to_id = '{}'", ours[0].trim_start_matches("msg_"));
        wire::change(stage, &ours[2], &replies, &[]).await;
        let told = "update conversations set participant_name = 'Lena', window_from = now() - interval '2 days'";
        stage.system.database.execute(told).await;
        stage.gate.has("GET /messages/", wire::picture());
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.has_bubble("The third").await;
        assert_accessible(page, "messages of each type").await;
        page.as_telephone().await;
        assert_accessible(page, "messages of each type on a telephone").await;
    })
    .await;
}
