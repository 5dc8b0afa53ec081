//! Bodies of requests: only JSON gets in, up to a limit, and an error names the field.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use crate::answer::Refusal;
use crate::edge::has_no_coding;

const BODY_LIMIT_BYTES: usize = 256 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        require_json(request.headers())?;
        let body = read(request.into_body()).await?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (path, error) = (error.path().to_string(), error.into_inner());
            match path.as_str() {
                "." => Refusal::bad_request(error.to_string()),
                field => Refusal::field(field, error),
            }
        })?;
        json.end()
            .map_err(|error| Refusal::bad_request(error.to_string()))?;
        Ok(Self(value))
    }
}

/// Lets only JSON through, uncompressed. A web page cannot post JSON without asking first.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let unsupported = |error: &str| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error);
    if !has_no_coding(headers) {
        let refusal = unsupported("content-encoding must be identity");
        return Err(refusal.with_header("accept-encoding", "identity"));
    }
    if !is_json(headers) {
        return Err(unsupported("content-type must be application/json"));
    }
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads a body up to the limit.
pub(crate) async fn read(body: Body) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT_BYTES)).await;
    let is_too_large = |error: &axum::Error| {
        error
            .source()
            .is_some_and(<dyn Error>::is::<LengthLimitError>)
    };
    match read {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_large(&error) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 256 KiB",
        )),
        Ok(Err(error)) => Err(Refusal::bad_request(error.to_string())),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )),
    }
}
