//! Everything stays inside of its box, at every width, in the light and in the dark.

use serde_json::json;

use crate::page::Page;
use crate::stage::{Stage, picture, play};
use crate::wire;

/// What sticks out: wider than its box, or than the window.
const STICKS_OUT: &str = include_str!("sticks_out.js");

async fn with_strange_texts(stage: &Stage) -> String {
    let long = "Donaudampfschifffahrtsgesellschaft".repeat(40);
    let rtl = "مرحبا، كيف حالك؟ (نعم!) abc 123.";
    let stacked = format!("Z{}algo", "\u{0335}\u{0322}\u{0317}\u{0301}".repeat(60));
    let lines = "A line\n".repeat(60);
    let family = "👨‍👩‍👧‍👦🏳️‍🌈".repeat(80);
    let large = "A word and ".repeat(5_500);
    let mut conversation = String::new();
    for text in [
        &long,
        rtl,
        &stacked,
        &lines,
        &family,
        &large,
        "   spaces   stay   ",
    ] {
        conversation = stage.writes("user-1", text).await;
    }
    for (from, text) in [
        (&long[..160], &long[..]),
        (rtl, rtl),
        ("😀", &family),
        ("a\u{0301}b", &stacked),
    ] {
        stage.writes(from, text).await;
    }
    conversation
}

async fn assert_inside(page: &Page, what: &str) {
    let out = page.eval(STICKS_OUT).await;
    if out != json!([]) {
        picture(page, &format!("sticks-out-{what}")).await;
    }
    assert_eq!(out, json!([]), "{what}");
}

#[tokio::test]
async fn strange_texts_stay_in_their_boxes() {
    play(async |stage| {
        let conversation = with_strange_texts(stage).await;
        let page = &stage.page;
        page.open().await;
        page.until("all rows are there", "return rows().length === 5")
            .await;
        assert_inside(page, "list").await;
        page.select(&conversation).await;
        page.write(&"Antworten".repeat(100)).await;
        assert_inside(page, "thread").await;
        page.as_telephone().await;
        page.reload().await;
        page.until("the thread is there", "return bubbles().length > 0")
            .await;
        assert_inside(page, "thread on a telephone").await;
        page.click("[data-testid=back]").await;
        page.until("the list is there", "return isShown(one('conversations'))")
            .await;
        assert_inside(page, "list on a telephone").await;
    })
    .await;
}

/// Contents that are as long as they may be, or that nobody expects.
async fn with_strange_contents(stage: &Stage) -> String {
    let long = "Donaudampfschifffahrtsgesellschaft".repeat(40);
    let family = "👨‍👩‍👧‍👦🏳️‍🌈".repeat(80);
    let stacked = format!("Z{}algo", "\u{0335}\u{0322}\u{0317}\u{0301}".repeat(60));
    let conversation = wire::one_of_each(stage).await;
    for text in [&long, &family, &stacked] {
        let contact = json!([{ "name": { "formatted_name": text } }]);
        for (kind, content) in [
            (
                "document",
                json!({ "id": "1", "filename": text, "caption": text }),
            ),
            ("image", json!({ "id": "1", "caption": text })),
            ("contacts", contact),
            (text, json!({})),
        ] {
            let (_, id) = wire::comes(stage, text, kind, &content).await;
            let emoji = json!({ "emoji": text, "at": "2026-11-26T10:00:00Z" });
            let senders = (0..30).map(|number| (format!("{number}{text}"), emoji.clone()));
            let reactions: serde_json::Map<_, _> = senders.collect();
            let reactions = serde_json::Value::from(reactions).to_string();
            let what = "reactions = $2::jsonb, reply_to = 'wamid', reply_to_id = id";
            wire::change(stage, &id, what, &[&reactions]).await;
        }
    }
    let name = format!(
        "update conversations set participant_name = '{}'",
        &long[..256]
    );
    stage.system.database.execute(&name).await;
    conversation
}

#[tokio::test]
async fn whatever_a_message_holds_stays_in_its_box() {
    play(async |stage| {
        let conversation = with_strange_contents(stage).await;
        stage.gate.has("GET /messages/", wire::picture());
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        assert_inside(page, "contents").await;
        page.eval("scroller().scrollTop = 0").await;
        page.until(
            "the pictures are there",
            "return document.querySelector('[data-loaded]')",
        )
        .await;
        assert_inside(page, "contents from the first").await;
        page.as_telephone().await;
        page.reload().await;
        page.until("the thread is there", "return bubbles().length > 0")
            .await;
        assert_inside(page, "contents on a telephone").await;
    })
    .await;
}

#[tokio::test]
async fn text_that_goes_to_the_left_does_so_with_its_punctuation() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "مرحبا، كيف حالك؟").await;
        stage.writes("user-1", "Hello there.").await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        let script = "return bubbles().map((node) => {
            const texts = [...node.querySelectorAll('[dir=auto], bdi')];
            const body = texts.find((each) => /Hello|مرحبا/.test(each.textContent));
            return getComputedStyle(body).direction; })";
        assert_eq!(page.eval(script).await, json!(["rtl", "ltr"]));
        page.write("שלום!").await;
        let direction = page
            .eval("return getComputedStyle(one('composer')).direction")
            .await;
        assert_eq!(direction, "rtl");
    })
    .await;
}

#[tokio::test]
async fn the_dark_is_dark() {
    play(async |stage| {
        let page = &stage.page;
        let background = "const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
            return (r + g + b) / 3";
        page.as_dark(false).await;
        page.open().await;
        let light = page.eval(background).await.as_f64().unwrap();
        page.as_dark(true).await;
        let dark = page.eval(background).await.as_f64().unwrap();
        assert!(light > 200.0 && dark < 60.0, "{light} {dark}");
    })
    .await;
}

#[tokio::test]
async fn a_telephone_shows_the_list_or_the_thread() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let page = &stage.page;
        page.as_telephone().await;
        page.open().await;
        let panes = "return [isShown(one('conversations')), isShown(one('composer'))]";
        assert_eq!(page.eval(panes).await, json!([true, false]));
        page.select(&conversation).await;
        page.until("the thread is there", "return isShown(one('composer'))")
            .await;
        assert_eq!(page.eval(panes).await, json!([false, true]));
        page.driver.back().await.unwrap();
        page.until("the list is there", "return isShown(one('conversations'))")
            .await;
        assert_eq!(page.eval(panes).await, json!([true, false]));
        page.driver.forward().await.unwrap();
        page.until("the thread is there", "return isShown(one('composer'))")
            .await;
        page.click("[data-testid=back]").await;
        page.until("the list is there", "return isShown(one('conversations'))")
            .await;
    })
    .await;
}
