//! No secret, no token and no message's text is in anything that the programs say: one whole run,
//! at the highest log level.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Answer, Client, Database, Program, Run, event, eventually, signature};

const KEY: &str = "tok-quokka-71";
const WEBHOOK_SECRET: &str = "sig-wombat-72";
const DATABASE_PASSWORD: &str = "dbpw-numbat-73";
const PROVIDER_PASSWORD: &str = "prpw-bilby-74";
/// `me:prpw-bilby-74`, as the wire has it.
const PROVIDER_TOKEN: &str = "bWU6cHJwdy1iaWxieS03NA";
const INBOUND: &str = "text-dugong-75";
const OUTBOUND: &str = "text-echidna-76";
/// A key and a signature that somebody tried.
const GUESSES: [&str; 2] = [
    "guess-potoroo-77",
    "90e55ed090e55ed090e55ed090e55ed090e55ed090e55ed090e55ed090e55ed0",
];

/// A provider that says again, in every kind of failure, what it was told.
async fn echo() -> String {
    async fn answer(text: String) -> (StatusCode, String) {
        let told = |error: bool| {
            json!({ "success": !error, "error": text, "retryable": true, "providerMessageId": "p-1" }).to_string()
        };
        let kinds = [
            ("final", StatusCode::UNPROCESSABLE_ENTITY, told(true)),
            ("later", StatusCode::TOO_MANY_REQUESTS, told(true)),
            ("broken", StatusCode::INTERNAL_SERVER_ERROR, text.clone()),
            ("garbled", StatusCode::OK, text.clone()),
            ("failed", StatusCode::OK, told(true)),
            ("moved", StatusCode::FOUND, text.clone()),
        ];
        let kind = kinds.into_iter().find(|(kind, ..)| text.contains(kind));
        kind.map_or_else(
            || (StatusCode::OK, told(false)),
            |(_, status, body)| (status, body),
        )
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/messages", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://me:{PROVIDER_PASSWORD}@{address}")
}

/// A command with all of the secrets.
fn with_secrets(subcommand: &str, database_url: &str, provider_url: &str) -> Run {
    Program::new(subcommand)
        .env("RUST_LOG", "trace")
        .env("DATABASE_URL", database_url)
        .env("PROVIDER_URL", provider_url)
        .env("API_KEYS", &format!("ops:{KEY}"))
        .env("WEBHOOK_SECRET", WEBHOOK_SECRET)
        .env("RETRY_BASE_MS", "1")
        .env("RETRY_MAX_ATTEMPTS", "2")
}

/// Calls that go well and that go wrong.
struct Caller(Client);

