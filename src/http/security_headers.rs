//! Headers that tell browsers what they may do with an answer: not guess its type, not keep it, not
//! hand it to other origins. The documentation's page has its own.

use std::convert::Infallible;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use super::middleware::{Middleware, ResponseFuture};

/// The page loads its own scripts, styles and pictures, asks only this gateway, and may be in no
/// frame. Only pictures in its style sheet are inline.
const PAGE: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
];

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
        let is_page = path == "/api" || path.starts_with("/api/");
        let response = next(request);
        Box::pin(async move {
            let mut response = response.await?;
            let headers = response.headers_mut();
            let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
            set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
            set(RESOURCE_POLICY, "same-origin");
            if is_page {
                for (name, value) in PAGE {
                    set(name, value);
                }
            } else {
                // No cache may keep people's messages.
                set(header::CACHE_CONTROL, "no-store");
            }
            Ok(response)
        })
    }
}
