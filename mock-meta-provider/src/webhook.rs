//! Posts to the webhook: signed, and repeated with growing waits until they are taken or given up.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::chance;
use crate::config::{Config, ConfigError, is_loopback, parse_webhook_url};
use crate::mock::{SharedApp, StartError};

const SIGNATURE: &str = "X-Hub-Signature-256";
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_POSTS_AT_ONCE: usize = 256;
/// Room for the bodies that are waiting for their posts; each takes at least one KiB.
const ROOM_KIB: usize = 64 * 1024;
/// So much of an answer is read, for the connection to be used again.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

/// How events get to their webhook.
#[derive(Debug)]
pub(crate) struct Webhook {
    /// For plain http: it looks for no certificates.
    client: reqwest::Client,
    /// For https, made when it is first needed.
    secure: OnceLock<reqwest::Client>,
    default_url: Url,
    allow_remote: bool,
    mac: Option<Hmac<Sha256>>,
    max_tries: u32,
    retry_base: Duration,
    retry_cap: Duration,
    posts: Semaphore,
    room: Arc<Semaphore>,
}

impl Webhook {
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        let client = client().tls_certs_only([]).build()?;
        let secret = config.webhook_secret.as_ref();
        let mac = secret
            .map(|secret| Hmac::new_from_slice(secret.expose().as_bytes()))
            .transpose()?;
        let default_url = parse_webhook_url(&config.webhook_url)?;
        let webhook = Self {
            client,
            secure: OnceLock::new(),
            default_url,
            allow_remote: config.allow_remote_webhooks,
            mac,
            max_tries: config.webhook_max_tries,
            retry_base: Duration::from_millis(config.webhook_retry_base_ms),
            retry_cap: Duration::from_millis(config.webhook_retry_cap_ms),
            posts: Semaphore::new(MAX_POSTS_AT_ONCE),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
        };
        webhook.client(&webhook.default_url)?;
        Ok(webhook)
    }

    /// The client for this URL.
    fn client(&self, url: &Url) -> Result<&reqwest::Client, ConfigError> {
        if url.scheme() != "https" {
            return Ok(&self.client);
        }
        if let Some(secure) = self.secure.get() {
            return Ok(secure);
        }
        let secure = client().build().map_err(|_| ConfigError::NoCertificates)?;
        Ok(self.secure.get_or_init(|| secure))
    }

    /// The URL to post to: the one asked for, which must be on this machine unless others are allowed.
    pub(crate) fn resolve(&self, asked: Option<&str>) -> Result<Url, ConfigError> {
        let Some(asked) = asked else {
            return Ok(self.default_url.clone());
        };
        let url = parse_webhook_url(asked)?;
        if self.allow_remote || is_loopback(&url) {
            self.client(&url)?;
            Ok(url)
        } else {
            let message =
                "must be on a loopback host, unless ALLOW_REMOTE_WEBHOOKS is set".to_owned();
            Err(ConfigError::Invalid {
                field: "webhookUrl",
                message,
            })
        }
    }

    fn sign(&self, body: &[u8]) -> Option<String> {
        let mut mac = self.mac.clone()?;
        mac.update(body);
        let digest = Bytes::copy_from_slice(&mac.finalize().into_bytes());
        Some(format!("sha256={digest:x}"))
    }
}

/// One event, or one repeat of it, on its way to the webhook. It counts as pending until it is dropped.
pub(crate) struct Post {
    app: SharedApp,
    url: Url,
    event_id: String,
    body: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Post {
    /// Prepares a post; `None` when too much is waiting already.
    pub(crate) fn new(app: &SharedApp, url: Url, event_id: String, body: Bytes) -> Option<Self> {
        let kib = u32::try_from(body.len() / 1024 + 1).ok()?;
        let room = Arc::clone(&app.webhook.room)
            .try_acquire_many_owned(kib)
            .ok()?;
        app.pending_webhooks.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            app: app.clone(),
            url,
            event_id,
            body,
            _room: room,
        })
    }

    /// Posts until it is taken or given up. `failed`: the first try has failed, and this is the wait that
    /// the receiver asked for.
    pub(crate) async fn deliver(self, failed: Option<Duration>) {
        let max_tries = self.app.webhook.max_tries;
        let (mut tries, mut failed) = (u32::from(failed.is_some()), failed);
        while tries < max_tries {
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
        let webhook = &self.app.webhook;
        // A closed semaphore would let everyone through; nobody closes it.
        let _turn = webhook.posts.acquire().await;
        let client = webhook.client(&self.url).unwrap_or(&webhook.client);
        let mut request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json");
        if let Some(signature) = webhook.sign(&self.body) {
            request = request.header(SIGNATURE, signature);
        }
        let event_id = &self.event_id;
        let retry_after = match request.body(self.body.clone()).send().await {
            Ok(answer) if answer.status().is_success() => {
                tracing::info!(%event_id, number, "webhook taken");
                self.app.state().stats.webhooks.sent += 1;
                drain(answer).await;
                return Ok(());
            }
            Ok(answer) => {
                tracing::warn!(%event_id, number, status = answer.status().as_u16(), "webhook not taken");
                let retry_after = read_retry_after(answer.headers(), SystemTime::now());
                drain(answer).await;
                retry_after
            }
            Err(error) => {
                // Without the URL, which may carry a password.
                let error = error.without_url();
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%event_id, number, error, "webhook not reached");
                Duration::ZERO
            }
        };
        self.app.state().stats.webhooks.failed += 1;
        Err(retry_after)
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.app.pending_webhooks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins a client. It asks no proxy: where a webhook is on this machine or beside it, that would only be in the way.
fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

/// Seconds, also with a fraction, or a date; no time where it is neither.
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
        // More than a duration holds is a long time.
        Ok(seconds) if is_number => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        _ => Duration::ZERO,
    }
}

/// Reads an answer whose status has already said everything.
async fn drain(mut answer: reqwest::Response) {
    let mut length = 0;
    while length < ANSWER_LIMIT_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => length += chunk.len(),
            // A broken body costs the connection, nothing else.
            Ok(None) | Err(_) => return,
        }
    }
}
