//! Whatever comes from outside: it is stored as it is, or refused with the reason; nothing fails.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::{Answer, System};

/// Random values of a kind; `PROPTEST_CASES` says how many, and `PROPTEST_RNG_SEED` which.
fn random<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::default();
    let cases = runner.config().cases;
    let mut next = || strategy.new_tree(&mut runner).unwrap().current();
    (0..cases).map(|_| next()).collect()
}

/// Text of any characters, with those that hurt, and around the limits.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "\\PC{1,20}",
        2 => any::<String>(),
        1 => "[\\x00-\\x20\\x7f\u{80}\u{2028}\u{feff}\u{202e}🙂ğ%_'\"\\\\]{0,6}",
        1 => Just("a\0b".to_owned()),
        1 => (126_usize..131).prop_map(|length| "é".repeat(length)),
        1 => (158_usize..163).prop_map(|length| "é".repeat(length)),
        1 => (4094_usize..4099).prop_map(|length| "🙂".repeat(length)),
    ]
}

/// A field's value: mostly text, at times something else.
fn field() -> impl Strategy<Value = Value> {
    prop_oneof![
        20 => text().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(json!([])),
        1 => Just(json!({ "a": { "b": [1, "\u{0}"] } })),
    ]
}

fn is_name(value: &Value, most: usize) -> bool {
    value.as_str().is_some_and(|name| {
        (1..=most).contains(&name.chars().count()) && !name.chars().any(char::is_control)
    })
}

fn is_text(value: &Value, most: usize) -> bool {
    let text = value.as_str().unwrap_or_default();
    (1..=most).contains(&text.chars().count())
}

/// It was understood, or refused for a reason; a caller's mistake is never ours.
#[track_caller]
fn assert_refused(answer: &Answer, request: &(impl std::fmt::Debug + ?Sized)) {
    if answer.status == 431 {
        // The parser's own.
        assert!(format!("{request:?}").len() > 30_000, "{request:?}");
        return;
    }
    assert!(
        (400..500).contains(&answer.status),
        "{request:?}: {answer:?}"
    );
    let body = answer.expect_problem(answer.status, answer.json()["code"].as_str().unwrap());
    assert!(!body["detail"].as_str().unwrap().is_empty(), "{body}");
}

