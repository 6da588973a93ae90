//! Mailbox name ↔ path below the root. Pure.
//!
//! Every name has a path of its own, inside the root, whatever a server calls its mailboxes. A character that cannot
//! stand for itself becomes `%XX` for each byte of its UTF-8; ordinary names stay as they are.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::model::{MailboxName, misleads};

/// How the maildirs of an account are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `root/Lists/rust/{cur,new,tmp}`
    Nested,
    /// Maildir++: `root/.Lists.rust/{cur,new,tmp}`, INBOX is the root itself.
    PlusPlus,
}

impl Layout {
    /// Tells whether there may be mailboxes in the directory at a path below the root.
    pub(super) fn goes_on(self, path: &Path) -> bool {
        match self {
            Self::Nested => path.components().count() < DEEPEST,
            Self::PlusPlus => path.as_os_str().is_empty(),
        }
    }

    /// Tells whether a directory with this name may be a mailbox's, or lead to one.
    pub(super) fn is_way(self, name: &[u8]) -> bool {
        let (own, hidden) = (matches!(name, b"cur" | b"new" | b"tmp"), name.starts_with(b"."));
        !own && hidden == (self == Self::PlusPlus)
    }
}

/// Stands for a component that is empty, and before the hash of a name that was too long. No escape begins with it.
const MARK: &str = "%~";

/// NAME_MAX of about every Linux file system, in bytes.
const LONGEST_NAME: usize = 255;

/// How long a path below the root gets, in bytes: PATH_MAX (4096) with room for the file names.
const LONGEST_PATH: usize = 2048;

/// How deep mailboxes lie below the root.
const DEEPEST: usize = 32;

/// Returns the path of a mailbox, relative to the root; two names never have the same.
pub(super) fn path_of(layout: Layout, name: &MailboxName) -> PathBuf {
    let components: Vec<String> = name.components().collect();
    let text = match layout {
        Layout::Nested => nested(&components, name.as_str()),
        Layout::PlusPlus if name.is_inbox() => String::new(),
        Layout::PlusPlus => plus_plus(&components, name.as_str()),
    };
    text.into()
}

fn nested(components: &[String], name: &str) -> String {
    // Of all names only these are special in a directory: its own three parts, and what begins with a dot.
    let reserved = |text: &str| ["cur", "new", "tmp"].iter().any(|r| text.eq_ignore_ascii_case(r));
    let escaped = components.iter().map(|part| {
        let text = escape(part, |at, c| at == 0 && (c == '.' || reserved(part)));
        if text.len() > LONGEST_NAME { shorten(&text, part) } else { text }
    });
    let path = escaped.collect::<Vec<_>>().join("/");
    if path.len() > LONGEST_PATH || components.len() > DEEPEST {
        return shorten(&escape(name, |at, c| at == 0 && c == '.'), name);
    }
    path
}

fn plus_plus(components: &[String], name: &str) -> String {
    // `.postkeep` is the marker, `.postkeep.tmp` its draft.
    let reserved = |part: usize, text: &str| part == 0 && text.eq_ignore_ascii_case("postkeep");
    let parts = components.iter().enumerate();
    let escaped = parts.map(|(part, text)| escape(text, |at, c| c == '.' || (at == 0 && reserved(part, text))));
    let path: String = escaped.flat_map(|text| [".".to_owned(), text]).collect();
    if path.len() > LONGEST_NAME { shorten(&path, name) } else { path }
}

/// Returns the mailbox whose path this is, or `None` for a path that no mailbox has and for one that was shortened.
pub(super) fn name_of(layout: Layout, path: &Path) -> Option<MailboxName> {
    let text = path.to_str()?;
    let parts: Vec<String> = match layout {
        Layout::Nested => text.split('/').map(unescape).collect::<Option<_>>()?,
        Layout::PlusPlus if text.is_empty() => vec!["INBOX".to_owned()],
        Layout::PlusPlus => text.strip_prefix('.')?.split('.').map(unescape).collect::<Option<_>>()?,
    };
    let name = MailboxName::from_components(parts.iter().map(String::as_str));
    // Two directories could mean one name (`a` and `%61`, `INBOX` and `inbox`): only the one that we would make counts.
    (path_of(layout, &name) == path).then_some(name)
}

