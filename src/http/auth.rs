//! Checks who calls: bearer keys and sessions for the API, signatures for webhooks. Secrets are
//! compared in constant time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tower::{Layer, Service, ServiceExt};

use super::audit::{self, Failure};
use super::key::{Key, Keys, Scope, join_or};
use super::middleware::{ResponseFuture, ready};
use super::origin;
use super::problem::{Problem, kind};
use crate::caller::{Caller, SessionId};
use crate::edge::AllowedHosts;
use crate::edge::signature::verify;
use crate::session::sessions::Sessions;
use crate::session::{Session, cookie};

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
        !self.has_webhook_secrets() || has_signature(headers)
    }

    /// Checks `X-Hub-Signature-256: sha256=<hex HMAC of the raw body>`.
    pub fn check_signature(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
        if !self.has_webhook_secrets() {
            return Ok(());
        }
        if is_signed(&self.webhook, headers, body) {
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

/// Whether there is a signature in the right form. The body is not needed.
#[must_use]
pub fn has_signature(headers: &HeaderMap) -> bool {
    signature(headers).is_some()
}

/// Whether one of the secrets has signed the body.
#[must_use]
pub fn is_signed(secrets: &[SecretString], headers: &HeaderMap, body: &[u8]) -> bool {
    signature(headers).is_some_and(|signature| {
        // `verify_slice` takes constant time; all secrets are tried.
        let verified = |secret: &SecretString| verify(secret.expose_secret(), body, &signature);
        secrets.iter().filter(|secret| verified(secret)).count() > 0
    })
}

/// Whether this is one of the secrets, in constant time.
#[must_use]
pub fn is_one_of(given: &str, secrets: &[SecretString]) -> bool {
    let hash = |text: &str| <[u8; 32]>::from(Sha256::digest(text.as_bytes()));
    let given = hash(given);
    let found = secrets.iter().fold(Choice::from(0), |found, secret| {
        found | hash(secret.expose_secret()).ct_eq(&given)
    });
    found.into()
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
/// handler ([`Caller`]) who calls. A browser has the cookie of a session in place of its key.
///
/// Only a session that has to be looked up costs more than a comparison of hashes.
#[derive(Debug, Clone)]
pub struct RequireKey {
    /// The keys.
    pub secrets: Arc<Secrets>,
    /// The sessions that were begun with them.
    pub sessions: Arc<Sessions>,
    /// The origins of this gateway's pages, from which alone a cookie is good.
    pub hosts: Arc<AllowedHosts>,
    /// The scopes of which a key needs one.
    pub scopes: &'static [Scope],
}

/// A service with [`RequireKey`] in front.
#[derive(Debug, Clone)]
pub struct RequireKeyService<S> {
    rules: RequireKey,
    inner: S,
}

impl<S> Layer<S> for RequireKey {
    type Service = RequireKeyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let rules = self.clone();
        RequireKeyService { rules, inner }
    }
}

impl<S> Service<Request> for RequireKeyService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> ResponseFuture {
        match self.rules.proof(&request) {
            Ok(Proof::Caller(caller)) => {
                request.extensions_mut().insert(caller);
                Box::pin(self.inner.call(request))
            }
            Ok(Proof::Session(id)) => {
                let (rules, inner) = (self.rules.clone(), self.inner.clone());
                Box::pin(rules.look_up(id, request, inner))
            }
            Err(problem) => ready(problem),
        }
    }
}

/// What a request proves.
enum Proof {
    Caller(Caller),
    /// It has the cookie of a session that must be looked up.
    Session(SessionId),
}

impl RequireKey {
    /// What this request proves, as far as the database is not needed for that.
    fn proof(&self, request: &Request) -> Result<Proof, Problem> {
        if !self.secrets.has_api_keys() {
            return Ok(Proof::Caller(Caller::ANYBODY));
        }
        let headers = request.headers();
        let client = audit::client(request.extensions());
        if headers.contains_key(header::AUTHORIZATION) {
            let Some(key) = self.secrets.key(headers) else {
                return Err(refused(Failure::WrongKey, client));
            };
            return self.admit(key, None, client).map(Proof::Caller);
        }
        let Some(cookie) = cookie::chosen(headers) else {
            return Err(refused(Failure::MissingKey, client));
        };
        let Some(token) = cookie.token else {
            return Err(refused(Failure::WrongSession, client));
        };
        origin::check_cookie(&self.hosts, request)?;
        let id = token.id();
        match self.sessions.known(id) {
            Some(answer) => {
                let caller = self.of_session(id, answer.session(), client)?;
                Ok(Proof::Caller(caller))
            }
            None => Ok(Proof::Session(id)),
        }
    }

    /// Looks a session up, and passes on what its holder asks.
    async fn look_up<S>(
        self,
        id: SessionId,
        mut request: Request,
        inner: S,
    ) -> Result<Response, Infallible>
    where
        S: Service<Request, Response = Response, Error = Infallible>,
    {
        let client = audit::client(request.extensions());
        let session = self.sessions.find(id).await.map_err(Problem::from);
        match session.and_then(|session| self.of_session(id, session, client)) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                inner.oneshot(request).await
            }
            Err(problem) => Ok(problem.into_response()),
        }
    }

    /// The caller that a session is, if its key is still the same.
    fn of_session(
        &self,
        id: SessionId,
        session: Option<Session>,
        client: Option<SocketAddr>,
    ) -> Result<Caller, Problem> {
        let key = session.and_then(|session| self.secrets.keys.of_session(&session.origin));
        let Some(key) = key else {
            return Err(refused(Failure::WrongSession, client));
        };
        self.sessions.used(id);
        self.admit(key, Some(id), client)
    }

    /// The holder of a key, if that has one of the scopes.
    fn admit(
        &self,
        key: &Key,
        session: Option<SessionId>,
        client: Option<SocketAddr>,
    ) -> Result<Caller, Problem> {
        tell_log(key);
        if key.has_one_of(self.scopes) {
            let caller = key.caller.clone();
            return Ok(match session {
                Some(session) => caller.by_session(session),
                None => caller,
            });
        }
        let needed = join_or(self.scopes);
        Failure::MissingScope.happened(client);
        tracing::warn!(needed, "a key lacks a scope");
        Err(Problem::forbidden(format!(
            "this key lacks the scope {needed}"
        )))
    }
}

