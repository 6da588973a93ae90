//! The two kinds of names: of a mailbox and of a message file.

use std::fmt;

/// The name of a mailbox as users see it: without the server's personal prefix, `/` between its components.
///
/// Where the server's separator is another character, a `/` inside a component is written `%2F` here, and a `%` that
/// would read as the beginning of such an escape is written `%25`; so two mailboxes never share a name.
/// `INBOX` is always upper case, also as a first component (RFC 3501 §5.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MailboxName(String);

impl MailboxName {
    /// Returns the name made of components as the server (after decoding) or the disk has them.
    #[must_use]
    pub fn from_components<'a>(components: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parts: Vec<String> = components.into_iter().map(escape).collect();
        if let Some(first) = parts.first_mut()
            && first.eq_ignore_ascii_case("INBOX")
        {
            *first = "INBOX".to_owned();
        }
        Self(parts.join("/"))
    }

    /// Returns the components, unescaped: each may hold any character.
    pub fn components(&self) -> impl Iterator<Item = String> + '_ {
        self.0.split('/').map(unescape)
    }

    /// Returns the name as configuration, disk and texts have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether this is `INBOX`.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }
}

/// Reads a name in the form that [`MailboxName::as_str`] gives.
impl From<&str> for MailboxName {
    fn from(text: &str) -> Self {
        let parts: Vec<String> = text.split('/').map(unescape).collect();
        Self::from_components(parts.iter().map(String::as_str))
    }
}

/// Tells whether a character could command a terminal, or show a text in another order than it is in.
#[must_use]
pub fn misleads(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders
}

/// Characters that mislead are escaped: a name may come from a hostile server, and is printed on terminals.
impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if misleads(c) { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

impl fmt::Debug for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn escape(component: &str) -> String {
    component.replace("%25", "%2525").replace("%2F", "%252F").replace('/', "%2F")
}

fn unescape(component: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(component.len()), component);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (text, length) = match &rest.as_bytes()[at..] {
            [b'%', b'2', b'5', b'2', b'5', ..] => ("%25", 5),
            [b'%', b'2', b'5', b'2', b'F', ..] => ("%2F", 5),
            [b'%', b'2', b'F', ..] => ("/", 3),
            _ => ("%", 1),
        };
        out.push_str(text);
        rest = &rest[at + length..];
    }
    out + rest
}

/// The part of a message's file name before the `:`; the same for as long as the file is the same message.
///
/// Bytes, not text: programs may put anything there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueName(Box<[u8]>);

impl UniqueName {
    /// Returns the name.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Returns its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for UniqueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for UniqueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn components_survive(parts in prop::collection::vec("[a%/25F.\u{e9}]{1,9}", 1..4)) {
            let name = MailboxName::from_components(parts.iter().map(String::as_str));
            prop_assert_eq!(name.components().collect::<Vec<_>>(), parts);
            prop_assert_eq!(MailboxName::from(name.as_str()), name);
        }
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["Lists/rust", "100%", "50%25", "a.b", "Entwürfe"] {
            let components: Vec<&str> = name.split('/').collect();
            let made = MailboxName::from_components(components.iter().copied());
            if name != "50%25" {
                assert_eq!(made.as_str(), name);
            }
        }
        assert_eq!(MailboxName::from("inbox/Sub").as_str(), "INBOX/Sub");
        assert_eq!(MailboxName::from_components(["a\u{1b}[31m"]).to_string(), "a\\u{1b}[31m");
        assert_eq!(MailboxName::from_components(["\u{202e}txt.exe"]).to_string(), "\\u{202e}txt.exe");
    }
}
