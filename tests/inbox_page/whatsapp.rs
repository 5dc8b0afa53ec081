//! What WhatsApp says of messages and people beside texts: replies, reactions, receipts, names.

use serde_json::json;

use crate::stage::{play, play_with};
use crate::support::NO_RETRY;
use crate::wire::{CUSTOMER, change, is_told, picture, problem, sends};

#[tokio::test]
async fn ticks_say_how_far_a_message_has_come() {
    play(async |stage| {
        let conversation = stage.writes(CUSTOMER, "Hello").await;
        for (text, told) in [
            ("The first", None),
            ("The second", Some("sent_at = now()")),
            ("The third", Some("delivered_at = '2026-11-26T10:31:00Z'")),
            ("The fourth", Some("delivered_at = now(), read_at = '2026-11-26T10:32:00Z'")),
            (
                "The fifth",
                Some("failed_at = now(), error_code = 131026, error_title = 'Message undeliverable'"),
            ),
        ] {
            let id = sends(stage, text).await;
            if let Some(told) = told {
                is_told(stage, &id, told).await;
            }
        }
        let page = &stage.page;
        page.in_zone("UTC").await;
        page.open().await;
        page.select(&conversation).await;
        page.has_bubble("The fifth").await;
        let script = "return bubbles().slice(1).map((node) => [node.dataset.status, node.dataset.mark, node.querySelector('.tick').textContent, isShown(node.querySelector('.tick'))])";
        let expected = json!([
            ["SENT", "sent", "Sent", false],
            ["SENT", "sent", "Sent", true],
            ["SENT", "delivered", "Delivered 10:31 AM", true],
            ["SENT", "read", "Read 10:32 AM", true],
            ["SENT", "failed", "Not delivered", true],
        ]);
        assert_eq!(page.eval(script).await, expected);
        let why = "return bubbles()[5].innerText";
        let why = page.eval(why).await.to_string();
        assert!(why.contains("Not delivered: this customer cannot get it"), "{why}");
        assert!(why.contains("“Message undeliverable”"), "{why}");
        assert!(why.contains("code 131026"), "{why}");
        assert!(!why.contains("Retry"), "{why}");
    })
    .await;
}

