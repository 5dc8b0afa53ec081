//! The list: what is new is on top, counted, and there once.

use serde_json::json;
use thirtyfour::Key;

use crate::stage::play;
use crate::support::seconds_from_now;

#[tokio::test]
async fn what_a_customer_writes_lifts_the_row_counts_and_is_in_the_title() {
    play(async |stage| {
        let first = stage.writes("user-1", "Hello").await;
        let second = stage.writes("user-2", "Good morning").await;
        let page = &stage.page;
        page.open().await;
        page.until("both are unread", "return document.title === '(2) Inbox'")
            .await;
        let rows = page.rows().await;
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0].id, &rows[1].id), (&second, &first));

        stage.writes("user-1", "Are you there?").await;
        page.has_unread(&first, "2").await;
        let rows = page.rows().await;
        assert_eq!(rows[0].id, first);
        assert!(rows[0].text.contains("Are you there?"), "{rows:?}");
        assert_eq!(page.driver.title().await.unwrap(), "(2) Inbox");

        let third = stage.writes("user-3", "A new customer").await;
        page.has_unread(&third, "1").await;
        page.until("it is counted", "return document.title === '(3) Inbox'")
            .await;
        assert_eq!(page.rows().await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn the_list_goes_on_to_its_end_and_each_conversation_is_there_once() {
    play(async |stage| {
        let mut all = Vec::new();
        for number in (0..130).rev() {
            let time = seconds_from_now(-number);
            all.insert(0, stage.writes_at(&format!("user-{number}"), "Hello", &time).await);
        }
        let page = &stage.page;
        page.open().await;
        assert!(page.rows().await.len() < all.len());
        let script = "let box = one('conversations');
            while (box.scrollHeight <= box.clientHeight + 1 || getComputedStyle(box).overflowY === 'visible') box = box.parentElement;
            box.scrollTop = box.scrollHeight;
            return rows().length >= given && rows().map((row) => row.id)";
        let ids = page.until_with("all are there", script, &json!(all.len())).await;
        assert_eq!(ids, json!(all));
    })
    .await;
}

#[tokio::test]
async fn a_row_that_moves_stays_open_and_a_draft_stays_typed() {
    play(async |stage| {
        let first = stage.writes("user-1", "Hello").await;
        let second = stage.writes("user-2", "Hello").await;
        let page = &stage.page;
        page.open().await;
        page.select(&first).await;
        page.write("I am about to").await;
        stage.writes("user-1", "One more").await;
        page.has_bubble("One more").await;
        stage.writes("user-2", "And I").await;
        page.until_with(
            "the other is on top",
            "return rows()[0].id === given",
            &json!(second),
        )
        .await;
        let rows = page.rows().await;
        assert!(!rows[0].is_open && rows[1].is_open, "{rows:?}");
        page.press(" say").await;
        assert_eq!(page.draft().await, "I am about to say");
    })
    .await;
}

#[tokio::test]
async fn a_search_and_the_filters_show_what_they_say() {
    play(async |stage| {
        let closed = stage.writes("anna-1", "Hello").await;
        let open = stage.writes("anna-2", "Hello").await;
        let other = stage.writes("berta", "Hello").await;
        let close = format!("/conversations/{closed}/close");
        stage
            .system
            .client
            .post(&close, &json!({}))
            .await
            .expect(200);
        stage.reads(&open).await;
        let page = &stage.page;
        page.open().await;
        let shows = async |what: &str, ids: &[&String]| {
            let script =
                "return JSON.stringify(rows().map((row) => row.id)) === JSON.stringify(given)";
            page.until_with(what, script, &json!(ids)).await;
        };
        shows("all", &[&other, &open, &closed]).await;
        page.hook("search").await.send_keys("anna").await.unwrap();
        shows("those of anna", &[&open, &closed]).await;

        // What is not searched for does not come in, and what is does.
        stage.writes("berta", "Nobody looks for me").await;
        let third = stage.writes("anna-3", "Hello").await;
        shows("a new one of anna", &[&third, &open, &closed]).await;
        page.press(Key::Escape).await;
        shows("all again", &[&third, &other, &open, &closed]).await;

        page.click("#filter-unread").await;
        shows("the unread ones", &[&third, &other, &closed]).await;
        page.click("#filter-unread").await;
        page.click("#filter-state option[value=closed]").await;
        shows("the closed one", &[&closed]).await;
    })
    .await;
}

#[tokio::test]
async fn what_one_agent_does_the_other_sees() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let other = stage.another().await;
        let (page, other) = (&stage.page, &stage.others[other]);
        page.open().await;
        other.open().await;
        other.has_unread(&conversation, "1").await;
        page.select(&conversation).await;
        other.has_unread(&conversation, "").await;
        page.click("#act-close").await;
        let script = "return rows()[0].text.includes('Closed')";
        other.until("it is closed", script).await;
        other.select(&conversation).await;
        page.send("I have answered").await;
        other.becomes("I have answered", "SENT").await;
        page.click("#act-archive").await;
        other
            .until("it is archived", "return rows().length === 0")
            .await;
        stage.writes("user-1", "Thank you").await;
        other
            .until("it is back", "return rows().length === 1")
            .await;
        page.until("it is back", "return rows().length === 1").await;
    })
    .await;
}

#[tokio::test]
async fn a_conversation_is_opened_by_a_click_or_its_address_and_the_list_is_one_step_back() {
    play(async |stage| {
        stage.page.expect("status of 404");
        let first = stage.writes("user-1", "Hello").await;
        let second = stage.writes("user-2", "Hello").await;
        let page = &stage.page;
        let is_open = async |id: &str| {
            let script =
                "return rows().filter((row) => row.isOpen).map((row) => row.id).join() === given";
            page.until_with("it is open", script, &json!(id)).await;
        };
        page.open().await;
        let click = "document.querySelector(`[data-conversation-id=\"${given}\"]`).click()";
        for id in [&first, &second] {
            page.eval_with(click, &json!(id)).await;
            is_open(id).await;
        }
        page.driver.back().await.unwrap();
        is_open("").await;
        page.go(&format!("/inbox#{first}")).await;
        is_open(&first).await;
        page.go("/inbox#conv_00000000000000000000000000000000")
            .await;
        let script = "return /no such conversation/i.test(document.body.innerText)";
        page.until("it says that there is none", script).await;
        page.is_live().await;
    })
    .await;
}