impl Caller {
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = self.0.ask("POST", path, headers, body.to_owned()).await;
        // The caller knows it already, whoever reads the caller's log does not.
        let is_repeated = [INBOUND, OUTBOUND]
            .iter()
            .any(|it| answer.text.contains(it));
        assert!(answer.status < 300 || !is_repeated, "{}", answer.text);
        answer
    }

    async fn send(&self, body: &str) -> Answer {
        let key = format!("Bearer {KEY}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", &key),
        ];
        self.post("/messages/send", &headers, body).await
    }

    async fn get(&self, path: &str, authorization: &str) -> Answer {
        let headers = [("authorization", authorization)];
        self.0.ask("GET", path, &headers, "").await
    }

    async fn webhook(&self, body: &str, signature: &str) -> Answer {
        let headers = [
            ("content-type", "application/json"),
            ("x-hub-signature-256", signature),
        ];
        self.post("/webhooks/mock-meta", &headers, body).await
    }

    async fn sends(&self) {
        for kind in [
            "well", "final", "later", "broken", "garbled", "failed", "moved",
        ] {
            let text = format!("{OUTBOUND} {kind}");
            let body =
                json!({ "channel": "whatsapp", "to": kind, "text": text, "clientMessageId": kind });
            let sent = self.send(&body.to_string()).await.expect(201);
            // The caller may know what the log must not.
            if kind == "final" {
                let detail = sent["lastError"]["detail"].as_str().unwrap();
                assert!(detail.contains(OUTBOUND), "{sent}");
            }
            let other = json!({ "channel": "whatsapp", "to": kind, "text": format!("{text} again"), "clientMessageId": kind });
            self.send(&other.to_string()).await.expect(200);
        }
        let refused = json!({ "channel": "whatsapp", "to": "x", "text": format!("{OUTBOUND} refused by the database") });
        assert!(self.send(&refused.to_string()).await.status >= 500);
        for bad in [
            format!("{{\"text\":\"{OUTBOUND}"),
            json!({ "channel": OUTBOUND, "to": "x", "text": OUTBOUND }).to_string(),
            json!({ "channel": "whatsapp", "to": { OUTBOUND: OUTBOUND }, "text": [OUTBOUND] })
                .to_string(),
            json!({ "channel": "whatsapp", "to": "x", "text": OUTBOUND.repeat(400) }).to_string(),
            json!({ "channel": "whatsapp", "to": "x", "text": format!("{OUTBOUND}\0") })
                .to_string(),
            json!(OUTBOUND).to_string(),
            json!([OUTBOUND, 1]).to_string(),
            format!("{{\"text\":\"{OUTBOUND}\",\"text\":\"{OUTBOUND}\"}}"),
        ] {
            self.send(&bad).await.expect(400);
        }
        self.post("/messages/send", &[], OUTBOUND).await.expect(401);
    }

    async fn webhooks(&self) {
        let at = "2025-01-01T10:00:00Z";
        let good = event("evt_1", "user-1", INBOUND, at).to_string();
        for _ in 0..2 {
            self.webhook(&good, &signature(WEBHOOK_SECRET, &good))
                .await
                .expect(200);
        }
        self.webhook(&good, &format!("sha256={}", GUESSES[1]))
            .await
            .expect(401);
        let refused = event(
            "evt_2",
            "user-1",
            &format!("{INBOUND} refused by the database"),
            at,
        )
        .to_string();
        assert!(
            self.webhook(&refused, &signature(WEBHOOK_SECRET, &refused))
                .await
                .status
                >= 500
        );
        for bad in [
            format!("{{\"text\":\"{INBOUND}"),
            event("evt_3", "user-1", INBOUND, INBOUND).to_string(),
            json!({ "eventId": "evt_4", "channel": INBOUND, "text": { "body": INBOUND } })
                .to_string(),
            event("evt_5", "user-1", &format!("{INBOUND}\0"), at).to_string() + "]",
            json!(INBOUND).to_string(),
            json!([INBOUND, 1]).to_string(),
            format!("{{\"text\":\"{INBOUND}\",\"text\":\"{INBOUND}\"}}"),
        ] {
            self.webhook(&bad, &signature(WEBHOOK_SECRET, &bad))
                .await
                .expect(400);
        }
    }

    async fn reads(&self) {
        let key = format!("Bearer {KEY}");
        for path in ["/conversations", "/messages?status=FAILED", "/metrics"] {
            self.get(path, &key).await.expect(200);
            self.get(path, &format!("Basic {KEY}")).await.expect(401);
            self.get(path, &format!("Bearer {}", GUESSES[0]))
                .await
                .expect(401);
        }
        for path in [
            "/messages?status=",
            "/conversations?cursor=",
            "/conversations?limit=",
        ] {
            self.get(&format!("{path}{OUTBOUND}"), &key)
                .await
                .expect(400);
        }
        self.get(&format!("/conversations/{OUTBOUND}"), &key)
            .await
            .expect(404);
        self.get(&format!("/{OUTBOUND}"), &key).await.expect(404);
    }

    /// Waits until both attempts at everything have failed; retries one, and cancels it.
    async fn operates(&self) {
        let key = format!("Bearer {KEY}");
        let failed = eventually("everything has failed", async || {
            let list = self
                .get("/messages?status=FAILED&limit=100", &key)
                .await
                .expect(200);
            let list = list["data"].as_array().unwrap().clone();
            (list.len() == 6
                && list
                    .iter()
                    .all(|message| message["nextAttemptAt"].is_null()))
            .then_some(list)
        })
        .await;
        let id = failed[0]["id"].as_str().unwrap();
        for act in ["retry", "cancel"] {
            let headers = [("authorization", &*key)];
            self.post(&format!("/messages/{id}/{act}"), &headers, "")
                .await;
        }
    }
}

