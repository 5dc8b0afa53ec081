//! Middleware: code that a request passes through on its way to a handler.
//!
//! These are layers such as axum's `from_fn` makes, but each costs one small allocation a request
//! and copies nothing of what is behind it. tower-http's layers do not replace them: its timeout
//! answers without a [`Problem`](super::problem::Problem), and it has one layer for each header.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

/// A response that is on its way.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Something in front of a handler.
pub trait Middleware: Clone + Send + Sync + 'static {
    /// Answers the request itself, or passes it to `next` and may change the response.
    fn handle<F>(&self, request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static;
}

/// A response that is there already.
pub fn ready(response: impl IntoResponse) -> ResponseFuture {
    Box::pin(std::future::ready(Ok(response.into_response())))
}

/// Puts a middleware in front of services.
#[derive(Debug, Clone)]
pub struct MiddlewareLayer<M>(pub M);

/// A service with a middleware in front.
#[derive(Debug, Clone)]
pub struct MiddlewareService<M, S> {
    middleware: M,
    inner: S,
}

impl<M: Clone, S> Layer<S> for MiddlewareLayer<M> {
    type Service = MiddlewareService<M, S>;

    fn layer(&self, inner: S) -> Self::Service {
        let middleware = self.0.clone();
        MiddlewareService { middleware, inner }
    }
}

impl<M, S> Service<Request> for MiddlewareService<M, S>
where
    M: Middleware,
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> ResponseFuture {
        self.middleware
            .handle(request, |request| self.inner.call(request))
    }
}
