//! Keys: who may call what, and what is said where nobody has to prove who it is.

use serde_json::{Value, json};

use super::{KEYS, request, signed};
use crate::api::openapi::ROUTES;
use crate::support::{Client, Database, Program, System, eventually, hello, mock, serve};

/// The routes that ask for a key. A browser logs in and out without one in a header.
fn closed() -> impl Iterator<Item = (&'static str, &'static str)> {
    let open = [
        "/health",
        "/ready",
        "/webhooks/mock-meta",
        "/webhooks/whatsapp",
    ];
    let routes = ROUTES.into_iter();
    routes.filter(move |(method, path)| {
        !open.contains(path) && (*path != "/session" || *method == "GET")
    })
}

#[tokio::test]
async fn without_a_key_the_api_and_the_metrics_are_closed() {
    let system = System::with(&KEYS).await;
    for (method, path) in closed() {
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
    signed(&system.client, &hello("evt_1").to_string(), None)
        .await
        .expect(200);
}

#[tokio::test]
async fn an_empty_variable_is_an_unset_one() {
    let system = System::with(&[("API_KEYS", " "), ("WEBHOOK_SECRET", "")]).await;
    request(&system.client, "GET", "/conversations", None)
        .await
        .expect(200);
    signed(&system.client, &hello("evt_1").to_string(), None)
        .await
        .expect(200);
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
        "/messages" | "/messages/{id}" | "/session" => {
            &["inbox-key", "send-key", "admin-key", "both-key"]
        }
        "/messages/send" => &["send-key", "both-key"],
        "/messages/{id}/retry" | "/messages/{id}/cancel" => &["send-key", "admin-key", "both-key"],
        "/metrics" => &["admin-key"],
        "/events" | "/messages/{id}/media" => &["inbox-key", "both-key"],
        path if path.starts_with("/conversations") => &["inbox-key", "both-key"],
        _ => panic!("{path}: nobody has said which scope this needs"),
    }
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_are_for_and_nothing_else() {
    let system = System::with(&[("API_KEYS", NAMED)]).await;
    for (method, path) in closed() {
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
    let nobodys = request(&client, "GET", "/metrics", None).await;
    nobodys.expect_problem(401, "unauthorized");
    metrics("both-key").await.expect_problem(403, "forbidden");
    metrics("admin-key").await.expect(200);
    for open in ["/health", "/ready"] {
        request(&client, "GET", open, None).await.expect(200);
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
