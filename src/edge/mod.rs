//! The edge of a server: its connections, and which requests it takes at all. The mock provider
//! compiles these files too, so they know nothing of either program.

mod framing;
pub mod origin;
pub mod signature;
mod slots;
mod socket;

pub use framing::Ambiguous;
pub use origin::AllowedHosts;
pub use slots::{ConnectionSlot, ConnectionSlots, Network};
pub use socket::{IDLE, Peer, Socket, bound};

use std::net::{IpAddr, Ipv4Addr};

use axum::http::header::CONTENT_ENCODING;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Uri};

/// The address in a setting: an IP address, also in brackets, or `localhost`.
#[must_use]
pub fn listen_address(host: &str) -> Option<IpAddr> {
    if host == "localhost" {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// Whether a body has no content coding.
#[must_use]
pub fn has_no_coding(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        let codings = value.as_bytes().split(|&byte| byte == b',');
        let mut codings = codings.map(<[u8]>::trim_ascii);
        codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    })
}

/// The same address without its one trailing slash. `None` if there is no such slash, or nothing
/// else.
#[must_use]
pub fn without_trailing_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/')?;
    if path.is_empty() || path.ends_with('/') {
        return None;
    }
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_trailing_slash_makes_no_difference() {
        for (given, meant) in [
            ("/messages/", Some("/messages")),
            ("/messages/?a=/", Some("/messages?a=/")),
            ("/messages/?", Some("/messages?")),
            (
                "http://localhost:4000/messages/",
                Some("http://localhost:4000/messages"),
            ),
            ("/%2e/", Some("/%2e")),
            ("/", None),
            ("//", None),
            ("/messages//", None),
            ("/messages", None),
            ("/messages?a=/", None),
            ("/messages%2f", None),
            ("*", None),
        ] {
            let uri = without_trailing_slash(&given.parse().unwrap());
            assert_eq!(uri.map(|uri| uri.to_string()).as_deref(), meant, "{given}");
        }
    }
}
