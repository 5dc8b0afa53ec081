//! Messages as WhatsApp has them, and files as the gateway gets them there.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::gate::File;
use crate::stage::Stage;

/// A picture of four pixels by three.
pub const PICTURE: &[u8] = include_bytes!("picture.png");
pub const CUSTOMER: &str = "491701234567";

pub fn picture() -> File {
    File {
        status: 200,
        content_type: "image/png",
        bytes: Bytes::from_static(PICTURE),
    }
}

pub fn problem(status: u16, code: &str, detail: &str) -> File {
    let problem = json!({ "title": "-", "status": status, "code": code, "detail": detail });
    File {
        status,
        content_type: "application/problem+json",
        bytes: problem.to_string().into(),
    }
}

/// A message of this type comes from the customer; its conversation and its own id.
pub async fn comes(stage: &Stage, text: &str, kind: &str, content: &Value) -> (String, String) {
    let conversation = stage.writes(CUSTOMER, text).await;
    let shown = stage.conversation(&conversation).await;
    let id = shown["messages"][0]["id"].as_str().unwrap().to_owned();
    change(
        stage,
        &id,
        "type = $2, content = $3",
        &[kind, &content.to_string()],
    )
    .await;
    (conversation, id)
}

/// Something about a message is other than it came.
pub async fn change(stage: &Stage, id: &str, what: &str, values: &[&str]) {
    let id = uuid::Uuid::parse_str(id.trim_start_matches("msg_")).unwrap();
    let statement = format!("update messages set {what}, revision = revision + 1 where id = $1");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id);
    for value in values {
        query = query.bind((*value).to_owned());
    }
    let done = query.execute(stage.system.database.pool()).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// One of each type that a person has anything of.
pub async fn one_of_each(stage: &Stage) -> String {
    let image = json!({ "id": "11", "mime_type": "image/png", "caption": "Look at it" });
    let contacts = json!([{ "name": { "formatted_name": "Max Mustermann" },
        "phones": [{ "phone": "+49 151 1234567" }] }]);
    let form = r#"{"flow_token":"t","size":"M"}"#;
    let order = json!({ "product_items": [{ "product_retailer_id": "lamp", "quantity": 2,
        "item_price": 10.5, "currency": "EUR" }] });
    for (text, kind, content) in [
        ("Look at it", "image", image),
        ("[sticker]", "sticker", json!({ "id": "12" })),
        ("[video]", "video", json!({ "id": "13" })),
        (
            "[voice message]",
            "audio",
            json!({ "id": "14", "voice": true }),
        ),
        (
            "Invoice.pdf",
            "document",
            json!({ "id": "15", "filename": "Invoice.pdf" }),
        ),
        (
            "[location] Home",
            "location",
            json!({ "latitude": 41.5, "longitude": "28.25", "name": "Home" }),
        ),
        ("[contact] Max Mustermann", "contacts", contacts),
        (
            "Yes",
            "interactive",
            json!({ "button_reply": { "id": "y", "title": "Yes" } }),
        ),
        (
            "Sent",
            "interactive",
            json!({ "nfm_reply": { "response_json": form } }),
        ),
        ("[order] 2 items", "order", order),
        (
            "[unsupported message]",
            "unsupported",
            json!({ "errors": [{ "title": "No" }] }),
        ),
    ] {
        comes(stage, text, kind, &content).await;
    }
    comes(stage, "[hologram]", "hologram", &json!({})).await.0
}

/// Our message of this text, sent; its id.
pub async fn sends(stage: &Stage, text: &str) -> String {
    let message = stage.system.send(CUSTOMER, text).await;
    let id = message["id"].as_str().unwrap().to_owned();
    stage.system.message_becomes(&id, "SENT").await;
    id
}

/// What the provider has said of a message.
pub async fn is_told(stage: &Stage, id: &str, what: &str) {
    let shown = stage.system.message(id).await;
    let wamid = shown["providerMessageId"].as_str().unwrap();
    let statement = format!(
        "insert into receipts (provider_message_id) values ($1)
         on conflict (provider_message_id) do update set {what}, received_at = now()"
    );
    for _ in 0..2 {
        let query = sqlx::query(sqlx::AssertSqlSafe(statement.clone())).bind(wamid);
        query.execute(stage.system.database.pool()).await.unwrap();
    }
}
