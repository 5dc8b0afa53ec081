//! How fast the provider is called for a channel, by all processes together: a 429 pauses the whole channel, then its calls ramp up;
//! and never more than `PROVIDER_MAX_PER_SECOND`.
//!
//! ```text
//!   open ── 429 ─► paused ── Retry-After is over ─► ramping: 50 calls a second, then twice as many each second ─► open
//!                    ▲                                 │
//!                    └────────────── 429 ──────────────┘
//! ```
//!
//! Whoever leases a delivery asks its channel's row in the same statement: [`crate::message::store::accept`] leases nothing while the
//! channel is paused or its calls are spread, [`crate::delivery::store::claim`] as much as may be called at this moment.

pub mod store;

use std::time::Duration;

use crate::conversation::Channel;

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
