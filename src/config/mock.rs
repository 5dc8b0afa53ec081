//! The built-in mock provider. No other file of the configuration names it.

use clap::Args;
use mock_meta_provider::Config;

use crate::error::UsageError;

/// The options for the built-in mock provider.
#[derive(Debug, Clone, Args)]
pub struct MockArgs {
    /// The port of the built-in mock provider, on 127.0.0.1
    #[arg(long, env = "MOCK_PORT", default_value_t = 4000)]
    mock_port: u16,
}

impl MockArgs {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.mock_port
    }

    /// The mock's own settings, from the environment.
    pub fn config(&self) -> Result<Config, UsageError> {
        Config::from_env().map_err(|error| UsageError(error.to_string()))
    }
}
