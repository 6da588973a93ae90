//! How a command that takes long is stopped.

use std::io;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

/// Signals that come so close to the first are the same one: timeout(1) sends it to the program and then to its group.
const SAME: Duration = Duration::from_millis(500);

/// What a signal is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Stop,
    StopAtOnce,
    Nothing,
}

/// Returns what a signal is taken for that comes so long after the first, or is the first.
fn wish(after_first: Option<Duration>) -> Wish {
    match after_first {
        None => Wish::Stop,
        Some(time) if time < SAME => Wish::Nothing,
        Some(_) => Wish::StopAtOnce,
    }
}

/// Returns what becomes true at the first SIGINT or SIGTERM. The second ends the program at once, with the code that
/// shells give to a program ended by it; a thread of its own sees to that, so that it also ends one that hangs.
///
/// # Errors
/// What the system says if it cannot tell of signals.
pub(super) fn stop_on_signal() -> io::Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            match wish(first.map(|at| at.elapsed())) {
                Wish::Stop => {
                    first = Some(Instant::now());
                    stop.send_replace(true);
                    tracing::warn!("stopping as soon as nothing is half done; a second signal stops at once");
                }
                Wish::StopAtOnce => signal_hook::low_level::exit(128 + signal),
                Wish::Nothing => {}
            }
        }
    })?;
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_is_one_that_somebody_sent() {
        let rows =
            [(None, Wish::Stop), (Some(0), Wish::Nothing), (Some(499), Wish::Nothing), (Some(500), Wish::StopAtOnce)];
        for (millis, taken_for) in rows {
            assert_eq!(wish(millis.map(Duration::from_millis)), taken_for);
        }
    }
}
