//! Errors: whatever is wrong with a request, it gets the right status, the one shape of a problem, and the names of all fields at fault.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::openapi::ROUTES;
use crate::support::{Answer, Client, Program, System, event, eventually};

const UNKNOWN: &str = "01941f297c0070008000000000000001";
const CONVERSATION_VERBS: [&str; 5] = ["read", "close", "reopen", "archive", "unarchive"];

fn hello() -> Value {
    event("evt_1", "user-1", "Hello", "2025-01-01T10:00:00Z")
}

fn outbound() -> Value {
    json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi", "clientMessageId": "order-1" })
}

/// The two requests with a body: where they go, a good one, and what answers it.
fn bodies() -> [(&'static str, Value, u16); 2] {
    [
        ("/webhooks/mock-meta", hello(), 200),
        ("/messages/send", outbound(), 201),
    ]
}

fn with(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

/// Posts bytes as JSON.
async fn post_raw(client: &Client, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    post_as(client, path, Some("application/json"), body).await
}

async fn post_as(
    client: &Client,
    path: &str,
    content_type: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Answer {
    let mut request = client.http.post(client.url(path)).body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    client.call(request).await.unwrap()
}

async fn request(client: &Client, method: Method, path: &str) -> Answer {
    let request = client.http.request(method, client.url(path));
    client.call(request).await.unwrap()
}

async fn rows(system: &System) -> i64 {
    let tables = "select (select count(*) from messages) + (select count(*) from conversations) + (select count(*) from webhook_events)";
    system.database.count(tables).await
}

#[tokio::test]
async fn an_unknown_route_is_not_found() {
    let system = System::start().await;
    for path in [
        "/",
        "/nothing",
        "/nothing/",
        "//",
        "/messages//",
        "/messages/send/again",
        "/conversations/x/y/z",
        "/webhooks/other",
        "/health//",
        "/health%2f",
        "/api/nothing.js",
        "/%ff",
    ] {
        let answer = system.client.get(path).await;
        answer.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn any_other_spelling_of_an_id_names_nothing() {
    let system = System::start().await;
    let message = system.send("user-1", "Hi").await;
    let spellings = |prefix: &str, id: &Value| {
        let digits = id.as_str().unwrap()[prefix.len()..].to_owned();
        let dashed = uuid::Uuid::parse_str(&digits).unwrap().to_string();
        [
            format!("{prefix}{UNKNOWN}"),
            format!("{prefix}{}", digits.to_uppercase()),
            format!("{}{digits}", prefix.to_uppercase()),
            format!("{prefix}{dashed}"),
            format!("{prefix}{}", &digits[1..]),
            format!("{prefix}{digits}0"),
            format!("{prefix}{{{dashed}}}"),
            format!("%20{prefix}{digits}"),
            format!("{prefix}{digits}%00"),
            digits,
            format!("{prefix}%ff"),
            prefix.to_owned(),
        ]
    };
    let mut messages = spellings("msg_", &message["id"]).to_vec();
    messages.push(message["conversationId"].as_str().unwrap().to_owned());
    let mut conversations = spellings("conv_", &message["conversationId"]).to_vec();
    conversations.push(message["id"].as_str().unwrap().to_owned());

    for (nouns, ids, verbs) in [
        ("messages", messages, &["retry", "cancel"][..]),
        ("conversations", conversations, &CONVERSATION_VERBS),
    ] {
        for id in ids {
            let answer = system.client.get(&format!("/{nouns}/{id}")).await;
            answer.expect_problem(404, "not_found");
            for verb in verbs {
                let path = format!("/{nouns}/{id}/{verb}");
                let answer = request(&system.client, Method::POST, &path).await;
                answer.expect_problem(404, "not_found");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_those_that_are_allowed() {
    let system = System::start().await;
    for (method, path) in ROUTES {
        let path = path.replace("{id}", &format!("msg_{UNKNOWN}"));
        let others = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ];
        for other in others.into_iter().filter(|other| other.as_str() != method) {
            let answer = request(&system.client, other, &path).await;
            answer.expect_problem(405, "method_not_allowed");
            let allow: Vec<_> = answer
                .header("allow")
                .unwrap()
                .split(',')
                .map(str::trim)
                .collect();
            let expected = if method == "GET" {
                vec!["GET", "HEAD"]
            } else {
                vec!["POST"]
            };
            assert_eq!(allow, expected, "{path}");
        }
    }
    let answer = request(&system.client, Method::POST, "/api/openapi.json").await;
    answer.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused() {
    const KIB: usize = 1024;
    let system = System::start().await;
    for (path, body, success) in bodies() {
        let body = body.to_string();
        let padded = |length: usize| body.clone() + &" ".repeat(length - body.len());
        for length in [64 * KIB + 1, 200 * KIB, KIB * KIB] {
            let answer = post_raw(&system.client, path, padded(length)).await;
            answer.expect_problem(413, "too_large");
        }
        let nothing_stored = rows(&system).await;
        post_raw(&system.client, path, padded(64 * KIB))
            .await
            .expect(success);
        assert!(rows(&system).await > nothing_stored);
    }
    assert_eq!(
        system.database.count("select count(*) from messages").await,
        2
    );
}

/// Posts a mebibyte, in halves; whether there was an answer in between, and the answer at the end.
fn post_in_halves(address: &str, path: &str) -> std::io::Result<(bool, String)> {
    let half = vec![b' '; 512 * 1024];
    let mut stream = TcpStream::connect(address)?;
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1048576\r\n");
    write!(
        stream,
        "{head}content-type: application/json\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(&half)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let early = stream.peek(&mut [0]).is_ok();
    stream.set_read_timeout(None)?;
    stream.write_all(&half)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((early, answer))
}

#[tokio::test]
async fn up_to_a_mebibyte_is_read_before_it_is_refused_so_that_the_answer_arrives() {
    let system = System::start().await;
    for (path, ..) in bodies() {
        let address = system
            .gateway
            .url()
            .trim_start_matches("http://")
            .to_owned();
        let posted = tokio::task::spawn_blocking(move || post_in_halves(&address, path));
        let (early, answer) = posted.await.unwrap().unwrap();
        assert!(!early, "a caller that is still writing would not read this");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("\"too_large\""), "{answer}");
    }
}

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
async fn an_inbound_text_may_fill_the_whole_body() {
    let system = System::start().await;
    let room = 64 * 1024 - with(hello(), "text", "").to_string().len();
    let text = "x".repeat(room);
    let receipt = system
        .client
        .webhook(&with(hello(), "text", &*text))
        .await
        .expect(200);
    let message = system.message(receipt["messageId"].as_str().unwrap()).await;
    assert_eq!(message["text"], text);
    let answer = system.client.webhook(&with(hello(), "text", "")).await;
    assert_eq!(answer.fields(), ["text"]);
}

#[tokio::test]
async fn only_json_is_taken_in() {
    let system = System::start().await;
    for (path, body, success) in bodies() {
        let before = rows(&system).await;
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonp"),
            Some(""),
        ] {
            let answer = post_as(&system.client, path, content_type, body.to_string()).await;
            answer.expect_problem(415, "unsupported_media_type");
        }
        assert_eq!(rows(&system).await, before);
        let content_type = Some("application/json; charset=utf-8");
        post_as(&system.client, path, content_type, body.to_string())
            .await
            .expect(success);
        let again = post_as(
            &system.client,
            path,
            Some("Application/JSON"),
            body.to_string(),
        )
        .await;
        again.expect(200);
    }
}

#[tokio::test]
async fn what_is_not_a_json_object_is_invalid() {
    let system = System::start().await;
    let deep = "[".repeat(10_000);
    for (path, body, _) in bodies() {
        let good = body.to_string();
        let (start, end) = good.split_at(good.find("user").unwrap());
        for body in [
            &b""[..],
            b" ",
            b"{",
            b"nonsense",
            b"null",
            b"true",
            b"1",
            b"\"text\"",
            b"[]",
            format!("[{good}]").as_bytes(),
            deep.as_bytes(),
            format!("{{\"unknown\": {deep}").as_bytes(),
            &good.as_bytes()[1..],
            &good.as_bytes()[..good.len() - 1],
            format!("{good}x").as_bytes(),
            format!("{good}{good}").as_bytes(),
            // Not Unicode.
            &[start.as_bytes(), &[0xfc], end.as_bytes()].concat(),
            // The fields' values alone, in the order in which they are read.
            br#"["evt_1", "whatsapp", "user-1", "Hello", "2025-01-01T10:00:00Z"]"#,
            br#"["whatsapp", "user-1", "Hi", "order-1"]"#,
        ] {
            let answer = post_raw(&system.client, path, body.to_vec()).await;
            answer.expect_problem(400, "invalid_request");
        }
    }
    assert_eq!(rows(&system).await, 0);
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
async fn a_field_that_is_there_twice_is_invalid() {
    let system = System::start().await;
    for (path, body, _) in bodies() {
        for (field, value) in body.as_object().unwrap() {
            let twice = body
                .to_string()
                .replacen('{', &format!("{{\"{field}\":{value},"), 1);
            let answer = post_raw(&system.client, path, twice).await;
            assert_eq!(answer.fields(), [field.as_str()]);
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
    let body = with(hello(), "metadata", json!({ "text": [1, null] }));
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
            .webhook(&with(hello(), "timestamp", bad))
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

#[tokio::test]
async fn a_bad_query_parameter_is_named() {
    let system = System::start().await;
    let message = system.send("user-1", "Hi").await;
    let thread = format!(
        "/conversations/{}",
        message["conversationId"].as_str().unwrap()
    );
    let inbox = "/conversations";
    let unsent = "/messages?status=FAILED";
    for (path, names, values) in [
        (
            inbox,
            &["page"][..],
            &["0", "-1", "abc", "1.5", "", "99999999999999999999"][..],
        ),
        (inbox, &["limit"], &["0", "101", "-1", "abc", ""]),
        (inbox, &["channel"], &["sms", "WhatsApp", "", "%ff"]),
        (inbox, &["status"], &["OPEN", "archived", ""]),
        (inbox, &["archived"], &["1", "yes", "TRUE", ""]),
        (&thread, &["page"], &["0", "abc"]),
        (&thread, &["limit"], &["0", "201", "abc"]),
        (unsent, &["limit"], &["0", "101", "abc"]),
        (unsent, &["channel"], &["sms"]),
        (
            "/messages",
            &["status"],
            &["SENT", "RECEIVED", "failed", ""],
        ),
    ] {
        let mark = if path.contains('?') { '&' } else { '?' };
        for value in values {
            let answer = system
                .client
                .get(&format!("{path}{mark}{}={value}", names[0]))
                .await;
            assert_eq!(answer.fields(), names, "{path} {value}");
        }
    }
    assert_eq!(system.client.get("/messages").await.fields(), ["status"]);
}

#[tokio::test]
async fn bad_query_parameters_are_named_together_and_unknown_ones_ignored() {
    let system = System::start().await;
    let bad = "page=abc&limit=101&channel=sms&status=new&archived=maybe";
    let answer = system.client.get(&format!("/conversations?{bad}")).await;
    assert_eq!(
        answer.fields(),
        ["archived", "channel", "limit", "page", "status"]
    );
    let answer = system.client.get("/messages?limit=0&channel=sms").await;
    assert_eq!(answer.fields(), ["channel", "limit", "status"]);

    for good in [
        "/conversations?colour=blue&page=1000&limit=100&channel=instagram&status=closed&archived=true",
        "/conversations?page=1&limit=1&%20&=",
        "/messages?status=PENDING&limit=1&page=abc",
        "/messages?status=FAILED&limit=100&channel=whatsapp",
    ] {
        system.client.get(good).await.expect(200);
    }
    for (path, names) in [
        ("/conversations?limit=1&limit=2", &["limit"][..]),
        (
            "/conversations?limit=1&page=1&%6cimit=1&page=0",
            &["limit", "page"],
        ),
        (
            "/conversations?channel=sms&archived=true&archived=true",
            &["archived", "channel"],
        ),
        (
            "/conversations?colour=red&colour=blue&cursor=a&cursor=b",
            &["cursor"],
        ),
        ("/messages?status=FAILED&status=FAILED", &["status"]),
        (
            "/messages?channel=whatsapp&channel=whatsapp",
            &["channel", "status"],
        ),
    ] {
        assert_eq!(system.client.get(path).await.fields(), names, "{path}");
    }
    system
        .client
        .get("/conversations?colour=red&colour=blue")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_cursor_is_one_that_the_list_has_given() {
    let system = System::start().await;
    let message = system.send("user-1", "Hi").await;
    let thread = format!(
        "/conversations/{}",
        message["conversationId"].as_str().unwrap()
    );
    let hex = "0006".to_owned() + &"a".repeat(44);
    let latest = "7".to_owned() + &"f".repeat(47);
    for path in ["/conversations", &thread] {
        system
            .client
            .get(&format!("{path}?cursor={hex}"))
            .await
            .expect(200);
        for cursor in [
            "",
            "x",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace('a', "g"),
            &latest,
            "%00",
        ] {
            let answer = system.client.get(&format!("{path}?cursor={cursor}")).await;
            assert_eq!(answer.fields(), ["cursor"], "{cursor}");
        }
        let answer = system
            .client
            .get(&format!("{path}?page=1&cursor={hex}"))
            .await;
        assert_eq!(answer.fields(), ["cursor"]);
    }
    let conversation_id = message["conversationId"].as_str().unwrap();
    for cursor in ["", "x", &hex, conversation_id] {
        let answer = system
            .client
            .get(&format!("/messages?status=FAILED&cursor={cursor}"))
            .await;
        assert_eq!(answer.fields(), ["cursor"], "{cursor}");
    }
}

#[tokio::test]
async fn what_has_not_failed_cannot_be_retried_and_what_is_over_cannot_be_canceled() {
    let system = System::start().await;
    let receipt = system.client.webhook(&hello()).await.expect(200);
    let sent = system.send("user-1", "Hi").await;
    assert_eq!(sent["status"], "SENT");
    for id in [&receipt["messageId"], &sent["id"]] {
        let id = id.as_str().unwrap();
        let before = system.message(id).await;
        for (verb, code) in [("retry", "not_failed"), ("cancel", "not_cancelable")] {
            let path = format!("/messages/{id}/{verb}");
            request(&system.client, Method::POST, &path)
                .await
                .expect_problem(409, code);
        }
        assert_eq!(system.message(id).await, before);
    }
}

#[tokio::test]
async fn a_request_id_of_visible_ascii_is_echoed_and_any_other_replaced() {
    let system = System::start().await;
    let longest = "x".repeat(128);
    let with_id = async |path: &str, id: &[u8]| {
        let request = system
            .client
            .http
            .get(system.client.url(path))
            .header("x-request-id", id);
        let answer = system.client.call(request).await.unwrap();
        answer.header("x-request-id").unwrap().to_owned()
    };
    for path in [
        "/health",
        "/conversations",
        "/nothing",
        "/conversations?page=0",
        "/api/openapi.json",
    ] {
        for id in ["x", "!~\"{}", &longest] {
            assert_eq!(with_id(path, id.as_bytes()).await, id, "{path}");
        }
        for id in ["", "a b", "ş", &format!("{longest}x")] {
            let made = with_id(path, id.as_bytes()).await;
            assert!(made.starts_with("req_") && made.len() == 36, "{made}");
            assert_ne!(
                made,
                with_id(path, id.as_bytes()).await,
                "one id for two requests"
            );
        }
    }
}

#[tokio::test]
async fn a_refused_webhook_is_counted_and_logged_with_its_event_and_request() {
    let system = System::start().await;
    let body = with(with(hello(), "eventId", "evt_refused"), "channel", "sms");
    let request = system
        .client
        .http
        .post(system.client.url("/webhooks/mock-meta"));
    let request = request.header("x-request-id", "trace-1").json(&body);
    system
        .client
        .call(request)
        .await
        .unwrap()
        .expect_problem(400, "invalid_request");

    let line = system.gateway.logged("a webhook was refused").await;
    assert_eq!(line["event_id"], "evt_refused", "{line}");
    assert_eq!(line["span"]["request_id"], "trace-1", "{line}");
    assert_eq!(line["code"], "invalid_request", "{line}");

    post_raw(&system.client, "/webhooks/mock-meta", "nonsense")
        .await
        .expect(400);
    post_raw(&system.client, "/webhooks/mock-meta", " ".repeat(65_537))
        .await
        .expect(413);
    let metrics = system.client.get("/metrics").await.text;
    assert!(
        metrics.contains("gateway_webhook_events_total{result=\"refused\"} 3"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_request_id_is_in_the_log_of_the_attempt_that_the_request_began() {
    let system = System::start().await;
    let request = system.client.http.post(system.client.url("/messages/send"));
    let request = request.header("x-request-id", "trace-2").json(&outbound());
    system.client.call(request).await.unwrap().expect(201);
    let line = system.gateway.logged("sent").await;
    assert_eq!(line["spans"][0]["request_id"], "trace-2", "{line}");
}

const TEXT: &str = "nobody-may-read-this";

/// Requests with the text in them: good, refused for this or that, and one that only the database refuses.
fn requests_with_the_text() -> Vec<(&'static str, String)> {
    let mut requests = Vec::new();
    for (path, body, _) in bodies() {
        let text = |text: Value| with(with(body.clone(), "to", "user-2"), "text", text);
        let poison = format!("poison {TEXT}");
        let poisoned = with(text(json!(poison)), "eventId", "evt_2");
        requests.extend([
            (
                path,
                with(poisoned, "clientMessageId", "order-2").to_string(),
            ),
            (path, text(json!(TEXT)).to_string()),
            (path, text(json!([TEXT])).to_string()),
            (path, text(json!(format!("{TEXT}\0"))).to_string()),
            (path, with(text(json!(TEXT)), "channel", "sms").to_string()),
            (path, with(text(json!(TEXT)), "channel", 1).to_string()),
            (path, format!("\"{TEXT}\"")),
            (path, format!("[\"{TEXT}\", 1]")),
            (path, format!("{{\"text\": \"{TEXT}")),
            (
                path,
                format!("{{\"text\": \"{TEXT}\", \"text\": \"{TEXT}\"}}"),
            ),
        ]);
    }
    requests
}

#[tokio::test]
async fn a_text_is_never_logged_nor_repeated_in_an_error() {
    let mut system = System::with(&[("RUST_LOG", "debug")]).await;
    // Something that no validation of ours can know: PostgreSQL's own error shows the row.
    let poison = "alter table messages add constraint no_poison check (text not like 'poison%')";
    system.database.execute(poison).await;
    system
        .mock
        .script("user-2", [mock_meta_provider::Fault::Reject]);
    for (path, body) in requests_with_the_text() {
        let answer = post_raw(&system.client, path, body).await;
        assert!(
            answer.status < 300 || !answer.text.contains(TEXT),
            "{}",
            answer.text
        );
    }
    system.gateway.terminate().await;
    system.gateway.logged("stopping").await;
    let log = system.gateway.log();
    for said in [
        "a webhook was refused",
        "a row could not be written",
        "a message has failed for good",
    ] {
        assert!(log.iter().any(|line| line.contains(said)), "{said}");
    }
    let told: Vec<_> = log.iter().filter(|line| line.contains(TEXT)).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test]
async fn a_conversation_that_somebody_else_holds_locked_is_answered_with_a_time_to_come_back() {
    let system = System::start().await;
    system.client.webhook(&hello()).await.expect(200);
    let mut blocker = system.database.pool().acquire().await.unwrap();
    let lock = "begin; select from conversations for update";
    sqlx::raw_sql(lock).execute(&mut *blocker).await.unwrap();
    let second = with(hello(), "eventId", "evt_2");
    system
        .client
        .webhook(&second)
        .await
        .expect_problem(503, "database_unavailable");
    let line = system.gateway.logged("a request was not carried out").await;
    assert_eq!(line["span"]["event_id"], "evt_2", "{line}");
    system
        .client
        .post("/messages/send", &outbound())
        .await
        .expect_problem(503, "database_unavailable");

    sqlx::raw_sql("rollback")
        .execute(&mut *blocker)
        .await
        .unwrap();
    assert_eq!(
        system.client.webhook(&second).await.expect(200)["duplicate"],
        false
    );
    system
        .client
        .post("/messages/send", &outbound())
        .await
        .expect(201);
}

#[tokio::test]
async fn a_gateway_without_a_database_is_alive_but_not_ready() {
    let gateway = Program::new("serve")
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .env("PROVIDER_URL", "http://127.0.0.1:1")
        .start();
    gateway.logged("listening").await;
    let client = Client::new(gateway.url());
    client.get("/health").await.expect(200);
    for path in ["/ready", "/conversations", "/metrics"] {
        client
            .get(path)
            .await
            .expect_problem(503, "database_unavailable");
    }
    client
        .webhook(&hello())
        .await
        .expect_problem(503, "database_unavailable");
}

#[tokio::test]
async fn a_gateway_that_lacks_a_migration_is_not_ready_and_says_so() {
    let system = System::start().await;
    system.client.get("/ready").await.expect(200);
    system
        .database
        .execute("update _sqlx_migrations set success = false where version = 1")
        .await;
    // A look is up to a second old.
    let answer = eventually("it is not ready", async || {
        let answer = system.client.get("/ready").await;
        (answer.status != 200).then_some(answer)
    });
    let problem = answer.await.expect_problem(503, "database_unavailable");
    assert!(
        problem["detail"].as_str().unwrap().contains("migrations"),
        "{problem}"
    );
    system
        .database
        .execute("update _sqlx_migrations set success = true")
        .await;
    eventually("it is ready again", async || {
        (system.client.get("/ready").await.status == 200).then_some(())
    })
    .await;
}
