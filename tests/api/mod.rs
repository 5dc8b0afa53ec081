//! The API: what a request is answered, and who may make it.

mod bodies;
mod callers;
mod cloud;
mod conversations;
mod fields;
mod finding;
mod framing;
mod headers;
mod inbox;
mod keys;
mod large_bodies;
mod logins;
mod media;
pub mod openapi;
mod origins;
mod ownership;
mod page;
mod parameters;
mod paths;
mod preferences;
mod problems;
mod reading;
mod refusals;
mod revisions;
mod sending;
mod sessions;
mod signatures;
mod sizes;
mod strangers;
mod webhooks;

use serde_json::{Value, json};

use crate::support::{Answer, Client, System, WEBHOOK, hello};

const JSON: (&str, &str) = ("content-type", "application/json");
const UNKNOWN: &str = "01941f297c0070008000000000000001";

fn outbound() -> Value {
    json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi", "clientMessageId": "order-1" })
}

/// The two requests with a body: where they go, a good one, and what answers it.
fn bodies() -> [(&'static str, Value, u16); 2] {
    [
        ("/webhooks/mock-meta", hello("evt_1"), 200),
        ("/messages/send", outbound(), 201),
    ]
}

fn with(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

/// Posts bytes as JSON.
async fn post_raw(client: &Client, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    post_as(client, path, Some("application/json"), body).await
}

async fn post_as(
    client: &Client,
    path: &str,
    content_type: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Answer {
    let content_type = content_type.map(|value| ("content-type", value));
    client
        .ask("POST", path, content_type.as_slice(), body)
        .await
}

async fn rows(system: &System) -> i64 {
    let tables = "select (select count(*) from messages) + (select count(*) from conversations) + (select count(*) from webhook_events)";
    system.database.count(tables).await
}

/// A gateway that asks for keys and signatures.
const KEYS: [(&str, &str); 2] = [
    (
        "API_KEYS",
        "alpha-key-of-16-or-more, beta-key-of-16-or-more",
    ),
    ("WEBHOOK_SECRET", "old-secret-of-16,new-secret-of-16"),
];

/// Makes a request, with an `Authorization` where one is given.
async fn request(client: &Client, method: &str, path: &str, authorization: Option<&str>) -> Answer {
    let authorization = authorization.map(|value| ("authorization", value));
    client.ask(method, path, authorization.as_slice(), "").await
}

/// A request with these headers, and a body that fits where there can be one.
async fn ask(client: &Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    if !path.starts_with("/webhooks") && path != "/messages/send" {
        return client.ask(method, path, headers, "").await;
    }
    let body = json!({
        "channel": "whatsapp", "to": "user-1", "text": "Hi",
        "eventId": "evt_1", "from": "user-1", "timestamp": "2025-01-01T10:00:00Z",
    });
    let headers = [&[JSON], headers].concat();
    client.ask(method, path, &headers, body.to_string()).await
}

/// Posts a webhook with this signature.
async fn signed(client: &Client, body: &str, signature: Option<&str>) -> Answer {
    let signature = signature.map(|value| ("x-hub-signature-256", value));
    let headers = [&[JSON], signature.as_slice()].concat();
    client.ask("POST", WEBHOOK, &headers, body.to_owned()).await
}
