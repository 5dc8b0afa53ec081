//! The routes that configure and observe.

use std::collections::HashSet;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::answer::Refusal;
use crate::app::SharedApp;
use crate::behaviour::Behaviour;
use crate::body::{JsonBody, require_json};
use crate::ledger::Ledger;
use crate::script::{MAX_ANSWERS, Script};
use crate::stats::Stats;
use crate::wire::check_name;

/// What every successful answer has beside its own fields.
#[derive(Serialize)]
pub(crate) struct Success<T> {
    success: bool,
    #[serde(flatten)]
    fields: T,
}

pub(crate) fn success<T>(fields: T) -> Json<Success<T>> {
    Json(Success {
        success: true,
        fields,
    })
}

#[derive(Serialize)]
pub(crate) struct ConfigView {
    config: Behaviour,
    seed: u64,
}

/// The filter of `GET /ledger`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LedgerQuery {
    #[serde(default)]
    participant_prefix: String,
}

/// The fields of an object in their order; one may be there twice.
pub(crate) struct Patch(pub(crate) Vec<(String, Value)>);

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
pub(crate) async fn get_config(State(app): State<SharedApp>) -> Json<Success<ConfigView>> {
    let config = app.state().behaviour.clone();
    let seed = app.seed;
    success(ConfigView { config, seed })
}

/// `POST /config`
pub(crate) async fn set_config(
    State(app): State<SharedApp>,
    JsonBody(patch): JsonBody<Patch>,
) -> Result<Json<Success<ConfigView>>, Refusal> {
    let config = {
        let mut state = app.state();
        let behaviour = merge(&state.behaviour, patch)?;
        state.behaviour = behaviour.clone();
        behaviour
    };
    tracing::info!(?config, "configured");
    let seed = app.seed;
    Ok(success(ConfigView { config, seed }))
}

/// Replaces the given fields, or none of them when one is wrong.
fn merge(present: &Behaviour, patch: Patch) -> Result<Behaviour, Refusal> {
    let behaviour: Behaviour = merge_fields(present, patch)?;
    behaviour
        .validate()
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    Ok(behaviour)
}

/// Replaces the given fields of anything that JSON can hold.
pub(crate) fn merge_fields<T: Serialize + DeserializeOwned>(
    present: &T,
    Patch(patch): Patch,
) -> Result<T, Refusal> {
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
    serde_path_to_error::deserialize(merged)
        .map_err(|error| Refusal::field(&error.path().to_string(), error.inner()))
}

/// `POST /script`
pub(crate) async fn set_script(
    State(app): State<SharedApp>,
    JsonBody(script): JsonBody<Script>,
) -> Result<Json<Value>, Refusal> {
    if let Some(to) = &script.to {
        check_name("to", to)?;
    }
    if script.answers.len() > MAX_ANSWERS {
        let message = format!("must be at most {MAX_ANSWERS}");
        return Err(Refusal::field("answers", message));
    }
    let answer = json!({
        "success": true,
        "script": { "to": script.to, "answers": script.answers.len(), "repeat": script.repeat },
    });
    let set = app.state().scripts.set(script);
    set.map_err(|error| Refusal::bad_request(error.to_string()))?;
    Ok(Json(answer))
}

/// `GET /ledger`
pub(crate) async fn get_ledger(
    State(app): State<SharedApp>,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Result<Json<Success<Ledger>>, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let ledger = app.state().ledger.snapshot(&query.participant_prefix);
    Ok(success(ledger))
}

/// `GET /stats`
pub(crate) async fn get_stats(State(app): State<SharedApp>) -> Json<Success<Stats>> {
    success(app.stats())
}

/// `POST /reset`
pub(crate) async fn reset(
    State(app): State<SharedApp>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    require_json(&headers)?;
    app.reset();
    Ok(Json(json!({ "success": true })))
}

/// `GET /health`
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
