//! Any number of tabs: one stream for all of them, and each shows everything.

use serde_json::json;

use crate::page::Page;
use crate::stage::{play, play_with};
use crate::support::eventually;

#[tokio::test]
async fn seven_tabs_load_and_share_a_stream() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let page = &stage.page;
        page.open().await;
        let mut tabs = vec![page.driver.window().await.unwrap()];
        for _ in 0..7 {
            page.tab("/inbox").await;
            page.is_live().await;
            tabs.push(page.driver.window().await.unwrap());
        }
        assert_eq!(stage.gate.count("GET /events"), 1);
        stage.writes("user-1", "To all of them").await;
        for tab in &tabs {
            page.driver.switch_to_window(tab.clone()).await.unwrap();
            page.has_unread(&conversation, "2").await;
        }
    })
    .await;
}

#[tokio::test]
async fn when_the_tab_that_reads_the_stream_is_closed_another_goes_on() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let page = &stage.page;
        page.open().await;
        let first = page.driver.window().await.unwrap();
        page.tab("/inbox").await;
        page.is_live().await;
        let second = page.driver.window().await.unwrap();
        page.driver.switch_to_window(first).await.unwrap();
        stage.writes("user-1", "Before").await;
        page.driver.close_window().await.unwrap();
        stage.writes("user-1", "After").await;
        page.driver.switch_to_window(second).await.unwrap();
        page.has_unread(&conversation, "3").await;
        page.is_live().await;
        stage.writes("user-1", "Later").await;
        page.has_unread(&conversation, "4").await;
        assert_eq!(stage.gate.count("GET /events"), 2);
    })
    .await;
}

/// On plain http of another machine a browser has no locks, and no random UUIDs.
#[tokio::test]
async fn on_plain_http_of_another_machine_everything_works_too() {
    play_with(&[("ALLOWED_HOSTS", "inbox.test")], async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let origin = stage.gate.url().replace("127.0.0.1", "inbox.test");
        stage.others.push(Page::new(&origin).await);
        let page = &mut stage.others[0];
        page.expect("Cross-Origin-Opener-Policy header has been ignored");
        page.open().await;
        let has_locks = page.eval("return navigator.locks !== undefined").await;
        assert_eq!(has_locks, json!(false));
        page.select(&conversation).await;
        page.send("From another machine").await;
        page.becomes("From another machine", "SENT").await;
        page.tab(&format!("/inbox#{conversation}")).await;
        page.is_live().await;
        page.send("From its second tab").await;
        page.becomes("From its second tab", "SENT").await;
        assert_eq!(
            stage.sent(&conversation).await,
            ["From another machine", "From its second tab"]
        );
    })
    .await;
}

#[tokio::test]
async fn without_locks_a_hidden_tab_gives_up_its_stream_and_takes_it_up_again() {
    play_with(&[("ALLOWED_HOSTS", "inbox.test")], async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let origin = stage.gate.url().replace("127.0.0.1", "inbox.test");
        stage.others.push(Page::new(&origin).await);
        stage.others[0].expect("Cross-Origin-Opener-Policy header has been ignored");
        let page = &stage.others[0];
        page.open().await;
        page.hide().await;
        page.time_passes(31).await;
        eventually("the stream has ended", async || {
            let streams = stage.system.client.metric("gateway_feed_streams").await;
            (streams == 0.0).then_some(())
        })
        .await;
        stage.writes("user-1", "While it was hidden").await;
        page.show().await;
        page.has_unread(&conversation, "2").await;
        page.is_live().await;
    })
    .await;
}