/// 401.
fn refused(failure: Failure, client: Option<SocketAddr>) -> Problem {
    failure.happened(client);
    let detail = match failure {
        Failure::WrongSession => "the session has ended: log in again",
        Failure::WrongLogIn => "this is none of the keys",
        _ => "an API key is required: Authorization: Bearer <key>",
    };
    Problem::of(kind::UNAUTHORIZED, detail)
}

/// Names a key in the log lines of this request.
fn tell_log(key: &Key) {
    if let Some(name) = key.caller.key_name() {
        tracing::Span::current().record("key", &**name);
    }
}

impl Secrets {
    /// The key that a browser logs in with. Each failure has the same answer.
    pub fn log_in(&self, secret: &str, client: Option<SocketAddr>) -> Result<&Key, Problem> {
        let key = self.keys.find(secret);
        let key = key.ok_or_else(|| refused(Failure::WrongLogIn, client))?;
        tell_log(key);
        Ok(key)
    }

    /// Refuses a wrong `Authorization` where none is needed.
    pub fn refuse_wrong_key(
        &self,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<(), Problem> {
        let is_wrong = self.has_api_keys()
            && headers.contains_key(header::AUTHORIZATION)
            && self.key(headers).is_none();
        if is_wrong {
            return Err(refused(Failure::WrongKey, client));
        }
        Ok(())
    }

    /// What a caller may do: everything, where there are no keys.
    #[must_use]
    pub fn scopes(&self, caller: &Caller) -> &[Scope] {
        self.keys.of(caller).map_or(&Scope::ALL, Key::scopes)
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
