//! Paths: a trailing slash makes no difference, also not to who may do what.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::openapi::ROUTES;
use crate::support::{Answer, Client, Program, System, hello};

async fn call(
    client: &Client,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &Value,
) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client.http.request(method.clone(), client.url(path));
    if method == Method::POST {
        request = request.json(body);
    }
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    client.call(request).await.unwrap()
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference_on_any_route() {
    let system = System::start().await;
    let unknown = "msg_01941f297c0070008000000000000001";
    for (method, path) in ROUTES {
        let path = path.replace("{id}", unknown);
        let without = call(&system.client, method, &path, None, &json!({})).await;
        let with = call(
            &system.client,
            method,
            &format!("{path}/"),
            None,
            &json!({}),
        )
        .await;
        assert_eq!(
            with.status, without.status,
            "{method} {path}/: {}",
            with.text
        );
        assert_eq!(
            with.json()["code"],
            without.json()["code"],
            "{method} {path}/"
        );
        let wrong = call(&system.client, "PUT", &format!("{path}/"), None, &json!({})).await;
        wrong.expect_problem(405, "method_not_allowed");
        let twice = call(
            &system.client,
            method,
            &format!("{path}//"),
            None,
            &json!({}),
        )
        .await;
        twice.expect_problem(404, "not_found");
    }
    let hello = hello("evt_1");
    let receipt = system.client.post("/webhooks/mock-meta/", &hello).await;
    assert_eq!(receipt.expect(200)["duplicate"], false);
    let listed = system
        .client
        .get("/conversations/?limit=1&status=open")
        .await;
    assert_eq!(listed.expect(200)["data"][0]["participantId"], "user-1");
    assert_eq!(
        system.client.get("/conversations/?limit=0").await.fields(),
        ["limit"]
    );
    system.client.get("/api/openapi.json/").await.expect(200);
    // The page keeps its own: what it loads is relative to it.
    let page = system.client.get("/api/").await;
    assert!(page.text.contains("<html"), "{page:?}");
    let metrics = system.client.get("/metrics").await.text;
    assert!(!metrics.contains("mock-meta/"), "{metrics}");
}

#[tokio::test]
async fn with_a_trailing_slash_a_key_may_do_what_it_may_do_without() {
    let keys = "a:inbox-key:inbox,b:send-key:send,c:admin-key:admin";
    let system = System::with(&[("API_KEYS", keys)]).await;
    let unknown = "01941f297c0070008000000000000001";
    for (method, path) in ROUTES {
        if path.starts_with("/webhooks") {
            continue;
        }
        let id = if path.starts_with("/messages") {
            "msg_"
        } else {
            "conv_"
        };
        let path = path.replace("{id}", &format!("{id}{unknown}"));
        for key in [None, Some("inbox-key"), Some("send-key"), Some("admin-key")] {
            let without = call(&system.client, method, &path, key, &json!({})).await;
            let with = call(&system.client, method, &format!("{path}/"), key, &json!({})).await;
            assert_eq!(with.status, without.status, "{method} {path}/ by {key:?}");
        }
    }
}

#[tokio::test]
async fn a_worker_and_a_gateway_that_is_starting_do_not_mind_a_trailing_slash() {
    let system = System::start().await;
    let worker = Program::new("worker")
        .env("DATABASE_URL", system.database.url())
        .env("PROVIDER_URL", &system.mock.url())
        .env("METRICS_ADDR", "127.0.0.1:0")
        .start();
    let line = worker.logged("serving metrics").await;
    let client = Client::new(line["address"].as_str().unwrap());
    worker.logged("working").await;
    for path in ["/health/", "/ready/", "/metrics/"] {
        client.get(path).await.expect(200);
    }
    let starting = Program::on("postgres://nobody@127.0.0.1:1/nothing", &["serve"]).start();
    starting.logged("listening").await;
    let client = Client::new(starting.url());
    client.get("/health/").await.expect(200);
    client
        .get("/ready/")
        .await
        .expect_problem(503, "database_unavailable");
}
