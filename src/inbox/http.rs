//! Hands out the page, and lets a made-up customer write.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::{Asset, asset};
use crate::api_state::{ApiState, Route};
use crate::caller::Caller;
use crate::http::key::Scope;
use crate::http::problem::Problem;
use crate::http::route::Access;

/// The page and its files. What they show, they ask the API for.
pub fn page() -> Router<ApiState> {
    Router::new()
        .route("/", get(get_start))
        .route("/inbox", get(get_page))
        .route("/inbox/{asset}", get(get_asset))
}

/// The route that lets a customer write.
pub fn demo() -> Route {
    Route::new(routes!(write_demo), Access::Key(&[Scope::Send]))
}

/// Leads to the page; relative, since a proxy may have changed the host.
async fn get_start() -> impl IntoResponse {
    (StatusCode::SEE_OTHER, [(header::LOCATION, "/inbox")])
}

async fn get_page(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, Problem> {
    check_open(&state)?;
    Ok(answer(super::page(), &headers))
}

async fn get_asset(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check_open(&state)?;
    let asset = asset(&name).ok_or_else(|| Problem::not_found("no such file of the inbox"))?;
    Ok(answer(asset, &headers))
}

/// Without keys, everybody who can connect could read the inbox: it is no page for the open.
fn check_open(state: &ApiState) -> Result<(), Problem> {
    if state.secrets.has_api_keys() || !state.hosts.is_open() {
        return Ok(());
    }
    Err(Problem::forbidden(
        "HOST is public, so the inbox opens only with API_KEYS; or set ALLOWED_HOSTS, if nobody else can reach this gateway",
    ))
}

/// The file, or 304 for whoever has it already.
fn answer(asset: &'static Asset, headers: &HeaderMap) -> Response {
    let about = [
        (header::ETAG, &*asset.etag),
        // It may be kept, but is asked for each time: a new version is seen at once.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    if is_known(headers, &asset.etag) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, asset.content_type)];
    (about, content_type, Bytes::from_static(asset.bytes)).into_response()
}

/// Whether `If-None-Match` has this, also as a weak one.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

/// Who has written.
#[derive(Debug, Serialize, ToSchema)]
pub struct Written {
    #[schema(value_type = String)]
    from: &'static str,
}

/// Lets a made-up customer write; only with the built-in mock provider.
#[utoipa::path(
    post, path = "/inbox/demo",
    responses((status = 202, description = "A webhook is on its way.", body = Written)),
)]
async fn write_demo(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<(StatusCode, Json<Written>), Problem> {
    if !state.secrets.scopes(&caller).contains(&Scope::Inbox) {
        return Err(Problem::forbidden("this key lacks the scope inbox"));
    }
    let Some(demo) = &state.demo else {
        return Err(Problem::not_found("only with the built-in mock provider"));
    };
    let written = demo.write().await;
    let from = written.map_err(|error| {
        Problem::overloaded("the built-in mock provider does not answer").caused_by(&error)
    })?;
    Ok((StatusCode::ACCEPTED, Json(Written { from })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_that_has_the_file_is_told_so() {
        let etag = "\"abc\"";
        for (given, expected) in [
            (&["\"abc\""][..], true),
            (&["W/\"abc\""], true),
            (&["\"x\", W/\"abc\""], true),
            (&["\"x\"", "\"abc\""], true),
            (&["*"], true),
            (&[], false),
            (&["\"x\""], false),
            (&["abc"], false),
            (&["\"abc\"x"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            assert_eq!(is_known(&headers, etag), expected, "{given:?}");
        }
    }
}
