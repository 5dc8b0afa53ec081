//! `POST /simulate/…`: what customers and Meta do of themselves.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Url;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::asked::ItemRequest;
use super::fate::Recipient;
use super::item::Item;
use super::statuses::{self, Accepted, Status};
use super::store::Media;
use super::{envelope, inbound, names, opaque};
use crate::answer::Refusal;
use crate::app::SharedApp;
use crate::body::JsonBody;
use crate::inbound::plan;

/// How far ahead the message from the future is stamped.
const FUTURE: TimeDelta = TimeDelta::seconds(60);
/// How much of the handshake's answer is shown, in bytes.
const SHOWN: usize = 1024;

/// The body of `POST /simulate/whatsapp`: an item, or several in one body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhatsappRequest {
    #[serde(flatten)]
    item: ItemRequest,
    #[serde(default)]
    items: Vec<ItemRequest>,
    duplicate: Option<bool>,
    out_of_order: Option<bool>,
    #[serde(default)]
    wait: bool,
    webhook_url: Option<String>,
}

/// `POST /simulate/whatsapp`
pub(crate) async fn whatsapp(
    State(app): State<SharedApp>,
    JsonBody(request): JsonBody<WhatsappRequest>,
) -> Result<Json<Value>, Refusal> {
    let url = allowed(&app, request.webhook_url.as_deref())?;
    let now = Utc::now();
    let (body, items) = make(&app, &request, &now);
    let id = request.item.wamid.as_deref().filter(|_| items.len() == 1);
    let plan = plan(&app, id, (request.duplicate, request.out_of_order));
    let mut answer = json!({
        "success": true,
        "wamid": items.first().and_then(|item| item.wamid.as_deref()),
        "wamids": items.iter().map(|item| &item.wamid).collect::<Vec<_>>(),
        "mediaId": items.iter().find_map(|item| item.media.as_ref().map(|(id, _)| id)),
        "timestamp": envelope::seconds(&now),
        "simulation": { "duplicate": plan.duplicate, "outOfOrder": plan.out_of_order },
    });
    if plan.out_of_order {
        app.state().stats.webhooks.out_of_order += 1;
        let future = ItemRequest {
            text: Some(format!(
                "[Future Message] {}",
                request.item.text.clone().unwrap_or_default()
            )),
            timestamp: Some(json!(envelope::seconds(&(now + FUTURE)))),
            from: request.item.from.clone(),
            user_id: request.item.user_id.clone(),
            ..ItemRequest::default()
        };
        let future = [future.item(&now)];
        let future = inbound::body(&future, &envelope::phone_number_id(&app));
        let overtaking = envelope::post(&app, url.clone(), &future).ok_or_else(overloaded)?;
        envelope::deliver(&app, overtaking).await;
    }
    let post = envelope::post(&app, url.clone(), &body).ok_or_else(overloaded)?;
    let lateness = if plan.out_of_order {
        plan.lateness
    } else {
        Duration::ZERO
    };
    let shared = app.clone();
    let posting = async move {
        tokio::time::sleep(lateness).await;
        let status = envelope::deliver(&shared, post).await;
        if plan.duplicate {
            for wait in plan.repeats {
                envelope::repeat(&shared, url.clone(), &body, wait);
            }
        }
        status
    };
    if request.wait {
        let status = app.unless_stopping(posting).await.flatten();
        answer["status"] = json!(status.map(|status| status.as_u16()));
    } else {
        envelope::spawn(&app, async {
            posting.await;
        });
    }
    Ok(Json(answer))
}

/// The body, and what is in it. A raw one that has an envelope goes as it is.
fn make(app: &SharedApp, request: &WhatsappRequest, now: &DateTime<Utc>) -> (Bytes, Vec<Item>) {
    match &request.item.raw {
        Some(Value::String(raw)) => return (raw.clone().into(), Vec::new()),
        Some(raw)
            if raw.is_array() || raw.get("entry").is_some() || raw.get("object").is_some() =>
        {
            return (raw.to_string().into(), Vec::new());
        }
        _ => {}
    }
    let one = std::slice::from_ref(&request.item);
    let asked = if request.items.is_empty() {
        one
    } else {
        &request.items
    };
    let items: Vec<Item> = asked.iter().map(|item| item.item(now)).collect();
    let mut state = app.state();
    for (id, mime_type) in items.iter().filter_map(|item| item.media.as_ref()) {
        if state.graph.media.get(id).is_none() {
            let example = Media::example(mime_type, id);
            state.graph.media.keep(id, example);
        }
    }
    drop(state);
    let body = inbound::body(&items, &envelope::phone_number_id(app));
    (body, items)
}

/// The body of `POST /simulate/status`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusRequest {
    status: String,
    /// The accepted message: by its `wamid`, or by the gateway's id, then the latest acceptance.
    wamid: Option<String>,
    message_id: Option<String>,
    /// Replaces what the message has; empty: it is left out.
    opaque: Option<String>,
    to: Option<String>,
    timestamp: Option<String>,
    code: Option<u32>,
    phone_number_id: Option<String>,
    #[serde(default)]
    bare: bool,
    #[serde(default)]
    user_id_only: bool,
    webhook_url: Option<String>,
}

