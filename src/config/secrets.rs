//! The secrets of the environment: the keys of callers, and those that sign webhooks.

use std::net::IpAddr;

use super::http::is_public;
use super::usage::usage;
use crate::error::UsageError;
use crate::http::auth::Secrets;
use crate::http::key::{GivenKey, Keys, LEAST_SECRET, Scope, is_short};
use crate::process::environment;

/// The secrets of the environment, for a listener on this address, if there is one.
pub fn secrets(address: Option<IpAddr>) -> Result<Secrets, UsageError> {
    let mut keys = Keys::default();
    for (item, key) in (1..).zip(api_keys()?) {
        check_length("API_KEYS", item, key.is_short(), address)?;
        keys.add(key).or_else(|error| key_error(item, error))?;
    }
    let webhook = environment::secrets("WEBHOOK_SECRET")?;
    for (item, secret) in (1..).zip(&webhook) {
        check_length("WEBHOOK_SECRET", item, is_short(secret), address)?;
    }
    Ok(Secrets::new(keys, &webhook))
}

/// A secret that is easy to guess is a warning on this machine, and an error where others can try.
fn check_length(
    variable: &str,
    item: usize,
    is_short: bool,
    address: Option<IpAddr>,
) -> Result<(), UsageError> {
    match address {
        Some(address) if is_short && is_public(address) => usage(format!(
            "{variable}: item {item} has a secret of fewer than {LEAST_SECRET} characters, which others than this machine could guess at {address}"
        )),
        Some(_) if is_short => {
            tracing::warn!(
                variable,
                item,
                "a secret has fewer than {LEAST_SECRET} characters: it could be guessed"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a caller of a gateway with this environment needs: the secret of the first API key that may
/// both send and read the inbox, and a webhook secret, if there are any.
pub fn credentials() -> Result<(Option<String>, Option<String>), UsageError> {
    let keys = api_keys()?;
    let has_keys = !keys.is_empty();
    let mut able = keys
        .into_iter()
        .filter(|key| key.allows(&[Scope::Inbox, Scope::Send]));
    let key = able.next().map(GivenKey::into_secret);
    if has_keys && key.is_none() {
        return usage("API_KEYS: no key has both of the scopes inbox and send");
    }
    Ok((
        key,
        environment::secrets("WEBHOOK_SECRET")?.into_iter().next(),
    ))
}

fn api_keys() -> Result<Vec<GivenKey>, UsageError> {
    let items = (1..).zip(environment::secrets("API_KEYS")?);
    items
        .map(|(item, key)| GivenKey::parse(&key).or_else(|error| key_error(item, error)))
        .collect()
}

/// Names the item by its number: any text of it could be the secret.
fn key_error<T>(item: usize, error: &str) -> Result<T, UsageError> {
    usage(format!("API_KEYS: item {item} {error}"))
}
