//! What WhatsApp's side is started with. The variables are named as the gateway's are.

use std::fmt;

use clap::Args;
use secrecy::SecretString;

use super::behaviour::WhatsappBehaviour;
use crate::error::ConfigError;
use crate::process::environment;
use crate::webhook_url::{self, WebhookUrl};

const DEFAULT_WEBHOOK_URL: &str = "http://localhost:3000/webhooks/whatsapp";

/// What WhatsApp's side of a [`Mock`](crate::Mock) is started with.
#[derive(Clone, Args)]
pub struct Whatsapp {
    /// The phone number id that messages are sent from and events are about; unset: calls may name
    /// any
    #[arg(
        long = "whatsapp-phone-number-id",
        env = "WHATSAPP_PHONE_NUMBER_ID",
        value_name = "ID"
    )]
    pub phone_number_id: Option<String>,

    /// URL that statuses and WhatsApp's events are posted to
    #[arg(id = "whatsapp_webhook_url", long = "whatsapp-webhook-url", env = "WHATSAPP_WEBHOOK_URL",
          hide_env_values = true, value_name = "URL", default_value = DEFAULT_WEBHOOK_URL,
          value_parser = WebhookUrl("--whatsapp-webhook-url (WHATSAPP_WEBHOOK_URL)"))]
    pub webhook_url: String,

    /// The token that calls must have; `None` is any. Read only from the environment or a file.
    #[arg(skip)]
    pub access_token: Option<SecretString>,

    /// Signs what is posted (`X-Hub-Signature-256`), and checks `appsecret_proof`. Read only from
    /// the environment or a file.
    #[arg(skip)]
    pub app_secret: Option<SecretString>,

    /// What the handshake shows. Read only from the environment or a file.
    #[arg(skip)]
    pub verify_token: Option<SecretString>,

    /// How it behaves at first; `POST /config/whatsapp` changes it while it runs.
    #[command(flatten)]
    pub behaviour: WhatsappBehaviour,
}

/// Leaves out the webhook's URL, which may have a password.
impl fmt::Debug for Whatsapp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whatsapp")
            .field("phone_number_id", &self.phone_number_id)
            .field("behaviour", &self.behaviour)
            .finish_non_exhaustive()
    }
}

impl Whatsapp {
    /// No misbehaviour at all, and no secrets.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            phone_number_id: None,
            webhook_url: DEFAULT_WEBHOOK_URL.to_owned(),
            access_token: None,
            app_secret: None,
            verify_token: None,
            behaviour: WhatsappBehaviour::CALM,
        }
    }

    /// Adds the secrets from the environment: of each list the first one.
    pub(crate) fn with_secrets_from_env(mut self) -> Result<Self, ConfigError> {
        let first = |variable| -> Result<Option<SecretString>, ConfigError> {
            let secrets = environment::secrets(variable)?;
            Ok(secrets.into_iter().next().map(SecretString::from))
        };
        self.access_token = first("WHATSAPP_ACCESS_TOKEN")?;
        self.app_secret = first("META_APP_SECRET")?;
        self.verify_token = first("META_VERIFY_TOKEN")?;
        Ok(self)
    }

    /// Checks what code has set.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        webhook_url::parse("whatsappWebhookUrl", &self.webhook_url)?;
        self.behaviour.validate()
    }
}
