//! Decides how long to leave a server alone after a failure. The one back-off of the daemon; pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine;
use crate::haste::shortened;
use crate::{auth, db, imap, maildir};

/// What kind of failure it was: a pause that grew by one kind says nothing of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// There is no way to the server, or it broke.
    Connection,
    /// The server lets nobody in.
    TurnedAway,
    /// The server is not well, or wants to be left alone.
    Server,
    /// The user is not let in.
    SignIn,
    /// Something here: the disk, the database, another process.
    Here,
}

/// The first pause after a failure of a kind, and the longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pace {
    kind: Kind,
    first: Duration,
    longest: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Returns how long to wait by what went wrong.
fn pace(error: &engine::Error) -> Pace {
    let (kind, first, longest) = match error {
        // Gone or not yet there: it may be back in a moment, as after a restart.
        engine::Error::Imap(
            imap::Error::Closed { .. }
            | imap::Error::TokenExpired { .. }
            | imap::Error::TimedOut(_)
            | imap::Error::Unreachable { .. },
        ) => (Kind::Connection, SECOND, 5 * MINUTE),
        // A captive portal shows another's certificate until somebody signs in to it.
        engine::Error::Imap(imap::Error::Certificate { .. }) => (Kind::Connection, MINUTE / 2, 10 * MINUTE),
        // Whoever comes again at once is one more that it has no room for.
        engine::Error::Imap(imap::Error::TurnedAway { .. }) => (Kind::TurnedAway, MINUTE / 4, 10 * MINUTE),
        engine::Error::Imap(imap::Error::Unavailable { pause, .. }) => {
            (Kind::Server, pause.unwrap_or(MINUTE).min(HOUR), HOUR)
        }
        // Nothing helps but the user; some servers lock those out who try too often.
        engine::Error::Token(auth::TokenError::Later { pause, .. }) => {
            (Kind::Server, pause.unwrap_or(MINUTE / 2).min(HOUR), HOUR / 6)
        }
        engine::Error::Imap(imap::Error::SignIn { .. })
        | engine::Error::Auth(_)
        | engine::Error::Token(_)
        | engine::Error::SignIn(_) => (Kind::SignIn, 10 * MINUTE, HOUR),
        engine::Error::Imap(imap::Error::Throttled { pause, .. }) => (Kind::Server, (*pause).min(HOUR), HOUR),
        engine::Error::Imap(_) => (Kind::Server, MINUTE, HOUR),
        engine::Error::Maildir(maildir::Error::NoSpace { .. })
        | engine::Error::Db(db::Error::NoSpace | db::Error::Locked) => (Kind::Here, 5 * SECOND, 5 * MINUTE),
        engine::Error::Busy { .. } => (Kind::Here, SECOND, MINUTE),
        engine::Error::Held(_) => (Kind::Here, 10 * SECOND, MINUTE),
        engine::Error::Maildir(_)
        | engine::Error::Db(_)
        | engine::Error::Renumbered(_)
        | engine::Error::File { .. }
        | engine::Error::Quiet { .. }
        | engine::Error::Stopped
        | engine::Error::Worker(_) => (Kind::Here, 5 * SECOND, 10 * MINUTE),
    };
    Pace { kind, first, longest }
}

/// The failures since something last worked, by their kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Failures(BTreeMap<Kind, u32>);

impl Failures {
    /// Counts a failure at `now`, in seconds since 1970; returns how long to wait. `dice` is as for [`Failures::count`].
    pub(super) fn count(&mut self, error: &engine::Error, now: i64, dice: f64) -> Duration {
        if let engine::Error::Quiet { until, .. } = error {
            // Everybody knows until when; nothing was tried, so nothing failed again.
            return Duration::from_secs(u64::try_from(until - now).unwrap_or(0)).max(SECOND);
        }
        let pace = pace(error);
        let count = self.0.entry(pace.kind).or_default();
        *count = count.saturating_add(1);
        // A session does not outlive its token: the next one has a new one.
        if error.is_expected() && *count <= 1 { Duration::ZERO } else { shortened(pause(pace, *count, dice)) }
    }

