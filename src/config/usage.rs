//! The error of a wrong setting.

use reqwest::Url;

use crate::error::UsageError;

/// Fails with this message.
pub(super) fn usage<T>(message: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(message.into()))
}

/// Names the variable of a wrong URL, but not the URL: it may hold a secret.
pub(super) fn url_of(name: &str, url: Result<Url, &str>, example: &str) -> Result<Url, UsageError> {
    url.or_else(|wrong| usage(format!("{name} {wrong}, such as {example}")))
}
