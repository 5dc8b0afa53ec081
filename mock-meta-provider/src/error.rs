//! Why a provider cannot be configured or started.

use std::io;

use crate::process::environment;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable cannot be read, or its value is out of bounds.
    #[error("{0}")]
    Environment(String),
    /// The webhook secret in the environment cannot be used.
    #[error(transparent)]
    Secret(#[from] environment::Invalid),
    /// A webhook has an https URL, and there are no certificates to check it with.
    #[error(
        "webhookUrl: an https URL needs CA certificates, and there are none: \
        install ca-certificates, or set SSL_CERT_FILE"
    )]
    NoCertificates,
    /// A field is out of bounds.
    #[error("{field}: {message}")]
    Invalid {
        /// The field as JSON names it.
        field: &'static str,
        /// What it must be.
        message: String,
    },
}

impl ConfigError {
    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            message: message.into(),
        }
    }
}

/// Why a provider did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("invalid configuration")]
    Config(#[from] ConfigError),
    /// The listener has no address.
    #[error("cannot use the listener")]
    Listener(#[from] io::Error),
    /// There is no HTTP client to post events with.
    #[error("cannot build the webhook client")]
    Client(#[from] reqwest::Error),
}
