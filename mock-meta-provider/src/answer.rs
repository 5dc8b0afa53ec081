//! Answers other than a success: refusals, failures, and connections that are cut instead.

use std::fmt;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A request that the provider itself turns down, not a fault.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: String,
    header: Option<(&'static str, &'static str)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            header: None,
        }
    }

    pub(crate) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// A 400 that names the field.
    pub(crate) fn field(field: &str, message: impl fmt::Display) -> Self {
        Self::bad_request(format!("{field}: {message}"))
    }

    /// A 503 for a limit that has been reached.
    pub(crate) fn overloaded(error: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error).with_header("retry-after", "1")
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let failure = failure(self.status, &self.error);
        match self.header {
            Some(header) => ([header], failure).into_response(),
            None => failure,
        }
    }
}

/// The usual answer of a failure: `{"success":false,"error","retryable"}`.
pub(crate) fn failure(status: StatusCode, error: &str) -> Response {
    let retryable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let body = json!({ "success": false, "error": error, "retryable": retryable });
    (status, axum::Json(body)).into_response()
}

/// Ends the connection without a byte of an answer; `serve` finds it in a response's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Closed in an orderly way (FIN).
    Close,
    /// Reset (RST).
    Reset,
}

impl IntoResponse for Cut {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is cut on purpose")
    }
}

impl std::error::Error for Cut {}
