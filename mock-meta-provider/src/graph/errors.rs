//! Graph's errors: `{"error":{"message","type","code","error_data","fbtrace_id"}}`.

use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{codes, names};

/// An error of the Graph API.
#[derive(Debug)]
pub(crate) struct GraphError {
    pub(crate) code: u32,
    status: u16,
    message: String,
    kind: &'static str,
    subcode: Option<u32>,
    details: Option<String>,
}

impl GraphError {
    /// The error of a code, with its usual message and status.
    pub(crate) fn of(code: u32) -> Self {
        let known = codes::of(code);
        Self {
            code,
            status: known.statuses[0],
            message: format!("(#{code}) {}", known.title),
            kind: codes::type_of(code),
            subcode: None,
            details: Some(known.title.to_owned()),
        }
    }

    /// A parameter that is missing or wrong.
    pub(crate) fn parameter(message: &str) -> Self {
        Self {
            message: format!("(#100) {message}"),
            details: None,
            ..Self::of(100)
        }
    }

    /// A parameter that is there and is not what it must be.
    pub(crate) fn value(details: &str) -> Self {
        Self::of(131_009).with_details(details)
    }

    /// A parameter that a message of its type needs.
    pub(crate) fn missing(details: &str) -> Self {
        Self::of(131_008).with_details(details)
    }

    /// No token, or another one than is configured.
    pub(crate) fn token() -> Self {
        Self {
            message: "Invalid OAuth access token - Cannot parse access token".to_owned(),
            details: None,
            ..Self::of(190)
        }
    }

    /// A proof that was not made with the app's secret and this token.
    pub(crate) fn proof() -> Self {
        Self {
            message: "Invalid appsecret_proof provided in the API argument".to_owned(),
            kind: "GraphMethodException",
            details: None,
            ..Self::of(100)
        }
    }

    /// An id that nothing here has.
    pub(crate) fn object(method: &str, id: &str) -> Self {
        Self {
            message: format!(
                "Unsupported {method} request. Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, or does not support this operation"
            ),
            kind: "GraphMethodException",
            subcode: Some(33),
            details: None,
            ..Self::of(100)
        }
    }

    pub(crate) fn with_details(mut self, details: &str) -> Self {
        self.details = Some(details.to_owned());
        self
    }

    pub(crate) fn with_status(mut self, status: impl Into<Option<u16>>) -> Self {
        self.status = status.into().unwrap_or(self.status);
        self
    }

    fn body(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.kind,
            "code": self.code,
        });
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        if codes::is_transient(self.code) {
            error["is_transient"] = json!(true);
        }
        if let Some(details) = &self.details {
            error["error_data"] = json!({ "messaging_product": "whatsapp", "details": details });
        }
        error["fbtrace_id"] = json!(names::trace());
        json!({ "error": error })
    }
}

impl IntoResponse for GraphError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.expect("the table's statuses are ones, and a script's are checked");
        let mut response = (status, axum::Json(self.body())).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = r#"OAuth "Facebook Platform" "invalid_token""#;
            let challenge = axum::http::HeaderValue::from_static(challenge);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
