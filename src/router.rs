//! All routes, and what a request passes through on its way to each.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::api_state::{ApiState, Route};
use crate::edge::AllowedHosts;
use crate::http::admit::Admit;
use crate::http::auth::{RequireKey, Secrets};
use crate::http::docs;
use crate::http::middleware::MiddlewareLayer;
use crate::http::observe::Observe;
use crate::http::origin::RejectForeignOrigin;
use crate::http::problem::Problem;
use crate::http::response_budget::ResponseBudget;
use crate::http::route::Access;
use crate::http::security_headers::SecurityHeaders;
use crate::{conversation, message, operations, webhook};

/// The API and its document.
pub fn api(state: ApiState) -> Router {
    let provider = webhook::http::routes();
    let backend = message::http::routes(state.app.outbox.send_wait);
    let agent = conversation::http::routes();
    let operator = operations::http::routes();
    let guards = Guards::of(&state);
    let (router, document) = [provider, backend, agent, operator]
        .into_iter()
        .flatten()
        .fold(
            OpenApiRouter::with_openapi(docs::document()),
            |router, route| router.routes(guards.guard(route)),
        )
        .with_state(state)
        .split_for_parts();
    let page = docs::page(&document).layer(guards.reject_foreign_pages());
    with_common_layers(router.merge(page))
}

/// What a process without the API serves: its health and its metrics.
pub fn operations(state: ApiState) -> Router {
    let guards = Guards::of(&state);
    let router = operations::http::routes()
        .into_iter()
        .fold(OpenApiRouter::default(), |router, route| {
            router.routes(guards.guard(route))
        })
        .with_state(state);
    with_common_layers(router.into())
}

/// What a process answers until its database is ready.
pub fn starting() -> Router {
    let router = Router::new()
        .route("/health", get(operations::http::get_health))
        .fallback(|| async { Problem::unavailable("starting: waiting for the database") });
    router.layer((MiddlewareLayer(SecurityHeaders), MiddlewareLayer(Observe)))
}

fn with_common_layers(router: Router) -> Router {
    router
        .fallback(|| async { Problem::not_found("no such route") })
        .layer((MiddlewareLayer(SecurityHeaders), MiddlewareLayer(Observe)))
}

/// What stands in front of routes, as their rules ask for it.
struct Guards {
    stopping: CancellationToken,
    secrets: Arc<Secrets>,
    /// The hosts to check; none where a key proves who calls.
    hosts: Option<Arc<AllowedHosts>>,
    budget: ResponseBudget,
}

impl Guards {
    fn of(state: &ApiState) -> Self {
        let needs_key = state.secrets.has_api_keys();
        Self {
            stopping: state.stopping.clone(),
            secrets: Arc::clone(&state.secrets),
            hosts: (!needs_key).then(|| Arc::clone(&state.hosts)),
            budget: ResponseBudget::default(),
        }
    }

    /// Puts in front of a route, and into its part of the document, what its rules say.
    fn guard(&self, route: Route) -> UtoipaMethodRouter<ApiState> {
        let Route { handler, rules } = route;
        let (schemas, mut paths, handler) = handler;
        docs::complete(&mut paths, &rules);
        let stopping = if rules.while_stopping {
            CancellationToken::new()
        } else {
            self.stopping.clone()
        };
        let admit = MiddlewareLayer(Admit {
            stopping,
            time_limit: rules.time_limit,
            body_limit: rules.body_limit,
        });
        // One layer a route: each further one costs an allocation a request.
        let handler = match rules.access {
            Access::Open => handler.layer((self.reject_foreign_pages(), admit)),
            Access::Key(scopes) => {
                let secrets = Arc::clone(&self.secrets);
                let require_key = MiddlewareLayer(RequireKey { secrets, scopes });
                // Behind the key, to know whose answer it is.
                let budget = MiddlewareLayer(self.budget.clone());
                handler.layer((self.reject_foreign_origin(), require_key, budget, admit))
            }
            Access::Signature => handler.layer(admit),
        };
        (schemas, paths, handler)
    }

    fn reject_foreign_origin(&self) -> MiddlewareLayer<RejectForeignOrigin> {
        MiddlewareLayer(RejectForeignOrigin {
            hosts: self.hosts.clone(),
            by_any_name: false,
        })
    }

    /// The same, for what may be asked by any name.
    fn reject_foreign_pages(&self) -> MiddlewareLayer<RejectForeignOrigin> {
        MiddlewareLayer(RejectForeignOrigin {
            hosts: self.hosts.clone(),
            by_any_name: true,
        })
    }
}
