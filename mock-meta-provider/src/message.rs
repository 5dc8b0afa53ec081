//! One call of `POST /messages`: planned when it comes in, carried through even when its client goes.

use std::fmt;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chance::{self, CallPlan};
use crate::edge::Peer;
use crate::fault::Fault;
use crate::http::{
    JsonBody, Refusal, check_client_message_id, check_name, check_text, failure, format_time,
};
use crate::ledger::{Acceptance, CallStart};
use crate::mock::{App, SharedApp};
use crate::serve::Cut;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const MAX_KEY_BYTES: usize = 255;

/// Where messages come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Channel {
    Whatsapp,
    Instagram,
}

impl TryFrom<String> for Channel {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "whatsapp" => Ok(Self::Whatsapp),
            "instagram" => Ok(Self::Instagram),
            _ => Err("must be whatsapp or instagram"),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whatsapp => "whatsapp",
            Self::Instagram => "instagram",
        })
    }
}

/// The body of `POST /messages`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendRequest {
    pub(crate) channel: Channel,
    pub(crate) to: String,
    pub(crate) text: String,
    pub(crate) client_message_id: String,
}

/// A call that has come in. It counts as waiting until this is dropped, with the answer or the client.
struct Call {
    app: SharedApp,
    key: String,
    start: CallStart,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.app.state().ledger.end_call(&self.key, self.start);
    }
}

/// `POST /messages`
pub(crate) async fn send_message(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<SendRequest>,
) -> Result<Response, Refusal> {
    check_name("to", &request.to)?;
    check_text(&request.text)?;
    check_client_message_id(&request.client_message_id)?;
    let key = read_key(&headers)?;
    let permit = app
        .call_permit()
        .ok_or_else(|| Refusal::overloaded("too many calls at once"))?;
    let (call, plan) = begin(&app, key, &request);
    tracing::info!(key = %call.key, channel = %request.channel, call = call.start.number, plan = ?Plan(&plan), "call");
    if plan.fault == Fault::Hang {
        let longest = Duration::from_millis(app.state().behaviour.hang_ms);
        // A client that has finished sending may have gone, and there is no answer for it anyway.
        let wait = tokio::time::timeout(longest, peer.left());
        app.unless_stopping(wait).await;
        return Ok(Cut::Close.into_response());
    }
    let (worker, key) = (app.clone(), call.key.clone());
    let carried = app.spawn(async move {
        let _permit = permit;
        carry_through(&worker, &key, &request, plan).await
    });
    // Nobody knows whether a client that has finished sending still waits. It gets its answer, but counts as gone.
    let waiting = async {
        peer.left().await;
        drop(call);
        std::future::pending().await
    };
    let answer = tokio::select! {
        answer = carried => answer,
        answer = waiting => answer,
    };
    // Stopped half-way: nothing can be said about the call any more.
    Ok(answer
        .ok()
        .flatten()
        .unwrap_or_else(|| Cut::Close.into_response()))
}

/// `GET /messages/{providerMessageId}`
pub(crate) async fn get_message(
    State(app): State<SharedApp>,
    id: Result<Path<String>, PathRejection>,
) -> Result<axum::Json<Value>, Refusal> {
    let delivery = id
        .ok()
        .and_then(|Path(id)| app.state().ledger.delivery(&id));
    match delivery {
        Some(delivery) => Ok(axum::Json(json!({ "success": true, "message": *delivery }))),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "no such message")),
    }
}

fn read_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.contains('\t') => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Refusal::field(
            IDEMPOTENCY_KEY,
            "must have 1 to 255 visible ASCII characters",
        )),
    }
}

