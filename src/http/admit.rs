//! Admits requests, each for a limited time.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use super::middleware::{Middleware, ResponseFuture, ready};
use super::problem::Problem;
use super::route::BodyLimit;

/// Refuses requests while the process stops, sets the limit of their bodies, and answers in place
/// of a handler that takes too long.
#[derive(Debug, Clone)]
pub struct Admit {
    /// Cancelled when the process stops.
    pub stopping: CancellationToken,
    /// How long a request may take. It ends the waiting, not the work.
    pub time_limit: Duration,
    /// The largest body.
    pub body_limit: BodyLimit,
}

impl Middleware for Admit {
    fn handle<F>(&self, mut request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        if self.stopping.is_cancelled() {
            let problem = Problem::overloaded("stopping: nothing was stored");
            return ready(problem.closing());
        }
        if self.body_limit != BodyLimit::default() {
            request.extensions_mut().insert(self.body_limit);
        }
        let response = tokio::time::timeout(self.time_limit, next(request));
        Box::pin(async move {
            if let Ok(response) = response.await {
                return response;
            }
            let problem = Problem::unavailable(
                "no answer in time: not stored, or not known to be; repeating is safe",
            );
            Ok(problem.caused_by(&"no answer in time").into_response())
        })
    }
}
