//! Whatever breaks between the page and the database, the page says so, and comes back by itself
//! with everything.

use serde_json::json;

use crate::gate::Gate;
use crate::page::Page;
use crate::stage::{Stage, play, play_on};
use crate::support::{Database, Postgres, Stopped, System, eventually};

async fn opened(stage: &mut Stage) -> String {
    // A browser's own words about what breaks.
    stage.page.expect("Failed to load resource");
    stage.page.expect("net::ERR_");
    let conversation = stage.writes("user-1", "Hello").await;
    stage.page.open().await;
    stage.page.select(&conversation).await;
    stage.page.has_unread(&conversation, "").await;
    conversation
}

/// The page shows what the API says, in list and thread.
async fn assert_whole(stage: &Stage, page: &Page, conversation: &str) {
    let list = stage
        .system
        .client
        .get("/conversations?limit=100")
        .await
        .expect(200);
    let rows = list["data"].as_array().unwrap().iter();
    let ids: Vec<_> = rows.clone().map(|row| row["id"].clone()).collect();
    let script = "return JSON.stringify(rows().map((row) => row.id)) === JSON.stringify(given)";
    page.until_with("the list is that of the API", script, &json!(ids))
        .await;
    let api = stage.conversation(conversation).await;
    let messages = api["messages"].as_array().unwrap().iter().rev();
    let shown: Vec<_> = messages
        .map(|message| json!([message["id"], message["status"]]))
        .collect();
    let script = "return JSON.stringify(bubbles().map((node) => [node.dataset.messageId, node.dataset.status])) === JSON.stringify(given)";
    page.until_with("the thread is that of the API", script, &json!(shown))
        .await;
}

#[tokio::test]
async fn a_line_that_is_cut_is_said_and_nothing_is_missing_afterwards() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        stage.gate.cut();
        page.banner(true).await;
        page.until(
            "it is not live",
            "return document.body.dataset.feed !== 'live'",
        )
        .await;
        for number in 0..3 {
            stage.writes("user-1", &format!("Missed {number}")).await;
            stage.writes(&format!("new-{number}"), "Hello").await;
        }
        // What is there can still be read and written to.
        page.write("A draft").await;
        assert_eq!(page.bubbles().await.len(), 1);
        stage.gate.open();
        page.comes_back().await;
        page.banner(false).await;
        page.has_bubble("Missed 2").await;
        assert_whole(stage, page, &conversation).await;
        assert_eq!(page.draft().await, "A draft");
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_stops_is_followed_by_the_next_one() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let ended = stage.system.gateway.terminate().await;
        assert_eq!(ended.code(), Some(0));
        stage.page.banner(true).await;
        stage.page.send("While nobody is there").await;
        stage.page.becomes("While nobody is there", "PENDING").await;
        let (gateway, client) = stage.system.another(&[]).await;
        (stage.system.gateway, stage.system.client) = (gateway, client);
        stage.writes("user-1", "Before the page is back").await;
        stage.gate.lead_to(stage.system.gateway.url());
        stage.page.comes_back().await;
        stage.page.becomes("While nobody is there", "SENT").await;
        stage.page.has_bubble("Before the page is back").await;
        assert_whole(stage, &stage.page, &conversation).await;
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_is_killed_is_followed_by_the_next_one() {
    play(async |stage| {
        let conversation = opened(stage).await;
        stage.system.gateway.kill();
        stage.page.banner(true).await;
        let (gateway, client) = stage.system.another(&[]).await;
        (stage.system.gateway, stage.system.client) = (gateway, client);
        stage.writes("user-1", "Before the page is back").await;
        stage.gate.lead_to(stage.system.gateway.url());
        stage.page.comes_back().await;
        stage.page.has_bubble("Before the page is back").await;
        assert_whole(stage, &stage.page, &conversation).await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_killed_comes_back_and_so_does_the_page() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    play_on(System::on(database, &[]).await, async |stage| {
        let conversation = opened(stage).await;
        Stopped::all_of(&postgres).kill();
        stage.page.send("Without a database").await;
        stage.system.client.becomes_ready().await;
        stage.page.comes_back().await;
        stage.page.becomes("Without a database", "SENT").await;
        stage.writes("user-1", "With it again").await;
        stage.page.has_bubble("With it again").await;
        assert_whole(stage, &stage.page, &conversation).await;
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_slept_for_an_hour_catches_up() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        stage.gate.cut();
        stage.writes("user-1", "While it slept").await;
        stage.writes("user-2", "Hello").await;
        stage.gate.open();
        page.time_passes(3600).await;
        page.is_live().await;
        page.has_bubble("While it slept").await;
        assert_whole(stage, page, &conversation).await;
        // The time is the gateway's, once it is told again.
        page.time_passes(32).await;
        let script =
            "return document.querySelector('[data-testid=conversations] time').innerText === 'now'";
        page.until("the time is right", script).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_died_without_a_word_is_replaced() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        stage.gate.hush();
        stage.writes("user-1", "While nothing was heard").await;
        page.time_passes(36).await;
        page.has_bubble("While nothing was heard").await;

        // Whoever comes back to the page does not wait for so long.
        page.hide().await;
        stage.gate.hush();
        stage.writes("user-1", "While nobody looked").await;
        page.time_passes(20).await;
        let streams = stage.gate.count("GET /events");
        page.show().await;
        page.has_bubble("While nobody looked").await;
        eventually("a new stream", async || {
            (stage.gate.count("GET /events") > streams).then_some(())
        })
        .await;
        page.is_live().await;
        assert_whole(stage, page, &conversation).await;
    })
    .await;
}

#[tokio::test]
async fn what_the_feed_has_forgotten_is_fetched_again() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        stage.gate.cut();
        page.banner(true).await;
        stage.writes("user-1", "Long forgotten").await;
        stage.writes("user-2", "Hello").await;
        let forget = "with gone as (delete from changes returning position)
            update feed set deleted_below = (select max(position) + 1 from gone)";
        stage.system.database.execute(forget).await;
        stage.gate.open();
        page.comes_back().await;
        page.has_bubble("Long forgotten").await;
        assert_whole(stage, page, &conversation).await;
        stage.writes("user-1", "And it goes on").await;
        page.has_bubble("And it goes on").await;
    })
    .await;
}

