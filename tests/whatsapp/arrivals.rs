//! Messages: each is stored once, in the order in which they were written.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::System;
use crate::support::whatsapp::{
    ANN, BOB, answering, body, change, item, messages, post, start, text,
};

#[tokio::test]
async fn a_text_as_long_as_whatsapp_has_them_is_not_cut() {
    let system = start().await;
    let longest = "ш".repeat(65_536);
    system.receives(&[text("w1", ANN, 0, &longest)]).await;
    assert!(system.texts(ANN).await == [longest], "it was cut");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_short_number_is_a_number() {
    let system = start().await;
    let item = text("w1", "5678", 0, "Hello World");
    system.receives(&[item]).await;
    assert_eq!(system.texts("5678").await, ["Hello World"]);
    let answer = json!({ "channel": "whatsapp", "to": "+5678", "text": "Hi" });
    let sent = system.client.post("/messages/send", &answer).await;
    assert_eq!(sent.expect(201)["participantId"], "5678");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn each_type_becomes_one_message_that_a_person_can_read_and_keeps_its_content() {
    let system = start().await;
    let media = json!({ "id": "1", "mime_type": "image/jpeg", "sha256": "x" });
    let mut captioned = media.clone();
    captioned["caption"] = "Look".into();
    let mut voice = media.clone();
    voice["voice"] = true.into();
    let place = json!({ "latitude": 52.5, "longitude": 13.4 });
    let button = json!({ "type": "button_reply", "button_reply": { "id": "b1", "title": "Yes" } });
    let order = json!({ "catalog_id": "c", "product_items": [], "text": "Two of these" });
    let cases = [
        ("text", json!({ "body": "Hi" }), "Hi"),
        ("image", media, "[image]"),
        ("video", captioned, "Look"),
        ("audio", voice, "[voice message]"),
        ("location", place, "[location]"),
        ("interactive", button, "Yes"),
        ("button", json!({ "text": "More", "payload": "p" }), "More"),
        ("order", order, "Two of these"),
    ];
    let number = |n: usize| i64::try_from(n).unwrap();
    let items = cases.iter().enumerate();
    let items: Vec<Value> = items
        .map(|(n, (kind, content, _))| {
            item(&format!("w{n}"), ANN, number(n), kind, content.clone())
        })
        .collect();
    system.receives(&items).await;
    for (n, (kind, content, text)) in cases.iter().enumerate() {
        let message = system.by_wamid(&format!("w{n}")).await;
        assert_eq!(message["type"], *kind, "{message}");
        assert_eq!(message["content"], *content, "{message}");
        assert!(
            message["text"].as_str().unwrap().starts_with(text),
            "{message}"
        );
        assert_eq!(message["direction"], "INBOUND");
        assert_eq!(message["status"], "RECEIVED");
        assert_eq!(message["providerMessageId"], format!("w{n}"));
        assert_eq!(message["origin"], Value::Null);
    }
    let conversation = system.client.conversation(ANN).await;
    assert_eq!(
        (&conversation["unreadCount"], &conversation["inboundCount"]),
        (&json!(8), &json!(8))
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_is_unknown_is_stored_as_unsupported_with_its_raw_content() {
    let system = start().await;
    let odd = item("w1", ANN, 0, "hologram", json!({ "depth": 3 }));
    let broken = json!({ "id": "w2", "from": ANN, "type": "text", "text": 7 });
    system.receives(&[odd.clone(), broken]).await;
    for wamid in ["w1", "w2"] {
        let message = system.by_wamid(wamid).await;
        assert_eq!(message["type"], "unsupported", "{message}");
    }
    assert_eq!(system.by_wamid("w1").await["content"], odd);
}

#[tokio::test]
async fn the_same_item_in_one_body_in_another_and_ten_times_at_once_is_one_message() {
    let system = start().await;
    let hello = text("w1", ANN, 0, "Hi");
    system
        .takes(&messages(&[hello.clone(), hello.clone()]), [2, 1, 0])
        .await;
    let before = system.client.conversation(ANN).await;
    system
        .takes(&messages(&[text("w1", BOB, 5, "Changed")]), [1, 1, 0])
        .await;
    assert_eq!(system.client.conversation(ANN).await, before);
    assert_eq!(before["unreadCount"], 1);

    let both = messages(&[text("w2", ANN, 1, "Again"), hello]);
    let answers = join_all((0..10).map(|_| post(&system.client, &both))).await;
    let duplicates: u64 = answers
        .iter()
        .map(|answer| answer.expect(200)["duplicates"].as_u64().unwrap())
        .sum();
    assert_eq!(duplicates, 19);
    assert_eq!(system.texts(ANN).await, ["Hi", "Again"]);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn items_of_one_second_keep_the_order_of_their_body() {
    let system = start().await;
    let number = |n: usize| format!("{n:03}");
    let items: Vec<Value> = (0..150)
        .map(|n| text(&format!("w{}", 999 - n), ANN, 0, &number(n)))
        .collect();
    // In three changes of two entries, with others between them.
    let parts = items.chunks(50).map(|items| json!({ "messages": items }));
    let mut changes: Vec<Value> = parts.map(|value| change("messages", value)).collect();
    changes.insert(
        1,
        change(
            "messages",
            json!({ "messages": [text("w0", BOB, 0, "Bob")] }),
        ),
    );
    system.takes(&body(&changes), [151, 0, 0]).await;
    let expected: Vec<String> = (0..150).map(number).collect();
    assert_eq!(system.texts(ANN).await, expected);
    let conversation = system.client.conversation(ANN).await;
    assert_eq!(conversation["lastMessagePreview"], "149");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn an_answer_names_a_message_of_its_own_conversation_only() {
    let system = start().await;
    let question = text("w1", ANN, 0, "A secret");
    let same_body = answering(text("w2", ANN, 1, "Yes"), "w1");
    system.receives(&[question, same_body]).await;
    system
        .receives(&[answering(text("w3", ANN, 2, "No"), "w1")])
        .await;
    system
        .receives(&[answering(text("w4", BOB, 3, "Show me"), "w1")])
        .await;
    system
        .receives(&[answering(text("w5", ANN, 4, "Which?"), "unknown")])
        .await;
    let question = system.by_wamid("w1").await["id"].clone();
    for (wamid, id, answered) in [
        ("w2", question.clone(), "w1"),
        ("w3", question, "w1"),
        ("w4", Value::Null, "w1"),
        ("w5", Value::Null, "unknown"),
    ] {
        let message = system.by_wamid(wamid).await;
        let expected = json!({ "messageId": id, "providerMessageId": answered });
        assert_eq!(message["replyTo"], expected, "{message}");
    }
}

#[tokio::test]
async fn an_older_message_never_moves_the_preview_back_and_the_window_is_that_of_the_newest() {
    let system = start().await;
    for (id, seconds) in [("w2", 2), ("w1", 1), ("w3", 3)] {
        system.receives(&[text(id, ANN, seconds, id)]).await;
    }
    assert_eq!(
        system.client.conversation(ANN).await["lastMessagePreview"],
        "w3"
    );
    assert_eq!(system.texts(ANN).await, ["w1", "w2", "w3"]);
    let window = "select extract(epoch from window_from)::bigint - 1735732800 from conversations";
    assert_eq!(system.database.count(window).await, 3);
}

#[tokio::test]
async fn what_a_customer_calls_themselves_is_kept_with_the_message_and_the_conversation() {
    let system = start().await;
    let named = |id: &str, seconds: i64, name: &str| {
        let contacts = json!([{ "wa_id": ANN, "profile": { "name": name } }]);
        let value = json!({ "contacts": contacts, "messages": [text(id, ANN, seconds, "Hi")] });
        body(&[change("messages", value)])
    };
    system.takes(&named("w2", 2, "Ann B."), [1, 0, 0]).await;
    system.takes(&named("w1", 1, "Ann"), [1, 0, 0]).await;
    system.receives(&[text("w3", ANN, 3, "No name")]).await;
    assert_eq!(system.by_wamid("w1").await["participantName"], "Ann");
    assert_eq!(system.by_wamid("w3").await["participantName"], Value::Null);
    let name = "select count(*) from conversations where participant_name = 'Ann B.'";
    assert_eq!(system.database.count(name).await, 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_cuts_nothing_in_half() {
    use tokio::io::AsyncWriteExt;

    use crate::support::whatsapp::{APP_SECRET, WEBHOOK};
    use crate::support::{eventually, signature};

    let system: System = start().await;
    let items: Vec<Value> = (0..300)
        .map(|n| text(&format!("w{n}"), ANN, n, "Hi"))
        .collect();
    let body = messages(&items).to_string();
    let signed = signature(APP_SECRET, &body);
    let mut connection = system.client.connect().await;
    let head = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Hub-Signature-256: {signed}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body.as_bytes()).await.unwrap();
    connection.flush().await.unwrap();
    eventually("the first are stored", async || {
        let stored = system.database.count("select count(*) from messages").await;
        (stored > 0).then_some(())
    })
    .await;
    drop(connection);
    eventually("all are stored", async || {
        let stored = system.database.count("select count(*) from messages").await;
        (stored == 300).then_some(())
    })
    .await;
}
