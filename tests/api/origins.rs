//! Browsers: without keys no page of another origin, and none by another name, can do anything.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{KEYS, ask};
use crate::api::openapi::ROUTES;
use crate::support::{Client, Program, System, WEBHOOK};

/// The routes that act or tell something.
fn guarded() -> Vec<(&'static str, String)> {
    let id = "conv_01941f297c0070008000000000000001";
    let routes = ROUTES
        .into_iter()
        .filter(|(_, path)| !matches!(*path, "/health" | "/ready" | "/webhooks/whatsapp"));
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
            let answer = ask(&system.client, method, &path, foreign).await;
            answer.expect_problem(403, "forbidden");
            assert!(answer.header("access-control-allow-origin").is_none());
        }
        for own in [
            &[("origin", &*own)][..],
            &[("host", "localhost:3000")],
            &[("host", own_host)],
        ] {
            let answer = ask(&system.client, method, &path, own).await;
            assert_ne!(answer.status, 403, "{method} {path} {own:?}");
        }
    }
    for path in ["/health", "/ready", "/api/"] {
        ask(&system.client, "GET", path, &[("host", "10.1.2.3:3000")])
            .await
            .expect(200);
    }
    // Of the requests that send and of those that deliver the one event, only the three own ones
    // each were heard.
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
        ask(&system.client, "GET", "/conversations", &[("host", host)])
            .await
            .expect(status);
    }
    let public = [("HOST", "0.0.0.0")];
    let (_gateway, client) = system.another(&public).await;
    ask(&client, "GET", "/conversations", &[("host", "gateway.lan")])
        .await
        .expect(200);
    let (_gateway, client) = system
        .another(&[public[0], ("ALLOWED_HOSTS", "gateway.lan")])
        .await;
    ask(&client, "GET", "/conversations", &[("host", "gateway.lan")])
        .await
        .expect(200);
    ask(
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
    ask(&system.client, "GET", "/conversations", &with_key)
        .await
        .expect(200);
    ask(&system.client, "POST", "/messages/send", &with_key)
        .await
        .expect(201);
    let answer = ask(&system.client, "POST", "/webhooks/mock-meta", &foreign).await;
    answer.expect_problem(401, "invalid_signature");

    // A key proves nothing of a webhook, and a signature nothing of who reads.
    let (_gateway, client) = system
        .another(&[("API_KEYS", "alpha-key-of-16-or-more")])
        .await;
    ask(&client, "POST", "/webhooks/mock-meta", &foreign)
        .await
        .expect(403);
    let (_gateway, client) = system.another(&[("WEBHOOK_SECRET", "a-secret")]).await;
    ask(&client, "GET", "/conversations", &foreign)
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
    ask(&client, "GET", "/metrics", &[("host", "evil.example")])
        .await
        .expect(403);
    ask(
        &client,
        "GET",
        "/metrics",
        &[("origin", "http://evil.example")],
    )
    .await
    .expect(403);
    ask(&client, "GET", "/metrics", &[]).await.expect(200);
}

const KEY: &str = "a-key-of-16-or-more";
const SECRET: &str = "a-secret-of-16-or-more";
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
    let routes = ROUTES
        .into_iter()
        .filter(|(_, path)| *path != "/webhooks/whatsapp");
    for (method, path) in routes.chain(documents) {
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
