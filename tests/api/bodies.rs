//! Bodies: what no text can hold, what is compressed, and what is there twice.

use serde_json::{Value, json};
use sqlx::Row;

use super::JSON;
use crate::support::{Answer, Client, System, WEBHOOK, event};

const SEND: &str = "/messages/send";

/// What no text can hold, in JSON, and what is stored in its place.
const UNSPEAKABLE: [(&str, &str); 7] = [
    (r"a\u0000b", "a\u{FFFD}b"),
    (r"\ud83d", "\u{FFFD}"),
    (r"a\uDE00b", "a\u{FFFD}b"),
    (r"\ud83d\ud83d\ude00", "\u{FFFD}😀"),
    (r"\ude00\ud83d", "\u{FFFD}\u{FFFD}"),
    (r"\\ud83d \ud83d\n", "\\ud83d \u{FFFD}\n"),
    (r"\u0000\u0000", "\u{FFFD}\u{FFFD}"),
];

fn inbound(id: &str) -> String {
    event(id, "user-1", "TEXT", "2025-01-01T10:00:00Z").to_string()
}

fn outbound() -> String {
    json!({ "channel": "whatsapp", "to": "user-1", "text": "TEXT", "clientMessageId": "order-1" })
        .to_string()
}

async fn post(
    client: &Client,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    let headers = [&[JSON], headers].concat();
    client.ask("POST", path, &headers, body).await
}

async fn text_of(system: &System, receipt: &Value) -> Value {
    system.message(receipt["messageId"].as_str().unwrap()).await["text"].clone()
}

