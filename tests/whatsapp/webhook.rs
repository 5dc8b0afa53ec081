//! The door: Meta's handshake and signature, and what goes in nowhere else.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::whatsapp::{
    ANN, APP_SECRET, CONNECTED, NUMBER_ID, VERIFY_TOKEN, WEBHOOK, body, change, messages, post,
    post_raw, start, text,
};
use crate::support::{ALL_LINES, Client, Database, Program, System, event, hello, rest, signature};

fn asking(mode: &str, token: &str, challenge: &str) -> String {
    format!("{WEBHOOK}?hub.mode={mode}&hub.verify_token={token}&hub.challenge={challenge}")
}

#[tokio::test]
async fn the_handshake_is_answered_with_the_bare_challenge_and_only_to_who_knows_a_token() {
    let tokens = "META_VERIFY_TOKEN";
    let both = format!("another-token-of-20,{VERIFY_TOKEN}");
    let settings = [CONNECTED.as_slice(), &[(tokens, &both), ALL_LINES]].concat();
    let system = System::with(&settings).await;
    let get = async |path: &str| system.client.get(path).await;
    for token in [VERIFY_TOKEN, "another-token-of-20"] {
        let answer = get(&asking("subscribe", token, "1158201444")).await;
        assert_eq!((answer.status, &*answer.text), (200, "1158201444"));
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/plain; charset=utf-8"));
    }
    let longest = "c".repeat(256);
    let odd = "%3Cb%3E%26%22~";
    assert_eq!(
        get(&asking("subscribe", VERIFY_TOKEN, &longest)).await.text,
        longest
    );
    assert_eq!(
        get(&asking("subscribe", VERIFY_TOKEN, odd)).await.text,
        "<b>&\"~"
    );

    for (mode, token) in [
        ("subscribe", "wrong"),
        ("subscribe", ""),
        ("unsubscribe", VERIFY_TOKEN),
        ("Subscribe", VERIFY_TOKEN),
    ] {
        let answer = get(&asking(mode, token, "1")).await;
        answer.expect_problem(403, "forbidden");
    }
    let good = asking("subscribe", VERIFY_TOKEN, "1");
    for (path, field) in [
        (WEBHOOK.to_owned(), "hub.mode"),
        (good.replace("&hub.challenge=1", ""), "hub.challenge"),
        (good.replace("hub.mode=subscribe&", ""), "hub.mode"),
        (format!("{good}&hub.challenge=2"), "hub.challenge"),
        (format!("{good}&hub.verify_token=x"), "hub.verify_token"),
        (format!("{good}&hub.mode=subscribe"), "hub.mode"),
        (asking("subscribe", VERIFY_TOKEN, ""), "hub.challenge"),
        (asking("subscribe", VERIFY_TOKEN, "a%20b"), "hub.challenge"),
        (asking("subscribe", VERIFY_TOKEN, "a%0Ab"), "hub.challenge"),
        (asking("subscribe", VERIFY_TOKEN, "%C3%A9"), "hub.challenge"),
        (format!("{good}{longest}"), "hub.challenge"),
    ] {
        assert_eq!(get(&path).await.fields(), [field], "{path}");
    }
    let metrics = get("/metrics").await.text;
    let log = system.gateway.log().join("\n");
    for said in [metrics, log] {
        assert!(
            !said.contains(VERIFY_TOKEN) && !said.contains("challenge"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_channel_takes_events_from_its_own_wire_alone() {
    let system = System::start().await;
    let get = system
        .client
        .get(&asking("subscribe", VERIFY_TOKEN, "1"))
        .await;
    get.expect_problem(404, "not_found");
    let answer = post(&system.client, &messages(&[text("w1", ANN, 0, "Hi")])).await;
    answer.expect_problem(404, "not_found");
    system.client.webhook(&hello("evt_1")).await.expect(200);

    let system = start().await;
    let answer = system.client.webhook(&hello("evt_1")).await;
    answer.expect_problem(403, "forbidden");
    let mut other = event("evt_2", "user-1", "Hello", "2025-01-01T10:00:00Z");
    other["channel"] = "instagram".into();
    system.client.webhook(&other).await.expect(200);
    system.receives(&[text("w1", ANN, 0, "Hi")]).await;
    assert_eq!(system.participants().await, [ANN, "user-1"]);
}

#[tokio::test]
async fn where_whatsapp_alone_is_connected_the_plain_wire_takes_nothing() {
    let database = Database::new().await;
    let gateway = Program::new("serve")
        .env("DATABASE_URL", database.url())
        .envs(&CONNECTED)
        .start();
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    let answer = client.webhook(&hello("evt_1")).await;
    answer.expect_problem(404, "not_found");
    let hi = messages(&[text("w1", ANN, 0, "Hi")]);
    assert_eq!(post(&client, &hi).await.expect(200)["received"], 1);
}

#[tokio::test]
async fn only_what_one_of_the_apps_secrets_has_signed_is_taken_in_and_the_raw_body_is_signed() {
    let secrets = format!("{APP_SECRET}, another-app-secret");
    let settings = [CONNECTED.as_slice(), &[("META_APP_SECRET", &secrets)]].concat();
    let system = System::with(&settings).await;
    // Non-ASCII text is escaped, as Meta does; blanks are anywhere.
    let body = messages(&[text("w1", ANN, 0, "e")]).to_string();
    let body = body.replace("\"e\"", "\"\\u00e9\"").replace(',', " , ");
    let good = signature(APP_SECRET, &body);
    let signed = async |signature: &str, body: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("x-hub-signature-256", signature),
        ];
        system
            .client
            .ask("POST", WEBHOOK, &headers, body.to_owned())
            .await
    };
    for bad in [
        "",
        "sha256=",
        &signature("a-third-secret", &body),
        &signature(&secrets, &body),
        &signature(APP_SECRET, &body.replace(" , ", ",")),
        &good.replace("sha256=", "sha1="),
        &good[..good.len() - 1],
    ] {
        let answer = signed(bad, &body).await;
        answer.expect_problem(401, "invalid_signature");
    }
    let nothing = "select count(*) from webhook_events";
    assert_eq!(system.database.count(nothing).await, 0);
    signed(&good, &body).await.expect(200);
    assert_eq!(system.texts(ANN).await, ["é"]);
    let other = signature("another-app-secret", &body);
    assert_eq!(signed(&other, &body).await.expect(200)["duplicates"], 1);
}

#[tokio::test]
async fn who_has_no_well_formed_signature_is_answered_before_the_body_is_read() {
    let system = start().await;
    for signature in ["", "X-Hub-Signature-256: sha256=abc\r\n"] {
        let mut connection = system.client.connect().await;
        let head = format!(
            "POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{signature}Content-Length: 4000000\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
}

#[tokio::test]
async fn a_signed_body_that_is_no_object_is_kept_and_answered_200() {
    let system = start().await;
    let nothing = json!({ "received": 0, "duplicates": 0, "ignored": 0 });
    for odd in [
        "nonsense",
        "",
        "null",
        "[]",
        "12",
        "\"text\"",
        "{\"object\":",
    ] {
        assert_eq!(
            post_raw(&system.client, odd).await.expect(200),
            nothing,
            "{odd}"
        );
    }
    let line = system
        .gateway
        .logged("a signed webhook is no JSON object: it is kept as it came")
        .await;
    assert_eq!(line["length"], "nonsense".len(), "{line}");
    let kept = "select count(*) from unreadable_webhooks";
    assert_eq!(system.database.count(kept).await, 7);
    for n in 0..100 {
        post_raw(&system.client, format!("number {n}"))
            .await
            .expect(200);
    }
    assert_eq!(system.database.count(kept).await, 100);
    let newest = "select count(*) from unreadable_webhooks where body = 'number 99'";
    assert_eq!(system.database.count(newest).await, 1);
    assert_eq!(
        system.client.get("/conversations").await.expect(200)["data"],
        json!([])
    );
}

#[tokio::test]
async fn what_is_not_for_this_number_or_no_message_is_counted_and_left_alone() {
    let system = start().await;
    let mut other = change(
        "messages",
        json!({ "messages": [text("w1", ANN, 0, "Hi")] }),
    );
    other["value"]["metadata"]["phone_number_id"] = "999".into();
    let mine = change(
        "messages",
        json!({ "messages": [text("w2", ANN, 1, "Mine")] }),
    );
    let template = change(
        "message_template_status_update",
        json!({ "event": "APPROVED" }),
    );
    let mut group = text("w3", ANN, 2, "To all");
    group["group_id"] = "group-1".into();
    let group = change("messages", json!({ "messages": [group] }));
    let all = body(&[other, template, group, mine]);
    system.takes(&all, [4, 0, 3]).await;
    assert_eq!(system.texts(ANN).await, ["Mine"]);
    let metrics = system.client.get("/metrics").await.text;
    for item in ["other_number", "other_field", "group", "message"] {
        let line = format!("gateway_whatsapp_items_total{{item=\"{item}\"}} 1");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert!(!NUMBER_ID.is_empty());
}

#[tokio::test]
async fn a_body_of_three_megabytes_is_taken_and_one_beyond_four_is_too_large() {
    let system = start().await;
    let long = "x".repeat(3 * 1024 * 1024);
    system.receives(&[text("w1", ANN, 0, &long)]).await;
    // What somebody reads of it is its begin; the body is kept as it came.
    let texts = system.texts(ANN).await;
    assert!(texts[0].starts_with(&long[..4096]), "{}", texts[0].len());
    let kept = "select max(length(body)) from webhook_bodies";
    let kept = format!("select ({kept})::bigint");
    assert!(system.database.count(&kept).await > 3 * 1024 * 1024);
    let longer = "x".repeat(4 * 1024 * 1024);
    let answer = post(&system.client, &messages(&[text("w2", ANN, 0, &longer)])).await;
    answer.expect_problem(413, "too_large");
}
