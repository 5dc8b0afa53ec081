//! With keys the page asks for one, keeps it nowhere, and shows what it allows.

use serde_json::json;
use thirtyfour::Key;

use crate::axe::faults;
use crate::page::Page;
use crate::stage::{Stage, play_with};

const KEYS: (&str, &str) = (
    "API_KEYS",
    "desk:desk-key-of-16-or-more:inbox+send,reader:reader-key-of-16-or-more:inbox",
);
const KEY: &str = "desk-key-of-16-or-more";

async fn asks(page: &Page) {
    page.until(
        "it asks for a key",
        "return document.body.dataset.ready !== undefined && isShown(one('key'))",
    )
    .await;
}

async fn log_in(page: &Page, key: &str) {
    asks(page).await;
    page.hook("key").await.send_keys(key).await.unwrap();
    page.click("[data-testid=login]").await;
}

async fn opened(stage: &mut Stage, key: &str) -> String {
    // A browser's own words when nobody is logged in yet.
    stage.page.expect("status of 401");
    let conversation = stage.writes("user-1", "Hello").await;
    stage.page.go("/inbox").await;
    log_in(&stage.page, key).await;
    stage.page.is_live().await;
    conversation
}

#[tokio::test]
async fn a_key_opens_the_inbox_and_is_kept_nowhere() {
    play_with(&[KEYS], async |stage| {
        stage.page.expect("status of 401");
        let conversation = stage.writes("user-1", "Hello").await;
        let page = &stage.page;
        page.go("/inbox").await;
        asks(page).await;
        let faults = faults(page).await;
        assert!(faults.is_empty(), "{faults:#?}");
        log_in(page, "a-wrong-key-of-16-or-more").await;
        page.until("it says so", "return /not known/.test(document.body.innerText)").await;
        assert_eq!(page.eval("return isShown(one('conversations'))").await, false);
        page.press(KEY).await;
        page.press(Key::Enter).await;
        page.is_live().await;
        page.select(&conversation).await;
        page.send("Good morning").await;
        page.becomes("Good morning", "SENT").await;
        let kept = page
            .eval("return [document.cookie, ...Object.entries(localStorage).flat(), ...Object.entries(sessionStorage).flat(), one('key').value, location.href, document.documentElement.outerHTML].join('\\n')")
            .await;
        assert!(!kept.as_str().unwrap().contains(KEY), "{kept}");
        let cookies = page.driver.get_all_cookies().await.unwrap();
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        assert!(!cookies[0].value.contains(KEY), "{cookies:?}");
        assert_eq!(page.eval("return document.cookie").await, "");

        page.reload().await;
        assert_eq!(page.eval("return isShown(one('key'))").await, false);
    })
    .await;
}

#[tokio::test]
async fn after_logging_out_nothing_is_left() {
    play_with(&[KEYS], async |stage| {
        stage.page.expect("Clear-Site-Data header");
        let conversation = opened(stage, KEY).await;
        let page = &stage.page;
        page.select(&conversation).await;
        page.write("A secret draft").await;
        let first = page.driver.window().await.unwrap();
        page.tab("/inbox").await;
        page.is_live().await;
        page.click("[data-testid=logout]").await;
        asks(page).await;
        page.driver.switch_to_window(first).await.unwrap();
        asks(page).await;
        let left = page
            .eval("return [...Object.entries(localStorage).flat(), document.body.innerText].join('\\n')")
            .await;
        let left = left.as_str().unwrap();
        assert!(!left.contains("secret") && !left.contains("Hello"), "{left}");
        log_in(page, KEY).await;
        page.is_live().await;
        page.select(&conversation).await;
        assert_eq!(page.draft().await, "");
    })
    .await;
}

#[tokio::test]
async fn a_key_that_may_only_read_has_no_composer_and_no_retry() {
    play_with(&[KEYS], async |stage| {
        let conversation = opened(stage, "reader-key-of-16-or-more").await;
        stage
            .system
            .mock
            .script("user-1", [mock_meta_provider::Fault::Reject]);
        let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Rejected" }).to_string();
        let headers = [
            ("authorization", "Bearer desk-key-of-16-or-more"),
            ("content-type", "application/json"),
        ];
        let sent = stage
            .system
            .client
            .ask("POST", "/messages/send", &headers, body)
            .await;
        assert_eq!(sent.expect(201)["status"], "FAILED");
        let page = &stage.page;
        page.select(&conversation).await;
        page.becomes("Rejected", "FAILED").await;
        let shown = page
            .eval("return [isShown(one('composer')), isShown(one('retry'))]")
            .await;
        assert_eq!(shown, json!([false, false]));
        page.has_unread(&conversation, "").await;
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_gone_ends_its_session_and_keeps_its_drafts() {
    play_with(&[KEYS], async |stage| {
        stage.page.expect("Failed to load resource");
        stage.page.expect("net::ERR_");
        let conversation = opened(stage, KEY).await;
        stage.page.select(&conversation).await;
        stage.page.write("A draft").await;
        stage.system.gateway.terminate().await;
        let other = ("API_KEYS", "desk:another-key-of-16-or-more:inbox+send");
        let (gateway, client) = stage.system.another(&[other]).await;
        (stage.system.gateway, stage.system.client) = (gateway, client);
        stage.gate.lead_to(stage.system.gateway.url());
        let page = &stage.page;
        page.time_passes(72).await;
        asks(page).await;
        log_in(page, "another-key-of-16-or-more").await;
        page.is_live().await;
        page.select(&conversation).await;
        assert_eq!(page.draft().await, "A draft");
    })
    .await;
}
