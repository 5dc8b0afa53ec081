//! Where events are posted to: the HTTP clients, the URLs that are allowed, and the signature.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::config::Config;
use crate::edge::signature::sign;
use crate::error::{ConfigError, StartError};
use crate::webhook_url::parse;

/// How long one post may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_POSTS_AT_ONCE: usize = 256;
/// Room for the bodies that wait to be posted; each takes at least one KiB.
const ROOM_KIB: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) max_tries: u32,
    pub(crate) retry_base: Duration,
    pub(crate) retry_cap: Duration,
    default_url: Url,
    whatsapp_url: Mutex<Url>,
    allow_remote: bool,
    secret: Option<SecretString>,
    app_secret: Option<SecretString>,
    /// For http; it loads no certificates.
    plain_client: Client,
    /// For https; made when it is first needed.
    tls_client: OnceLock<Client>,
    posts: Semaphore,
    room: Arc<Semaphore>,
}

impl Webhook {
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        let webhook = Self {
            max_tries: config.webhook_max_tries,
            retry_base: Duration::from_millis(config.webhook_retry_base_ms),
            retry_cap: Duration::from_millis(config.webhook_retry_cap_ms),
            default_url: parse("webhookUrl", &config.webhook_url)?,
            whatsapp_url: Mutex::new(parse("whatsappWebhookUrl", &config.whatsapp.webhook_url)?),
            allow_remote: config.allow_remote_webhooks,
            secret: config.webhook_secret.clone(),
            app_secret: config.whatsapp.app_secret.clone(),
            plain_client: client().tls_certs_only([]).build()?,
            tls_client: OnceLock::new(),
            posts: Semaphore::new(MAX_POSTS_AT_ONCE),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
        };
        webhook.client(&webhook.default_url)?;
        webhook.client(&webhook.whatsapp_url())?;
        Ok(webhook)
    }

    /// The client for this URL. Once it has been made, this cannot fail.
    pub(crate) fn client(&self, url: &Url) -> Result<&Client, ConfigError> {
        if url.scheme() != "https" {
            return Ok(&self.plain_client);
        }
        if let Some(client) = self.tls_client.get() {
            return Ok(client);
        }
        let client = client().build().map_err(|_| ConfigError::NoCertificates)?;
        Ok(self.tls_client.get_or_init(|| client))
    }

    /// The URL to post to. A requested one must be on this machine unless others are allowed.
    pub(crate) fn resolve(&self, requested: Option<&str>) -> Result<Url, ConfigError> {
        match requested {
            Some(requested) => self.allow(requested),
            None => Ok(self.default_url.clone()),
        }
    }

    /// Checks a requested URL: it must be on this machine unless others are allowed.
    pub(crate) fn allow(&self, requested: &str) -> Result<Url, ConfigError> {
        let url = parse("webhookUrl", requested)?;
        if !self.allow_remote && !is_loopback(&url) {
            let message = "must be on a loopback host, unless ALLOW_REMOTE_WEBHOOKS is set";
            return Err(ConfigError::invalid("webhookUrl", message));
        }
        self.client(&url)?;
        Ok(url)
    }

    /// Where WhatsApp's events are posted to now.
    pub(crate) fn whatsapp_url(&self) -> Url {
        let url = self.whatsapp_url.lock();
        url.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Posts WhatsApp's events to another URL from now on, also those on their way.
    pub(crate) fn set_whatsapp_url(&self, url: Url) -> Result<(), ConfigError> {
        self.client(&url)?;
        let mut present = self
            .whatsapp_url
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *present = url;
        Ok(())
    }

    /// Reserves room for a body until it has been posted; `None` when too much is waiting already.
    pub(crate) fn reserve(&self, body: &[u8]) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(body.len() / 1024 + 1).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(kib).ok()
    }

    /// Waits until one more post may run.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.posts.acquire().await;
        turn.expect("nothing closes this semaphore")
    }

    /// The signature of a body; `None` without a secret.
    pub(crate) fn sign(&self, body: &[u8]) -> Option<String> {
        let secret = self.secret.as_ref()?;
        Some(sign(secret.expose_secret(), body))
    }

    /// The signature of a body of WhatsApp's; `None` without an app secret.
    pub(crate) fn sign_for_app(&self, body: &[u8]) -> Option<String> {
        let secret = self.app_secret.as_ref()?;
        Some(sign(secret.expose_secret(), body))
    }
}

/// A client that uses no proxy: the webhook is on this machine or beside it.
fn client() -> ClientBuilder {
    Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

/// Whether a URL's host can only be this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
}
