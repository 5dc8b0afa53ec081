//! API keys: who calls, and what they may do. Only the hash of a secret is kept.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::caller::Caller;
use crate::session::Origin;

/// The longest name of a key, in characters.
const MAX_NAME: usize = 64;
/// A shorter secret could be guessed; in characters.
pub const LEAST_SECRET: usize = 16;

/// What a key allows. No scope implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Conversations, and reading all messages.
    Inbox,
    /// Sending. Reading, retrying and canceling the messages that a key of this name has sent; with
    /// `inbox`, all messages.
    Send,
    /// Reading, retrying and canceling all messages, and the metrics.
    Admin,
}

impl Scope {
    /// All of them: the scopes of a key that names none.
    pub const ALL: [Self; 3] = [Self::Inbox, Self::Send, Self::Admin];

    /// The scope as `API_KEYS` has it.
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

/// The names of these scopes, always in the same order.
pub fn names(scopes: &[Scope]) -> impl Iterator<Item = &'static str> {
    let all = Scope::ALL.into_iter();
    all.filter(|scope| scopes.contains(scope))
        .map(Scope::as_str)
}

/// Scopes as people read them, such as `inbox, send or admin`.
#[must_use]
pub fn join_or(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// One item of `API_KEYS`, with its secret.
#[derive(Debug)]
pub struct GivenKey {
    name: Option<String>,
    secret: SecretString,
    scopes: Vec<Scope>,
}

impl GivenKey {
    /// Reads `secret`, `name:secret` or `name:secret:scope+scope`. An error does not repeat it.
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
            secret: secret.into(),
            scopes: scopes
                .ok_or("must have scopes that are inbox, send or admin, with a + between them")?,
        })
    }

    /// Whether its secret could be guessed.
    #[must_use]
    pub fn is_short(&self) -> bool {
        is_short(self.secret.expose_secret())
    }

    /// Its secret, for a program that calls a gateway.
    #[must_use]
    pub fn into_secret(self) -> String {
        self.secret.expose_secret().to_owned()
    }

    /// Whether it has all of these scopes.
    #[must_use]
    pub fn allows(&self, scopes: &[Scope]) -> bool {
        scopes.iter().all(|scope| self.scopes.contains(scope))
    }
}

/// Whether a secret is so short that it could be guessed.
#[must_use]
pub fn is_short(secret: &str) -> bool {
    secret.chars().count() < LEAST_SECRET
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

/// A key that callers may have.
#[derive(Debug, Clone)]
pub struct Key {
    /// What handlers know of its holder.
    pub caller: Caller,
    scopes: Vec<Scope>,
    hash: SecretHash,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct SecretHash([u8; 32]);

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl SecretHash {
    fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl Key {
    /// What it allows.
    #[must_use]
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// What its sessions keep of it: the hash of its secret, and its scopes.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            key_hash: self.hash.0,
            scopes: names(&self.scopes).collect::<Vec<_>>().join("+"),
        }
    }

    /// Whether it has one of these scopes.
    #[must_use]
    pub fn has_one_of(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.scopes.contains(scope))
    }
}

/// All keys. No two have the same name or secret: one call has one caller.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Adds a key, unless an earlier one has its name or secret.
    pub fn add(&mut self, given: GivenKey) -> Result<(), &'static str> {
        let name = given.name.map(Arc::<str>::from);
        let sees_all = given.scopes.contains(&Scope::Inbox) || given.scopes.contains(&Scope::Admin);
        let key = Key {
            hash: SecretHash::of(given.secret.expose_secret()),
            caller: Caller::holder(self.0.len(), name, sees_all),
            scopes: given.scopes,
        };
        let name = key.caller.key_name();
        if name.is_some() && self.0.iter().any(|other| other.caller.key_name() == name) {
            return Err("has the name of an earlier one");
        }
        if self.0.iter().any(|other| other.hash == key.hash) {
            return Err("has the secret of an earlier one");
        }
        self.0.push(key);
        Ok(())
    }

    /// The key of a caller.
    #[must_use]
    pub fn of(&self, caller: &Caller) -> Option<&Key> {
        self.0.get(caller.key_index()?)
    }

    /// The key that a session was begun with, unless it has other scopes by now.
    #[must_use]
    pub fn of_session(&self, origin: &Origin) -> Option<&Key> {
        let is_it = |key: &&Key| key.hash.0 == origin.key_hash && key.origin() == *origin;
        self.0.iter().find(is_it)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key with this secret. All are compared, so that the time does not tell which matched.
    #[must_use]
    pub fn find(&self, secret: &str) -> Option<&Key> {
        let hash = SecretHash::of(secret);
        // The index after the last stands for no key.
        let mut found = self.0.len() as u64;
        for (index, key) in (0..).zip(&self.0) {
            let matches: Choice = key.hash.0.ct_eq(&hash.0);
            found.conditional_assign(&index, matches);
        }
        let found = usize::try_from(found).expect("it is at most the length of a list");
        self.0.get(found)
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
                .map(|key| (key.caller.key_name().map(|name| &**name), &*key.scopes))
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
