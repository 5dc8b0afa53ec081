//! Forgets a customer: texts are emptied and nothing more is sent. Keys stay, so that a late
//! duplicate is still a duplicate.

pub mod service;
pub mod store;

use chrono::{DateTime, Utc};

use crate::id::ConversationId;

/// A conversation, at the moment in which it was asked to be forgotten.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub conversation_id: ConversationId,
    /// What is stored later is kept.
    pub at: DateTime<Utc>,
}

/// How much was forgotten, or would be.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// Messages whose text was emptied.
    pub messages: i64,
    /// Webhooks whose body was emptied.
    pub webhook_bodies: i64,
    /// Messages that will not be sent.
    pub canceled: i64,
}
