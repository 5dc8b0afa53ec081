//! Headers of answers: what a browser or a cache may do with them.

use super::{ask, request};
use crate::api::openapi::ROUTES;
use crate::support::System;

const KEY: &str = "a-key-of-16-or-more";
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
        let cache = if path == "/events" {
            "no-store, no-transform"
        } else {
            "no-store"
        };
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
    }
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