#[tokio::test]
async fn a_page_at_one_gateway_sees_what_another_does() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let (gateway, client) = stage.system.another(&[]).await;
        let gate = Gate::before(gateway.url()).await;
        stage.gateways.push(gateway);
        stage.others.push(Page::new(gate.url()).await);
        let (page, other) = (&stage.page, &stage.others[0]);
        other.open().await;
        other.select(&conversation).await;
        page.send("From the one").await;
        other.becomes("From the one", "SENT").await;
        other.send("From the other").await;
        page.becomes("From the other", "SENT").await;
        let event = json!({ "eventId": "at-the-other", "channel": "whatsapp", "from": "user-1", "text": "At the other gateway", "timestamp": crate::support::seconds_from_now(0) });
        client.webhook(&event).await.expect(200);
        page.has_bubble("At the other gateway").await;
        other.has_bubble("At the other gateway").await;
        assert_whole(stage, page, &conversation).await;
        assert_whole(stage, other, &conversation).await;
    })
    .await;
}

#[tokio::test]
async fn a_browser_without_a_network_keeps_what_is_written() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        // A browser's tools leave the connections that there are.
        page.online(false).await;
        stage.gate.interrupt();
        page.banner(true).await;
        page.send("Without a network").await;
        page.becomes("Without a network", "PENDING").await;
        page.write("A draft").await;
        stage.writes("user-1", "Meanwhile").await;
        page.online(true).await;
        page.is_live().await;
        page.becomes("Without a network", "SENT").await;
        page.has_bubble("Meanwhile").await;
        assert_eq!(page.draft().await, "A draft");
        assert_whole(stage, page, &conversation).await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_ends_is_followed_by_another_and_nothing_is_said() {
    play(async |stage| {
        let conversation = opened(stage).await;
        let page = &stage.page;
        let streams = stage.gate.count("GET /events");
        page.eval("window.shown = 0; new MutationObserver(() => { shown += isShown(one('banner')); }).observe(one('banner'), { attributes: true, childList: true })").await;
        stage.gate.interrupt();
        stage.writes("user-1", "In between").await;
        page.has_bubble("In between").await;
        assert_whole(stage, page, &conversation).await;
        eventually("a new stream", async || {
            (stage.gate.count("GET /events") > streams).then_some(())
        })
        .await;
    })
    .await;
}

/// A database that another has been before: what was on the page then is of no use.
#[tokio::test]
async fn another_history_of_the_database_is_fetched_whole() {
    play(async |stage| {
        let conversation = opened(stage).await;
        stage
            .system
            .database
            .execute("update feed set epoch = gen_random_uuid()")
            .await;
        let database: &Database = &stage.system.database;
        assert_eq!(database.count("select count(*) from feed").await, 1);
        stage.gate.interrupt();
        stage.writes("user-1", "In another history").await;
        stage.page.has_bubble("In another history").await;
        assert_whole(stage, &stage.page, &conversation).await;
    })
    .await;
}
