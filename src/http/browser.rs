//! What keeps a web page from acting through its visitor's browser: for where neither a key nor a signature proves who calls.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mock_meta_provider::Hosts;

use super::problem::Problem;

/// Refuses what a foreign web page makes a browser send; without `hosts`, callers prove in another way who they are.
pub async fn refuse_pages(
    State(hosts): State<Option<Arc<Hosts>>>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.and_then(|hosts| refusal(&hosts, request.headers())) {
        None => next.run(request).await,
        Some(problem) => problem.into_response(),
    }
}

/// Why a request is refused, if a foreign web page may have made a browser send it.
#[must_use]
pub fn refusal(hosts: &Hosts, headers: &HeaderMap) -> Option<Problem> {
    let detail = hosts.refuse(headers)?;
    tracing::warn!(detail, "a web page was refused");
    Some(Problem::forbidden(detail))
}
