//! Moments as people write and read them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use crate::config::duration;

/// A moment; in JSON in the form of RFC 3339, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment(pub(super) Timestamp);

impl Moment {
    /// Returns the moment, or the nearest that a calendar knows.
    pub(super) fn from_millis(millis: i64) -> Self {
        let edge = if millis < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_millisecond(millis).unwrap_or(edge))
    }

    /// Returns the moment, or the nearest that a calendar knows.
    pub(super) fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    pub(super) fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Returns date and time in the zone, to the second.
    pub(super) fn exact(self, zone: &TimeZone) -> String {
        self.0.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Returns how long ago it was, in one unit.
    pub(super) fn ago(self, now: Self) -> String {
        let since = now.0.duration_since(self.0).as_secs();
        let seconds = since.abs();
        let (count, unit) = match seconds {
            ..60 if since < 0 => return "in a moment".to_owned(),
            ..60 => return "just now".to_owned(),
            60..3600 => (seconds / 60, "minute"),
            3600..172_800 => (seconds / 3600, "hour"),
            _ => (seconds / 86_400, "day"),
        };
        let span = format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
        if since < 0 { format!("in {span}") } else { format!("{span} ago") }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// Returns the moment that `when` names: a duration before `now`, the beginning of a date, or RFC 3339.
pub(super) fn parse(when: &str, now: Moment, zone: &TimeZone) -> Result<Moment, String> {
    if let Some(back) = duration(when) {
        let earlier = SignedDuration::try_from(back).ok().and_then(|back| now.0.checked_sub(back).ok());
        return Ok(Moment(earlier.unwrap_or(Timestamp::MIN)));
    }
    if let Ok(moment) = when.parse::<Timestamp>() {
        return Ok(Moment(moment));
    }
    let date = when.parse::<Date>().ok().filter(|_| when.len() == 10).and_then(|date| date.to_zoned(zone.clone()).ok());
    date.map(|zoned| Moment(zoned.timestamp()))
        .ok_or_else(|| format!("cannot read \"{when}\" as a time; write 2h, 3d, 2026-11-01 or 2026-11-01T08:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        Moment(text.parse().unwrap())
    }

    #[test]
    fn times_as_people_write_them() {
        let now = at("2026-11-23T12:00:00Z");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let rows = [
            ("2h", "2026-11-23T10:00:00Z"),
            ("3d", "2026-11-20T12:00:00Z"),
            ("2026-11-01", "2026-10-31T22:00:00Z"),
            ("2026-11-01T08:00:00Z", "2026-11-01T08:00:00Z"),
            ("2026-11-01T08:00:00+02:00", "2026-11-01T06:00:00Z"),
        ];
        for (text, moment) in rows {
            assert_eq!(parse(text, now, &zone), Ok(at(moment)), "{text}");
        }
        for text in ["", "yesterday", "2026", "2026-13-01", "2h ago", "20261101", "2026-11-01T08:00:00"] {
            assert!(parse(text, now, &zone).is_err(), "{text}");
        }
        assert!(parse("36000d", now, &zone).is_ok());
    }

    #[test]
    fn times_as_people_read_them() {
        let now = at("2026-11-23T12:00:00Z");
        let rows = [
            ("2026-11-23T12:00:01Z", "in a moment"),
            ("2026-11-23T12:10:30Z", "in 10 minutes"),
            ("2026-11-23T11:59:01Z", "just now"),
            ("2026-11-23T11:59:00Z", "1 minute ago"),
            ("2026-11-23T11:00:01Z", "59 minutes ago"),
            ("2026-11-22T11:00:00Z", "25 hours ago"),
            ("2026-11-20T12:00:00Z", "3 days ago"),
        ];
        for (moment, text) in rows {
            assert_eq!(at(moment).ago(now), text);
        }
        assert_eq!(now.exact(&TimeZone::fixed(jiff::tz::offset(-1))), "2026-11-23 11:00:00");
        assert_eq!(serde_json::to_string(&now).unwrap(), "\"2026-11-23T12:00:00Z\"");
        assert_eq!(Moment::from_seconds(i64::MAX).0, Timestamp::MAX);
    }
}
