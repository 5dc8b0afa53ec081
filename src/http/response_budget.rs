//! Limits the memory of answers that their clients have not read yet.
//!
//! All of them together have a limit, so that clients that never read cannot use up the memory.
//! Those of one key have half of it, so that one caller cannot keep the others from reading.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::middleware::{Middleware, ResponseFuture};
use super::problem::{Problem, kind};
use crate::caller::Caller;

/// Answers up to this size are not counted, in bytes: the number of connections has a limit too.
/// No answer to a write is larger.
const SMALL: u64 = 64 * 1024;
/// The limit for all larger ones, in bytes: a handful of the largest possible pages.
const MAX_UNREAD: usize = 64 * 1024 * 1024;
/// The limit for those of one key, in bytes.
const MAX_OF_KEY: usize = MAX_UNREAD / 2;

/// Refuses an answer for which there is no room.
#[derive(Debug, Clone)]
pub struct ResponseBudget(Arc<Rooms>);

#[derive(Debug)]
struct Rooms {
    all: Arc<Semaphore>,
    of_key: Mutex<HashMap<usize, Arc<Semaphore>>>,
}

/// The room that an answer takes: that of its key, and that of all.
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
    /// Takes room for an answer, also from what its key has.
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

/// An answer that takes up room until the kernel has the last of it, or its connection ends.
struct Counted {
    answer: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Middleware for ResponseBudget {
    fn handle<F>(&self, request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let budget = self.clone();
        let key = request.extensions().get().and_then(Caller::key_index);
        let response = next(request);
        Box::pin(async move {
            let response = response.await?;
            let size = response.body().size_hint().exact().unwrap_or_default();
            if size <= SMALL {
                return Ok(response);
            }
            // Boxed: hardly any answer is that large.
            Ok(Box::pin(budget.limit(key, size, response)).await)
        })
    }
}

impl ResponseBudget {
    async fn limit(self, key: Option<usize>, size: u64, response: Response) -> Response {
        let Some(room) = self.take(key, size) else {
            let error = "too much of other answers is not read yet";
            return Problem::overloaded(error).caused_by(&error).into_response();
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
                Problem::of(kind::INTERNAL, "internal server error").into_response()
            }
        }
    }
}
