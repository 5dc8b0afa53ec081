//! Keeps web pages from using the server through a visitor's browser, where nothing else proves who
//! calls.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names that callers may use for a server, and the origins of its own pages. A page may have
/// its own name resolved to this machine's address (DNS rebinding). The browser then takes the two
/// for one origin, but the page cannot change the name in `Host`.
#[derive(Debug, Clone)]
pub struct AllowedHosts {
    /// These, and this machine's own: `localhost` and the loopback addresses. A name that begins
    /// with a dot means all its subdomains. `None` means any name.
    names: Option<Vec<String>>,
    /// Whether any name is allowed only because nobody has said which are.
    is_open: bool,
    is_public: bool,
    /// Origins of this server's pages, beside the `Host` of a request, which a proxy may change.
    origins: Vec<String>,
}

impl AllowedHosts {
    /// For a listener on this address. On a loopback address, or if names are given, only those are
    /// allowed; else any. The names and origins come from [`Self::parse_name`] and
    /// [`Self::parse_origin`].
    #[must_use]
    pub fn new(address: IpAddr, named: &[String], origins: &[String]) -> Self {
        let named = named.iter().map(|name| name.trim());
        let names: Vec<&str> = named.filter(|name| !name.is_empty()).collect();
        let is_open = names.is_empty() && !address.is_loopback();
        let is_any = names.contains(&"*") || is_open;
        let stripped = |name: &&str| name.strip_prefix('*').unwrap_or(name).to_owned();
        let origins = origins.iter().filter(|origin| !origin.is_empty());
        Self {
            names: (!is_any).then(|| names.iter().map(stripped).collect()),
            is_open,
            is_public: !address.to_canonical().is_loopback(),
            origins: origins.cloned().collect(),
        }
    }

    /// Whether other machines can connect, and no name that they may use is given.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Parses one name for [`Self::new`]: a host without a port, `*.` or `.` and a domain for its
    /// subdomains, or `*` for any.
    pub fn parse_name(name: &str) -> Result<String, &'static str> {
        let name = name.trim();
        let host = name
            .strip_prefix("*.")
            .or_else(|| name.strip_prefix('.'))
            .unwrap_or(name);
        let is_host = !host.contains('*')
            && host
                .parse::<Authority>()
                .is_ok_and(|authority| authority.host() == host);
        // Empty items are ignored.
        if name.is_empty() || name == "*" || is_host {
            Ok(name.to_owned())
        } else {
            Err("must be host names without ports, such as example.com, *.example.com or *")
        }
    }

    /// Parses one origin for [`Self::new`], as browsers write it: a scheme, a host, and a port that
    /// is not the scheme's own.
    pub fn parse_origin(origin: &str) -> Result<String, &'static str> {
        let wrong =
            "must be origins, such as https://gateway.example or http://gateway.example:3000";
        let origin = origin.trim().to_ascii_lowercase();
        if origin.is_empty() {
            return Ok(origin);
        }
        let uri: Uri = origin.parse().map_err(|_| wrong)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong);
        };
        let usual_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return Err(wrong),
        };
        let is_whole = origin.len() == scheme.len() + "://".len() + authority.as_str().len();
        if !is_whole || authority.host().is_empty() || !has_only_a_port(authority) {
            return Err(wrong);
        }
        Ok(origin
            .strip_suffix(usual_port)
            .unwrap_or(&origin)
            .to_owned())
    }

    /// Refuses a request that a foreign web page may have made a browser send, and says why.
    pub fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), &'static str> {
        if !self.admit(headers) {
            return Err("Host is neither this machine nor one of ALLOWED_HOSTS");
        }
        self.check_page(method, path, headers)
    }

    /// The same, whatever name the request uses for this server. `Sec-Fetch-Site` decides if the
    /// browser sends it; else `Origin`. A request without both is not from a browser, or from a
    /// very old one.
    pub fn check_page(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), &'static str> {
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
        if sites.peek().is_none() {
            let is_own = self.is_own_origin(headers);
            return if is_own {
                Ok(())
            } else {
                Err("Origin is another one than this server's")
            };
        }
        let is_own = sites.all(|site| match site.as_bytes() {
            b"same-origin" => true,
            // Typed by a person, or from a bookmark.
            b"none" => method == Method::GET,
            _ => method == Method::GET && is_way_in(path, headers),
        });
        if is_own {
            Ok(())
        } else {
            Err("Sec-Fetch-Site says that another site's page asks")
        }
    }

    /// The same for a request with a cookie, which a browser sends along whoever asks: one that
    /// changes something must say where it comes from.
    pub fn check_cookie(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), &'static str> {
        let only_reads = method == Method::GET || method == Method::HEAD;
        let is_silent =
            !headers.contains_key(SEC_FETCH_SITE) && !headers.contains_key(header::ORIGIN);
        if is_silent && !only_reads {
            return Err(
                "a request by cookie that is not GET or HEAD needs Sec-Fetch-Site or Origin",
            );
        }
        self.check_page(method, path, headers)
    }

    /// Whether other machines can connect, or the request names this server as one of them would.
    #[must_use]
    pub fn is_seen_from_outside(&self, headers: &HeaderMap) -> bool {
        self.is_public || !headers.get_all(header::HOST).iter().all(is_of_this_machine)
    }

    /// Browsers always send `Host`, so a request without it is not from one.
    fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(named) = &self.names else {
            return true;
        };
        headers.get_all(header::HOST).iter().all(|value| {
            if is_plainly_local(value) {
                return true;
            }
            let authority = Authority::try_from(value.as_bytes());
            authority.is_ok_and(|authority| {
                let host = authority.host();
                let is_known = is_local(host) || named.iter().any(|name| is_named(name, host));
                is_known && has_only_a_port(&authority)
            })
        })
    }

    /// Whether the request comes from a page of this host and port, from one of the public origins,
    /// or from no page.
    fn is_own_origin(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        headers.get_all(header::ORIGIN).iter().all(|origin| {
            let Ok(origin) = origin.to_str() else {
                return false;
            };
            let is_origin = |public: &String| public.eq_ignore_ascii_case(origin);
            let is_hosts = match (origin.split_once("://"), host) {
                (Some((_, origin)), Some(host)) => origin.as_bytes().eq_ignore_ascii_case(host),
                _ => false,
            };
            is_hosts || self.origins.iter().any(is_origin)
        })
    }
}

