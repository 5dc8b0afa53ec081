//! What every answer tells browsers: not to guess its type, not to keep it, not to hand it to other origins; and what the
//! documentation's page may do.

use std::convert::Infallible;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use super::step::{Answer, Step};

/// The page loads its own scripts, styles and pictures, asks this gateway alone, and is in no frame. Nothing in it is inline but
/// pictures in its style sheet.
const PAGE: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
];

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Adds them.
#[derive(Debug, Clone)]
pub struct SecurityHeaders;

impl Step for SecurityHeaders {
    fn pass<A>(&self, request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let path = request.uri().path();
        let is_page = path == "/api" || path.starts_with("/api/");
        let answer = go_on(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let headers = response.headers_mut();
            let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
            set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
            set(RESOURCE_POLICY, "same-origin");
            if is_page {
                for (name, value) in PAGE {
                    set(name, value);
                }
            } else {
                // People's messages are not for a cache.
                set(header::CACHE_CONTROL, "no-store");
            }
            Ok(response)
        })
    }
}
