//! Every route once.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};

use crate::answer::Refusal;
use crate::app::SharedApp;
use crate::edge::AllowedHosts;
use crate::graph::{admin as graph_admin, media, routes, simulate};
use crate::router_fallback::{method_not_allowed, not_found};
use crate::{admin, inbound, message};

pub(crate) fn router(app: SharedApp, hosts: AllowedHosts) -> Router {
    let reject_foreign_origin = from_fn_with_state(Arc::new(hosts), reject_foreign_origin);
    Router::new()
        .route("/messages", post(message::send_message))
        .route("/messages/{id}", get(message::get_message))
        .route("/simulate/inbound", post(inbound::simulate_inbound))
        .route("/config", get(admin::get_config).post(admin::set_config))
        .route("/script", post(admin::set_script))
        .route("/ledger", get(admin::get_ledger))
        .route("/stats", get(admin::get_stats))
        .route("/reset", post(admin::reset))
        .route("/simulate/whatsapp", post(simulate::whatsapp))
        .route("/simulate/status", post(simulate::status))
        .route("/simulate/media", post(simulate::media))
        .route("/simulate/verify", post(simulate::verify))
        .route(
            "/config/whatsapp",
            get(graph_admin::get_config).post(graph_admin::set_config),
        )
        .route("/media/{id}", get(media::download))
        .route("/{version}/{id}", any(routes::node))
        .route("/{version}/{id}/{edge}", any(routes::edge))
        .route_layer(reject_foreign_origin)
        .route("/health", get(admin::health))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app)
}

/// Refuses what a foreign web page makes a browser send.
async fn reject_foreign_origin(
    State(hosts): State<Arc<AllowedHosts>>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            // At debug level: anybody who can connect could fill the log with this.
            tracing::debug!(error, "a web page was refused");
            Refusal::new(StatusCode::FORBIDDEN, error).into_response()
        }
    }
}
