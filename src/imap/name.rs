//! Mailbox names: as the server has them, and as users see them.

use std::fmt;

use base64::Engine;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Error;
use super::error::words;
use crate::model::MailboxName;

/// Longer names are not used, here or on the server; no file system would take their components either.
const MAX_NAME: usize = 1000;

/// A mailbox name exactly as the server has it, byte for byte.
///
/// Its text form, for the database and for people, is ASCII with everything else escaped as in Rust's byte strings;
/// [`RawName::from_text`] reads it back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawName(Box<[u8]>);

impl RawName {
    /// Returns the name of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Returns its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the text form; nothing for what is none.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (mut out, mut bytes) = (Vec::with_capacity(text.len()), text.bytes());
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'\\' => match bytes.next()? {
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b'x' => {
                        let digits = [bytes.next()?, bytes.next()?];
                        u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                    }
                    quoted => quoted,
                },
                plain => plain,
            });
        }
        let name = Self(out.into());
        (name.to_string() == text).then_some(name)
    }

    /// Tells whether this is the INBOX, which every server has and writes as it likes (RFC 3501 §5.1).
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0.eq_ignore_ascii_case(b"INBOX")
    }

    /// Tells whether both are the same mailbox.
    pub(super) fn is(&self, other: &[u8]) -> bool {
        *self.0 == *other || self.is_inbox() && other.eq_ignore_ascii_case(b"INBOX")
    }
}

impl fmt::Display for RawName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for RawName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the user's own mailboxes are, and where those of others (RFC 2342).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Namespace {
    /// What the names of the user's mailboxes begin with, separator included.
    pub(super) prefix: Vec<u8>,
    /// What separates their components, if it is known and there is one.
    pub(super) separator: Option<u8>,
    /// What the names of others' mailboxes begin with.
    pub(super) foreign: Vec<Vec<u8>>,
}

impl Namespace {
    /// Returns the namespace of a NAMESPACE answer.
    pub(super) fn new([personal, others, shared]: [Vec<(Vec<u8>, Option<u8>)>; 3]) -> Self {
        let (prefix, separator) = personal.into_iter().next().unwrap_or_default();
        let foreign = others.into_iter().chain(shared).map(|(p, _)| p);
        // A namespace without prefix, or above the user's own, cannot be told apart from it.
        let foreign = foreign.filter(|p| !p.is_empty() && !prefix.starts_with(p)).collect();
        Self { prefix, separator, foreign }
    }

    /// Tells whether a mailbox is somebody else's.
    pub(super) fn is_foreign(&self, raw: &RawName) -> bool {
        // The root of the namespace is listed without its separator.
        self.foreign.iter().any(|p| raw.0.starts_with(p) || p.strip_suffix(&[p[p.len() - 1]]) == Some(&raw.0))
    }

    /// Returns the user's name of a mailbox that the server lists with this separator.
    ///
    /// # Errors
    /// Why it has none, as the end of a sentence.
    pub(super) fn name(&self, raw: &RawName, separator: Option<u8>) -> Result<MailboxName, String> {
        if raw.is_inbox() {
            return Ok(MailboxName::from_components(["INBOX"]));
        }
        if raw.0.len() > MAX_NAME {
            return Err(format!("longer than {MAX_NAME} bytes"));
        }
        let own = raw.0.strip_prefix(self.prefix.as_slice()).filter(|rest| !rest.is_empty());
        let components = own.unwrap_or(&raw.0).split(|b| Some(*b) == separator).map(|component| {
            if component.is_empty() {
                return Err("with an empty component".to_owned());
            }
            match decode(component) {
                // No file has such a name, and no program shows it whole.
                Some(text) if text.contains('\0') => Err("with a NUL in it".to_owned()),
                Some(text) => Ok(text),
                None => Err("not valid modified UTF-7 (RFC 3501 section 5.1.3)".to_owned()),
            }
        });
        let components = components.collect::<Result<Vec<_>, _>>()?;
        if !self.prefix.is_empty() && own.is_some() && components[0].eq_ignore_ascii_case("INBOX") {
            return Err("named INBOX below the prefix of all mailboxes, so it cannot be told from INBOX".to_owned());
        }
        Ok(MailboxName::from_components(components.iter().map(String::as_str)))
    }

