//! Signatures: only a webhook that a secret has signed is taken in, and it is the raw body that is
//! signed.

use mock_meta_provider::{Config, Mock};
use serde_json::json;
use tokio::net::TcpListener;

use super::{KEYS, request, signed};
use crate::support::{Client, Database, System, eventually, hello, serve, signature};

#[tokio::test]
async fn only_a_webhook_that_one_of_the_secrets_has_signed_is_taken_in() {
    let system = System::with(&KEYS).await;
    let body = hello("evt_1").to_string();
    let good = signature("new-secret-of-16", &body);
    for bad in [
        None,
        Some(String::new()),
        Some("sha256=".to_owned()),
        Some(signature("another-secret", &body)),
        Some(signature("", &body)),
        Some(signature("new-secret-of-16", &hello("evt_2").to_string())),
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
        let body = hello(event_id).to_string();
        signed(&system.client, &body, Some(&signature(secret, &body)))
            .await
            .expect(200);
    }
    let (_gateway, client) = system
        .another(&[("WEBHOOK_SECRET", "new-secret-of-16")])
        .await;
    let body = hello("evt_3").to_string();
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
    let spaced = format!(" {}\n", hello("evt_1").to_string().replace(',', " , "));
    let answer = signed(
        &system.client,
        &spaced,
        Some(&signature("new-secret-of-16", &hello("evt_1").to_string())),
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
