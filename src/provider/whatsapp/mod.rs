//! WhatsApp's Cloud API, without I/O: how a message is sent, what its answers and its webhooks mean.

pub mod classify;
mod codes;
pub mod encode;
pub mod events;
pub mod opaque;
pub mod parse;
mod person_id;

pub use self::parse::parse;
pub use self::person_id::{is_number, is_user_id, number};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use crate::edge::signature::tag;
use crate::peer;
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

/// What stands for a secret in a text that Meta has put it into.
const HIDDEN: &str = "[hidden]";

impl Account {
    /// The URL of something below this number, such as `messages`; every part of it must have been
    /// checked. It holds the proof that whoever calls knows the app's secret.
    #[must_use]
    pub fn url(&self, below: &str) -> Hidden<Url> {
        let (version, id) = (&self.graph_version, &self.phone_number_id);
        self.proven(&format!("/{version}/{id}/{below}"))
    }

    /// The URL of a path, with that proof.
    #[must_use]
    pub fn proven(&self, path: &str) -> Hidden<Url> {
        let mut url = peer::below(&self.graph_url, path);
        if let Some(proof) = self.proof() {
            url.query_pairs_mut().append_pair("appsecret_proof", &proof);
        }
        url.into()
    }

    fn proof(&self) -> Option<String> {
        let token = self.access_token.expose_secret().as_bytes();
        let secret = self.app_secrets.first()?;
        Some(tag(secret.expose_secret(), token))
    }

    /// What tells tokens apart, and tells nothing of them: the first 12 hex digits of the SHA-256.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        super::hashed_id(self.access_token.expose_secret())
    }

    /// The text without any secret of this account.
    fn without_secrets(&self, text: &str) -> String {
        let proof = self.proof();
        let secrets = self.app_secrets.iter().chain(&self.verify_tokens);
        let secrets = secrets.chain([&self.access_token]);
        let secrets = secrets.map(ExposeSecret::expose_secret);
        let secrets = secrets.chain(proof.as_deref());
        secrets
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn account() -> Account {
        Account {
            phone_number_id: "106540352242922".into(),
            access_token: "token-1234567890".into(),
            app_secrets: vec!["secret-one".into(), "secret-two".into()],
            verify_tokens: vec!["verify-1234567890".into()],
            graph_url: Url::parse("https://graph.example/base/").unwrap().into(),
            graph_version: "v26.0".into(),
        }
    }

    #[test]
    fn no_secret_of_the_account_stays_in_a_text() {
        let account = account();
        let proof = account.proof().unwrap();
        let text = format!(
            "Malformed access token token-1234567890 (secret-one, secret-two, verify-1234567890; {proof}), token-12345"
        );
        let expected =
            "Malformed access token [hidden] ([hidden], [hidden], [hidden]; [hidden]), token-12345";
        assert_eq!(account.without_secrets(&text), expected);
        assert!(!format!("{account:?}").contains("secret-one"));
    }

    #[test]
    fn fingerprints_tell_tokens_apart() {
        let account = account();
        let other = Account {
            access_token: "token-1234567891".into(),
            ..account.clone()
        };
        assert_eq!(account.fingerprint().len(), 12);
        assert_eq!(account.fingerprint(), account.clone().fingerprint());
        assert_ne!(account.fingerprint(), other.fingerprint());
    }
}
