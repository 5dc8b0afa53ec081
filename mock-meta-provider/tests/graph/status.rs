//! What became of a message, told to the webhook.

use std::time::Duration;

use axum::http::StatusCode;
use mock_meta_provider::{WhatsappBehaviour, edge::signature};
use serde_json::{Value, json};

use super::{APP_SECRET, Graph, MESSAGE_ID, OPAQUE, PHONE, TO, text};
use crate::support::{Answer, until};

const CALM: WhatsappBehaviour = WhatsappBehaviour::CALM;

#[tokio::test]
async fn sent_delivered_and_read_come_in_order_signed_and_in_metas_form() {
    let graph = Graph::calm().await;
    let answer = graph.send().await;
    assert_eq!(graph.statuses(3).await, ["sent", "delivered", "read"]);
    for post in graph.receiver.received() {
        let signature = post.headers["X-Hub-Signature-256"].to_str().unwrap();
        assert_eq!(signature, signature::sign(APP_SECRET, &post.body));
    }
    let value = &graph.values()[0];
    assert_eq!(value["metadata"]["phone_number_id"], PHONE);
    assert_eq!(value["contacts"][0]["wa_id"], TO);
    let status = &value["statuses"][0];
    assert_eq!(status["id"], answer.body["messages"][0]["id"]);
    assert_eq!(status["recipient_id"], TO);
    assert_eq!(status["recipient_user_id"], value["contacts"][0]["user_id"]);
    assert_eq!(status["biz_opaque_callback_data"], OPAQUE);
    assert!(status["timestamp"].as_str().unwrap().parse::<u64>().is_ok());
}

#[tokio::test]
async fn a_voice_message_is_played_and_not_every_message_is_read() {
    let graph = Graph::calm().await;
    let mut audio = text();
    audio["type"] = json!("audio");
    audio["audio"] = json!({ "id": "1" });
    graph.call(audio).await;
    assert_eq!(
        graph.statuses(4).await,
        ["sent", "delivered", "read", "played"]
    );
    let graph = Graph::behaving(WhatsappBehaviour {
        status_read_rate: 0.0,
        ..CALM
    })
    .await;
    graph.send().await;
    graph.send().await;
    let mut names = graph.statuses(4).await;
    names.sort();
    assert_eq!(names, ["delivered", "delivered", "sent", "sent"]);
}

#[tokio::test]
async fn an_early_status_is_there_before_the_answer() {
    let graph = Graph::behaving(WhatsappBehaviour {
        status_early_rate: 1.0,
        ..CALM
    })
    .await;
    graph.send().await;
    assert_eq!(graph.items("statuses")[0]["status"], "sent");
    graph.statuses(3).await;
}

#[tokio::test]
async fn a_late_status_comes_after_its_wait_and_none_at_all_never() {
    let late = WhatsappBehaviour {
        status_late_rate: 1.0,
        status_late_ms: 300,
        ..CALM
    };
    let graph = Graph::behaving(late).await;
    let started = std::time::Instant::now();
    graph.send().await;
    graph.statuses(3).await;
    let first = graph.receiver.received()[0].at;
    assert!(first.duration_since(started) >= Duration::from_millis(300));

    let graph = Graph::behaving(WhatsappBehaviour {
        status_never_rate: 1.0,
        ..CALM
    })
    .await;
    graph.send().await;
    assert_eq!(graph.provider.mock.stats().whatsapp.statuses, 0);
    assert_eq!(graph.provider.mock.stats().webhooks.events, 0);
}

#[tokio::test]
async fn statuses_come_twice_or_in_the_reverse_order() {
    let graph = Graph::behaving(WhatsappBehaviour {
        status_duplicate_rate: 1.0,
        ..CALM
    })
    .await;
    graph.send().await;
    let mut names = graph.statuses(6).await;
    names.sort();
    assert_eq!(
        names,
        ["delivered", "delivered", "read", "read", "sent", "sent"]
    );

    let graph = Graph::behaving(WhatsappBehaviour {
        status_out_of_order_rate: 1.0,
        ..CALM
    })
    .await;
    graph.send().await;
    assert_eq!(graph.statuses(3).await, ["read", "delivered", "sent"]);
}

#[tokio::test]
async fn all_in_one_body_stand_with_a_foreign_one_an_unknown_one_and_another_field() {
    let graph = Graph::behaving(WhatsappBehaviour {
        status_batch_rate: 1.0,
        ..CALM
    })
    .await;
    graph.send().await;
    let names = graph.statuses(5).await;
    assert_eq!(
        names,
        ["delivered", "sent", "delivered", "read", "in_orbit"]
    );
    let changes = graph.changes();
    assert_eq!(
        (changes.len(), &changes[0]["field"]),
        (2, &json!("account_update"))
    );
    let foreign = &graph.items("statuses")[0];
    assert!(foreign["biz_opaque_callback_data"].is_null());
}

