//! The page of the inbox: what a browser is told of it, and who may open it.

use serde_json::Value;

use super::ask;
use crate::support::{Answer, Client, System, read, serve_at};

const KEY: (&str, &str) = (
    "API_KEYS",
    "desk:desk-key-of-16-or-more:inbox,all:all-key-of-16-or-more",
);
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The names below `/inbox/` that the page may load.
fn assets() -> Vec<String> {
    let files = crate::support::files("src/inbox").into_iter();
    let names = files.filter_map(|path| {
        let name = path.strip_prefix("src/inbox/")?.to_owned();
        let is_code = std::path::Path::new(&name).extension()? == "rs";
        (!is_code && name != "index.html").then_some(name)
    });
    names.collect()
}

fn assert_guarded(answer: &Answer, path: &str) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        (
            "permissions-policy",
            "camera=(), microphone=(), geolocation=()",
        ),
    ] {
        let values: Vec<_> = answer.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{path} {name}");
    }
}

#[tokio::test]
async fn the_page_is_found_by_its_address_and_by_the_root() {
    for secrets in [&[][..], &[KEY]] {
        let system = System::with(secrets).await;
        let root = system.client.get("/").await;
        assert_eq!(root.status, 303);
        assert_eq!(root.header("location"), Some("/inbox"));
        for path in ["/inbox", "/inbox/", "/inbox?conversation=1"] {
            let page = system.client.get(path).await;
            assert_eq!(page.status, 200, "{path}");
            assert_eq!(page.text, read("src/inbox/index.html"));
            assert_eq!(
                page.header("content-type"),
                Some("text/html; charset=utf-8")
            );
            assert_guarded(&page, path);
        }
        for name in assets() {
            let path = format!("/inbox/{name}");
            let answer = system.client.get(&path).await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.text, read(&format!("src/inbox/{name}")), "{path}");
            assert_guarded(&answer, &path);
        }
        for path in [
            "/inbox/none.js",
            "/inbox/mod.rs",
            "/inbox/index.html",
            "/inbox/a/b",
            "/inbox/..%2fmod.rs",
        ] {
            let answer = system.client.get(path).await;
            answer.expect_problem(404, "not_found");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_guarded(&answer, path);
        }
        let answer = system.client.ask("POST", "/inbox", &[], "").await;
        answer.expect_problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn the_headers_of_other_answers_are_as_they_were() {
    let system = System::start().await;
    for path in ["/conversations", "/health", "/nothing", "/inboxes", "/"] {
        let answer = system.client.get(path).await;
        for name in [
            "content-security-policy",
            "cross-origin-opener-policy",
            "permissions-policy",
            "x-frame-options",
        ] {
            assert_eq!(answer.header(name), None, "{path}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    let page = system.client.get("/api/").await;
    assert_eq!(
        page.header("content-security-policy"),
        Some(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    );
    assert_eq!(page.header("cross-origin-opener-policy"), None);
}

#[tokio::test]
async fn what_a_browser_has_is_not_sent_again() {
    let system = System::start().await;
    let client = &system.client;
    let mut tags = Vec::new();
    let mut paths = vec!["/inbox".to_owned()];
    paths.extend(assets().into_iter().map(|name| format!("/inbox/{name}")));
    for path in &paths {
        let answer = client.get(path).await;
        let tag = answer.header("etag").unwrap();
        assert!(tag.starts_with('"') && tag.len() == 66, "{tag}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        let head = client.ask("HEAD", path, &[], "").await;
        assert_eq!((head.status, &*head.text), (200, ""));
        assert_eq!(head.header("etag"), Some(tag));
        let length = answer.text.len().to_string();
        assert_eq!(head.header("content-length"), Some(&*length));
        for known in [tag, &format!("W/{tag}"), &format!("\"x\", {tag}"), "*"] {
            for method in ["GET", "HEAD"] {
                let answer = client
                    .ask(method, path, &[("if-none-match", known)], "")
                    .await;
                assert_eq!((answer.status, &*answer.text), (304, ""), "{known}");
                assert_eq!(answer.header("etag"), Some(tag));
                assert_eq!(answer.header("cache-control"), Some("no-cache"));
                assert_guarded(&answer, path);
            }
        }
        let old = client
            .ask("GET", path, &[("if-none-match", "\"old\"")], "")
            .await;
        assert_eq!(old.status, 200);
        tags.push(tag.to_owned());
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), paths.len());
}

#[tokio::test]
async fn without_keys_the_page_opens_only_where_it_is_known_who_can_come() {
    let system = System::start().await;
    let here = &system.client;
    for (host, status) in [("localhost:1", 200), ("evil.example", 403)] {
        ask(here, "GET", "/inbox", &[("host", host)])
            .await
            .expect(status);
    }
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
    ];
    for path in ["/", "/inbox"] {
        assert!(ask(here, "GET", path, &link).await.status < 400);
        ask(here, "GET", path, &link[..1]).await.expect(403);
    }
    let public = ("HOST", "0.0.0.0");
    for (more, host, status) in [
        (&[][..], "gateway.lan", 403),
        (&[], "localhost", 403),
        (&[("ALLOWED_HOSTS", "gateway.lan")], "gateway.lan", 200),
        (&[("ALLOWED_HOSTS", "gateway.lan")], "127.0.0.1", 200),
        (&[("ALLOWED_HOSTS", "gateway.lan")], "evil.example", 403),
        (&[("ALLOWED_HOSTS", "*")], "gateway.lan", 200),
        (&[KEY], "gateway.lan", 200),
    ] {
        let environment = [&[public], more].concat();
        let (gateway, _) = serve_at(
            system.database.url(),
            &system.mock.url(),
            &["serve"],
            &environment,
        )
        .await;
        let port = gateway.url().rsplit(':').next().unwrap();
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        for path in ["/inbox", "/inbox/none"] {
            let answer = ask(&client, "GET", path, &[("host", host)]).await;
            let expected = if path == "/inbox" || status != 200 {
                status
            } else {
                404
            };
            assert_eq!(answer.status, expected, "{more:?} {host} {path}");
            assert_guarded(&answer, path);
            if more.is_empty() {
                let problem = answer.expect_problem(403, "forbidden");
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains("API_KEYS"), "{detail}");
            }
        }
    }
}

#[tokio::test]
async fn where_to_look_is_said_at_the_start() {
    let system = System::start().await;
    let line = system.gateway.logged("ready").await;
    assert_eq!(line["inbox"], system.client.url("/inbox"), "{line}");
    let hints = async |gateway: &crate::support::Program| {
        let log = gateway.log();
        log.iter()
            .filter(|line| line.contains("the inbox is empty"))
            .count()
    };
    system
        .gateway
        .logged("the inbox is empty: it fills with the first webhook")
        .await;
    assert_eq!(hints(&system.gateway).await, 1);
    let event = crate::support::hello("evt_1");
    system.client.webhook(&event).await.expect(200);
    let (mut second, _) = system.another(&[]).await;
    second.terminate().await;
    assert_eq!(hints(&second).await, 0);
}

#[tokio::test]
async fn made_up_customers_are_for_the_built_in_provider_only() {
    let system = System::with(&[KEY]).await;
    let call = async |key: Option<&str>| {
        let authorization = key.map(|key| ("authorization", format!("Bearer {key}")));
        let headers: Vec<_> = authorization
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        system.client.ask("POST", "/inbox/demo", &headers, "").await
    };
    call(None).await.expect_problem(401, "unauthorized");
    let key = Some("desk-key-of-16-or-more");
    call(key).await.expect_problem(403, "forbidden");
    let key = Some("all-key-of-16-or-more");
    call(key).await.expect_problem(404, "not_found");
    let open = System::start().await;
    let demo = |headers| ask(&open.client, "POST", "/inbox/demo", headers);
    demo(&[]).await.expect_problem(404, "not_found");
    demo(&[("sec-fetch-site", "cross-site")])
        .await
        .expect_problem(403, "forbidden");
    let document: Value = open.client.get("/api/openapi.json").await.expect(200);
    let paths = document["paths"].as_object().unwrap().keys();
    let of_page: Vec<_> = paths
        .filter(|path| path.starts_with("/inbox") || *path == "/")
        .collect();
    assert!(of_page.is_empty(), "{of_page:?}");
}
