//! An entry of the table of routes: a handler, and the rules that hold in front of it.
//!
//! The guard of a route, its limits and its part of the OpenAPI document are made from its rules.

use std::time::Duration;

use axum::http::Extensions;
use utoipa_axum::router::UtoipaMethodRouter;

use super::key::Scope;
use super::problem::kind::Kind;

/// How long a request may take. It ends the waiting, not the work.
const TIME_LIMIT: Duration = Duration::from_secs(12);

/// The largest body of a request, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit(pub usize);

impl Default for BodyLimit {
    fn default() -> Self {
        Self(Self::USUAL)
    }
}

impl BodyLimit {
    /// The usual one, in bytes. A larger body comes with at least as much a second.
    pub const USUAL: usize = 64 * 1024;
    /// How long a body of the usual size may take to arrive.
    const USUAL_TIME: Duration = Duration::from_secs(10);
    /// After this time a larger one must keep its pace.
    pub const FIRST: Duration = Duration::from_secs(1);

    /// How long the largest body may take to arrive.
    #[must_use]
    pub fn time(self) -> Duration {
        if self.0 <= Self::USUAL {
            Self::USUAL_TIME
        } else {
            Self::USUAL_TIME.max(Self::FIRST + Self::time_of(self.0))
        }
    }

    /// How long so many bytes may take at the least pace.
    #[must_use]
    pub fn time_of(bytes: usize) -> Duration {
        let millis = bytes.saturating_mul(1000) / Self::USUAL;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The limit of the route that a request has taken.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or_default()
    }
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, by any name of this machine: for probes.
    Open,
    /// The holder of a key with one of these scopes; anybody where there are no keys.
    Key(&'static [Scope]),
    /// A browser, to log in or out: the handler checks its key.
    LogIn,
    /// The provider, which asks whether this is the webhook's URL: the handler checks its token.
    Handshake,
    /// The provider, which signs the raw body. The handler checks that, since it reads the body.
    Signature,
}

/// A handler and its rules.
pub struct Route<S> {
    /// The handler, with its path and what it says of itself in the document.
    pub handler: UtoipaMethodRouter<S>,
    /// What holds in front of it.
    pub rules: Rules,
}

/// What holds in front of a handler.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Who may call it.
    pub access: Access,
    /// The largest body.
    pub body_limit: BodyLimit,
    /// How long a request may take.
    pub time_limit: Duration,
    /// Whether it also answers while the process stops.
    pub while_stopping: bool,
    /// The problems that only this handler answers with, for the document.
    pub problems: &'static [Kind],
}

impl<S> Route<S> {
    /// A route with the usual limits.
    #[must_use]
    pub fn new(handler: UtoipaMethodRouter<S>, access: Access) -> Self {
        let rules = Rules {
            access,
            body_limit: BodyLimit::default(),
            time_limit: TIME_LIMIT,
            while_stopping: false,
            problems: &[],
        };
        Self { handler, rules }
    }

    /// The largest body, where it is not the usual one. The request may take as much longer as that
    /// body may.
    #[must_use]
    pub fn body_limit(mut self, limit: BodyLimit) -> Self {
        self.rules.time_limit += limit.time().saturating_sub(BodyLimit::default().time());
        self.rules.body_limit = limit;
        self
    }

    /// How much longer than usual a request may take.
    #[must_use]
    pub fn extra_time(mut self, extra: Duration) -> Self {
        self.rules.time_limit += extra;
        self
    }

    /// It also answers while the process stops.
    #[must_use]
    pub fn while_stopping(mut self) -> Self {
        self.rules.while_stopping = true;
        self
    }

    /// The problems that only this handler answers with.
    #[must_use]
    pub fn problems(mut self, problems: &'static [Kind]) -> Self {
        self.rules.problems = problems;
        self
    }
}
