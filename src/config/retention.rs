//! How long old data is kept.

use clap::Args;

/// The options for retention.
#[derive(Debug, Clone, Args)]
pub struct RetentionArgs {
    /// After how many days the bodies of webhook events are emptied, a month of them at a time;
    /// their ids and messages stay. 0: never
    #[arg(long, env = "WEBHOOK_BODY_RETENTION_DAYS", default_value_t = 90, value_parser = clap::value_parser!(i32).range(0..=36_500), value_name = "DAYS")]
    webhook_body_retention_days: i32,
    /// For how many minutes a reader of the live feed can go on where it was
    #[arg(long, env = "FEED_RETENTION_MINUTES", default_value_t = 60, value_parser = clap::value_parser!(i32).range(1..=10_080), value_name = "MINUTES")]
    feed_retention_minutes: i32,
}

impl RetentionArgs {
    /// The number of days; none: keep them for ever.
    #[must_use]
    pub fn webhook_body_days(&self) -> Option<i32> {
        (self.webhook_body_retention_days > 0).then_some(self.webhook_body_retention_days)
    }

    /// For how many minutes changes are kept.
    #[must_use]
    pub fn feed_minutes(&self) -> i32 {
        self.feed_retention_minutes
    }
}
