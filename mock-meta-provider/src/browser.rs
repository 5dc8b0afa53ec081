//! What keeps a web page from acting through its visitor's browser, where nothing else asks who calls: of this provider, and of the gateway.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};

/// The names that callers may address a server by. A page that has had its own name resolved to this machine's address (DNS
/// rebinding) is of one origin with the server for the browser, but it cannot change the name.
#[derive(Debug, Clone)]
pub enum Hosts {
    /// Any.
    Any,
    /// These, and this machine's own: `localhost` and the loopback addresses. One that begins with a dot is all its subdomains.
    Only(Vec<String>),
}

impl Hosts {
    /// For a listener on this address: on a loopback address, and where names are given, only those; else any.
    #[must_use]
    pub fn new(address: IpAddr, named: &[String]) -> Self {
        let mut names = Vec::new();
        for name in named.iter().map(|name| name.trim()) {
            match name {
                "" => {}
                "*" => return Self::Any,
                name => names.push(name.strip_prefix('*').unwrap_or(name).to_owned()),
            }
        }
        if names.is_empty() && !address.is_loopback() {
            Self::Any
        } else {
            Self::Only(names)
        }
    }

    /// Checks one name of [`Self::new`]: a host without a port, `*.` or `.` and a domain for its subdomains, or `*` for any.
    pub fn check(name: &str) -> Result<String, &'static str> {
        let name = name.trim();
        let host = name
            .strip_prefix("*.")
            .or_else(|| name.strip_prefix('.'))
            .unwrap_or(name);
        let is_host = !host.contains('*')
            && host
                .parse::<Authority>()
                .is_ok_and(|authority| authority.host() == host);
        // Nothing between two commas is nothing.
        if name.is_empty() || name == "*" || is_host {
            Ok(name.to_owned())
        } else {
            Err("must be host names without ports, such as example.com, *.example.com or *")
        }
    }

    /// Why a request with these headers is refused: a foreign web page may have made a browser send it.
    #[must_use]
    pub fn refuse(&self, headers: &HeaderMap) -> Option<&'static str> {
        if !self.admit(headers) {
            Some("Host is neither this machine nor one of ALLOWED_HOSTS")
        } else if !is_own_origin(headers) {
            Some("Origin is another one than this server's")
        } else {
            None
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
                let is_known = is_local(host) || named.iter().any(|name| is_named(name, host));
                is_known && has_only_a_port(&authority)
            })
        })
    }
}

fn is_named(name: &str, host: &str) -> bool {
    if !name.starts_with('.') {
        return name.eq_ignore_ascii_case(host);
    }
    let start = host.len().checked_sub(name.len());
    start.is_some_and(|start| {
        start > 0 && host.as_bytes()[start..].eq_ignore_ascii_case(name.as_bytes())
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_this_machine_and_the_named_hosts_are_admitted() {
        let hosts = Hosts::new([127, 0, 0, 1].into(), &["gateway.example".to_owned()]);
        for good in [
            "localhost",
            "LOCALHOST:3000",
            "app.localhost:1",
            "127.0.0.1:3000",
            "127.8.9.10",
            "[::1]:3000",
            "[::1]",
            "gateway.example",
            "Gateway.Example:8443",
        ] {
            assert!(hosts.admit(&headers(good, None)), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "10.0.0.1:3000",
            "[::2]",
            "0.0.0.0:3000",
            "127.0.0.1.evil.example",
            "a.gateway.example",
            "",
            "local host",
            "localhost:3000,evil.example",
        ] {
            assert!(!hosts.admit(&headers(bad, None)), "{bad}");
        }
        let mut two = headers("localhost", None);
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(!hosts.admit(&two));
        assert!(hosts.admit(&HeaderMap::new()));
        assert!(Hosts::new([0, 0, 0, 0].into(), &[]).admit(&headers("evil.example", None)));
    }

    #[test]
    fn an_origin_is_the_gateways_own_only_with_its_host_and_port() {
        let is_own = |origin: &str| is_own_origin(&headers("localhost:3000", Some(origin)));
        assert!(is_own("http://localhost:3000") && is_own("https://LOCALHOST:3000"));
        for foreign in [
            "null",
            "",
            "http://localhost",
            "http://localhost:4000",
            "http://evil.example",
            "http://127.0.0.1:3000",
        ] {
            assert!(!is_own(foreign), "{foreign}");
        }
        assert!(is_own_origin(&headers("localhost:3000", None)));
        assert!(is_own_origin(&HeaderMap::new()));
    }
}
