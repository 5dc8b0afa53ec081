//! Logging in and out, and who is logged in.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use validator::Validate;

use super::cookie::{self, Presented};
use crate::api_state::{ApiState, Route};
use crate::caller::{Caller, SessionId};
use crate::channel::Channel;
use crate::http::audit::{self, Failure};
use crate::http::extract;
use crate::http::field::{Fault, Field, Parsed, bounded, parsed};
use crate::http::key::{Scope, names};
use crate::http::problem::{Problem, kind};
use crate::http::route::{Access, BodyLimit};
use crate::http::timestamp::Timestamp;

/// The largest body of a log-in, in bytes.
const LARGEST: usize = 4 * 1024;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(routes!(log_in), Access::LogIn)
            .body_limit(BodyLimit(LARGEST))
            .problems(&[kind::TOO_MANY_LOG_INS]),
        Route::new(routes!(get_session), Access::Key(&Scope::ALL)),
        Route::new(routes!(log_out), Access::LogIn),
    ]
}

/// A log-in.
#[derive(Debug, Deserialize, Validate, ToSchema)]
pub struct LogIn {
    /// The secret of one of `API_KEYS`.
    #[validate(custom(function = parsed))]
    #[schema(value_type = String, example = "4fe1d2c0a9b8776655443322110ffeed", min_length = 1)]
    key: Parsed<Secret>,
}

/// It is never printed.
#[derive(Debug)]
struct Secret(SecretString);

impl Field for Secret {
    fn parse(text: &str) -> Result<Self, Fault> {
        let text = bounded(text, LARGEST)?;
        Ok(Self(text.to_owned().into()))
    }
}

/// Who a browser is, and what it may do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// The name of the key; null without one.
    #[schema(required, value_type = Option<String>, example = "desk")]
    name: Option<String>,
    /// What the key allows: `inbox`, `send`, `admin`. All of them where no keys are set.
    #[schema(value_type = Vec<String>, example = json!(["inbox", "send"]))]
    scopes: Vec<&'static str>,
    /// When the session ends at the latest; null for a request without one.
    #[schema(required)]
    expires_at: Option<Timestamp>,
    /// Whether `POST /inbox/demo` lets a made-up customer write.
    demo: bool,
    /// Whether the channel `whatsapp` is a number of WhatsApp's Cloud API: then it takes free texts
    /// only until a conversation's `windowExpiresAt`.
    whatsapp: bool,
}

/// A browser logs in with a key, and gets a cookie that stands for it.
///
/// The cookie is `HttpOnly` and `SameSite=Strict`, and over https `Secure`. It lasts 12 hours, two without a request, and ends with its key. A session that the request has is ended first.
#[utoipa::path(
    post, path = "/session", tag = "session",
    request_body = LogIn,
    responses((status = 204, description = "Logged in.", headers(("Set-Cookie" = String, description = "The session.")))),
)]
pub async fn log_in(
    State(state): State<ApiState>,
    parts: Parts,
    extract::Json(login): extract::Json<LogIn>,
) -> Result<Response, Problem> {
    let client = audit::client(&parts.extensions);
    let headers = &parts.headers;
    state.secrets.refuse_wrong_key(headers, client)?;
    let sessions = &state.app.sessions;
    if !sessions.admit_log_in() {
        Failure::TooManyLogIns.happened(client);
        let detail = "too many log-ins were tried: wait a second";
        return Err(Problem::of(kind::TOO_MANY_LOG_INS, detail));
    }
    let Secret(secret) = login.key.value();
    let key = state.secrets.log_in(secret.expose_secret(), client)?;
    let presented = cookie::own(headers);
    sessions.end(&ids(&presented)).await?;
    let token = sessions.begin(&key.origin()).await?;
    tracing::info!("logged in");
    let name = cookie::name(headers);
    warn_of_plain_cookie(&state, headers);
    // A cookie of the other kind would win over this one, or outlive it.
    let mut cookies: Vec<_> = presented
        .iter()
        .filter(|other| other.name != name)
        .map(|other| (header::SET_COOKIE, cookie::removed(&other.name)))
        .collect();
    cookies.push((header::SET_COOKIE, cookie::set(&name, &token)));
    Ok((StatusCode::NO_CONTENT, AppendHeaders(cookies)).into_response())
}

/// Who the caller is, and what it may do.
#[utoipa::path(
    get, path = "/session", tag = "session",
    responses((status = 200, description = "The caller.", body = SessionView)),
)]
pub async fn get_session(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<SessionView>, Problem> {
    let session = match caller.session() {
        Some(id) => state.app.sessions.find(id).await?,
        None => None,
    };
    Ok(Json(SessionView {
        name: caller.key_name().map(|name| (**name).to_owned()),
        scopes: names(state.secrets.scopes(&caller)).collect(),
        expires_at: session.map(|session| Timestamp(session.expires_at)),
        demo: state.demo.is_some(),
        whatsapp: state.app.courier.providers.is_whatsapp(Channel::Whatsapp),
    }))
}

/// A browser logs out: its session ends, on every process within five seconds.
///
/// What it has cached and stored of this gateway is removed too.
#[utoipa::path(
    delete, path = "/session", tag = "session",
    responses((status = 204, description = "There is no session any more.", headers(
        ("Set-Cookie" = String, description = "Removes the cookie."),
        ("Clear-Site-Data" = String, description = "`cache` and `storage`."),
    ))),
)]
pub async fn log_out(State(state): State<ApiState>, parts: Parts) -> Result<Response, Problem> {
    const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
    let headers = &parts.headers;
    let client = audit::client(&parts.extensions);
    state.secrets.refuse_wrong_key(headers, client)?;
    let mut presented = cookie::own(headers);
    if presented.is_empty() {
        presented.extend(cookie::chosen(headers));
    }
    state.app.sessions.end(&ids(&presented)).await?;
    if !presented.is_empty() {
        tracing::info!("logged out");
    }
    let mut names: Vec<Cow<'_, str>> = presented.iter().map(|it| (&*it.name).into()).collect();
    if names.is_empty() {
        names.push(cookie::name(headers));
    }
    let removed = names
        .iter()
        .map(|name| (header::SET_COOKIE, cookie::removed(name)));
    let removed: Vec<_> = removed.collect();
    let clear = [(CLEAR_SITE_DATA, "\"cache\", \"storage\"")];
    Ok((StatusCode::NO_CONTENT, clear, AppendHeaders(removed)).into_response())
}

/// The sessions that these cookies may be.
fn ids(presented: &[Presented]) -> Vec<SessionId> {
    let tokens = presented.iter().filter_map(|it| it.token.as_ref());
    tokens.map(super::Token::id).collect()
}

/// Said once: others on the way can read the cookie.
fn warn_of_plain_cookie(state: &ApiState, headers: &HeaderMap) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if state.hosts.is_seen_from_outside(headers)
        && !cookie::is_secure(headers)
        && !SAID.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            "a browser has logged in over plain http: its key and its cookie are in the clear; put a proxy with TLS in front"
        );
    }
}
