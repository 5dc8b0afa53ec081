//! What keeps a web page from acting through its visitor's browser: for where neither a key nor a signature proves who calls.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mock_meta_provider::Hosts;

use super::audit::{self, Failure};
use super::problem::Problem;

/// Refuses what a foreign web page makes a browser send, or one that addresses this gateway by another name; without `hosts`,
/// callers prove in another way who they are.
pub async fn refuse_pages(
    State(hosts): State<Option<Arc<Hosts>>>,
    request: Request,
    next: Next,
) -> Response {
    unless(Hosts::refuse, hosts, request, next).await
}

/// The same, for what may be asked by any name.
pub async fn refuse_foreign_pages(
    State(hosts): State<Option<Arc<Hosts>>>,
    request: Request,
    next: Next,
) -> Response {
    unless(Hosts::refuse_pages, hosts, request, next).await
}

type Check = fn(&Hosts, &Method, &str, &HeaderMap) -> Option<&'static str>;

async fn unless(check: Check, hosts: Option<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    if let Some(detail) = hosts.and_then(|hosts| check(&hosts, method, path, headers)) {
        return refused(detail, audit::client(request.extensions())).into_response();
    }
    next.run(request).await
}

/// Why a webhook is refused, if a foreign web page may have made a browser send it.
#[must_use]
pub fn refusal(hosts: &Hosts, webhook: &Parts) -> Option<Problem> {
    let detail = hosts.refuse(&webhook.method, webhook.uri.path(), &webhook.headers)?;
    Some(refused(detail, audit::client(&webhook.extensions)))
}

fn refused(detail: &'static str, client: Option<SocketAddr>) -> Problem {
    Failure::WebPage.happened(client);
    tracing::debug!(detail, "a web page was refused");
    Problem::forbidden(detail)
}
