//! Sending through WhatsApp's Cloud API: more than texts, to numbers and user ids, as answers to
//! other messages; and what may arrive twice is sent again only by whoever says so.

use std::collections::BTreeMap;

use chrono::Utc;
use mock_meta_provider::{Channel, Fault, LedgerSend, WhatsappBehaviour};
use serde_json::{Value, json};

use super::with;
use crate::support::graph::{SILENT, connected};
use crate::support::{Event, Listener, NO_RETRY, System, eventually, id};

const ANN: &str = "491510000001";
const BOB: &str = "491510000002";
const CAT: &str = "https://example.com/cat.png";

fn to(participant: &str, key: &str) -> Value {
    json!({ "channel": "whatsapp", "to": participant, "clientMessageId": key })
}

fn image(participant: &str, key: &str) -> Value {
    let content = json!({ "link": CAT, "caption": "A cat" });
    with(
        with(to(participant, key), "type", "image"),
        "content",
        content,
    )
}

async fn quiet() -> System {
    connected(SILENT, &[NO_RETRY]).await
}

/// What the provider has accepted for a participant, the oldest first.
fn accepted(system: &System, participant: &str) -> Vec<LedgerSend> {
    let conversations = system.mock.ledger().conversations.into_iter();
    let mut theirs = conversations.filter(|known| known.participant_id == participant);
    theirs.next().map(|known| known.sends).unwrap_or_default()
}

/// Has a customer write a text; the wamid.
async fn written(system: &System, item: &Value) -> String {
    let url = format!("{}/simulate/whatsapp", system.mock.url());
    let body = with(item.clone(), "wait", true);
    let answer = system.client.http.post(url).json(&body).send().await;
    let answer: Value = answer.unwrap().json().await.unwrap();
    assert_eq!(answer["status"], 200, "{answer}");
    answer["wamid"].as_str().unwrap().to_owned()
}

/// The newest message of a participant's conversation, with its content.
async fn newest(system: &System, participant: &str) -> Value {
    let conversation = system.client.conversation(participant).await;
    let path = format!("/conversations/{}?content=true", id(&conversation));
    let detail = system.client.get(&path).await.expect(200);
    detail["messages"][0].clone()
}

