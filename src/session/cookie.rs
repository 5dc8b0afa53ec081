//! The cookie of a session: its name, and how it is read, set and removed.
//!
//! Cookies are shared by all ports of a host, so the name has the port by which the browser knows
//! this gateway; over https, the name itself says that no other host and no http page has set it.

use std::borrow::Cow;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use cookie::time::Duration;
use cookie::{Cookie, SameSite};

use super::{LIFETIME, Token};

/// The name over https.
const SECURE: &str = "__Host-gateway";
/// What the name begins with over http.
const PLAIN: &str = "gateway_";

/// A cookie of a gateway that a request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Its name.
    pub name: String,
    /// What it holds, if that can be a session at all. A name that is there twice holds nothing:
    /// another site of this host may have set one of the two.
    pub token: Option<Token>,
}

/// The cookies by which this gateway is meant: that of https, and that of the request's own port.
#[must_use]
pub fn own(headers: &HeaderMap) -> Vec<Presented> {
    let plain = plain_name(headers);
    let all = all(headers).into_iter();
    let mut own: Vec<Presented> = all
        .filter(|cookie| cookie.name == SECURE || cookie.name == plain)
        .collect();
    own.sort_by_key(|cookie| cookie.name != SECURE);
    own
}

/// The one cookie that decides whose session a request belongs to: one of its own, that of https
/// first; else the only one of another port, since behind a proxy that is the same gateway.
#[must_use]
pub fn chosen(headers: &HeaderMap) -> Option<Presented> {
    if !headers.contains_key(header::COOKIE) {
        return None;
    }
    if let Some(first) = own(headers).into_iter().next() {
        return Some(first);
    }
    let mut others = all(headers).into_iter();
    let only = others.next()?;
    others.next().is_none().then_some(only)
}

/// All cookies that are, by their names, of a gateway on this host.
fn all(headers: &HeaderMap) -> Vec<Presented> {
    let mut found: Vec<Presented> = Vec::new();
    for value in headers.get_all(header::COOKIE) {
        // Another site's cookie need not be a text.
        let text = String::from_utf8_lossy(value.as_bytes());
        for cookie in Cookie::split_parse(&*text).flatten() {
            let name = cookie.name();
            if !is_ours(name) {
                continue;
            }
            match found.iter_mut().find(|known| known.name == name) {
                Some(known) => known.token = None,
                None => found.push(Presented {
                    name: name.to_owned(),
                    token: Token::parse(cookie.value()),
                }),
            }
        }
    }
    found
}

fn is_ours(name: &str) -> bool {
    let port = name.strip_prefix(PLAIN);
    name == SECURE
        || port.is_some_and(|port| {
            (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// The name of the cookie over http, by the port in `Host`.
fn plain_name(headers: &HeaderMap) -> String {
    const HTTP: u16 = 80;
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let port = host.and_then(|host| Authority::try_from(host).ok()?.port_u16());
    format!("{PLAIN}{}", port.unwrap_or(HTTP))
}

/// Whether the page that asks was loaded over https: its `Origin` says so.
#[must_use]
pub fn is_secure(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    origin.is_some_and(|origin| {
        let scheme = origin.get(.."https://".len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https://"))
    })
}

/// The name of the cookie that a log-in gets.
#[must_use]
pub fn name(headers: &HeaderMap) -> Cow<'static, str> {
    if is_secure(headers) {
        SECURE.into()
    } else {
        plain_name(headers).into()
    }
}

/// Sets a cookie.
#[must_use]
pub fn set(name: &str, token: &Token) -> HeaderValue {
    let seconds = i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX);
    let mut cookie = made(name, token.text());
    cookie.set_max_age(Duration::seconds(seconds));
    value(&cookie)
}

/// Removes a cookie.
#[must_use]
pub fn removed(name: &str) -> HeaderValue {
    let mut cookie = made(name, String::new());
    cookie.make_removal();
    value(&cookie)
}

fn made(name: &str, value: String) -> Cookie<'_> {
    Cookie::build((name, value))
        .http_only(true)
        .same_site(SameSite::Strict)
        .path("/")
        .secure(name == SECURE)
        .build()
}

fn value(cookie: &Cookie<'_>) -> HeaderValue {
    HeaderValue::from_str(&cookie.to_string()).expect("a cookie of ours is letters and digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "localhost:3000";

    fn headers(host: &str, cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        for cookie in cookies {
            headers.append(header::COOKIE, cookie.parse().unwrap());
        }
        headers
    }

    #[test]
    fn one_cookie_decides() {
        let [one, two] = [Token::random(), Token::random()];
        let (first, second) = (one.text(), two.text());
        let secure = format!("__Host-gateway={first}");
        let own = format!("gateway_3000={second}");
        let other = format!("gateway_4000={first}");
        let third = format!("gateway_5000={second}");
        for (host, cookies, expected) in [
            (PORT, &[][..], None),
            (PORT, &["a=b; c"], None),
            (PORT, &[&own], Some(("gateway_3000", Some(&two)))),
            (
                PORT,
                &[&format!("x=é; {own};y")],
                Some(("gateway_3000", Some(&two))),
            ),
            (PORT, &[&own, &secure], Some(("__Host-gateway", Some(&one)))),
            (
                PORT,
                &[&format!("{other}; {own}")],
                Some(("gateway_3000", Some(&two))),
            ),
            (PORT, &[&other], Some(("gateway_4000", Some(&one)))),
            (PORT, &[&other, &third], None),
            (
                "gateway.example",
                &["gateway_80=1"],
                Some(("gateway_80", None)),
            ),
            (PORT, &[&own, &own], Some(("gateway_3000", None))),
            (
                PORT,
                &[&format!("{own}; {own}; {own}")],
                Some(("gateway_3000", None)),
            ),
            (PORT, &["gateway_3000="], Some(("gateway_3000", None))),
            (
                PORT,
                &[&format!("gateway_3000=\"{first}\"")],
                Some(("gateway_3000", None)),
            ),
            (
                PORT,
                &[&format!(
                    "gateway_={first}; gateway_x={first}; Gateway_3000={first}"
                )],
                None,
            ),
        ] {
            let chosen = chosen(&headers(host, cookies));
            let seen = chosen.as_ref().map(|c| (&*c.name, c.token.as_ref()));
            assert_eq!(seen, expected, "{host} {cookies:?}");
        }
    }

    #[test]
    fn a_log_in_over_https_gets_a_cookie_that_no_http_page_could_set() {
        let token = Token::random();
        let mut headers = headers("gateway.example:8443", &[]);
        assert_eq!(name(&headers), "gateway_8443");
        headers.insert(
            header::ORIGIN,
            "http://gateway.example:8443".parse().unwrap(),
        );
        assert_eq!(name(&headers), "gateway_8443");
        let text = token.text();
        assert_eq!(
            set("gateway_8443", &token),
            format!("gateway_8443={text}; HttpOnly; SameSite=Strict; Path=/; Max-Age=43200")
        );
        headers.insert(header::ORIGIN, "https://gateway.example".parse().unwrap());
        assert_eq!(name(&headers), "__Host-gateway");
        assert_eq!(
            set("__Host-gateway", &token),
            format!(
                "__Host-gateway={text}; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=43200"
            )
        );
        let removed = removed("__Host-gateway");
        let removed = removed.to_str().unwrap();
        assert!(
            removed.starts_with(
                "__Host-gateway=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0"
            ),
            "{removed}"
        );
    }
}
