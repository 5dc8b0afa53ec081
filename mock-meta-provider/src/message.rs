//! Calls of `POST /messages`: planned when they come in, and completed even when the client goes.

use std::fmt;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::answer::{Cut, Refusal, failure};
use crate::app::{App, SharedApp};
use crate::body::JsonBody;
use crate::chance::{self, CallPlan};
use crate::edge::Peer;
use crate::fault::Fault;
use crate::ledger::{Acceptance, CallStart};
use crate::wire::{SendRequest, format_time};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const MAX_KEY_BYTES: usize = 255;

/// A call that has come in. It counts as waiting until it is dropped: with its answer, or when its
/// client goes.
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
    request.check()?;
    let key = read_key(&headers)?;
    let permit = app
        .call_permit()
        .ok_or_else(|| Refusal::overloaded("too many calls at once"))?;
    let (call, plan) = begin(&app, key, &request);
    tracing::info!(key = %call.key, channel = %request.channel, call = call.start.number, plan = ?LoggedPlan(&plan), "call");
    if plan.fault == Fault::Hang {
        let longest = Duration::from_millis(app.state().behaviour.hang_ms);
        // A client that has finished sending may be gone, and gets no answer anyway.
        let wait = tokio::time::timeout(longest, peer.left());
        app.unless_stopping(wait).await;
        return Ok(Cut::Close.into_response());
    }
    let (shared, key) = (app.clone(), call.key.clone());
    let completed = app.spawn(async move {
        let _permit = permit;
        complete(&shared, &key, &request, plan).await
    });
    // A client that has finished sending may still wait: it is answered, but counts as gone.
    let gone = async {
        peer.left().await;
        drop(call);
        std::future::pending().await
    };
    let answer = tokio::select! {
        answer = completed => answer,
        answer = gone => answer,
    };
    // Without an answer the provider was stopped, and what became of the call is not known.
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

/// Counts the call, and decides how it ends: as scripted, or at random.
fn begin(app: &SharedApp, key: Option<String>, request: &SendRequest) -> (Call, CallPlan) {
    let mut state = app.state();
    let key = key.unwrap_or_else(|| {
        state.keyless_calls += 1;
        format!("keyless-{}", state.keyless_calls)
    });
    let start = state.ledger.begin_call(&key, request);
    let plan = match state.scripts.next(&request.to) {
        Some(fault) => CallPlan {
            fault,
            delay: Duration::ZERO,
        },
        None => chance::plan_call(app.seed, &state.behaviour, &key, start.number),
    };
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

async fn complete(app: &App, key: &str, request: &SendRequest, plan: CallPlan) -> Response {
    let delay = match plan.fault {
        Fault::Delay { delay_ms } => Duration::from_millis(delay_ms),
        _ => plan.delay,
    };
    tokio::time::sleep(delay).await;
    match plan.fault {
        Fault::Ok | Fault::Delay { .. } => success(&accept(app, key, request)),
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

fn success(acceptance: &Acceptance) -> Response {
    axum::Json(json!({
        "success": true,
        "providerMessageId": acceptance.provider_message_id,
        "timestamp": format_time(&acceptance.timestamp),
    }))
    .into_response()
}

fn fail(app: &App, http_status: u16, body: Option<Value>, retry_after: Option<String>) -> Response {
    let status = StatusCode::from_u16(http_status);
    let status = status.expect("a script's status is checked, and code gives one of three digits");
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

/// A plan as the log shows it: without the scripted body, which may hold anything.
struct LoggedPlan<'a>(&'a CallPlan);

impl fmt::Debug for LoggedPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.fault {
            Fault::Status { http_status, .. } => write!(f, "Status {http_status}")?,
            fault => write!(f, "{fault:?}")?,
        }
        write!(f, " after {:?}", self.0.delay)
    }
}