/// `POST /simulate/status`: posts one status, and answers when the webhook has.
pub(crate) async fn status(
    State(app): State<SharedApp>,
    JsonBody(request): JsonBody<StatusRequest>,
) -> Result<Json<Value>, Refusal> {
    let url = allowed(&app, request.webhook_url.as_deref())?;
    let delivery = {
        let state = app.state();
        let by_key = || {
            let key = opaque::key(request.message_id.as_deref()?);
            state.ledger.message(&key)?.provider_message_id
        };
        let wamid = request.wamid.clone().or_else(by_key);
        let wamid = wamid.ok_or_else(|| Refusal::field("wamid", "nothing was accepted"))?;
        (state.ledger.delivery(&wamid), wamid)
    };
    let (delivery, wamid) = delivery;
    let send = delivery
        .as_ref()
        .and_then(|delivery| delivery.send.as_ref());
    let opaque = match &request.opaque {
        Some(given) => Some(given.clone()).filter(|given| !given.is_empty()),
        None => send.and_then(|send| send.opaque.clone()),
    };
    let to = request.to.clone();
    let to = to.or_else(|| Some(delivery.as_ref()?.request.to.clone()));
    let accepted = Accepted {
        wamid,
        to: to.unwrap_or_else(|| "16505551234".to_owned()),
        opaque,
        phone_number_id: request
            .phone_number_id
            .clone()
            .unwrap_or_else(|| envelope::phone_number_id(&app)),
    };
    let recipient = match (request.bare, request.user_id_only) {
        (true, _) => Recipient::Bare,
        (_, true) => Recipient::UserId,
        _ => Recipient::Usual,
    };
    let item = statuses::item(
        &accepted,
        &Status {
            name: &request.status,
            timestamp: request
                .timestamp
                .clone()
                .unwrap_or_else(|| envelope::seconds(&Utc::now())),
            code: request.code.unwrap_or(131_026),
            recipient,
        },
    );
    let body = statuses::body(&accepted, vec![item], recipient);
    let post = envelope::post(&app, url, &body).ok_or_else(overloaded)?;
    app.state().stats.whatsapp.statuses += 1;
    let status = app.unless_stopping(envelope::deliver(&app, post)).await;
    let status = status.flatten().map(|status| status.as_u16());
    Ok(Json(
        json!({ "success": true, "wamid": accepted.wamid, "status": status }),
    ))
}

/// The body of `POST /simulate/media`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MediaRequest {
    id: Option<String>,
    mime_type: String,
    /// In base64.
    data: Option<String>,
    /// That many bytes instead.
    size: Option<usize>,
    /// Another hash than the right one, in base64.
    sha256: Option<String>,
}

/// `POST /simulate/media`: something that a message can name by its id.
pub(crate) async fn media(
    State(app): State<SharedApp>,
    JsonBody(request): JsonBody<MediaRequest>,
) -> Result<Json<Value>, Refusal> {
    /// What one object may have, in bytes.
    const MOST: usize = 128 * 1024 * 1024;

    let id = request.id.unwrap_or_else(names::media);
    let mut media = match (request.data, request.size) {
        (Some(data), _) => {
            let bytes = STANDARD.decode(data);
            let bytes = bytes.map_err(|error| Refusal::field("data", error))?;
            Media::new(&request.mime_type, bytes.into())
        }
        (None, Some(size)) if size <= MOST => {
            Media::new(&request.mime_type, vec![b'x'; size].into())
        }
        (None, Some(_)) => return Err(Refusal::field("size", "must be at most 128 MiB")),
        (None, None) => Media::example(&request.mime_type, &id),
    };
    if let Some(sha256) = request.sha256 {
        media.sha256 = sha256;
    }
    let answer = json!({
        "success": true, "id": id, "mimeType": media.mime_type,
        "sha256": media.sha256, "fileSize": media.bytes.len(),
    });
    app.state().graph.media.keep(&id, media);
    Ok(Json(answer))
}

/// The body of `POST /simulate/verify`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifyRequest {
    challenge: Option<String>,
    verify_token: Option<String>,
    mode: Option<String>,
    webhook_url: Option<String>,
}

/// `POST /simulate/verify`: the handshake that Meta makes when a webhook is saved.
pub(crate) async fn verify(
    State(app): State<SharedApp>,
    JsonBody(request): JsonBody<VerifyRequest>,
) -> Result<Json<Value>, Refusal> {
    let url = allowed(&app, request.webhook_url.as_deref())?;
    let mut url = url.unwrap_or_else(|| app.webhook.whatsapp_url());
    let configured = app.graph.verify_token.as_ref();
    let token = request
        .verify_token
        .or_else(|| configured.map(|token| token.expose_secret().to_owned()))
        .ok_or_else(|| Refusal::field("verifyToken", "META_VERIFY_TOKEN is not set"))?;
    let made_up = || Uuid::now_v7().as_u128().to_string();
    let challenge = request.challenge.unwrap_or_else(made_up);
    url.query_pairs_mut()
        .append_pair("hub.mode", request.mode.as_deref().unwrap_or("subscribe"))
        .append_pair("hub.challenge", &challenge)
        .append_pair("hub.verify_token", &token);
    let client = app.webhook.client(&url);
    let client = client.map_err(|error| Refusal::bad_request(error.to_string()))?;
    let asked = async {
        let mut answer = client.get(url).send().await.ok()?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > SHOWN {
                break;
            }
        }
        body.truncate(SHOWN);
        Some((status, body))
    };
    let answer = app.unless_stopping(asked).await.flatten();
    let is_verified = matches!(&answer, Some((status, body)) if *status == StatusCode::OK && body == challenge.as_bytes());
    Ok(Json(json!({
        "success": true,
        "verified": is_verified,
        "challenge": challenge,
        "status": answer.as_ref().map(|(status, _)| status.as_u16()),
        "body": answer.as_ref().map(|(_, body)| String::from_utf8_lossy(body)),
    })))
}

fn allowed(app: &SharedApp, url: Option<&str>) -> Result<Option<Url>, Refusal> {
    let url = url.map(|url| app.webhook.allow(url)).transpose();
    url.map_err(|error| Refusal::bad_request(error.to_string()))
}

fn overloaded() -> Refusal {
    Refusal::overloaded("too many events are waiting to be posted")
}
