//! The routes that configure and observe: they change how calls end, never a call that has ended.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::Behaviour;
use crate::http::{JsonBody, Refusal, check_id, require_json};
use crate::ledger::Ledger;
use crate::mock::SharedApp;
use crate::script::{MAX_ANSWERS, MAX_SCRIPTS, Script};
use crate::stats::Stats;

#[derive(Serialize)]
struct ConfigView {
    success: bool,
    config: Behaviour,
    seed: u64,
}

#[derive(Serialize)]
struct LedgerView {
    success: bool,
    #[serde(flatten)]
    ledger: Ledger,
}

#[derive(Serialize)]
struct StatsView {
    success: bool,
    #[serde(flatten)]
    stats: Stats,
}

/// The filter of `GET /ledger`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LedgerQuery {
    #[serde(default)]
    participant_prefix: String,
}

/// `GET /config`
pub(crate) async fn get_config(State(app): State<SharedApp>) -> Response {
    let config = app.state().behaviour.clone();
    Json(ConfigView {
        success: true,
        config,
        seed: app.seed,
    })
    .into_response()
}

/// `POST /config`
pub(crate) async fn set_config(
    State(app): State<SharedApp>,
    JsonBody(patch): JsonBody<Map<String, Value>>,
) -> Result<Response, Refusal> {
    let config = {
        let mut state = app.state();
        let behaviour = merge(&state.behaviour, patch)?;
        state.behaviour = behaviour.clone();
        behaviour
    };
    tracing::info!(?config, "configured");
    Ok(Json(ConfigView {
        success: true,
        config,
        seed: app.seed,
    })
    .into_response())
}

/// Puts the given fields over the present ones: all of them, or none where one is wrong.
fn merge(present: &Behaviour, patch: Map<String, Value>) -> Result<Behaviour, Refusal> {
    let refuse = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let mut merged = serde_json::to_value(present).map_err(|error| refuse(error.to_string()))?;
    for (field, value) in patch {
        if let Some(known) = merged.get_mut(&field) {
            *known = value;
        }
    }
    let behaviour: Behaviour = serde_path_to_error::deserialize(merged)
        .map_err(|error| Refusal::field(&error.path().to_string(), error.inner().to_string()))?;
    behaviour
        .validate()
        .map_err(|error| refuse(error.to_string()))?;
    Ok(behaviour)
}

/// `POST /script`
pub(crate) async fn set_script(
    State(app): State<SharedApp>,
    JsonBody(script): JsonBody<Script>,
) -> Result<Response, Refusal> {
    if let Some(to) = &script.to {
        check_id("to", to)?;
    }
    if script.answers.len() > MAX_ANSWERS {
        return Err(Refusal::field(
            "answers",
            format!("must be at most {MAX_ANSWERS}"),
        ));
    }
    let answer = json!({
        "success": true,
        "script": { "to": script.to, "answers": script.answers.len(), "repeat": script.repeat },
    });
    if !app.state().scripts.set(script) {
        return Err(Refusal::field(
            "to",
            format!("{MAX_SCRIPTS} participants have scripts already"),
        ));
    }
    Ok(Json(answer).into_response())
}

/// `GET /ledger`
pub(crate) async fn get_ledger(
    State(app): State<SharedApp>,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) =
        query.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let ledger = app.state().ledger.snapshot(&query.participant_prefix);
    Ok(Json(LedgerView {
        success: true,
        ledger,
    })
    .into_response())
}

/// `GET /stats`
pub(crate) async fn get_stats(State(app): State<SharedApp>) -> Response {
    Json(StatsView {
        success: true,
        stats: app.stats(),
    })
    .into_response()
}

/// `POST /reset`
pub(crate) async fn reset(
    State(app): State<SharedApp>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    require_json(&headers)?;
    app.reset();
    Ok(Json(json!({ "success": true })).into_response())
}

/// `GET /health`
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
