//! What keeps a web page from acting through its visitor's browser: nothing else here asks who calls.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::Refusal;

/// The names that callers may address the provider by. A page that has had its own name resolved to this machine's address (DNS
/// rebinding) is of one origin with the provider for the browser, but it cannot change the name.
#[derive(Debug, Clone)]
pub(crate) enum Hosts {
    /// Any.
    Any,
    /// These, and this machine's own: `localhost` and the loopback addresses.
    Only(Vec<String>),
}

impl Hosts {
    /// For a listener on this address: on a loopback address, and where names are given, only those; else any.
    pub(crate) fn new(address: IpAddr, named: &[String]) -> Self {
        let named = named.iter().map(|name| name.trim().to_owned());
        let named: Vec<String> = named.filter(|name| !name.is_empty()).collect();
        if named.is_empty() && !address.is_loopback() {
            Self::Any
        } else {
            Self::Only(named)
        }
    }

    /// Browsers always send a `Host`; a request without one is none of theirs.
    fn admit(&self, headers: &HeaderMap) -> bool {
        let Self::Only(named) = self else {
            return true;
        };
        headers.get_all(header::HOST).iter().all(|value| {
            let authority = Authority::try_from(value.as_bytes());
            authority.is_ok_and(|authority| {
                let host = authority.host();
                let is_known =
                    is_local(host) || named.iter().any(|name| name.eq_ignore_ascii_case(host));
                is_known && has_only_a_port(&authority)
            })
        })
    }
}

/// Whether there is nothing beside the host but a port.
fn has_only_a_port(authority: &Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    }
}

fn is_local(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a web page of this very host and port makes the request, or none at all.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        match (origin, host) {
            (Some((_, origin)), Some(host)) => origin.as_bytes().eq_ignore_ascii_case(host),
            _ => false,
        }
    })
}

/// Refuses what a foreign web page makes a browser send.
pub(crate) async fn refuse_pages(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let error = if !hosts.admit(headers) {
        "Host is neither this machine nor one of ALLOWED_HOSTS"
    } else if !is_own_origin(headers) {
        "Origin is another one than this provider's"
    } else {
        return next.run(request).await;
    };
    tracing::warn!(error, "a web page was refused");
    Refusal::new(StatusCode::FORBIDDEN, error).into_response()
}
