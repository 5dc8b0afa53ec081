//! What strangers write is text: in the thread, the list, a name, an error.

use mock_meta_provider::Fault;
use serde_json::json;

use crate::stage::{play, play_with};
use crate::support::{NO_RETRY, WEBHOOK};
use crate::wire::{CUSTOMER, change, comes, picture};

const CORPUS: [&str; 14] = [
    "<script>window.harmed = 1</script>",
    "<img src=x onerror=\"window.harmed = 1\">",
    "<svg/onload=window.harmed=1>",
    "\"><iframe srcdoc=\"<script>parent.harmed=1</script>\">",
    "'-window.harmed=1-'",
    "</textarea><script>window.harmed=1</script>",
    "javascript:window.harmed=1",
    "<a href=\"javascript:window.harmed=1\">here</a>",
    "data:text/html,<script>opener.harmed=1</script>",
    "<style>*{display:none}</style>",
    "<base href=//evil.example/><form action=//evil.example><input type=submit>",
    "{{constructor.constructor('window.harmed=1')()}} ${window.harmed=1}",
    "&lt;b&gt;bold&lt;/b&gt; &amp; <b>bold</b>",
    "[x](javascript:window.harmed=1) <!-- --> ]]>",
];

/// Elements that nobody but a stranger would have made.
const STRANGE: &str = "return document.querySelectorAll(
    '[data-testid=messages] :is(script, img, iframe, style, form, base, b, input, object, embed), [data-testid=conversations] :is(script, img, iframe, style, form, base, b, input, object, embed), a[href^=\"javascript\"], a[href^=\"data\"]').length";

