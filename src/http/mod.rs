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
pub mod unread;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use mock_meta_provider::Hosts;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::auth::{Secrets, require_key};
use self::browser::{refuse_foreign_pages, refuse_pages};
use self::problem::Problem;
use self::unread::Unread;
use crate::app::App;
use crate::{conversation, message, webhook};

/// How long a request may take, beside the time that a send waits for its attempt. Ends the waiting, not the work.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct Gateway {
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

    let admit_for = |limit| from_fn_with_state((gateway.clone(), limit), admit);
    let admit = admit_for(REQUEST_TIMEOUT);
    let admit_send = admit_for(REQUEST_TIMEOUT + gateway.app.send_wait);
    let require_key = from_fn_with_state(gateway.clone(), require_key);
    let secrets = Arc::clone(&gateway.secrets);
    let hosts = hosts_unless(&gateway, secrets.has_api_keys());
    let no_pages = from_fn_with_state(hosts.clone(), refuse_pages);
    let no_foreign_pages = from_fn_with_state(hosts, refuse_foreign_pages);
    // Within what asks for a key, so that it knows whose answer it is; what is open to all has small answers, or shares one.
    let unread = from_fn_with_state(Unread::default(), unread::limit);
    let (router, document) = OpenApiRouter::with_openapi(docs::document())
        .merge(
            send.route_layer(admit_send)
                .route_layer(unread.clone())
                .route_layer(require_key.clone())
                .route_layer(no_pages.clone()),
        )
        .merge(
            api.route_layer(admit.clone())
                .route_layer(unread.clone())
                .route_layer(require_key.clone())
                .route_layer(no_pages.clone()),
        )
        .merge(webhooks.route_layer(admit))
        .merge(
            metrics
                .route_layer(unread)
                .route_layer(require_key)
                .route_layer(no_pages),
        )
        .merge(health.route_layer(no_foreign_pages.clone()))
        .with_state(gateway)
        .split_for_parts();
    let page = docs::page(&docs::complete(document)).layer(no_foreign_pages);
    finish(router.merge(page))
}

/// What a process without the API serves: its health and its metrics.
pub fn operations_router(gateway: Gateway) -> Router {
    let has_keys = gateway.secrets.has_api_keys();
    let hosts = hosts_unless(&gateway, has_keys);
    let require_key = from_fn_with_state(gateway.clone(), require_key);
    let metrics = Router::new()
        .route("/metrics", get(operations::get_metrics))
        .route_layer(from_fn_with_state(Unread::default(), unread::limit))
        .route_layer(require_key)
        .route_layer(from_fn_with_state(hosts.clone(), refuse_pages));
    let router = Router::new()
        .route("/health", get(operations::get_health))
        .route("/ready", get(operations::get_ready))
        .route_layer(from_fn_with_state(hosts, refuse_foreign_pages))
        .merge(metrics)
        .with_state(gateway);
    finish(router)
}

/// The hosts to check, unless callers prove who they are.
fn hosts_unless(gateway: &Gateway, is_proven: bool) -> Option<Arc<Hosts>> {
    (!is_proven).then(|| Arc::clone(&gateway.hosts))
}

fn finish(router: Router) -> Router {
    router
        .fallback(|| async { Problem::not_found("no such route") })
        .layer(from_fn(observe::observe))
        .layer(from_fn(headers::protect))
}

/// What a process answers until its database is ready.
pub fn starting_router() -> Router {
    let router = Router::new()
        .route("/health", get(operations::get_health))
        .fallback(|| async { Problem::unavailable("starting: waiting for the database") });
    router
        .layer(from_fn(observe::observe))
        .layer(from_fn(headers::protect))
}

/// Lets nothing new through while the process stops, and ends the waiting for a request that takes too long.
async fn admit(
    State((gateway, limit)): State<(Gateway, Duration)>,
    request: Request,
    next: Next,
) -> Response {
    if gateway.stopping.is_cancelled() {
        let mut response = Problem::overloaded("stopping: nothing was stored").into_response();
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        return response;
    }
    if let Ok(response) = tokio::time::timeout(limit, next.run(request)).await {
        return response;
    }
    tracing::warn!(error = "no answer in time", "a request was not carried out");
    Problem::unavailable("no answer in time: not stored, or not known to be; repeating is safe")
        .into_response()
}
