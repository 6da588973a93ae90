//! Text for people and programs: standard output, colours, numbers, tables.

use std::io::{self, IsTerminal, Write};

use super::ColorWhen;
use crate::model::misleads;

/// Writes to standard output. A reader that has gone away (`postkeep log | head`) is no failure.
///
/// # Errors
/// Anything else that keeps the text from being written.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line to standard error, if anyone listens there.
pub fn complain(text: &str) {
    // Where else should one say that standard error is closed?
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Tells whether colours are wanted on a stream.
pub fn wants_color(when: ColorWhen, stream: &impl IsTerminal) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        // https://no-color.org
        ColorWhen::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Returns `1 message`, `2 messages`; the plural is made with an s.
pub(super) fn many(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Returns the number with its digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && n % 3 == first {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns the size in the largest unit that leaves a whole number before the point.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "KB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        // A tenth of the unit, cut off: no size looks larger than it is.
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit / (unit / 10)),
        None => format!("{bytes} B"),
    }
}

/// Returns the text in at most `width` characters, its middle left out if it is longer.
pub(super) fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

/// Returns the text without characters that could command a terminal, or mislead its reader: it may come from a server.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if misleads(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let rows = [(0, "0"), (7, "7"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (12_345, "12,345")];
        for (number, text) in rows {
            assert_eq!(grouped(number), text);
        }
        let rows = [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (1_999_999, "1.9 MB"), (25_000_000_000, "25.0 GB")];
        for (bytes, text) in rows {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((many(1, "message"), many(2000, "message")), ("1 message".into(), "2,000 messages".into()));
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(shortened("Entwürfe", 8), "Entwürfe");
        assert_eq!(shortened("Lists/a/very/long/name", 9), "List…name");
    }

    #[test]
    fn no_colours_where_none_are_wanted() {
        assert_eq!(Paint(false).bad("x"), "x");
        assert_eq!(Paint(true).bad("x"), "\u{1b}[1;31mx\u{1b}[0m");
        assert!(wants_color(ColorWhen::Always, &std::fs::File::open("/dev/null").unwrap()));
        assert!(!wants_color(ColorWhen::Auto, &std::fs::File::open("/dev/null").unwrap()));
        assert_eq!(harmless("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
