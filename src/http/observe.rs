//! Gives a request its id, its span and its count, and errors their one shape and their log line.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Histogram, counter, histogram};
use tracing::Instrument;
use tracing::field::Empty;

use super::audit::client;
use super::middleware::{Middleware, ResponseFuture};
use super::problem::Problem;
use crate::edge::Ambiguous;
use crate::handles::Handles;
use crate::trace;

/// The header with the request's id.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID: usize = 128;

/// Gives a request its id, counts it, and turns an error into `application/problem+json`.
#[derive(Debug, Clone)]
pub struct Observe;

impl Middleware for Observe {
    fn handle<F>(&self, request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let request_id = request_id(request.headers());
        let route = Route(request.extensions().get().cloned());
        let id = visible(&request_id);
        let method = request.method();
        // At the highest level: a filter that lets a line through must not take its id away.
        let client = client(request.extensions()).map(tracing::field::display);
        let span = tracing::error_span!("request", request_id = id, %method, route = route.name(), client, key = Empty, event_id = Empty, otel.name = Empty, otel.kind = Empty);
        trace::begin_request(&span, request.headers(), label(method), route.name());
        let observed = Observed {
            started: Instant::now(),
            method: method.clone(),
            route,
            request_id,
        };
        let ambiguous = request.extensions().get::<Ambiguous>().copied();
        let response = match ambiguous {
            None => Ok(span.in_scope(|| next(request)).instrument(span.clone())),
            Some(ambiguous) => Err(ambiguous),
        };
        Box::pin(async move {
            let abandoned = Abandoned(Some(&span));
            let response = match response {
                Ok(response) => response.await?,
                Err(ambiguous) => Problem::ambiguous(ambiguous).into_response(),
            };
            abandoned.answered();
            Ok(observed.end(&span, response))
        })
    }
}

/// The route that a request takes.
struct Route(Option<MatchedPath>);

impl Route {
    fn name(&self) -> &str {
        self.0.as_ref().map_or("unknown", MatchedPath::as_str)
    }
}

/// What is kept of a request until its end.
struct Observed {
    started: Instant,
    method: Method,
    route: Route,
    request_id: HeaderValue,
}

impl Observed {
    fn end(self, span: &tracing::Span, mut response: Response) -> Response {
        let id = visible(&self.request_id);
        if let Some(problem) = problem(&mut response) {
            span.in_scope(|| problem.log());
            let mut rendered = problem.render(id);
            // The framework's own headers, such as Allow.
            for (name, value) in response.headers() {
                if !rendered.headers().contains_key(name) && !is_about_body(name) {
                    rendered.headers_mut().insert(name.clone(), value.clone());
                }
            }
            response = rendered;
        }
        let status = response.status().as_u16();
        let elapsed = self.started.elapsed();
        let (method, route) = (&self.method, self.route.name());
        span.in_scope(|| {
            let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
            tracing::debug!(request_id = id, %method, route, status, elapsed_ms, "answered");
        });
        trace::end_request(span, status);
        count(label(method), route, status, elapsed);
        response
            .headers_mut()
            .insert(REQUEST_ID.clone(), self.request_id);
        response
    }
}

/// By method, status and route.
static METRICS: Handles<(&str, u16, String), (Counter, Histogram)> = Handles::new();

fn count(method: &'static str, route: &str, status: u16, elapsed: Duration) {
    let (requests, duration) = METRICS.find(
        |known| known.1 == status && known.2 == route && known.0 == method,
        || {
            let requests = counter!("gateway_http_requests_total", "method" => method, "route" => route.to_owned(), "status" => status.to_string());
            let duration = histogram!("gateway_http_request_duration_seconds", "method" => method, "route" => route.to_owned());
            ((method, status, route.to_owned()), (requests, duration))
        },
    );
    duration.record(elapsed);
    requests.increment(1);
}

/// A request that is not answered yet. When it is dropped before, its connection has ended.
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

/// Counts a request whose caller went away before the answer.
pub fn count_abandoned() {
    counter!("gateway_http_requests_abandoned_total").increment(1);
}

/// The caller's id for the request, if that is visible ASCII and not too long; else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let mut id = *b"req_00000000000000000000000000000000";
        uuid::Uuid::now_v7().simple().encode_lower(&mut id[4..]);
        HeaderValue::from_bytes(&id).expect("letters and digits can be in a header")
    })
}

/// A request's id as text.
pub fn visible(request_id: &HeaderValue) -> &str {
    let text = request_id.to_str();
    text.expect("a request's id is visible ASCII")
}

/// A method as a label of a metric. Methods that a caller makes up share one.
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

fn problem(response: &mut Response) -> Option<Problem> {
    if let Some(problem) = response.extensions_mut().remove() {
        return Some(problem);
    }
    let status = response.status();
    (status.is_client_error() || status.is_server_error()).then(|| Problem::for_status(status))
}

fn is_about_body(name: &HeaderName) -> bool {
    name.as_str().starts_with("content-")
}
