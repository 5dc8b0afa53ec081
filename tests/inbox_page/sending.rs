//! A message that is sent is one bubble and one message, whatever is lost on the way.

use mock_meta_provider::Fault;
use serde_json::json;
use thirtyfour::Key;

use crate::stage::{Stage, play, play_with};
use crate::support::{Held, LONG_ATTEMPT, NO_RETRY};

/// The one bubble with this text is that of the one message.
async fn assert_once(stage: &Stage, conversation: &str, text: &str) {
    let id = stage.page.becomes(text, "SENT").await;
    assert_eq!(stage.sent(conversation).await, [text]);
    let api = stage.conversation(conversation).await;
    assert_eq!(api["messages"][0]["id"], id.as_str());
}

async fn opened(stage: &Stage) -> String {
    let conversation = stage.writes("user-1", "Hello").await;
    stage.page.open().await;
    stage.page.select(&conversation).await;
    conversation
}

#[tokio::test]
async fn an_event_that_comes_before_the_answer_makes_no_second_bubble() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        let held = stage.gate.hold("POST /messages/send");
        page.send("Good morning").await;
        held.arrived().await;
        assert_once(stage, &conversation, "Good morning").await;
        held.pass();
        // What follows is behind the answer.
        page.send("How are you?").await;
        page.becomes("How are you?", "SENT").await;
        page.becomes("Good morning", "SENT").await;
        assert_eq!(page.draft().await, "");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_comes_before_the_event_makes_no_second_bubble() {
    play(async |stage| {
        stage.page.expect("net::ERR_");
        let conversation = opened(stage).await;
        let page = &stage.page;
        let held = stage.gate.hold("GET /events");
        stage.gate.interrupt();
        held.arrived().await;
        page.send("Good morning").await;
        let script = "return withText('Good morning')[0].dataset.messageId.startsWith('msg_')";
        page.until("it is stored", script).await;
        held.pass();
        assert_once(stage, &conversation, "Good morning").await;
        stage.writes("user-1", "And you?").await;
        page.has_bubble("And you?").await;
        page.becomes("Good morning", "SENT").await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_one_bubble_and_one_message() {
    play(async |stage| {
        stage.page.expect("Failed to load resource");
        let conversation = opened(stage).await;
        let held = stage.gate.hold("POST /messages/send");
        stage.page.send("Good morning").await;
        held.arrived().await;
        held.lose();
        assert_once(stage, &conversation, "Good morning").await;
        stage.page.send("How are you?").await;
        stage.page.becomes("How are you?", "SENT").await;
        assert_eq!(
            stage.sent(&conversation).await,
            ["Good morning", "How are you?"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_page_that_is_loaded_again_in_between_sends_once() {
    play(async |stage| {
        stage.page.expect("Failed to load resource");
        let conversation = opened(stage).await;
        let held = stage.gate.stop("POST /messages/send");
        stage.page.send("Good morning").await;
        held.arrived().await;
        stage.page.reload().await;
        stage.page.has_bubble("Good morning").await;
        held.pass();
        assert_once(stage, &conversation, "Good morning").await;
    })
    .await;
}

#[tokio::test]
async fn quick_lines_arrive_in_the_order_of_typing() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        let held = stage.gate.stop("POST /messages/send");
        page.send("The first").await;
        page.send("The second").await;
        page.send("The third").await;
        held.arrived().await;
        assert_eq!(stage.gate.count("POST /messages/send"), 1);
        held.pass();
        page.becomes("The first", "SENT").await;
        page.becomes("The second", "SENT").await;
        page.becomes("The third", "SENT").await;
        let sent = stage.sent(&conversation).await;
        assert_eq!(sent, ["The first", "The second", "The third"]);
        let bubbles = page.bubbles().await;
        let texts: Vec<_> = bubbles.iter().map(|bubble| &bubble.text).collect();
        let is_in_order = ["The first", "The second", "The third"]
            .iter()
            .zip(&texts[1..])
            .all(|(text, bubble)| bubble.contains(text));
        assert!(is_in_order, "{texts:?}");
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_refuses_is_asked_again_until_it_does_not() {
    play(async |stage| {
        stage.page.expect("Failed to load resource");
        let conversation = opened(stage).await;
        stage.gate.refuse();
        stage.page.send("Good morning").await;
        stage.page.becomes("Good morning", "PENDING").await;
        stage.page.banner(true).await;
        stage.gate.open();
        stage.page.comes_back().await;
        assert_once(stage, &conversation, "Good morning").await;
        stage.page.banner(false).await;
    })
    .await;
}

#[tokio::test]
async fn five_sends_to_a_slow_provider_hold_up_nothing() {
    let provider = Held::start().await;
    let environment = [("PROVIDER_URL", provider.url()), LONG_ATTEMPT];
    play_with(&environment, async |stage| {
        let mut conversations = Vec::new();
        for number in 0..6 {
            let customer = format!("user-{number}");
            conversations.push(stage.writes(&customer, &format!("I am {customer}")).await);
        }
        let page = &stage.page;
        page.open().await;
        let mut calls = Vec::new();
        for conversation in &conversations[..5] {
            page.select(conversation).await;
            page.send(&format!("To {conversation}")).await;
            calls.push(provider.call().await);
        }
        page.select(&conversations[5]).await;
        page.has_bubble("I am user-5").await;
        page.has_unread(&conversations[5], "").await;
        page.reload().await;
        page.select(&conversations[0]).await;
        let text = format!("To {}", conversations[0]);
        page.becomes(&text, "PENDING").await;
        for (number, call) in calls.into_iter().enumerate() {
            call.accept(&format!("provider-{number}")).await;
        }
        page.becomes(&text, "SENT").await;
    })
    .await;
}

#[tokio::test]
async fn what_failed_says_why_and_is_sent_by_a_retry() {
    play_with(&[NO_RETRY], async |stage| {
        let conversation = opened(stage).await;
        let mock = &stage.system.mock;
        let page = &stage.page;
        mock.script("user-1", [Fault::Reject, Fault::Ok]);
        page.send("Good morning").await;
        page.becomes("Good morning", "FAILED").await;
        let retries = "return document.querySelectorAll('[data-testid=retry]').length";
        assert_eq!(page.eval(retries).await, 1);
        page.click("[data-testid=retry]").await;
        assert_once(stage, &conversation, "Good morning").await;
        assert_eq!(page.eval(retries).await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_will_be_tried_again_says_when_and_can_be_canceled() {
    play_with(&[NO_RETRY], async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        stage
            .system
            .mock
            .script("user-1", [Fault::server_error(500)]);
        page.send("Good morning").await;
        page.becomes("Good morning", "FAILED").await;
        let words = page.until(
            "it says when",
            "return /tries again at|trying again/i.test(messages()[1].text) && messages()[1].text",
        );
        assert!(words.await.as_str().unwrap().contains("Good morning"));
        page.click("[data-testid=cancel]").await;
        let script = "return /cancel+ed/i.test(messages()[1].text)";
        page.until("it says that it was canceled", script).await;
        let api = stage.conversation(&conversation).await;
        assert_eq!(api["messages"][0]["lastError"]["kind"], "canceled");
        assert_eq!(api["messages"][0]["nextAttemptAt"], json!(null));
    })
    .await;
}

#[tokio::test]
async fn what_may_have_arrived_is_asked_about_before_it_is_sent_again() {
    let environment = [("AMBIGUOUS_POLICY", "hold"), NO_RETRY];
    play_with(&environment, async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        stage.system.mock.script("user-1", [Fault::LostAnswer]);
        page.send("Good morning").await;
        page.becomes("Good morning", "FAILED").await;
        page.click("[data-testid=retry]").await;
        let open = "return Boolean(document.querySelector('dialog[open]'))";
        page.until("it asks", open).await;
        page.press(Key::Escape).await;
        page.until(
            "it does not ask any more",
            "return !document.querySelector('dialog[open]')",
        )
        .await;
        assert_eq!(stage.gate.count("POST /messages/msg_"), 0);
        page.click("[data-testid=retry]").await;
        page.until("it asks", open).await;
        page.click("dialog[open] button[value=yes]").await;
        assert_once(stage, &conversation, "Good morning").await;
    })
    .await;
}

#[tokio::test]
async fn a_retry_of_what_was_sent_meanwhile_says_so_and_sends_nothing() {
    play_with(&[NO_RETRY], async |stage| {
        stage.page.expect("status of 409");
        stage.page.expect("net::ERR_");
        let conversation = opened(stage).await;
        stage.system.mock.script("user-1", [Fault::Reject]);
        let page = &stage.page;
        page.send("Good morning").await;
        let id = page.becomes("Good morning", "FAILED").await;
        let held = stage.gate.hold("GET /events");
        stage.gate.interrupt();
        held.arrived().await;
        let retry = format!("/messages/{id}/retry");
        stage
            .system
            .client
            .post(&retry, &json!({}))
            .await
            .expect(202);
        stage.system.message_becomes(&id, "SENT").await;
        page.click("[data-testid=retry]").await;
        let script = "return /could not be sent again/.test(document.body.innerText)";
        page.until("it says so", script).await;
        held.pass();
        assert_once(stage, &conversation, "Good morning").await;
    })
    .await;
}
