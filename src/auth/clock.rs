//! How long tokens have left: by a clock that goes on while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Outlook.com ends a session when its token is an hour old; at this age a token is replaced, and sessions with it.
const MOST_AGE: Duration = Duration::from_secs(50 * 60);
/// A token is replaced this long before it runs out, if it is worth that long.
const EARLY: Duration = Duration::from_secs(5 * 60);

/// Returns the time since the machine was started, with the time that it slept.
pub(super) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    // The clock counts up from nothing.
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Returns the age at which a token of this lifetime is replaced.
pub(super) fn renew_age(lifetime: Duration) -> Duration {
    lifetime.saturating_sub(EARLY).max(lifetime / 2).min(MOST_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_early_enough() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let rows = [(60, 50), (53, 48), (90, 50), (24 * 60, 50), (20, 15), (8, 4), (0, 0)];
        for (lifetime, age) in rows {
            assert_eq!(renew_age(minutes(lifetime)), minutes(age), "{lifetime}");
        }
    }

    #[test]
    fn the_clock_goes_on() {
        let before = now();
        assert!(before > Duration::ZERO && now() >= before);
    }
}
