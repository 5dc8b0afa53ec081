//! Checks who calls: bearer keys for the API, signatures for webhooks. Secrets are compared in
//! constant time.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};

use super::audit::{self, Failure};
use super::key::{Key, Keys, Scope, join_or};
use super::middleware::{Middleware, ResponseFuture, ready};
use super::problem::{Problem, kind};
use crate::caller::Caller;
use crate::edge::signature::verify;

/// The header that a signed webhook carries, as Meta's do.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";

/// What callers must know: keys as hashes, webhook secrets as they are. Never printed.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    keys: Keys,
    webhook: Vec<SecretString>,
}

impl Secrets {
    /// Without keys the API is open; without webhook secrets webhooks are not signed.
    #[must_use]
    pub fn new(keys: Keys, webhook: &[String]) -> Self {
        Self {
            keys,
            webhook: webhook.iter().map(|secret| secret.clone().into()).collect(),
        }
    }

    /// Whether callers of the API need a key.
    #[must_use]
    pub fn has_api_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether webhooks must be signed.
    #[must_use]
    pub fn has_webhook_secrets(&self) -> bool {
        !self.webhook.is_empty()
    }

    /// The key that a request carries.
    fn key(&self, headers: &HeaderMap) -> Option<&Key> {
        let (scheme, token) = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))?;
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| self.keys.find(token.trim())).flatten()
    }

    /// Whether the headers allow that a webhook is signed as it must be. Its body is not needed.
    #[must_use]
    pub fn may_be_signed(&self, headers: &HeaderMap) -> bool {
        !self.has_webhook_secrets() || signature(headers).is_some()
    }

    /// Checks `X-Hub-Signature-256: sha256=<hex HMAC of the raw body>`.
    pub fn check_signature(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
        if !self.has_webhook_secrets() {
            return Ok(());
        }
        let valid = signature(headers).is_some_and(|signature| {
            // `verify_slice` takes constant time; all secrets are tried.
            let verified = |secret: &SecretString| verify(secret.expose_secret(), body, &signature);
            self.webhook
                .iter()
                .filter(|secret| verified(secret))
                .count()
                > 0
        });
        if valid {
            return Ok(());
        }
        Err(Self::not_signed())
    }

    /// 401, for a webhook without a signature, or with a wrong one.
    #[must_use]
    pub fn not_signed() -> Problem {
        let detail = "X-Hub-Signature-256 is missing or wrong";
        Problem::of(kind::INVALID_SIGNATURE, detail)
    }
}

fn signature(headers: &HeaderMap) -> Option<[u8; 32]> {
    headers
        .get(SIGNATURE_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("sha256="))
        .and_then(decode_hex)
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// Refuses callers without a key that has one of the route's scopes, and tells the log and the
/// handler ([`Caller`]) who calls.
#[derive(Debug, Clone)]
pub struct RequireKey {
    /// The keys.
    pub secrets: Arc<Secrets>,
    /// The scopes of which a key needs one.
    pub scopes: &'static [Scope],
}

impl Middleware for RequireKey {
    fn handle<F>(&self, mut request: Request, next: impl FnOnce(Request) -> F) -> ResponseFuture
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        match self.secrets.caller(&request, self.scopes) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(next(request))
            }
            Err(problem) => ready(problem),
        }
    }
}

impl Secrets {
    /// Who makes this request, if a key with one of these scopes does.
    fn caller(&self, request: &Request, scopes: &[Scope]) -> Result<Caller, Problem> {
        if !self.has_api_keys() {
            return Ok(Caller::ANYBODY);
        }
        let client = audit::client(request.extensions());
        let Some(key) = self.key(request.headers()) else {
            Failure::of_key(request.headers()).happened(client);
            return Err(Problem::of(
                kind::UNAUTHORIZED,
                "an API key is required: Authorization: Bearer <key>",
            ));
        };
        if let Some(name) = key.caller.key_name() {
            tracing::Span::current().record("key", &**name);
        }
        if key.has_one_of(scopes) {
            return Ok(key.caller.clone());
        }
        let needed = join_or(scopes);
        Failure::MissingScope.happened(client);
        tracing::warn!(needed, "a key lacks a scope");
        Err(Problem::forbidden(format!(
            "this key lacks the scope {needed}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::signature::sign;

    #[test]
    fn the_signature_is_that_of_the_rfc() {
        // RFC 4231, test case 2.
        let tag = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let secret = "Jefe";
        let signature = decode_hex(tag).unwrap();
        let body = b"what do ya want for nothing?";
        assert_eq!(sign(secret, body), format!("sha256={tag}"));
        assert!(verify(secret, body, &signature));
        assert!(!verify(secret, b"what do ya want for nothing!", &signature));
    }

    #[test]
    fn only_the_right_signature_passes() {
        let secrets = Secrets::new(Keys::default(), &["old".into(), "new".into()]);
        let signed = |secret: &str| sign(secret, b"body");
        let passes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SIGNATURE_HEADER, value.parse().unwrap());
            secrets.check_signature(&headers, b"body").is_ok()
        };
        assert!(passes(&signed("old")));
        assert!(passes(&signed("new")));
        let signature = signed("new");
        let good = signature.strip_prefix("sha256=").unwrap();
        for bad in [
            String::new(),
            good.to_owned(),
            signed("other"),
            format!("sha256={}", &good[1..]),
            format!("sha256={good}0"),
            format!("sha1={good}"),
            format!("sha256={}", "+1".repeat(32)),
        ] {
            assert!(!passes(&bad), "{bad}");
        }
        assert!(secrets.check_signature(&HeaderMap::new(), b"body").is_err());
    }
}
