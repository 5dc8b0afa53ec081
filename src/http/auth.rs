//! Who may call: bearer keys for the API, signatures for webhooks. Secrets are compared in constant time.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::audit::{self, Failure};
use super::key::{Key, Keys, listed, scopes_for};
use super::problem::Problem;
use super::step::{Answer, Step, answered};
use crate::caller::Caller;

/// The header that a signed webhook carries, as Meta's do.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";

/// What callers must prove to know: keys as hashes, webhook secrets as they are. Never printed.
#[derive(Clone, Default)]
pub struct Secrets {
    keys: Keys,
    webhook: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Secrets({} webhook secrets, {:?})",
            self.webhook.len(),
            self.keys
        )
    }
}

impl Secrets {
    /// Without keys the API is open; without webhook secrets webhooks are not signed.
    #[must_use]
    pub fn new(keys: Keys, webhook: &[String]) -> Self {
        Self {
            keys,
            webhook: webhook
                .iter()
                .map(|secret| secret.clone().into_bytes())
                .collect(),
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

    /// Whether a webhook could be signed as it must be, as far as that shows before its body has come.
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
            let verified = |secret: &Vec<u8>| verify(secret, body, &signature);
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

    /// The refusal of a webhook that is not signed, or wrongly.
    #[must_use]
    pub fn not_signed() -> Problem {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "invalid_signature",
            "X-Hub-Signature-256 is missing or wrong",
        )
    }
}

fn signature(headers: &HeaderMap) -> Option<[u8; 32]> {
    headers
        .get(SIGNATURE_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("sha256="))
        .and_then(decode_hex)
}

fn verify(secret: &[u8], body: &[u8], signature: &[u8]) -> bool {
    Hmac::<Sha256>::new_from_slice(secret)
        .is_ok_and(|mac| mac.chain_update(body).verify_slice(signature).is_ok())
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

/// Lets through who has a key with a scope that the route asks for, and tells the log and the handler ([`Caller`]) who that is.
#[derive(Debug, Clone)]
pub struct RequireKey(pub Arc<Secrets>);

impl Step for RequireKey {
    fn pass<A>(&self, mut request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        match self.0.caller(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(go_on(request))
            }
            Err(problem) => answered(problem),
        }
    }
}

impl Secrets {
    /// Who makes this request, if that one may.
    fn caller(&self, request: &Request) -> Result<Caller, Problem> {
        if !self.has_api_keys() {
            return Ok(Caller::ANYBODY);
        }
        let client = audit::client(request.extensions());
        let Some(key) = self.key(request.headers()) else {
            Failure::of_key(request.headers()).happened(client);
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "an API key is required: Authorization: Bearer <key>",
            ));
        };
        if let Some(name) = key.caller.name() {
            tracing::Span::current().record("key", &**name);
        }
        // What is no route has no scope that a key could have.
        let route = request.extensions().get().map(MatchedPath::as_str);
        let scopes = scopes_for(route.unwrap_or_default());
        if key.has_one_of(scopes) {
            return Ok(key.caller.clone());
        }
        let needed = listed(scopes);
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

    #[test]
    fn the_signature_is_that_of_the_rfc() {
        // RFC 4231, test case 2.
        let tag = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let tag = decode_hex(tag).unwrap();
        assert!(verify(b"Jefe", b"what do ya want for nothing?", &tag));
        assert!(!verify(b"Jefe", b"what do ya want for nothing!", &tag));
    }

    #[test]
    fn only_the_right_signature_passes() {
        let secrets = Secrets::new(Keys::default(), &["old".into(), "new".into()]);
        let hex = |secret: &str| -> String {
            let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
            let tag = mac.chain_update(b"body").finalize().into_bytes();
            tag.iter()
                .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
        };
        let passes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SIGNATURE_HEADER, value.parse().unwrap());
            secrets.check_signature(&headers, b"body").is_ok()
        };
        assert!(passes(&format!("sha256={}", hex("old"))));
        assert!(passes(&format!("sha256={}", hex("new"))));
        let good = hex("new");
        for bad in [
            String::new(),
            good.clone(),
            format!("sha256={}", hex("other")),
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
