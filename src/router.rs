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
use crate::http::origin::{RejectForeignLogin, RejectForeignOrigin};
use crate::http::problem::Problem;
use crate::http::response_budget::ResponseBudget;
use crate::http::route::Access;
use crate::http::security_headers::SecurityHeaders;
use crate::session::sessions::Sessions;
use crate::{conversation, feed, inbox, media, message, operations, session, webhook};

/// The API and its document.
pub fn api(state: ApiState) -> Router {
    let provider = webhook::http::routes();
    let whatsapp = webhook::whatsapp::http::routes();
    let backend = message::http::routes(state.app.outbox.send_wait);
    let agent = conversation::http::routes();
    let browser = session::http::routes();
    let listener = feed::http::routes();
    let file = media::http::routes();
    let operator = operations::http::routes();
    let guards = Guards::of(&state);
    let features = [
        provider, whatsapp, backend, agent, file, browser, listener, operator,
    ];
    let (router, document) = features
        .into_iter()
        .flatten()
        .fold(
            OpenApiRouter::with_openapi(docs::document()),
            |router, route| router.routes(guards.guard(route)),
        )
        .with_state(state.clone())
        .split_for_parts();
    let documentation = docs::page(&document).layer(guards.reject_foreign_pages());
    // No part of the API, so no part of its document.
    let demo = guards.guard(inbox::http::demo());
    let demo: Router<ApiState> = OpenApiRouter::default().routes(demo).into();
    let page = inbox::http::page().layer(guards.reject_foreign_origin());
    let page = page.merge(demo).with_state(state);
    with_common_layers(router.merge(documentation).merge(page))
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
    sessions: Arc<Sessions>,
    hosts: Arc<AllowedHosts>,
    budget: ResponseBudget,
}

impl Guards {
    fn of(state: &ApiState) -> Self {
        Self {
            stopping: state.stopping.clone(),
            secrets: Arc::clone(&state.secrets),
            sessions: Arc::clone(&state.app.sessions),
            hosts: Arc::clone(&state.hosts),
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
                let require_key = RequireKey {
                    secrets: Arc::clone(&self.secrets),
                    sessions: Arc::clone(&self.sessions),
                    hosts: Arc::clone(&self.hosts),
                    scopes,
                };
                // Behind the key, to know whose answer it is.
                let budget = MiddlewareLayer(self.budget.clone());
                handler.layer((self.reject_foreign_origin(), require_key, budget, admit))
            }
            Access::LogIn => {
                let reject = MiddlewareLayer(RejectForeignLogin {
                    hosts: Arc::clone(&self.hosts),
                    by_any_name: self.secrets.has_api_keys(),
                });
                handler.layer((reject, admit))
            }
            Access::Handshake | Access::Signature => handler.layer(admit),
        };
        (schemas, paths, handler)
    }

    fn reject_foreign_origin(&self) -> MiddlewareLayer<RejectForeignOrigin> {
        MiddlewareLayer(RejectForeignOrigin {
            hosts: self.keyless_hosts(),
            by_any_name: false,
        })
    }

    /// The same, for what may be asked by any name.
    fn reject_foreign_pages(&self) -> MiddlewareLayer<RejectForeignOrigin> {
        MiddlewareLayer(RejectForeignOrigin {
            hosts: self.keyless_hosts(),
            by_any_name: true,
        })
    }

    /// The hosts to check; none where a key, or a cookie with a check of its own, proves who calls.
    fn keyless_hosts(&self) -> Option<Arc<AllowedHosts>> {
        let needs_key = self.secrets.has_api_keys();
        (!needs_key).then(|| Arc::clone(&self.hosts))
    }
}
