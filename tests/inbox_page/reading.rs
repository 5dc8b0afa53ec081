//! What is read is what somebody has seen, and only that.

use serde_json::json;
use thirtyfour::Key;

use crate::stage::{Stage, play, play_with};
use crate::support::{Held, LONG_ATTEMPT};

async fn opened(stage: &Stage) -> String {
    let conversation = stage.writes("user-1", "Hello").await;
    stage.page.open().await;
    stage.page.select(&conversation).await;
    stage.page.has_unread(&conversation, "").await;
    conversation
}

async fn unread(stage: &Stage, conversation: &str) -> i64 {
    let conversation = stage.conversation(conversation).await;
    conversation["unreadCount"].as_i64().unwrap()
}

/// Lets the page do all that it is going to do: what it asks for now comes behind that.
async fn settle(stage: &Stage) {
    let name = uuid::Uuid::now_v7().to_string();
    let conversation = stage.writes(&name, "Something else").await;
    stage.page.has_unread(&conversation, "1").await;
}

#[tokio::test]
async fn what_is_seen_is_read_and_not_asked_for_again() {
    play(async |stage| {
        let conversation = opened(stage).await;
        assert_eq!(unread(stage, &conversation).await, 0);
        settle(stage).await;
        let read = format!("POST /conversations/{conversation}/read");
        assert_eq!(stage.gate.count(&read), 1);
        // Somebody is there, so what comes is seen.
        stage.writes("user-1", "And one more").await;
        stage.page.has_bubble("And one more").await;
        stage.page.press(Key::Shift).await;
        stage.page.has_unread(&conversation, "").await;
        settle(stage).await;
        assert_eq!(unread(stage, &conversation).await, 0);
        assert_eq!(stage.gate.count(&read), 2);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_read_while_the_page_is_hidden_or_nobody_is_there() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        page.hide().await;
        stage.writes("user-1", "While you were away").await;
        page.has_unread(&conversation, "1").await;
        page.has_bubble("While you were away").await;
        // What was pressed before it came is no sign of anybody.
        page.eval("dispatchEvent(new KeyboardEvent('keydown'))")
            .await;
        settle(stage).await;
        assert_eq!(unread(stage, &conversation).await, 1);
        stage.writes("user-1", "And longer").await;
        page.has_unread(&conversation, "2").await;
        page.show().await;
        settle(stage).await;
        assert_eq!(unread(stage, &conversation).await, 2);
        page.press(Key::Shift).await;
        page.has_unread(&conversation, "").await;
        assert_eq!(unread(stage, &conversation).await, 0);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_read_in_a_window_that_has_not_the_focus() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let page = &stage.page;
        page.open().await;
        page.tab(&format!("/inbox#{conversation}")).await;
        page.is_live().await;
        page.has_bubble("Hello").await;
        settle(stage).await;
        assert_eq!(page.eval("return document.hasFocus()").await, false);
        // A pointer may pass over it. (That of the browser's tools would give it the focus.)
        page.eval("dispatchEvent(new PointerEvent('pointermove'))")
            .await;
        settle(stage).await;
        assert_eq!(unread(stage, &conversation).await, 1);
        page.click("[role=log]").await;
        page.has_unread(&conversation, "").await;
        assert_eq!(unread(stage, &conversation).await, 0);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_read_in_a_thread_that_a_telephone_does_not_show() {
    play(async |stage| {
        stage.page.as_telephone().await;
        let conversation = opened(stage).await;
        let page = &stage.page;
        page.click("[data-testid=back]").await;
        page.until("the list is there", "return isShown(one('conversations'))")
            .await;
        stage.writes("user-1", "While you were in the list").await;
        page.has_unread(&conversation, "1").await;
        page.press(Key::Shift).await;
        settle(stage).await;
        assert_eq!(unread(stage, &conversation).await, 1);
        page.select(&conversation).await;
        page.until("the list is gone", "return !isShown(one('conversations'))")
            .await;
        page.has_bubble("While you were in the list").await;
        page.until("it is read", "return document.title !== '(2) Inbox'")
            .await;
    })
    .await;
}

#[tokio::test]
async fn what_comes_between_the_look_and_its_read_stays_unread() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let held = stage
            .gate
            .stop(&format!("POST /conversations/{conversation}/read"));
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        held.arrived().await;
        // An older one, too, which comes late.
        stage.writes("user-1", "In between").await;
        stage
            .writes_at("user-1", "Long ago", "2025-01-01T10:00:00Z")
            .await;
        page.has_bubble("In between").await;
        page.hide().await;
        held.pass();
        page.has_unread(&conversation, "2").await;
        assert_eq!(unread(stage, &conversation).await, 2);
    })
    .await;
}

#[tokio::test]
async fn two_agents_do_not_undo_what_the_other_has_read() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let other = stage.another().await;
        let (page, other) = (&stage.page, &stage.others[other]);
        other.open().await;
        other.select(&conversation).await;
        page.hide().await;
        stage.writes("user-1", "Who reads this?").await;
        other.has_bubble("Who reads this?").await;
        other.press(Key::Shift).await;
        page.has_unread(&conversation, "").await;
        page.show().await;
        page.press(Key::Shift).await;
        settle(stage).await;
        assert_eq!(unread(stage, &conversation).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_old_answer_takes_nothing_back() {
    let provider = Held::start().await;
    let environment = [("PROVIDER_URL", provider.url()), LONG_ATTEMPT];
    play_with(&environment, async |stage| {
        let conversation = opened(stage).await;
        let quiet = stage.writes("user-2", "Hello").await;
        let page = &stage.page;
        page.send("Good morning").await;
        let call = provider.call().await;
        page.becomes("Good morning", "PENDING").await;
        page.has_unread(&quiet, "1").await;

        // The list and the thread as they are now, which come late.
        let list = stage.gate.hold("GET /conversations?");
        let thread = stage
            .gate
            .hold(&format!("GET /conversations/{conversation}?"));
        page.time_passes(72).await;
        list.arrived().await;
        thread.arrived().await;
        call.accept("provider-1").await;
        page.becomes("Good morning", "SENT").await;
        stage.writes("user-2", "One more").await;
        page.has_unread(&quiet, "2").await;
        list.pass();
        thread.pass();
        let news = stage.writes("user-3", "Behind the old answers").await;
        page.has_unread(&news, "1").await;
        page.becomes("Good morning", "SENT").await;
        page.has_unread(&quiet, "2").await;
        let rows = page.rows().await;
        let ids: Vec<_> = rows.iter().map(|row| &row.id).collect();
        assert_eq!(ids[..2], [&news, &quiet], "{}", json!(ids));
    })
    .await;
}
