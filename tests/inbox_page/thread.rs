//! The thread: where it opens, and that it stays where it is read.

use serde_json::{Value, json};

use crate::page::Page;
use crate::stage::play;

/// Where the first bubble in sight is: its id, and how far below the edge.
const FIRST_IN_SIGHT: &str = "
    const edge = scroller().getBoundingClientRect().top;
    const first = bubbles().find((node) => node.getBoundingClientRect().bottom > edge);
    return { id: first.dataset.messageId, top: first.getBoundingClientRect().top - edge };";

/// How far this bubble is below the edge now.
async fn top_of(page: &Page, bubble: &Value) -> f64 {
    let script = "const node = bubbles().find((node) => node.dataset.messageId === given);
        return node.getBoundingClientRect().top - scroller().getBoundingClientRect().top";
    page.eval_with(script, bubble).await.as_f64().unwrap()
}

#[tokio::test]
async fn a_thread_that_is_read_opens_at_its_newest_message() {
    play(async |stage| {
        let conversation = stage.writes_often("user-1", 60).await;
        stage.reads(&conversation).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.until("it is at its end", "return scroller() && fromBottom() < 2")
            .await;
        let bubbles = page.bubbles().await;
        let last = bubbles.last().unwrap();
        assert!(last.text.contains("Message 60 of user-1"), "{last:?}");
        let ids = page
            .eval("return bubbles().map((node) => node.dataset.messageId)")
            .await;
        let api = stage.conversation(&conversation).await;
        let api = api["messages"].as_array().unwrap().iter().rev();
        let api: Vec<_> = api.map(|message| message["id"].clone()).collect();
        let ids = ids.as_array().unwrap();
        assert_eq!(ids[..], api[api.len() - ids.len()..]);
    })
    .await;
}

#[tokio::test]
async fn a_thread_opens_at_its_first_unread_message_which_is_read_at_the_end_only() {
    play(async |stage| {
        let conversation = stage.writes_often("user-1", 40).await;
        stage.reads(&conversation).await;
        let first = stage.writes("user-1", "The first that is unread").await;
        assert_eq!(first, conversation);
        stage.writes_often("user-1", 40).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        let script = "const line = document.querySelector('.unread-line');
            if (!line) return false;
            const [box, at] = [scroller().getBoundingClientRect(), line.getBoundingClientRect()];
            return at.top >= box.top && at.bottom < box.bottom && fromBottom() > 200";
        page.until("the line of the unread is in sight", script)
            .await;
        page.has_unread(&conversation, "41").await;
        assert_eq!(
            stage
                .gate
                .count(&format!("POST /conversations/{conversation}/read")),
            0
        );

        page.eval("scroller().scrollTop = scroller().scrollHeight")
            .await;
        page.press(thirtyfour::Key::End).await;
        page.has_unread(&conversation, "").await;
        assert_eq!(stage.conversation(&conversation).await["unreadCount"], 0);
    })
    .await;
}

#[tokio::test]
async fn older_messages_come_in_without_a_jump() {
    play(async |stage| {
        let conversation = stage.writes_often("user-1", 250).await;
        stage.reads(&conversation).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.until("it is at its end", "return scroller() && fromBottom() < 2")
            .await;
        for place in [0, 1, 300] {
            let held = stage
                .gate
                .hold(&format!("GET /conversations/{conversation}?"));
            page.eval_with("scroller().scrollTop = given", &json!(place))
                .await;
            held.arrived().await;
            let before = page.eval(FIRST_IN_SIGHT).await;
            let count = page.bubbles().await.len();
            held.pass();
            let more = "return bubbles().length > given";
            page.until_with("older ones are there", more, &json!(count))
                .await;
            let after = top_of(page, &before["id"]).await;
            let moved = (after - before["top"].as_f64().unwrap()).abs();
            assert!(moved < 2.0, "it jumped by {moved} at {place}");
            // So that the next place is one that asks for more.
            page.eval("scroller().scrollTop = scroller().scrollHeight")
                .await;
            page.until("it is at its end", "return fromBottom() < 2")
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_comes_while_somebody_reads_above_moves_nothing_and_is_announced() {
    play(async |stage| {
        let conversation = stage.writes_often("user-1", 40).await;
        let other = stage.writes("user-2", "Hello").await;
        stage.reads(&conversation).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.until("it is at its end", "return scroller() && fromBottom() < 2").await;
        page.eval("scroller().scrollTop -= 700").await;
        let before = page.eval(FIRST_IN_SIGHT).await;

        stage.writes("user-2", "Something else").await;
        page.has_unread(&other, "2").await;
        assert_eq!(page.eval(FIRST_IN_SIGHT).await, before);

        stage.writes("user-1", "Something new").await;
        page.has_bubble("Something new").await;
        page.until(
            "it is announced",
            "return [...document.querySelectorAll('button')].some((node) => isShown(node) && node.innerText.includes('1 new message'))",
        )
        .await;
        assert_eq!(page.eval(FIRST_IN_SIGHT).await, before);
        page.has_unread(&conversation, "1").await;

        page.click("#to-newest").await;
        page.until("it is at its end", "return fromBottom() < 2").await;
        page.has_unread(&conversation, "").await;

        // At the end, what comes is in sight at once.
        stage.writes("user-1", "The newest").await;
        page.has_bubble("The newest").await;
        page.until("it is in sight", "return fromBottom() < 2").await;
    })
    .await;
}