#[tokio::test]
async fn an_event_of_any_characters_is_stored_as_it_is_or_refused() {
    let system = System::start().await;
    let (mut stored, mut refused) = (0, 0);
    for (id, from, text) in random((field(), field(), field())) {
        let event = json!({ "eventId": id, "channel": "instagram", "from": from, "text": text, "timestamp": "2025-01-01T10:00:00Z" });
        let answer = system.client.webhook(&event).await;
        if !(is_name(&id, 160) && is_name(&from, 160) && is_text(&text, usize::MAX)) {
            assert_refused(&answer, &event);
            refused += 1;
            continue;
        }
        let receipt = answer.expect(200);
        assert_eq!(receipt["eventId"], id);
        if receipt["duplicate"] == false {
            let message = system.message(receipt["messageId"].as_str().unwrap()).await;
            let text = text.as_str().unwrap().replace('\0', "\u{FFFD}");
            assert_eq!(message["text"], text, "{event}");
            assert_eq!(message["participantId"], from, "{event}");
            stored += 1;
        }
    }
    assert!(
        stored > 0 && refused > 0,
        "{stored} stored, {refused} refused"
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_message_of_any_characters_is_delivered_as_it_is_or_refused() {
    let system = System::start().await;
    let (mut sent, mut refused) = (0, 0);
    for (to, text, key) in random((field(), field(), proptest::option::of(field()))) {
        let mut request = json!({ "channel": "whatsapp", "to": to, "text": text });
        if let Some(key) = &key {
            request["clientMessageId"] = key.clone();
        }
        let is_key = key
            .as_ref()
            .is_none_or(|key| key.is_null() || is_name(key, 128));
        let is_sendable = is_text(&text, 4096) && !text.as_str().unwrap().contains('\0');
        let answer = system.client.post("/messages/send", &request).await;
        if !(is_name(&to, 160) && is_sendable && is_key) {
            assert_refused(&answer, &request);
            refused += 1;
            continue;
        }
        assert!(matches!(answer.status, 200 | 201), "{request}: {answer:?}");
        if answer.status == 201 {
            let message = answer.json();
            assert_eq!(message["status"], "SENT", "{request}");
            assert_eq!(message["text"], text);
            let texts = system
                .mock
                .texts(mock_meta_provider::Channel::Whatsapp, to.as_str().unwrap());
            assert!(
                texts.iter().any(|delivered| *delivered == text),
                "{request}"
            );
            sent += 1;
        }
    }
    assert!(sent > 0 && refused > 0, "{sent} sent, {refused} refused");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let system = System::start().await;
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        // JSON that is cut, repeats itself, or is nested deeper than anybody needs.
        (0_usize..110).prop_map(|length| {
            let event = r#"{"eventId":"e","channel":"whatsapp","from":"u","text":"t","timestamp":"2025-01-01T10:00:00Z"}"#;
            event.as_bytes()[..length.min(event.len() - 1)].to_vec()
        }),
        Just(br#"{"eventId":"a","eventId":"b"}"#.to_vec()),
        Just(br#"{"eventId":"\ud800","channel":"whatsapp","from":"u","text":"t","timestamp":"2025-01-01T10:00:00Z"}"#.to_vec()),
        (1_usize..30_000).prop_map(|depth| [r#"{"a":"#.repeat(depth), "[".repeat(depth)].concat().into_bytes()),
    ];
    let content_type = prop_oneof![
        3 => Just("application/json".to_owned()),
        1 => "[a-z]{1,10}/[a-z+;= ]{1,10}",
    ];
    for (path, bytes, content_type) in random((
        prop_oneof![Just("/webhooks/mock-meta"), Just("/messages/send")],
        bytes,
        content_type,
    )) {
        let request = system.client.http.post(system.client.url(path));
        let request = request
            .header("content-type", &content_type)
            .body(bytes.clone());
        let answer = system.client.call(request).await.unwrap();
        assert_refused(
            &answer,
            &(path, content_type, String::from_utf8_lossy(&bytes)),
        );
    }
    let messages = "select count(*) from messages";
    assert_eq!(system.database.count(messages).await, 0);
}

#[tokio::test]
async fn paths_and_queries_of_any_characters_are_understood_or_refused() {
    let system = System::start().await;
    system.send("user-1", "one").await;
    let id = prop_oneof![text(), "(msg|conv)_[0-9a-fA-F]{30,33}"];
    let cursor = prop_oneof![text(), "(00|7f|80|ff)[0-9a-f]{44,47}", "msg_[0-9a-f]{32}"];
    let number = prop_oneof![
        text(),
        any::<i64>().prop_map(|n| n.to_string()),
        (0_u32..300).prop_map(|n| n.to_string())
    ];
    let name = prop_oneof![
        Just("limit"),
        Just("page"),
        Just("archived"),
        Just("unread"),
        Just("participant"),
        Just("channel"),
        Just("status")
    ];
    for (id, cursor, name, number) in random((id, cursor, name, number)) {
        for list in [
            "conversations",
            "messages",
            "conversations/conv_01941f297c0070008000000000000001",
        ] {
            for query in [
                [("status", "FAILED"), ("cursor", &*cursor)],
                [("status", "PENDING"), (name, &*number)],
            ] {
                let url =
                    reqwest::Url::parse_with_params(&system.client.url(&format!("/{list}")), query)
                        .unwrap();
                let answer = system
                    .client
                    .call(system.client.http.get(url.clone()))
                    .await
                    .unwrap();
                if answer.status != 200 {
                    assert_refused(&answer, &url);
                }
            }
        }
        for (parent, child) in [
            ("messages", None),
            ("conversations", None),
            ("messages", Some("retry")),
            ("conversations", Some("read")),
        ] {
            let mut url = reqwest::Url::parse(&system.client.url("")).unwrap();
            url.path_segments_mut()
                .unwrap()
                .clear()
                .push(parent)
                .push(&id)
                .extend(child);
            let request = match child {
                None => system.client.http.get(url.clone()),
                Some(_) => system.client.http.post(url.clone()),
            };
            let answer = system.client.call(request).await.unwrap();
            // An empty id, `.` or `..` is another path.
            if answer.status != 200 {
                assert_refused(&answer, &url);
            }
        }
    }
}
