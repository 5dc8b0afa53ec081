//! How long old data is kept.

use clap::Args;

/// The options for retention.
#[derive(Debug, Clone, Args)]
pub struct RetentionArgs {
    /// After how many days the bodies of webhook events are emptied, a month of them at a time;
    /// their ids and messages stay. 0: never
    #[arg(long, env = "WEBHOOK_BODY_RETENTION_DAYS", default_value_t = 90, value_parser = clap::value_parser!(i32).range(0..=36_500), value_name = "DAYS")]
    webhook_body_retention_days: i32,
}

impl RetentionArgs {
    /// The number of days; none: keep them for ever.
    #[must_use]
    pub fn webhook_body_days(&self) -> Option<i32> {
        (self.webhook_body_retention_days > 0).then_some(self.webhook_body_retention_days)
    }
}
