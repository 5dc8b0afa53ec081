//! What lets a request in, for a limited time.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use super::step::{Answer, Step, answered};

/// Lets nothing new through while the process stops, and ends the waiting for a request that takes too long.
#[derive(Debug, Clone)]
pub struct Admit {
    /// Cancelled when the process stops.
    pub stopping: CancellationToken,
    /// The most time that a request takes. Ends the waiting, not the work.
    pub limit: Duration,
}

impl Step for Admit {
    fn pass<A>(&self, request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        if self.stopping.is_cancelled() {
            let mut response = Problem::overloaded("stopping: nothing was stored").into_response();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            return answered(response);
        }
        let answer = tokio::time::timeout(self.limit, go_on(request));
        Box::pin(async move {
            if let Ok(answer) = answer.await {
                return answer;
            }
            tracing::warn!(error = "no answer in time", "a request was not carried out");
            let problem = Problem::unavailable(
                "no answer in time: not stored, or not known to be; repeating is safe",
            );
            Ok(problem.into_response())
        })
    }
}
