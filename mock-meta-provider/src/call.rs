//! A call that sends a message: it counts as waiting until it is answered or its client goes, and
//! it is completed even when the client goes.

use std::fmt;
use std::time::Duration;

use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::Cut;
use crate::app::{App, SharedApp, State};
use crate::chance::CallPlan;
use crate::edge::Peer;
use crate::fault::Fault;
use crate::ledger::CallStart;
use crate::wire::SendRequest;

/// A call that has come in. It counts as waiting until it is dropped: with its answer, or when its
/// client goes.
pub(crate) struct Call {
    app: SharedApp,
    pub(crate) key: String,
    pub(crate) start: CallStart,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.app.state().ledger.end_call(&self.key, self.start);
    }
}

impl Call {
    /// Counts the call, and decides how it ends: as scripted, or at random, by its key and its
    /// number among the calls of that key.
    pub(crate) fn begin(
        app: &SharedApp,
        key: Option<String>,
        request: &SendRequest,
        at_random: impl FnOnce(&State, &str, u64) -> CallPlan,
    ) -> (Self, CallPlan) {
        let mut state = app.state();
        let key = key.unwrap_or_else(|| {
            state.keyless_calls += 1;
            format!("keyless-{}", state.keyless_calls)
        });
        let start = state.ledger.begin_call(&key, request);
        let plan = match state.scripts.next(&request.to) {
            Some(fault) => CallPlan {
                fault,
                delay: Duration::ZERO,
            },
            None => at_random(&state, &key, start.number),
        };
        state.stats.calls += 1;
        state.stats.key_mismatches += u64::from(start.mismatched);
        state.stats.faults.count(&plan.fault);
        drop(state);
        let app = app.clone();
        (Self { app, key, start }, plan)
    }

    /// Completes the call, whether or not its client waits for the answer.
    pub(crate) async fn answer(
        self,
        peer: &Peer,
        permit: OwnedSemaphorePermit,
        fault: &Fault,
        completing: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let app = self.app.clone();
        if *fault == Fault::Hang {
            let longest = Duration::from_millis(app.state().behaviour.hang_ms);
            // A client that has finished sending may be gone, and gets no answer anyway.
            let wait = tokio::time::timeout(longest, peer.left());
            app.unless_stopping(wait).await;
            return Cut::Close.into_response();
        }
        let completed = app.spawn(async move {
            let _permit = permit;
            completing.await
        });
        // A client that has finished sending may still wait: it is answered, but counts as gone.
        let gone = async {
            peer.left().await;
            drop(self);
            std::future::pending().await
        };
        let answer = tokio::select! {
            answer = completed => answer,
            answer = gone => answer,
        };
        // Without an answer the provider was stopped, and what became of the call is not known.
        answer
            .ok()
            .flatten()
            .unwrap_or_else(|| Cut::Close.into_response())
    }
}

/// Waits as long as the plan says before a call is accepted.
pub(crate) async fn delay(plan: &CallPlan) {
    let delay = match plan.fault {
        Fault::Delay { delay_ms } => Duration::from_millis(delay_ms),
        _ => plan.delay,
    };
    tokio::time::sleep(delay).await;
}

/// An answer with exactly this body.
pub(crate) fn given(status: StatusCode, body: Value) -> Response {
    match body {
        Value::String(text) => (status, text).into_response(),
        body => (status, axum::Json(body)).into_response(),
    }
}

/// Adds what goes with the status of a failure: `Retry-After`, and where a redirect leads.
pub(crate) fn with_headers(
    app: &App,
    mut response: Response,
    retry_after: Option<String>,
) -> Response {
    let status = response.status();
    let configured = || {
        app.state()
            .behaviour
            .retry_after_seconds
            .map(|seconds| seconds.to_string())
    };
    let retry_after = match status.as_u16() {
        429 | 503 => retry_after.or_else(configured),
        _ => retry_after,
    };
    match retry_after.map(HeaderValue::try_from) {
        Some(Ok(value)) => {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        Some(Err(error)) => tracing::warn!(%error, "scripted Retry-After cannot be a header"),
        None => {}
    }
    if status.is_redirection() {
        response
            .headers_mut()
            .insert(LOCATION, HeaderValue::from_static("/messages"));
    }
    response
}

/// A plan as the log shows it: without the scripted body, which may hold anything.
pub(crate) struct LoggedPlan<'a>(pub(crate) &'a CallPlan);

impl fmt::Debug for LoggedPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.fault {
            Fault::Status { http_status, .. } => write!(f, "Status {http_status}")?,
            fault => write!(f, "{fault:?}")?,
        }
        write!(f, " after {:?}", self.0.delay)
    }
}
