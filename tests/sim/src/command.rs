//! The log of commands, and the rules that any log must obey.

use std::fmt;

/// A command as it was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The number of the connection it came in by, from 1.
    pub connection: u32,
    /// Its name in upper case: `SELECT`, `UID FETCH`.
    pub name: String,
    /// Its arguments as sent, each literal as `{size}` only; empty for commands that carry a secret.
    pub args: String,
}

impl Command {
    /// Reads a command that is complete with its literals, without its tag and its last CRLF.
    #[must_use]
    pub fn read(connection: u32, input: &[u8]) -> Self {
        let mut words = input.splitn(3, |&b| b == b' ').map(|w| String::from_utf8_lossy(w).to_ascii_uppercase());
        let first = words.next().unwrap_or_default();
        let name = match words.next() {
            Some(second) if first == "UID" => format!("{first} {second}"),
            _ => first,
        };
        let secret = ["LOGIN", "AUTHENTICATE"].contains(&name.as_str());
        let rest = if secret { &[] } else { input.get(name.len() + 1..).unwrap_or_default() };
        Self { connection, name, args: without_literals(rest) }
    }

    /// Tells whether the command is the one that a fault waits for: `pattern` is its name in upper case, and after a
    /// space a part of its arguments, as in `UID FETCH` or `UID FETCH BODY.PEEK[]`.
    #[must_use]
    pub fn fits(&self, pattern: &str) -> bool {
        let pattern = Self::read(0, pattern.as_bytes());
        self.name == pattern.name && self.args.contains(&pattern.args)
    }

    /// Tells whether the command is of a kind that can change what the server keeps.
    #[must_use]
    pub fn changes(&self) -> bool {
        const CHANGING: [&str; 13] = [
            "APPEND",
            "UID STORE",
            "UID COPY",
            "UID MOVE",
            "UID EXPUNGE",
            "STORE",
            "COPY",
            "MOVE",
            "EXPUNGE",
            "CLOSE",
            "CREATE",
            "DELETE",
            "RENAME",
        ];
        CHANGING.contains(&self.name.as_str()) || self.sets_seen()
    }

    /// Returns what is dangerous about the command whatever the server thinks of it, or `None`.
    #[must_use]
    pub fn danger(&self) -> Option<&'static str> {
        let args = self.args.to_ascii_uppercase();
        let replaces = |word: &str| word == "FLAGS" || word == "FLAGS.SILENT";
        match self.name.as_str() {
            "EXPUNGE" | "CLOSE" => Some("removes messages that it does not name"),
            "FETCH" | "STORE" | "COPY" | "MOVE" | "SEARCH" => Some("uses sequence numbers"),
            "UID STORE" if args.split(' ').any(replaces) => Some("replaces flags"),
            _ if self.sets_seen() => Some("sets \\Seen by reading"),
            _ => None,
        }
    }

    fn sets_seen(&self) -> bool {
        let words = self.args.to_ascii_uppercase();
        let reads = |w: &str| w.starts_with("BODY[") || w == "RFC822" || w == "RFC822.TEXT";
        self.name.ends_with("FETCH") && words.split([' ', '(', ')']).any(reads)
    }
}

/// Prints as it was sent.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.args)
    }
}

/// Returns the size of the literal that a line ends with, and whether the sender waits for a continuation
/// (RFC 3501 §4.3, RFC 7888 §4). The line has no CRLF.
#[must_use]
pub fn literal(line: &[u8]) -> Option<(usize, bool)> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|&b| b == b'{')?;
    let (digits, waits) = match inner[open + 1..].strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (&inner[open + 1..], true),
    };
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    Some((digits.parse().ok()?, waits))
}

fn without_literals(mut input: &[u8]) -> String {
    let mut out = String::new();
    while let Some(end) = input.windows(2).position(|w| w == b"\r\n") {
        let (size, _) = literal(&input[..end]).unwrap_or_default();
        out.push_str(&String::from_utf8_lossy(&input[..end]));
        input = input.get(end + 2 + size..).unwrap_or_default();
    }
    out + &String::from_utf8_lossy(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_secrets_are_not_logged() {
        let command = Command::read(1, b"append {3}\r\nA\r\n (\\Seen) {2+}\r\nhi");
        assert_eq!(command.to_string(), "APPEND {3} (\\Seen) {2+}");
        assert_eq!(Command::read(1, b"LOGIN a b").args, "");
        assert_eq!(Command::read(1, b"uid fetch 1 FLAGS").to_string(), "UID FETCH 1 FLAGS");
        assert_eq!(Command::read(1, b"NOOP").to_string(), "NOOP ");
    }

    #[test]
    fn patterns_are_names_with_a_part_of_the_arguments() {
        let command = Command::read(1, b"UID FETCH 1 (UID BODY.PEEK[])");
        assert!(["UID FETCH", "uid fetch BODY.PEEK[]", "UID FETCH 1"].iter().all(|p| command.fits(p)));
        assert!(!["FETCH", "UID", "UID FETCH FLAGS"].iter().any(|p| command.fits(p)));
    }

    #[test]
    fn dangers_are_seen() {
        let table: [(&str, bool); 10] = [
            ("EXPUNGE", true),
            ("CLOSE", true),
            ("UID STORE 1 FLAGS (\\Seen)", true),
            ("UID STORE 1 flags.silent (\\Seen)", true),
            ("FETCH 1 FLAGS", true),
            ("UID FETCH 1 BODY[]", true),
            ("UID FETCH 1 (UID RFC822)", true),
            ("UID FETCH 1 (FLAGS RFC822.SIZE BODY.PEEK[])", false),
            ("UID STORE 1 (UNCHANGEDSINCE 3) +FLAGS.SILENT (\\Seen)", false),
            ("UID EXPUNGE 1", false),
        ];
        for (text, danger) in table {
            assert_eq!(Command::read(1, text.as_bytes()).danger().is_some(), danger, "{text}");
        }
    }
}
