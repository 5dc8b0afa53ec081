//! WhatsApp's Cloud API, without I/O: how a message is sent, what its answers and its webhooks mean.

pub mod events;
pub mod opaque;
pub mod parse;

pub use self::parse::parse;

use reqwest::Url;
use secrecy::SecretString;

use crate::process::hidden::Hidden;

/// A number that messages are sent from, and what its calls need.
#[derive(Debug, Clone)]
pub struct Account {
    /// Meta's id for the number: digits.
    pub phone_number_id: String,
    /// What calls are authorized with.
    pub access_token: SecretString,
    /// The app's secrets, the first of which signs what is sent: webhooks are signed by one of them.
    pub app_secrets: Vec<SecretString>,
    /// What Meta proves itself with when it asks whether this is the webhook's URL.
    pub verify_tokens: Vec<SecretString>,
    /// The base of all calls, such as `https://graph.facebook.com`.
    pub graph_url: Hidden<Url>,
    /// Such as `v26.0`.
    pub graph_version: String,
}
