//! What keeps a web page from acting through its visitor's browser: for where neither a key nor a signature proves who calls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;

use super::audit::{self, Failure};
use super::problem::Problem;
use super::step::{Answer, Step, answered};
use crate::edge::AllowedHosts;

/// Refuses what a foreign web page makes a browser send, or one that addresses this gateway by another name.
#[derive(Debug, Clone)]
pub struct RejectForeignOrigin {
    /// Without them callers prove in another way who they are.
    pub hosts: Option<Arc<AllowedHosts>>,
    /// Whether it may be asked by any name.
    pub by_any_name: bool,
}

impl Step for RejectForeignOrigin {
    fn pass<A>(&self, request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static,
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
            return answered(refused(detail, audit::client(request.extensions())));
        }
        Box::pin(go_on(request))
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
