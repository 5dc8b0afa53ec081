//! What messages hold, and their files: a picture when it is seen, a sound when it is asked for.

use serde_json::json;

use crate::stage::play;
use crate::wire::{comes, one_of_each, picture, problem};

#[tokio::test]
async fn a_message_of_each_type_shows_what_it_holds_and_nothing_of_another_origin_is_asked() {
    play(async |stage| {
        stage.gate.has("GET /messages/", picture());
        let conversation = one_of_each(stage).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.has_bubble("[hologram]").await;
        let texts = page
            .eval("return bubbles().map((node) => [node.dataset.type, node.querySelector('.bubble').innerText.split('\\n').filter((line) => line && !/^(\\d+:\\d+|Customer:)/.test(line)).join(' | ')])")
            .await;
        let expected = json!([
            ["image", "Image | Look at it"],
            ["sticker", "Sticker"],
            ["video", "Video"],
            ["audio", "Voice message"],
            ["document", "Document | Download Invoice.pdf"],
            ["location", "Location | Home | 41.5, 28.25 | https://www.openstreetmap.org/?mlat=41.5&mlon=28.25"],
            ["contacts", "Contact | Max Mustermann · +49 151 1234567"],
            ["interactive", "Chosen answer | Yes"],
            ["interactive", "Form | Sent | size: M"],
            ["order", "Order | [order] 2 items | 2 × lamp, 10.5 EUR"],
            ["unsupported", "Cannot be shown here | [unsupported message] | No"],
            ["hologram", "hologram | [hologram]"],
        ]);
        assert_eq!(texts, expected);
        let players = page
            .eval("return [...one('messages').querySelectorAll('audio, video')].map((node) => [node.localName, node.controls, node.preload])")
            .await;
        assert_eq!(players, json!([["video", true, "none"], ["audio", true, "none"]]));
        assert_eq!(stage.gate.count("GET /messages/"), 2, "nothing is played unasked");
        let foreign = "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin).filter((origin) => origin !== location.origin)";
        assert_eq!(page.eval(foreign).await, json!([]));
    })
    .await;
}

#[tokio::test]
async fn pictures_come_when_they_are_seen_a_few_at_a_time() {
    play(async |stage| {
        stage.gate.has("GET /messages/", picture());
        let mut conversation = String::new();
        for number in 0..20 {
            let content = json!({ "id": number.to_string(), "mime_type": "image/png" });
            (conversation, _) = comes(stage, "[image]", "image", &content).await;
        }
        stage.reads(&conversation).await;
        let held = stage.gate.stop("GET /messages/");
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        held.arrived().await;
        let box_of = "return [scroller().scrollHeight, fromBottom() < 2]";
        let before = page.eval(box_of).await;
        assert!(stage.gate.count("GET /messages/") <= 2);
        held.pass();
        let there =
            "return [...document.images].filter((image) => image.naturalWidth === 4).length";
        page.until("those in sight are there", &format!("{there} >= 2"))
            .await;
        assert_eq!(
            page.eval(box_of).await,
            before,
            "nothing moves when they come"
        );
        let count = stage.gate.count("GET /messages/");
        assert!(count < 12, "{count} are asked for");
        page.eval("scroller().scrollTop = 0").await;
        page.until(
            "the first is there",
            "return bubbles()[0].querySelector('img').naturalWidth === 4",
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_file_that_cannot_be_had_says_why() {
    play(async |stage| {
        let image = json!({ "id": "11", "mime_type": "image/png" });
        let (conversation, lost) = comes(stage, "[image]", "image", &image).await;
        let (_, voice) = comes(stage, "[voice message]", "audio", &json!({ "id": "12" })).await;
        let document = json!({ "id": "13", "filename": "A <b>.pdf" });
        let (_, document) = comes(stage, "A <b>.pdf", "document", &document).await;
        for id in [&lost, &voice, &document] {
            let why = problem(404, "not_found", "WhatsApp has it no longer");
            stage.gate.has(&format!("GET /messages/{id}/media"), why);
        }
        stage.page.expect("status of 404");
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        let says = async |id: &str| {
            let script = format!("return document.querySelector('[data-message-id=\"{id}\"] .file').innerText.includes('The file is not there: WhatsApp has it no longer')");
            page.until("it says why", &script).await
        };
        says(&lost).await;
        page.eval("document.querySelector('audio').play().catch(() => undefined)").await;
        says(&voice).await;
        page.click(&format!("[data-message-id=\"{document}\"] [data-testid=download]")).await;
        says(&document).await;
        let names = "return [...document.querySelectorAll('[data-testid=download]')].map((link) => link.download)";
        assert_eq!(page.eval(names).await[2], "A_b_.pdf");
    })
    .await;
}

#[tokio::test]
async fn a_busy_gateway_is_asked_for_a_picture_again() {
    play(async |stage| {
        let image = json!({ "id": "11", "mime_type": "image/png" });
        let (conversation, _) = comes(stage, "[image]", "image", &image).await;
        stage
            .gate
            .has("GET /messages/", problem(503, "overloaded", "busy"));
        stage.page.expect("status of 503");
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.until(
            "it waits",
            "return document.images.length > 0 && bubbles()[0].querySelector('img:not([src])')",
        )
        .await;
        stage.gate.has("GET /messages/", picture());
        page.time_passes(10).await;
        page.until(
            "it is there",
            "return bubbles()[0].querySelector('img').naturalWidth === 4",
        )
        .await;
    })
    .await;
}