#[tokio::test]
async fn markup_is_shown_as_it_was_written_and_does_nothing() {
    play_with(&[NO_RETRY], async |stage| {
        let mut conversations = Vec::new();
        for (number, text) in CORPUS.iter().enumerate() {
            // As a participant, too, who may have 160 characters.
            let from: String = format!("{number} {text}").chars().take(160).collect();
            let event = json!({ "eventId": format!("event {number}"), "channel": "whatsapp", "from": from, "text": text, "timestamp": crate::support::seconds_from_now(0) });
            let answer = stage.system.client.post(WEBHOOK, &event).await.expect(200);
            let conversation = answer["conversationId"].as_str().unwrap().to_owned();
            conversations.push((conversation, from, *text));
        }
        let page = &stage.page;
        page.open().await;
        let answer = json!({ "success": false, "error": CORPUS[1], "retryable": false });
        stage.system.mock.script_always(None, Fault::answer(400, answer));
        for (conversation, from, text) in &conversations {
            page.select(conversation).await;
            let script = "const has = (node) => node.textContent.includes(given[1]);
                const row = document.querySelector(`[data-conversation-id=\"${given[0]}\"]`);
                return has(row) && bubbles().some(has)
                  && [...document.querySelectorAll('#thread-name')].some((node) => node.textContent === given[2])";
            let given = json!([conversation, text, from]);
            page.until_with("it is shown as it was written", script, &given).await;
            page.write(text).await;
            page.press(thirtyfour::Key::Enter).await;
            let script = "return bubbles().length === 2 && bubbles()[1].dataset.status === 'FAILED'
                && bubbles()[1].textContent.includes(given[0]) && bubbles()[1].textContent.includes(given[1])";
            let given = json!([text, CORPUS[1]]);
            page.until_with("so is what was answered, and the error", script, &given).await;
            assert_eq!(page.eval(STRANGE).await, 0, "{text}");
            assert_eq!(page.eval("return window.harmed ?? 0").await, 0, "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn links_are_whole_safe_and_never_followed_by_the_page() {
    play_with(&[], async |stage| {
        let text = "See https://example.com/a?b=c#d, ftp://example.com and HTTP://EXAMPLE.ORG/ please";
        let conversation = stage.writes("user-1", text).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        let links = page
            .eval("return [...one('messages').querySelectorAll('a')].map((a) => [a.textContent, a.rel, a.target])")
            .await;
        let rel = "noopener noreferrer nofollow";
        let safe = |link: &serde_json::Value| link[1] == rel;
        let links = links.as_array().unwrap();
        assert!(links.iter().all(safe), "{links:?}");
        let texts: Vec<_> = links.iter().map(|link| link[0].as_str().unwrap()).collect();
        assert_eq!(texts, ["https://example.com/a?b=c#d", "HTTP://EXAMPLE.ORG/"]);
        let asked = page
            .eval("return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin).filter((origin) => origin !== location.origin)")
            .await;
        assert_eq!(asked, json!([]), "nothing is asked of another origin");
    })
    .await;
}

/// What turns the direction of text, or has no width, does so to nothing beside it.
#[tokio::test]
async fn a_direction_ends_with_the_text_that_has_it() {
    play_with(&[], async |stage| {
        let turned = "\u{202e}evitca si noitpircsbus ruoY";
        let conversation = stage.writes("\u{202e}nimda", turned).await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        let script = "const alone = (node) => {
              for (let at = node; at && at !== document.body; at = at.parentElement) {
                const { unicodeBidi } = getComputedStyle(at);
                if (/isolate|plaintext/.test(unicodeBidi) || at.localName === 'bdi' || at.dir === 'auto') return true;
              }
              return false;
            };
            const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            const open = [];
            for (let node = walk.nextNode(); node; node = walk.nextNode()) {
              if (node.data.includes('\\u202e') && !alone(node.parentElement)) open.push(node.parentElement.outerHTML);
            }
            return open";
        assert_eq!(page.eval(script).await, json!([]));
    })
    .await;
}

/// Each place of a message in which something of the customer's is shown.
fn filled(text: &str) -> Vec<(&'static str, serde_json::Value)> {
    let phone = json!([{ "phone": text, "wa_id": text }]);
    let names = json!({ "formatted_name": text });
    let error = json!({ "title": text, "error_data": { "details": text } });
    let item = json!({ "product_retailer_id": text, "quantity": text, "currency": text });
    let form = json!({ text: text }).to_string();
    vec![
        ("image", json!({ "id": text, "caption": text })),
        (
            "document",
            json!({ "id": "12", "filename": text, "caption": text }),
        ),
        ("video", json!({ "link": text, "filename": text })),
        (
            "location",
            json!({ "latitude": text, "longitude": text, "url": text }),
        ),
        (
            "location",
            json!({ "latitude": 1, "longitude": 2, "name": text, "address": text }),
        ),
        (
            "contacts",
            json!([{ "name": names, "phones": phone, "org": { "company": text } }]),
        ),
        (
            "interactive",
            json!({ "list_reply": { "title": text, "description": text } }),
        ),
        (
            "interactive",
            json!({ "nfm_reply": { "response_json": form } }),
        ),
        ("order", json!({ "product_items": [item] })),
        ("unsupported", json!({ "errors": [error] })),
        (
            "template",
            json!({ "name": text, "language": { "code": text } }),
        ),
    ]
}

#[tokio::test]
async fn nothing_that_a_message_holds_is_markup_or_leads_elsewhere() {
    play(async |stage| {
        let mut conversation = String::new();
        for text in CORPUS {
            for (kind, content) in filled(text) {
                let (found, id) = comes(stage, text, kind, &content).await;
                conversation = found;
                let reactions = json!({ text: { "emoji": text, "at": "2026-11-26T10:00:00Z" } });
                change(stage, &id, "reactions = $2::jsonb", &[&reactions.to_string()]).await;
            }
        }
        comes(stage, "The newest", CORPUS[0], &json!({})).await;
        let statement = "update conversations set participant_name = $1";
        let named = sqlx::query(statement).bind(CORPUS[1]);
        named.execute(stage.system.database.pool()).await.unwrap();
        stage.gate.has("GET /messages/", picture());
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        page.has_bubble("The newest").await;
        assert_eq!(page.eval("return document.getElementById('thread-name').textContent").await, CUSTOMER);
        for _ in 0..4 {
            page.eval("scroller().scrollTop = 0").await;
            let count = page.bubbles().await.len();
            let script = "return bubbles().length > given || bubbles().length > 150";
            page.until_with("older ones are there", script, &json!(count)).await;
        }
        let strange = STRANGE.replace("img, ", "");
        assert_eq!(page.eval(&strange).await, 0);
        assert_eq!(page.eval("return window.harmed ?? 0").await, 0);
        let addresses = "return [...document.querySelectorAll('[data-testid=messages] :is([href], [src])')].map((node) => node.getAttribute('href') ?? node.getAttribute('src'))
            .filter((address) => !/^(https:\\/\\/www\\.openstreetmap\\.org\\/\\?mlat=1&mlon=2|\\/messages\\/msg_[0-9a-f]{32}\\/media|#i-[a-z]+)$/.test(address))";
        assert_eq!(page.eval(addresses).await, json!([]));
    })
    .await;
}