/// Writes the call down and decides how it ends: exactly as scripted, else by chance.
fn begin(app: &SharedApp, key: Option<String>, request: &SendRequest) -> (Call, CallPlan) {
    let mut state = app.state();
    let key = key.unwrap_or_else(|| {
        state.keyless_calls += 1;
        format!("keyless-{}", state.keyless_calls)
    });
    let start = state.ledger.begin_call(&key, request);
    let mut plan = chance::plan_call(app.seed, &state.behaviour, &key, start.number);
    if let Some(fault) = state.scripts.next(&request.to) {
        plan = CallPlan {
            fault,
            delay: Duration::ZERO,
        };
    }
    state.stats.calls += 1;
    state.stats.key_mismatches += u64::from(start.mismatched);
    state.stats.faults.count(&plan.fault);
    drop(state);
    (
        Call {
            app: app.clone(),
            key,
            start,
        },
        plan,
    )
}

async fn carry_through(app: &App, key: &str, request: &SendRequest, plan: CallPlan) -> Response {
    let scripted = match plan.fault {
        Fault::Delay { delay_ms } => Duration::from_millis(delay_ms),
        _ => Duration::ZERO,
    };
    tokio::time::sleep(plan.delay + scripted).await;
    match plan.fault {
        Fault::Ok | Fault::Delay { .. } => accepted(&accept(app, key, request)),
        Fault::LostAnswer => {
            accept(app, key, request);
            Cut::Close.into_response()
        }
        Fault::Unreadable => {
            accept(app, key, request);
            (
                [(CONTENT_TYPE, "application/json")],
                r#"{"success":true,"providerMess"#,
            )
                .into_response()
        }
        Fault::Reset => Cut::Reset.into_response(),
        Fault::Hang => Cut::Close.into_response(),
        Fault::Reject => failure(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the recipient does not exist",
        ),
        Fault::RateLimit { retry_after } => fail(app, 429, None, retry_after),
        Fault::ServerError {
            http_status,
            retry_after,
        } => fail(app, http_status, None, retry_after),
        Fault::Status {
            http_status,
            body,
            retry_after,
        } => fail(app, http_status, body, retry_after),
    }
}

fn accept(app: &App, key: &str, request: &SendRequest) -> Acceptance {
    let mut state = app.state();
    let dedupe = state.behaviour.dedupe;
    let acceptance = state.ledger.accept(key, request, dedupe);
    state.stats.accepted += 1;
    state.stats.deduplicated += u64::from(acceptance.repeated);
    state.stats.total_messages += u64::from(!acceptance.repeated);
    acceptance
}

fn accepted(acceptance: &Acceptance) -> Response {
    axum::Json(json!({
        "success": true,
        "providerMessageId": acceptance.provider_message_id,
        "timestamp": format_time(&acceptance.timestamp),
    }))
    .into_response()
}

fn fail(app: &App, http_status: u16, body: Option<Value>, retry_after: Option<String>) -> Response {
    let status = StatusCode::from_u16(http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match body {
        Some(Value::String(text)) => (status, text).into_response(),
        Some(body) => (status, axum::Json(body)).into_response(),
        None => failure(status, status.canonical_reason().unwrap_or("failure")),
    };
    let configured = || {
        app.state()
            .behaviour
            .retry_after_seconds
            .map(|seconds| seconds.to_string())
    };
    let retry_after = match http_status {
        429 | 503 => retry_after.or_else(configured),
        _ => retry_after,
    };
    match retry_after.map(HeaderValue::try_from) {
        Some(Ok(value)) => {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        Some(Err(error)) => tracing::warn!(%error, "scripted Retry-After cannot be a header"),
        None => {}
    }
    if status.is_redirection() {
        response
            .headers_mut()
            .insert(LOCATION, HeaderValue::from_static("/messages"));
    }
    response
}

/// Shows a plan in the log without the scripted body, which may hold anything.
struct Plan<'a>(&'a CallPlan);

impl fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.fault {
            Fault::Status { http_status, .. } => write!(f, "Status {http_status}")?,
            fault => write!(f, "{fault:?}")?,
        }
        write!(f, " after {:?}", self.0.delay)
    }
}