#[tokio::test]
async fn a_reply_quotes_what_it_answers_and_leads_there() {
    play(async |stage| {
        let conversation = stage.writes_often(CUSTOMER, 30).await;
        let shown = stage.conversation(&conversation).await;
        let messages = shown["messages"].as_array().unwrap();
        let (newest, first) = (&messages[0]["id"], &messages[29]["id"]);
        let (newest, first) = (newest.as_str().unwrap(), first.as_str().unwrap());
        let theirs = messages[1]["id"].as_str().unwrap();
        change(stage, theirs, "reply_to = 'wamid.elsewhere'", &[]).await;
        let image = ["image", r#"{"id":"1","caption":"Message 1"}"#];
        change(stage, first, "type = $2, content = $3", &image).await;
        let answers = "reply_to = 'wamid.first', reply_to_id = $2::uuid";
        change(stage, newest, answers, &[first.trim_start_matches("msg_")]).await;
        stage.reads(&conversation).await;
        stage.gate.has("GET /messages/", picture());
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        let quote = format!("[data-message-id=\"{newest}\"] .reply");
        let text = page.find(&quote).await.text().await.unwrap();
        assert_eq!(text, "Customer\nImage: Message 1 of 491701234567");
        page.click(&quote).await;
        let script = "const node = document.querySelector(`[data-message-id=\"${given}\"]`);
            const { top, bottom } = node.getBoundingClientRect();
            const box = scroller().getBoundingClientRect();
            return document.activeElement === node && top >= box.top && bottom <= box.bottom";
        page.until_with("it is in sight and has the focus", script, &json!(first))
            .await;
        let other = format!("[data-message-id=\"{theirs}\"] .reply");
        let other = page.find(&other).await;
        let text = other.text().await.unwrap();
        assert_eq!(text, "The message that this answers is not here");
        assert!(!other.is_enabled().await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn reactions_edits_deletions_origins_and_names_are_shown_where_they_belong() {
    play(async |stage| {
        let conversation = stage.writes(CUSTOMER, "The first").await;
        let ids = ["A second", "A third", "A fourth"].map(async |text| sends(stage, text).await);
        let mut ours = Vec::new();
        for id in ids {
            ours.push(id.await);
        }
        let shown = stage.conversation(&conversation).await;
        let first = shown["messages"][3]["id"].as_str().unwrap();
        let reactions = json!({ CUSTOMER: { "emoji": "👍", "at": "2026-11-26T10:00:00Z" },
            "": { "emoji": "👍", "at": "2026-11-26T10:01:00Z" },
            "other": { "emoji": null, "at": "2026-11-26T10:01:00Z" } });
        change(stage, first, "reactions = $2::jsonb", &[&reactions.to_string()]).await;
        change(stage, &ours[0], "edited_at = now(), origin = 'app'", &[]).await;
        change(stage, &ours[1], "deleted_at = now(), text = '[deleted]'", &[]).await;
        change(stage, &ours[2], "origin = 'agent'", &[]).await;
        let name = "update conversations set participant_name = 'Lena 4917098'";
        stage.system.database.execute(name).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.has_bubble("A fourth").await;
        let lines = "return bubbles().map((node) => node.innerText.split('\\n').filter((line) => line && !/^(\\d+:\\d+|Customer:|You:)/.test(line)).join(' | '))";
        let lines = page.eval(lines).await;
        let lines: Vec<_> = lines.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert!(lines[0].starts_with("The first | 👍 2"), "{lines:?}");
        assert!(lines[0].contains("Customer, ") && lines[0].contains("You, "), "{lines:?}");
        assert!(lines[1].starts_with("A second | WhatsApp app | Edited"), "{lines:?}");
        assert!(lines[2].starts_with("This message was deleted."), "{lines:?}");
        assert!(lines[3].starts_with("A fourth | Meta’s agent"), "{lines:?}");
        let names = "return ['thread-name', 'thread-person'].map((id) => document.getElementById(id).textContent)";
        assert_eq!(page.eval(names).await, json!([CUSTOMER, "Lena 4917098"]));
        let row = page.rows().await[0].text.clone();
        assert!(row.starts_with(&format!("{CUSTOMER} Lena 4917098")), "{row}");
    })
    .await;
}

#[tokio::test]
async fn a_window_that_is_closed_is_said_and_a_text_can_be_tried_all_the_same() {
    play(async |stage| {
        let conversation = stage.writes(CUSTOMER, "Hello").await;
        let began = "update conversations set window_from = now() - interval '20 hours 15 minutes'";
        stage.system.database.execute(began).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.until("the head says it", "return document.getElementById('thread-about').textContent.startsWith('Window closes in 4 h')")
            .await;
        assert_eq!(page.eval("return isShown(one('window'))").await, false);
        page.time_passes(5 * 3600).await;
        page.until("the composer says it", "return isShown(one('window')) && one('window').textContent.includes('only templates')")
            .await;
        page.send("All the same").await;
        page.becomes("All the same", "SENT").await;
    })
    .await;
}

#[tokio::test]
async fn what_the_gateway_refuses_is_said_in_words() {
    play_with(&[NO_RETRY], async |stage| {
        stage.page.expect("status of 409");
        let conversation = stage.writes(CUSTOMER, "Hello").await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        for (text, code, words) in [
            (
                "To whom?",
                "participant_changed",
                "this number belongs to somebody else now",
            ),
            (
                "From where?",
                "channel_not_connected",
                "WhatsApp is not connected to this gateway",
            ),
        ] {
            stage
                .gate
                .has("POST /messages/send", problem(409, code, "no"));
            page.send(text).await;
            let said = "return withText(given[0])[0].innerText.includes(given[1])";
            page.until_with("it says why", said, &json!([text, words]))
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_retry_that_only_the_gateway_knows_to_be_doubtful_is_asked_about_too() {
    play_with(&[NO_RETRY], async |stage| {
        stage.page.expect("status of 409");
        let conversation = stage.writes(CUSTOMER, "Hello").await;
        let mock = &stage.system.mock;
        mock.script(CUSTOMER, [mock_meta_provider::Fault::Reject]);
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.send("Good morning").await;
        let id = page.becomes("Good morning", "FAILED").await;
        let retry = format!("POST /messages/{id}/retry");
        stage.gate.has(&retry, problem(409, "ambiguous", "it may have arrived"));
        page.click("[data-testid=retry]").await;
        let asks = "return document.querySelector('dialog[open]')?.innerText.includes('It may already have arrived')";
        page.until("it asks", asks).await;
        page.click("dialog[open] button[value=yes]").await;
        page.until("it says why not", "return document.getElementById('note').textContent.includes('the customer may have it already')")
            .await;
        let asked = stage.gate.asked();
        let asked: Vec<_> = asked.iter().filter(|line| line.starts_with(&retry)).collect();
        assert_eq!(asked, [&retry, &format!("{retry}?ambiguous=true")]);
    })
    .await;
}
