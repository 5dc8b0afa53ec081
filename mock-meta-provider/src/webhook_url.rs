//! URLs that events can be posted to.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use reqwest::Url;

use crate::error::ConfigError;

/// Reads a URL that events can be posted to; an error names the field.
pub(crate) fn parse(field: &'static str, value: &str) -> Result<Url, ConfigError> {
    let invalid = |message: &str| ConfigError::invalid(field, message);
    let url = Url::parse(value).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("must be an http or https URL"));
    }
    if value.len() > 2048 {
        return Err(invalid("must have at most 2048 characters"));
    }
    Ok(url)
}

/// Checks a URL on the command line, with the names of its option. Clap's own error would repeat
/// it, and it may have a password.
#[derive(Clone)]
pub(crate) struct WebhookUrl(pub(crate) &'static str);

impl TypedValueParser for WebhookUrl {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let text = value.to_str().unwrap_or_default();
        match parse("webhookUrl", text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => {
                let message = format!("{}: {error}\n", self.0);
                Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
            }
        }
    }
}
