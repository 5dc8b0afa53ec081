//! What strangers try: it leaves a trace, they do not write the log with it, and it tells them nothing.

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::openapi::ROUTES;
use crate::support::{Answer, Client, Database, Program, System, event, eventually, mock, serve};

const KEY: &str = "a-key-of-16-or-more";
const SECRET: &str = "a-secret-of-16-or-more";
const WEBHOOK: &str = "/webhooks/mock-meta";

fn hello(id: &str) -> String {
    event(id, "user-1", "Hello", "2025-01-01T10:00:00Z").to_string()
}

/// A request with these headers, and a body that fits where there can be one.
async fn ask(client: &Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client.http.request(method, client.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if path == WEBHOOK || path == "/messages/send" {
        let body = json!({
            "channel": "whatsapp", "to": "user-1", "text": "Hi",
            "eventId": "evt_1", "from": "user-1", "timestamp": "2025-01-01T10:00:00Z",
        });
        request = request.json(&body);
    }
    client.call(request).await.unwrap()
}

/// The lines of its log with this message.
fn said(gateway: &Program, message: &str) -> Vec<Value> {
    let lines = gateway.log().into_iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

async fn failures(client: &Client, kind: &str) -> u64 {
    let metrics = ask(
        client,
        "GET",
        "/metrics",
        &[("authorization", &format!("Bearer {KEY}"))],
    )
    .await;
    let name = format!("gateway_auth_failures_total{{kind=\"{kind}\"}} ");
    let line = metrics
        .text
        .lines()
        .find_map(|line| line.strip_prefix(&name))
        .map(str::to_owned);
    line.map_or(0, |count| count.parse().unwrap())
}

/// That these failures are counted, and said at once with an address, but not each.
async fn assert_seen(system: &System, kind: &str, count: u64) {
    assert_eq!(failures(&system.client, kind).await, count, "{kind}");
    let lines = || {
        let mut lines = said(&system.gateway, "a caller did not prove who it is");
        lines.retain(|line| line["kind"] == kind);
        lines
    };
    let lines = eventually(kind, async || {
        Some(lines()).filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!(lines[0]["level"], "WARN", "{lines:?}");
    assert!(
        lines[0]["client"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:"),
        "{lines:?}"
    );
    assert_eq!(lines[0]["passed_over"], 0, "{lines:?}");
    // One more each 2, 4, 8 … seconds, however busy this machine is.
    assert!(lines.len() < 10, "{lines:?}");
}

#[tokio::test]
async fn who_guesses_keys_is_seen_with_an_address_and_does_not_write_the_log() {
    let keys = format!("ops:{KEY},desk:desk-key-of-16-or-more:inbox");
    let system = System::with(&[("API_KEYS", &keys), ("WEBHOOK_SECRET", SECRET)]).await;
    for n in 0..100 {
        let guess = format!("Bearer guess-{n}");
        ask(
            &system.client,
            "GET",
            "/conversations",
            &[("authorization", &guess)],
        )
        .await
        .expect(401);
    }
    for path in ["/conversations", "/metrics", "/messages/send"] {
        let method = if path == "/messages/send" {
            "POST"
        } else {
            "GET"
        };
        ask(&system.client, method, path, &[]).await.expect(401);
    }
    let desk = [("authorization", "Bearer desk-key-of-16-or-more")];
    ask(&system.client, "GET", "/metrics", &desk)
        .await
        .expect(403);
    assert_seen(&system, "wrong_key", 100).await;
    assert_seen(&system, "missing_key", 3).await;
    assert_seen(&system, "missing_scope", 1).await;
    let log = system.gateway.log().concat();
    assert!(
        !log.contains("guess-"),
        "a guess may be nearly right: {log}"
    );
}

#[tokio::test]
async fn webhooks_that_nobody_signed_do_not_write_the_log() {
    let system = System::with(&[("API_KEYS", KEY), ("WEBHOOK_SECRET", SECRET)]).await;
    let malformed = [("x-hub-signature-256", "sha256=\u{1b}[31m")];
    for headers in [
        &[][..],
        &malformed[..0],
        &[("x-hub-signature-256", "sha256=0")],
    ] {
        for _ in 0..50 {
            ask(&system.client, "POST", WEBHOOK, headers)
                .await
                .expect(401);
        }
    }
    assert_seen(&system, "missing_signature", 150).await;
    assert!(said(&system.gateway, "a webhook was refused").is_empty());

    // A wrong one may be the provider's, with a secret that was mixed up: its ids are said, but not without end.
    let forged = format!("sha256={}", "0".repeat(64));
    for _ in 0..200 {
        ask(
            &system.client,
            "POST",
            WEBHOOK,
            &[("x-hub-signature-256", &forged)],
        )
        .await
        .expect(401);
    }
    assert_seen(&system, "wrong_signature", 200).await;
    let lines = said(&system.gateway, "a webhook was refused");
    assert!((50..=121).contains(&lines.len()), "{}", lines.len());
    assert_eq!(lines[0]["event_id"], "evt_1", "{}", lines[0]);
}

#[tokio::test]
async fn each_signed_webhook_that_is_refused_is_logged_with_its_event_id() {
    let system = System::with(&[("WEBHOOK_SECRET", SECRET)]).await;
    for n in 0..100 {
        let body = hello(&format!("evt_{n}")).replace("whatsapp", "sms");
        let mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        let tag = mac.chain_update(&body).finalize().into_bytes();
        let tag = tag.iter().fold("sha256=".to_owned(), |tag, byte| {
            tag + &format!("{byte:02x}")
        });
        let request = system.client.http.post(system.client.url(WEBHOOK));
        let request = request
            .header("x-hub-signature-256", tag)
            .header("content-type", "application/json");
        system
            .client
            .call(request.body(body))
            .await
            .unwrap()
            .expect(400);
    }
    let lines = eventually("all are said", async || {
        Some(said(&system.gateway, "a webhook was refused")).filter(|lines| lines.len() == 100)
    });
    for (n, line) in lines.await.iter().enumerate() {
        assert_eq!(line["event_id"], format!("evt_{n}"), "{line}");
    }
}

#[tokio::test]
async fn refused_pages_are_counted_and_do_not_write_the_log() {
    let system = System::start().await;
    let foreign = [("origin", "https://evil.example")];
    for _ in 0..50 {
        ask(&system.client, "GET", "/conversations", &foreign)
            .await
            .expect(403);
        ask(
            &system.client,
            "GET",
            "/messages?status=FAILED",
            &[("host", "evil.example")],
        )
        .await
        .expect(403);
    }
    assert_seen(&system, "web_page", 100).await;
    let warnings = system
        .gateway
        .log()
        .into_iter()
        .filter(|line| line.contains("\"WARN\""));
    assert!(warnings.count() < 10);
}

#[tokio::test]
async fn lines_about_a_request_have_the_address_that_it_came_from() {
    let system = System::with(&[("RUST_LOG", "info,gateway=debug")]).await;
    system.client.get("/health").await.expect(200);
    let line = system.gateway.logged("answered").await;
    let client = line["span"]["client"].as_str().unwrap_or_default();
    assert!(client.starts_with("127.0.0.1:"), "{line}");
}

#[tokio::test]
async fn a_secret_that_could_be_guessed_is_said_loudly_and_refused_where_others_can_try() {
    const SAID: &str = "a secret has fewer than 16 characters: it could be guessed";
    let (short, long) = ("s3cret-of-15-ch", "s3cret-of-16-chr");
    let named = format!("ops:{long},desk:{short}:inbox");
    let rotated = format!("{long},{long}2,{short}");
    for (variable, value, item) in [
        ("API_KEYS", short, 1),
        ("API_KEYS", &*named, 2),
        ("WEBHOOK_SECRET", short, 1),
        ("WEBHOOK_SECRET", &*rotated, 3),
        ("API_KEYS", long, 0),
        ("WEBHOOK_SECRET", long, 0),
    ] {
        let database = Database::new().await;
        let gateway = serve(&database, &mock().await, &[(variable, value)]).await;
        let lines = said(&gateway, SAID);
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (&line["level"], &line["variable"], &line["item"]))
            .collect();
        if item == 0 {
            assert!(lines.is_empty(), "{lines:?}");
            continue;
        }
        assert_eq!(lines, [(&json!("WARN"), &json!(variable), &json!(item))]);
        for (command, address) in [
            ("serve", ("HOST", "0.0.0.0")),
            ("serve", ("HOST", "::")),
            ("worker", ("METRICS_ADDR", "0.0.0.0:0")),
        ] {
            let ended = Program::new(command)
                .env("DATABASE_URL", "postgres://me@127.0.0.1:1/gateway")
                .env("PROVIDER_URL", "http://127.0.0.1:1")
                .envs(&[(variable, value), address])
                .finish()
                .await;
            let stderr = &ended.stderr;
            assert_eq!(ended.code, Some(2), "{command} {value}: {stderr}");
            let place = format!("{variable}: item {item}");
            assert!(stderr.contains(&place) && stderr.contains("16"), "{stderr}");
            assert!(!stderr.contains("s3cret"), "{stderr}");
        }
    }
}

#[tokio::test]
async fn a_worker_says_that_its_metrics_are_open_to_others() {
    let system = System::start().await;
    for (address, keys, expected) in [
        ("0.0.0.0:0", "", 1),
        ("127.0.0.1:0", "", 0),
        ("0.0.0.0:0", KEY, 0),
    ] {
        let worker = system
            .worker(&[("METRICS_ADDR", address), ("API_KEYS", keys)])
            .await;
        let lines = said(
            &worker,
            "API_KEYS is not set: everybody who can connect can read the metrics",
        );
        assert_eq!(lines.len(), expected, "{address}: {lines:?}");
        assert!(lines.iter().all(|line| line["level"] == "WARN"));
        let of_webhooks = worker.log().concat().contains("WEBHOOK_SECRET");
        assert!(!of_webhooks, "it takes none");
    }
}

#[tokio::test]
async fn strangers_are_not_told_how_many_migrations_lack() {
    let system = System::start().await;
    system
        .database
        .execute("delete from _sqlx_migrations where version > 2")
        .await;
    let answer = eventually("it is not ready", async || {
        Some(system.client.get("/ready").await).filter(|answer| answer.status == 503)
    });
    let answer = answer.await;
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("migrat") && !detail.contains(|c: char| c.is_ascii_digit()),
        "{detail}"
    );
    let line = system
        .gateway
        .logged("migrations are not applied: run gateway migrate")
        .await;
    assert!(line["pending"].as_u64().unwrap() > 0, "{line}");
}

#[tokio::test]
async fn no_answer_is_for_other_origins_or_says_that_it_were() {
    for secrets in [&[][..], &[("API_KEYS", KEY)]] {
        let system = System::with(secrets).await;
        let paths = [
            "/api",
            "/api/",
            "/api/openapi.json",
            "/api/swagger-ui.css",
            "/nothing",
        ];
        let paths = paths.map(|path| ("GET", path));
        for (method, path) in ROUTES.into_iter().chain(paths) {
            for headers in [
                &[][..],
                &[("origin", "https://evil.example")],
                &[("sec-fetch-site", "cross-site"), ("origin", "null")],
            ] {
                for method in [method, "OPTIONS"] {
                    let answer = ask(&system.client, method, path, headers).await;
                    let policy = answer.header("cross-origin-resource-policy");
                    assert_eq!(policy, Some("same-origin"), "{method} {path}");
                    assert_eq!(
                        answer.header("x-content-type-options"),
                        Some("nosniff"),
                        "{method} {path}"
                    );
                    let cors = answer
                        .headers
                        .keys()
                        .find(|name| name.as_str().starts_with("access-control-"));
                    assert_eq!(cors, None, "{method} {path}");
                }
            }
        }
    }
}

/// What a browser says of the page for which it asks.
const FOREIGN: [&[(&str, &str)]; 6] = [
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "no-cors"),
    ],
    &[
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
    ],
    &[("sec-fetch-site", "something-new")],
    &[
        ("sec-fetch-site", "same-site"),
        ("referer", "http://localhost:3000/inbox"),
        ("x-forwarded-host", "localhost"),
    ],
];

#[tokio::test]
async fn without_keys_what_a_browser_says_of_the_page_that_asks_decides() {
    let system = System::start().await;
    let id = "conv_01941f297c0070008000000000000001";
    let documents = ["/api/openapi.json", "/api/swagger-ui-bundle.js"].map(|path| ("GET", path));
    for (method, path) in ROUTES.into_iter().chain(documents) {
        let path = path.replace("{id}", id);
        for foreign in FOREIGN {
            let answer = ask(&system.client, method, &path, foreign).await;
            answer.expect_problem(403, "forbidden");
        }
        let own = [("sec-fetch-site", "same-origin")];
        let answer = ask(&system.client, method, &path, &own).await;
        assert_ne!(answer.status, 403, "{method} {path}");
        let typed = [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")];
        let answer = ask(&system.client, method, &path, &typed).await;
        assert_eq!(answer.status == 403, method != "GET", "{method} {path}");
    }
    // A link to the documentation may be anywhere; what it loads is its own.
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
    ];
    for path in ["/api", "/api/"] {
        assert!(
            ask(&system.client, "GET", path, &link).await.status < 400,
            "{path}"
        );
        ask(&system.client, "GET", path, &link[..1])
            .await
            .expect(403);
    }
    // The name is asked for all the same.
    let rebound = [("sec-fetch-site", "same-origin"), ("host", "evil.example")];
    ask(&system.client, "GET", "/conversations", &rebound)
        .await
        .expect(403);
    // Of all that, only what came from the own page was heard.
    let outbound = "select count(*) from messages where direction = 'OUTBOUND'";
    assert_eq!(system.database.count(outbound).await, 1);

    // Behind a proxy that rewrites Host, the browser knows better.
    let behind = [
        ("sec-fetch-site", "same-origin"),
        ("origin", "https://gateway.example"),
    ];
    ask(&system.client, "POST", "/messages/send", &behind)
        .await
        .expect(201);
}

#[tokio::test]
async fn who_proves_who_calls_may_be_a_page_of_anywhere() {
    let system = System::with(&[("API_KEYS", KEY), ("WEBHOOK_SECRET", SECRET)]).await;
    let key = format!("Bearer {KEY}");
    for foreign in FOREIGN {
        let headers = [foreign, &[("authorization", &*key)]].concat();
        ask(&system.client, "GET", "/conversations", &headers)
            .await
            .expect(200);
        ask(&system.client, "GET", "/health", foreign)
            .await
            .expect(200);
        ask(&system.client, "POST", WEBHOOK, foreign)
            .await
            .expect_problem(401, "invalid_signature");
    }
    let worker = system.worker(&[("METRICS_ADDR", "127.0.0.1:0")]).await;
    let line = worker.logged("serving metrics").await;
    let client = Client::new(line["address"].as_str().unwrap());
    for path in ["/metrics", "/health", "/ready"] {
        ask(&client, "GET", path, FOREIGN[0]).await.expect(403);
        ask(&client, "GET", path, &[]).await.expect(200);
    }
}

#[tokio::test]
async fn a_public_origin_is_like_the_host_for_browsers_that_say_nothing_else() {
    let origins = "https://gateway.example, http://other.example:8080";
    let system = System::with(&[("PUBLIC_ORIGINS", origins)]).await;
    for (origin, status) in [
        ("https://gateway.example", 201),
        ("http://other.example:8080", 201),
        ("http://gateway.example", 403),
        ("https://gateway.example:8443", 403),
        ("http://other.example", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let answer = ask(
            &system.client,
            "POST",
            "/messages/send",
            &[("origin", origin)],
        )
        .await;
        assert_eq!(answer.status, status, "{origin}");
        let foreign = [("origin", origin), ("sec-fetch-site", "cross-site")];
        ask(&system.client, "POST", "/messages/send", &foreign)
            .await
            .expect(403);
    }
    for wrong in [
        "gateway.example",
        "*",
        "https://gateway.example/inbox",
        "ftp://gateway.example",
    ] {
        for command in ["serve", "worker"] {
            let ended = Program::new(command)
                .env("PUBLIC_ORIGINS", wrong)
                .env("DATABASE_URL", "postgres://me@127.0.0.1:1/gateway")
                .env("PROVIDER_URL", "http://127.0.0.1:1")
                .finish()
                .await;
            assert_eq!(ended.code, Some(2), "{wrong}: {}", ended.stderr);
            assert!(ended.stderr.contains("PUBLIC_ORIGINS"), "{}", ended.stderr);
        }
    }
    for wrong in ["localhost", "10.0.0.0/33", "10.0.0.1-10.0.0.9", "*"] {
        let ended = Program::new("serve")
            .env("TRUSTED_PROXIES", wrong)
            .finish()
            .await;
        assert_eq!(ended.code, Some(2), "{wrong}: {}", ended.stderr);
        assert!(ended.stderr.contains("TRUSTED_PROXIES"), "{}", ended.stderr);
    }
}

/// Sends bytes in these pieces, and reads to the end.
async fn send_raw(client: &Client, pieces: &[&str]) -> String {
    let mut connection = TcpStream::connect(client.address()).await.unwrap();
    connection.set_nodelay(true).unwrap();
    for piece in pieces {
        // It may have been answered already.
        connection.write_all(piece.as_bytes()).await.ok();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_that_may_end_in_two_places_is_refused_before_anything_reads_it() {
    let system = System::start().await;
    let body = hello("evt_1");
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("Content-Length: {}\r\n", body.len());
    let coding = "Transfer-Encoding: chunked\r\n";
    let start = "POST /webhooks/mock-meta HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let smuggled = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let gzip = "Transfer-Encoding: gzip\r\n";
    for (status, code, fields) in [
        (400, "invalid_request", format!("{length}{coding}")),
        (400, "invalid_request", format!("{coding}{length}")),
        (
            400,
            "invalid_request",
            format!("{coding}X: y\r\ncontent-LENGTH:0\r\n"),
        ),
        (
            400,
            "invalid_request",
            "Content-Length: 4\r\nTransfer-Encoding: gzip, chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            "Transfer-Encoding: identity,chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            "Transfer-Encoding: chunked, chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            format!("{gzip}{coding}"),
        ),
    ] {
        let request = format!("{start}{fields}\r\n{chunked}{smuggled}");
        let (one, two) = request.split_at(start.len() + 9);
        for pieces in [&[&*request][..], &[one, two], &["\r\n", one, two]] {
            let answer = send_raw(&system.client, pieces).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{fields}: {answer}"
            );
            assert!(
                answer.to_lowercase().contains("\r\nconnection: close\r\n"),
                "{answer}"
            );
            assert!(
                answer.contains(code) && answer.contains("requestId"),
                "{answer}"
            );
            assert_eq!(
                answer.matches("HTTP/1.1").count(),
                1,
                "it goes on: {answer}"
            );
        }
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from webhook_events")
            .await,
        0
    );

    // In one packet with the request before it nobody can tell.
    let two = format!("{smuggled}{start}{coding}\r\n{chunked}");
    let answer = send_raw(&system.client, &[&two]).await;
    let statuses: Vec<&str> = answer.matches("HTTP/1.1 200").collect();
    assert_eq!(statuses.len(), 1, "{answer}");
    assert!(answer.contains("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_chunked_request_is_as_good_as_any_other() {
    let system = System::start().await;
    let mut connection = TcpStream::connect(system.client.address()).await.unwrap();
    for (n, coding) in ["chunked", "Chunked"]
        .into_iter()
        .cycle()
        .take(6)
        .enumerate()
    {
        let body = hello(&format!("evt_{n}"));
        let start = "POST /webhooks/mock-meta HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        let request = format!(
            "{start}Transfer-Encoding: {coding}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        for piece in request
            .as_bytes()
            .chunks(if n % 2 == 0 { 1000 } else { 40 })
        {
            connection.write_all(piece).await.unwrap();
        }
        let mut answer = String::new();
        while !answer.contains("messageId") {
            let mut bytes = [0; 2000];
            let read = connection.read(&mut bytes).await.unwrap();
            assert!(read > 0, "{answer}");
            answer += &String::from_utf8_lossy(&bytes[..read]);
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from webhook_events")
            .await,
        6
    );
}
