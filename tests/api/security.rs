//! Who may call: keys for the API, signatures for webhooks, and neither is ever told to anybody.

use hmac::{Hmac, KeyInit, Mac};
use mock_meta_provider::{Config, Mock};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::api::openapi::ROUTES;
use crate::support::{Answer, Client, Database, Program, System, event, eventually, mock, serve};

const KEYS: [(&str, &str); 2] = [
    (
        "API_KEYS",
        "alpha-key-of-16-or-more, beta-key-of-16-or-more",
    ),
    ("WEBHOOK_SECRET", "old-secret-of-16,new-secret-of-16"),
];

/// Makes a request, with an `Authorization` where one is given.
async fn request(client: &Client, method: &str, path: &str, authorization: Option<&str>) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client.http.request(method, client.url(path));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    client.call(request).await.unwrap()
}

/// Posts a webhook with this signature.
async fn signed(client: &Client, body: &str, signature: Option<&str>) -> Answer {
    let request = client.http.post(client.url("/webhooks/mock-meta"));
    let mut request = request
        .header("content-type", "application/json")
        .body(body.to_owned());
    if let Some(signature) = signature {
        request = request.header("x-hub-signature-256", signature);
    }
    client.call(request).await.unwrap()
}

fn signature(secret: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let tag = mac.chain_update(body).finalize().into_bytes();
    format!("sha256={:x}", bytes::Bytes::copy_from_slice(&tag))
}

fn hello(event_id: &str) -> String {
    event(event_id, "user-1", "Hello", "2025-01-01T10:00:00Z").to_string()
}

#[tokio::test]
async fn without_a_key_the_api_and_the_metrics_are_closed() {
    let system = System::with(&KEYS).await;
    let open = ["/health", "/ready", "/webhooks/mock-meta"];
    for (method, path) in ROUTES.into_iter().filter(|(_, path)| !open.contains(path)) {
        let path = path.replace("{id}", "msg_01941f297c0070008000000000000001");
        let answer = request(&system.client, method, &path, None).await;
        answer.expect_problem(401, "unauthorized");
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer"),
            "{path}"
        );
        let answer = request(
            &system.client,
            method,
            &path,
            Some("Bearer alpha-key-of-16-or-more"),
        )
        .await;
        assert_ne!(answer.status, 401, "{path}");
    }
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi" });
    system
        .client
        .post("/messages/send", &body)
        .await
        .expect_problem(401, "unauthorized");
    assert_eq!(
        system.database.count("select count(*) from messages").await,
        0
    );
}

#[tokio::test]
async fn one_of_the_keys_is_needed_and_each_will_do() {
    let system = System::with(&KEYS).await;
    for good in [
        "Bearer alpha-key-of-16-or-more",
        "Bearer beta-key-of-16-or-more",
        "bearer alpha-key-of-16-or-more",
        "BEARER beta-key-of-16-or-more",
    ] {
        request(&system.client, "GET", "/conversations", Some(good))
            .await
            .expect(200);
    }
    for bad in [
        "",
        "alpha-key-of-16-or-more",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer alpha-key-of-16-or-mor",
        "Bearer alpha-key-of-16-or-morey",
        "Bearer ALPHA-KEY-OF-16-OR-MORE",
        "Bearer alpha-key-of-16-or-more, beta-key-of-16-or-more",
        "Bearer alpha-key-of-16-or-more,beta-key-of-16-or-more",
        "Basic alpha-key-of-16-or-more",
        "Bearer old-secret-of-16",
    ] {
        let answer = request(&system.client, "GET", "/conversations", Some(bad)).await;
        answer.expect_problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").is_some(), "{bad:?}");
    }
}

#[tokio::test]
async fn health_documentation_and_webhooks_are_open_all_the_same() {
    let system = System::with(&[("API_KEYS", "alpha-key-of-16-or-more")]).await;
    for path in [
        "/health",
        "/ready",
        "/api/",
        "/api/openapi.json",
        "/api/swagger-ui.css",
    ] {
        request(&system.client, "GET", path, None).await.expect(200);
    }
    assert!(request(&system.client, "GET", "/api", None).await.status < 400);
    signed(&system.client, &hello("evt_1"), None)
        .await
        .expect(200);
}

