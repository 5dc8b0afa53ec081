//! Calls that send.

use hmac::{Hmac, KeyInit, Mac};
use mock_meta_provider::{Channel, WhatsappBehaviour};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{APP_SECRET, Graph, MESSAGE_ID, OPAQUE, PHONE, TO, error, text};
use crate::support::{Answer, Provider};

fn with(changes: &[(&str, Value)]) -> Value {
    let mut body = text();
    for (field, value) in changes {
        body[*field] = value.clone();
    }
    body
}

fn of_type(kind: &str, content: Value) -> Value {
    with(&[("type", json!(kind)), (kind, content)])
}

#[tokio::test]
async fn a_text_is_accepted_as_meta_answers() {
    let graph = Graph::calm().await;
    let answer = graph.send().await;
    let wamid = answer.body["messages"][0]["id"].as_str().unwrap();
    assert!(answer.status == 200 && wamid.starts_with("wamid."));
    let contact = json!([{ "input": format!("+{TO}"), "wa_id": TO }]);
    assert_eq!(answer.body["contacts"], contact);
    assert_eq!(answer.body["messaging_product"], "whatsapp");
    assert_eq!(graph.provider.mock.texts(Channel::Whatsapp, TO), ["Hello"]);
}

#[tokio::test]
async fn each_accepted_call_is_a_message_more_and_the_ledger_counts_them_by_message() {
    let graph = Graph::calm().await;
    let second = OPAQUE.replace(".1.", ".2.");
    let (first, second) = (
        graph.send().await,
        graph
            .call(with(&[("biz_opaque_callback_data", json!(second))]))
            .await,
    );
    let ids: Vec<&str> = [&first, &second]
        .map(|answer| answer.body["messages"][0]["id"].as_str().unwrap())
        .into();
    assert_ne!(ids[0], ids[1]);
    let message = graph.provider.mock.message(MESSAGE_ID).unwrap();
    assert_eq!((message.calls, message.deliveries), (2, 2));
    assert_eq!(message.provider_message_ids, ids);
    let ledger = graph.provider.get("/ledger").await.body;
    let sends = &ledger["conversations"][0]["sends"];
    assert_eq!(
        (&sends[0]["attempt"], &sends[1]["attempt"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(sends[1]["messageId"], MESSAGE_ID);
    assert_eq!(graph.provider.mock.stats().whatsapp.double_sends, 1);
    let one = graph
        .provider
        .get(&format!("/messages/{}", ids[1]))
        .await
        .body;
    assert_eq!(one["message"]["send"]["content"]["body"], "Hello");
}

#[tokio::test]
async fn a_user_id_is_a_recipient_and_a_number_wins_over_it() {
    let graph = Graph::calm().await;
    let body = json!({
        "messaging_product": "whatsapp", "recipient": "US.1234", "text": { "body": "Hi" },
    });
    let answer = graph.call(body.clone()).await;
    assert_eq!(
        answer.body["contacts"],
        json!([{ "input": "US.1234", "user_id": "US.1234" }])
    );
    let mut both = body;
    both["to"] = json!(TO);
    let answer = graph.call(both).await;
    assert_eq!(answer.body["contacts"][0]["wa_id"], TO);
    let ledger = graph.provider.mock.ledger();
    let by: Vec<&str> = ledger
        .conversations
        .iter()
        .map(|conversation| conversation.sends[0].addressed_by.as_str())
        .collect();
    assert_eq!(by, ["recipient", "to"]);
}

#[tokio::test]
async fn every_type_is_taken_and_the_ledger_has_its_object() {
    let graph = Graph::calm().await;
    let link = json!({ "link": "https://example.com/a" });
    let parts = [
        ("image", json!({ "id": "1", "caption": "Look" })),
        ("video", link.clone()),
        ("audio", link.clone()),
        (
            "document",
            json!({ "link": "https://example.com/a", "filename": "a.pdf" }),
        ),
        ("sticker", link),
        (
            "template",
            json!({ "name": "hello", "language": { "code": "en" } }),
        ),
        (
            "reaction",
            json!({ "message_id": "wamid.A", "emoji": "👍" }),
        ),
        ("location", json!({ "latitude": 1.5, "longitude": 2 })),
        ("contacts", json!([{ "name": { "formatted_name": "A" } }])),
        (
            "interactive",
            json!({ "type": "button", "action": {}, "body": { "text": "?" } }),
        ),
    ];
    for (kind, content) in &parts {
        let answer = graph.call(of_type(kind, content.clone())).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
    }
    let sends = &graph.provider.mock.ledger().conversations[0].sends;
    let kept: Vec<(&str, &Value)> = sends
        .iter()
        .map(|send| (send.kind.as_str(), &send.content))
        .collect();
    let sent: Vec<(&str, &Value)> = parts
        .iter()
        .map(|(kind, content)| (*kind, content))
        .collect();
    assert_eq!(kept, sent);
    let texts = graph.provider.mock.texts(Channel::Whatsapp, TO);
    assert_eq!(texts[..3], ["Look", "[video]", "[audio]"]);
    let reply = with(&[("context", json!({ "message_id": "wamid.A" }))]);
    assert_eq!(graph.call(reply).await.status, 200);
    let sends = &graph.provider.mock.ledger().conversations[0].sends;
    assert_eq!(sends[10].reply_to.as_deref(), Some("wamid.A"));
}

#[tokio::test]
async fn what_meta_refuses_is_refused_with_its_code() {
    let graph = Graph::calm().await;
    let long = "x".repeat(4097);
    let cases = [
        (with(&[("messaging_product", json!(null))]), 100),
        (with(&[("messaging_product", json!("telegram"))]), 100),
        (with(&[("to", json!(null))]), 100),
        (with(&[("to", json!(15_551_234_567_u64))]), 100),
        (with(&[("to", json!("user-1"))]), 131_009),
        (with(&[("to", json!("US.1234"))]), 131_009),
        (
            with(&[("to", json!(null)), ("recipient", json!("US.ENT.1"))]),
            131_009,
        ),
        (with(&[("text", json!(null))]), 131_008),
        (with(&[("text", json!({ "body": "" }))]), 131_009),
        (with(&[("text", json!({ "body": long }))]), 100),
        (with(&[("type", json!("poem"))]), 100),
        (with(&[("type", json!("image"))]), 100),
        (
            with(&[("biz_opaque_callback_data", json!("x".repeat(513)))]),
            100,
        ),
        (with(&[("context", json!({ "message_id": "1" }))]), 131_009),
        (of_type("image", json!({})), 131_008),
        (
            of_type("image", json!({ "id": "1", "link": "https://a" })),
            131_009,
        ),
        (of_type("image", json!({ "link": "ftp://a" })), 131_009),
        (of_type("audio", json!({ "id": "1", "caption": "no" })), 100),
        (
            of_type("image", json!({ "id": "1", "caption": "x".repeat(1025) })),
            100,
        ),
        (
            of_type("template", json!({ "name": "a", "language": "en" })),
            131_009,
        ),
        (
            of_type("reaction", json!({ "message_id": "wamid.A" })),
            131_008,
        ),
        (of_type("location", json!({ "latitude": 1 })), 131_008),
        (of_type("contacts", json!([])), 131_008),
        (json!([]), 100),
    ];
    for (body, code) in cases {
        let answer = graph.call(body.clone()).await;
        assert_eq!(error(&answer), (400, code), "{body}: {}", answer.body);
    }
    assert_eq!(graph.provider.mock.stats().calls, 0);
}

#[tokio::test]
async fn without_the_token_it_is_190_and_for_another_number_100() {
    let graph = Graph::calm().await;
    let url = graph.provider.mock.url();
    let call = |number: &str, token: Option<&str>| {
        let url = format!("{url}/v26.0/{number}/messages");
        let request = graph.provider.client.post(url).json(&text());
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    };
    for (number, token, expected) in [
        (PHONE, None, (401, 190)),
        (PHONE, Some(""), (401, 190)),
        (PHONE, Some("token-2"), (401, 190)),
        ("1", Some("token-1"), (400, 100)),
    ] {
        let answer = Answer::read(call(number, token)).await;
        assert_eq!(error(&answer), expected, "{number} {token:?}");
    }
    graph.provider.mock.set_access_token(Some("token-2".into()));
    assert_eq!(Answer::read(call(PHONE, Some("token-2"))).await.status, 200);

    let unconfigured = Provider::calm().await;
    let url = format!("{}/v1.0/9/messages", unconfigured.mock.url());
    let request = |token| {
        unconfigured
            .client
            .post(&url)
            .json(&text())
            .bearer_auth(token)
    };
    assert_eq!(Answer::read(request("any")).await.status, 200);
    assert_eq!(error(&Answer::read(request("")).await), (401, 190));
}

#[tokio::test]
async fn a_proof_must_be_right_if_there_is_one() {
    let graph = Graph::calm().await;
    let mac = Hmac::<Sha256>::new_from_slice(APP_SECRET.as_bytes()).unwrap();
    let right = hex::encode(mac.chain_update("token-1").finalize().into_bytes());
    for (proof, status) in [(right.as_str(), 200), ("00", 400), ("no", 400)] {
        let url = graph.provider.mock.url();
        let url = format!("{url}/v26.0/{PHONE}/messages?appsecret_proof={proof}");
        let request = graph.provider.client.post(url).json(&text());
        let request = request.bearer_auth("token-1");
        assert_eq!(Answer::read(request).await.status, status, "{proof}");
    }
}

#[tokio::test]
async fn a_message_can_be_marked_as_read() {
    let graph = Graph::calm().await;
    let mut body = json!({
        "messaging_product": "whatsapp", "status": "read", "message_id": "wamid.A",
        "typing_indicator": { "type": "text" },
    });
    assert_eq!(
        graph.call(body.clone()).await.body,
        json!({ "success": true })
    );
    body["message_id"] = json!("A");
    assert_eq!(error(&graph.call(body).await), (400, 131_009));
    assert_eq!(graph.provider.mock.stats().whatsapp.read_marks, 1);
}

#[tokio::test]
async fn a_number_with_another_form_is_answered_and_told_of_by_that_form() {
    let graph = Graph::behaving(WhatsappBehaviour {
        rewrite_numbers: true,
        ..WhatsappBehaviour::CALM
    })
    .await;
    let answer = graph.call(with(&[("to", json!("525512345678"))])).await;
    let contact = json!([{ "input": "525512345678", "wa_id": "5215512345678" }]);
    assert_eq!(answer.body["contacts"], contact);
    graph.statuses(3).await;
    assert_eq!(graph.items("statuses")[0]["recipient_id"], "5215512345678");
}

#[tokio::test]
async fn only_a_version_makes_a_path_graphs() {
    let graph = Graph::calm().await;
    let url = graph.provider.mock.url();
    for (method, path, status) in [
        (Method::GET, "/v26/1", 401),
        (Method::GET, "/x26.0/1", 404),
        (Method::POST, "/v26.0/1", 405),
        (Method::POST, "/a/b/c", 404),
        (Method::GET, "/v26.0/1/messages", 400),
        (Method::POST, "/v26.0/1/calls", 400),
    ] {
        let request = graph
            .provider
            .client
            .request(method.clone(), format!("{url}{path}"));
        assert_eq!(
            Answer::read(request).await.status,
            status,
            "{method} {path}"
        );
    }
}
