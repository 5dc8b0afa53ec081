//! How a provider is spoken to. Pure: a call is made of a message, an outcome of an answer.

use reqwest::Url;
use reqwest::header::RETRY_AFTER;

use super::call::{Answer, Call};
use super::whatsapp::{self, Account};
use super::{Outcome, Outgoing, mock_meta};
use crate::process::hidden::Hidden;

/// A way to speak to a provider.
#[derive(Debug, Clone)]
pub enum Wire {
    /// The mock's own, at this URL of its messages.
    MockMeta(Hidden<Url>),
    /// WhatsApp's Cloud API.
    Whatsapp(Box<Account>),
}

impl Wire {
    /// The wire of the mock provider at this base URL.
    #[must_use]
    pub fn mock_meta(base: &Url) -> Self {
        Self::MockMeta(mock_meta::messages_url(base))
    }

    /// The call of one attempt, the `attempt`th at this message.
    #[must_use]
    pub fn encode(&self, outgoing: &Outgoing, attempt: i32) -> Call {
        match self {
            Self::MockMeta(url) => mock_meta::encode(url, outgoing),
            Self::Whatsapp(account) => whatsapp::encode::send(account, outgoing, attempt),
        }
    }

    /// What an answer means.
    #[must_use]
    pub fn classify(&self, answer: &Answer<'_>) -> Outcome {
        match self {
            Self::MockMeta(_) => {
                let retry_after = answer.header(RETRY_AFTER.as_str());
                mock_meta::classify(answer.status, retry_after, answer.body, answer.at)
            }
            Self::Whatsapp(account) => whatsapp::classify::classify(account, answer),
        }
    }
}
