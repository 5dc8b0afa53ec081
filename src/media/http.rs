//! The file of a message over HTTP: passed on from Meta, in a form that no page can be harmed by.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::routes;

use super::fetch::{BEGIN_TIMEOUT, Fetched};
use super::{Attachment, MediaError, types};
use crate::api_state::{ApiState, Route};
use crate::caller::Caller;
use crate::http::extract::Id;
use crate::http::key::Scope;
use crate::http::problem::{Problem, kind};
use crate::http::route::Access;
use crate::http::server::EndsWithProcess;
use crate::id::MessageId;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    const INBOX: Access = Access::Key(&[Scope::Inbox]);
    vec![
        Route::new(routes!(get_media), INBOX)
            .extra_time(BEGIN_TIMEOUT)
            .problems(&[kind::PROVIDER_FAILED]),
    ]
}

/// The picture, sound, film or document of a WhatsApp message.
///
/// It is fetched from Meta, which keeps a customer's files for seven days, and is kept nowhere
/// else: 404 for a message without one, and once Meta has it no longer. Pictures, sounds and films
/// of the usual types have their type; everything else is an attachment. If what came is not what
/// Meta's hash says, the answer breaks off before its end. At most 4 files are on their way for a
/// key, and 32 for a process.
#[utoipa::path(
    get, path = "/messages/{id}/media", tag = "messages",
    params(("id" = inline(MessageId), Path, description = "The message.")),
    responses((status = 200, description = "The file.", content(
        (String = "application/octet-stream"), (String = "application/pdf"),
        (String = "image/*"), (String = "audio/*"), (String = "video/*"),
    ), headers(
        ("Content-Disposition" = String, description = "`attachment` and a name, unless it is a picture, a sound or a film"),
    ))),
)]
pub async fn get_media(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MessageId>,
) -> Result<Response, Problem> {
    let none = || Problem::not_found("the message has no file");
    let media = state.media.clone().ok_or_else(none)?;
    let message = state.app.outbox.find(&caller, id).await?;
    let attachment = Attachment::of(&message).ok_or_else(none)?;
    let fetched = media.open(attachment, caller.key_index()).await?;
    tracing::debug!(message_id = %id, "a file is passed on");
    Ok(answer(fetched, id))
}

fn answer(fetched: Fetched, message_id: MessageId) -> Response {
    let Fetched {
        file,
        mime_type,
        file_name,
        place,
    } = fetched;
    let kind = types::of(mime_type.as_deref(), file.start());
    let length = file.length();
    let mut response = Body::from_stream(file.stream(message_id, place)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let disposition = types::disposition(kind, file_name.as_deref());
    if let Some(disposition) = disposition.and_then(|text| text.try_into().ok()) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    set(header::CACHE_CONTROL, "private, no-store");
    // Whoever loads it can load it again: a process that stops does not wait for it.
    response.extensions_mut().insert(EndsWithProcess);
    response
}

impl From<MediaError> for Problem {
    fn from(error: MediaError) -> Self {
        let detail = error.to_string();
        match error {
            MediaError::Gone => Self::not_found(detail),
            MediaError::Throttled | MediaError::Busy => Self::overloaded(detail),
            MediaError::Failed(_) => Self::of(kind::PROVIDER_FAILED, &*detail).caused_by(&detail),
        }
    }
}
