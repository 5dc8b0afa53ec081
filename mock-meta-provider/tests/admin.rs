//! Configuring and observing over HTTP.

use mock_meta_provider::{Behaviour, Config, ConfigError, Fault, Ledger, Mock, StartError, Stats};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Provider, message};

const SECRET: &str = "top-secret";

#[tokio::test]
async fn the_configuration_shows_every_field_and_never_the_secret() {
    let config = Config {
        webhook_secret: Some(SECRET.into()),
        behaviour: Behaviour::DEFAULT,
        seed: Some(9),
        ..Config::calm()
    };
    assert!(!format!("{config:?}").contains(SECRET));
    let provider = Provider::start(config).await;
    let answer = provider.get("/config").await;
    assert_eq!(
        answer.body,
        json!({ "success": true, "seed": 9, "config": {
            "failureRate": 0.3, "duplicateRate": 0.2, "outOfOrderRate": 0.15, "delayMaxMs": 2000,
            "rateLimitRate": 0.0, "serverErrorRate": 0.0, "rejectRate": 0.0, "lostAnswerRate": 0.0, "resetRate": 0.0,
            "hangRate": 0.0, "unreadableRate": 0.0, "retryAfterSeconds": null, "hangMs": 60_000, "dedupe": true,
        }})
    );
}

#[tokio::test]
async fn given_fields_are_merged_and_the_others_stay() {
    let provider = Provider::calm().await;
    let patch = json!({ "failureRate": 1, "retryAfterSeconds": 3, "unknown": "ignored" });
    let answer = provider.post("/config", patch).await;
    assert_eq!(
        (answer.status, answer.body["success"].as_bool()),
        (200, Some(true))
    );
    let expected = Behaviour {
        failure_rate: 1.0,
        retry_after_seconds: Some(3.0),
        ..Behaviour::CALM
    };
    assert_eq!(provider.mock.behaviour(), expected);
    let shown = provider.get("/config").await.body;
    assert_eq!(shown["config"], answer.body["config"]);
    let echoed = provider.post("/config", shown["config"].clone()).await;
    assert_eq!(
        echoed.body["config"], shown["config"],
        "what is shown can be given back"
    );
}

#[tokio::test]
async fn a_wrong_field_is_400_named_and_changes_nothing() {
    let provider = Provider::calm().await;
    let cases = [
        ("failureRate", json!(1.1)),
        ("failureRate", json!("often")),
        ("failureRate", json!(null)),
        ("duplicateRate", json!(-0.1)),
        ("hangRate", json!(2)),
        ("delayMaxMs", json!(-1)),
        ("delayMaxMs", json!(600_001)),
        ("delayMaxMs", json!(1.5)),
        ("hangMs", json!(3_600_001)),
        ("retryAfterSeconds", json!(86_401)),
        ("dedupe", json!("no")),
    ];
    for (field, value) in cases {
        let answer = provider
            .post("/config", json!({ "rejectRate": 1, field: value }))
            .await;
        let (status, error) = answer.failure();
        assert!(
            status == 400 && error.starts_with(field),
            "{field}: {status} {error}"
        );
        assert_eq!(provider.mock.behaviour(), Behaviour::CALM, "{field}");
    }
}

