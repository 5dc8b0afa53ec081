//! WhatsApp's Cloud API: the number, and what its calls and its webhooks need.

use std::net::IpAddr;

use clap::Args;
use secrecy::SecretString;

use super::http::is_public;
use super::usage::{url_of, usage};
use crate::error::UsageError;
use crate::http::auth::Secrets;
use crate::http::key::LEAST_SECRET;
use crate::peer;
use crate::process::environment;
use crate::process::hidden::Hidden;
use crate::provider::providers::Providers;
use crate::provider::whatsapp::Account;

/// The variable of the number; with one of the others it connects the channel.
pub(super) const NUMBER: &str = "WHATSAPP_PHONE_NUMBER_ID";
const TOKEN: &str = "WHATSAPP_ACCESS_TOKEN";
const APP_SECRET: &str = "META_APP_SECRET";
const VERIFY_TOKEN: &str = "META_VERIFY_TOKEN";
/// Meta's own ids have up to 20 digits.
const MAX_ID: usize = 32;

/// The options for WhatsApp's Cloud API.
#[derive(Debug, Clone, Args)]
pub struct WhatsappArgs {
    /// The number that the channel whatsapp is, by Meta's id for it; needs WHATSAPP_ACCESS_TOKEN,
    /// META_APP_SECRET, META_VERIFY_TOKEN and DATABASE_URL too; unset: as the other channel
    #[arg(long, env = "WHATSAPP_PHONE_NUMBER_ID", value_name = "ID", value_parser = number_id)]
    whatsapp_phone_number_id: Option<String>,
    /// The base URL of Meta's Graph API
    #[arg(
        long,
        env = "GRAPH_URL",
        default_value = "https://graph.facebook.com",
        value_name = "URL"
    )]
    graph_url: Hidden<String>,
    /// The version of Meta's Graph API
    #[arg(long, env = "GRAPH_VERSION", default_value = "v26.0", value_name = "VERSION", value_parser = version)]
    graph_version: String,
}

impl WhatsappArgs {
    /// The account, if the channel is connected to one. Half of one is an error.
    pub fn account(&self) -> Result<Option<Account>, UsageError> {
        let access_token = access_token()?;
        let app_secrets = environment::secrets(APP_SECRET)?;
        let verify_tokens = environment::secrets(VERIFY_TOKEN)?;
        let id = self.whatsapp_phone_number_id.as_ref();
        let given = [
            (NUMBER, id.is_some()),
            (TOKEN, access_token.is_some()),
            (APP_SECRET, !app_secrets.is_empty()),
            (VERIFY_TOKEN, !verify_tokens.is_empty()),
        ];
        let missing: Vec<&str> = given
            .iter()
            .filter(|(_, is_given)| !is_given)
            .map(|(name, _)| *name)
            .collect();
        let (Some(id), Some(access_token), []) = (id, access_token, &missing[..]) else {
            if missing.len() == given.len() {
                return Ok(None);
            }
            return usage(format!(
                "WhatsApp is half configured: {} is missing",
                missing.join(", ")
            ));
        };
        check_header(TOKEN, &access_token)?;
        for (item, token) in (1..).zip(&verify_tokens) {
            if token.chars().count() < LEAST_SECRET {
                return usage(format!(
                    "{VERIFY_TOKEN}: item {item} has fewer than {LEAST_SECRET} characters: it could be guessed"
                ));
            }
        }
        let secret = |secrets: Vec<String>| secrets.into_iter().map(SecretString::from).collect();
        Ok(Some(Account {
            phone_number_id: id.clone(),
            access_token: access_token.into(),
            app_secrets: secret(app_secrets),
            verify_tokens: secret(verify_tokens),
            graph_url: self.graph_url()?.into(),
            graph_version: self.graph_version.clone(),
        }))
    }

    /// The token goes there, so nobody must be able to read it on the way.
    fn graph_url(&self) -> Result<reqwest::Url, UsageError> {
        let url = url_of(
            "GRAPH_URL",
            peer::base_url(&self.graph_url),
            "https://graph.facebook.com",
        )?;
        if url.scheme() != "https" && !peer::is_loopback(url.host_str().unwrap_or_default()) {
            return usage("GRAPH_URL must be https, but for this machine's own addresses");
        }
        Ok(url)
    }
}

/// What everybody who can connect must not be able to do where customers are real: read and send
/// without a key, and write into the inbox of another channel without a signature.
pub fn check_exposure(
    providers: Option<&Providers>,
    secrets: &Secrets,
    address: IpAddr,
) -> Result<(), UsageError> {
    let Some(providers) = providers.filter(|it| it.whatsapp().is_some() && is_public(address))
    else {
        return Ok(());
    };
    if !secrets.has_api_keys() {
        return usage(format!(
            "API_KEYS is required where {NUMBER} is set and HOST is {address}: else everybody who can connect could read and send messages"
        ));
    }
    if providers.has_mock_meta() && !secrets.has_webhook_secrets() {
        return usage(format!(
            "WEBHOOK_SECRET is required where {NUMBER} and PROVIDER_URL are set and HOST is {address}: else everybody who can connect could post webhooks"
        ));
    }
    Ok(())
}

fn access_token() -> Result<Option<String>, UsageError> {
    let mut items = environment::secrets(TOKEN)?.into_iter();
    match (items.next(), items.next()) {
        (_, Some(_)) => usage(format!("{TOKEN} has a comma in it, but is no list")),
        (token, None) => Ok(token),
    }
}

fn check_header(variable: &str, secret: &str) -> Result<(), UsageError> {
    if secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    usage(format!(
        "{variable} has a character that no header can carry: it must be visible ASCII without blanks"
    ))
}

fn number_id(text: &str) -> Result<String, &'static str> {
    let is_id = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    is_id
        .then(|| text.to_owned())
        .ok_or("must be Meta's id of the number: digits only")
}

fn version(text: &str) -> Result<String, &'static str> {
    let is_number = |part: &str| {
        (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = text.strip_prefix('v').and_then(|it| it.split_once('.'));
    parts
        .filter(|(major, minor)| is_number(major) && is_number(minor))
        .map(|_| text.to_owned())
        .ok_or("must be a version such as v26.0")
}
