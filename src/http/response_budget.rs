//! Answers that their clients have not read yet: together they have a limit, so that clients which never read cannot use up
//! the memory, and those of one key have half of it, so that one caller cannot keep the others from reading.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use super::step::{Answer, Step};
use crate::caller::Caller;

/// Answers up to this size are not counted, in bytes: connections have a limit too. No answer to a write is larger.
const SMALL: u64 = 64 * 1024;
/// The most of all larger ones, in bytes: a handful of the largest pages there can be.
const MAX_UNREAD: usize = 64 * 1024 * 1024;

/// The most of them that one key has, in bytes.
const MAX_OF_KEY: usize = MAX_UNREAD / 2;

/// The room for answers that are not read yet.
#[derive(Debug, Clone)]
pub struct ResponseBudget(Arc<Rooms>);

#[derive(Debug)]
struct Rooms {
    all: Arc<Semaphore>,
    of_key: Mutex<HashMap<usize, Arc<Semaphore>>>,
}

/// What an answer takes of them.
type Room = (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit);

impl Default for ResponseBudget {
    fn default() -> Self {
        Self(Arc::new(Rooms {
            all: Arc::new(Semaphore::new(MAX_UNREAD)),
            of_key: Mutex::default(),
        }))
    }
}

impl ResponseBudget {
    /// Takes room for as many bytes, of what this key has too.
    fn take(&self, key: Option<usize>, size: u64) -> Option<Room> {
        let size = u32::try_from(size).ok()?;
        let own = key.map(|key| {
            let mut of_key = self.0.of_key.lock().unwrap_or_else(PoisonError::into_inner);
            let own = of_key.entry(key);
            Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(MAX_OF_KEY))))
        });
        let own = own.map(|own| own.try_acquire_many_owned(size)).transpose();
        let all = Arc::clone(&self.0.all);
        Some((own.ok()?, all.try_acquire_many_owned(size).ok()?))
    }
}

/// An answer, which takes up room until the last of it was handed to the kernel or its connection has ended.
struct Counted {
    answer: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Step for ResponseBudget {
    /// Refuses an answer for which there is no room.
    fn pass<A>(&self, request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let unread = self.clone();
        let key = request.extensions().get().and_then(Caller::place);
        let answer = go_on(request);
        Box::pin(async move {
            let response = answer.await?;
            let size = response.body().size_hint().exact().unwrap_or_default();
            if size <= SMALL {
                return Ok(response);
            }
            // Boxed: hardly any answer is that large.
            Ok(Box::pin(unread.limit(key, size, response)).await)
        })
    }
}

impl ResponseBudget {
    async fn limit(self, key: Option<usize>, size: u64, response: Response) -> Response {
        let Some(room) = self.take(key, size) else {
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
}
