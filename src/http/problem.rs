//! Every error answer, as `application/problem+json` (RFC 9457): one shape, and one place that maps
//! errors to statuses.
//!
//! A handler returns a [`Problem`]. Its response is a bare status that carries the problem as an
//! extension. [`super::observe::Observe`] knows the request's id, and writes the body and the log.

pub mod kind;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use self::kind::Kind;
use crate::edge::Ambiguous;
use crate::error::{Causes, Error};

/// The seconds that a caller is asked to wait before it repeats a request that was not stored.
const RETRY_AFTER_SECONDS: &str = "1";

/// An error answer that has no request id and no body yet.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// The error for programs.
    pub code: &'static str,
    /// The error for people.
    pub detail: String,
    /// The fields that are missing or invalid.
    pub errors: Vec<FieldError>,
    /// A header that goes with it.
    header: Option<&'static (HeaderName, HeaderValue)>,
    /// What caused it, for the log.
    cause: Option<Box<str>>,
}

/// What is wrong with a field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field, or the query parameter.
    #[schema(example = "channel")]
    pub field: String,
    /// What it must be.
    #[schema(example = "must be whatsapp or instagram")]
    pub message: String,
}

impl FieldError {
    /// What is wrong with a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// The body of every error answer (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Always `about:blank`: `code` says what happened.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "about:blank")]
    pub kind: &'static str,
    /// The status in words.
    #[schema(value_type = String, example = "Bad Request")]
    pub title: &'a str,
    /// The status.
    #[schema(minimum = 400, maximum = 599, example = 400)]
    pub status: u16,
    /// The error for programs. New codes may be added.
    #[schema(value_type = String, example = "invalid_request")]
    pub code: &'a str,
    /// The error for people.
    #[schema(value_type = String)]
    pub detail: &'a str,
    /// The id that this request has in the logs.
    #[schema(value_type = String)]
    pub request_id: &'a str,
    /// All missing and invalid fields.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<FieldError>, required = false)]
    pub errors: &'a [FieldError],
}

impl Problem {
    /// A problem without fields.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            header: None,
            cause: None,
        }
    }

    /// A problem of a kind.
    pub fn of(kind: Kind, detail: impl Into<String>) -> Self {
        Self::new(kind.status, kind.code, detail)
    }

    /// The same, with what caused it. [`Self::log`] writes that down; the caller does not see it.
    #[must_use]
    pub fn caused_by(mut self, cause: &impl ToString) -> Self {
        self.cause = Some(cause.to_string().into());
        self
    }

    /// Writes down what caused it, unless it is the caller's doing.
    pub fn log(&self) {
        match &self.cause {
            Some(error) if self.status == StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(%error, "a request failed");
            }
            Some(error) => tracing::warn!(%error, "request not served"),
            None => {}
        }
    }

    /// 400, naming fields, sorted. Of several errors of a field, the first stays.
    #[must_use]
    pub fn fields(mut errors: Vec<FieldError>) -> Self {
        errors.sort_by(|a, b| a.field.cmp(&b.field));
        errors.dedup_by(|a, b| a.field == b.field);
        let names: Vec<&str> = errors.iter().map(|error| &*error.field).collect();
        let detail = format!("invalid: {}", names.join(", "));
        Self {
            errors,
            ..Self::invalid(detail)
        }
    }

    /// 400, naming one field.
    #[must_use]
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::new(field, message)])
    }

    /// The same with one more field, if it names fields.
    #[must_use]
    pub fn and(mut self, error: FieldError) -> Self {
        if self.errors.is_empty() {
            return self;
        }
        self.errors.push(error);
        Self::fields(self.errors)
    }

    /// 400.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::of(kind::INVALID_REQUEST, detail)
    }

    /// 408.
    #[must_use]
    pub fn too_slow(detail: impl Into<String>) -> Self {
        Self::of(kind::TOO_SLOW, detail)
    }

    /// 415, for a body that is compressed, or said to be.
    #[must_use]
    pub fn unsupported_coding() -> Self {
        static IDENTITY: (HeaderName, HeaderValue) = (
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        Self {
            header: Some(&IDENTITY),
            ..Self::of(
                kind::UNSUPPORTED_MEDIA_TYPE,
                "the content encoding must be identity",
            )
        }
    }

    /// The same, and the connection closes after it: the rest of the request is not read.
    #[must_use]
    pub fn closing(self) -> Self {
        static CLOSE: (HeaderName, HeaderValue) =
            (header::CONNECTION, HeaderValue::from_static("close"));
        Self {
            header: Some(&CLOSE),
            ..self
        }
    }

    /// 400 or 501, for a request whose end is not certain.
    #[must_use]
    pub fn ambiguous(ambiguous: Ambiguous) -> Self {
        let problem = match ambiguous {
            Ambiguous::TwoLengths => Self::invalid(ambiguous.detail()),
            Ambiguous::Coding => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "unsupported_transfer_encoding",
                ambiguous.detail(),
            ),
        };
        problem.closing()
    }

    /// 403.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::of(kind::FORBIDDEN, detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::of(kind::NOT_FOUND, detail)
    }

    /// 503, when the database is away.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::of(kind::DATABASE_UNAVAILABLE, detail)
    }

    /// 503, when there is too much to do.
    #[must_use]
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::of(kind::OVERLOADED, detail)
    }

    /// The problem for a bare status, such as the framework's.
    #[must_use]
    pub fn for_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            status if status.is_client_error() => "invalid_request",
            _ => "internal",
        };
        let detail = status.canonical_reason().unwrap_or("error").to_lowercase();
        Self::new(status, code, detail)
    }

    /// The answer, with the id of its request.
    #[must_use]
    pub fn render(&self, request_id: &str) -> Response {
        let body = ProblemBody {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            request_id,
            errors: &self.errors,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&self.status)
        {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from_static(RETRY_AFTER_SECONDS),
            );
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value.clone());
        }
        if self.code == kind::UNAUTHORIZED.code {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"gateway\""),
            );
        }
        response
    }
}

impl IntoResponse for Problem {
    /// A bare status that carries the problem to [`super::observe::Observe`].
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::NotFound(_) => Self::not_found(detail),
            Error::NotFailed => Self::of(kind::NOT_FAILED, detail),
            Error::NotCancelable => Self::of(kind::NOT_CANCELABLE, detail),
            Error::Taken => Self::of(kind::CLIENT_MESSAGE_ID_TAKEN, detail),
            Error::NotConnected(_) => Self::of(kind::CHANNEL_NOT_CONNECTED, detail),
            Error::ParticipantChanged => Self::of(kind::PARTICIPANT_CHANGED, detail),
            Error::Ambiguous => Self::of(kind::AMBIGUOUS, detail),
            Error::Unanswerable => Self::field("replyTo", detail),
            Error::Overloaded(_) => Self::overloaded(&*detail).caused_by(&detail),
            Error::Unavailable(_) | Error::Locked => Self::unavailable(format!(
                "{detail}: not stored, or not known to be; repeating is safe"
            ))
            .caused_by(&Causes(&error)),
            Error::Refused(_)
            | Error::LeaseTooShort
            | Error::Database(_)
            | Error::Migrate(_)
            | Error::Interrupted => Self::of(
                kind::INTERNAL,
                "an error of the gateway; the log has it under this request id",
            )
            .caused_by(&Causes(&error)),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Error::from(error).into()
    }
}
