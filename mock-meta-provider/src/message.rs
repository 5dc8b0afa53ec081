//! Calls of `POST /messages`: planned when they come in, and completed even when the client goes.

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::answer::{Cut, Refusal, failure};
use crate::app::{App, SharedApp};
use crate::body::JsonBody;
use crate::call::{self, Call};
use crate::chance::{self, CallPlan};
use crate::edge::Peer;
use crate::fault::Fault;
use crate::ledger::Acceptance;
use crate::wire::{SendRequest, format_time};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const MAX_KEY_BYTES: usize = 255;

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
    let (call, plan) = Call::begin(&app, key, &request, |state, key, number| {
        chance::plan_call(app.seed, &state.behaviour, key, number)
    });
    tracing::info!(key = %call.key, channel = %request.channel, call = call.start.number, plan = ?call::LoggedPlan(&plan), "call");
    let (shared, key, fault) = (app.clone(), call.key.clone(), plan.fault.clone());
    let completing = async move { complete(&shared, &key, &request, plan).await };
    Ok(call.answer(&peer, permit, &fault, completing).await)
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

async fn complete(app: &App, key: &str, request: &SendRequest, plan: CallPlan) -> Response {
    call::delay(&plan).await;
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
        // A code is WhatsApp's: this wire knows only the status.
        Fault::Code {
            http_status,
            accepted,
            ..
        } => {
            if accepted {
                accept(app, key, request);
            }
            fail(app, http_status.unwrap_or(500), None, None)
        }
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
    let response = match body {
        Some(body) => call::given(status, body),
        None => failure(status, status.canonical_reason().unwrap_or("failure")),
    };
    call::with_headers(app, response, retry_after)
}