/// Whether a person follows a link to a page that anybody may link to.
fn is_way_in(path: &str, headers: &HeaderMap) -> bool {
    let is_navigation = headers
        .get("sec-fetch-mode")
        .is_some_and(|mode| mode == "navigate");
    is_navigation && matches!(path, "/" | "/inbox" | "/api" | "/api/")
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

/// Whether the authority has nothing but a host and a port.
fn has_only_a_port(authority: &Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    }
}

/// Whether it is this machine, by a usual name in its usual form. Most requests are, and this is
/// fast.
fn is_plainly_local(host: &HeaderValue) -> bool {
    let names = ["localhost", "127.0.0.1", "[::1]"];
    let rest = |name: &str| host.as_bytes().strip_prefix(name.as_bytes());
    names.into_iter().find_map(rest).is_some_and(|rest| {
        let port = rest.strip_prefix(b":");
        rest.is_empty()
            || port.is_some_and(|port| {
                (1..=4).contains(&port.len()) && port.iter().all(u8::is_ascii_digit)
            })
    })
}

fn is_of_this_machine(host: &HeaderValue) -> bool {
    let authority = Authority::try_from(host.as_bytes());
    authority.is_ok_and(|authority| is_local(authority.host()))
}

fn is_local(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
        let hosts = AllowedHosts::new([127, 0, 0, 1].into(), &["gateway.example".to_owned()], &[]);
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
        let public = AllowedHosts::new([0, 0, 0, 0].into(), &[], &[]);
        assert!(public.admit(&headers("evil.example", None)));
        assert!(public.is_open() && !hosts.is_open());
        assert!(public.is_seen_from_outside(&headers("localhost", None)));
        assert!(hosts.is_seen_from_outside(&headers("gateway.example", None)));
        assert!(!hosts.is_seen_from_outside(&headers("[::1]:3000", None)));
    }

    #[test]
    fn an_origin_is_the_gateways_own_only_with_its_host_and_port() {
        let public = AllowedHosts::parse_origin("https://Gateway.Example:443").unwrap();
        let hosts = AllowedHosts::new([127, 0, 0, 1].into(), &[], &[public]);
        let is_own = |origin: &str| hosts.is_own_origin(&headers("localhost:3000", Some(origin)));
        assert!(is_own("http://localhost:3000") && is_own("https://LOCALHOST:3000"));
        assert!(is_own("https://gateway.example"));
        for foreign in [
            "null",
            "",
            "http://localhost",
            "http://localhost:4000",
            "http://evil.example",
            "http://127.0.0.1:3000",
            "http://gateway.example",
            "https://gateway.example:8443",
            "https://gateway.example.evil.example",
        ] {
            assert!(!is_own(foreign), "{foreign}");
        }
        assert!(hosts.is_own_origin(&headers("localhost:3000", None)));
        assert!(hosts.is_own_origin(&HeaderMap::new()));
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_perhaps_a_port() {
        for (given, meant) in [
            (" https://Gateway.example ", "https://gateway.example"),
            ("http://gateway.example:80", "http://gateway.example"),
            ("https://gateway.example:80", "https://gateway.example:80"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("", ""),
        ] {
            assert_eq!(
                AllowedHosts::parse_origin(given).as_deref(),
                Ok(meant),
                "{given}"
            );
        }
        for wrong in [
            "gateway.example",
            "*",
            "null",
            "https://",
            "https://gateway.example/",
            "https://gateway.example/inbox",
            "https://me@gateway.example",
            "https://gateway.example:port",
            "ftp://gateway.example",
            "https://*.gateway.example:x",
            "https://a.example https://b.example",
        ] {
            assert!(AllowedHosts::parse_origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_browser_says_of_the_page_that_asks_decides() {
        let hosts = AllowedHosts::new([127, 0, 0, 1].into(), &[], &[]);
        let refused = |method: &Method, path: &str, fetch: &[(&'static str, &str)]| {
            let mut headers = headers("localhost:3000", None);
            for (name, value) in fetch {
                headers.append(*name, value.parse().unwrap());
            }
            hosts.check(method, path, &headers).is_err()
        };
        let site = |site: &'static str| ("sec-fetch-site", site);
        let mode = ("sec-fetch-mode", "navigate");
        for (method, path, fetch, expected) in [
            (Method::GET, "/config", vec![], false),
            (Method::POST, "/config", vec![site("same-origin")], false),
            (Method::GET, "/config", vec![site("none"), mode], false),
            (Method::POST, "/config", vec![site("none")], true),
            (Method::GET, "/config", vec![site("same-site")], true),
            (Method::GET, "/config", vec![site("cross-site"), mode], true),
            (Method::GET, "/config", vec![site("")], true),
            (
                Method::GET,
                "/config",
                vec![site("same-origin"), site("cross-site")],
                true,
            ),
            (Method::GET, "/inbox", vec![site("cross-site"), mode], false),
            (Method::GET, "/", vec![site("same-site"), mode], false),
            (Method::GET, "/api/", vec![site("cross-site"), mode], false),
            (
                Method::GET,
                "/api/openapi.json",
                vec![site("cross-site"), mode],
                true,
            ),
            (Method::GET, "/inbox", vec![site("cross-site")], true),
            (Method::POST, "/inbox", vec![site("cross-site"), mode], true),
            // It knows better than the name behind a proxy.
            (
                Method::POST,
                "/config",
                vec![site("same-origin"), ("origin", "https://a.example")],
                false,
            ),
        ] {
            assert_eq!(
                refused(&method, path, &fetch),
                expected,
                "{method} {path} {fetch:?}"
            );
        }
    }

    #[test]
    fn a_request_by_cookie_that_changes_something_says_where_it_comes_from() {
        let hosts = AllowedHosts::new([127, 0, 0, 1].into(), &[], &[]);
        let origin = ("origin", "http://localhost:3000");
        let site = |site: &'static str| ("sec-fetch-site", site);
        for (method, said, passes) in [
            (Method::GET, vec![], true),
            (Method::HEAD, vec![], true),
            (Method::POST, vec![], false),
            (Method::DELETE, vec![], false),
            (Method::POST, vec![origin], true),
            (
                Method::POST,
                vec![("origin", "http://localhost:5173")],
                false,
            ),
            (Method::GET, vec![("origin", "null")], false),
            (Method::POST, vec![site("same-origin")], true),
            (Method::POST, vec![site("same-site"), origin], false),
            (Method::GET, vec![site("cross-site")], false),
            (Method::GET, vec![site("none")], true),
            (Method::POST, vec![site("none")], false),
        ] {
            let mut headers = headers("localhost:3000", None);
            for (name, value) in &said {
                headers.append(*name, value.parse().unwrap());
            }
            let checked = hosts.check_cookie(&method, "/conversations", &headers);
            assert_eq!(checked.is_ok(), passes, "{method} {said:?}");
        }
    }
}
