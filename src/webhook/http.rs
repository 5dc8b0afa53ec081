//! The provider's webhook.

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use super::event_id::{self, EventId};
use super::ingest::{Answer, Item};
use super::{Event, count_events};
use crate::api_state::{ApiState, Route};
use crate::channel::Channel;
use crate::channel::participant::Participant;
use crate::crash::{self, Point};
use crate::error::Error;
use crate::http::audit::{self, Failure};
use crate::http::auth::Secrets;
use crate::http::body::{self, Received};
use crate::http::extract;
use crate::http::field::{Fault, Field, Parsed, parsed};
use crate::http::origin;
use crate::http::problem::{Problem, kind};
use crate::http::route::{Access, BodyLimit};
use crate::http::timestamp::Timestamp;
use crate::id::ConversationId;
use crate::id::MessageId;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![Route::new(routes!(receive_webhook), Access::Signature).problems(&[kind::NOT_FOUND])]
}

/// An inbound event.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventRequest {
    #[validate(custom(function = parsed))]
    #[schema(inline, value_type = EventId)]
    event_id: Parsed<EventId>,
    /// Where it comes from.
    #[validate(custom(function = parsed))]
    #[schema(value_type = Channel)]
    channel: Parsed<Channel>,
    #[schema(inline, value_type = Participant)]
    #[validate(custom(function = parsed))]
    from: Parsed<Participant>,
    #[schema(inline, value_type = InboundText)]
    #[validate(custom(function = parsed))]
    text: Parsed<InboundText>,
    #[schema(inline, value_type = Timestamp)]
    #[validate(custom(function = parsed))]
    timestamp: Parsed<Timestamp>,
}

/// The message; as long as the body may be. U+0000 and half surrogate pairs are stored as U+FFFD.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, example = "Hello")]
pub struct InboundText(String);

impl Field for InboundText {
    fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Err("must not be empty".into());
        }
        Ok(Self(text.to_owned()))
    }
}

/// What an event was stored as.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Receipt)]
pub struct ReceiptView {
    #[schema(example = "evt_123")]
    event_id: String,
    /// Whether it was stored before; then nothing has changed.
    duplicate: bool,
    conversation_id: ConversationId,
    message_id: MessageId,
}

/// Stores one inbound event, exactly once.
///
/// The answer is sent only after the commit. The same `eventId` again, at once or a year later,
/// changes nothing and is answered with the same ids. Repeating a request after a 503 is always
/// safe.
#[utoipa::path(
    post, path = "/webhooks/mock-meta", tag = "webhooks",
    request_body = EventRequest,
    responses((status = 200, description = "Stored, now or before.", body = ReceiptView)),
)]
pub async fn receive_webhook(
    State(state): State<ApiState>,
    request: Request,
) -> Result<Json<ReceiptView>, Problem> {
    if !state.app.courier.providers.has_mock_meta() {
        return Err(no_such_route(request.body()));
    }
    let (parts, body) = request.into_parts();
    let received = if state.secrets.may_be_signed(&parts.headers) {
        let received = body::read(body, BodyLimit::of(&parts.extensions)).await;
        receive(&state, &parts, received).await
    } else {
        // It is not the provider's: nothing of it is read or logged.
        Failure::MissingSignature.happened(audit::client(&parts.extensions));
        Err(before_body(Secrets::not_signed(), &body))
    };
    let result = match &received {
        Ok(receipt) if receipt.duplicate => "duplicate",
        Ok(_) => "new",
        Err(problem) if problem.status.is_client_error() => "refused",
        Err(_) => "not_stored",
    };
    count_events(result, 1);
    received.map(Json)
}

/// An answer that does not wait for the body.
pub(super) fn before_body(problem: Problem, body: &Body) -> Problem {
    if body.is_end_stream() {
        problem
    } else {
        problem.closing()
    }
}

/// 404, where the provider of a route is not connected.
pub(super) fn no_such_route(body: &Body) -> Problem {
    before_body(Problem::not_found("this provider is not connected"), body)
}

async fn receive(
    state: &ApiState,
    parts: &Parts,
    received: Received,
) -> Result<ReceiptView, Problem> {
    let body = received.bytes.clone();
    // The signature of a body that is not whole cannot be checked.
    let is_unproven = state.secrets.has_webhook_secrets() && received.problem.is_some();
    let event = admitted(state, parts, received)
        .inspect_err(|problem| log_refused(&body, problem, is_unproven))?;
    let event_id = event.event_id.clone();
    // Every later line about this request names the event.
    tracing::Span::current().record("event_id", &event_id);
    let Answer::Event(receipt) = state
        .app
        .ingest
        .submit(Item::Event(Box::new(event)))
        .await?
    else {
        return Err(Error::Interrupted.into());
    };
    crash::point(Point::AfterIngest);
    tracing::debug!(
        event_id, message_id = %receipt.message_id, conversation_id = %receipt.conversation_id,
        duplicate = receipt.duplicate, "received"
    );
    Ok(ReceiptView {
        event_id,
        duplicate: receipt.duplicate,
        conversation_id: receipt.conversation_id,
        message_id: receipt.message_id,
    })
}

/// The event, if its fields are valid and, where there are webhook secrets, its signature is.
fn admitted(state: &ApiState, parts: &Parts, received: Received) -> Result<Event, Problem> {
    if !state.secrets.has_webhook_secrets() {
        origin::check(&state.hosts, parts)?;
    }
    if let Some(problem) = received.problem {
        return Err(problem);
    }
    let headers = &parts.headers;
    let signed = state.secrets.check_signature(headers, &received.bytes);
    signed.inspect_err(|_| Failure::WrongSignature.happened(audit::client(&parts.extensions)))?;
    let event = event(headers, &received.bytes)?;
    if state.app.courier.providers.is_whatsapp(event.channel) {
        return Err(Problem::forbidden(
            "the channel whatsapp is connected elsewhere: its events come to /webhooks/whatsapp",
        ));
    }
    Ok(event)
}

fn event(headers: &HeaderMap, body: &Bytes) -> Result<Event, Problem> {
    let request: EventRequest = extract::json(headers, body, Some("text"))?;
    Ok(Event {
        event_id: request.event_id.value().0,
        channel: request.channel.value(),
        participant_id: request.from.value().0,
        text: request.text.value().0,
        timestamp: request.timestamp.value().0,
        body: body.clone(),
        message_id: MessageId::new(),
        conversation_id: ConversationId::new(),
    })
}

/// Logs which event was refused: one day the provider gives up on it, and it is lost.
fn log_refused(body: &[u8], problem: &Problem, is_unproven: bool) {
    let (code, detail) = (problem.code, &problem.detail);
    let passed_over = if is_unproven || problem.status == StatusCode::UNAUTHORIZED {
        let Some(passed_over) = audit::admit_unproven() else {
            return;
        };
        Some(passed_over)
    } else {
        None
    };
    let event_id = event_id::find(body);
    tracing::warn!(event_id, code, detail, passed_over, "a webhook was refused");
}