#[tokio::test]
async fn code_cannot_start_or_set_what_is_out_of_bounds() {
    let behaviour = Behaviour {
        hang_rate: f64::NAN,
        ..Behaviour::CALM
    };
    let provider = Provider::calm().await;
    let error = provider.mock.set_behaviour(behaviour.clone()).unwrap_err();
    assert_eq!(error.to_string(), "hangRate: must be from 0 to 1");
    for config in [
        Config {
            behaviour,
            ..Config::calm()
        },
        Config {
            webhook_url: "ftp://localhost/".to_owned(),
            ..Config::calm()
        },
        Config {
            webhook_max_tries: 0,
            ..Config::calm()
        },
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = Mock::start(config, listener).unwrap_err();
        assert!(
            matches!(error, StartError::Config(ConfigError::Invalid { .. })),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn the_ledger_shows_keys_and_conversations() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::rate_limit()]);
    provider.send("key-1").await;
    let id = provider.send("key-1").await.id().to_owned();
    provider.send("key-2").await;
    provider
        .post("/messages", message("other-2", "hello"))
        .await;
    let all = provider.get("/ledger").await.body;
    assert_eq!(
        serde_json::from_value::<Ledger>(all.clone()).unwrap(),
        provider.mock.ledger()
    );
    assert_eq!(all["messages"].as_array().unwrap().len(), 3);
    let filtered = provider.get("/ledger?participantPrefix=user-").await.body;
    assert_eq!(
        filtered["messages"][0],
        json!({ "idempotencyKey": "key-1", "channel": "whatsapp", "participantId": "user-1", "clientMessageId": "c-1",
            "providerMessageId": id, "calls": 2, "deliveries": 1, "overlappingCalls": 0, "maxOverlappingCalls": 1, "mismatchedCalls": 0 })
    );
    assert_eq!(filtered["messages"].as_array().unwrap().len(), 2);
    assert_eq!(
        filtered["conversations"],
        json!([{ "channel": "whatsapp", "participantId": "user-1", "texts": ["key-1", "key-2"] }])
    );
    assert_eq!(
        (&filtered["droppedKeys"], &filtered["droppedDeliveries"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn the_counters_show_each_kind_by_name() {
    let provider = Provider::calm().await;
    provider.mock.script(
        "user-1",
        [
            Fault::rate_limit(),
            Fault::server_error(500),
            Fault::Reject,
            Fault::Unreadable,
        ],
    );
    for _ in 0..5 {
        provider.send("key-1").await;
    }
    let stats = provider.get("/stats").await.body;
    assert_eq!(
        serde_json::from_value::<Stats>(stats.clone()).unwrap(),
        provider.mock.stats()
    );
    assert_eq!(
        stats,
        json!({ "success": true, "totalMessages": 1, "calls": 5, "accepted": 2, "deduplicated": 1, "keyMismatches": 0,
            "faults": { "rateLimit": 1, "serverError": 1, "reject": 1, "lostAnswer": 0, "reset": 0, "hang": 0,
                "unreadable": 1, "status": 0, "delay": 0 },
            "webhooks": { "events": 0, "sent": 0, "failed": 0, "givenUp": 0, "duplicates": 0, "outOfOrder": 0,
                "pending": 0 } })
    );
}

#[tokio::test]
async fn a_reset_empties_everything_but_the_configuration() {
    let provider = Provider::calm().await;
    provider.post("/config", json!({ "hangMs": 77 })).await;
    let first = provider.send("key-1").await;
    provider.mock.script("user-1", [Fault::Reject]);
    assert_eq!(provider.post("/reset", json!({})).await.status, 200);
    assert_eq!(provider.mock.stats().calls, 0);
    assert!(provider.mock.ledger().messages.is_empty());
    assert_ne!(
        provider.send("key-1").await.id(),
        first.id(),
        "nothing is a repeat any more"
    );
    assert_eq!(provider.mock.behaviour().hang_ms, 77);
}

#[tokio::test]
async fn only_json_gets_in_and_every_refusal_has_the_form_of_a_failure() {
    let provider = Provider::calm().await;
    let cases = [
        (Method::POST, "/messages", "text/plain", "{}", 415),
        (
            Method::POST,
            "/simulate/inbound",
            "application/x-www-form-urlencoded",
            "a=b",
            415,
        ),
        (Method::POST, "/config", "text/plain", "{}", 415),
        (Method::POST, "/script", "text/plain", "{}", 415),
        (Method::POST, "/reset", "text/plain", "", 415),
        (
            Method::POST,
            "/messages",
            "application/json",
            "{\"channel\":",
            400,
        ),
        (Method::POST, "/messages", "application/json", "", 400),
        (Method::POST, "/messages", "application/json", "[]", 400),
        (Method::POST, "/config", "application/json", "{} {}", 400),
        (
            Method::POST,
            "/config",
            "application/json; charset=utf-8",
            "[]",
            400,
        ),
        (Method::GET, "/nowhere", "application/json", "", 404),
        (Method::DELETE, "/messages", "application/json", "", 405),
        (Method::GET, "/reset", "application/json", "", 405),
    ];
    for (method, path, content_type, body, expected) in cases {
        let url = format!("{}{path}", provider.mock.url());
        let request = provider
            .client
            .request(method, url)
            .header("content-type", content_type)
            .body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), expected, "{path} {content_type} {body}");
        let failure: Value = answer.json().await.unwrap();
        assert_eq!(
            (&failure["success"], &failure["retryable"]),
            (&json!(false), &json!(false))
        );
    }
    let without_type = provider
        .client
        .post(format!("{}/messages", provider.mock.url()))
        .body("{}")
        .send()
        .await;
    assert_eq!(without_type.unwrap().status(), 415);
}

#[tokio::test]
async fn a_body_over_256_kib_is_413() {
    let provider = Provider::calm().await;
    let answer = provider
        .post("/messages", message("user-1", &"x".repeat(300 * 1024)))
        .await;
    assert_eq!(answer.failure().0, 413);
}

#[tokio::test]
async fn health_is_ok() {
    let provider = Provider::calm().await;
    assert_eq!(
        provider.get("/health").await.body,
        json!({ "status": "ok" })
    );
}

/// Every route but `/health`.
const ROUTES: [(&str, &str); 9] = [
    ("POST", "/messages"),
    ("GET", "/messages/msg_1"),
    ("POST", "/simulate/inbound"),
    ("GET", "/config"),
    ("POST", "/config"),
    ("POST", "/script"),
    ("GET", "/ledger"),
    ("GET", "/stats"),
    ("POST", "/reset"),
];

#[tokio::test]
async fn a_web_page_of_another_origin_or_by_another_name_cannot_do_anything() {
    let provider = Provider::calm().await;
    let own = provider.mock.url();
    for (method, path) in ROUTES {
        let call = async |headers: &[(&str, &str)]| {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = provider
                .client
                .request(method, format!("{own}{path}"))
                .json(&json!({}));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        for foreign in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[
                ("host", "evil.example:4000"),
                ("origin", "http://evil.example:4000"),
            ],
        ] {
            let (status, body) = call(foreign).await;
            assert!(
                status == 403 && body.contains("\"success\":false"),
                "{path}: {status} {body}"
            );
        }
        for known in [&[][..], &[("origin", &*own)], &[("host", "localhost:4000")]] {
            assert_ne!(call(known).await.0, 403, "{path}");
        }
    }
    let health = provider
        .client
        .get(format!("{own}/health"))
        .header("host", "10.1.2.3");
    assert_eq!(health.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_web_page_cannot_post_what_it_may_post_without_asking() {
    let provider = Provider::calm().await;
    for (_, path) in ROUTES.into_iter().filter(|(method, _)| *method == "POST") {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
        ] {
            let request = provider
                .client
                .post(format!("{}{path}", provider.mock.url()));
            let request = request.header("content-type", kind);
            let body = r#"{"channel":"whatsapp","to":"a","from":"a","text":"a","clientMessageId":"a","answers":[]}"#;
            let status = request.body(body).send().await.unwrap().status();
            assert_eq!(status, 415, "{path} {kind}");
        }
    }
    assert_eq!(provider.mock.stats().calls, 0);
}

#[tokio::test]
async fn a_host_that_is_allowed_by_name_is_like_this_machine() {
    let config = Config {
        allowed_hosts: vec!["mock.example".to_owned()],
        ..Config::calm()
    };
    let provider = Provider::start(config).await;
    for (host, status) in [("mock.example:4000", 200), ("evil.example", 403)] {
        let request = provider
            .client
            .get(format!("{}/stats", provider.mock.url()));
        let answer = request.header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
}
