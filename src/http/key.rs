//! API keys: who calls, and what they may do. Of a secret only its hash is kept.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::caller::Caller;

/// The longest name of a key.
const MAX_NAME: usize = 64;
/// The fewest characters of a secret that is none that could be guessed.
pub const LEAST_SECRET: usize = 16;

/// What a key allows. None implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Conversations, and reading all messages.
    Inbox,
    /// Sending; reading, retrying and canceling what was sent by a key of this name, or with `inbox` all messages.
    Send,
    /// Reading, retrying and canceling all messages, and the metrics.
    Admin,
}

impl Scope {
    /// All of them: what a key has whose scopes are not said.
    pub const ALL: [Self; 3] = [Self::Inbox, Self::Send, Self::Admin];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Send => "send",
            Self::Admin => "admin",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// The scopes of which a caller of this route needs one. A route that nobody has thought of is for admins.
#[must_use]
pub fn scopes_for(route: &str) -> &'static [Scope] {
    match route {
        "/messages" | "/messages/{id}" => &Scope::ALL,
        "/messages/send" => &[Scope::Send],
        "/messages/{id}/retry" | "/messages/{id}/cancel" => &[Scope::Send, Scope::Admin],
        "/metrics" => &[Scope::Admin],
        route if route.starts_with("/conversations") => &[Scope::Inbox],
        _ => &[Scope::Admin],
    }
}

/// Scopes as people read them, such as `inbox, send or admin`.
#[must_use]
pub fn listed(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// One item of `API_KEYS`, with its secret. It cannot be printed.
pub struct GivenKey {
    name: Option<String>,
    secret: String,
    scopes: Vec<Scope>,
}

impl GivenKey {
    /// Reads `secret`, `name:secret` or `name:secret:scope+scope`; an error does not repeat what it read.
    pub fn parse(item: &str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = item.split(':').map(str::trim).collect();
        let (name, secret, scopes) = match parts[..] {
            [secret] => (None, secret, None),
            [name, secret] => (Some(name), secret, None),
            [name, secret, scopes] => (Some(name), secret, Some(scopes)),
            _ => {
                return Err(
                    "has more than three parts: it must be secret, name:secret or name:secret:scope+scope",
                );
            }
        };
        if !name.is_none_or(is_name) {
            return Err("must have a name of 1 to 64 letters, digits, dots, dashes or underscores");
        }
        if secret.is_empty() {
            return Err("has no secret");
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "has a secret that no header can carry: it must be visible ASCII without blanks",
            );
        }
        let scopes = match scopes {
            Some(scopes) => scopes
                .split('+')
                .map(|name| Scope::parse(name.trim()))
                .collect(),
            None => Some(Scope::ALL.to_vec()),
        };
        Ok(Self {
            name: name.map(str::to_owned),
            secret: secret.to_owned(),
            scopes: scopes
                .ok_or("must have scopes that are inbox, send or admin, with a + between them")?,
        })
    }

    /// Whether it could be guessed.
    #[must_use]
    pub fn is_short(&self) -> bool {
        is_short(&self.secret)
    }

    /// Its secret, for a program that calls a gateway itself.
    #[must_use]
    pub fn into_secret(self) -> String {
        self.secret
    }

    /// Whether it allows all of this.
    #[must_use]
    pub fn allows(&self, scopes: &[Scope]) -> bool {
        scopes.iter().all(|scope| self.scopes.contains(scope))
    }
}

/// Whether a secret has so few characters that it could be guessed.
#[must_use]
pub fn is_short(secret: &str) -> bool {
    secret.chars().count() < LEAST_SECRET
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

/// A key that a caller may have.
#[derive(Debug, Clone)]
pub struct Key {
    /// What its holder is to handlers.
    pub caller: Caller,
    scopes: Vec<Scope>,
    hash: Digested,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Digested([u8; 32]);

impl std::fmt::Debug for Digested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digested(…)")
    }
}

impl Digested {
    fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl Key {
    /// Whether it has one of these scopes.
    #[must_use]
    pub fn has_one_of(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(scope))
    }
}

/// All keys; two with one name or one secret would not say who calls.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Adds a key.
    pub fn add(&mut self, given: GivenKey) -> Result<(), &'static str> {
        let name = given.name.map(Arc::<str>::from);
        let sees_all = given.scopes.contains(&Scope::Inbox) || given.scopes.contains(&Scope::Admin);
        let key = Key {
            hash: Digested::of(&given.secret),
            caller: Caller::key(self.0.len(), name, sees_all),
            scopes: given.scopes,
        };
        let name = key.caller.name();
        if name.is_some() && self.0.iter().any(|other| other.caller.name() == name) {
            return Err("has the name of an earlier one");
        }
        if self.0.iter().any(|other| other.hash == key.hash) {
            return Err("has the secret of an earlier one");
        }
        self.0.push(key);
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key with this secret. All are compared, so that the time does not tell which one matched.
    #[must_use]
    pub fn find(&self, secret: &str) -> Option<&Key> {
        let hash = Digested::of(secret);
        // One after the last is the place of none.
        let mut place = self.0.len() as u64;
        for (index, key) in (0..).zip(&self.0) {
            let matches: Choice = key.hash.0.ct_eq(&hash.0);
            place.conditional_assign(&index, matches);
        }
        self.0.get(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_whole_secret_and_has_its_own_scopes() {
        let mut keys = Keys::default();
        for item in ["plain", "ops:second:admin", "desk:third:inbox+send"] {
            keys.add(GivenKey::parse(item).unwrap_or_else(|error| panic!("{error}")))
                .unwrap();
        }
        let found = |secret: &str| {
            keys.find(secret)
                .map(|key| (key.caller.name().map(|name| &**name), &*key.scopes))
        };
        assert_eq!(found("plain"), Some((None, &Scope::ALL[..])));
        assert_eq!(found("second"), Some((Some("ops"), &[Scope::Admin][..])));
        assert_eq!(
            found("third"),
            Some((Some("desk"), &[Scope::Inbox, Scope::Send][..]))
        );
        for wrong in [
            "",
            "ops",
            "ops:second",
            "secon",
            "secondd",
            "third:inbox+send",
        ] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
    }
}
