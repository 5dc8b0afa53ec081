//! The bodies of webhooks in Meta's envelope, and their way to the webhook.

use std::fmt::Write;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::Url;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::SharedApp;
use crate::post::Post;

/// The account that all numbers here belong to.
const ACCOUNT: &str = "102290129340398";
/// The number itself, as people write it.
pub(crate) const DISPLAY_NUMBER: &str = "15550783881";
/// Our phone number id where none is configured.
const PHONE_NUMBER_ID: &str = "106540352242922";

/// The phone number id that events are about.
pub(crate) fn phone_number_id(app: &SharedApp) -> String {
    let configured = app.graph.phone_number_id.clone();
    configured.unwrap_or_else(|| PHONE_NUMBER_ID.to_owned())
}

pub(crate) fn metadata(phone_number_id: &str) -> Value {
    json!({ "display_phone_number": DISPLAY_NUMBER, "phone_number_id": phone_number_id })
}

/// The value of a change whose other fields are added.
pub(crate) fn value(phone_number_id: &str) -> Value {
    json!({ "messaging_product": "whatsapp", "metadata": metadata(phone_number_id) })
}

pub(crate) fn change(field: &str, value: &Value) -> Value {
    json!({ "value": value, "field": field })
}

/// A body with these changes in one entry.
pub(crate) fn body(changes: &[Value]) -> Bytes {
    let entry = json!({ "id": ACCOUNT, "changes": changes });
    let body = json!({ "object": "whatsapp_business_account", "entry": [entry] });
    escaped(&body.to_string()).into()
}

/// JSON as Meta writes it: what is not ASCII is escaped, and slashes are too.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '/' => escaped.push_str("\\/"),
            _ if char.is_ascii() => escaped.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    // A string takes whatever is written to it.
                    write!(escaped, "\\u{unit:04x}").ok();
                }
            }
        }
    }
    escaped
}

/// Seconds as Meta writes them.
pub(crate) fn seconds(time: &DateTime<Utc>) -> String {
    time.timestamp().to_string()
}

/// A body on its way; `None` when too much is waiting. Without a URL it goes to the configured one.
pub(crate) fn post(app: &SharedApp, url: Option<Url>, body: &Bytes) -> Option<Post> {
    let id = format!("body_{}", Uuid::now_v7().simple());
    let post = Post::to_whatsapp(app, url, id, body.clone())?;
    app.state().stats.webhooks.events += 1;
    Some(post)
}

/// Posts a body once, and then in the background until it is taken.
pub(crate) async fn deliver(app: &SharedApp, post: Post) -> Option<StatusCode> {
    match post.attempt_status(1).await {
        Ok(status) => Some(status),
        Err((status, retry_after)) => {
            spawn(app, post.deliver(Some(retry_after)));
            status
        }
    }
}

/// Posts a body again after a while.
pub(crate) fn repeat(app: &SharedApp, url: Option<Url>, body: &Bytes, wait: Duration) {
    let Some(post) = post(app, url, body) else {
        return;
    };
    app.state().stats.webhooks.duplicates += 1;
    spawn(app, async move {
        tokio::time::sleep(wait).await;
        post.deliver(None).await;
    });
}

/// Runs something until the provider stops.
pub(crate) fn spawn(app: &SharedApp, task: impl Future<Output = ()> + Send + 'static) {
    let stopping = app.stopping.clone();
    drop(app.spawn(stopping.run_until_cancelled_owned(task)));
}
