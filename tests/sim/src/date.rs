//! Dates as IMAP writes them (RFC 3501 §9 `date-time`): `" 1-Feb-2024 03:04:05 +0100"` without the quotes.

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns the date of `seconds` since 1970, shown in the zone that is `zone` minutes east.
pub(crate) fn write(seconds: i64, zone: i32) -> String {
    let local = seconds + i64::from(zone) * 60;
    let (days, rest) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let sign = if zone < 0 { '-' } else { '+' };
    format!(
        "{day:2}-{}-{year:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
        MONTHS[month],
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        zone.abs() / 60,
        zone.abs() % 60
    )
}

/// Returns the date of `seconds` since 1970 as HTTP writes it (RFC 9110 §5.6.7).
pub(crate) fn write_http(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let weekday = DAYS[usize::try_from(days.rem_euclid(7)).unwrap_or(0)];
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{weekday}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", MONTHS[month])
}

/// Returns the seconds since 1970 of a date, or `None` if it is not exactly in this form.
pub(crate) fn read(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    let shape = b" d-MMM-dddd dd:dd:dd sdddd";
    let fits = b.len() == 26
        && shape.iter().zip(b).enumerate().all(|(i, (&s, &c))| match s {
            _ if i == 0 => c == b' ' || c.is_ascii_digit(),
            b'd' => c.is_ascii_digit(),
            b'M' => c.is_ascii_alphabetic(),
            b's' => c == b'+' || c == b'-',
            _ => c == s,
        });
    if !fits {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.trim_start().parse::<i64>().ok();
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(&text[3..6]))?;
    let (year, day) = (number(7, 11)?, number(0, 2)?);
    let (hour, minute, second) = (number(12, 14)?, number(15, 17)?, number(18, 20)?);
    let zone = number(22, 24)? * 60 + number(24, 26)?;
    let zone = if b[21] == b'-' { -zone } else { zone };
    let days = days(year, month, day);
    let good = civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 61;
    good.then(|| days * 86_400 + hour * 3600 + (minute - zone) * 60 + second)
}

/// Returns the days since 1970 of a date of the Gregorian calendar; the month counts from 0.
fn days(year: i64, month: usize, day: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let y = year - 1;
    y * 365 + y / 4 - y / 100 + y / 400 - 719_162 + BEFORE[month] + i64::from(leap && month > 1) + day - 1
}

/// Returns the year, the month from 0 and the day of a number of days since 1970.
fn civil(count: i64) -> (i64, usize, i64) {
    let mut year = 1970 + count.div_euclid(366).min(count.div_euclid(365));
    while days(year + 1, 0, 1) <= count {
        year += 1;
    }
    let month = (0..12).rev().find(|&m| days(year, m, 1) <= count).unwrap_or(0);
    (year, month, count - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        let rows = [(0, "Thu, 01 Jan 1970 00:00:00 GMT"), (1_445_412_480, "Wed, 21 Oct 2015 07:28:00 GMT")];
        for (seconds, text) in rows {
            assert_eq!(write_http(seconds), text);
        }
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        let table = [
            (0, 0, " 1-Jan-1970 00:00:00 +0000"),
            (951_782_399, 0, "28-Feb-2000 23:59:59 +0000"),
            (951_782_400, 60, "29-Feb-2000 01:00:00 +0100"),
            (1_709_164_800, -330, "28-Feb-2024 18:30:00 -0530"),
            (-2_209_161_600, 0, "30-Dec-1899 00:00:00 +0000"),
            (-1, 0, "31-Dec-1969 23:59:59 +0000"),
            (4_102_444_800, 0, " 1-Jan-2100 00:00:00 +0000"),
        ];
        for (seconds, zone, text) in table {
            assert_eq!(write(seconds, zone), text);
            assert_eq!(read(text), Some(seconds), "{text}");
        }
        for text in ["1-Jan-1970 00:00:00 +0000", "31-Feb-2024 00:00:00 +0000", "01-Jan-1970 24:00:00 +0000", ""] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("01-jan-1970 00:00:00 +0000"), Some(0));
        (0..200_000).step_by(13).for_each(|d| assert_eq!(read(&write(d * 86_400, 0)), Some(d * 86_400)));
    }
}
