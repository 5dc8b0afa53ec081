//! What can go wrong with a call, and how it is written in JSON.

use std::fmt::{self, Display};
use std::iter;

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use strum::EnumDiscriminants;

use crate::bounds::{Bounds, DELAY_MS, RETRY_AFTER_SECONDS, SCRIPTED_STATUS, SERVER_ERROR};

/// The longest raw `Retry-After`, in bytes.
const MAX_RETRY_AFTER: usize = 256;

/// How one call of `POST /messages` is answered.
///
/// `retry_after` is the raw value of the header: seconds, or a date.
#[derive(Debug, Clone, PartialEq, Serialize, EnumDiscriminants)]
#[strum_discriminants(
    name(FaultName),
    vis(pub(crate)),
    derive(Deserialize),
    serde(rename_all = "camelCase")
)]
#[serde(
    tag = "fault",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
#[expect(missing_docs, reason = "fields that the variants explain")]
pub enum Fault {
    /// No fault: accepted and answered.
    Ok,
    /// 429, nothing accepted. Without `retry_after` the configured one is sent.
    RateLimit { retry_after: Option<String> },
    /// A status from 500 to 599, nothing accepted. A 503 has `Retry-After` like a 429.
    ServerError {
        http_status: u16,
        retry_after: Option<String>,
    },
    /// 422, nothing accepted, not retryable.
    Reject,
    /// Accepted, and then the connection is closed without a byte of an answer.
    LostAnswer,
    /// Nothing accepted, and the connection is reset without a byte of an answer.
    Reset,
    /// Nothing accepted, and no answer until the client goes or `hangMs` has passed.
    Hang,
    /// Accepted, and answered with a 200 whose JSON breaks off.
    Unreadable,
    /// Nothing accepted, and exactly this answer, with a status from 200 to 599.
    ///
    /// A body that is a string is sent as it is, any other as JSON. Without a body the answer is a
    /// usual failure. A 3xx leads to `/messages`.
    Status {
        http_status: u16,
        body: Option<Value>,
        retry_after: Option<String>,
    },
    /// Accepted and answered, but late; accepted even when the client does not wait for it.
    Delay { delay_ms: u64 },
    /// An error of the Graph API. `http_status` is the usual one of the code if it is left out.
    /// Accepted all the same if `accepted` says so: nobody can tell from such an answer.
    Code {
        code: u32,
        http_status: Option<u16>,
        accepted: bool,
    },
}

impl Fault {
    /// A 429 with `Retry-After` as configured.
    #[must_use]
    pub fn rate_limit() -> Self {
        Self::RateLimit { retry_after: None }
    }

    /// A 429 with a `Retry-After` in seconds.
    #[must_use]
    pub fn rate_limit_after(seconds: u32) -> Self {
        Self::RateLimit {
            retry_after: Some(seconds.to_string()),
        }
    }

    /// A 5xx with `Retry-After` as configured.
    #[must_use]
    pub fn server_error(http_status: u16) -> Self {
        Self::ServerError {
            http_status,
            retry_after: None,
        }
    }

    /// An answer with this status and the usual body of a failure.
    #[must_use]
    pub fn status(http_status: u16) -> Self {
        Self::Status {
            http_status,
            body: None,
            retry_after: None,
        }
    }

    /// An answer with this status and body.
    #[must_use]
    pub fn answer(http_status: u16, body: impl Into<Value>) -> Self {
        Self::Status {
            http_status,
            body: Some(body.into()),
            retry_after: None,
        }
    }

    /// An error of the Graph API with its usual status, nothing accepted.
    #[must_use]
    pub fn code(code: u32) -> Self {
        Self::Code {
            code,
            http_status: None,
            accepted: false,
        }
    }

    /// A late answer to an accepted call.
    #[must_use]
    pub fn delay(delay_ms: u64) -> Self {
        Self::Delay { delay_ms }
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrObject;

        impl<'de> Visitor<'de> for NameOrObject {
            type Value = Fault;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a fault, or an object with it")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Fault, E> {
                self.visit_map(MapDeserializer::new(iter::once(("fault", name))))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fault, A::Error> {
                let request = FaultRequest::deserialize(MapAccessDeserializer::new(map))?;
                request.try_into().map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_any(NameOrObject)
    }
}

/// A fault as a script writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FaultRequest {
    fault: FaultName,
    retry_after_seconds: Option<f64>,
    retry_after: Option<String>,
    http_status: Option<u16>,
    body: Option<Value>,
    delay_ms: Option<u64>,
    code: Option<u32>,
    #[serde(default)]
    accepted: bool,
}

impl TryFrom<FaultRequest> for Fault {
    type Error = String;

    fn try_from(request: FaultRequest) -> Result<Self, String> {
        let retry_after = request.retry_after()?;
        let FaultRequest {
            http_status,
            body,
            delay_ms,
            code,
            accepted,
            ..
        } = request;
        Ok(match request.fault {
            FaultName::Ok => Self::Ok,
            FaultName::RateLimit => Self::RateLimit { retry_after },
            FaultName::ServerError => Self::ServerError {
                http_status: check(
                    "httpStatus of serverError",
                    &SERVER_ERROR,
                    http_status.unwrap_or(503),
                )?,
                retry_after,
            },
            FaultName::Reject => Self::Reject,
            FaultName::LostAnswer => Self::LostAnswer,
            FaultName::Reset => Self::Reset,
            FaultName::Hang => Self::Hang,
            FaultName::Unreadable => Self::Unreadable,
            FaultName::Status => Self::Status {
                http_status: check("httpStatus of status", &SCRIPTED_STATUS, http_status)?,
                body,
                retry_after,
            },
            FaultName::Delay => Self::Delay {
                delay_ms: check("delayMs of delay", &DELAY_MS, delay_ms)?,
            },
            FaultName::Code => Self::Code {
                code: code.ok_or("code is missing")?,
                http_status: match http_status {
                    Some(status) => Some(check("httpStatus of code", &SCRIPTED_STATUS, status)?),
                    None => None,
                },
                accepted,
            },
        })
    }
}

fn check<T: PartialOrd + Display>(
    field: &str,
    bounds: &Bounds<T>,
    value: impl Into<Option<T>>,
) -> Result<T, String> {
    let checked = bounds.check(value);
    checked.map_err(|message| format!("{field} {message}"))
}

impl FaultRequest {
    fn retry_after(&self) -> Result<Option<String>, String> {
        match (self.retry_after_seconds, &self.retry_after) {
            (Some(_), Some(_)) => {
                Err("retryAfterSeconds and retryAfter exclude each other".to_owned())
            }
            (Some(seconds), None) => {
                let seconds = check("retryAfterSeconds", &RETRY_AFTER_SECONDS, seconds)?;
                Ok(Some(seconds.to_string()))
            }
            (None, Some(raw))
                if raw.len() > MAX_RETRY_AFTER
                    || raw.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) =>
            {
                Err("retryAfter must be at most 256 visible ASCII characters".to_owned())
            }
            (None, raw) => Ok(raw.clone()),
        }
    }
}
