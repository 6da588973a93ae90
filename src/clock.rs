//! What the clocks say: the one on the wall, which may say anything, and that of this boot of the machine, which only goes
//! on, suspended or not.

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Returns the time that the clock on the wall shows.
///
/// With debug assertions, a process started with `POSTKEEP_WALL_SHIFT=n` in its environment sees it n seconds further.
pub(crate) fn wall() -> Timestamp {
    let shift = SignedDuration::from_secs(shift("POSTKEEP_WALL_SHIFT"));
    Timestamp::now().saturating_add(shift).unwrap_or(Timestamp::MAX)
}

/// How long the machine has been on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Boot {
    /// Names this boot of the machine; empty where the system does not tell.
    pub(crate) id: String,
    /// The time since, in seconds.
    pub(crate) clock: i64,
}

/// Returns how long the machine has been on.
///
/// With debug assertions, a process started with `POSTKEEP_BOOT_SHIFT=n` in its environment sees it n seconds further, and
/// with `POSTKEEP_BOOT_ID=id` in another boot.
pub(crate) fn boot() -> Boot {
    let id = setting("POSTKEEP_BOOT_ID").unwrap_or_else(|| {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        told.unwrap_or_default().trim().to_owned()
    });
    let clock = clock_gettime(ClockId::Boottime).tv_sec.saturating_add(shift("POSTKEEP_BOOT_SHIFT"));
    Boot { id, clock }
}

fn shift(name: &str) -> i64 {
    setting(name).and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

#[cfg(debug_assertions)]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(not(debug_assertions))]
#[inline]
fn setting(_name: &str) -> Option<String> {
    None
}