    /// Forgets all of them, since something worked.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns how many there were, of whatever kind.
    pub(super) fn total(&self) -> u32 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Returns how long to wait after so many failures in a row; `dice` is between 0 and 1, so that not all clients of a server
/// that comes back come back at once.
fn pause(pace: Pace, failures: u32, dice: f64) -> Duration {
    let doubled = pace.first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    let capped = doubled.min(pace.longest.max(pace.first));
    // Upwards only: a server that said how long gets at least that.
    capped.mul_f64(1.0 + 0.2 * dice.clamp(0.0, 1.0))
}

/// Returns a random number between 0 and 1 for [`Failures::count`].
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

    fn first(error: &engine::Error, now: i64, dice: f64) -> Duration {
        Failures::default().count(error, now, dice)
    }

    #[test]
    fn a_server_that_is_left_alone_is_asked_when_that_is_over() {
        let quiet = engine::Error::Quiet { until: 1300, why: "it said so".into() };
        let mut failures = Failures::default();
        assert_eq!(failures.count(&quiet, 1000, 1.0), Duration::from_secs(300));
        assert_eq!(failures.count(&quiet, 1300, 1.0), SECOND);
        assert_eq!(failures.total(), 0, "nothing was tried");
    }

    #[test]
    fn a_token_that_ran_out_is_no_failure_unless_it_does_so_again() {
        let expired = imap::Error::TokenExpired { text: "AccessTokenExpired".into() }.into();
        let mut failures = Failures::default();
        assert_eq!(failures.count(&expired, 0, 1.0), Duration::ZERO);
        assert!(failures.count(&expired, 0, 0.0) > Duration::ZERO);
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
            assert_eq!(first(&error, 0, 0.0).as_secs(), waited);
        }
    }

    #[test]
    fn failures_of_one_kind_do_not_lengthen_the_pauses_of_another() {
        let gone = || unreachable();
        let closed = || imap::Error::Closed { text: "bye".into() }.into();
        let away = || imap::Error::TurnedAway { text: "full".into() }.into();
        let unwell = || imap::Error::Unavailable { pause: None, text: "later".into() }.into();
        let refused = || imap::Error::SignIn { text: "no".into() }.into();
        let disk = || engine::Error::Db(db::Error::NoSpace);
        // Nothing but a success begins anew, and then all do.
        type Row<'a> = (&'a dyn Fn() -> engine::Error, u64);
        let rows: [Row<'_>; 14] = [
            (&gone, 1),
            (&gone, 2),
            (&closed, 4),
            (&away, 15),
            (&away, 30),
            (&gone, 8),
            (&unwell, 60),
            (&refused, 600),
            (&refused, 1200),
            (&disk, 5),
            (&unwell, 120),
            (&away, 60),
            (&away, 120),
            (&gone, 16),
        ];
        let mut failures = Failures::default();
        for (n, (error, seconds)) in rows.iter().enumerate() {
            assert_eq!(failures.count(&error(), 0, 0.0).as_secs(), *seconds, "row {n}");
        }
        assert_eq!(failures.total(), 14);
        failures.clear();
        assert_eq!((failures.total(), failures.count(&away(), 0, 0.0).as_secs()), (0, 15));
        assert_eq!(failures.count(&gone(), 0, 0.0).as_secs(), 1);
    }

    #[test]
    fn every_kind_has_a_cap_and_jitter() {
        let errors: [engine::Error; 4] = [
            unreachable(),
            imap::Error::TurnedAway { text: "full".into() }.into(),
            imap::Error::SignIn { text: "no".into() }.into(),
            engine::Error::Held("no root".into()),
        ];
        for error in errors {
            let mut failures = Failures::default();
            let last = (0..100).map(|_| failures.count(&error, 0, 0.0)).last().unwrap();
            assert!(last <= HOUR, "{error}");
            assert_eq!(failures.count(&error, 0, 1.0), last.mul_f64(1.2), "{error}");
        }
    }
}
