//! The words that commands are made of (RFC 3501 §9), read strictly.

use base64::Engine as _;

use crate::Profile;

/// The reason why a command is not one.
pub(crate) type Parsed<T> = Result<T, String>;

/// A set of UIDs (RFC 3501 §9 `sequence-set`); `None` stands for `*`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct UidSet(Vec<(Option<u32>, Option<u32>)>);

impl UidSet {
    /// Returns the set of these ranges.
    #[cfg(feature = "second-opinion")]
    pub(crate) fn of(ranges: impl IntoIterator<Item = (Option<u32>, Option<u32>)>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// Tells whether `*` is in it.
    pub(crate) fn has_star(&self) -> bool {
        self.0.iter().any(|r| r.0.is_none() || r.1.is_none())
    }

    /// Returns the ranges of the set in order, none touching another; `max` is the largest UID in use.
    pub(crate) fn merged(&self, max: u32) -> Vec<(u32, u32)> {
        let ends = self.0.iter().map(|&(a, b)| (a.unwrap_or(max), b.unwrap_or(max)));
        let mut ranges: Vec<(u32, u32)> = ends.map(|(a, b)| (a.min(b), a.max(b))).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (a, b) in ranges {
            match merged.last_mut() {
                Some((_, end)) if a <= end.saturating_add(1) => *end = b.max(*end),
                _ => merged.push((a, b)),
            }
        }
        merged
    }

    /// Tells whether `uid` is in the set, where `max` is the largest UID in use.
    pub(crate) fn contains(&self, uid: u32, max: u32) -> bool {
        self.0.iter().any(|&(a, b)| {
            let (a, b) = (a.unwrap_or(max), b.unwrap_or(max));
            (a.min(b)..=a.max(b)).contains(&uid)
        })
    }
}

/// Reads words from the beginning of a command to its end.
pub(crate) struct Parser<'a> {
    input: &'a [u8],
    at: usize,
    profile: Profile,
    /// A backslash in a string in quotes is refused.
    refuses_pairs: bool,
}

/// Tells whether a byte may stand in an atom.
pub(crate) fn is_atom(b: u8) -> bool {
    b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b)
}

impl<'a> Parser<'a> {
    pub(crate) fn new(input: &'a [u8], profile: Profile, refuses_pairs: bool) -> Self {
        Self { input, at: 0, profile, refuses_pairs }
    }

    pub(crate) fn is_exchange(&self) -> bool {
        self.profile.is_exchange()
    }

    /// Tells whether everything has been read.
    pub(crate) fn ended(&self) -> bool {
        self.at == self.input.len()
    }

    pub(crate) fn set(&mut self) -> Parsed<UidSet> {
        let mut set = UidSet::default();
        loop {
            let first = self.uid_or_star()?;
            let last = if self.eat(b':') { self.uid_or_star()? } else { first };
            set.0.push((first, last));
            if !self.eat(b',') {
                return Ok(set);
            }
        }
    }

    pub(crate) fn uid_or_star(&mut self) -> Parsed<Option<u32>> {
        if self.eat(b'*') { Ok(None) } else { self.nz_number().map(Some) }
    }

    pub(crate) fn sp_mailbox(&mut self) -> Parsed<String> {
        self.sp()?;
        self.mailbox()
    }

