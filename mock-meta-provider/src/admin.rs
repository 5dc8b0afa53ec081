//! The routes that configure and observe.

use std::collections::HashSet;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::answer::Refusal;
use crate::app::SharedApp;
use crate::behaviour::Behaviour;
use crate::body::{JsonBody, require_json};
use crate::ledger::Ledger;
use crate::script::{MAX_ANSWERS, MAX_BYTES, MAX_SCRIPTS, Script, ScriptError};
use crate::stats::Stats;
use crate::wire::check_name;

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

/// The fields of an object in their order; one may be there twice.
pub(crate) struct Patch(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Patch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Patch;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Patch, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Patch(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
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
    JsonBody(patch): JsonBody<Patch>,
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

/// Replaces the given fields, or none of them when one is wrong.
fn merge(present: &Behaviour, Patch(patch): Patch) -> Result<Behaviour, Refusal> {
    let merged = serde_json::to_value(present);
    let mut merged = merged.expect("numbers and a bool can be JSON");
    let mut given = HashSet::new();
    for (field, value) in patch {
        if let Some(known) = merged.get_mut(&field) {
            *known = value;
            if given.contains(&field) {
                return Err(Refusal::field(&field, "is there twice"));
            }
            given.insert(field);
        }
    }
    let behaviour: Behaviour = serde_path_to_error::deserialize(merged)
        .map_err(|error| Refusal::field(&error.path().to_string(), error.inner()))?;
    behaviour
        .validate()
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    Ok(behaviour)
}

/// `POST /script`
pub(crate) async fn set_script(
    State(app): State<SharedApp>,
    JsonBody(script): JsonBody<Script>,
) -> Result<Response, Refusal> {
    if let Some(to) = &script.to {
        check_name("to", to)?;
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
    let set = app.state().scripts.set(script);
    match set {
        Ok(()) => Ok(Json(answer).into_response()),
        Err(ScriptError::TooMany) => Err(Refusal::field(
            "to",
            format!("{MAX_SCRIPTS} participants have scripts already"),
        )),
        Err(ScriptError::TooLarge) => Err(Refusal::field(
            "answers",
            format!(
                "all scripts together would hold more than {} MiB",
                MAX_BYTES >> 20
            ),
        )),
    }
}

/// `GET /ledger`
pub(crate) async fn get_ledger(
    State(app): State<SharedApp>,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
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
