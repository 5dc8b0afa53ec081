//! The live feed.

use clap::Args;

/// The options for the live feed.
#[derive(Debug, Clone, Args)]
pub struct FeedArgs {
    /// The most readers of the live feed at once; further ones are answered 503
    #[arg(long, env = "FEED_MAX_STREAMS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=16_384), value_name = "N")]
    feed_max_streams: u32,
}

impl FeedArgs {
    /// The most streams at once.
    #[must_use]
    pub fn max_streams(&self) -> usize {
        usize::try_from(self.feed_max_streams).unwrap_or(usize::MAX)
    }
}