    /// Reads a mailbox name, which must be modified UTF-7 (RFC 3501 §5.1.3).
    pub(crate) fn mailbox(&mut self) -> Parsed<String> {
        let name = self.astring()?;
        let shifted = |part: &str| {
            part.split_once('-')
                .is_some_and(|(code, _)| code.bytes().all(|b| b.is_ascii_alphanumeric() || b"+,".contains(&b)))
        };
        let good = name.is_ascii() && name.split('&').skip(1).all(shifted);
        // INBOX has no case (RFC 3501 §5.1).
        let name = if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name };
        if good { Ok(name) } else { Err(format!("{name:?} is not modified UTF-7")) }
    }

    pub(crate) fn sp_astring(&mut self) -> Parsed<String> {
        self.sp()?;
        self.astring()
    }

    pub(crate) fn astring(&mut self) -> Parsed<String> {
        if matches!(self.peek(), Some(b'"' | b'{')) {
            return text(self.string()?);
        }
        let word = self.take(|b| is_atom(b) || b == b']').to_vec();
        if word.is_empty() { self.fail("a string") } else { text(word) }
    }

    pub(crate) fn string(&mut self) -> Parsed<Vec<u8>> {
        if self.peek() == Some(b'{') {
            return self.literal();
        }
        self.byte(b'"')?;
        let mut out = Vec::new();
        loop {
            let byte = self.peek();
            self.at += 1;
            match byte {
                Some(b'"') => return Ok(out),
                Some(b'\\') if self.refuses_pairs => return Err("an escape in a quoted string".to_owned()),
                Some(b'\\') if matches!(self.peek(), Some(b'"' | b'\\')) => {
                    out.extend(self.peek());
                    self.at += 1;
                }
                Some(b) if b.is_ascii() && !b"\\\r\n\0".contains(&b) => out.push(b),
                _ => return Err("a quoted string that is none".to_owned()),
            }
        }
    }

    pub(crate) fn literal(&mut self) -> Parsed<Vec<u8>> {
        self.byte(b'{')?;
        let size = self.number()? as usize;
        if self.eat(b'+') {
            self.needs("LITERAL+")?;
        }
        for b in *b"}\r\n" {
            self.byte(b)?;
        }
        let bytes = self.input.get(self.at..self.at + size).ok_or("a literal that is too short")?;
        self.at += size;
        if bytes.contains(&0) { Err("NUL in a literal".to_owned()) } else { Ok(bytes.to_vec()) }
    }

    pub(crate) fn mod_seq(&mut self, min: u64) -> Parsed<u64> {
        let digits = self.take(|b| b.is_ascii_digit());
        let value = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
        value.filter(|&n| n >= min && i64::try_from(n).is_ok()).ok_or_else(|| "a mod-sequence out of range".to_owned())
    }

    pub(crate) fn nz_number(&mut self) -> Parsed<u32> {
        if self.peek() == Some(b'0') { self.fail("a number other than 0") } else { self.number() }
    }

    pub(crate) fn number(&mut self) -> Parsed<u32> {
        let digits = self.take(|b| b.is_ascii_digit());
        let value = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
        value.map_or_else(|| self.fail("a 32-bit number"), Ok)
    }

    pub(crate) fn atom(&mut self) -> Parsed<String> {
        let atom = self.take(is_atom).to_vec();
        if atom.is_empty() { self.fail("an atom") } else { text(atom) }
    }

    pub(crate) fn word(&mut self) -> Parsed<String> {
        self.atom().map(|w| w.to_ascii_uppercase())
    }

    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        let before = self.at;
        let found = self.word().is_ok_and(|w| w == word);
        if !found {
            self.at = before;
        }
        found
    }

    pub(crate) fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.eat_word(word) { Ok(()) } else { self.fail(word) }
    }

    pub(crate) fn list_of<T>(&mut self, mut element: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.byte(b'(')?;
        let mut out = Vec::new();
        while !self.eat(b')') {
            if !out.is_empty() {
                self.sp()?;
            }
            out.push(element(self)?);
        }
        Ok(out)
    }

    pub(crate) fn take(&mut self, accept: impl Fn(u8) -> bool) -> &[u8] {
        let start = self.at;
        while self.peek().is_some_and(&accept) {
            self.at += 1;
        }
        &self.input[start..self.at]
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    /// Tells whether the rest begins so.
    pub(crate) fn follows(&self, bytes: &[u8]) -> bool {
        self.input[self.at..].starts_with(bytes)
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn byte(&mut self, byte: u8) -> Parsed<()> {
        if self.eat(byte) { Ok(()) } else { self.fail(&char::from(byte).escape_default().to_string()) }
    }

    pub(crate) fn sp(&mut self) -> Parsed<()> {
        self.byte(b' ')
    }

    pub(crate) fn needs(&self, capability: &str) -> Parsed<()> {
        if self.profile.has(capability) { Ok(()) } else { Err(format!("{capability} is not announced")) }
    }

    pub(crate) fn fail<T>(&self, expected: &str) -> Parsed<T> {
        Err(format!("expected {expected} at byte {}", self.at))
    }
}

pub(crate) fn text(bytes: Vec<u8>) -> Parsed<String> {
    String::from_utf8(bytes).map_err(|_| "text that is not UTF-8".to_owned())
}

/// Decodes base64 as SASL has it.
pub(crate) fn base64(text: &[u8]) -> Parsed<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| "base64 that is none".to_owned())
}
