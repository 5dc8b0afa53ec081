//! The only caller of the provider: one request an attempt, with a limit on its time and on how
//! much is read of the answer.

use std::time::Duration;

use chrono::Utc;
use reqwest::Url;

use super::call::Answer;
use super::wire::Wire;
use super::{Failure, Outcome, Outgoing};
use crate::peer::{IDLE_TIMEOUT, Peer, PeerError, USER_AGENT};
use crate::provider::ErrorKind;
use crate::trace;

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Proxy Authentication Required.
const PROXY_REFUSES: u16 = 407;
/// The share of an attempt's time that its connection may take.
const CONNECT_SHARE: f64 = 0.8;

/// A client of one provider.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    peer: Peer,
    wire: Wire,
    timeout: Duration,
}

impl Client {
    /// A client of the provider at this peer, whose attempts take at most `timeout`.
    ///
    /// # Errors
    /// When TLS is wanted and cannot be set up.
    pub fn new(peer: Peer, wire: Wire, timeout: Duration) -> Result<Self, PeerError> {
        let http = peer
            .client()
            .user_agent(USER_AGENT)
            .timeout(timeout)
            // Shorter, so that it is known when the provider was never reached.
            .connect_timeout(timeout.mul_f64(CONNECT_SHARE))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build();
        Ok(Self {
            http: peer.built(http)?,
            wire,
            peer,
            timeout,
        })
    }

    /// Whether what it sends can be read on the way.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        self.peer.is_in_the_clear()
    }

    /// The most time that an attempt takes.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes one attempt, the `attempt`th at this message.
    pub async fn send(&self, outgoing: &Outgoing, attempt: i32) -> Outcome {
        let call = self.wire.encode(outgoing, attempt);
        let mut post = self
            .http
            .post(Url::clone(&call.url))
            .headers(call.headers)
            .body(call.body);
        if let Some(traceparent) = trace::traceparent() {
            post = post.header(trace::TRACEPARENT, traceparent);
        }
        let sent = post.send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(no_answer(error).by(&self.peer.through())),
        };
        let status = response.status().as_u16();
        if status == PROXY_REFUSES && self.peer.may_answer_for_itself() {
            // As where the proxy only makes the connection, and that failed.
            let failure = Failure::new(ErrorKind::Connection, "the proxy answered 407");
            return Outcome::Failed(Failure {
                http_status: Some(status),
                ambiguous: false,
                ..failure.by(&self.peer.through())
            });
        }
        let headers = response.headers().clone();
        let classify = |body: Option<&[u8]>| {
            self.wire.classify(&Answer {
                status,
                headers: &headers,
                body,
                at: Utc::now(),
            })
        };
        let outcome = match read(response).await {
            Ok(body) => classify(Some(&body)),
            Err(error) if error.is_timeout() => Outcome::Failed(Failure {
                http_status: Some(status),
                ..no_answer(error)
            }),
            Err(_) => classify(None),
        };
        match outcome {
            Outcome::Failed(failure) if self.peer.may_answer_for_itself() => {
                Outcome::Failed(failure.by(&self.peer.through()))
            }
            outcome => outcome,
        }
    }
}

async fn read(mut response: reqwest::Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    Ok(body)
}

/// The failure of a request that had no answer. If there was no connection, the provider has surely
/// not accepted the message. The text names no URL, which may hold a secret.
fn no_answer(error: reqwest::Error) -> Failure {
    let was_connected = !error.is_connect();
    let kind = if error.is_timeout() && was_connected {
        ErrorKind::Timeout
    } else {
        ErrorKind::Connection
    };
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        detail.push_str(": ");
        detail.push_str(&cause.to_string());
        source = cause.source();
    }
    Failure {
        ambiguous: was_connected,
        ..Failure::new(kind, &detail)
    }
}
