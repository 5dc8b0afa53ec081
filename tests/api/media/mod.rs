//! Files of messages: fetched from the provider, checked, and handed out so that no page is harmed.

mod host;

use axum::response::IntoResponse;
use futures_util::future::join_all;
use serde_json::{Value, json};

use self::host::{GRAPH, Host, TOKEN, answered, found, hanging, in_pieces, refused};
use crate::support::whatsapp::{ANN, APP_SECRET, CONNECTED, NUMBER_ID, deletion, item, messages};
use crate::support::{ALL_LINES, Answer, System, hello, signature};

const PNG: &[u8] = b"\x89PNG\r\n\x1A\nand what follows";

/// A gateway whose Graph is this host, with these variables.
async fn system_with(host: &Host, environment: &[(&str, &str)]) -> System {
    let graph = [("GRAPH_URL", &*host.url), ALL_LINES];
    System::with(&[&CONNECTED[..], &graph, environment].concat()).await
}

async fn system(host: &Host) -> System {
    system_with(host, &[]).await
}

/// Has a customer send a message of this type; its id.
async fn stored(system: &System, kind: &str, content: &Value) -> String {
    let wamid = format!("wamid.{}", uuid::Uuid::now_v7().simple());
    let message = item(&wamid, ANN, 0, kind, content.clone());
    system.receives(&[message]).await;
    system.id_of(&wamid).await
}

async fn get(system: &System, id: &str) -> Answer {
    system.client.get(&format!("/messages/{id}/media")).await
}

/// What comes of a file whose answer breaks off: less than all of it, and no end.
async fn broken(system: &System, id: &str) -> Vec<u8> {
    let url = system.client.url(&format!("/messages/{id}/media"));
    let mut response = system.client.http.get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => panic!("it has an end, after {} bytes", bytes.len()),
            Err(_) => return bytes,
        }
    }
}

/// A system with the one file of a host, and the message that has it.
async fn with_message(host: &Host, kind: &str, content: &Value) -> (System, String) {
    let system = system(host).await;
    let id = stored(&system, kind, content).await;
    (system, id)
}

