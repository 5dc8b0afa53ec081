//! What keeps a web page from acting through its visitor's browser: for where neither a key nor a signature proves who calls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use mock_meta_provider::Hosts;

use super::audit::{self, Failure};
use super::problem::Problem;
use super::step::{Answer, Step, answered};

/// Refuses what a foreign web page makes a browser send, or one that addresses this gateway by another name.
#[derive(Debug, Clone)]
pub struct RefusePages {
    /// Without them callers prove in another way who they are.
    pub hosts: Option<Arc<Hosts>>,
    /// Whether it may be asked by any name.
    pub by_any_name: bool,
}

impl Step for RefusePages {
    fn pass<A>(&self, request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let check = if self.by_any_name {
            Hosts::refuse_pages
        } else {
            Hosts::refuse
        };
        let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
        let hosts = self.hosts.as_ref();
        if let Some(detail) = hosts.and_then(|hosts| check(hosts, method, path, headers)) {
            return answered(refused(detail, audit::client(request.extensions())));
        }
        Box::pin(go_on(request))
    }
}

/// Why a webhook is refused, if a foreign web page may have made a browser send it.
#[must_use]
pub fn refusal(hosts: &Hosts, webhook: &Parts) -> Option<Problem> {
    let detail = hosts.refuse(&webhook.method, webhook.uri.path(), &webhook.headers)?;
    Some(refused(detail, audit::client(&webhook.extensions)))
}

fn refused(detail: &'static str, client: Option<SocketAddr>) -> Problem {
    Failure::WebPage.happened(client);
    tracing::debug!(detail, "a web page was refused");
    Problem::forbidden(detail)
}
