//! Fields: each has a type and bounds, and all that are wrong are named together.

use serde_json::{Value, json};

use super::{bodies, outbound, post_raw, rows, with};
use crate::support::{System, event, hello};

#[tokio::test]
async fn an_outbound_text_has_up_to_4096_characters_of_any_size() {
    let system = System::start().await;
    let longest = "🦀".repeat(4096);
    let sent = system.send("user-1", &longest).await;
    assert_eq!(sent["text"], longest);
    for text in [String::new(), "a".repeat(4097), "🦀".repeat(4097)] {
        let answer = system
            .client
            .post("/messages/send", &with(outbound(), "text", text))
            .await;
        assert_eq!(answer.fields(), ["text"]);
    }
}

#[tokio::test]
async fn a_field_of_another_type_is_named_without_its_value() {
    let system = System::start().await;
    for (path, body, _) in bodies() {
        for field in body.as_object().unwrap().keys() {
            for value in [
                json!(471_147_114_711_i64),
                json!(true),
                json!(["471147114711"]),
                json!({ "471147114711": 1 }),
            ] {
                let answer = system
                    .client
                    .post(path, &with(body.clone(), field, value))
                    .await;
                let named = answer.fields();
                assert_eq!(named.len(), 1);
                assert!(named[0].starts_with(field), "{named:?} is not {field}");
                assert!(!answer.text.contains("471147114711"), "{}", answer.text);
            }
        }
    }
    assert_eq!(rows(&system).await, 0);
}

#[tokio::test]
async fn half_a_character_is_invalid() {
    let system = System::start().await;
    for (path, body, success) in bodies() {
        let spelt = |text: &str| body.to_string().replace("user", text);
        for half in [r"\ud83e", r"\udd80", r"\ud83e\ud83e", r"\udd80\ud83e"] {
            let answer = post_raw(&system.client, path, spelt(half)).await;
            let participant = if success == 200 { "from" } else { "to" };
            assert_eq!(answer.fields(), [participant]);
        }
        post_raw(&system.client, path, spelt(r"\ud83e\udd80"))
            .await
            .expect(success);
    }
    assert_eq!(system.client.conversation("🦀-1").await["unreadCount"], 1);
}

#[tokio::test]
async fn a_text_has_any_character() {
    let system = System::start().await;
    let any = "\u{1}\t\r\n\u{7f}\u{85}\u{202e}\u{feff}\u{fffe}\u{10ffff}'\"\\%_";
    for (path, body, success) in bodies() {
        system
            .client
            .post(path, &with(body, "text", any))
            .await
            .expect(success);
    }
    let texts = format!("select count(*) from messages where text = U&'{}'", {
        let escaped = any.chars().map(|c| format!("\\+{:06x}", u32::from(c)));
        escaped.collect::<String>()
    });
    assert_eq!(system.database.count(&texts).await, 2);
}

#[tokio::test]
async fn ids_and_participants_have_1_to_160_characters_a_client_message_id_128_and_none_controls() {
    let system = System::start().await;
    for (path, body, success) in bodies() {
        let names = ["eventId", "from", "to", "clientMessageId"];
        for field in names.into_iter().filter(|field| body[*field].is_string()) {
            let length = if field == "clientMessageId" { 128 } else { 160 };
            let longest = "ş".repeat(length);
            for bad in [
                "",
                "a\nb",
                "\0",
                "\u{7f}",
                "a\u{85}",
                &format!("{longest}ş"),
            ] {
                let answer = system
                    .client
                    .post(path, &with(body.clone(), field, bad))
                    .await;
                assert_eq!(answer.fields(), [field], "{bad:?}");
            }
            // Everything else is the caller's business.
            let mut good = with(body.clone(), field, &*longest);
            system.client.post(path, &good).await.expect(success);
            good[field] = json!(" 'x' ");
            let answer = system.client.post(path, &good).await;
            assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn all_missing_and_invalid_fields_are_named_together() {
    let system = System::start().await;
    let event_fields = ["channel", "eventId", "from", "text", "timestamp"];
    let send_fields = ["channel", "text", "to"];
    let client = &system.client;
    assert_eq!(client.webhook(&json!({})).await.fields(), event_fields);
    assert_eq!(
        client.post("/messages/send", &json!({})).await.fields(),
        send_fields
    );

    let nulls =
        json!({ "eventId": null, "channel": null, "from": null, "text": null, "timestamp": null });
    assert_eq!(client.webhook(&nulls).await.fields(), event_fields);
    let nulls = json!({ "channel": null, "to": null, "text": null, "clientMessageId": null });
    assert_eq!(
        client.post("/messages/send", &nulls).await.fields(),
        send_fields
    );

    let mixed = json!({ "eventId": "", "channel": "sms", "text": null, "timestamp": "now" });
    assert_eq!(client.webhook(&mixed).await.fields(), event_fields);
    let mixed = json!({ "channel": "WhatsApp", "to": "a\0", "text": "", "clientMessageId": "" });
    let named = client.post("/messages/send", &mixed).await.fields();
    assert_eq!(named, ["channel", "clientMessageId", "text", "to"]);
    assert_eq!(rows(&system).await, 0);
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_an_optional_one_may_be_null() {
    let system = System::start().await;
    let body = with(hello("evt_1"), "metadata", json!({ "text": [1, null] }));
    system.client.webhook(&body).await.expect(200);
    let body = with(
        with(outbound(), "priority", "high"),
        "clientMessageId",
        Value::Null,
    );
    let sent = system
        .client
        .post("/messages/send", &body)
        .await
        .expect(201);
    assert!(sent["clientMessageId"].is_null());
}

#[tokio::test]
async fn a_timestamp_is_a_time_of_rfc_3339() {
    let system = System::start().await;
    for bad in [
        "",
        "yesterday",
        "1735725600",
        "2025-01-01",
        "2025-01-01T10:00:00",
        "2025-01-01 10:00",
        "2025-02-30T10:00:00Z",
        "2025-01-01T25:00:00Z",
        "2025-01-01T10:00:00+25:00",
        "12025-01-01T10:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00Z",
        "0000-12-31T23:59:59.999Z",
        "0001-01-01T00:59:59+01:00",
        " 2025-01-01T10:00:00Z",
    ] {
        let answer = system
            .client
            .webhook(&with(hello("evt_1"), "timestamp", bad))
            .await;
        assert_eq!(answer.fields(), ["timestamp"], "{bad}");
    }
    for (n, good, kept) in [
        (
            1,
            "2025-01-01T12:00:00.123999+02:00",
            "2025-01-01T10:00:00.123Z",
        ),
        (2, "2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        (3, "0000-12-31T23:00:00-01:00", "0001-01-01T00:00:00.000Z"),
        (4, "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ] {
        let body = event(&format!("evt_{n}"), "user-1", "Hello", good);
        let receipt = system.client.webhook(&body).await.expect(200);
        let message = system.message(receipt["messageId"].as_str().unwrap()).await;
        assert_eq!(message["timestamp"], kept);
    }
}
