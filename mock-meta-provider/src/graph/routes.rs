//! Which requests are Graph's: those whose path begins with a version, such as `/v26.0/…`.

use axum::Extension;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::errors::GraphError;
use super::{media, messages};
use crate::app::SharedApp;
use crate::edge::Peer;
use crate::router_fallback::{method_not_allowed, not_found};

/// What may be in the address of any call.
#[derive(Deserialize)]
pub(crate) struct Parameters {
    appsecret_proof: Option<String>,
}

/// `/{version}/{id}`: a media object.
pub(crate) async fn node(
    State(app): State<SharedApp>,
    Path((version, id)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Response {
    if !is_version(&version) {
        return elsewhere(request.uri()).await;
    }
    if request.method() != Method::GET {
        return method_not_allowed(request.method().clone())
            .await
            .into_response();
    }
    let proof = parameters.appsecret_proof.as_deref();
    match media::locate(&app, &id, request.headers(), proof) {
        Ok(place) => axum::Json(place).into_response(),
        Err(error) => error.into_response(),
    }
}

/// `/{version}/{id}/{edge}`: the messages of a phone number.
pub(crate) async fn edge(
    State(app): State<SharedApp>,
    Path((version, id, edge)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    if !is_version(&version) {
        return elsewhere(request.uri()).await;
    }
    let method = request.method().as_str().to_ascii_lowercase();
    if request.method() != Method::POST || edge != "messages" {
        return GraphError::object(&method, &id).into_response();
    }
    let (parts, body) = request.into_parts();
    let proof = parameters.appsecret_proof;
    messages::post(app, peer, id, parts.headers, proof, body).await
}

async fn elsewhere(uri: &Uri) -> Response {
    not_found(uri.clone()).await.into_response()
}

/// Whether this is a version, such as `v26.0`.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_prefix('v')
        .is_some_and(|numbers| numbers.split('.').all(is_number))
}
