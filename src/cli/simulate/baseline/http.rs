//! The route of the hand-written transaction: the smallest that takes and answers what the
//! gateway's does.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::store::Event;
use super::transaction::{self, Receipt, Stored};
use crate::channel::Channel;
use crate::id::{ConversationId, MessageId};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventRequest {
    event_id: String,
    channel: Channel,
    from: String,
    text: String,
    timestamp: DateTime<Utc>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptView {
    event_id: String,
    duplicate: bool,
    conversation_id: ConversationId,
    message_id: MessageId,
}

/// Why there is no answer, for the operator who runs the comparison.
type Failure = (StatusCode, String);

pub fn router(pool: PgPool) -> Router {
    Router::new()
        .route("/webhooks/mock-meta", post(receive))
        .route("/stored", get(stored))
        .with_state(pool)
}

async fn receive(State(pool): State<PgPool>, body: Bytes) -> Result<Json<ReceiptView>, Failure> {
    let request: EventRequest = serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let event = Event {
        id: request.event_id,
        channel: request.channel,
        participant_id: request.from,
        text: request.text,
        timestamp: request.timestamp,
        message_id: MessageId::new(),
        body,
    };
    // Not cancelled with the request: a half-done transaction must not go back into the pool.
    let storing = tokio::spawn(async move { transaction::store(&pool, event).await });
    let Receipt {
        event_id,
        duplicate,
        conversation_id,
        message_id,
    } = storing.await.map_err(failed)?.map_err(failed)?;
    Ok(Json(ReceiptView {
        event_id,
        duplicate,
        conversation_id,
        message_id,
    }))
}

async fn stored(State(pool): State<PgPool>) -> Result<Json<Stored>, Failure> {
    transaction::stored(&pool).await.map(Json).map_err(failed)
}

fn failed(error: impl std::error::Error) -> Failure {
    tracing::warn!(%error, "an event was not stored");
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
