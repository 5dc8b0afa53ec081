//! Media: `GET /{version}/{media id}` says where one is, for a while, and `GET /media/{media id}`
//! has its bytes.

use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::GraphError;
use super::messages::authorize;
use crate::answer::Refusal;
use crate::app::{App, SharedApp};
use crate::edge::signature::sign;

/// Where a media object is.
pub(crate) fn locate(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    proof: Option<&str>,
) -> Result<Value, GraphError> {
    authorize(app, headers, proof)?;
    let (media, ttl) = {
        let state = app.state();
        let ttl = state.graph.behaviour.media_url_ttl_ms;
        (state.graph.media.get(id), ttl)
    };
    let media = media.ok_or_else(|| GraphError::object("get", id))?;
    let ttl = TimeDelta::milliseconds(i64::try_from(ttl).unwrap_or(i64::MAX));
    let until = (Utc::now() + ttl).timestamp_millis();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let (host, hash) = (host.unwrap_or("localhost"), seal(app, id, until));
    Ok(json!({
        "messaging_product": "whatsapp",
        "url": format!("http://{host}/media/{id}?ext={until}&hash={hash}"),
        "mime_type": media.mime_type,
        "sha256": media.sha256,
        "file_size": media.bytes.len(),
        "id": id,
    }))
}

/// What the URL of a media object has in it.
#[derive(Deserialize)]
pub(crate) struct Place {
    #[serde(default)]
    ext: i64,
    #[serde(default)]
    hash: String,
}

/// `GET /media/{media id}`
pub(crate) async fn download(
    State(app): State<SharedApp>,
    Path(id): Path<String>,
    Query(place): Query<Place>,
    headers: HeaderMap,
) -> Response {
    if authorize(&app, &headers, None).is_err() {
        return Refusal::new(StatusCode::UNAUTHORIZED, "a token is needed").into_response();
    }
    let is_stale = Utc::now().timestamp_millis() >= place.ext;
    let media = app.state().graph.media.get(&id);
    match media.filter(|_| !is_stale && place.hash == seal(&app, &id, place.ext)) {
        Some(media) => {
            app.state().stats.whatsapp.media_downloads += 1;
            let disposition = HeaderName::from_static("content-disposition");
            let headers = [
                (CONTENT_TYPE, media.mime_type),
                (disposition, "attachment".to_owned()),
            ];
            (headers, media.bytes).into_response()
        }
        None => Refusal::new(StatusCode::NOT_FOUND, "no such media, or its URL is stale")
            .into_response(),
    }
}

/// What only this provider can put into a URL.
fn seal(app: &App, id: &str, until: i64) -> String {
    let text = format!("{id} {until}");
    sign(&app.seed.to_string(), text.as_bytes())["sha256=".len()..][..32].to_owned()
}
