//! A request of a provider, and its answer.

use chrono::{DateTime, Utc};
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::process::hidden::Hidden;

/// A request of a provider.
#[derive(Debug)]
pub struct Call {
    /// Where to. It may hold a secret.
    pub url: Hidden<Url>,
    /// With what.
    pub headers: HeaderMap,
    /// JSON.
    pub body: Vec<u8>,
}

impl Call {
    /// Posts JSON.
    pub(super) fn post(url: Hidden<Url>, body: Vec<u8>) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            url,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, json)]),
            body,
        }
    }

    /// With this header, whose value is never shown.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// What a provider has answered.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// At most the first 64 KiB; none where it broke off.
    pub body: Option<&'a [u8]>,
    /// When it came.
    pub at: DateTime<Utc>,
}

impl Answer<'_> {
    /// The text of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
