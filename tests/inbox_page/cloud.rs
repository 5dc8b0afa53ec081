//! The page on the wire of WhatsApp itself: what Meta's side does is seen at once, as it happens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mock_meta_provider::{Config, Fault, Mock, Whatsapp, WhatsappBehaviour};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::page::Page;
use crate::stage::{Stage, play_on};
use crate::support::{Database, NO_RETRY, System};
use crate::wire::{CUSTOMER, PICTURE};

const PHONE_NUMBER_ID: &str = "106540352242922";
const TOKEN: &str = "token-of-the-number";
const APP_SECRET: &str = "app-secret-of-16-or-more";

/// Meta's side of it.
struct Meta {
    mock: Mock,
    http: reqwest::Client,
}

impl Meta {
    async fn start() -> Self {
        let whatsapp = Whatsapp {
            phone_number_id: Some(PHONE_NUMBER_ID.to_owned()),
            access_token: Some(TOKEN.into()),
            app_secret: Some(APP_SECRET.into()),
            ..Whatsapp::calm()
        };
        let config = Config {
            whatsapp,
            ..Config::calm()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mock = Mock::start(config, listener).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { mock, http }
    }

    /// Has something done; what it says of that.
    async fn simulate(&self, what: &str, request: &Value) -> Value {
        let url = format!("{}/simulate/{what}", self.mock.url());
        let answer = self.http.post(url).json(request).send().await.unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{what}: {status} {answer}");
        answer
    }

    /// The customer does something; its `wamid`.
    async fn comes(&self, mut item: Value) -> String {
        item["from"] = CUSTOMER.into();
        item["name"] = "Lena".into();
        item["duplicate"] = false.into();
        item["outOfOrder"] = false.into();
        item["wait"] = true.into();
        let answer = self.simulate("whatsapp", &item).await;
        assert_eq!(answer["status"], 200, "{answer}");
        answer["wamid"].as_str().unwrap().to_owned()
    }
}

/// Plays on a gateway whose number is at Meta.
async fn play_connected(test: impl AsyncFnOnce(&mut Stage, &Meta)) {
    let meta = Meta::start().await;
    let graph = meta.mock.url();
    let environment = [
        ("WHATSAPP_PHONE_NUMBER_ID", PHONE_NUMBER_ID),
        ("WHATSAPP_ACCESS_TOKEN", TOKEN),
        ("META_APP_SECRET", APP_SECRET),
        ("META_VERIFY_TOKEN", "verify-token-of-16-or-more"),
        ("GRAPH_URL", &*graph),
        NO_RETRY,
    ];
    let system = System::on(Database::new().await, &environment).await;
    let webhook = system.client.url("/webhooks/whatsapp");
    meta.mock.set_whatsapp_webhook_url(&webhook).unwrap();
    play_on(system, async |stage| test(stage, &meta).await).await;
}

/// Waits until the one bubble with this text has this mark.
async fn has_mark(page: &Page, text: &str, mark: &str) {
    let what = format!("{text:?} is {mark}");
    let script = "const found = withText(given[0]);
        return found.length === 1 && found[0].dataset.mark === given[1]";
    page.until_with(&what, script, &json!([text, mark])).await;
}

/// Waits until the bubble with this text has something that is shown.
async fn shows(page: &Page, text: &str, selector: &str, words: &str) {
    let what = format!("{text:?} has {words:?} in {selector}");
    let script = "return withText(given[0]).some((node) => [...node.querySelectorAll(given[1])]
        .some((each) => isShown(each) && each.textContent.includes(given[2])))";
    page.until_with(&what, script, &json!([text, selector, words]))
        .await;
}

#[tokio::test]
async fn a_conversation_on_whatsapp_is_shown_as_it_goes() {
    play_connected(async |stage, meta| {
        let page = &stage.page;
        page.open().await;
        let first = meta.comes(json!({ "text": "Is it on its way?" })).await;
        page.until("it is in the list", "return rows().length === 1").await;
        let row = page.rows().await.remove(0);
        assert!(row.text.starts_with(&format!("{CUSTOMER} Lena")), "{row:?}");
        page.select(&row.id).await;
        page.has_bubble("Is it on its way?").await;
        page.until("the window is open", "return document.getElementById('thread-about').textContent.startsWith('Window closes in 24 h')")
            .await;

        page.send("It left this morning").await;
        let id = page.becomes("It left this morning", "SENT").await;
        has_mark(page, "It left this morning", "read").await;
        let ours = stage.system.message(&id).await;
        let ours = ours["providerMessageId"].as_str().unwrap();

        meta.comes(json!({ "type": "reaction", "target": ours, "emoji": "❤️" })).await;
        shows(page, "It left this morning", ".reactions li", "❤️").await;
        meta.comes(json!({ "text": "Thanks a lot", "replyTo": ours })).await;
        shows(page, "Thanks a lot", ".reply", "It left this morning").await;

        meta.comes(json!({ "type": "edit", "target": first, "text": "Is it here?" })).await;
        shows(page, "Is it here?", ".meta", "Edited").await;
        meta.comes(json!({ "type": "revoke", "target": first })).await;
        page.has_bubble("This message was deleted.").await;
        assert_eq!(page.bubbles().await.len(), 3, "none of these is a line of its own");
    })
    .await;
}

