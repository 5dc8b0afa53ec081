//! Channels, and their pace: how fast the provider is called for one, by all processes together: a 429 pauses the whole channel, then its calls ramp up;
//! and never more than `PROVIDER_MAX_PER_SECOND`.
//!
//! ```text
//!   open ── 429 ─► paused ── Retry-After is over ─► ramping: 50 calls a second, then twice as many each second ─► open
//!                    ▲                                 │
//!                    └────────────── 429 ──────────────┘
//! ```
//!
//! Whoever leases a delivery asks its channel's row in the same statement: [`crate::message::store::enqueue`] leases nothing while the
//! channel is paused or its calls are spread, [`crate::delivery::store::claim`] as much as may be called at this moment.

pub mod participant;
pub mod store;

use std::time::Duration;

use crate::http::field::{Fault, Field, one_of};

/// Where a participant writes from.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    sqlx::Type,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
    utoipa::ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Channel {
    /// WhatsApp.
    Whatsapp,
    /// Instagram.
    Instagram,
}

impl Channel {
    /// Its name, as in the API and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Field for Channel {
    fn parse(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

/// Calls in a second when a pause ends; each second there are `RAMP_FACTOR` times as many.
pub const RAMP_START_PER_SECOND: f64 = 50.0;
/// See `RAMP_START_PER_SECOND`.
pub const RAMP_FACTOR: f64 = 2.0;
/// The longest time for which calls are spread after a pause.
pub const LONGEST_RAMP: Duration = Duration::from_secs(10);
/// Where calls are spread, as many may begin at once as are allowed in a second divided by this.
pub const BURSTS_PER_SECOND: f64 = 20.0;
/// The longest pause, where the provider does not say how long.
pub const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// A channel that is not to be called for some time.
#[derive(Debug, Clone, Copy)]
pub struct Pause {
    /// The channel.
    pub channel: Channel,
    /// From now on.
    pub wait: Duration,
}
