//! The running provider: it starts on a bound listener, and all its tasks end with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;

use crate::app::{App, SharedApp};
use crate::behaviour::Behaviour;
use crate::config::Config;
use crate::edge::AllowedHosts;
use crate::error::{ConfigError, StartError};
use crate::fault::Fault;
use crate::graph::behaviour::WhatsappBehaviour;
use crate::ledger::{Ledger, LedgerMessage};
use crate::router::router;
use crate::script::Script;
use crate::serve;
use crate::stats::Stats;
use crate::webhook_url;
use crate::wire::Channel;

const STOP_GRACE: Duration = Duration::from_secs(5);

/// A running provider.
///
/// [`stop`](Mock::stop) lets running calls finish; dropping it ends them at once.
///
/// ```
/// use mock_meta_provider::{Channel, Config, Fault, Mock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let mock = Mock::start(Config::calm(), listener)?;
/// mock.script("user-1", [Fault::LostAnswer]);
///
/// let client = reqwest::Client::builder().no_proxy().build()?;
/// let send = || {
///     let message = serde_json::json!({
///         "channel": "whatsapp", "to": "user-1", "text": "Hello", "clientMessageId": "c-1",
///     });
///     let request = client.post(format!("{}/messages", mock.url()));
///     request.header("Idempotency-Key", "key-1").json(&message).send()
/// };
/// assert!(send().await.is_err(), "the answer is lost");
/// assert_eq!(send().await?.status(), 200);
/// assert_eq!(mock.texts(Channel::Whatsapp, "user-1"), ["Hello"], "delivered once");
/// mock.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mock {
    app: SharedApp,
    address: SocketAddr,
}

impl Mock {
    /// Starts on a bound listener. Call it within a Tokio runtime.
    pub fn start(config: Config, listener: TcpListener) -> Result<Self, StartError> {
        config.validate()?;
        let address = listener.local_addr()?;
        let hosts = AllowedHosts::new(address.ip(), &config.allowed_hosts, &config.public_origins);
        let app = Arc::new(App::new(config)?);
        let router = router(app.clone(), hosts);
        drop(app.spawn(serve::accept(app.clone(), listener, router)));
        Ok(Self { app, address })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL without a trailing slash, as `PROVIDER_URL` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The seed of its random choices: the given one, or the one that it drew.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.app.seed
    }

    /// Sets the answers to the next calls for a participant; they replace an earlier script.
    ///
    /// `None` is everybody without a script of their own. Without answers the script ends.
    pub fn script<'a>(
        &self,
        to: impl Into<Option<&'a str>>,
        answers: impl IntoIterator<Item = Fault>,
    ) {
        let to = to.into().map(str::to_owned);
        self.play(Script {
            to,
            answers: answers.into_iter().collect(),
            repeat: false,
        });
    }

    /// Sets one answer to all coming calls for a participant, or for everybody.
    pub fn script_always<'a>(&self, to: impl Into<Option<&'a str>>, answer: Fault) {
        let to = to.into().map(str::to_owned);
        self.play(Script {
            to,
            answers: [answer].into(),
            repeat: true,
        });
    }

    /// Sets a script. One for which there is no room is only logged.
    pub fn play(&self, script: Script) {
        if let Err(error) = self.app.state().scripts.set(script) {
            tracing::warn!(%error, "a script is not played");
        }
    }

    /// How it misbehaves now.
    #[must_use]
    pub fn behaviour(&self) -> Behaviour {
        self.app.state().behaviour.clone()
    }

    /// Changes how it misbehaves; a value out of bounds is an error, and changes nothing.
    pub fn set_behaviour(&self, behaviour: Behaviour) -> Result<(), ConfigError> {
        behaviour.validate()?;
        self.app.state().behaviour = behaviour;
        Ok(())
    }

    /// How WhatsApp's side misbehaves now.
    #[must_use]
    pub fn whatsapp_behaviour(&self) -> WhatsappBehaviour {
        self.app.state().graph.behaviour.clone()
    }

    /// Changes how WhatsApp's side misbehaves; a value out of bounds is an error, and changes
    /// nothing.
    pub fn set_whatsapp_behaviour(&self, behaviour: WhatsappBehaviour) -> Result<(), ConfigError> {
        behaviour.validate()?;
        self.app.state().graph.behaviour = behaviour;
        Ok(())
    }

    /// Posts WhatsApp's events to another URL from now on, also those on their way.
    pub fn set_whatsapp_webhook_url(&self, url: &str) -> Result<(), ConfigError> {
        let url = webhook_url::parse("whatsappWebhookUrl", url)?;
        self.app.webhook.set_whatsapp_url(url)
    }

    /// Sets the token that WhatsApp's calls must have; `None` is any.
    pub fn set_access_token(&self, token: Option<SecretString>) {
        self.app.state().graph.access_token = token;
    }

    /// Copies the whole ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.app.state().ledger.snapshot("")
    }

    /// Finds one idempotency key, without copying the whole ledger.
    #[must_use]
    pub fn message(&self, idempotency_key: &str) -> Option<LedgerMessage> {
        self.app.state().ledger.message(idempotency_key)
    }

    /// Lists the texts delivered to a participant in order, without copying the whole ledger.
    #[must_use]
    pub fn texts(&self, channel: Channel, participant_id: &str) -> Vec<String> {
        self.app.state().ledger.texts(channel, participant_id)
    }

    /// Copies the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.app.stats()
    }

    /// Empties ledger, scripts and counters; the behaviour stays.
    pub fn reset(&self) {
        self.app.reset();
    }

    /// Takes no new calls, ends all posts, and gives running calls some seconds to finish.
    pub async fn stop(&self) {
        self.app.stopping.cancel();
        self.app.tasks.close();
        if tokio::time::timeout(STOP_GRACE, self.app.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.app.tasks.len(),
                "calls are cut off by the stop"
            );
        }
        self.app.aborting.cancel();
        self.app.tasks.wait().await;
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.app.stopping.cancel();
        self.app.aborting.cancel();
    }
}
