//! The webhook of WhatsApp's Cloud API: Meta's handshake, and what it posts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::intake::{Intake, Taken};
use crate::api_state::{ApiState, Route};
use crate::edge::has_no_coding;
use crate::error::{Causes, Error};
use crate::http::audit::{self, Failure};
use crate::http::auth::{self, Secrets};
use crate::http::body::{self, Received};
use crate::http::problem::{Problem, kind};
use crate::http::route::{Access, BodyLimit};
use crate::provider::whatsapp::Account;
use crate::webhook::count_events;
use crate::webhook::http::{before_body, no_such_route};

/// The largest body: Meta's have 3 MB at most.
const BODY_LIMIT: BodyLimit = BodyLimit(4 * 1024 * 1024);
/// The longest challenge, in characters.
const MAX_CHALLENGE: usize = 256;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(routes!(verify_whatsapp_webhook), Access::Handshake)
            .problems(&[kind::NOT_FOUND]),
        Route::new(routes!(receive_whatsapp_webhook), Access::Signature)
            .body_limit(BODY_LIMIT)
            .problems(&[kind::NOT_FOUND]),
    ]
}

/// Answers Meta, which asks whether this is the webhook's URL.
#[utoipa::path(
    get, path = "/webhooks/whatsapp", tag = "webhooks",
    params(
        ("hub.mode" = String, Query, description = "Must be `subscribe`."),
        ("hub.verify_token" = String, Query, description = "One of the tokens that are set."),
        ("hub.challenge" = String, Query, description = "It is given back.",
            min_length = 1, max_length = 256, pattern = "^[!-~]*$"),
    ),
    responses((status = 200, description = "The challenge, as it came.", body = String, content_type = "text/plain")),
)]
pub async fn verify_whatsapp_webhook(
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Some(account) = state.app.courier.providers.whatsapp() else {
        return Err(Problem::not_found("this provider is not connected"));
    };
    let asked = Handshake::parse(query.as_deref().unwrap_or_default())?;
    // Both are looked at, whatever the first is.
    let is_known = auth::is_one_of(&asked.token, &account.verify_tokens);
    if !(asked.mode == "subscribe" && is_known) {
        tracing::warn!("a handshake was refused: its token or its mode is wrong");
        return Err(Problem::forbidden("hub.mode or hub.verify_token is wrong"));
    }
    tracing::info!("Meta has verified the webhook of WhatsApp");
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((text, asked.challenge).into_response())
}

/// What Meta asks.
struct Handshake {
    mode: String,
    token: String,
    challenge: String,
}

impl Handshake {
    fn parse(query: &str) -> Result<Self, Problem> {
        let only = |name: &str| {
            let mut values = form_urlencoded::parse(query.as_bytes())
                .filter(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned());
            match (values.next(), values.next()) {
                (Some(value), None) => Ok(value),
                (None, _) => Err(Problem::field(name, "is required")),
                (Some(_), Some(_)) => Err(Problem::field(name, "must not be there twice")),
            }
        };
        let asked = Self {
            mode: only("hub.mode")?,
            token: only("hub.verify_token")?,
            challenge: only("hub.challenge")?,
        };
        let is_visible = asked.challenge.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || !(1..=MAX_CHALLENGE).contains(&asked.challenge.len()) {
            let message = format!("must have 1 to {MAX_CHALLENGE} visible ASCII characters");
            return Err(Problem::field("hub.challenge", message));
        }
        Ok(asked)
    }
}

/// How many items a body had, and what became of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Taken)]
pub struct TakenView {
    /// All items.
    received: u64,
    /// Those of them that were stored before.
    duplicates: u64,
    /// Those of them that change nothing.
    ignored: u64,
}

impl From<Taken> for TakenView {
    fn from(taken: Taken) -> Self {
        Self {
            received: taken.received,
            duplicates: taken.duplicates,
            ignored: taken.ignored,
        }
    }
}

/// Stores what is in a body of WhatsApp's, item by item, each exactly once.
///
/// The answer is sent only after all was committed. An item that cannot be understood is stored as
/// it came, and hides no other. Repeating a request after a 503 is always safe.
#[utoipa::path(
    post, path = "/webhooks/whatsapp", tag = "webhooks",
    request_body(content = serde_json::Value, description = "As Meta's documents have it. Whatever is signed is taken; what nobody can read is kept, and counts nothing."),
    responses((status = 200, description = "Stored, now or before.", body = TakenView)),
)]
pub async fn receive_whatsapp_webhook(
    State(state): State<ApiState>,
    request: Request,
) -> Result<Json<TakenView>, Problem> {
    let Some(account) = state.app.courier.providers.whatsapp() else {
        return Err(no_such_route(request.body()));
    };
    let (parts, body) = request.into_parts();
    if !auth::has_signature(&parts.headers) {
        // It is not Meta's: nothing of it is read or logged.
        Failure::MissingSignature.happened(audit::client(&parts.extensions));
        return Err(before_body(Secrets::not_signed(), &body));
    }
    let received = body::read(body, BodyLimit::of(&parts.extensions)).await;
    let body = admitted(account, &parts, received).inspect_err(log_refused)?;
    // It goes on when Meta hangs up.
    let app = Arc::clone(&state.app);
    let phone_number_id = account.phone_number_id.clone();
    let taken = state.app.courier.tasks.run(async move {
        let intake = Intake {
            ingest: &app.ingest,
            receipts: &app.receipts,
            pool: &app.pool,
        };
        intake.take(&phone_number_id, body).await
    });
    match taken.await.flatten() {
        Ok(taken) => Ok(Json(taken.into())),
        Err(error) => Err(not_stored(error)),
    }
}

/// 503, whatever it was: Meta repeats it, and what is stored by then stays.
fn not_stored(error: Error) -> Problem {
    match error {
        Error::Overloaded(_) | Error::Unavailable(_) | Error::Locked => error.into(),
        error => {
            let detail = "not stored, or not known to be; repeating is safe";
            Problem::unavailable(detail).caused_by(&Causes(&error))
        }
    }
}

/// The body, if it is whole, and signed by one of the app's secrets.
fn admitted(account: &Account, parts: &Parts, received: Received) -> Result<Bytes, Problem> {
    if let Some(problem) = received.problem {
        return Err(problem);
    }
    if !auth::is_signed(&account.app_secrets, &parts.headers, &received.bytes) {
        Failure::WrongSignature.happened(audit::client(&parts.extensions));
        return Err(Secrets::not_signed());
    }
    if !has_no_coding(&parts.headers) {
        return Err(Problem::unsupported_coding());
    }
    Ok(received.bytes)
}

/// It may be Meta's, with another secret than ours; or a stranger's.
fn log_refused(problem: &Problem) {
    count_events("refused", 1);
    if let Some(passed_over) = audit::admit_unproven() {
        let (code, detail) = (problem.code, &problem.detail);
        tracing::warn!(code, detail, passed_over, "a webhook was refused");
    }
}
