//! Every route, and what each request passes through on its way there.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api_state::ApiState;
use crate::edge::AllowedHosts;
use crate::http::admit::Admit;
use crate::http::auth::RequireKey;
use crate::http::docs;
use crate::http::observe::Observe;
use crate::http::origin::RejectForeignOrigin;
use crate::http::problem::Problem;
use crate::http::response_budget::ResponseBudget;
use crate::http::security_headers::SecurityHeaders;
use crate::http::step::Steps;
use crate::{conversation, message, operations, webhook};

/// How long a request may take, beside the time that a send waits for its attempt. Ends the waiting, not the work.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// The API and its document.
pub fn api(state: ApiState) -> Router {
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
    let metrics = OpenApiRouter::new().routes(routes!(operations::http::get_metrics));
    let health = OpenApiRouter::new()
        .routes(routes!(operations::http::get_health))
        .routes(routes!(operations::http::get_ready));

    let admit_for = |limit| {
        let stopping = state.stopping.clone();
        Steps(Admit { stopping, limit })
    };
    let admit = admit_for(REQUEST_TIMEOUT);
    let admit_send = admit_for(REQUEST_TIMEOUT + state.app.outbox.send_wait);
    let require_key = Steps(RequireKey(Arc::clone(&state.secrets)));
    let hosts = hosts_unless(&state, state.secrets.has_api_keys());
    let same_origin = reject_foreign_origin(hosts.clone());
    let no_foreign_pages = reject_foreign_pages(hosts);
    // Within what asks for a key, so that it knows whose answer it is; what is open to all has small answers, or shares one.
    let budget = Steps(ResponseBudget::default());
    let guard = (same_origin, require_key, budget);
    let (router, document) = OpenApiRouter::with_openapi(docs::document())
        .merge(send.route_layer((guard.clone(), admit_send)))
        .merge(api.route_layer((guard.clone(), admit.clone())))
        .merge(webhooks.route_layer(admit))
        .merge(metrics.route_layer(guard))
        .merge(health.route_layer(no_foreign_pages.clone()))
        .with_state(state)
        .split_for_parts();
    let page = docs::page(&docs::complete(document)).layer(no_foreign_pages);
    with_common_layers(router.merge(page))
}

/// What a process without the API serves: its health and its metrics.
pub fn operations(state: ApiState) -> Router {
    let hosts = hosts_unless(&state, state.secrets.has_api_keys());
    let guard = (
        reject_foreign_origin(hosts.clone()),
        Steps(RequireKey(Arc::clone(&state.secrets))),
        Steps(ResponseBudget::default()),
    );
    let metrics = Router::new()
        .route("/metrics", get(operations::http::get_metrics))
        .route_layer(guard);
    let router = Router::new()
        .route("/health", get(operations::http::get_health))
        .route("/ready", get(operations::http::get_ready))
        .route_layer(reject_foreign_pages(hosts))
        .merge(metrics)
        .with_state(state);
    with_common_layers(router)
}

/// The hosts to check, unless callers prove who they are.
fn hosts_unless(state: &ApiState, is_proven: bool) -> Option<Arc<AllowedHosts>> {
    (!is_proven).then(|| Arc::clone(&state.hosts))
}

fn reject_foreign_origin(hosts: Option<Arc<AllowedHosts>>) -> Steps<RejectForeignOrigin> {
    Steps(RejectForeignOrigin {
        hosts,
        by_any_name: false,
    })
}

/// The same, for what may be asked by any name.
fn reject_foreign_pages(hosts: Option<Arc<AllowedHosts>>) -> Steps<RejectForeignOrigin> {
    Steps(RejectForeignOrigin {
        hosts,
        by_any_name: true,
    })
}

fn with_common_layers(router: Router) -> Router {
    router
        .fallback(|| async { Problem::not_found("no such route") })
        .layer((Steps(SecurityHeaders), Steps(Observe)))
}

/// What a process answers until its database is ready.
pub fn starting() -> Router {
    let router = Router::new()
        .route("/health", get(operations::http::get_health))
        .fallback(|| async { Problem::unavailable("starting: waiting for the database") });
    router.layer((Steps(SecurityHeaders), Steps(Observe)))
}
