//! Routes, bodies and refusals: every error is a `{"success":false,"error","retryable"}`, and only JSON gets in.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::edge::{AllowedHosts, has_no_coding};
use crate::mock::SharedApp;
use crate::{admin, inbound, message};

const BODY_LIMIT_BYTES: usize = 256 * 1024;
/// So much of a body that is too long is thrown away first, so that its sender gets to read the refusal.
const DISCARD_LIMIT_BYTES: usize = 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Builds all routes.
pub(crate) fn router(app: SharedApp, hosts: AllowedHosts) -> Router {
    let reject_foreign_origin = from_fn_with_state(Arc::new(hosts), reject_foreign_origin);
    Router::new()
        .route("/messages", post(message::send_message))
        .route("/messages/{id}", get(message::get_message))
        .route("/simulate/inbound", post(inbound::simulate_inbound))
        .route("/config", get(admin::get_config).post(admin::set_config))
        .route("/script", post(admin::set_script))
        .route("/ledger", get(admin::get_ledger))
        .route("/stats", get(admin::get_stats))
        .route("/reset", post(admin::reset))
        .route_layer(reject_foreign_origin)
        .route("/health", get(admin::health))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app)
}

/// Refuses what a foreign web page makes a browser send.
async fn reject_foreign_origin(
    State(hosts): State<Arc<AllowedHosts>>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            // Whoever can connect could fill the log with this.
            tracing::debug!(error, "a web page was refused");
            Refusal::new(StatusCode::FORBIDDEN, error).into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no route {}", uri.path()))
}

async fn method_not_allowed(method: Method) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("method {method} is not allowed here"),
    )
}

/// A request that is turned down by the provider itself, not by a fault.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: String,
    /// The one content coding that is taken, where another one is the reason.
    coding: Option<HeaderValue>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            coding: None,
        }
    }

    /// A 400 that names the field.
    pub(crate) fn field(field: &str, message: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("{field}: {}", message.as_ref()),
        )
    }

    /// A 503 where a limit has been reached.
    pub(crate) fn overloaded(error: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = failure(self.status, &self.error);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        if let Some(coding) = self.coding {
            response.headers_mut().insert(ACCEPT_ENCODING, coding);
        }
        response
    }
}

/// The body of every failure; retryable by its status.
pub(crate) fn failure(status: StatusCode, error: &str) -> Response {
    let retryable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let body = json!({ "success": false, "error": error, "retryable": retryable });
    (status, axum::Json(body)).into_response()
}

/// A JSON body; its error names the field.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<SharedApp> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &SharedApp) -> Result<Self, Refusal> {
        require_json(request.headers())?;
        let bytes = read_body(request.into_body()).await?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, describe(&error)))?;
        json.end()
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(Self(value))
    }
}

fn describe(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (path, inner) = (error.path().to_string(), error.inner());
    if path == "." {
        inner.to_string()
    } else {
        format!("{path}: {inner}")
    }
}

/// Lets only JSON through, as it is: what a web page can post without asking is not JSON.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    if !has_no_coding(headers) {
        let error = "content-encoding must be identity";
        return Err(Refusal {
            coding: Some(HeaderValue::from_static("identity")),
            ..Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error)
        });
    }
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content-type must be application/json",
    ))
}

async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, collect(body)).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )),
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Refusal> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > DISCARD_LIMIT_BYTES {
            break;
        }
        if length <= BODY_LIMIT_BYTES {
            bytes.extend_from_slice(&data);
        }
    }
    if length > BODY_LIMIT_BYTES {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 256 KiB",
        ));
    }
    Ok(bytes.into())
}

/// Writes a time as the wire has it: RFC 3339, UTC, milliseconds.
pub(crate) fn format_time(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Serializes a time as the wire has it.
pub(crate) fn millis<S: Serializer>(
    time: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    format_time(time).serialize(serializer)
}

/// The longest event id or participant, in characters.
const MAX_NAME: usize = 160;
/// The longest `clientMessageId`, in characters.
const MAX_CLIENT_MESSAGE_ID: usize = 128;
const MAX_TEXT_BYTES: usize = 65_536;

/// Checks an event id or a participant: 1 to 160 characters, none of them a control character.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    check_id(field, name, MAX_NAME)
}

/// Checks a `clientMessageId`: 1 to 128 characters, none of them a control character.
pub(crate) fn check_client_message_id(id: &str) -> Result<(), Refusal> {
    check_id("clientMessageId", id, MAX_CLIENT_MESSAGE_ID)
}

fn check_id(field: &str, id: &str, longest: usize) -> Result<(), Refusal> {
    let length = id.chars().count();
    if !(1..=longest).contains(&length) || id.chars().any(char::is_control) {
        let message = format!("must have 1 to {longest} characters and no control characters");
        return Err(Refusal::field(field, message));
    }
    Ok(())
}

/// Checks the text of a message to a customer: 1 to 65536 bytes without NUL.
pub(crate) fn check_text(text: &str) -> Result<(), Refusal> {
    check_text_length(text)?;
    if text.contains('\0') {
        return Err(Refusal::field("text", "must not have the character NUL"));
    }
    Ok(())
}

/// Checks the text of a customer, who may write anything: 1 to 65536 bytes.
pub(crate) fn check_text_length(text: &str) -> Result<(), Refusal> {
    if (1..=MAX_TEXT_BYTES).contains(&text.len()) {
        return Ok(());
    }
    let message = format!("must have 1 to {MAX_TEXT_BYTES} bytes");
    Err(Refusal::field("text", message))
}
