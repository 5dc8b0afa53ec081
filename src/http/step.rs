//! What every request passes through, step by step: layers as axum's `from_fn` makes them, but each is one small allocation, and
//! copies nothing of what is behind it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

/// An answer to come.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Something in front of a handler.
pub trait Step: Clone + Send + Sync + 'static {
    /// Answers the request itself, or lets it go on to what is behind, and does what it likes with that answer.
    fn pass<A>(&self, request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static;
}

/// An answer that is there already.
pub fn answered(answer: impl IntoResponse) -> Answer {
    Box::pin(std::future::ready(Ok(answer.into_response())))
}

/// The layer of a step.
#[derive(Debug, Clone)]
pub struct Steps<T>(pub T);

/// A service behind a step.
#[derive(Debug, Clone)]
pub struct Behind<T, S> {
    step: T,
    service: S,
}

impl<T: Clone, S> Layer<S> for Steps<T> {
    type Service = Behind<T, S>;

    fn layer(&self, service: S) -> Self::Service {
        let step = self.0.clone();
        Behind { step, service }
    }
}

impl<T, S> Service<Request> for Behind<T, S>
where
    T: Step,
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Answer {
        self.step
            .pass(request, |request| self.service.call(request))
    }
}
