//! What is answered where there is no route.

use axum::http::{Method, StatusCode, Uri};

use crate::answer::Refusal;

pub(crate) async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no route {}", uri.path()))
}

pub(crate) async fn method_not_allowed(method: Method) -> Refusal {
    let error = format!("method {method} is not allowed here");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
