//! Decides how long to leave a server alone after a failure. The one back-off of the daemon; pure.

use std::time::Duration;

use crate::engine;
use crate::haste::shortened;
use crate::{auth, db, imap, maildir};

/// The first pause after a failure, and the longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    first: Duration,
    longest: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Returns how long to wait by what went wrong.
pub(super) fn pace(error: &engine::Error) -> Pace {
    let (first, longest) = match error {
        // Gone or not yet there: it may be back in a moment, as after a restart.
        engine::Error::Imap(
            imap::Error::Closed { .. }
            | imap::Error::TokenExpired { .. }
            | imap::Error::TimedOut(_)
            | imap::Error::Unreachable { .. },
        ) => (SECOND, 5 * MINUTE),
        // A captive portal shows another's certificate until somebody signs in to it.
        engine::Error::Imap(imap::Error::Certificate { .. }) => (MINUTE / 2, 10 * MINUTE),
        engine::Error::Imap(imap::Error::Unavailable { pause, .. }) => (pause.unwrap_or(MINUTE).min(HOUR), HOUR),
        // Nothing helps but the user; some servers lock those out who try too often.
        engine::Error::Token(auth::TokenError::Later { pause, .. }) => {
            (pause.unwrap_or(MINUTE / 2).min(HOUR), HOUR / 6)
        }
        engine::Error::Imap(imap::Error::SignIn { .. })
        | engine::Error::Auth(_)
        | engine::Error::Token(_)
        | engine::Error::SignIn(_) => (10 * MINUTE, HOUR),
        engine::Error::Imap(imap::Error::Throttled { pause, .. }) => ((*pause).min(HOUR), HOUR),
        engine::Error::Imap(_) => (MINUTE, HOUR),
        engine::Error::Maildir(maildir::Error::NoSpace { .. })
        | engine::Error::Db(db::Error::NoSpace | db::Error::Locked) => (5 * SECOND, 5 * MINUTE),
        engine::Error::Busy { .. } => (SECOND, MINUTE),
        engine::Error::Held(_) => (10 * SECOND, MINUTE),
        engine::Error::Maildir(_)
        | engine::Error::Db(_)
        | engine::Error::Renumbered(_)
        | engine::Error::File { .. }
        | engine::Error::Quiet { .. }
        | engine::Error::Stopped
        | engine::Error::Worker(_) => (5 * SECOND, 10 * MINUTE),
    };
    Pace { first, longest }
}

/// Returns how long to wait after an error that came after so many failures in a row, itself among them, at `now`, in seconds
/// since 1970.
pub(super) fn wait(error: &engine::Error, failures: u32, now: i64, dice: f64) -> Duration {
    match error {
        // Everybody knows until when; nothing was tried.
        engine::Error::Quiet { until, .. } => Duration::from_secs(u64::try_from(until - now).unwrap_or(0)).max(SECOND),
        // A session does not outlive its token: the next one has a new one.
        error if error.is_expected() && failures <= 1 => Duration::ZERO,
        error => shortened(pause(pace(error), failures, dice)),
    }
}

/// Returns how long to wait after so many failures in a row; `dice` is between 0 and 1, so that not all clients of a server
/// that comes back come back at once.
pub(super) fn pause(pace: Pace, failures: u32, dice: f64) -> Duration {
    let doubled = pace.first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    let capped = doubled.min(pace.longest.max(pace.first));
    // Upwards only: a server that said how long gets at least that.
    capped.mul_f64(1.0 + 0.2 * dice.clamp(0.0, 1.0))
}

/// Returns a random number between 0 and 1 for [`pause`].
pub(super) fn dice() -> f64 {
    // Without randomness all is as well, only less spread.
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> engine::Error {
        imap::Error::Unreachable { host: "h".into(), port: 993, reason: "no route".into() }.into()
    }

    #[test]
    fn pauses_grow_to_their_cap() {
        let pauses = (1..=10).map(|n| pause(pace(&unreachable()), n, 0.0).as_secs()).collect::<Vec<_>>();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(pause(pace(&unreachable()), u32::MAX, 1.0).as_secs(), 360);
    }

    #[test]
    fn a_refused_sign_in_is_not_repeated_often() {
        let refused = imap::Error::SignIn { text: "no".into() }.into();
        let in_an_hour = (1..).map(|n| pause(pace(&refused), n, 0.0)).scan(Duration::ZERO, |sum, pause| {
            *sum += pause;
            (*sum <= HOUR).then_some(())
        });
        assert!(in_an_hour.count() <= 3);
    }

    #[test]
    fn a_server_that_is_left_alone_is_asked_when_that_is_over() {
        let quiet = engine::Error::Quiet { until: 1300, why: "it said so".into() };
        assert_eq!(wait(&quiet, 9, 1000, 1.0), Duration::from_secs(300));
        assert_eq!(wait(&quiet, 1, 1300, 1.0), SECOND);
    }

    #[test]
    fn a_token_that_ran_out_is_no_failure_unless_it_does_so_again() {
        let expired = imap::Error::TokenExpired { text: "AccessTokenExpired".into() }.into();
        assert_eq!(wait(&expired, 1, 0, 1.0), Duration::ZERO);
        assert!(wait(&expired, 2, 0, 0.0) > Duration::ZERO);
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asked() {
        let rows = [(Some(300), 300), (Some(7200), 3600), (None, 60)];
        for (asked, waited) in rows {
            let asked = asked.map(Duration::from_secs);
            let error = imap::Error::Unavailable { pause: asked, text: "later".into() }.into();
            assert_eq!(pause(pace(&error), 1, 0.0).as_secs(), waited);
            let Some(pause_asked) = asked else { continue };
            let error = imap::Error::Throttled { pause: pause_asked, text: "later".into() }.into();
            assert_eq!(wait(&error, 1, 0, 0.0).as_secs(), waited);
        }
    }
}
