//! Browsers that have logged in with a key: the cookie holds 256 random bits, the database their
//! hash.
//!
//! A session ends 12 hours after it began, after two hours without a request, with its log-out, and
//! when its key is gone or has other scopes; on every process within five seconds.

pub mod cookie;
pub mod http;
pub mod sessions;
mod store;
mod watch;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::caller::SessionId;

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::from_hours(12);
/// After this long without a request it ends.
pub const MAX_IDLE: Duration = Duration::from_hours(2);
/// The most sessions of a key. A further one takes the place of the oldest.
pub const MAX_OF_KEY: i16 = 20;

/// What a session keeps of the key that it was begun with.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// The hash of the key's secret.
    pub key_hash: [u8; 32],
    /// The scopes that the key had, as in `API_KEYS`.
    pub scopes: String,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// A session that has not ended.
#[derive(Debug, Clone)]
pub struct Session {
    /// The key that it was begun with, which may be gone by now.
    pub origin: Origin,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
}

/// What the cookie of a session holds. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads it from a cookie: 64 lower-case hex digits. Nothing else is looked up.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let token = Self(bytes);
        (token.text() == text).then_some(token)
    }

    /// As the cookie has it.
    #[must_use]
    pub fn text(&self) -> String {
        hex::encode(self.0)
    }

    /// As the database has it.
    #[must_use]
    pub fn id(&self) -> SessionId {
        SessionId(Sha256::digest(self.0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_spelling() {
        let token = Token::random();
        let text = token.text();
        assert_eq!(Token::parse(&text), Some(token.clone()));
        assert_ne!(hex::encode(token.id().0), text);
        let upper = text.to_ascii_uppercase();
        let longer = format!("{text}0");
        for wrong in ["", "0", &upper, &text[1..], &longer, &"g".repeat(64)] {
            assert!(Token::parse(wrong).is_none() || wrong == text, "{wrong}");
        }
        assert_ne!(Token::random(), token);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let token = Token::random();
        let origin = Origin {
            key_hash: token.id().0,
            scopes: "inbox".to_owned(),
        };
        let printed = format!("{token:?} {:?} {origin:?}", token.id());
        assert_eq!(
            printed,
            r#"Token(…) SessionId(…) Origin { scopes: "inbox", .. }"#
        );
    }
}