#[tokio::test]
async fn an_empty_variable_is_an_unset_one() {
    let system = System::with(&[("API_KEYS", " "), ("WEBHOOK_SECRET", "")]).await;
    request(&system.client, "GET", "/conversations", None)
        .await
        .expect(200);
    signed(&system.client, &hello("evt_1"), None)
        .await
        .expect(200);
}

#[tokio::test]
async fn the_metrics_of_a_worker_need_a_key_too() {
    let system = System::start().await;
    let worker = system
        .worker(&[
            ("API_KEYS", "alpha-key-of-16-or-more"),
            ("METRICS_ADDR", "127.0.0.1:0"),
        ])
        .await;
    let line = worker.logged("serving metrics").await;
    let client = Client::new(line["address"].as_str().unwrap());
    request(&client, "GET", "/metrics", None)
        .await
        .expect_problem(401, "unauthorized");
    request(
        &client,
        "GET",
        "/metrics",
        Some("Bearer alpha-key-of-16-or-more"),
    )
    .await
    .expect(200);
    request(&client, "GET", "/health", None).await.expect(200);
    request(&client, "GET", "/ready", None).await.expect(200);
}

#[tokio::test]
async fn only_a_webhook_that_one_of_the_secrets_has_signed_is_taken_in() {
    let system = System::with(&KEYS).await;
    let body = hello("evt_1");
    let good = signature("new-secret-of-16", &body);
    for bad in [
        None,
        Some(String::new()),
        Some("sha256=".to_owned()),
        Some(signature("another-secret", &body)),
        Some(signature("", &body)),
        Some(signature("new-secret-of-16", &hello("evt_2"))),
        Some(signature("old-secret-of-16,new-secret-of-16", &body)),
        Some(good.replace("sha256=", "")),
        Some(good.replace("sha256=", "sha1=")),
        Some(good[..good.len() - 1].to_owned()),
        Some(format!("{good}00")),
    ] {
        let answer = signed(&system.client, &body, bad.as_deref()).await;
        answer.expect_problem(401, "invalid_signature");
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from webhook_events")
            .await,
        0
    );
    let line = system.gateway.logged("a webhook was refused").await;
    assert_eq!(
        (&line["event_id"], &line["code"]),
        (&json!("evt_1"), &json!("invalid_signature")),
        "{line}"
    );
    let metrics = request(
        &system.client,
        "GET",
        "/metrics",
        Some("Bearer beta-key-of-16-or-more"),
    )
    .await
    .text;
    assert!(
        metrics.contains("gateway_webhook_events_total{result=\"refused\"} 11"),
        "{metrics}"
    );

    signed(&system.client, &body, Some(&good)).await.expect(200);
}

#[tokio::test]
async fn while_secrets_are_rotated_both_pass_and_afterwards_only_the_new_one() {
    let system = System::with(&[("WEBHOOK_SECRET", "old-secret-of-16, new-secret-of-16")]).await;
    for (event_id, secret) in [("evt_1", "old-secret-of-16"), ("evt_2", "new-secret-of-16")] {
        let body = hello(event_id);
        signed(&system.client, &body, Some(&signature(secret, &body)))
            .await
            .expect(200);
    }
    let (_gateway, client) = system
        .another(&[("WEBHOOK_SECRET", "new-secret-of-16")])
        .await;
    let body = hello("evt_3");
    let answer = signed(&client, &body, Some(&signature("old-secret-of-16", &body))).await;
    answer.expect_problem(401, "invalid_signature");
    signed(&client, &body, Some(&signature("new-secret-of-16", &body)))
        .await
        .expect(200);
}