#[tokio::test]
async fn a_message_can_fail_after_it_was_accepted() {
    let failed = WhatsappBehaviour {
        status_failed_rate: 1.0,
        status_failed_code: 131_047,
        ..CALM
    };
    let graph = Graph::behaving(failed).await;
    assert_eq!(graph.send().await.status, 200);
    until("the failure", || {
        graph
            .items("statuses")
            .iter()
            .any(|status| status["status"] == "failed")
    })
    .await;
    let failed = graph
        .items("statuses")
        .into_iter()
        .find(|status| status["status"] == "failed")
        .unwrap();
    assert_eq!(failed["errors"][0]["code"], 131_047);
    assert_eq!(failed["errors"][0]["title"], "Re-engagement message");
    assert!(failed["errors"][0]["error_data"]["details"].is_string());
}

#[tokio::test]
async fn a_status_may_name_no_recipient_or_only_the_user_id() {
    let graph = Graph::behaving(WhatsappBehaviour {
        status_bare_rate: 1.0,
        ..CALM
    })
    .await;
    graph.send().await;
    graph.statuses(3).await;
    let (value, status) = (&graph.values()[0], &graph.items("statuses")[0]);
    assert!(
        value["contacts"].is_null()
            && status["recipient_id"].is_null()
            && status["recipient_user_id"].is_null()
    );

    let graph = Graph::behaving(WhatsappBehaviour {
        status_user_id_rate: 1.0,
        ..CALM
    })
    .await;
    graph.send().await;
    graph.statuses(3).await;
    let (value, status) = (&graph.values()[0], &graph.items("statuses")[0]);
    assert!(value["contacts"][0]["wa_id"].is_null() && status["recipient_id"].is_null());
    assert!(
        status["recipient_user_id"]
            .as_str()
            .unwrap()
            .starts_with("US.")
    );
}

#[tokio::test]
async fn a_status_of_an_unknown_message_comes_first() {
    let graph = Graph::behaving(WhatsappBehaviour {
        status_foreign_rate: 1.0,
        ..CALM
    })
    .await;
    let answer = graph.send().await;
    assert_eq!(
        graph.statuses(4).await,
        ["delivered", "sent", "delivered", "read"]
    );
    let ids: Vec<Value> = graph
        .items("statuses")
        .into_iter()
        .map(|status| status["id"].clone())
        .collect();
    let ours = &answer.body["messages"][0]["id"];
    assert!(ids[0] != *ours && ids[1..].iter().all(|id| id == ours));
}

#[tokio::test]
async fn a_post_is_repeated_until_200_and_goes_where_the_webhook_is_by_then() {
    let refused = [
        (StatusCode::SERVICE_UNAVAILABLE, None),
        (StatusCode::ACCEPTED, None),
    ];
    let graph = Graph::start(CALM, refused).await;
    graph.send().await;
    let mut names = graph.statuses(3).await;
    names.sort();
    assert_eq!(names, ["delivered", "read", "sent"]);
    assert_eq!(graph.receiver.received().len(), 5);

    let nowhere = Graph::calm().await;
    nowhere
        .provider
        .mock
        .set_whatsapp_webhook_url("http://127.0.0.1:1/")
        .unwrap();
    nowhere.send().await;
    until("a try", || {
        nowhere.provider.mock.stats().webhooks.failed > 0
    })
    .await;
    let change = json!({ "webhookUrl": nowhere.receiver.url });
    assert_eq!(
        nowhere
            .provider
            .post("/config/whatsapp", change)
            .await
            .status,
        200
    );
    nowhere.statuses(3).await;
}

#[tokio::test]
async fn one_status_can_be_posted_by_hand() {
    let graph = Graph::behaving(WhatsappBehaviour {
        status_never_rate: 1.0,
        ..CALM
    })
    .await;
    let wamid = graph.send().await.body["messages"][0]["id"].clone();
    let by_hand =
        async |request: Value| -> Answer { graph.provider.post("/simulate/status", request).await };
    let shown = format!("msg_{}", MESSAGE_ID.replace('-', ""));
    let answer = by_hand(json!({ "messageId": shown, "status": "delivered" })).await;
    assert_eq!(
        answer.body,
        json!({ "success": true, "wamid": wamid, "status": 200 })
    );
    by_hand(json!({ "wamid": wamid, "status": "failed", "code": 131_049, "opaque": "", "timestamp": "1" })).await;
    by_hand(json!({ "wamid": "wamid.X", "status": "in_orbit", "opaque": OPAQUE, "bare": true }))
        .await;
    let statuses = graph.items("statuses");
    let seen: Vec<Value> = statuses
        .iter()
        .map(|status| {
            json!([
                status["id"],
                status["status"],
                status["biz_opaque_callback_data"],
                status["recipient_id"]
            ])
        })
        .collect();
    let expected = [
        json!([wamid, "delivered", OPAQUE, TO]),
        json!([wamid, "failed", null, TO]),
        json!(["wamid.X", "in_orbit", OPAQUE, null]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(
        (&statuses[1]["timestamp"], &statuses[1]["errors"][0]["code"]),
        (&json!("1"), &json!(131_049))
    );
    let unknown = by_hand(json!({ "messageId": "nobody's", "status": "sent" })).await;
    assert_eq!(unknown.failure().0, 400);
}
