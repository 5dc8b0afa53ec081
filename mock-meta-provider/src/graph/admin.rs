//! `/config/whatsapp`: how WhatsApp's side behaves, and where it posts to.

use axum::Json;
use axum::extract::State;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use super::behaviour::WhatsappBehaviour;
use crate::admin::{Patch, Success, merge_fields, success};
use crate::answer::Refusal;
use crate::app::SharedApp;
use crate::body::JsonBody;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigView {
    config: WhatsappBehaviour,
    phone_number_id: Option<String>,
    /// Whether calls must have a certain token.
    has_access_token: bool,
    signs: bool,
}

/// `GET /config/whatsapp`
pub(crate) async fn get_config(State(app): State<SharedApp>) -> Json<Success<ConfigView>> {
    success(view(&app))
}

/// `POST /config/whatsapp`: besides the fields of the behaviour, `webhookUrl` and `accessToken`.
pub(crate) async fn set_config(
    State(app): State<SharedApp>,
    JsonBody(Patch(patch)): JsonBody<Patch>,
) -> Result<Json<Success<ConfigView>>, Refusal> {
    let (mut url, mut token, mut fields) = (None, None, Vec::new());
    for (field, value) in patch {
        match (field.as_str(), value) {
            ("webhookUrl", Value::String(given)) => {
                let given = app.webhook.allow(&given);
                url = Some(given.map_err(|error| Refusal::bad_request(error.to_string()))?);
            }
            ("accessToken", Value::String(given)) => token = Some(Some(SecretString::from(given))),
            ("accessToken", Value::Null) => token = Some(None),
            (name @ ("webhookUrl" | "accessToken"), _) => {
                return Err(Refusal::field(name, "must be a string"));
            }
            (_, value) => fields.push((field, value)),
        }
    }
    {
        let mut state = app.state();
        let behaviour: WhatsappBehaviour = merge_fields(&state.graph.behaviour, Patch(fields))?;
        let checked = behaviour.validate();
        checked.map_err(|error| Refusal::bad_request(error.to_string()))?;
        tracing::info!(?behaviour, "WhatsApp configured");
        state.graph.behaviour = behaviour;
        if let Some(token) = token {
            state.graph.access_token = token;
        }
    }
    if let Some(url) = url {
        let set = app.webhook.set_whatsapp_url(url);
        set.map_err(|error| Refusal::bad_request(error.to_string()))?;
    }
    Ok(success(view(&app)))
}

fn view(app: &SharedApp) -> ConfigView {
    let state = app.state();
    ConfigView {
        config: state.graph.behaviour.clone(),
        phone_number_id: app.graph.phone_number_id.clone(),
        has_access_token: state.graph.access_token.is_some(),
        signs: app.graph.app_secret.is_some(),
    }
}
