//! Decides how a server that has had enough, or does not open the mailbox, is left alone, over the runs of the program.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::time::Duration;

use super::Error;
use crate::db::Service;
use crate::imap;

/// How long a way that works over IPv4 only is remembered: such faults lasted from hours to weeks.
const IPV4_FOR: i64 = 6 * 60 * 60;
/// How long after each sign-in that led to no mailbox the next one waits, in minutes; the last for all that follow.
const PAUSES: [i64; 5] = [1, 5, 15, 30, 60];
/// As long as that it may be a bad moment of the server's; then the user should look.
const LASTS: i64 = 60 * 60;

/// What may be the matter when sign-ins lead to no mailbox for long.
const CAUSES: &str = "It has lasted for more than an hour, so it may be: IMAP is switched off for the mailbox (Outlook.com: \
    Settings, Mail, Forwarding and IMAP); the sign-in is that of another account, or the address an alias of it; too many \
    programs are connected to the mailbox; a VPN, or a country that Microsoft does not expect; an outage at Microsoft";

/// Returns how the server is to be treated after a pass that ended so at `now`, in seconds since 1970.
pub(super) fn after(before: &Service, end: Option<&Error>, now: i64, ipv4_only: bool) -> Service {
    let mut service = Service { quiet: before.quiet.clone().filter(|(until, _)| *until > now), ..before.clone() };
    // Found out just now, or still so: what runs out is found out again.
    if ipv4_only && service.ipv4_until.is_none_or(|until| until <= now) {
        service.ipv4_until = Some(now + IPV4_FOR);
    }
    match end {
        Some(Error::Imap(imap::Error::Throttled { pause, text })) => {
            service.quiet = Some((now + seconds(*pause), format!("it answered: {text}")));
        }
        Some(Error::Imap(imap::Error::NotConnected { text })) => {
            let tries = usize::try_from(service.not_connected).unwrap_or(usize::MAX);
            let pause = PAUSES[tries.min(PAUSES.len() - 1)];
            service.not_connected = service.not_connected.saturating_add(1);
            service.not_connected_since.get_or_insert(now);
            service.quiet =
                Some((now + pause * 60, format!("it accepts the sign-in, but does not open the mailbox: {text}")));
        }
        // Whether it opens the mailbox is not known.
        Some(_) => {}
        None => (service.not_connected, service.not_connected_since) = (0, None),
    }
    service
}

/// Returns the error of a pass with what the user can do about it, where it has lasted for long.
pub(super) fn explained(error: Error, service: &Service, now: i64) -> Error {
    match error {
        Error::Imap(imap::Error::NotConnected { text }) if lasts(service, now) => {
            Error::Imap(imap::Error::NotConnected { text: format!("{text} {CAUSES}") })
        }
        error => error,
    }
}

/// Tells whether sign-ins have led to no mailbox for so long that the user should look.
fn lasts(service: &Service, now: i64) -> bool {
    service.not_connected_since.is_some_and(|since| now - since >= LASTS)
}

/// Rounded up: a moment too early would make it longer.
fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_account_is_left_alone_for_as_long_as_it_was_told() {
        let text = "Request is throttled.".to_owned();
        let error = Error::Imap(imap::Error::Throttled { pause: Duration::from_millis(299_961), text });
        let service = after(&Service::default(), Some(&error), 1000, false);
        assert_eq!(service.quiet_at(1299), Some((1300, "it answered: Request is throttled.")));
        assert_eq!(service.quiet_at(1300), None);
        assert_eq!(after(&service, None, 1300, false), Service::default());
    }

    #[test]
    fn sign_ins_that_lead_to_no_mailbox_become_rarer() {
        let error = Error::Imap(imap::Error::NotConnected { text: "not connected".to_owned() });
        let (mut service, mut now, mut pauses) = (Service::default(), 0, Vec::new());
        for _ in 0..6 {
            service = after(&service, Some(&error), now, false);
            let (until, _) = service.quiet_at(now).unwrap();
            pauses.push((until - now) / 60);
            assert_eq!(lasts(&service, now), now >= LASTS, "at {now}");
            now = until;
        }
        assert_eq!(pauses, [1, 5, 15, 30, 60, 60]);
        let other = Error::Imap(imap::Error::TimedOut(Duration::ZERO));
        assert_eq!(after(&service, Some(&other), now, false).not_connected_since, Some(0));
        assert_eq!(after(&service, None, now, false), Service::default());
    }

    #[test]
    fn a_time_that_a_wrong_clock_wrote_holds_nobody_up() {
        let text = "Request is throttled.".to_owned();
        let error = Error::Imap(imap::Error::Throttled { pause: Duration::from_secs(60 * 60), text });
        let service = after(&Service::default(), Some(&error), 2_000_000_000, false);
        assert!(service.quiet_at(2_000_000_000).is_some());
        assert_eq!(service.quiet_at(1_700_000_000), None);
    }

    #[test]
    fn ipv4_is_remembered_for_some_hours() {
        let service = after(&Service::default(), None, 100, true);
        assert_eq!(service.ipv4_until, Some(100 + IPV4_FOR));
        assert_eq!(after(&service, None, 200, true), service);
    }
}
