//! Channels, and the pace of each: how fast all processes together call the provider for it. A 429
//! pauses the whole channel, then its calls ramp up. There are never more of them in a second than
//! `PROVIDER_MAX_PER_SECOND`.
//!
//! ```text
//!   open ── 429 ─► paused ── Retry-After is over ─► ramping ── for as long, 10 s at most ─► open
//!                    ▲                                 │ 50 calls a second,
//!                    └────────────── 429 ──────────────┘ then twice as many each second
//! ```
//!
//! A channel whose token or account is at fault is *held*: one call every [`TRIAL_EVERY`] tries it,
//! until one succeeds. A start with another token, or an operator's retry, tries at once.
//!
//! Every statement that leases reads the channel's row itself. [`crate::message::store::enqueue`]
//! leases nothing while the channel is paused or its calls are spread.
//! [`crate::delivery::store::claim`] leases as much as may be called at this moment.

pub mod participant;
pub(crate) mod store;

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

/// Characters of the newest message that its conversation shows.
pub const PREVIEW_LENGTH: i32 = 200;

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

/// How often one call tries a channel that is held.
pub const TRIAL_EVERY: Duration = Duration::from_mins(15);

/// A channel that nobody is to call for some time.
#[derive(Debug, Clone)]
pub struct Pause {
    /// The channel.
    pub channel: Channel,
    /// How long, from now on.
    pub wait: Duration,
    /// The fingerprint of the token with which it was refused, if that or the account is at fault:
    /// the channel is held.
    pub held_token: Option<String>,
}
