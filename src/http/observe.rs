//! What happens to every request, whichever route it takes: an id, a span, a count, and one shape for errors.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{counter, histogram};
use mock_meta_provider::Ambiguous;
use tracing::Instrument;
use tracing::field::Empty;

use super::audit::client;
use super::problem::Problem;
use crate::trace;

/// The header with the request's id.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID: usize = 128;

/// Gives the request its id, counts it, and turns whatever error comes back into `application/problem+json`.
pub async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let id = request_id.to_str().unwrap_or_default();
    // At the highest level, so that no filter takes the id from a line that it lets through.
    let client = client(request.extensions()).map(tracing::field::display);
    let span = tracing::error_span!("request", request_id = id, %method, route, client, key = Empty, event_id = Empty, otel.name = Empty, otel.kind = Empty);
    trace::begin_request(&span, request.headers(), label(&method), &route);
    let abandoned = Abandoned(Some(&span));
    let ambiguous = request.extensions().get::<Ambiguous>().copied();
    let mut response = match ambiguous {
        None => next.run(request).instrument(span.clone()).await,
        Some(ambiguous) => Problem::ambiguous(ambiguous).into_response(),
    };
    abandoned.answered();
    if let Some(problem) = problem(&response) {
        let mut rendered = problem.render(id);
        // What the framework said beside the status, such as Allow.
        for (name, value) in response.headers() {
            if !rendered.headers().contains_key(name) && !is_about_body(name) {
                rendered.headers_mut().insert(name.clone(), value.clone());
            }
        }
        response = rendered;
    }
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    span.in_scope(|| {
        let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
        tracing::debug!(request_id = id, %method, route, status, elapsed_ms, "answered");
    });
    trace::end_request(&span, status);
    let method = label(&method);
    histogram!("gateway_http_request_duration_seconds", "method" => method, "route" => route.clone())
        .record(elapsed);
    counter!("gateway_http_requests_total", "method" => method, "route" => route, "status" => status.to_string())
        .increment(1);
    response
        .headers_mut()
        .insert(REQUEST_ID.clone(), request_id);
    response
}

/// A request that nobody has answered yet. One that is dropped before was given up with its connection.
struct Abandoned<'a>(Option<&'a tracing::Span>);

impl Abandoned<'_> {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(span) = self.0 {
            count_abandoned();
            span.in_scope(|| tracing::debug!("a caller went away before its answer"));
        }
    }
}

/// Counts a request whose caller was gone before the answer.
pub fn count_abandoned() {
    counter!("gateway_http_requests_abandoned_total").increment(1);
}

/// The caller's id for the request, if it is visible ASCII of a sensible length; else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let id = format!("req_{}", uuid::Uuid::now_v7().simple());
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("req_unknown"))
    })
}

/// A method as a label: those that anybody can make up share one.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn problem(response: &Response) -> Option<Problem> {
    if let Some(problem) = response.extensions().get::<Problem>() {
        return Some(problem.clone());
    }
    let status = response.status();
    (status.is_client_error() || status.is_server_error()).then(|| Problem::for_status(status))
}

fn is_about_body(name: &HeaderName) -> bool {
    name.as_str().starts_with("content-")
}