#[tokio::test]
async fn who_has_never_written_gets_only_templates_and_the_composer_says_so() {
    play_connected(async |stage, meta| {
        let page = &stage.page;
        page.open().await;
        let empty = "return document.getElementById('welcome').innerText";
        let empty = page.eval(empty).await.to_string();
        assert!(empty.contains("write to your WhatsApp number"), "{empty}");
        assert!(!empty.contains("/webhooks/mock-meta"), "{empty}");

        let template = json!({ "channel": "whatsapp", "to": CUSTOMER, "type": "template",
            "content": { "name": "order_update", "language": "en_US" } });
        let client = &stage.system.client;
        let answer = client.post("/messages/send", &template).await.expect(201);
        page.until("it is in the list", "return rows().length === 1")
            .await;
        page.select(answer["conversationId"].as_str().unwrap())
            .await;
        page.until("the composer says it", "return isShown(one('window')) && one('window').textContent.startsWith('The customer has not written to this number yet')")
            .await;
        let about = "return document.getElementById('thread-about').textContent";
        assert_eq!(page.eval(about).await, "Window not open · Open");

        meta.comes(json!({ "text": "Hello" })).await;
        page.until("the window is open", "return !isShown(one('window')) && document.getElementById('thread-about').textContent.startsWith('Window closes in 24 h')")
            .await;
    })
    .await;
}

#[tokio::test]
async fn what_may_have_arrived_on_whatsapp_waits_for_its_word() {
    play_connected(async |stage, meta| {
        meta.comes(json!({ "text": "Hello" })).await;
        meta.mock
            .set_whatsapp_behaviour(WhatsappBehaviour {
                status_never_rate: 1.0,
                ..WhatsappBehaviour::CALM
            })
            .unwrap();
        meta.mock.script(CUSTOMER, [Fault::LostAnswer]);
        let page = &stage.page;
        page.open().await;
        let row = page.rows().await.remove(0);
        page.select(&row.id).await;
        page.send("Good morning").await;
        page.becomes("Good morning", "FAILED").await;
        let words = "Not certain that it was sent: the connection to WhatsApp broke";
        shows(page, "Good morning", ".trouble", words).await;
        let words = "The customer may have it already. Waits for WhatsApp to tell until";
        shows(page, "Good morning", ".trouble", words).await;
    })
    .await;
}

#[tokio::test]
async fn a_picture_on_whatsapp_is_fetched_through_the_gateway_and_shown() {
    play_connected(async |stage, meta| {
        let file =
            json!({ "id": "4711", "mimeType": "image/png", "data": STANDARD.encode(PICTURE) });
        meta.simulate("media", &file).await;
        let image =
            json!({ "type": "image", "mediaId": "4711", "mimeType": "image/png", "text": "Look" });
        meta.comes(image).await;
        meta.comes(json!({ "type": "text", "text": "[image]" }))
            .await;
        let page = &stage.page;
        page.open().await;
        let row = page.rows().await.remove(0);
        page.select(&row.id).await;
        page.has_bubble("Look").await;
        let there = "return withText('Look')[0].querySelector('[data-loaded] img')?.naturalWidth";
        assert_eq!(page.until("the picture is there", there).await, 4);
        assert_eq!(
            page.eval("return withText('[image]')[0].querySelector('img')")
                .await,
            json!(null)
        );
    })
    .await;
}

#[tokio::test]
async fn what_meta_could_not_deliver_says_why() {
    play_connected(async |stage, meta| {
        meta.comes(json!({ "text": "Hello" })).await;
        let behaviour = WhatsappBehaviour {
            status_failed_rate: 1.0,
            ..WhatsappBehaviour::CALM
        };
        meta.mock.set_whatsapp_behaviour(behaviour).unwrap();
        let page = &stage.page;
        page.open().await;
        let row = page.rows().await.remove(0);
        page.select(&row.id).await;
        page.send("Good morning").await;
        has_mark(page, "Good morning", "failed").await;
        shows(
            page,
            "Good morning",
            ".trouble",
            "Not delivered: this customer cannot get it",
        )
        .await;
        shows(page, "Good morning", ".trouble", "code 131026").await;
        page.becomes("Good morning", "SENT").await;
    })
    .await;
}
