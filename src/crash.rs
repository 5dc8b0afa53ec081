//! Named moments at which the proof by crash (tests/crash) can make a process die as by a power
//! cut. Only with the feature `crash-points`: any other build has none of this.

/// A moment at which dying is hardest to make good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "crash-points",
    derive(strum::EnumString, strum::IntoStaticStr, strum::VariantArray),
    strum(serialize_all = "snake_case")
)]
pub enum Point {
    /// An event is committed, and nobody was told.
    AfterIngest,
    /// A message is committed, perhaps leased, and nobody was told. No attempt has begun.
    AfterAccept,
    /// A message is leased, the provider has not been called.
    BeforeCall,
    /// The provider has answered, or not; nobody has looked at it.
    AfterCall,
    /// Outcomes are gathered to be written.
    BeforeSettle,
    /// Outcomes are committed, and nobody was told; what waits behind them is not released.
    AfterSettle,
}

/// Passes a point; the process dies here if it was told to.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn point(_: Point) {}

#[cfg(feature = "crash-points")]
pub use armed::{VARIABLE, point};

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};
    use strum::VariantArray;

    use super::Point;

    /// Where to die, and at which pass, counted from 1: such as `before_settle:17`.
    pub const VARIABLE: &str = "GATEWAY_CRASH_AT";

    static AT: LazyLock<Option<(Point, u64)>> =
        LazyLock::new(|| parse(&std::env::var(VARIABLE).ok()?));
    static PASSES: AtomicU64 = AtomicU64::new(0);

    /// Passes a point; the process dies here if it was told to.
    pub fn point(here: Point) {
        let Some((point, pass)) = *AT else { return };
        if point == here && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == pass {
            // SIGKILL: nothing is flushed, closed or unwound.
            kill_process(getpid(), Signal::KILL).ok();
            std::process::abort();
        }
    }

    fn parse(at: &str) -> Option<(Point, u64)> {
        let (name, pass) = at.split_once(':')?;
        Some((name.parse().ok()?, pass.parse().ok()?))
    }

    impl Point {
        /// All of them, in the order of a message's way.
        pub const ALL: &[Self] = Self::VARIANTS;

        /// Its name in [`VARIABLE`].
        #[must_use]
        pub fn name(self) -> &'static str {
            self.into()
        }
    }
}
