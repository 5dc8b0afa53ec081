//! What can go wrong with a call, and how it is written on the wire.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::config::{DELAY_MAX_MS, check_seconds};

/// How one call of `POST /messages` is answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "fault",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Fault {
    /// Accepted and answered: no fault.
    Ok,
    /// 429, nothing accepted. `retry_after` is the raw header value; without one, as configured.
    RateLimit {
        /// `Retry-After`: seconds, or a date.
        retry_after: Option<String>,
    },
    /// A 5xx, nothing accepted. A 503 carries `Retry-After` like a 429.
    ServerError {
        /// 500 to 599.
        http_status: u16,
        /// `Retry-After`: seconds, or a date.
        retry_after: Option<String>,
    },
    /// 422, not retryable.
    Reject,
    /// Accepted, and then the connection is closed without a byte of an answer.
    LostAnswer,
    /// Nothing accepted, and the connection is reset without a byte of an answer.
    Reset,
    /// Nothing accepted, and no answer until the client goes or `hangMs` has passed.
    Hang,
    /// Accepted, and answered by a 200 whose JSON breaks off.
    Unreadable,
    /// Nothing accepted, and this very answer. A string is sent as it is, anything else as JSON; without
    /// a body it is a failure, retryable where a provider's would be. A 3xx leads to `/messages`.
    Status {
        /// 200 to 599.
        http_status: u16,
        /// The body of the answer.
        body: Option<Value>,
        /// `Retry-After`: seconds, or a date.
        retry_after: Option<String>,
    },
    /// Accepted and answered, but late; accepted even when the client does not wait for it.
    Delay {
        /// How late, in milliseconds.
        delay_ms: u64,
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

    /// An answer with this status and a usual body.
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

    /// An acceptance that comes late.
    #[must_use]
    pub fn delay(delay_ms: u64) -> Self {
        Self::Delay { delay_ms }
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrObject;

        impl<'de> Visitor<'de> for NameOrObject {
            type Value = FaultRequest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a fault, or an object with it")
            }

            fn visit_str<E>(self, fault: &str) -> Result<FaultRequest, E> {
                Ok(FaultRequest {
                    fault: fault.to_owned(),
                    ..FaultRequest::default()
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FaultRequest, A::Error> {
                FaultRequest::deserialize(MapAccessDeserializer::new(map))
            }
        }

        let request = deserializer.deserialize_any(NameOrObject)?;
        request.into_fault().map_err(D::Error::custom)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FaultRequest {
    fault: String,
    retry_after_seconds: Option<f64>,
    retry_after: Option<String>,
    http_status: Option<u16>,
    body: Option<Value>,
    delay_ms: Option<u64>,
}

impl FaultRequest {
    fn into_fault(self) -> Result<Fault, &'static str> {
        let retry_after = self.retry_after()?;
        Ok(match self.fault.as_str() {
            "ok" => Fault::Ok,
            "rateLimit" => Fault::RateLimit { retry_after },
            "serverError" => {
                let http_status = self.http_status.unwrap_or(503);
                if !(500..=599).contains(&http_status) {
                    return Err("httpStatus of serverError must be from 500 to 599");
                }
                Fault::ServerError {
                    http_status,
                    retry_after,
                }
            }
            "reject" => Fault::Reject,
            "lostAnswer" => Fault::LostAnswer,
            "reset" => Fault::Reset,
            "hang" => Fault::Hang,
            "unreadable" => Fault::Unreadable,
            "status" => match self.http_status {
                Some(http_status @ 200..=599) => Fault::Status {
                    http_status,
                    body: self.body,
                    retry_after,
                },
                _ => return Err("httpStatus of status must be from 200 to 599"),
            },
            "delay" => match self.delay_ms {
                Some(delay_ms @ 0..=DELAY_MAX_MS) => Fault::Delay { delay_ms },
                _ => return Err("delayMs of delay must be from 0 to 600000"),
            },
            _ => {
                return Err(
                    "fault must be ok, rateLimit, serverError, reject, lostAnswer, reset, hang, \
                            unreadable, status or delay",
                );
            }
        })
    }

    fn retry_after(&self) -> Result<Option<String>, &'static str> {
        match (self.retry_after_seconds, &self.retry_after) {
            (Some(_), Some(_)) => Err("retryAfterSeconds and retryAfter exclude each other"),
            (Some(seconds), None) if check_seconds(seconds).is_err() => {
                Err("retryAfterSeconds must be from 0 to 86400")
            }
            (Some(seconds), None) => Ok(Some(seconds.to_string())),
            (None, Some(raw))
                if raw.len() > 256 || raw.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) =>
            {
                Err("retryAfter must be at most 256 visible ASCII characters")
            }
            (None, raw) => Ok(raw.clone()),
        }
    }
}
