//! Keeps a web page from acting through its visitor's browser, where neither a key nor a signature
//! proves who calls, or a cookie does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;

use super::audit::{self, Failure};
use super::middleware::{Middleware, ResponseFuture, ready};
use super::problem::Problem;
use crate::edge::AllowedHosts;
use crate::session::cookie;

/// Refuses requests that a foreign web page makes a browser send, and those that address this
/// gateway by another name.
#[derive(Debug, Clone)]
pub struct RejectForeignOrigin {
    /// None: callers prove who they are in another way.
    pub hosts: Option<Arc<AllowedHosts>>,
    /// Whether requests may address this gateway by any name.
    pub by_any_name: bool,
}

/// The same for the routes by which a browser gets a cookie and gives it back, where it is looked
/// at also with keys.
#[derive(Debug, Clone)]
pub struct RejectForeignLogin {
    /// The names and origins of this gateway.
    pub hosts: Arc<AllowedHosts>,
    /// Whether requests may address this gateway by any name: where there are keys.
    pub by_any_name: bool,
}

impl Middleware for RejectForeignLogin {
    fn handle<F>(&self, request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
        let checked = if self.by_any_name {
            Ok(())
        } else {
            self.hosts.check(method, path, headers)
        };
        let checked = checked.and_then(|()| match cookie::chosen(headers) {
            Some(_) => self.hosts.check_cookie(method, path, headers),
            None => self.hosts.check_page(method, path, headers),
        });
        match checked {
            Ok(()) => Box::pin(next(request)),
            Err(detail) => ready(refused(detail, audit::client(request.extensions()))),
        }
    }
}

/// Refuses a request by cookie that another site's page may have made a browser send.
pub fn check_cookie(hosts: &AllowedHosts, request: &Request) -> Result<(), Problem> {
    let checked = hosts.check_cookie(request.method(), request.uri().path(), request.headers());
    checked.map_err(|detail| refused(detail, audit::client(request.extensions())))
}

impl Middleware for RejectForeignOrigin {
    fn handle<F>(&self, request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let check = if self.by_any_name {
            AllowedHosts::check_page
        } else {
            AllowedHosts::check
        };
        let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
        if let Some(hosts) = &self.hosts
            && let Err(detail) = check(hosts, method, path, headers)
        {
            return ready(refused(detail, audit::client(request.extensions())));
        }
        Box::pin(next(request))
    }
}

/// Refuses a request that a foreign web page may have made a browser send.
pub fn check(hosts: &AllowedHosts, request: &Parts) -> Result<(), Problem> {
    let checked = hosts.check(&request.method, request.uri.path(), &request.headers);
    checked.map_err(|detail| refused(detail, audit::client(&request.extensions)))
}

fn refused(detail: &'static str, client: Option<SocketAddr>) -> Problem {
    Failure::WebPage.happened(client);
    tracing::debug!(detail, "a web page was refused");
    Problem::forbidden(detail)
}
