//! Health, readiness and metrics.

use std::sync::{self, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::{counter, gauge};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api_state::{ApiState, Route};
use crate::database::{self, CONNECT_TIMEOUT};
use crate::error::Error;
use crate::error::fault::Outage;
use crate::http::key::Scope;
use crate::http::problem::{Problem, kind};
use crate::http::route::Access;
use crate::log_throttle::LogThrottle;
use crate::process::stderr;

/// The routes of this file. An operator also needs them while the process stops.
pub fn routes() -> Vec<Route> {
    let not_ready = &[kind::DATABASE_UNAVAILABLE, kind::OVERLOADED];
    vec![
        Route::new(routes!(get_health), Access::Open).while_stopping(),
        Route::new(routes!(get_ready), Access::Open)
            .while_stopping()
            .problems(not_ready),
        Route::new(routes!(get_metrics), Access::Key(&[Scope::Admin])).while_stopping(),
    ]
}

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
}

/// Liveness: the process answers. Touches nothing else.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, description = "It answers.", body = Health)))]
pub async fn get_health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Readiness: the database answers, can be written, and every migration that this binary knows is applied.
#[utoipa::path(get, path = "/ready", tag = "operations", responses((status = 200, description = "It is ready.", body = Health)))]
pub async fn get_ready(State(state): State<ApiState>) -> Result<Json<Health>, Problem> {
    if state.stopping.is_cancelled() {
        return Err(Problem::overloaded("stopping"));
    }
    let ready = state.app.readiness.of(check(&state)).await;
    ready.map_err(Problem::unavailable)?;
    Ok(Json(Health { status: "ok" }))
}

/// Checks whether the database is ready; else says why it is not.
async fn check(state: &ApiState) -> Result<(), String> {
    let pending = timeout(CONNECT_TIMEOUT, pending_migrations(state));
    let (writable, pending) = tokio::join!(state.app.writable(), pending);
    writable.map_err(|unavailable| unavailable.to_string())?;
    match pending {
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(pending)) => {
            log_pending(pending);
            Err("migrations are not applied: run gateway migrate".to_owned())
        }
        // Only reads wait for each other; writes go through.
        Ok(Err(Error::Unavailable(reads)))
            if matches!(reads.outage, Outage::Full | Outage::Busy) =>
        {
            Ok(())
        }
        Ok(Err(Error::Unavailable(reads))) => Err(reads.to_string()),
        Ok(Err(_)) | Err(_) => Err(Outage::NoAnswer.to_string()),
    }
}

/// The number is only for the log: any stranger may ask whether this process is ready.
fn log_pending(pending: usize) {
    static THROTTLE: sync::Mutex<LogThrottle> = sync::Mutex::new(LogThrottle::new());
    let mut throttle = THROTTLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(passed_over) = throttle.admit("migrations are not applied") {
        tracing::warn!(
            pending,
            passed_over,
            "migrations are not applied: run gateway migrate"
        );
    }
}

async fn pending_migrations(state: &ApiState) -> crate::error::Result<usize> {
    let mut pooled = state.app.pool.acquire().await?;
    let migrations = database::migrations(pooled.connection()?).await;
    pooled.ended(&migrations);
    Ok(database::pending(&migrations?))
}

/// The metrics of this process, as Prometheus reads them.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus text format 0.0.4", body = String, content_type = "text/plain")),
)]
pub async fn get_metrics(State(state): State<ApiState>) -> impl IntoResponse {
    measure(&state).await;
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        state.metrics.render(),
    )
}

/// Sets the gauges that are measured on request. Those of the queue keep their values while the
/// database does not answer.
#[allow(clippy::cast_precision_loss)] // counts far below 2^52
async fn measure(state: &ApiState) {
    metrics_process::Collector::default().collect();
    counter!("gateway_log_lines_lost_total").absolute(stderr::lost_lines() as u64);
    let pool = &state.app.pool;
    let (size, idle) = state.app.pool_sizes();
    let used = size.saturating_sub(idle);
    gauge!("gateway_database_pool_connections", "state" => "idle").set(idle as f64);
    gauge!("gateway_database_pool_connections", "state" => "used").set(used as f64);
    let free = state.app.outbox.permits.free();
    gauge!("gateway_send_permits_free").set(free as f64);
    state.app.ingest.measure_age();
    state.app.receipts.measure_age();
    state.app.outbox.enqueue.measure_age();
    state.app.courier.settle.measure_age();
    let backlog = timeout(CONNECT_TIMEOUT, state.app.parked.backlog(pool));
    let (writable, backlog) = tokio::join!(state.app.writable(), backlog);
    let up = if writable.is_ok() { 1.0 } else { 0.0 };
    gauge!("gateway_database_up").set(up);
    if let Ok(Ok(backlog)) = backlog {
        gauge!("gateway_deliveries_due_age_seconds").set(backlog.due_age_seconds);
        for (state, count) in [
            ("due", backlog.due),
            ("paused", backlog.paused),
            ("leased", backlog.leased),
            ("waiting", backlog.waiting),
            ("blocked", backlog.blocked),
            ("parked", backlog.parked),
        ] {
            gauge!("gateway_deliveries", "state" => state).set(count as f64);
        }
    }
}
