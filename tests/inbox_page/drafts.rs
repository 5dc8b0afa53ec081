//! A draft belongs to one conversation, and outlives everything but a logout.

use crate::stage::{Stage, play};

async fn two(stage: &Stage) -> (String, String) {
    let first = stage.writes("user-1", "Hello").await;
    let second = stage.writes("user-2", "Hello").await;
    stage.page.open().await;
    stage.page.select(&first).await;
    (first, second)
}

#[tokio::test]
async fn a_draft_stays_with_its_conversation() {
    play(async |stage| {
        let (first, second) = two(stage).await;
        let page = &stage.page;
        page.write("For the first").await;
        page.select(&second).await;
        assert_eq!(page.draft().await, "");
        page.write("For the second").await;
        page.select(&first).await;
        assert_eq!(page.draft().await, "For the first");
        let script = "return rows().find((row) => !row.isOpen).text.includes('For the second')";
        page.until("the list shows the draft of the other", script)
            .await;

        page.reload().await;
        page.select(&second).await;
        assert_eq!(page.draft().await, "For the second");
        page.press(thirtyfour::Key::Null).await;
        page.hook("composer")
            .await
            .send_keys(thirtyfour::Key::Enter)
            .await
            .unwrap();
        page.becomes("For the second", "SENT").await;
        assert_eq!(page.draft().await, "");
        page.select(&first).await;
        assert_eq!(page.draft().await, "For the first");
        assert_eq!(stage.sent(&first).await, [""; 0]);
        assert_eq!(stage.sent(&second).await, ["For the second"]);
    })
    .await;
}

#[tokio::test]
async fn a_draft_is_in_the_other_tabs_too() {
    play(async |stage| {
        let (first, _) = two(stage).await;
        let page = &stage.page;
        page.write("In one tab").await;
        let here = page.driver.window().await.unwrap();
        page.tab(&format!("/inbox#{first}")).await;
        page.is_live().await;
        page.until(
            "the draft is here",
            "return one('composer').value === 'In one tab'",
        )
        .await;
        page.write(", and in the other").await;
        page.driver.switch_to_window(here).await.unwrap();
        let script = "return one('composer').value === 'In one tab, and in the other'";
        page.until("the draft is here, too", script).await;
    })
    .await;
}

#[tokio::test]
async fn a_text_that_is_not_stored_is_not_lost() {
    play(async |stage| {
        stage.page.expect("Failed to load resource");
        let (first, second) = two(stage).await;
        let page = &stage.page;
        page.select(&second).await;
        page.select(&first).await;
        stage.gate.refuse();
        page.send("Not stored yet").await;
        page.becomes("Not stored yet", "PENDING").await;
        page.select(&second).await;
        assert_eq!(page.draft().await, "");
        stage.gate.open();
        page.comes_back().await;
        page.select(&first).await;
        page.becomes("Not stored yet", "SENT").await;
    })
    .await;
}
