//! The composer: what Enter does, and what cannot be sent.

use serde_json::json;
use thirtyfour::Key;

use crate::stage::{Stage, play};

async fn opened(stage: &Stage) -> String {
    let conversation = stage.writes("user-1", "Hello").await;
    stage.page.open().await;
    stage.page.select(&conversation).await;
    conversation
}

#[tokio::test]
async fn enter_sends_and_shift_enter_is_a_line() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        page.write("One").await;
        let line = page
            .driver
            .action_chain()
            .key_down(Key::Shift)
            .send_keys(Key::Enter);
        line.key_up(Key::Shift).perform().await.unwrap();
        page.press("Two").await;
        assert_eq!(page.draft().await, "One\nTwo");
        page.press(Key::Enter).await;
        page.becomes("One\nTwo", "SENT").await;
        assert_eq!(stage.sent(&conversation).await, ["One\nTwo"]);
        let has_focus = page
            .eval("return document.activeElement === one('composer')")
            .await;
        assert_eq!(has_focus, true);
    })
    .await;
}

#[tokio::test]
async fn enter_while_a_word_is_composed_only_ends_the_word() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        page.hook("composer").await.click().await.unwrap();
        let word = json!({ "text": "にほん", "selectionStart": 3, "selectionEnd": 3 });
        page.tell("Input.imeSetComposition", word).await;
        let enter = json!({ "type": "keyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229 });
        page.tell("Input.dispatchKeyEvent", enter).await;
        page.tell("Input.insertText", json!({ "text": "日本" })).await;
        assert_eq!(page.draft().await, "日本");
        assert_eq!(page.bubbles().await.len(), 1);
        page.press(Key::Enter).await;
        page.becomes("日本", "SENT").await;
        assert_eq!(stage.sent(&conversation).await, ["日本"]);
    })
    .await;
}

#[tokio::test]
async fn characters_are_counted_as_the_gateway_counts_them() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        let whole = "🙂".repeat(4096);
        page.write(&format!("{whole}x")).await;
        page.press(Key::Enter).await;
        let script =
            "return /too many|at most/.test(document.querySelector('#composer').innerText)";
        page.until("it says that it is too long", script).await;
        assert_eq!(page.draft().await, format!("{whole}x"));
        page.press(Key::Backspace).await;
        page.press(Key::Enter).await;
        page.until(
            "it is sent",
            "return bubbles().length === 2 && bubbles()[1].dataset.status === 'SENT'",
        )
        .await;
        assert_eq!(stage.sent(&conversation).await, [whole]);
    })
    .await;
}

#[tokio::test]
async fn what_is_blank_is_not_sent() {
    play(async |stage| {
        opened(stage).await;
        let page = &stage.page;
        page.write("  ").await;
        page.press(Key::Enter).await;
        page.write("Something").await;
        page.click("[data-testid=send]").await;
        page.becomes("Something", "SENT").await;
        assert_eq!(stage.gate.count("POST /messages/send"), 1);
        assert_eq!(page.bubbles().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn keys_lead_through_the_inbox_but_not_out_of_a_field() {
    play(async |stage| {
        let first = stage.writes("user-1", "Hello").await;
        let second = stage.writes("user-2", "Hello").await;
        let page = &stage.page;
        page.open().await;
        page.press("j").await;
        page.press(Key::Enter).await;
        let open = "return rows().some((row) => row.id === given && row.isOpen)";
        page.until_with("the first row is open", open, &json!(second))
            .await;
        page.press("j").await;
        page.press(Key::Enter).await;
        page.until_with("the second row is open", open, &json!(first))
            .await;
        page.press("r").await;
        page.until(
            "the composer has the focus",
            "return document.activeElement === one('composer')",
        )
        .await;
        page.press("jkre/?").await;
        assert_eq!(page.draft().await, "jkre/?");
        assert_eq!(stage.conversation(&first).await["status"], "open");
        page.press(Key::Escape).await;
        page.press("e").await;
        page.until("it is closed", "return rows()[1].text.includes('Closed')")
            .await;
        page.press("/").await;
        page.until(
            "the search has the focus",
            "return document.activeElement === one('search')",
        )
        .await;
    })
    .await;
}
