//! INTERNALDATE (RFC 3501 §2.3.3), as the server writes it and as seconds since 1970.

use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

/// The last second that is a date in every time zone, with four digits for the year.
const LAST: i64 = 253_402_207_200;

/// Returns the seconds since 1970, from 0 to [`LAST`]. A date that makes no sense is as near as its parts allow, or 0:
/// no message is refused for its date.
pub(super) fn parse(text: &str) -> i64 {
    let text = text.trim();
    let time = BrokenDownTime::parse("%d-%b-%Y %H:%M:%S %z", text).and_then(|t| t.to_timestamp()).or_else(|_| {
        // Without the time zone, which may be absurd.
        let end = text.char_indices().nth(20).map_or(text.len(), |(at, _)| at);
        let civil = BrokenDownTime::parse("%d-%b-%Y %H:%M:%S", text[..end].trim())?.to_datetime()?;
        Ok::<_, jiff::Error>(civil.to_zoned(TimeZone::UTC)?.timestamp())
    });
    time.map_or(0, |t| t.as_second().clamp(0, LAST))
}

/// Returns the `date-time` of RFC 3501 §9, quoted, in UTC.
pub(super) fn format(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds.clamp(0, LAST)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("\"%d-%b-%Y %H:%M:%S +0000\"").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_all_kinds() {
        let table = [
            ("17-Jul-1996 02:44:25 -0700", 837_596_665),
            (" 1-Feb-2024 00:00:00 +0100", 1_706_742_000),
            ("1-Jan-2038 00:00:00 +0000", 2_145_916_800),
            ("30-Dec-1899 00:00:00 +0000", 0),
            ("01-Jan-2020 00:00:00 +9999", 1_577_836_800),
            ("30-Dec-9999 22:00:00 +0000", LAST),
            ("31-Feb-2020 00:00:00 +0000", 0),
            ("01-Jan-10000 00:00:00 +0000", 0),
            ("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", 0),
            ("", 0),
        ];
        for (text, seconds) in table {
            assert_eq!(parse(text), seconds, "{text}");
        }
    }

    #[test]
    fn a_date_survives() {
        for seconds in [0, 1, 837_596_665, LAST] {
            assert_eq!(parse(format(seconds).trim_matches('"')), seconds);
        }
        assert_eq!(format(-5), "\"01-Jan-1970 00:00:00 +0000\"");
        assert_eq!(format(i64::MAX), "\"30-Dec-9999 22:00:00 +0000\"");
    }
}