#[tokio::test]
async fn a_picture_is_passed_on_with_its_type_and_the_headers_that_keep_pages_safe() {
    let host = Host::with_file("image/png", PNG).await;
    let content = json!({ "id": "1", "mime_type": "image/png", "caption": "a\u{202E}b" });
    let (system, id) = with_message(&host, "image", &content).await;
    let answer = get(&system, &id).await;
    assert_eq!(
        (answer.status, answer.text.as_bytes()),
        (
            200,
            &*String::from_utf8_lossy(PNG).into_owned().into_bytes()
        )
    );
    for (name, value) in [
        ("content-type", Some("image/png")),
        ("content-length", Some(&*PNG.len().to_string())),
        ("content-disposition", None),
        (
            "content-security-policy",
            Some("default-src 'none'; sandbox"),
        ),
        ("cache-control", Some("private, no-store")),
        ("x-content-type-options", Some("nosniff")),
        ("cross-origin-resource-policy", Some("same-origin")),
        ("set-cookie", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let calls = host.calls();
    let proof = signature(APP_SECRET, TOKEN);
    let proof = proof.strip_prefix("sha256=").unwrap();
    let paths: Vec<&str> = calls.iter().map(|call| &*call.path).collect();
    let graph = format!("{GRAPH}?appsecret_proof={proof}&phone_number_id={NUMBER_ID}");
    assert_eq!(paths, [&*graph, "/file?ext=1"]);
    for call in calls {
        assert_eq!(call.authorization, Some(format!("Bearer {TOKEN}")));
        assert!(call.user_agent.unwrap().starts_with("gateway/"));
    }
    // It has a line of its own, and none has the token.
    let line = system.gateway.logged("a file is passed on").await;
    assert_eq!(line["message_id"], id);
    assert!(!system.gateway.log().concat().contains(TOKEN));
}

#[tokio::test]
async fn what_no_page_is_to_show_is_an_attachment_of_bytes() {
    let html = b"<!doctype html><script>alert(1)</script>";
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>";
    for (kind, file, name, expected, disposition) in [
        (
            "application/pdf",
            &b"%PDF-1.7 and more"[..],
            json!("Rechnung Nr. 7.pdf"),
            "application/pdf",
            "attachment; filename=\"Rechnung_Nr._7.pdf\"",
        ),
        (
            "text/html",
            html,
            json!("a\"\r\nx: y.html"),
            "application/octet-stream",
            "attachment; filename=\"a___x__y.html\"",
        ),
        (
            "image/svg+xml",
            svg,
            json!("x.svg"),
            "application/octet-stream",
            "attachment; filename=\"x.svg\"",
        ),
        (
            "image/png",
            html,
            json!(null),
            "application/octet-stream",
            "attachment; filename=\"file\"",
        ),
    ] {
        let host = Host::with_file(kind, file).await;
        let content = json!({ "id": "1", "mime_type": kind, "filename": name });
        let (system, id) = with_message(&host, "document", &content).await;
        let answer = get(&system, &id).await;
        assert_eq!((answer.status, answer.text.as_bytes()), (200, file));
        assert_eq!(answer.header("content-type"), Some(expected));
        assert_eq!(answer.header("content-disposition"), Some(disposition));
        assert_eq!(
            answer.header("content-security-policy"),
            Some("default-src 'none'; sandbox")
        );
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_its_hash_says_breaks_off_before_its_end() {
    let pieces = || vec![vec![b'a'; 100_000], vec![b'b'; 10], vec![b'c'; 70_000]];
    for is_right in [true, false] {
        let host = Host::start(move |asked| match &*asked.path {
            GRAPH => {
                let mut file = pieces().concat();
                file[50_000] = if is_right { b'a' } else { b'x' };
                asked.found("audio/ogg", &file)
            }
            _ => in_pieces(pieces()),
        })
        .await;
        let content = json!({ "id": "1", "mime_type": "audio/ogg; codecs=opus", "voice": true });
        let (system, id) = with_message(&host, "audio", &content).await;
        if is_right {
            let answer = get(&system, &id).await;
            assert!((answer.status, answer.text.into_bytes()) == (200, pieces().concat()));
        } else {
            let bytes = broken(&system, &id).await;
            assert!(bytes.len() < 170_010 && pieces().concat().starts_with(&bytes));
            let line = system
                .gateway
                .logged("a file broke off, and so does the answer")
                .await;
            assert_eq!(
                (&line["message_id"], &line["error"]),
                (&json!(id), &json!("it is not what its hash says"))
            );
        }
    }
    // One that comes in one piece, and says how long it is: nothing of it is passed on.
    let host = Host::start(|asked| match &*asked.path {
        GRAPH => asked.found("image/png", b"another"),
        _ => PNG.into_response(),
    })
    .await;
    let (system, id) = with_message(&host, "image", &json!({ "id": "1" })).await;
    let problem = get(&system, &id)
        .await
        .expect_problem(502, "provider_failed");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.ends_with("it is not what its hash says"), "{detail}");
    system.client.get("/health").await.expect(200);
}

#[tokio::test]
async fn no_other_address_is_called_whatever_graph_says_and_no_redirect_is_followed() {
    let other = Host::with_file("image/png", PNG).await;
    let elsewhere = other.url.clone();
    let host = Host::start(move |asked| {
        let to = |url: &str| answered(200, &found(url, "image/png", PNG));
        match &*asked.path {
            "/v26.0/1" => to(&format!("{elsewhere}/file")),
            "/v26.0/2" => to("https://lookaside.fbsbx.com/file"),
            "/v26.0/3" => to(&asked.base.replace("http://", "http://me@")),
            "/v26.0/4" => to("file:///etc/passwd"),
            "/v26.0/5" => to(&format!("{}/moved", asked.base)),
            "/v26.0/6" => {
                let location = [("location", format!("{elsewhere}/v26.0/1"))];
                (axum::http::StatusCode::FOUND, location).into_response()
            }
            "/v26.0/7" => answered(200, "no JSON"),
            "/v26.0/8" => answered(200, &json!({ "url": format!("{}/file", asked.base) })),
            _ => {
                let location = [("location", format!("{elsewhere}/file"))];
                (axum::http::StatusCode::TEMPORARY_REDIRECT, location).into_response()
            }
        }
    })
    .await;
    let system = system(&host).await;
    for id in 1..=8 {
        let id = stored(&system, "image", &json!({ "id": id.to_string() })).await;
        get(&system, &id)
            .await
            .expect_problem(502, "provider_failed");
    }
    assert!(other.calls().is_empty(), "{:?}", other.calls());
}

#[tokio::test]
async fn an_address_that_is_stale_is_asked_for_once_more() {
    let host = Host::start(|asked| match (&*asked.path, asked.before) {
        (GRAPH, _) => asked.found("image/png", PNG),
        (_, 1) => PNG.into_response(),
        _ => answered(404, ""),
    })
    .await;
    let (system, id) = with_message(&host, "sticker", &json!({ "id": "1" })).await;
    get(&system, &id).await.expect(200);
    assert_eq!(host.calls().len(), 4);
    get(&system, &id).await.expect_problem(404, "not_found");
    assert_eq!(host.calls().len(), 8);
}

#[tokio::test]
async fn what_graph_refuses_has_a_problem_that_says_why_and_not_more() {
    let host = Host::start(|asked| match &*asked.path {
        "/v26.0/190" => refused(401, 190),
        "/v26.0/100" => refused(400, 100),
        "/v26.0/4" => refused(400, 4),
        "/v26.0/131000" => refused(500, 131_000),
        "/v26.0/5" => answered(503, TOKEN),
        "/v26.0/6" => {
            let mut found = found(&format!("{}/file", asked.base), "image/png", PNG);
            found["file_size"] = json!(100 * 1024 * 1024 + 1);
            answered(200, &found)
        }
        "/v26.0/7" => asked.found("image/png", PNG),
        _ => answered(403, TOKEN),
    })
    .await;
    let system = system(&host).await;
    for (id, status, code, says) in [
        (
            190,
            502,
            "provider_failed",
            "refuses the access token (code 190)",
        ),
        (100, 404, "not_found", "Meta has no such file"),
        (4, 503, "overloaded", "throttles"),
        (131_000, 502, "provider_failed", "500 (code 131000)"),
        (5, 502, "provider_failed", "503"),
        (6, 502, "provider_failed", "larger than 100 MiB"),
        (7, 502, "provider_failed", "its address answers 403"),
    ] {
        let message = stored(&system, "video", &json!({ "id": id.to_string() })).await;
        let answer = get(&system, &message).await;
        let problem = answer.expect_problem(status, code);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says) && !detail.contains(TOKEN), "{detail}");
    }
    assert!(!system.gateway.log().concat().contains(TOKEN));
}

#[tokio::test]
async fn an_endless_file_ends_at_the_limit_and_nothing_of_it_is_kept() {
    let host = Host::start(|asked| match &*asked.path {
        GRAPH => asked.found("video/mp4", PNG),
        _ => in_pieces(vec![vec![b'x'; 1024 * 1024]; 102]),
    })
    .await;
    let (system, id) = with_message(&host, "video", &json!({ "id": "1" })).await;
    let before = system.gateway.peak_memory_mib();
    let bytes = broken(&system, &id).await;
    assert!(bytes.len() <= 100 * 1024 * 1024, "{}", bytes.len());
    let line = system
        .gateway
        .logged("a file broke off, and so does the answer")
        .await;
    assert_eq!(line["error"], "it is larger than 100 MiB");
    let grown = system.gateway.peak_memory_mib() - before;
    assert!(grown < 30, "{grown} MiB");
}

#[tokio::test]
async fn a_key_has_four_files_on_their_way_and_another_key_its_own() {
    let host = Host::start(|asked| match &*asked.path {
        GRAPH => asked.found("image/png", PNG),
        _ => hanging(&PNG.repeat(4000)),
    })
    .await;
    let keys = [
        "desk:desk-key-of-16-or-more:inbox",
        "other:other-key-of-16-or-more:inbox",
        "shop:shop-key-of-16-or-more:send",
    ];
    let system = system_with(&host, &[("API_KEYS", &keys.join(","))]).await;
    let id = stored(&system, "image", &json!({ "id": "1" })).await;
    let begin = async |key: &str| {
        let url = system.client.url(&format!("/messages/{id}/media"));
        let call = system
            .client
            .http
            .get(url)
            .bearer_auth(format!("{key}-key-of-16-or-more"));
        call.send().await.unwrap()
    };
    let mut on_their_way = join_all((0..4).map(|_| begin("desk"))).await;
    assert!(on_their_way.iter().all(|answer| answer.status() == 200));
    let fifth = begin("desk").await;
    assert_eq!(fifth.status(), 503);
    assert!(fifth.headers().contains_key("retry-after"));
    assert_eq!(begin("other").await.status(), 200);
    // Who may only send sees none of it.
    assert_eq!(begin("shop").await.status(), 403);
    on_their_way.pop();
    assert_eq!(begin("desk").await.status(), 200);
}

#[tokio::test]
async fn a_message_without_a_file_of_metas_is_not_found_and_nothing_is_called() {
    let host = Host::with_file("image/png", PNG).await;
    let system = system(&host).await;
    let file = json!({ "id": "1" });
    let mut ids = vec![
        stored(&system, "text", &json!({ "body": "x", "id": "1" })).await,
        stored(&system, "contacts", &json!([file])).await,
        stored(&system, "image", &json!({ "link": "https://a/b.png" })).await,
        stored(&system, "image", &json!({ "id": "../me/accounts" })).await,
        stored(&system, "image", &json!({ "id": "1?fields=access_token" })).await,
        stored(&system, "image", &json!({ "id": 1 })).await,
    ];
    // One that was deleted, and one of the other channel.
    let message = item("wamid.gone", ANN, 0, "image", file.clone());
    let deletion = deletion("wamid.deletion", ANN, 1, "wamid.gone");
    system
        .takes(&messages(&[message, deletion]), [2, 0, 0])
        .await;
    ids.push(system.id_of("wamid.gone").await);
    let mut hello = hello("evt_1");
    hello["channel"] = "instagram".into();
    let receipt = system.client.webhook(&hello).await.expect(200);
    ids.push(receipt["messageId"].as_str().unwrap().to_owned());
    let sql =
        r#"update messages set type = 'image', content = '{"id":"1"}' where channel = 'instagram'"#;
    system.database.execute(sql).await;
    ids.extend(["msg_01941f297c0070008000000000000001", "nonsense"].map(str::to_owned));
    for id in ids {
        get(&system, &id).await.expect_problem(404, "not_found");
    }
    assert!(host.calls().is_empty(), "{:?}", host.calls());
    // Where no number is connected, there are no files at all.
    let id = stored(&system, "image", &file).await;
    get(&system, &id).await.expect(200);
    let (_gateway, client) = system.another(&[]).await;
    let answer = client.get(&format!("/messages/{id}/media")).await;
    answer.expect_problem(404, "not_found");
}
