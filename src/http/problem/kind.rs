//! The kinds of problems: of each its status, its code for programs, and when it is answered.

use axum::http::StatusCode;

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The status of the answer.
    pub status: StatusCode,
    /// The error for programs.
    pub code: &'static str,
    /// When it is answered: for the OpenAPI document.
    pub when: &'static str,
}

impl Kind {
    const fn new(status: StatusCode, code: &'static str, when: &'static str) -> Self {
        Self { status, code, when }
    }
}

/// A field is missing or invalid, or the body is not JSON.
pub const INVALID_REQUEST: Kind = Kind::new(
    StatusCode::BAD_REQUEST,
    "invalid_request",
    "`errors` names all fields that are missing or invalid.",
);

/// The body did not arrive in time.
pub const TOO_SLOW: Kind = Kind::new(
    StatusCode::REQUEST_TIMEOUT,
    "invalid_request",
    "the body did not arrive in time.",
);

/// The body is larger than the route allows; the document names that size.
pub const TOO_LARGE: Kind = Kind::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "too_large",
    "the body is too large.",
);

/// The body is not JSON, or it is compressed.
pub const UNSUPPORTED_MEDIA_TYPE: Kind = Kind::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "unsupported_media_type",
    "the content type is not `application/json`, or the body has a content coding; then the answer has `Accept-Encoding`.",
);

/// No key, or none of ours.
pub const UNAUTHORIZED: Kind = Kind::new(
    StatusCode::UNAUTHORIZED,
    "unauthorized",
    "keys are set, and neither one of them nor a session was given.",
);

/// Too many log-ins were tried.
pub const TOO_MANY_LOG_INS: Kind = Kind::new(
    StatusCode::TOO_MANY_REQUESTS,
    "rate_limited",
    "too many log-ins were tried in this second.",
);

/// No signature, or a wrong one.
pub const INVALID_SIGNATURE: Kind = Kind::new(
    StatusCode::UNAUTHORIZED,
    "invalid_signature",
    "a webhook secret is set, and the signature is missing or wrong.",
);

/// A key without the scope, or a foreign web page; the document says which of them.
pub const FORBIDDEN: Kind = Kind::new(
    StatusCode::FORBIDDEN,
    "forbidden",
    "the caller may not do this.",
);

/// There is no such thing, or none that the caller may see.
pub const NOT_FOUND: Kind = Kind::new(StatusCode::NOT_FOUND, "not_found", "nothing has this id.");

/// Only a failed message can be retried.
pub const NOT_FAILED: Kind = Kind::new(StatusCode::CONFLICT, "not_failed", "it has not failed.");

/// Only a message that waits can be canceled.
pub const NOT_CANCELABLE: Kind = Kind::new(
    StatusCode::CONFLICT,
    "not_cancelable",
    "it is sent, or an attempt is in flight.",
);

/// Another key has used this idempotency key.
pub const CLIENT_MESSAGE_ID_TAKEN: Kind = Kind::new(
    StatusCode::CONFLICT,
    "client_message_id_taken",
    "the record with this `clientMessageId` is none that the key may see.",
);

/// Nothing can be sent there.
pub const CHANNEL_NOT_CONNECTED: Kind = Kind::new(
    StatusCode::CONFLICT,
    "channel_not_connected",
    "the channel has no provider.",
);

/// Another person has the number by now.
pub const PARTICIPANT_CHANGED: Kind = Kind::new(
    StatusCode::CONFLICT,
    "participant_changed",
    "another person has the number by now: the conversation is closed to it.",
);

/// Only whoever takes the risk sends again what may have arrived.
pub const AMBIGUOUS: Kind = Kind::new(
    StatusCode::CONFLICT,
    "ambiguous",
    "the provider may have accepted it, and cannot tell that it is the same message; `ambiguous=true` sends it all the same.",
);

const NOT_DONE: &str = "not done, or not known to be; repeating is safe.";

/// The database is away.
pub const DATABASE_UNAVAILABLE: Kind = Kind::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "database_unavailable",
    NOT_DONE,
);

/// There is too much to do, or the process stops.
pub const OVERLOADED: Kind = Kind::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", NOT_DONE);

/// The provider does not hand out what only it has.
pub const PROVIDER_FAILED: Kind = Kind::new(
    StatusCode::BAD_GATEWAY,
    "provider_failed",
    "the provider refused, did not answer in time, or answered what is not wanted; `detail` says which.",
);

/// A mistake of ours; the log says more.
pub const INTERNAL: Kind = Kind::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal",
    "a mistake of the gateway.",
);
