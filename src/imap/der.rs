//! Finds in a certificate what is needed of X.509: the public key, for pins, and until when it is valid.

use jiff::tz::TimeZone;

/// Returns the SubjectPublicKeyInfo of a DER certificate (RFC 5280 §4.1), header included.
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    // Serial number, signature algorithm, issuer, validity, subject.
    let rest = after(certificate, 5)?;
    element(rest).filter(|e| e.tag == SEQUENCE).map(|key| &rest[..rest.len() - key.rest.len()])
}

/// Returns until when a DER certificate is valid (RFC 5280 §4.1.2.5), in seconds since 1970.
pub(super) fn valid_until(certificate: &[u8]) -> Option<i64> {
    // Serial number, signature algorithm, issuer.
    let validity = element(after(certificate, 3)?).filter(|e| e.tag == SEQUENCE)?;
    let until = element(element(validity.content)?.rest)?;
    moment(until.tag, std::str::from_utf8(until.content).ok()?)
}

/// Returns a time as a certificate writes it: without fractions, and in UTC.
fn moment(tag: u8, text: &str) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let (year_digits, century) = match tag {
        UTC_TIME => (2, 1900),
        GENERALIZED_TIME => (4, 0),
        _ => return None,
    };
    let digits = text.strip_suffix('Z').filter(|d| d.len() == year_digits + 10)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = digits.split_at(year_digits);
    let year = century + year.parse::<i16>().ok()?;
    // Two digits stand for the years from 1950 to 2049.
    let year = if tag == UTC_TIME && year < 1950 { year + 100 } else { year };
    let two = |n: usize| rest[2 * n..2 * n + 2].parse::<i8>().ok();
    let (month, day, hour, minute, second) = (two(0)?, two(1)?, two(2)?, two(3)?, two(4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let day = jiff::civil::Date::new(year, month, day).ok()?;
    Some(day.at(hour, minute, second, 0).to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

const SEQUENCE: u8 = 0x30;

/// Returns what is behind the version and so many more elements of what is signed.
fn after(certificate: &[u8], elements: usize) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let outer = element(certificate).filter(|e| e.tag == SEQUENCE)?;
    let signed = element(outer.content).filter(|e| e.tag == SEQUENCE)?;
    let mut rest = signed.content;
    let first = element(rest)?;
    if first.tag == VERSION {
        rest = first.rest;
    }
    for _ in 0..elements {
        rest = element(rest)?.rest;
    }
    Some(rest)
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

/// Splits off the first element (X.690 §8.1): tag, definite length, content.
fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&[tag, short], mut rest) = der.split_first_chunk::<2>()?;
    let mut length = usize::from(short);
    if short & 0x80 != 0 {
        let (digits, after) =
            rest.split_at_checked(usize::from(short & 0x7f)).filter(|(d, _)| (1..=4).contains(&d.len()))?;
        length = digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {args:?}");
        output.stdout
    }

    #[test]
    fn the_key_is_the_one_that_openssl_finds() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key").display().to_string();
        for algorithm in [&["-newkey", "rsa:2048"][..], &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]] {
            let mut args = vec!["req", "-x509", "-nodes", "-keyout", &key, "-subj", "/CN=localhost", "-days", "1"];
            args.extend(algorithm);
            let pem = openssl(&args, b"");
            let der = openssl(&["x509", "-outform", "der"], &pem);
            let public = openssl(&["x509", "-pubkey", "-noout"], &pem);
            assert_eq!(public_key(&der).unwrap(), openssl(&["pkey", "-pubin", "-outform", "der"], &public));
            let until =
                String::from_utf8(openssl(&["x509", "-enddate", "-dateopt", "iso_8601", "-noout"], &pem)).unwrap();
            let until = until.trim().strip_prefix("notAfter=").unwrap().replace(' ', "T");
            assert_eq!(valid_until(&der), Some(until.parse::<jiff::Timestamp>().unwrap().as_second()));
            // Cut anywhere, or with any byte changed, it is refused or some part of the input, never a panic.
            for at in 0..der.len() {
                assert_eq!((public_key(&der[..at]), valid_until(&der[..at])), (None, None));
                let mut bent = der.clone();
                bent[at] ^= 0xff;
                let _ = (public_key(&bent), valid_until(&bent));
            }
        }
    }

    #[test]
    fn times_are_those_of_the_certificate() {
        let rows = [
            (0x17, "700101000001Z", Some(1)),
            (0x17, "491231235959Z", Some(2_524_607_999)),
            (0x17, "500101000000Z", Some(-631_152_000)),
            (0x18, "20500101000000Z", Some(2_524_608_000)),
            (0x18, "99991231235959Z", Some(253_402_300_799)),
            (0x17, "20500101000000Z", None),
            (0x17, "700101000001+0000", None),
            (0x17, "701301000001Z", None),
            (0x17, "700230000001Z", None),
            (0x17, "+00101000001Z", None),
            (0x04, "700101000001Z", None),
        ];
        for (tag, text, seconds) in rows {
            assert_eq!(moment(tag, text), seconds.filter(|s| *s < 253_402_207_200), "{text}");
        }
    }
}
