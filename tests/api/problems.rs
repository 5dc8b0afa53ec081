//! Problems: whatever is wrong with a request, it gets the right status and the one shape, and its
//! id is in the log.

use serde_json::Value;

use super::UNKNOWN;
use crate::api::openapi::ROUTES;
use crate::support::{System, eventually};

const CONVERSATION_VERBS: [&str; 5] = ["read", "close", "reopen", "archive", "unarchive"];

#[tokio::test]
async fn an_unknown_route_is_not_found() {
    let system = System::start().await;
    for path in [
        "/nothing",
        "/nothing/",
        "//",
        "/messages//",
        "/messages/send/again",
        "/conversations/x/y/z",
        "/webhooks/other",
        "/health//",
        "/health%2f",
        "/api/nothing.js",
        "/%ff",
    ] {
        let answer = system.client.get(path).await;
        answer.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn any_other_spelling_of_an_id_names_nothing() {
    let system = System::start().await;
    let message = system.send("user-1", "Hi").await;
    let spellings = |prefix: &str, id: &Value| {
        let digits = id.as_str().unwrap()[prefix.len()..].to_owned();
        let dashed = uuid::Uuid::parse_str(&digits).unwrap().to_string();
        [
            format!("{prefix}{UNKNOWN}"),
            format!("{prefix}{}", digits.to_uppercase()),
            format!("{}{digits}", prefix.to_uppercase()),
            format!("{prefix}{dashed}"),
            format!("{prefix}{}", &digits[1..]),
            format!("{prefix}{digits}0"),
            format!("{prefix}{{{dashed}}}"),
            format!("%20{prefix}{digits}"),
            format!("{prefix}{digits}%00"),
            digits,
            format!("{prefix}%ff"),
            prefix.to_owned(),
        ]
    };
    let mut messages = spellings("msg_", &message["id"]).to_vec();
    messages.push(message["conversationId"].as_str().unwrap().to_owned());
    let mut conversations = spellings("conv_", &message["conversationId"]).to_vec();
    conversations.push(message["id"].as_str().unwrap().to_owned());

    for (nouns, ids, verbs) in [
        ("messages", messages, &["retry", "cancel"][..]),
        ("conversations", conversations, &CONVERSATION_VERBS),
    ] {
        for id in ids {
            let answer = system.client.get(&format!("/{nouns}/{id}")).await;
            answer.expect_problem(404, "not_found");
            for verb in verbs {
                let path = format!("/{nouns}/{id}/{verb}");
                let answer = system.client.ask("POST", &path, &[], "").await;
                answer.expect_problem(404, "not_found");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_those_that_are_allowed() {
    let system = System::start().await;
    for (_, path) in ROUTES {
        let of_path = ROUTES.into_iter().filter(|(_, other)| *other == path);
        let methods: Vec<_> = of_path.map(|(method, _)| method).collect();
        let path = path.replace("{id}", &format!("msg_{UNKNOWN}"));
        let others = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        for other in others.into_iter().filter(|other| !methods.contains(other)) {
            let answer = system.client.ask(other, &path, &[], "").await;
            answer.expect_problem(405, "method_not_allowed");
            let mut allow: Vec<_> = answer
                .header("allow")
                .unwrap()
                .split(',')
                .map(str::trim)
                .collect();
            let mut expected = methods.clone();
            expected.extend(methods.contains(&"GET").then_some("HEAD"));
            allow.sort_unstable();
            expected.sort_unstable();
            assert_eq!(allow, expected, "{path}");
        }
    }
    let answer = system
        .client
        .ask("POST", "/api/openapi.json", &[], "")
        .await;
    answer.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_request_id_of_visible_ascii_is_echoed_and_any_other_replaced() {
    let system = System::start().await;
    let longest = "x".repeat(128);
    let with_id = async |path: &str, id: &[u8]| {
        let request = system
            .client
            .http
            .get(system.client.url(path))
            .header("x-request-id", id);
        let answer = system.client.call(request).await.unwrap();
        answer.header("x-request-id").unwrap().to_owned()
    };
    for path in [
        "/health",
        "/conversations",
        "/nothing",
        "/conversations?page=0",
        "/api/openapi.json",
    ] {
        for id in ["x", "!~\"{}", &longest] {
            assert_eq!(with_id(path, id.as_bytes()).await, id, "{path}");
        }
        for id in ["", "a b", "ş", &format!("{longest}x")] {
            let made = with_id(path, id.as_bytes()).await;
            assert!(made.starts_with("req_") && made.len() == 36, "{made}");
            assert_ne!(
                made,
                with_id(path, id.as_bytes()).await,
                "one id for two requests"
            );
        }
    }
}

#[tokio::test]
async fn a_gateway_that_lacks_a_migration_is_not_ready_and_says_so() {
    let system = System::start().await;
    system.client.get("/ready").await.expect(200);
    system
        .database
        .execute("update _sqlx_migrations set success = false where version = 1")
        .await;
    // A look is up to a second old.
    let answer = eventually("it is not ready", async || {
        let answer = system.client.get("/ready").await;
        (answer.status != 200).then_some(answer)
    });
    let problem = answer.await.expect_problem(503, "database_unavailable");
    assert!(
        problem["detail"].as_str().unwrap().contains("migrations"),
        "{problem}"
    );
    system
        .database
        .execute("update _sqlx_migrations set success = true")
        .await;
    eventually("it is ready again", async || {
        (system.client.get("/ready").await.status == 200).then_some(())
    })
    .await;
}
