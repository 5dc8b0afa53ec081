//! The scenarios, by their names.

use std::fmt;

/// What a run does to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    Duplicate,
    OutOfOrder,
    RateLimit,
    ServerError,
    Timeout,
    LostAnswer,
    Delay,
    Crash,
    BurstOfEvents,
    BurstOfSends,
    Batches,
    Statuses,
    Undelivered,
    Silence,
}

impl Scenario {
    /// In the order in which they run: the bursts first, while nothing else is going on.
    pub const ALL: [Self; 14] = [
        Self::BurstOfEvents,
        Self::BurstOfSends,
        Self::Duplicate,
        Self::OutOfOrder,
        Self::RateLimit,
        Self::ServerError,
        Self::Timeout,
        Self::LostAnswer,
        Self::Delay,
        Self::Crash,
        // Of WhatsApp's wire. The last one leaves behind what waits for an operator.
        Self::Batches,
        Self::Statuses,
        Self::Undelivered,
        Self::Silence,
    ];

    /// Whether only WhatsApp's wire has it.
    pub fn is_of_whatsapp(self) -> bool {
        matches!(
            self,
            Self::Batches | Self::Statuses | Self::Undelivered | Self::Silence
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::OutOfOrder => "out-of-order",
            Self::RateLimit => "rate-limit",
            Self::ServerError => "server-error",
            Self::Timeout => "timeout",
            Self::LostAnswer => "lost-answer",
            Self::Delay => "delay",
            Self::Crash => "crash",
            Self::BurstOfEvents => "burst-of-events",
            Self::BurstOfSends => "burst-of-sends",
            Self::Batches => "batches",
            Self::Statuses => "statuses",
            Self::Undelivered => "undelivered",
            Self::Silence => "silence",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