#[tokio::test]
async fn a_message_of_each_type_is_sent_with_its_content_and_can_be_read_in_the_inbox() {
    let system = quiet().await;
    let template = json!({ "name": "hello_world", "language": { "code": "en_US" } });
    for (kind, content, text) in [
        ("image", json!({ "link": CAT, "caption": "A cat" }), "A cat"),
        ("video", json!({ "id": "1234567890" }), "[video]"),
        ("audio", json!({ "id": "1234567890" }), "[audio]"),
        (
            "document",
            json!({ "link": CAT, "filename": "cat.png" }),
            "cat.png",
        ),
        ("sticker", json!({ "id": "1234567890" }), "[sticker]"),
        ("template", template, "[template] hello_world"),
        (
            "template",
            json!({ "name": "hello_world", "language": "tr" }),
            "[template] hello_world",
        ),
    ] {
        let body = json!({ "channel": "whatsapp", "to": ANN, "type": kind, "content": content });
        let sent = system.client.post("/messages/send", &body).await;
        let sent = sent.expect(201);
        assert_eq!(sent["status"], "SENT", "{sent}");
        for (field, value) in [("type", json!(kind)), ("text", json!(text))] {
            assert_eq!(sent[field], value, "{sent}");
        }
        assert_eq!(sent["content"], content);
        assert_eq!(system.message(id(&sent)).await["content"], content);
        assert_eq!(newest(&system, ANN).await["content"], content);
        let accepted = accepted(&system, ANN).pop().unwrap();
        assert_eq!(accepted.kind, kind);
        if content["language"] == "tr" {
            assert_eq!(accepted.content["language"], json!({ "code": "tr" }));
        } else {
            assert_eq!(accepted.content, content);
        }
        let conversation = system.client.conversation(ANN).await;
        assert_eq!(conversation["lastMessagePreview"], text);
    }
    let named = with(image(ANN, "order-1"), "text", "A picture of a cat");
    let sent = system.client.post("/messages/send", &named).await;
    assert_eq!(sent.expect(201)["text"], "A picture of a cat");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_every_fault_is_named() {
    let system = quiet().await;
    let body = to(ANN, "order-1");
    let content = |content: Value| with(with(body.clone(), "type", "image"), "content", content);
    for (body, fields) in [
        (body.clone(), &["text"][..]),
        (with(body.clone(), "type", "image"), &["content"]),
        (with(body.clone(), "type", "reaction"), &["type"]),
        (
            with(with(body.clone(), "text", "Hi"), "content", json!({})),
            &["content"],
        ),
        (content(json!([])), &["content"]),
        (
            content(json!({ "caption": 7 })),
            &["content.caption", "content.link"],
        ),
        (
            content(json!({ "link": CAT, "id": "1" })),
            &["content.link"],
        ),
        (
            content(json!({ "link": "ftp://example.com" })),
            &["content.link"],
        ),
        (content(json!({ "id": "../me" })), &["content.id"]),
        (
            with(content(json!({ "id": "x" })), "to", "ann"),
            &["content.id", "to"],
        ),
        (
            with(image("", ""), "channel", "sms"),
            &["channel", "clientMessageId", "to"],
        ),
        (with(body.clone(), "to", "ann"), &["text", "to"]),
        (image("ann", "order-1"), &["to"]),
        (image("1234567890123456789012", "order-1"), &["to"]),
        (image("us.123", "order-1"), &["to"]),
        (
            with(image(ANN, "order-1"), "replyTo", "msg_1"),
            &["replyTo"],
        ),
        (with(image(ANN, "order-1"), "replyTo", 7), &["replyTo"]),
    ] {
        let answer = system.client.post("/messages/send", &body).await;
        assert_eq!(answer.fields(), fields, "{body}");
    }
    assert_eq!(system.mock.stats().calls, 0);
    let rows = system.database.count("select count(*) from messages").await;
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_number_is_called_without_its_plus_and_a_user_id_is_a_recipient() {
    let system = quiet().await;
    for (to, participant, addressed_by) in [
        ("+491510000001", ANN, "to"),
        (ANN, ANN, "to"),
        ("DE.1001", "DE.1001", "recipient"),
    ] {
        let sent = system.send(to, "Merhaba").await;
        assert_eq!(sent["participantId"], participant);
        let accepted = accepted(&system, participant).pop().unwrap();
        assert_eq!(accepted.addressed_by, addressed_by);
    }
    let texts = system.mock.texts(Channel::Whatsapp, ANN);
    assert_eq!(texts.len(), 2);
}

#[tokio::test]
async fn a_reply_names_a_message_of_the_same_conversation_that_the_provider_knows() {
    let system = quiet().await;
    let wamid = written(&system, &json!({ "from": ANN, "text": "Where is it?" })).await;
    let question = newest(&system, ANN).await;
    let text = |participant, reply_to: &Value| {
        let body = json!({ "channel": "whatsapp", "to": participant, "text": "On its way" });
        with(body, "replyTo", reply_to.clone())
    };
    let answer = text(ANN, &question["id"]);
    let sent = system.client.post("/messages/send", &answer).await;
    let sent = sent.expect(201);
    let reply_to = json!({ "messageId": question["id"], "providerMessageId": wamid });
    assert_eq!(sent["replyTo"], reply_to);
    assert_eq!(system.message(id(&sent)).await["replyTo"], reply_to);
    let call = accepted(&system, ANN).pop().unwrap();
    assert_eq!(call.reply_to.as_deref(), Some(&*wamid));

    // One of ours can be answered too, but not one that was never accepted.
    let ours = text(ANN, &sent["id"]);
    system
        .client
        .post("/messages/send", &ours)
        .await
        .expect(201);
    system.mock.script(ANN, [Fault::Reject]);
    let failed = system.send(ANN, "Lost").await;
    assert_eq!(failed["status"], "FAILED");
    let unknown = json!("msg_01941f297c0070008000000000000001");
    for (participant, reply_to) in [
        (BOB, &question["id"]),
        (ANN, &failed["id"]),
        (ANN, &unknown),
    ] {
        let body = text(participant, reply_to);
        let answer = system.client.post("/messages/send", &body).await;
        assert_eq!(answer.fields(), ["replyTo"], "{body}");
    }
    let rows = "select count(*) from messages where direction = 'OUTBOUND'";
    assert_eq!(system.database.count(rows).await, 3);
}

#[tokio::test]
async fn a_replay_is_compared_with_all_that_a_message_is() {
    let system = quiet().await;
    written(&system, &json!({ "from": ANN, "text": "Hello" })).await;
    let reply_to = newest(&system, ANN).await["id"].clone();
    let original = with(image(ANN, "order-1"), "replyTo", reply_to);
    let sent = system.client.post("/messages/send", &original).await;
    let sent = sent.expect(201);
    let spelled = json!({ "caption": "A cat", "link": CAT });
    for (body, mismatch) in [
        (original.clone(), None),
        (with(original.clone(), "to", format!("+{ANN}")), None),
        (with(original.clone(), "content", spelled), None),
        (with(original.clone(), "text", "A cat"), None),
        (with(original.clone(), "text", "A dog"), Some("true")),
        (
            with(original.clone(), "content", json!({ "link": CAT })),
            Some("true"),
        ),
        (with(original.clone(), "type", "video"), Some("true")),
        (with(original.clone(), "replyTo", Value::Null), Some("true")),
        (with(original.clone(), "to", BOB), Some("true")),
    ] {
        let replay = system.client.post("/messages/send", &body).await;
        assert_eq!(replay.expect(200), sent, "{body}");
        assert_eq!(replay.header("idempotent-mismatch"), mismatch, "{body}");
    }
    assert_eq!(system.mock.stats().calls, 1);
}

#[tokio::test]
async fn a_message_goes_to_whom_an_id_leads_and_never_to_who_has_the_number_now() {
    let system = quiet().await;
    let first = image(ANN, "order-1");
    let sent = system.client.post("/messages/send", &first).await;
    let sent = sent.expect(201);
    let ann = json!({
        "from": ANN, "userId": "DE.1001", "name": "Ann", "text": "It is me",
        "timestamp": (Utc::now().timestamp() - 100).to_string(),
    });
    written(&system, &ann).await;
    let by_user_id = system.send("DE.1001", "Hello Ann").await;
    assert_eq!(by_user_id["conversationId"], sent["conversationId"]);
    assert_eq!(by_user_id["participantId"], ANN);
    assert_eq!(accepted(&system, ANN).len(), 2);

    let conversation = system.client.conversation(ANN).await;
    assert_eq!(conversation["participantName"], "Ann");
    let path = format!("/conversations/{}", id(&conversation));
    let detail = system.client.get(&path).await.expect(200);
    let aliases = detail["aliases"].as_array().unwrap();
    let mut ids: Vec<&str> = aliases.iter().map(id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [ANN, "DE.1001"], "{detail}");
    let written_at = newest(&system, ANN).await["timestamp"].clone();
    assert!(conversation["windowExpiresAt"].as_str() > written_at.as_str());

    // Somebody else has the number by now.
    let other = json!({ "from": ANN, "userId": "DE.2002", "text": "Who is this?" });
    written(&system, &other).await;
    let refused = json!({ "channel": "whatsapp", "to": ANN, "text": "Your code is 1234" });
    let answer = system.client.post("/messages/send", &refused).await;
    answer.expect_problem(409, "participant_changed");
    // What was asked for before is answered as it was.
    let replay = system.client.post("/messages/send", &first).await;
    assert_eq!(replay.expect(200)["id"], sent["id"]);
    assert_eq!(replay.header("idempotent-mismatch"), None);
    assert_eq!(accepted(&system, ANN).len(), 2);
}

#[tokio::test]
async fn a_channel_without_a_provider_refuses_what_is_to_be_sent() {
    let system = connected(SILENT, &[("PROVIDER_URL", "")]).await;
    let body = json!({ "channel": "instagram", "to": "ann", "text": "Hi" });
    let answer = system.client.post("/messages/send", &body).await;
    answer.expect_problem(409, "channel_not_connected");
    assert_eq!(system.send(ANN, "Hi").await["status"], "SENT");
}

#[tokio::test]
async fn a_channel_that_only_has_texts_refuses_other_types_and_ignores_what_belongs_to_them() {
    let system = connected(SILENT, &[]).await;
    let text = json!({
        "channel": "instagram", "to": "ann", "text": "Hi", "content": { "link": CAT },
        "replyTo": "msg_01941f297c0070008000000000000001",
    });
    let sent = system.client.post("/messages/send", &text).await;
    let sent = sent.expect(201);
    assert_eq!(
        (&sent["status"], &sent["type"]),
        (&json!("SENT"), &json!("text"))
    );
    assert_eq!(
        (&sent["content"], &sent["replyTo"]),
        (&Value::Null, &Value::Null)
    );
    let other = with(text, "type", "image");
    let answer = system.client.post("/messages/send", &other).await;
    assert_eq!(answer.fields(), ["type"]);
}

#[tokio::test]
async fn lists_have_contents_on_request_only() {
    let system = quiet().await;
    let mut listener = Listener::open(&system.client, "").await;
    system.mock.script(ANN, [Fault::Reject]);
    let sent = system.client.post("/messages/send", &image(ANN, "a")).await;
    let sent = sent.expect(201);
    let text = system.send(ANN, "Hi").await;
    let conversation = sent["conversationId"].as_str().unwrap();
    for (path, list) in [
        (format!("/conversations/{conversation}?limit=2"), "messages"),
        ("/messages?status=FAILED".to_owned(), "data"),
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        for (asked, shown) in [
            ("", None),
            ("content=false", None),
            ("content=true", Some(&sent["content"])),
        ] {
            let answer = system.client.get(&format!("{path}{joint}{asked}")).await;
            let answer = answer.expect(200);
            let rows = answer[list].as_array().unwrap();
            let row = rows.iter().find(|row| id(row) == id(&sent)).unwrap();
            assert_eq!(row.get("content"), shown, "{path} {asked}");
            // Where there is none, there is nothing to leave out.
            let other = rows.iter().find(|row| id(row) == id(&text));
            assert!(
                other.is_none_or(|row| row["content"].is_null() && row.get("content").is_some())
            );
        }
        let wrong = system.client.get(&format!("{path}{joint}content=7")).await;
        assert_eq!(wrong.fields(), ["content"]);
    }
    let told = listener
        .until(|event| event.message("message.created").is_some())
        .await;
    let told = told.last().unwrap().message("message.created").unwrap();
    assert_eq!((id(told), &told["content"]), (id(&sent), &sent["content"]));
}

#[tokio::test]
async fn each_status_makes_a_message_newer_and_all_copies_of_one_revision_are_equal() {
    let system = connected(WhatsappBehaviour::CALM, &[]).await;
    let mut listener = Listener::open(&system.client, "").await;
    let sent = system.client.post("/messages/send", &image(ANN, "a")).await;
    let sent = sent.expect(201);
    let read = eventually("it is read", async || {
        let message = system.message(id(&sent)).await;
        (message["deliveryStatus"] == "read").then_some(message)
    })
    .await;
    assert!(
        read["deliveredAt"].is_string() && read["readAt"].is_string(),
        "{read}"
    );
    assert_eq!(
        (&read["status"], &read["origin"]),
        (&json!("SENT"), &json!("api"))
    );
    assert_eq!(newest(&system, ANN).await, read);
    let about = |event: &Event| {
        let kinds = ["message.created", "message.updated"];
        kinds.iter().find_map(|kind| event.message(kind).cloned())
    };
    let is_last = |event: &Event| about(event).is_some_and(|copy| copy == read);
    let told = listener.until(is_last).await;
    let mut copies: BTreeMap<i64, Value> = BTreeMap::new();
    for copy in told.iter().filter_map(about).chain([sent, read.clone()]) {
        let revision = copy["revision"].as_i64().unwrap();
        let known = copies.entry(revision).or_insert_with(|| copy.clone());
        assert_eq!(*known, copy, "two copies with revision {revision}");
    }
    assert_eq!(copies.into_values().next_back(), Some(read));
}

#[tokio::test]
async fn what_may_have_arrived_is_sent_again_only_by_whoever_asks_for_it() {
    const KEYS: [(&str, &str); 1] = [(
        "API_KEYS",
        "shop:shop-key-of-16-and:send,desk:desk-key-of-16-and:inbox+send",
    )];
    let system = connected(SILENT, &[KEYS[0], NO_RETRY]).await;
    let call = async |key: &str, path: &str, body: Value| {
        let request = system.client.http.post(system.client.url(path)).json(&body);
        system.client.call(request.bearer_auth(key)).await.unwrap()
    };
    system
        .mock
        .script(ANN, [Fault::LostAnswer, Fault::LostAnswer]);
    let body = with(to(ANN, "order-1"), "text", "Your code is 1234");
    let sent = call("shop-key-of-16-and", "/messages/send", body).await;
    let sent = sent.expect(201);
    assert_eq!(sent["lastError"]["ambiguous"], true, "{sent}");
    let retry = format!("/messages/{}/retry", id(&sent));
    for key in ["shop-key-of-16-and", "desk-key-of-16-and"] {
        for query in ["", "?ambiguous=false"] {
            let answer = call(key, &format!("{retry}{query}"), json!({})).await;
            answer.expect_problem(409, "ambiguous");
        }
    }
    assert_eq!(system.calls(&sent), (1, 1));
    let answer = call(
        "desk-key-of-16-and",
        &format!("{retry}?ambiguous=true"),
        json!({}),
    )
    .await;
    answer.expect(202);
    eventually("it is sent again", async || {
        (system.calls(&sent) == (2, 2)).then_some(())
    })
    .await;

    // What surely has not arrived needs no such word; and canceled, it is as unsure as before.
    system.mock.script(BOB, [Fault::Reject, Fault::LostAnswer]);
    let body = with(to(BOB, "order-2"), "text", "Hi");
    let failed = call("shop-key-of-16-and", "/messages/send", body).await;
    let failed = failed.expect(201);
    assert_eq!(failed["lastError"]["ambiguous"], false);
    let retry = format!("/messages/{}/retry", id(&failed));
    call("shop-key-of-16-and", &retry, json!({}))
        .await
        .expect(202);
    eventually("its answer is lost", async || {
        (system.calls(&failed) == (2, 1)).then_some(())
    })
    .await;
    let cancel = format!("/messages/{}/cancel", id(&failed));
    eventually("it can be canceled", async || {
        let answer = call("desk-key-of-16-and", &cancel, json!({})).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let answer = call("desk-key-of-16-and", &retry, json!({})).await;
    answer.expect_problem(409, "ambiguous");
    assert_eq!(system.calls(&failed), (2, 1));
}
