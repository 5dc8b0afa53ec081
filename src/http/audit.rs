//! Counts the callers that fail to prove who they are, and logs some of them.
//!
//! The first failure of a kind is logged with its address, then a count at growing intervals.
//! Guessing leaves a trace, but strangers cannot fill the log.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use metrics::counter;

use crate::log_throttle::LogThrottle;

/// What a caller lacks, or has wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no API key.
    MissingKey,
    /// No key is like the given one.
    WrongKey,
    /// The key lacks the scope that the route asks for.
    MissingScope,
    /// A webhook has no signature, or one in a wrong form.
    MissingSignature,
    /// A webhook is signed with another secret.
    WrongSignature,
    /// A foreign web page may have made a browser send it.
    WebPage,
    /// A browser's session has ended, or never was.
    WrongSession,
    /// A log-in with what is no key.
    WrongLogIn,
    /// A log-in beyond those that are tried in a second.
    TooManyLogIns,
}

impl Failure {
    /// All kinds, in their order.
    pub const ALL: [Self; 9] = [
        Self::MissingKey,
        Self::WrongKey,
        Self::MissingScope,
        Self::MissingSignature,
        Self::WrongSignature,
        Self::WebPage,
        Self::WrongSession,
        Self::WrongLogIn,
        Self::TooManyLogIns,
    ];

    /// The label of its metric and its log lines.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::WrongKey => "wrong_key",
            Self::MissingScope => "missing_scope",
            Self::MissingSignature => "missing_signature",
            Self::WrongSignature => "wrong_signature",
            Self::WebPage => "web_page",
            Self::WrongSession => "wrong_session",
            Self::WrongLogIn => "wrong_login",
            Self::TooManyLogIns => "too_many_logins",
        }
    }

    /// Counts one more, and logs it when that is due.
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

/// How many unproven webhooks are logged one by one in [`UNPROVEN_TIME`].
const MOST_UNPROVEN: u32 = 60;
const UNPROVEN_TIME: Duration = Duration::from_mins(1);

/// The unproven webhooks of the present minute: when it began, how many were logged, and how many
/// were not.
static UNPROVEN: Mutex<Option<(Instant, u32, u64)>> = Mutex::new(None);

/// Whether to log an unproven webhook, and how many were not logged since the last one.
///
/// Unproven means that its signature is wrong, or that its body did not come whole. It may be the
/// provider's, with the wrong secret: then an operator needs its id. Or it is one of thousands from
/// a stranger.
#[must_use]
pub fn admit_unproven() -> Option<u64> {
    let mut minute = UNPROVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let (since, logged, passed_over) = minute.get_or_insert((now, 0, 0));
    if now.duration_since(*since) > UNPROVEN_TIME {
        (*since, *logged) = (now, 0);
    }
    if *logged == MOST_UNPROVEN {
        *passed_over += 1;
        return None;
    }
    *logged += 1;
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
