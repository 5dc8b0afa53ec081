//! What strangers try: it leaves a trace, they do not write the log with it, and it tells them
//! nothing.

use serde_json::json;

use super::{ask, signed};
use crate::support::graph::{SILENT, connected};
use crate::support::{
    Client, Database, Program, System, WEBHOOK, eventually, hello, mock, serve, signature,
};

const KEY: &str = "a-key-of-16-or-more";
const SECRET: &str = "a-secret-of-16-or-more";

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
        let mut lines = system.gateway.lines("a caller did not prove who it is");
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
    assert!(system.gateway.lines("a webhook was refused").is_empty());

    // A wrong one may be the provider's, with a secret that was mixed up: its ids are said, but not
    // without end.
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
    let lines = system.gateway.lines("a webhook was refused");
    assert!((50..=121).contains(&lines.len()), "{}", lines.len());
    assert_eq!(lines[0]["event_id"], "evt_1", "{}", lines[0]);
}

#[tokio::test]
async fn each_signed_webhook_that_is_refused_is_logged_with_its_event_id() {
    let system = System::with(&[("WEBHOOK_SECRET", SECRET)]).await;
    for n in 0..100 {
        let body = hello(&format!("evt_{n}")).to_string();
        let body = body.replace("whatsapp", "sms");
        let signature = signature(SECRET, &body);
        signed(&system.client, &body, Some(&signature))
            .await
            .expect(400);
    }
    let lines = eventually("all are said", async || {
        Some(system.gateway.lines("a webhook was refused")).filter(|lines| lines.len() == 100)
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
        let lines = gateway.lines(SAID);
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
            let ended = Program::on("postgres://me@127.0.0.1:1/gateway", &[command])
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
        let lines =
            worker.lines("API_KEYS is not set: everybody who can connect can read the metrics");
        assert_eq!(lines.len(), expected, "{address}: {lines:?}");
        assert!(lines.iter().all(|line| line["level"] == "WARN"));
        let of_webhooks = worker.log().concat().contains("WEBHOOK_SECRET");
        assert!(!of_webhooks, "it takes none");
    }
}

#[tokio::test]
async fn only_where_webhooks_may_come_unsigned_it_is_said() {
    for (provider, expected) in [(None, 1), (Some(("PROVIDER_URL", "")), 0)] {
        let mut environment = vec![("API_KEYS", KEY)];
        environment.extend(provider);
        let system = connected(SILENT, &environment).await;
        let lines = system
            .gateway
            .lines("WEBHOOK_SECRET is not set: everybody who can connect can post webhooks");
        assert_eq!(lines.len(), expected, "{provider:?}: {lines:?}");
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
