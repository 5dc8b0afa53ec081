//! Counters; `POST /reset` sets them back to 0.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// What has happened since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Deliveries: `accepted` without `deduplicated`.
    pub total_messages: u64,
    /// Valid calls of `POST /messages`, however they ended.
    pub calls: u64,
    /// Accepted calls, also those whose answer was lost.
    pub accepted: u64,
    /// Accepted calls that delivered nothing, since an earlier call of their key had.
    pub deduplicated: u64,
    /// Calls that repeated a key with another channel, participant or text.
    pub key_mismatches: u64,
    /// How often each fault was played.
    pub faults: FaultStats,
    /// What became of inbound events.
    pub webhooks: WebhookStats,
    /// What is WhatsApp's only; not shown while nothing has happened there.
    #[serde(default, skip_serializing_if = "WhatsappStats::is_empty")]
    pub whatsapp: WhatsappStats,
}

/// What has happened on WhatsApp's wire; its calls and acceptances are counted with the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhatsappStats {
    /// Valid calls of `POST /{version}/{phone number id}/messages` that send.
    pub calls: u64,
    /// Calls that were refused, since Meta would refuse them too.
    pub refused: u64,
    /// Calls that the limit for one recipient refused.
    pub pair_limited: u64,
    /// Acceptances beyond the first one of a message.
    pub double_sends: u64,
    /// Statuses that were made, without repeats.
    pub statuses: u64,
    /// Messages that were marked as read.
    pub read_marks: u64,
    /// Media that were downloaded.
    pub media_downloads: u64,
}

impl WhatsappStats {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How often each fault was played.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultStats {
    pub rate_limit: u64,
    pub server_error: u64,
    pub reject: u64,
    pub lost_answer: u64,
    pub reset: u64,
    pub hang: u64,
    pub unreadable: u64,
    pub status: u64,
    pub delay: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde passes")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl FaultStats {
    /// Counts a fault; [`Fault::Ok`] is none.
    pub(crate) fn count(&mut self, fault: &Fault) {
        let counter = match fault {
            Fault::Ok => return,
            Fault::RateLimit { .. } => &mut self.rate_limit,
            Fault::ServerError { .. } => &mut self.server_error,
            Fault::Reject => &mut self.reject,
            Fault::LostAnswer => &mut self.lost_answer,
            Fault::Reset => &mut self.reset,
            Fault::Hang => &mut self.hang,
            Fault::Unreadable => &mut self.unreadable,
            Fault::Status { .. } => &mut self.status,
            Fault::Delay { .. } => &mut self.delay,
            Fault::Code { .. } => &mut self.code,
        };
        *counter += 1;
    }
}

/// What became of inbound events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStats {
    /// Events, with those from the future, without repeats.
    pub events: u64,
    /// Posts that were answered with a 2xx.
    pub sent: u64,
    /// Posts that were not.
    pub failed: u64,
    /// Events and repeats that were given up after the last try.
    pub given_up: u64,
    /// Repeats of events.
    pub duplicates: u64,
    /// Events that another event overtook on purpose.
    pub out_of_order: u64,
    /// Events and repeats that are still on their way.
    pub pending: u64,
}
