//! The picture of the front page, as the page is now.

use std::path::Path;

use crate::stage::{artefact, play};
use crate::support::Program;

/// So that the front page loads at once.
const MOST_BYTES: usize = 150_000;

#[tokio::test]
async fn the_picture_of_the_front_page_is_that_of_the_demo_inbox() {
    play(async |stage| {
        let seeded = Program::on(stage.system.database.url(), &["seed"])
            .finish()
            .await;
        assert_eq!(seeded.code, Some(0), "{seeded:?}");
        let page = &stage.page;
        page.in_zone("UTC").await;
        page.open().await;
        page.until("the demo inbox is there", "return rows().length > 3")
            .await;
        let rows = page.rows().await;
        let read = rows.iter().find(|row| row.text.contains("Deniz")).unwrap();
        page.select(&read.id).await;
        page.until("it is at its end", "return fromBottom() < 2")
            .await;
        let picture = page.driver.screenshot_as_png().await.unwrap();
        assert!(picture.len() < MOST_BYTES, "{} bytes", picture.len());
        std::fs::write(artefact("inbox.png"), picture).unwrap();
    })
    .await;
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/inbox.png");
    let committed = std::fs::read(committed).unwrap();
    assert!((1..MOST_BYTES).contains(&committed.len()));
}