    /// Returns the server's name for a mailbox of this name.
    ///
    /// # Errors
    /// [`Error::Name`] if a component holds the separator, is empty, or the whole is too long.
    pub(super) fn raw_name(&self, name: &MailboxName) -> Result<RawName, Error> {
        if name.is_inbox() {
            return Ok(RawName::new(b"INBOX"));
        }
        let refuse = |reason: &str| Error::Name { name: name.to_string(), reason: reason.to_owned() };
        let components: Vec<String> = name.components().collect();
        let mut raw = self.prefix.clone();
        for (i, component) in components.iter().enumerate() {
            let encoded = encode(component);
            if i > 0 {
                raw.push(self.separator.ok_or_else(|| refuse("the server's mailboxes have no levels"))?);
            }
            if encoded.is_empty() {
                return Err(refuse("it has an empty component"));
            }
            if let Some(separator) = self.separator.filter(|s| encoded.contains(s)) {
                let separator = words(&[separator]);
                return Err(refuse(&format!("a component holds {separator}, the separator of the server")));
            }
            raw.extend_from_slice(&encoded);
        }
        let raw = RawName(raw.into());
        match self.name(&raw, self.separator) {
            Ok(same) if same == *name => Ok(raw),
            Ok(_) => Err(refuse("the server's name for it would be that of another mailbox")),
            Err(reason) => Err(refuse(&format!("the server's name for it would be {reason}"))),
        }
    }
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes modified UTF-7 (RFC 3501 §5.1.3); characters beyond ASCII stand for themselves, as in UTF8=ACCEPT.
fn decode(bytes: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(bytes).ok()?;
    let mut out = String::with_capacity(rest.len());
    while let Some((plain, shifted)) = rest.split_once('&') {
        out.push_str(plain);
        let (encoded, after) = shifted.split_once('-')?;
        if encoded.is_empty() {
            out.push('&');
        } else {
            let bytes = BASE64.decode(encoded).ok()?;
            if bytes.len() % 2 != 0 {
                return None;
            }
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            out.extend(char::decode_utf16(units).collect::<Result<Vec<_>, _>>().ok()?);
        }
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// Encodes modified UTF-7 (RFC 3501 §5.1.3).
pub(crate) fn encode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut shifted: Vec<u8> = Vec::new();
    let unshift = |out: &mut Vec<u8>, shifted: &mut Vec<u8>| {
        if !shifted.is_empty() {
            out.push(b'&');
            out.extend_from_slice(BASE64.encode(&*shifted).as_bytes());
            out.push(b'-');
            shifted.clear();
        }
    };
    for c in text.chars() {
        if matches!(c, ' '..='~') {
            unshift(&mut out, &mut shifted);
            out.push(c as u8);
            if c == '&' {
                out.push(b'-');
            }
        } else {
            let mut units = [0; 2];
            shifted.extend(c.encode_utf16(&mut units).iter().flat_map(|u| u.to_be_bytes()));
        }
    }
    unshift(&mut out, &mut shifted);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn namespace(prefix: &str, separator: u8) -> Namespace {
        Namespace { prefix: prefix.into(), separator: Some(separator), foreign: vec![b"Shared/".to_vec()] }
    }

    #[test]
    fn modified_utf7_is_that_of_the_rfc() {
        let table: [(&str, &str); 6] = [
            ("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/\u{53f0}\u{5317}/\u{65e5}\u{672c}\u{8a9e}"),
            ("Entw&APw-rfe", "Entw\u{fc}rfe"),
            ("A&-B", "A&B"),
            ("&2D3eAA-", "\u{1f600}"),
            ("&AAo-", "\n"),
            ("", ""),
        ];
        for (raw, text) in table {
            assert_eq!(decode(raw.as_bytes()).as_deref(), Some(text));
            assert_eq!(String::from_utf8(encode(text)).unwrap(), raw);
        }
        for bad in ["&", "a&b", "&AP-", "&2D0-", "&!!!!-", "&A-"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(decode(b"\xff"), None);
    }

    #[test]
    fn names_lose_the_prefix_and_the_separator() {
        let name = |n: &Namespace, raw: &[u8]| n.name(&RawName::new(raw), n.separator).map(|n| n.as_str().to_owned());
        let (dotted, plain) = (namespace("INBOX.", b'.'), namespace("", b'/'));
        assert_eq!(name(&dotted, b"INBOX.Lists.rust").unwrap(), "Lists/rust");
        assert_eq!(name(&dotted, b"INBOX.a/b").unwrap(), "a%2Fb");
        assert_eq!(name(&dotted, b"inbox").unwrap(), "INBOX");
        assert_eq!(name(&plain, b"Inbox/Sub").unwrap(), "INBOX/Sub");
        assert_eq!(name(&plain, b"a.b").unwrap(), "a.b");
        for bad in [&b"INBOX.INBOX"[..], b"INBOX.", b"INBOX.a..b", b"INBOX.&x", b"INBOX.a&AAA-b", &[b'a'; 1001]] {
            assert!(name(&dotted, bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(plain.is_foreign(&RawName::new(b"Shared/x")) && plain.is_foreign(&RawName::new(b"Shared")));
        assert!(!plain.is_foreign(&RawName::new(b"Sharedx")));
    }

    #[test]
    fn names_that_the_server_cannot_have_are_refused() {
        let raw = |n: &Namespace, name: &str| n.raw_name(&MailboxName::from(name)).map(|r| r.to_string());
        let dotted = namespace("INBOX.", b'.');
        assert_eq!(raw(&dotted, "Lists/rust").unwrap(), "INBOX.Lists.rust");
        assert_eq!(raw(&dotted, "a%2Fb").unwrap(), "INBOX.a/b");
        assert_eq!(raw(&dotted, "inbox").unwrap(), "INBOX");
        for bad in ["a.b", "a//b", "INBOX/x", &"x".repeat(1001)] {
            let error = raw(&dotted, bad).unwrap_err();
            assert!(matches!(error, Error::Name { .. }), "{error}");
        }
        assert!(raw(&Namespace::default(), "a/b").is_err());
    }

    proptest! {
        #[test]
        fn names_survive_both_ways(parts in prop::collection::vec("[ -~\u{e9}\u{1f600}\u{1}]{1,6}", 1..4), dot: bool) {
            let n = if dot { namespace("INBOX.", b'.') } else { namespace("", b'/') };
            let name = MailboxName::from_components(parts.iter().map(String::as_str));
            if let Ok(raw) = n.raw_name(&name) {
                prop_assert_eq!(n.name(&raw, n.separator).unwrap(), name);
            } else {
                prop_assert!(parts.iter().any(|p| p.contains(['.', '/']) || p.eq_ignore_ascii_case("INBOX")));
            }
        }

        #[test]
        fn the_text_of_any_bytes_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let raw = RawName::new(&bytes);
            prop_assert!(raw.to_string().bytes().all(|b| (0x20..0x7f).contains(&b)));
            prop_assert_eq!(RawName::from_text(&raw.to_string()), Some(raw));
        }
    }
}
