//! Answers that their clients have not read yet: together they have a limit, so that clients which never read cannot use up
//! the memory.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Answers up to this size are not counted, in bytes: connections have a limit too. No answer to a write is larger.
const SMALL: u64 = 64 * 1024;
/// The most of all larger ones, in bytes: a handful of the largest pages there can be.
const MAX_UNREAD: usize = 64 * 1024 * 1024;

/// The room for answers that are not read yet.
#[derive(Debug, Clone)]
pub struct Unread(Arc<Semaphore>);

impl Default for Unread {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_UNREAD)))
    }
}

/// An answer, which takes up room until the last of it was handed to the kernel or its connection has ended.
struct Counted {
    answer: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// Refuses an answer for which there is no room.
pub async fn limit(State(unread): State<Unread>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let size = response.body().size_hint().exact().unwrap_or_default();
    if size <= SMALL {
        return response;
    }
    let room = u32::try_from(size).map(|size| unread.0.try_acquire_many_owned(size));
    let Ok(Ok(room)) = room else {
        let error = "too much of other answers is not read yet";
        tracing::warn!(error, "a request was not carried out");
        return Problem::overloaded(error).into_response();
    };
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(answer) => {
            let answer = answer.to_bytes();
            let counted = Bytes::from_owner(Counted {
                answer,
                _room: room,
            });
            Response::from_parts(parts, Body::from(counted))
        }
        Err(error) => {
            tracing::error!(%error, "an answer broke off");
            Problem::for_status(axum::http::StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
    }
}
