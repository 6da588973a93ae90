//! Builds command lines, so that no name, flag or password of anybody can end one early.

use std::fmt::Display;

/// How literals are announced (RFC 7888).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Literals {
    /// The server must ask for each.
    Synchronizing,
    /// LITERAL-: up to 4096 bytes are sent without being asked for.
    Minus,
    /// LITERAL+: all are sent without being asked for.
    Plus,
}

impl Literals {
    /// Tells whether a literal of this size must be asked for, and announces it.
    pub(super) fn announce(self, size: u64) -> (bool, String) {
        let waits = match self {
            Self::Synchronizing => true,
            Self::Minus => size > 4096,
            Self::Plus => false,
        };
        (waits, if waits { format!("{{{size}}}\r\n") } else { format!("{{{size}+}}\r\n") })
    }
}

/// A command without its tag.
#[derive(Debug)]
pub(super) struct Command {
    /// What it is called in logs and errors; never its arguments.
    pub(super) name: &'static str,
    /// What is sent at once; after each part but the last the server is waited for.
    pub(super) parts: Vec<Vec<u8>>,
    /// Its bytes are to be wiped once they are sent.
    pub(super) secret: bool,
    literals: Literals,
}

impl Command {
    /// Begins a command with its name.
    pub(super) fn new(name: &'static str, literals: Literals) -> Self {
        Self { name, parts: vec![name.as_bytes().to_vec()], secret: false, literals }
    }

    /// Adds a space and words that are known to be harmless.
    pub(super) fn words(mut self, words: impl Display) -> Self {
        self.push(format!(" {words}").as_bytes());
        self
    }

    /// Adds a space and a string of any bytes (RFC 3501 §4.3).
    ///
    /// What a quoted string would have to escape goes as a literal: Exchange does not know escapes.
    pub(super) fn string(mut self, text: &[u8]) -> Self {
        let plain = |b: &u8| (0x20..0x7f).contains(b) && !b"\"\\".contains(b);
        if text.iter().all(plain) && text.len() <= 1000 {
            self.push(b" \"");
            self.push(text);
            self.push(b"\"");
        } else {
            let (waits, announcement) = self.literals.announce(text.len() as u64);
            self.push(b" ");
            self.push(announcement.as_bytes());
            if waits {
                self.parts.push(Vec::new());
            }
            self.push(text);
        }
        self
    }

    /// Has its bytes wiped once they are sent.
    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(part) = self.parts.last_mut() {
            part.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_any_bytes_stay_one_argument() {
        let made = |literals, text: &[u8]| {
            let parts = Command::new("SELECT", literals).string(text).words("(X)").parts;
            parts.iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(made(Literals::Plus, b"a b"), [r#"SELECT \"a b\" (X)"#]);
        assert_eq!(made(Literals::Plus, b"a\r\nb"), [r"SELECT {4+}\r\na\r\nb (X)"]);
        assert_eq!(made(Literals::Minus, b"a\"b"), [r#"SELECT {3+}\r\na\"b (X)"#]);
        assert_eq!(made(Literals::Synchronizing, b"\xff"), [r"SELECT {1}\r\n", r"\xff (X)"]);
        assert_eq!(Literals::Minus.announce(4097), (true, "{4097}\r\n".to_owned()));
    }
}