#[tokio::test]
async fn nothing_that_a_run_says_has_a_secret_or_a_text_in_it() {
    let database = Database::new().await;
    // PostgreSQL trusts the tests; the password only has to be there.
    let database_url = database
        .url()
        .replacen('@', &format!(":{DATABASE_PASSWORD}@"), 1);
    let provider_url = echo().await;
    let mut gateway = with_secrets("serve", &database_url, &provider_url).start();
    gateway.logged("ready").await;
    let mut worker = with_secrets("worker", &database_url, &provider_url)
        .env("METRICS_ADDR", "127.0.0.1:0")
        .start();
    worker.logged("working").await;
    database
        .execute("alter table messages add constraint no check (text not like '%refused by the database%')")
        .await;

    let caller = Caller(Client::new(gateway.url()));
    caller.sends().await;
    caller.webhooks().await;
    caller.reads().await;
    caller.operates().await;

    let mut said = Vec::new();
    let nowhere = format!("http://me:{PROVIDER_PASSWORD}@127.0.0.1:1");
    for (subcommand, arguments, provider) in [
        ("retry", &["--list"][..], &provider_url),
        ("retry", &["--list", "--json"], &provider_url),
        ("retry", &["--all"], &provider_url),
        ("retry", &["--all"], &nowhere),
        ("worker", &["--drain"], &nowhere),
        ("migrate", &["--status"], &provider_url),
        ("seed", &[], &provider_url),
        ("serve", &["--help"], &provider_url),
        ("worker", &["--help"], &provider_url),
        ("migrate", &["--help"], &provider_url),
        ("seed", &["--help"], &provider_url),
        ("retry", &["--help"], &provider_url),
        ("simulate", &["--help"], &provider_url),
        ("--help", &[], &provider_url),
        ("serve", &["--port", "none"], &provider_url),
        ("serve", &["--host", "nowhere"], &provider_url),
    ] {
        let ended = with_secrets(subcommand, &database_url, provider)
            .args(arguments)
            .finish()
            .await;
        let place = format!("gateway {subcommand} {}", arguments.join(" "));
        assert!(
            !ended.stderr.contains("unexpected argument"),
            "{place}: {}",
            ended.stderr
        );
        said.extend(
            ended
                .stdout
                .lines()
                .chain(ended.stderr.lines())
                .map(|line| format!("{place}: {line}")),
        );
    }
    for program in [&mut gateway, &mut worker] {
        assert_eq!(program.terminate().await.code(), Some(0));
        said.extend(program.log());
    }

    let all = said.join("\n");
    for line in [
        "an attempt failed",
        "a webhook was refused",
        "a request failed",
        "made due",
        "answered",
        "rejected",
        "rate_limited",
        "server_error",
        "unreadable",
        "connection",
        "\"level\":\"TRACE\"",
        "\"target\":\"sqlx",
    ] {
        assert!(
            all.contains(line),
            "{line} is missing: this run did not try that"
        );
    }
    let good = event("evt_1", "user-1", INBOUND, "2025-01-01T10:00:00Z").to_string();
    let tag = signature(WEBHOOK_SECRET, &good);
    let secrets = [
        KEY,
        WEBHOOK_SECRET,
        DATABASE_PASSWORD,
        PROVIDER_PASSWORD,
        PROVIDER_TOKEN,
        INBOUND,
        OUTBOUND,
        GUESSES[0],
        GUESSES[1],
        tag.strip_prefix("sha256=").unwrap(),
    ];
    let told = said
        .iter()
        .filter(|line| secrets.iter().any(|secret| line.contains(secret)));
    assert_eq!(told.collect::<Vec<_>>(), [""; 0]);
}
