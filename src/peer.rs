//! The other side of outgoing HTTP calls: its URL, the proxy to it, and the certificates to trust.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{ClientBuilder, Url};

use crate::process::hidden::Hidden;

/// What providers are told about who calls.
pub const USER_AGENT: &str = concat!("gateway/", env!("CARGO_PKG_VERSION"));
/// How long a connection to a provider is kept without a call: shorter than the idle timeouts of
/// common servers, so that seldom one is closed under a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// There are no certificates to check the other side with.
    #[error(
        "{0} needs CA certificates, and there are none: install ca-certificates, or set SSL_CERT_FILE"
    )]
    NoCertificates(String, #[source] reqwest::Error),
    /// TLS cannot be set up.
    #[error("no client for {0}")]
    Client(String, #[source] reqwest::Error),
}

/// A URL to call, and how to get there.
#[derive(Debug, Clone)]
pub struct Peer {
    url: Hidden<Url>,
    proxy: Option<Proxy>,
}

/// The proxy for a URL, as the environment says.
#[derive(Debug, Clone)]
struct Proxy {
    /// Without a user and a password.
    address: String,
    is_encrypted: bool,
}

/// A URL that can be called.
///
/// # Errors
/// What is wrong with it.
pub fn http_url(text: &str) -> Result<Url, &'static str> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err("is not an http or https URL"),
    }
}

/// A URL that paths are added to.
///
/// # Errors
/// What is wrong with it.
pub fn base_url(text: &str) -> Result<Url, &'static str> {
    let url = http_url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a ? or a #, but paths are added to it; so it is not a base URL");
    }
    Ok(url)
}

/// The URL of a path below a base URL.
#[must_use]
pub fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

impl Peer {
    /// The peer at this URL. The proxy comes from the environment (`HTTP_PROXY`, `HTTPS_PROXY`,
    /// `ALL_PROXY`, `NO_PROXY`), but this machine is always called directly.
    #[must_use]
    pub fn at(url: Url) -> Self {
        let proxy = if is_loopback(url.host_str().unwrap_or_default()) {
            None
        } else {
            proxy(&url)
        };
        Self {
            url: url.into(),
            proxy,
        }
    }

    /// The URL, as it was given.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The URL without anything that may be secret.
    #[must_use]
    pub fn name(&self) -> String {
        let mut url = self.url().clone();
        // This cannot fail for an http URL.
        url.set_username("").ok();
        url.set_password(None).ok();
        url.set_query(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// Begins a client. It follows no redirects, and loads certificates only if something is
    /// encrypted.
    pub fn client(&self) -> ClientBuilder {
        let client = ClientBuilder::new().redirect(reqwest::redirect::Policy::none());
        let client = match &self.proxy {
            Some(_) => client,
            None => client.no_proxy(),
        };
        if self.is_encrypted() {
            client
        } else {
            client.tls_certs_only([])
        }
    }

    /// Explains why a client could not be built.
    pub fn built<T>(&self, client: reqwest::Result<T>) -> Result<T, PeerError> {
        client.map_err(|error| {
            if self.is_encrypted() {
                PeerError::NoCertificates(self.name(), error)
            } else {
                PeerError::Client(self.name(), error)
            }
        })
    }

    /// The proxy, for the end of an error message; empty without one.
    #[must_use]
    pub fn through(&self) -> String {
        let proxy = self.proxy.as_ref();
        proxy.map_or_else(String::new, |proxy| {
            format!(" (through the proxy {})", proxy.address)
        })
    }

    /// Whether the answer may come from the proxy itself.
    #[must_use]
    pub fn may_answer_for_itself(&self) -> bool {
        self.proxy.is_some() && self.url.scheme() == "http"
    }

    /// Whether others on the network can read what is sent: to another machine, and without https.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        self.url.scheme() == "http" && !is_loopback(self.url.host_str().unwrap_or_default())
    }

    fn is_encrypted(&self) -> bool {
        let by_proxy = self.proxy.as_ref().is_some_and(|proxy| proxy.is_encrypted);
        self.url.scheme() == "https" || by_proxy
    }
}

/// Whether this host of a URL can only be this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = address.parse::<IpAddr>() {
        return address.to_canonical().is_loopback() || address.is_unspecified();
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Finds the same proxy as reqwest does.
fn proxy(url: &Url) -> Option<Proxy> {
    let uri: Uri = url.as_str().parse().ok()?;
    let proxy = Matcher::from_env().intercept(&uri)?;
    let authority = proxy.uri().authority()?;
    let port = authority.port_u16().map(|port| format!(":{port}"));
    Some(Proxy {
        address: format!("{}{}", authority.host(), port.unwrap_or_default()),
        is_encrypted: proxy.uri().scheme_str() == Some("https"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_many_names() {
        for (url, expected) in [
            ("http://localhost:4000", true),
            ("http://LOCALHOST./", true),
            ("https://mock.localhost/a", true),
            ("http://127.0.0.1", true),
            ("http://127.255.0.7:1", true),
            ("http://127.1", true),
            ("http://0.0.0.0:4000", true),
            ("http://[::1]:4000", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost.example", false),
            ("http://notlocalhost", false),
            ("http://128.0.0.1", false),
            ("http://[::2]", false),
            ("http://10.0.0.1@example.com", false),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(is_loopback(url.host_str().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn paths_are_added_to_a_base_url() {
        for (url, expected) in [
            ("http://host", "http://host/messages"),
            ("HTTPS://host:443/", "https://host/messages"),
            ("http://[::1]:8/v1//", "http://[::1]:8/v1/messages"),
        ] {
            let base = base_url(url).unwrap();
            assert_eq!(below(&base, "/messages").as_str(), expected);
        }
        for no_base in [
            "",
            "host",
            "host:80",
            "ftp://host",
            "http://",
            "http://host?key=1",
            "http://host/#a",
            "http://user:pass#word@host",
        ] {
            assert!(base_url(no_base).is_err(), "{no_base}");
        }
    }

    #[test]
    fn a_name_has_no_secret() {
        let url = http_url("https://user:secret@host/path/?key=secret").unwrap();
        assert_eq!(Peer::at(url).name(), "https://host/path");
    }
}
