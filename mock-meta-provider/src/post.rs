//! One event on its way to the webhook: posted again, with growing waits, until it is taken.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use reqwest::Url;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::SharedApp;
use crate::chance;
use crate::webhook::Webhook;

const SIGNATURE: &str = "X-Hub-Signature-256";
/// How much of an answer is read, so that its connection can be used again.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

/// An event, or one repeat of it. It counts as pending until it is dropped.
pub(crate) struct Post {
    app: SharedApp,
    wire: Wire,
    event_id: String,
    body: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Where an event goes. Clients for these URLs have been made.
enum Wire {
    /// A 2xx takes it.
    Own(Url),
    /// Only a 200 takes it; without a URL it goes where WhatsApp's events go at that moment.
    Whatsapp(Option<Url>),
}

impl Post {
    /// Prepares a post to a URL that the webhook has resolved; `None` when too much is waiting.
    pub(crate) fn new(app: &SharedApp, url: Url, event_id: String, body: Bytes) -> Option<Self> {
        Self::on(Wire::Own(url), app, event_id, body)
    }

    /// Prepares a post to WhatsApp's webhook.
    pub(crate) fn to_whatsapp(
        app: &SharedApp,
        url: Option<Url>,
        event_id: String,
        body: Bytes,
    ) -> Option<Self> {
        Self::on(Wire::Whatsapp(url), app, event_id, body)
    }

    fn on(wire: Wire, app: &SharedApp, event_id: String, body: Bytes) -> Option<Self> {
        let room = app.webhook.reserve(&body)?;
        app.pending_webhooks.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            app: app.clone(),
            wire,
            event_id,
            body,
            _room: room,
        })
    }

    /// Posts until the event is taken or given up.
    ///
    /// `failed` says that the first try was made and failed, and which wait the receiver asked for.
    pub(crate) async fn deliver(self, mut failed: Option<Duration>) {
        let mut tries = u32::from(failed.is_some());
        while tries < self.app.webhook.max_tries {
            if let Some(retry_after) = failed {
                tokio::time::sleep(self.wait(tries, retry_after)).await;
            }
            tries += 1;
            match self.attempt(tries).await {
                Ok(()) => return,
                Err(retry_after) => failed = Some(retry_after),
            }
        }
        tracing::error!(event_id = %self.event_id, tries, "webhook given up");
        self.app.state().stats.webhooks.given_up += 1;
    }

    fn wait(&self, tries: u32, retry_after: Duration) -> Duration {
        let Webhook {
            retry_base,
            retry_cap,
            ..
        } = self.app.webhook;
        let backoff = chance::backoff(self.app.seed, &self.event_id, tries, retry_base, retry_cap);
        backoff.max(retry_after).min(retry_cap)
    }

    /// Posts once; the error is the wait that the receiver asked for.
    pub(crate) async fn attempt(&self, number: u32) -> Result<(), Duration> {
        let attempted = self.attempt_status(number).await;
        attempted.map(drop).map_err(|(_, retry_after)| retry_after)
    }

    /// Posts once; tells the status that was answered, and on failure the wait that the receiver
    /// asked for.
    pub(crate) async fn attempt_status(
        &self,
        number: u32,
    ) -> Result<StatusCode, (Option<StatusCode>, Duration)> {
        let webhook = &self.app.webhook;
        let _turn = webhook.turn().await;
        let (url, signature) = match &self.wire {
            Wire::Own(url) => (url.clone(), webhook.sign(&self.body)),
            Wire::Whatsapp(url) => {
                let url = url.clone().unwrap_or_else(|| webhook.whatsapp_url());
                (url, webhook.sign_for_app(&self.body))
            }
        };
        let client = webhook.client(&url);
        let client = client.expect("resolving the URL has made its client");
        let mut request = client.post(url).header(CONTENT_TYPE, "application/json");
        if let Some(signature) = signature {
            request = request.header(SIGNATURE, signature);
        }
        let event_id = &self.event_id;
        let mut answered = None;
        let retry_after = match request.body(self.body.clone()).send().await {
            Ok(answer) if self.wire.takes(answer.status()) => {
                tracing::info!(%event_id, number, "webhook taken");
                self.app.state().stats.webhooks.sent += 1;
                let status = answer.status();
                drain(answer).await;
                return Ok(status);
            }
            Ok(answer) => {
                tracing::warn!(%event_id, number, status = answer.status().as_u16(), "webhook not taken");
                answered = Some(answer.status());
                let retry_after = read_retry_after(answer.headers(), SystemTime::now());
                drain(answer).await;
                retry_after
            }
            Err(error) => {
                // Without the URL, which may have a password.
                let error = error.without_url();
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%event_id, number, error, "webhook not reached");
                Duration::ZERO
            }
        };
        self.app.state().stats.webhooks.failed += 1;
        Err((answered, retry_after))
    }
}

impl Wire {
    fn takes(&self, status: StatusCode) -> bool {
        match self {
            Self::Own(_) => status.is_success(),
            Self::Whatsapp(_) => status == StatusCode::OK,
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.app.pending_webhooks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads seconds, fractions allowed, or a date; zero for anything else.
fn read_retry_after(headers: &HeaderMap, now: SystemTime) -> Duration {
    let value = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default().trim();
    if let Ok(date) = httpdate::parse_http_date(value) {
        return date.duration_since(now).unwrap_or_default();
    }
    let is_number = value
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    match value.parse() {
        // More seconds than a duration can hold are for ever.
        Ok(seconds) if is_number => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        _ => Duration::ZERO,
    }
}

/// Reads the rest of an answer, up to a limit; its status has already said everything.
async fn drain(mut answer: reqwest::Response) {
    let mut length = 0;
    while length < ANSWER_LIMIT_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => length += chunk.len(),
            // A body that breaks off costs the connection, nothing else.
            Ok(None) | Err(_) => return,
        }
    }
}
