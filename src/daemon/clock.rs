//! Time that goes on while the machine is suspended, and whether it was.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Returns the time since the machine was started, suspended or not.
pub(super) fn now() -> Duration {
    read(ClockId::Boottime)
}

/// Returns the time in seconds since 1970: for people only, nothing is decided by it.
pub(super) fn unix_now() -> i64 {
    crate::clock::wall().as_second()
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A suspension that was shorter has broken nothing.
const SHORT: Duration = Duration::from_secs(5);

/// Ticks, and tells how long the machine was suspended in between. A tick that fell into a suspension comes right after it.
#[derive(Debug)]
pub(super) struct Ticks {
    timer: AsyncFd<OwnedFd>,
    /// How far the clock that stands still in a suspension was behind at the last tick.
    behind: Duration,
}

impl Ticks {
    /// Returns what ticks in this interval.
    ///
    /// # Errors
    /// The system's, if it has no timer left.
    pub(super) fn every(interval: Duration) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let time = Timespec {
            tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: interval.subsec_nanos().into(),
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: time, it_value: time })?;
        Ok(Self { timer: crate::readiness::readable(timer)?, behind: behind() })
    }

    /// Takes a suspension until now as told.
    pub(super) fn forget(&mut self) {
        self.behind = behind();
    }

    /// Waits for the next tick; returns for how long the machine was suspended since the last one, if that is worth telling.
    ///
    /// # Errors
    /// The system's.
    pub(super) async fn next(&mut self) -> io::Result<Option<Duration>> {
        let mut ready = self.timer.readable().await?;
        let mut count = [0; 8];
        match rustix::io::read(ready.get_inner(), &mut count) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        let (before, now) = (self.behind, behind());
        self.behind = now;
        Ok(suspended(before, now))
    }
}

fn behind() -> Duration {
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

/// Returns for how long the machine was suspended when one clock fell behind the other by so much before, and now.
fn suspended(before: Duration, now: Duration) -> Option<Duration> {
    let gap = now.saturating_sub(before);
    (gap >= SHORT).then_some(gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_stood_still_tells_of_a_suspension() {
        let rows = [(0, 0, None), (0, 4, None), (100, 103, None), (100, 160, Some(60)), (100, 90, None)];
        for (before, now, gap) in rows {
            let seconds = Duration::from_secs;
            assert_eq!(suspended(seconds(before), seconds(now)), gap.map(seconds));
        }
    }

    #[tokio::test]
    async fn ticks_come_and_no_suspension_with_them() {
        let mut ticks = Ticks::every(Duration::from_millis(5)).unwrap();
        let before = now();
        for _ in 0..3 {
            assert_eq!(ticks.next().await.unwrap(), None);
        }
        assert!(now() - before >= Duration::from_millis(10));
    }
}