#[tokio::test]
async fn an_inbound_text_is_stored_with_a_replacement_for_what_no_text_can_hold_and_the_body_as_it_came()
 {
    let system = System::start().await;
    for (n, (given, stored)) in UNSPEAKABLE.into_iter().enumerate() {
        let body = inbound(&format!("evt_{n}")).replace("TEXT", given);
        let receipt = post(&system.client, WEBHOOK, &[], body.clone())
            .await
            .expect(200);
        assert_eq!(text_of(&system, &receipt).await, stored, "{given}");
        let again = post(&system.client, WEBHOOK, &[], body.clone())
            .await
            .expect(200);
        assert_eq!(again["duplicate"], true);
        let raw = sqlx::query("select webhook_bodies.body from webhook_bodies join webhook_events using (message_id, received_at) where event_id = $1")
            .bind(format!("evt_{n}"))
            .fetch_one(system.database.pool())
            .await
            .unwrap();
        assert_eq!(raw.get::<Vec<u8>, _>(0), body.as_bytes());
    }
    // Bytes that are no UTF-8, and a byte order mark.
    let body = inbound("evt_bytes").into_bytes();
    let at = body.windows(4).position(|four| four == b"TEXT").unwrap();
    let body = [
        &b"\xEF\xBB\xBF"[..],
        &body[..at],
        b"a\xFFb",
        &body[at + 4..],
    ]
    .concat();
    let receipt = post(&system.client, WEBHOOK, &[], body).await.expect(200);
    assert_eq!(text_of(&system, &receipt).await, "a\u{FFFD}b");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_signature_is_that_of_the_body_as_it_came() {
    use hmac::{Hmac, KeyInit, Mac};
    let system = System::with(&[("WEBHOOK_SECRET", "a-secret")]).await;
    let body = inbound("evt_1").replace("TEXT", r"\ud800");
    let tag = Hmac::<sha2::Sha256>::new_from_slice(b"a-secret").unwrap();
    let tag = tag.chain_update(&body).finalize().into_bytes();
    let tag = tag.iter().fold("sha256=".to_owned(), |tag, byte| {
        tag + &format!("{byte:02x}")
    });
    let signed = [("x-hub-signature-256", &*tag)];
    post(&system.client, WEBHOOK, &signed, body)
        .await
        .expect(200);
}

#[tokio::test]
async fn an_outbound_text_that_no_text_can_hold_is_refused_by_name() {
    let system = System::start().await;
    for (given, _) in UNSPEAKABLE {
        let body = outbound().replace("TEXT", given);
        assert_eq!(
            post(&system.client, SEND, &[], body).await.fields(),
            ["text"],
            "{given}"
        );
    }
    let both = outbound()
        .replace("TEXT", r"\ud800")
        .replace("user-1", r"\u0000")
        .replace("whatsapp", "sms");
    let answer = post(&system.client, SEND, &[], both).await;
    assert_eq!(answer.fields(), ["channel", "text", "to"]);
    // What stands for it can be sent as well as any other character.
    let sent = post(
        &system.client,
        SEND,
        &[],
        outbound().replace("TEXT", "\u{FFFD}"),
    )
    .await;
    assert_eq!(sent.expect(201)["text"], "\u{FFFD}");
}

#[tokio::test]
async fn an_id_that_no_text_can_hold_is_refused_by_name_and_never_becomes_another() {
    let system = System::start().await;
    for (path, body) in [(WEBHOOK, inbound("evt_1")), (SEND, outbound())] {
        for (field, value) in serde_json::from_str::<Value>(&body)
            .unwrap()
            .as_object()
            .unwrap()
        {
            if field == "text" {
                continue;
            }
            for (given, _) in UNSPEAKABLE {
                let body = body.replace(value.as_str().unwrap(), given);
                let answer = post(&system.client, path, &[], body).await;
                assert_eq!(answer.fields(), [field.as_str()], "{given}");
            }
        }
    }
    // A participant who is called so, beside a text that has to be mended.
    let body = inbound("evt_1")
        .replace("user-1", "\u{FFFD}")
        .replace("TEXT", r"\ud800");
    post(&system.client, WEBHOOK, &[], body).await.expect(200);
    assert_eq!(
        system.client.conversation("\u{FFFD}").await["unreadCount"],
        1
    );
}

#[tokio::test]
async fn unknown_fields_are_ignored_whatever_they_hold_and_however_often_they_are_there() {
    let system = System::start().await;
    for (n, odd) in [
        r#""meta":"\ud800","#,
        r#""\ud800":"\u0000","#,
        r#""meta":{"eventId":"\ud800","text":["\udc00"]},"#,
        r#""meta":1,"meta":2,"#,
        r#""meta":{"a":1,"a":2},"#,
    ]
    .into_iter()
    .enumerate()
    {
        let body = inbound(&format!("evt_{n}")).replacen('{', &format!("{{{odd}"), 1);
        let receipt = post(&system.client, WEBHOOK, &[], body).await.expect(200);
        assert_eq!(text_of(&system, &receipt).await, "TEXT");
        let body = outbound().replace("order-1", &format!("order-{n}"));
        let body = body.replacen('{', &format!("{{{odd}"), 1);
        post(&system.client, SEND, &[], body).await.expect(201);
    }
}

#[tokio::test]
async fn everything_that_is_there_twice_is_named_with_what_is_missing_and_invalid() {
    let system = System::start().await;
    let twice = r#"{"eventId":"evt_1","text":"a","text":"b","text":1,"event\u0049d":"evt_2","channel":"sms","from":"user-1"}"#;
    let answer = post(&system.client, WEBHOOK, &[], twice).await;
    assert_eq!(answer.fields(), ["channel", "eventId", "text", "timestamp"]);
    let twice = r#"{"channel":"whatsapp","to":"user-1","text":"a","clientMessageId":null,"clientMessageId":"b"}"#;
    let answer = post(&system.client, SEND, &[], twice).await;
    assert_eq!(answer.fields(), ["clientMessageId"]);
}

#[tokio::test]
async fn a_body_that_is_coded_or_said_to_be_is_an_unsupported_media_type() {
    let system = System::start().await;
    for (path, body, success) in [(WEBHOOK, inbound("evt_1"), 200), (SEND, outbound(), 201)] {
        for coding in [
            "gzip",
            "GZIP",
            "br",
            "deflate",
            "zstd",
            "identity, gzip",
            "gzip, identity",
            "x",
        ] {
            let coded = [("content-encoding", coding)];
            let answer = post(&system.client, path, &coded, body.clone()).await;
            answer.expect_problem(415, "unsupported_media_type");
            assert_eq!(
                answer.header("accept-encoding"),
                Some("identity"),
                "{coding}"
            );
        }
        let twice = [
            ("content-encoding", "identity"),
            ("content-encoding", "gzip"),
        ];
        let answer = post(&system.client, path, &twice, body.clone()).await;
        answer.expect_problem(415, "unsupported_media_type");
        // Another media type is another matter.
        let request = system
            .client
            .http
            .post(system.client.url(path))
            .body(body.clone());
        let answer = system.client.call(request).await.unwrap();
        answer.expect_problem(415, "unsupported_media_type");
        assert_eq!(answer.header("accept-encoding"), None);
        let plain = [("content-encoding", "Identity")];
        post(&system.client, path, &plain, body)
            .await
            .expect(success);
    }
}
