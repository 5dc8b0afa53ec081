//! Headers that tell browsers what they may do with an answer: not guess its type, not keep it, not
//! hand it to other origins. The pages of the documentation and of the inbox have their own.

use std::convert::Infallible;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use super::middleware::{Middleware, ResponseFuture};

/// The documentation loads its own scripts, styles and pictures, asks only this gateway, and may be
/// in no frame. Only pictures in its style sheet are inline.
static DOCUMENTATION: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The inbox has nothing inline, and cannot make markup of a text at all (`trusted-types`).
static INBOX: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (OPENER_POLICY, "same-origin"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        PERMISSIONS_POLICY,
        "camera=(), microphone=(), geolocation=()",
    ),
];

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Sets these headers on every answer.
#[derive(Debug, Clone)]
pub struct SecurityHeaders;

impl Middleware for SecurityHeaders {
    fn handle<F>(&self, request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let path = request.uri().path();
        let is_in = |folder: &str| {
            let rest = path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_documentation = is_in("/api");
        let own: &'static [(HeaderName, &str)] = if is_documentation {
            &DOCUMENTATION
        } else if is_in("/inbox") {
            &INBOX
        } else {
            &[]
        };
        let response = next(request);
        Box::pin(async move {
            let mut response = response.await?;
            let headers = response.headers_mut();
            let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
            set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
            set(RESOURCE_POLICY, "same-origin");
            for (name, value) in own {
                set(name.clone(), value);
            }
            if !is_documentation {
                // No cache may keep people's messages, unless a handler knows better.
                let cached = headers.entry(header::CACHE_CONTROL);
                cached.or_insert(HeaderValue::from_static("no-store"));
            }
            Ok(response)
        })
    }
}
