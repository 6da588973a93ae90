//! Makes the long waits short, so that a test can see a day of them.

use std::time::Duration;

/// Returns how long to wait where a user's program waits for this long.
///
/// With debug assertions, a process started with `POSTKEEP_HASTE=n` in its environment waits for an n-th of it.
#[cfg(debug_assertions)]
pub(crate) fn shortened(time: Duration) -> Duration {
    use std::sync::LazyLock;

    static HASTE: LazyLock<Option<u32>> =
        LazyLock::new(|| std::env::var("POSTKEEP_HASTE").ok()?.parse().ok().filter(|n| *n > 0));
    HASTE.map_or(time, |haste| time / haste)
}

/// Returns how long to wait: this long, in this build.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn shortened(time: Duration) -> Duration {
    time
}