#[tokio::test]
async fn the_signature_is_that_of_the_raw_body_and_checked_before_anything_else() {
    let system = System::with(&KEYS).await;
    // The same to a reader of JSON, other bytes.
    let spaced = format!(" {}\n", hello("evt_1").replace(',', " , "));
    let answer = signed(
        &system.client,
        &spaced,
        Some(&signature("new-secret-of-16", &hello("evt_1"))),
    )
    .await;
    answer.expect_problem(401, "invalid_signature");
    signed(
        &system.client,
        &spaced,
        Some(&signature("new-secret-of-16", &spaced)),
    )
    .await
    .expect(200);

    signed(&system.client, "nonsense", None)
        .await
        .expect_problem(401, "invalid_signature");
    let answer = signed(
        &system.client,
        "nonsense",
        Some(&signature("new-secret-of-16", "nonsense")),
    )
    .await;
    answer.expect_problem(400, "invalid_request");
}

#[tokio::test]
async fn the_webhooks_of_a_provider_with_the_secret_come_through() {
    let config = Config {
        webhook_secret: Some("new-secret-of-16".into()),
        ..Config::calm()
    };
    let mock = Mock::start(config, TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    let database = Database::new().await;
    let gateway = serve(&database, &mock, &KEYS).await;
    let client = Client::new(gateway.url());
    let inbound = json!({
        "channel": "whatsapp", "from": "user-1", "text": "Hello", "webhookUrl": client.url("/webhooks/mock-meta"),
    });
    Client::new(&mock.url())
        .post("/simulate/inbound", &inbound)
        .await
        .expect(200);
    eventually("it is in the inbox", async || {
        let list = request(
            &client,
            "GET",
            "/conversations",
            Some("Bearer beta-key-of-16-or-more"),
        )
        .await
        .expect(200);
        (list["data"][0]["unreadCount"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_secret_is_ever_in_the_log() {
    let mut system = System::with(&[&KEYS[..], &[("RUST_LOG", "trace")]].concat()).await;
    for authorization in [
        "Bearer alpha-key-of-16-or-more",
        "Bearer beta-key-of-16-or-more",
        "Basic alpha-key-of-16-or-more",
        "Bearer wrong-key",
    ] {
        request(&system.client, "GET", "/conversations", Some(authorization)).await;
    }
    let body = hello("evt_1");
    for secret in ["new-secret-of-16", "wrong-secret"] {
        signed(&system.client, &body, Some(&signature(secret, &body))).await;
    }
    system.gateway.terminate().await;
    system.gateway.logged("stopping").await;
    let log = system.gateway.log().join("\n");
    assert!(log.contains("a webhook was refused"));
    for secret in [
        "alpha-key-of-16-or-more",
        "beta-key-of-16-or-more",
        "wrong-key",
        "old-secret-of-16",
        "new-secret-of-16",
        &signature("new-secret-of-16", &body)[7..],
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn help_shows_options_and_variables_but_no_secret() {
    for command in ["serve", "worker", "migrate", "seed", "retry"] {
        let help = Program::new(command)
            .args(&["--help"])
            .envs(&KEYS)
            .env("DATABASE_URL", "postgres://me:hunter2@db/gateway")
            .env("PROVIDER_URL", "https://me:hunter3@provider.example")
            .finish()
            .await;
        assert_eq!(help.code, Some(0), "{}", help.stderr);
        assert!(help.stdout.contains("DATABASE_URL"), "{}", help.stdout);
        for secret in [
            "alpha-key-of-16-or-more",
            "beta-key-of-16-or-more",
            "old-secret-of-16",
            "new-secret-of-16",
            "hunter2",
            "hunter3",
        ] {
            assert!(
                !help.stdout.contains(secret) && !help.stderr.contains(secret),
                "{command}: {secret}"
            );
        }
    }
}

#[tokio::test]
async fn a_password_is_not_repeated_when_its_url_is_no_good() {
    for (database, provider) in [
        (
            "postgres://me:hunter2@db:port/gateway",
            "http://127.0.0.1:1",
        ),
        ("hunter2", "http://127.0.0.1:1"),
        (
            "postgres://me@127.0.0.1:1/gateway",
            "ftp://me:hunter2@provider.example",
        ),
    ] {
        let ended = Program::new("serve")
            .env("DATABASE_URL", database)
            .env("PROVIDER_URL", provider)
            .finish()
            .await;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("_URL") && !ended.stderr.contains("hunter2"),
            "{}",
            ended.stderr
        );
    }
    let waiting = Program::new("serve")
        .env("DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/gateway")
        .env("PROVIDER_URL", "http://127.0.0.1:1")
        .start();
    let waits = |line: &String| line.contains("waiting for the database");
    eventually("it says that it waits", async || {
        waiting.log().iter().find(|line| waits(line)).cloned()
    })
    .await;
    assert!(!waiting.log().join("\n").contains("hunter2"));
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_a_usage_error_that_does_not_show_it() {
    for (keys, place) in [
        ("good, :hunter2", "item 2"),
        ("hunter2:", "item 1"),
        ("good,agent: :inbox", "item 2"),
        ("agent:hunter2:", "item 1"),
        ("agent:hunter2:inbox+root", "item 1"),
        ("agent:hunter2:inbox,other:third:Inbox", "item 2"),
        ("agent:hunter2:inbox:send", "item 1"),
        ("an agent:hunter2", "item 1"),
        ("agent:first,agent:hunter2", "item 2"),
        ("hunter2,agent:hunter2", "item 2"),
        (&format!("{}:hunter2", "a".repeat(65)), "item 1"),
    ] {
        for command in ["serve", "worker"] {
            let ended = Program::new(command)
                .env("API_KEYS", keys)
                .env("DATABASE_URL", "postgres://me@127.0.0.1:1/gateway")
                .env("PROVIDER_URL", "http://127.0.0.1:1")
                .finish()
                .await;
            let stderr = &ended.stderr;
            assert_eq!(ended.code, Some(2), "{keys}: {stderr}");
            assert!(
                stderr.contains("API_KEYS") && stderr.contains(place),
                "{keys}: {stderr}"
            );
            assert!(!stderr.contains("hunter2"), "{keys}: {stderr}");
        }
    }
}

/// A key for each scope, one for two of them, and one for all.
const NAMED: &str = "desk:inbox-key:inbox,app:send-key:send,ops:admin-key:admin,both:both-key:inbox+send,root:root-key,plain-key";

/// The keys that a route admits, of those with a part of the scopes.
fn admitted(path: &str) -> &'static [&'static str] {
    match path {
        "/messages" | "/messages/{id}" => &["inbox-key", "send-key", "admin-key", "both-key"],
        "/messages/send" => &["send-key", "both-key"],
        "/messages/{id}/retry" | "/messages/{id}/cancel" => &["send-key", "admin-key", "both-key"],
        "/metrics" => &["admin-key"],
        path if path.starts_with("/conversations") => &["inbox-key", "both-key"],
        _ => panic!("{path}: nobody has said which scope this needs"),
    }
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_are_for_and_nothing_else() {
    let system = System::with(&[("API_KEYS", NAMED)]).await;
    let open = ["/health", "/ready", "/webhooks/mock-meta"];
    for (method, path) in ROUTES.into_iter().filter(|(_, path)| !open.contains(path)) {
        let url = path.replace("{id}", "msg_01941f297c0070008000000000000001");
        for key in [
            "inbox-key",
            "send-key",
            "admin-key",
            "both-key",
            "root-key",
            "plain-key",
        ] {
            let answer =
                request(&system.client, method, &url, Some(&format!("Bearer {key}"))).await;
            let is_whole = matches!(key, "root-key" | "plain-key");
            if is_whole || admitted(path).contains(&key) {
                assert!(
                    !matches!(answer.status, 401 | 403),
                    "{method} {path} with {key}: {}",
                    answer.text
                );
            } else {
                let problem = answer.expect_problem(403, "forbidden");
                assert!(
                    problem["detail"].as_str().unwrap().contains("scope"),
                    "{problem}"
                );
            }
        }
        for wrong in ["desk", "desk:inbox-key", "desk:inbox-key:inbox"] {
            let answer = request(
                &system.client,
                method,
                &url,
                Some(&format!("Bearer {wrong}")),
            )
            .await;
            answer.expect_problem(401, "unauthorized");
        }
    }
}

#[tokio::test]
async fn what_a_scope_forbids_has_not_happened() {
    let system = System::with(&[("API_KEYS", NAMED)]).await;
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi" });
    for (key, status) in [("inbox-key", 403), ("admin-key", 403), ("send-key", 201)] {
        let before = system.database.count("select count(*) from messages").await;
        let request = system.client.http.post(system.client.url("/messages/send"));
        let answer = system
            .client
            .call(request.bearer_auth(key).json(&body))
            .await
            .unwrap();
        answer.expect(status);
        let after = system.database.count("select count(*) from messages").await;
        assert_eq!(after - before, i64::from(status == 201), "{key}");
    }
}

#[tokio::test]
async fn the_log_says_whose_key_it_was() {
    let system = System::with(&[("API_KEYS", NAMED), ("RUST_LOG", "info,gateway=debug")]).await;
    for (key, id) in [
        ("inbox-key", "by-desk"),
        ("root-key", "by-root"),
        ("plain-key", "by-plain"),
    ] {
        let request = system.client.http.get(system.client.url("/conversations"));
        let request = request.bearer_auth(key).header("x-request-id", id);
        system.client.call(request).await.unwrap().expect(200);
    }
    let request = system.client.http.get(system.client.url("/metrics"));
    let request = request
        .bearer_auth("send-key")
        .header("x-request-id", "by-app");
    system.client.call(request).await.unwrap().expect(403);
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi" });
    let request = system
        .client
        .http
        .post(system.client.url("/messages/send"))
        .json(&body);
    let request = request
        .bearer_auth("both-key")
        .header("x-request-id", "by-both");
    system.client.call(request).await.unwrap().expect(201);

    let said = async |message: &str, id: &str| {
        eventually(&format!("{message} {id}"), async || {
            system.gateway.log().iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                // An attempt has a span of its own, within that of the request.
                let request = line["spans"].as_array()?.first()?;
                let is_it = line["message"] == message && request["request_id"] == id;
                is_it.then(|| request["key"].clone())
            })
        })
        .await
    };
    assert_eq!(said("answered", "by-desk").await, "desk");
    assert_eq!(said("answered", "by-root").await, "root");
    assert_eq!(said("answered", "by-plain").await, Value::Null);
    assert_eq!(said("a key lacks a scope", "by-app").await, "app");
    assert_eq!(said("sent", "by-both").await, "both");
}

#[tokio::test]
async fn the_metrics_of_a_worker_are_for_admins() {
    let system = System::start().await;
    let worker = system
        .worker(&[("API_KEYS", NAMED), ("METRICS_ADDR", "127.0.0.1:0")])
        .await;
    let line = worker.logged("serving metrics").await;
    let client = Client::new(line["address"].as_str().unwrap());
    let metrics =
        async |key: &str| request(&client, "GET", "/metrics", Some(&format!("Bearer {key}"))).await;
    metrics("both-key").await.expect_problem(403, "forbidden");
    metrics("admin-key").await.expect(200);
}

#[tokio::test]
async fn a_list_of_secrets_with_nothing_in_it_is_a_usage_error_and_not_an_open_door() {
    for variable in ["API_KEYS", "WEBHOOK_SECRET"] {
        let ended = Program::new("serve")
            .env(variable, " , ")
            .env("DATABASE_URL", "postgres://me@127.0.0.1:1/gateway")
            .env("PROVIDER_URL", "http://127.0.0.1:1")
            .finish()
            .await;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(variable), "{}", ended.stderr);
    }
}

/// The variables that a `serve` with this environment warns about before it is ready.
async fn warned_about(environment: &[(&str, &str)]) -> Vec<String> {
    let database = Database::new().await;
    let gateway = serve(&database, &mock().await, environment).await;
    let lines = gateway
        .log()
        .into_iter()
        .map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let warnings = lines.filter(|line| line["level"] == "WARN");
    let said = warnings.map(|line| {
        line["message"]
            .as_str()
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
    });
    said.filter(|variable| matches!(&**variable, "API_KEYS" | "WEBHOOK_SECRET"))
        .collect()
}

#[tokio::test]
async fn an_open_door_is_said_loudly() {
    let public = ("HOST", "0.0.0.0");
    let loopback = ("HOST", "::1");
    let [keys, secret] = KEYS;
    for (environment, expected) in [
        (&[][..], &[][..]),
        (&[loopback], &[]),
        (&[secret], &[]),
        (&[public], &["API_KEYS", "WEBHOOK_SECRET"]),
        (&[public, secret], &["API_KEYS"]),
        (&[public, keys], &["WEBHOOK_SECRET"]),
        (&[keys], &["WEBHOOK_SECRET"]),
        (&[public, keys, secret], &[]),
    ] {
        assert_eq!(warned_about(environment).await, expected, "{environment:?}");
    }
}

/// A request as a browser makes it for a page.
async fn browsed(client: &Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client.http.request(method, client.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if path.starts_with("/webhooks") || path == "/messages/send" {
        let body = json!({
            "channel": "whatsapp", "to": "user-1", "text": "Hi",
            "eventId": "evt_1", "from": "user-1", "timestamp": "2025-01-01T10:00:00Z",
        });
        request = request.json(&body);
    }
    client.call(request).await.unwrap()
}

/// The routes that act or tell something.
fn guarded() -> Vec<(&'static str, String)> {
    let id = "conv_01941f297c0070008000000000000001";
    let routes = ROUTES
        .into_iter()
        .filter(|(_, path)| !matches!(*path, "/health" | "/ready"));
    routes
        .map(|(method, path)| (method, path.replace("{id}", id)))
        .collect()
}

#[tokio::test]
async fn without_keys_a_web_page_of_another_origin_or_by_another_name_cannot_do_anything() {
    let system = System::start().await;
    let own = system.client.url("");
    let own_host = own.strip_prefix("http://").unwrap();
    for (method, path) in guarded() {
        for foreign in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1:1")],
            &[("host", "evil.example:3000")],
            &[
                ("host", "evil.example:3000"),
                ("origin", "http://evil.example:3000"),
            ],
        ] {
            let answer = browsed(&system.client, method, &path, foreign).await;
            answer.expect_problem(403, "forbidden");
            assert!(answer.header("access-control-allow-origin").is_none());
        }
        for own in [
            &[("origin", &*own)][..],
            &[("host", "localhost:3000")],
            &[("host", own_host)],
        ] {
            let answer = browsed(&system.client, method, &path, own).await;
            assert_ne!(answer.status, 403, "{method} {path} {own:?}");
        }
    }
    for path in ["/health", "/ready", "/api/"] {
        browsed(&system.client, "GET", path, &[("host", "10.1.2.3:3000")])
            .await
            .expect(200);
    }
    // Of the requests that send and of those that deliver the one event, only the three own ones each were heard.
    let outbound = "select count(*) from messages where direction = 'OUTBOUND'";
    assert_eq!(system.database.count(outbound).await, 3);
}

#[tokio::test]
async fn a_host_that_is_allowed_by_name_is_like_this_machine() {
    let system = System::with(&[("ALLOWED_HOSTS", "gateway.example, other.example")]).await;
    for (host, status) in [
        ("gateway.example", 200),
        ("Other.Example:8443", 200),
        ("localhost:1", 200),
        ("evil.example", 403),
        ("gateway.example.evil.example", 403),
    ] {
        browsed(&system.client, "GET", "/conversations", &[("host", host)])
            .await
            .expect(status);
    }
    let public = [("HOST", "0.0.0.0")];
    let (_gateway, client) = system.another(&public).await;
    browsed(&client, "GET", "/conversations", &[("host", "gateway.lan")])
        .await
        .expect(200);
    let (_gateway, client) = system
        .another(&[public[0], ("ALLOWED_HOSTS", "gateway.lan")])
        .await;
    browsed(&client, "GET", "/conversations", &[("host", "gateway.lan")])
        .await
        .expect(200);
    browsed(
        &client,
        "GET",
        "/conversations",
        &[("host", "evil.example")],
    )
    .await
    .expect(403);

    for command in ["serve", "worker"] {
        let ended = Program::new(command)
            .env("ALLOWED_HOSTS", "gateway.example:3000")
            .env("DATABASE_URL", "postgres://me@127.0.0.1:1/gateway")
            .env("PROVIDER_URL", "http://127.0.0.1:1")
            .finish()
            .await;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("ALLOWED_HOSTS"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn who_proves_who_calls_may_call_from_anywhere() {
    let system = System::with(&KEYS).await;
    let foreign = [
        ("origin", "https://app.example"),
        ("host", "gateway.example"),
    ];
    let with_key = [
        &foreign[..],
        &[("authorization", "Bearer alpha-key-of-16-or-more")],
    ]
    .concat();
    browsed(&system.client, "GET", "/conversations", &with_key)
        .await
        .expect(200);
    browsed(&system.client, "POST", "/messages/send", &with_key)
        .await
        .expect(201);
    let answer = browsed(&system.client, "POST", "/webhooks/mock-meta", &foreign).await;
    answer.expect_problem(401, "invalid_signature");

    // A key proves nothing of a webhook, and a signature nothing of who reads.
    let (_gateway, client) = system
        .another(&[("API_KEYS", "alpha-key-of-16-or-more")])
        .await;
    browsed(&client, "POST", "/webhooks/mock-meta", &foreign)
        .await
        .expect(403);
    let (_gateway, client) = system.another(&[("WEBHOOK_SECRET", "a-secret")]).await;
    browsed(&client, "GET", "/conversations", &foreign)
        .await
        .expect(403);
}

#[tokio::test]
async fn a_request_without_a_host_is_no_browsers() {
    let system = System::start().await;
    let address = system.client.url("").replace("http://", "");
    for path in ["/health", "/conversations"] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
}

#[tokio::test]
async fn the_metrics_of_a_worker_are_not_for_web_pages_either() {
    let system = System::start().await;
    let worker = system.worker(&[("METRICS_ADDR", "127.0.0.1:0")]).await;
    let line = worker.logged("serving metrics").await;
    let client = Client::new(line["address"].as_str().unwrap());
    browsed(&client, "GET", "/metrics", &[("host", "evil.example")])
        .await
        .expect(403);
    browsed(
        &client,
        "GET",
        "/metrics",
        &[("origin", "http://evil.example")],
    )
    .await
    .expect(403);
    browsed(&client, "GET", "/metrics", &[]).await.expect(200);
}

#[tokio::test]
async fn the_documentation_may_load_only_its_own_and_be_in_no_frame() {
    let system = System::start().await;
    let page = system.client.get("/api/").await;
    let policy = page.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    // All that it needs comes from here, and nothing of it is inline.
    let quoted: Vec<&str> = page.text.split('"').collect();
    let loaded = quoted
        .windows(2)
        .filter(|pair| pair[0].ends_with("src=") || pair[0].ends_with("href="));
    let loaded: Vec<&str> = loaded.map(|pair| pair[1]).collect();
    assert!(loaded.len() >= 5, "{loaded:?}");
    for path in loaded {
        assert!(!path.contains("//"), "{path}");
        let answer = system
            .client
            .get(&format!("/api/{}", path.trim_start_matches("./")))
            .await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        let kind = answer.header("content-type").unwrap();
        let expected = match path.rsplit('.').next() {
            Some("js") => "text/javascript",
            Some("css") => "text/css",
            _ => "image/png",
        };
        assert!(kind.starts_with(expected), "{path}: {kind}");
    }
    for inline in ["<style", "style=", "onload=", "javascript:"] {
        assert!(!page.text.contains(inline), "{inline}");
    }
    let scripts = page.text.matches("<script").count();
    assert_eq!(page.text.matches("<script src=").count(), scripts);
    // It would ask a stranger to look at the document.
    let start = system.client.get("/api/swagger-initializer.js").await;
    assert!(
        start.text.contains("\"validatorUrl\": \"none\""),
        "{}",
        start.text
    );
}

#[tokio::test]
async fn no_answer_of_the_api_is_kept_by_a_cache_or_taken_for_something_else() {
    let system = System::start().await;
    for (method, path) in ROUTES.into_iter().chain([("GET", "/nothing")]) {
        let answer = request(&system.client, method, path, None).await;
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
}
