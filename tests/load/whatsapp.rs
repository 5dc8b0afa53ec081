//! The channel `whatsapp` as Meta speaks of it: signed bodies, statuses that find a server that runs.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use gateway::edge::signature::sign;
use mock_meta_provider::{Whatsapp, WhatsappBehaviour};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::Servers;
use super::callers::{Receipt, Request};

const PHONE_NUMBER_ID: &str = "106540352242922";
const APP_SECRET: &str = "the app's secret of a proof";
const TOKEN: &str = "token-of-a-proof";
const SIGNATURE: &str = "x-hub-signature-256";
/// How long a message whose answer was lost waits for its status: longer than a status is on its way
/// while processes and the database come and go.
const RECONCILE_WAIT_MS: &str = "8000";

/// The telephone number of a participant.
pub fn number(participant: u32) -> String {
    format!("49300000{participant:04}")
}

/// What a gateway is told of the mock's number.
pub fn environment(mock_url: &str) -> [(&'static str, &str); 6] {
    [
        ("WHATSAPP_PHONE_NUMBER_ID", PHONE_NUMBER_ID),
        ("WHATSAPP_ACCESS_TOKEN", TOKEN),
        ("META_APP_SECRET", APP_SECRET),
        ("META_VERIFY_TOKEN", "the verify token of a proof"),
        ("GRAPH_URL", mock_url),
        ("RECONCILE_WAIT_MS", RECONCILE_WAIT_MS),
    ]
}

/// What the mock is told of it.
pub fn settings(behaviour: WhatsappBehaviour, relay: &Relay) -> Whatsapp {
    Whatsapp {
        phone_number_id: Some(PHONE_NUMBER_ID.to_owned()),
        webhook_url: format!("{}/webhooks/whatsapp", relay.url),
        access_token: Some(TOKEN.into()),
        app_secret: Some(APP_SECRET.into()),
        behaviour,
        ..Whatsapp::calm()
    }
}

/// The body of an event, between one that nobody understands and one for another number.
pub fn event(http: &reqwest::Client, url: &str, request: &Request) -> reqwest::RequestBuilder {
    let Request {
        key,
        participant,
        timestamp,
        ..
    } = request;
    let message = json!({
        "id": key, "from": participant, "timestamp": timestamp.timestamp().to_string(),
        "type": "text", "text": { "body": key } });
    let value = |phone_number_id: &str, messages: Value, statuses: Value| {
        json!({
        "field": "messages",
        "value": {
            "messaging_product": "whatsapp",
            "metadata": { "display_phone_number": "15550783881", "phone_number_id": phone_number_id },
            "contacts": [{ "wa_id": participant, "profile": { "name": "Ada" } }],
            "messages": messages,
            "statuses": statuses } })
    };
    let body = json!({
        "object": "whatsapp_business_account",
        "entry": [{ "id": "1", "changes": [
            value("1", json!([message]), json!([])),
            value(PHONE_NUMBER_ID, json!([message]), json!(["nonsense"])),
        ] }] })
    .to_string();
    http.post(format!("{url}/webhooks/whatsapp"))
        .header(SIGNATURE, sign(APP_SECRET, body.as_bytes()))
        .body(body)
}

/// What a body's answer says of its one message.
pub fn receipt(answer: &Value, repeated: bool) -> Result<Receipt, String> {
    if (&answer["received"], &answer["ignored"]) != (&json!(3), &json!(2)) {
        return Err(format!("is answered {answer}"));
    }
    Ok(Receipt {
        message_id: String::new(),
        conversation_id: String::new(),
        new: answer["duplicates"] == 0,
        repeated,
    })
}

/// Passes statuses on to whichever server runs.
pub struct Relay {
    pub url: String,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    pub async fn start(servers: Arc<Servers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let router = Router::new()
            .route("/webhooks/whatsapp", post(pass_on))
            .with_state((http, servers));
        let serve = async move { axum::serve(listener, router).await.unwrap() };
        Self {
            url,
            _task: AbortOnDropHandle::new(tokio::spawn(serve)),
        }
    }
}

async fn pass_on(
    State((http, servers)): State<(reqwest::Client, Arc<Servers>)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut running = servers.iter();
    let running = running.find_map(|server| server.lock().unwrap().clone());
    let (Some(url), Some(signature)) = (running, headers.get(SIGNATURE)) else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    let post = http
        .post(format!("{url}/webhooks/whatsapp"))
        .header(SIGNATURE, signature)
        .body(body);
    let answer = post.send().await;
    answer.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
}
