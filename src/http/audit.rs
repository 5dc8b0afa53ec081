//! Who fails to prove who calls: each is counted, the first of a kind is said with its address, and then a count at growing
//! intervals: guessing leaves a trace, and strangers do not write the log.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, header};
use metrics::counter;

use crate::log_throttle::LogThrottle;

/// What is missing or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no API key.
    MissingKey,
    /// There is none like this.
    WrongKey,
    /// The key lacks the scope that the route asks for.
    MissingScope,
    /// A webhook has no signature, or none that could be one.
    MissingSignature,
    /// A webhook was signed with another secret.
    WrongSignature,
    /// A foreign web page may have made a browser send it.
    WebPage,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::MissingKey,
        Self::WrongKey,
        Self::MissingScope,
        Self::MissingSignature,
        Self::WrongSignature,
        Self::WebPage,
    ];

    /// That of a request whose key is none of ours.
    #[must_use]
    pub fn of_key(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::AUTHORIZATION) {
            Self::WrongKey
        } else {
            Self::MissingKey
        }
    }

    /// Its label.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::WrongKey => "wrong_key",
            Self::MissingScope => "missing_scope",
            Self::MissingSignature => "missing_signature",
            Self::WrongSignature => "wrong_signature",
            Self::WebPage => "web_page",
        }
    }

    /// Counts one more of them, and says so where that is due.
    pub fn happened(self, client: Option<SocketAddr>) {
        counter!("gateway_auth_failures_total", "kind" => self.kind()).increment(1);
        let due = {
            let mut throttles = THROTTLES.lock().unwrap_or_else(PoisonError::into_inner);
            throttles[self as usize].admit(self.kind())
        };
        if let Some(passed_over) = due {
            let client = client.map(tracing::field::display);
            let kind = self.kind();
            tracing::warn!(
                kind,
                client,
                passed_over,
                "a caller did not prove who it is"
            );
        }
    }
}

/// The address of whoever is connected: the caller, or a proxy in front.
#[must_use]
pub fn client(extensions: &Extensions) -> Option<SocketAddr> {
    let client = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(client.0)
}

static THROTTLES: Mutex<[LogThrottle; Failure::ALL.len()]> =
    Mutex::new([const { LogThrottle::new() }; Failure::ALL.len()]);

/// How many webhooks with a wrong signature have a line of their own in this time.
const MOST_UNPROVEN: u32 = 60;
const UNPROVEN_TIME: Duration = Duration::from_mins(1);

/// Such webhooks with a line of their own: when the first of them was, how many there are, and how many had none.
static UNPROVEN: Mutex<Option<(Instant, u32, u64)>> = Mutex::new(None);

/// Whether a webhook whose signature is wrong, or cannot be checked since it did not come whole, is to have a line of its own, and if so how many had none since the last one. It may
/// be the provider's, with a secret that somebody has mixed up, and then its id is wanted; or anybody's, who sends thousands.
#[must_use]
pub fn says_unproven() -> Option<u64> {
    let mut unproven = UNPROVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let (since, said, passed_over) = unproven.get_or_insert((now, 0, 0));
    if now.duration_since(*since) > UNPROVEN_TIME {
        (*since, *said) = (now, 0);
    }
    if *said == MOST_UNPROVEN {
        *passed_over += 1;
        return None;
    }
    *said += 1;
    Some(std::mem::take(passed_over))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_own_place() {
        for (place, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
        }
    }
}