/// Escapes what cannot be in a file name, what would be read as an escape, what would mislead a reader on a terminal,
/// and what `special` says of a character and its place.
fn escape(text: &str, special: impl Fn(usize, char) -> bool) -> String {
    if text.is_empty() {
        return MARK.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        let reads_as_escape = c == '%' && (text[end..].starts_with('~') || byte(&text.as_bytes()[end..]).is_some());
        if c == '/' || misleads(c) || reads_as_escape || special(at, c) {
            text[at..end].bytes().for_each(|b| out.push_str(&format!("%{b:02X}")));
        } else {
            out.push(c);
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    if text == MARK {
        return Some(String::new());
    }
    if text.is_empty() || text.contains(MARK) {
        return None;
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        match (first, byte(after)) {
            (b'%', Some(value)) => {
                out.push(value);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// Returns the byte that two upper-case hexadecimal digits spell.
fn byte(digits: &[u8]) -> Option<u8> {
    let value = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'A'..=b'F' => Some(d - b'A' + 10),
        _ => None,
    };
    let [high, low, ..] = digits else { return None };
    Some(value(*high)? << 4 | value(*low)?)
}

/// Returns the beginning of `escaped`, with a hash of `name` that keeps it apart from others with that beginning.
fn shorten(escaped: &str, name: &str) -> String {
    let hash: String = Sha256::digest(name.as_bytes())[..20].iter().map(|b| format!("{b:02x}")).collect();
    let fits = |end: &usize| *end + MARK.len() + hash.len() <= LONGEST_NAME && escaped.is_char_boundary(*end);
    let end = (0..=escaped.len()).rev().find(fits).unwrap_or_default();
    // A half escape must not be left at the end.
    let kept = match escaped[..end].rfind('%') {
        Some(at) if end - at < 3 => &escaped[..at],
        _ => &escaped[..end],
    };
    format!("{kept}{MARK}{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::Component;

    const BOTH: [Layout; 2] = [Layout::Nested, Layout::PlusPlus];

    #[test]
    fn names_have_these_paths() {
        let table = [
            ("INBOX", "INBOX", ""),
            ("Lists/rust", "Lists/rust", ".Lists.rust"),
            ("INBOX/sub", "INBOX/sub", ".INBOX.sub"),
            ("Entwürfe/Öl 1", "Entwürfe/Öl 1", ".Entwürfe.Öl 1"),
            ("100% sure", "100% sure", ".100% sure"),
            ("a.b", "a.b", ".a%2Eb"),
            ("trailing ", "trailing ", ".trailing "),
            ("..", "%2E.", ".%2E%2E"),
            (".", "%2E", ".%2E"),
            ("../../x", "%2E./%2E./x", ".%2E%2E.%2E%2E.x"),
            ("/etc/passwd", "%~/etc/passwd", ".%~.etc.passwd"),
            ("a//b", "a/%~/b", ".a.%~.b"),
            ("", "%~", ".%~"),
            ("cur", "%63ur", ".cur"),
            ("A/Tmp", "A/%54mp", ".A.Tmp"),
            (".postkeep", "%2Epostkeep", ".%2Epostkeep"),
            ("postkeep/tmp", "postkeep/%74mp", ".%70ostkeep.tmp"),
            ("~", "~", ".~"),
            ("nul\0esc\x1b", "nul%00esc%1B", ".nul%00esc%1B"),
            ("rtl\u{202e}", "rtl%E2%80%AE", ".rtl%E2%80%AE"),
            ("%7E%~", "%257E%25~", ".%257E%25~"),
        ];
        for (name, nested, plus_plus) in table {
            let mailbox = MailboxName::from(name);
            for (layout, expected) in [(Layout::Nested, nested), (Layout::PlusPlus, plus_plus)] {
                let path = path_of(layout, &mailbox);
                assert_eq!(path, Path::new(expected), "{name:?}");
                assert_eq!(name_of(layout, &path), Some(mailbox.clone()), "{name:?}");
            }
        }
        let slash = MailboxName::from_components(["a/b"]);
        assert_eq!(path_of(Layout::Nested, &slash), Path::new("a%2Fb"));
    }

    #[test]
    fn directories_that_are_not_ours_are_no_mailbox() {
        for path in ["inbox", "%41", ".git", "a/.b", "cur", "x%~0", "a%", "", "a/", "%2f"] {
            let name = name_of(Layout::Nested, Path::new(path));
            assert!(name.is_none() || path == "a%" || path == "%2f", "{path} {name:?}");
        }
        for path in ["Lists", ".INBOX", ".a..b", ".", ".postkeep", ".a/b"] {
            assert_eq!(name_of(Layout::PlusPlus, Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        let long = |end: &str| format!("{}{end}", "é\x01".repeat(150));
        for layout in BOTH {
            let mut seen = BTreeMap::new();
            for text in [long("a"), long("b"), "a/".repeat(40), "a/".repeat(41), "x/".repeat(2000), "b".repeat(5000)] {
                let mailbox = MailboxName::from(text.as_str());
                let path = path_of(layout, &mailbox);
                inside(&path).unwrap();
                assert!(path.components().count() <= DEEPEST);
                assert_eq!(seen.insert(path, text), None);
            }
        }
    }

    fn inside(path: &Path) -> Result<(), TestCaseError> {
        use std::os::unix::ffi::OsStrExt;
        prop_assert!(path.as_os_str().len() <= LONGEST_PATH);
        for part in path.components() {
            let Component::Normal(name) = part else { return Err(TestCaseError::fail(format!("{path:?}"))) };
            prop_assert!(name.len() <= LONGEST_NAME && !name.as_bytes().iter().any(u8::is_ascii_control));
            prop_assert!(!["cur", "new", "tmp", ".postkeep", ".postkeep.tmp"].iter().any(|n| name == *n));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn paths_are_injective_and_inside(
            a in prop::collection::vec(
                "cur|new|TMP|postkeep|INBOX|inbox|([.%~/A-Ea-e2F:\\\\\u{0}\u{7}\u{e9}\u{202e}]{0,4})",
                1..5,
            ),
            b in prop::collection::vec("([.%~/A-E2F]{0,3})|cur|new|postkeep|.{0,300}", 1..4),
        ) {
            let names = [a, b].map(|parts| MailboxName::from_components(parts.iter().map(String::as_str)));
            for layout in BOTH {
                let paths = names.clone().map(|name| path_of(layout, &name));
                prop_assert_eq!(paths[0] == paths[1], names[0] == names[1]);
                for (name, path) in names.iter().zip(&paths) {
                    inside(path)?;
                    // A shortened name cannot be read back; then there is none rather than a wrong one.
                    match name_of(layout, path) {
                        Some(back) => prop_assert_eq!(&back, name),
                        None => prop_assert!(path.to_string_lossy().contains(MARK)),
                    }
                }
            }
        }

        #[test]
        fn a_name_read_from_a_path_has_that_path(path in "[.%~/A-Ea-e2FINBOX]{0,12}") {
            for layout in BOTH {
                if let Some(name) = name_of(layout, Path::new(&path)) {
                    prop_assert_eq!(path_of(layout, &name), PathBuf::from(&path));
                }
            }
        }
    }
}
