//! The HTTP API: every route, in front of it what every request passes through.

pub mod audit;
pub mod auth;
pub mod browser;
pub mod docs;
pub mod extract;
pub mod fields;
pub mod headers;
pub mod key;
pub mod observe;
pub mod once;
pub mod operations;
pub mod page;
pub mod problem;
pub mod server;
pub mod step;
pub mod unread;

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use mock_meta_provider::Hosts;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::auth::{RequireKey, Secrets};
use self::browser::RefusePages;
use self::headers::Protect;
use self::observe::Observe;
use self::problem::Problem;
use self::step::{Answer, Step, Steps, answered};
use self::unread::Unread;
use crate::app::App;
use crate::{conversation, message, webhook};

/// How long a request may take, beside the time that a send waits for its attempt. Ends the waiting, not the work.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// What handlers work with: one for all of them.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Parts>);

/// What it is made of.
#[derive(Debug)]
pub struct Parts {
    /// The running gateway.
    pub app: Arc<App>,
    /// Cancelled when the process stops: nothing new is taken.
    pub stopping: CancellationToken,
    /// Who may call.
    pub secrets: Arc<Secrets>,
    /// The names that callers may address it by, where they need no secret.
    pub hosts: Arc<Hosts>,
    /// The metrics of this process.
    pub metrics: PrometheusHandle,
}

impl From<Parts> for Gateway {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Gateway {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The API and its document.
pub fn router(gateway: Gateway) -> Router {
    let send = OpenApiRouter::new().routes(routes!(message::http::send_message));
    let api = OpenApiRouter::new()
        .routes(routes!(message::http::list_messages))
        .routes(routes!(message::http::get_message))
        .routes(routes!(message::http::retry_message))
        .routes(routes!(message::http::cancel_message))
        .routes(routes!(conversation::http::list_conversations))
        .routes(routes!(conversation::http::get_conversation))
        .routes(routes!(conversation::http::read_conversation))
        .routes(routes!(conversation::http::close_conversation))
        .routes(routes!(conversation::http::reopen_conversation))
        .routes(routes!(conversation::http::archive_conversation))
        .routes(routes!(conversation::http::unarchive_conversation));
    let webhooks = OpenApiRouter::new().routes(routes!(webhook::http::receive_webhook));
    let metrics = OpenApiRouter::new().routes(routes!(operations::get_metrics));
    let health = OpenApiRouter::new()
        .routes(routes!(operations::get_health))
        .routes(routes!(operations::get_ready));

    let admit_for = |limit| {
        let gateway = gateway.clone();
        Steps(Admit { gateway, limit })
    };
    let admit = admit_for(REQUEST_TIMEOUT);
    let admit_send = admit_for(REQUEST_TIMEOUT + gateway.app.send_wait);
    let require_key = Steps(RequireKey(Arc::clone(&gateway.secrets)));
    let hosts = hosts_unless(&gateway, gateway.secrets.has_api_keys());
    let no_pages = refuse_pages(hosts.clone());
    let no_foreign_pages = refuse_foreign_pages(hosts);
    // Within what asks for a key, so that it knows whose answer it is; what is open to all has small answers, or shares one.
    let unread = Steps(Unread::default());
    let guard = (no_pages, require_key, unread);
    let (router, document) = OpenApiRouter::with_openapi(docs::document())
        .merge(send.route_layer((guard.clone(), admit_send)))
        .merge(api.route_layer((guard.clone(), admit.clone())))
        .merge(webhooks.route_layer(admit))
        .merge(metrics.route_layer(guard))
        .merge(health.route_layer(no_foreign_pages.clone()))
        .with_state(gateway)
        .split_for_parts();
    let page = docs::page(&docs::complete(document)).layer(no_foreign_pages);
    finish(router.merge(page))
}

/// What a process without the API serves: its health and its metrics.
pub fn operations_router(gateway: Gateway) -> Router {
    let hosts = hosts_unless(&gateway, gateway.secrets.has_api_keys());
    let guard = (
        refuse_pages(hosts.clone()),
        Steps(RequireKey(Arc::clone(&gateway.secrets))),
        Steps(Unread::default()),
    );
    let metrics = Router::new()
        .route("/metrics", get(operations::get_metrics))
        .route_layer(guard);
    let router = Router::new()
        .route("/health", get(operations::get_health))
        .route("/ready", get(operations::get_ready))
        .route_layer(refuse_foreign_pages(hosts))
        .merge(metrics)
        .with_state(gateway);
    finish(router)
}

/// The hosts to check, unless callers prove who they are.
fn hosts_unless(gateway: &Gateway, is_proven: bool) -> Option<Arc<Hosts>> {
    (!is_proven).then(|| Arc::clone(&gateway.hosts))
}

fn refuse_pages(hosts: Option<Arc<Hosts>>) -> Steps<RefusePages> {
    Steps(RefusePages {
        hosts,
        by_any_name: false,
    })
}

/// The same, for what may be asked by any name.
fn refuse_foreign_pages(hosts: Option<Arc<Hosts>>) -> Steps<RefusePages> {
    Steps(RefusePages {
        hosts,
        by_any_name: true,
    })
}

fn finish(router: Router) -> Router {
    router
        .fallback(|| async { Problem::not_found("no such route") })
        .layer((Steps(Protect), Steps(Observe)))
}

/// What a process answers until its database is ready.
pub fn starting_router() -> Router {
    let router = Router::new()
        .route("/health", get(operations::get_health))
        .fallback(|| async { Problem::unavailable("starting: waiting for the database") });
    router.layer((Steps(Protect), Steps(Observe)))
}

/// Lets nothing new through while the process stops, and ends the waiting for a request that takes too long.
#[derive(Debug, Clone)]
struct Admit {
    gateway: Gateway,
    limit: Duration,
}

impl Step for Admit {
    fn pass<A>(&self, request: Request, go_on: impl FnOnce(Request) -> A) -> Answer
    where
        A: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        if self.gateway.stopping.is_cancelled() {
            let mut response = Problem::overloaded("stopping: nothing was stored").into_response();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            return answered(response);
        }
        let answer = tokio::time::timeout(self.limit, go_on(request));
        Box::pin(async move {
            if let Ok(answer) = answer.await {
                return answer;
            }
            tracing::warn!(error = "no answer in time", "a request was not carried out");
            let problem = Problem::unavailable(
                "no answer in time: not stored, or not known to be; repeating is safe",
            );
            Ok(problem.into_response())
        })
    }
}
