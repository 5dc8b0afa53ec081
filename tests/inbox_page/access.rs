//! What a screen reader and a keyboard find, in every view.

use serde_json::json;

use crate::axe::faults;
use crate::page::Page;
use crate::stage::{Stage, play_with};
use crate::support::NO_RETRY;

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
