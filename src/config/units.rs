//! Durations, sizes and digests as people write them.

use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::model::Digest;

/// A duration: a whole number and one of `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

/// A size in bytes: a number and one of `B`, `KB`, `MB`, `GB`, `TB` (powers of 1000), `KiB` … `TiB` (powers of 1024).
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);

/// A pin: `sha256:` and 64 hexadecimal digits or 44 characters of base64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin(pub(super) Digest);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        duration(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("expected a duration such as \"30s\", \"5m\", \"2h\" or \"30d\""))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        size(&text).map(Self).ok_or_else(|| D::Error::custom("expected a size such as \"25MB\", \"1GB\" or \"512KiB\""))
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        pin(&text).map(Self).ok_or_else(|| {
            D::Error::custom("expected \"sha256:\" and the digest of the server's public key, in hexadecimal or base64")
        })
    }
}

/// Returns the duration that the text names, up to a hundred years.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let total = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (total <= 100 * 366 * 86_400).then(|| Duration::from_secs(total))
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn pin(text: &str) -> Option<Digest> {
    let digest = text.strip_prefix("sha256:")?;
    let bytes = if digest.len() == 64 {
        let pair = |at: usize| digest.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        (0..32).map(|n| pair(2 * n)).collect::<Option<Vec<u8>>>()?
    } else {
        base64::engine::general_purpose::STANDARD.decode(digest).ok()?
    };
    bytes.try_into().ok().map(Digest)
}

fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    (end > 0).then(|| (&text[..end], text[end..].trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let rows =
            [("30s", Some(30)), ("5m", Some(300)), ("2h", Some(7200)), ("30d", Some(2_592_000)), ("0s", Some(0))];
        for (text, seconds) in rows {
            assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text}");
        }
        for text in ["", "5", "m", "-5m", "5 minutes", "1h30m", "99999999999999999999s", "99999999999d", "5M"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let rows = [("25MB", 25_000_000), ("1GB", 1_000_000_000), ("512KiB", 524_288), ("3 MiB", 3_145_728), ("7B", 7)];
        for (text, bytes) in rows {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "25", "MB", "-1MB", "25mb", "1.5GB", "99999999TB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn pins() {
        let hex = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(pin(&hex), Some(Digest([10; 32])));
        let base64 = base64::engine::general_purpose::STANDARD.encode([10; 32]);
        assert_eq!(pin(&format!("sha256:{base64}")), Some(Digest([10; 32])));
        for text in ["", "sha256:", "sha1:aa", &hex[..70], &hex.replace('a', "g"), &hex.replace("0a0a", "é\u{e9}")] {
            assert_eq!(pin(text), None, "{text}");
        }
    }
}
