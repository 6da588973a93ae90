//! Search keys (RFC 3501 §6.4.4).

use crate::Message;
use crate::lex::UidSet;

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Key {
    And(Vec<Key>),
    Or(Box<Key>, Box<Key>),
    Not(Box<Key>),
    Flag(String),
    Uids(UidSet),
    Header(String, String),
    Larger(u32),
    Smaller(u32),
    ModSeq(u64),
}

impl Key {
    /// Tells whether a message is meant; `max` is the largest UID in use.
    pub(crate) fn matches(&self, m: &Message, max: u32) -> bool {
        match self {
            Self::And(keys) => keys.iter().all(|k| k.matches(m, max)),
            Self::Or(a, b) => a.matches(m, max) || b.matches(m, max),
            Self::Not(key) => !key.matches(m, max),
            Self::Flag(flag) => m.flags.iter().any(|f| f.eq_ignore_ascii_case(flag)),
            Self::Uids(set) => set.contains(m.uid, max),
            Self::Header(name, part) => {
                let part = part.to_ascii_lowercase();
                let value = |field: &[u8]| field.split(|&b| b == b':').skip(1).collect::<Vec<_>>().join(&b':');
                fields(&m.bytes, &[name.as_str()])
                    .iter()
                    .any(|field| String::from_utf8_lossy(&value(field)).to_ascii_lowercase().contains(&part))
            }
            Self::Larger(size) => m.bytes.len() > *size as usize,
            Self::Smaller(size) => m.bytes.len() < *size as usize,
            Self::ModSeq(value) => m.mod_seq >= *value,
        }
    }

    /// Returns the key without parentheses that hold one key only.
    #[cfg(feature = "second-opinion")]
    pub(crate) fn simple(self) -> Self {
        match self {
            Self::And(keys) => {
                let mut keys: Vec<Self> = keys.into_iter().map(Self::simple).collect();
                if keys.len() == 1 { keys.remove(0) } else { Self::And(keys) }
            }
            Self::Or(a, b) => Self::Or(Box::new(a.simple()), Box::new(b.simple())),
            Self::Not(key) => Self::Not(Box::new(key.simple())),
            other => other,
        }
    }

    /// Tells whether a mod-sequence is asked for anywhere, so that the answer must have one (RFC 7162 §3.1.5).
    pub(crate) fn names_mod_seq(&self) -> bool {
        match self {
            Self::And(keys) => keys.iter().any(Self::names_mod_seq),
            Self::Or(a, b) => a.names_mod_seq() || b.names_mod_seq(),
            Self::Not(key) => key.names_mod_seq(),
            Self::ModSeq(_) => true,
            _ => false,
        }
    }
}

/// Returns the header of a message with the empty line that ends it.
pub(crate) fn header(bytes: &[u8]) -> &[u8] {
    // It may be that line alone.
    if let [b'\r', b'\n', ..] = bytes {
        return &bytes[..2];
    }
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|i| i + 4);
    let end = end.or_else(|| bytes.windows(2).position(|w| w == b"\n\n").map(|i| i + 2));
    &bytes[..end.unwrap_or(bytes.len())]
}

/// Returns the header fields of these names, each with its continuation lines and line end.
pub(crate) fn fields(bytes: &[u8], names: &[&str]) -> Vec<Vec<u8>> {
    let mut out: Vec<(bool, Vec<u8>)> = Vec::new();
    for line in header(bytes).split_inclusive(|&b| b == b'\n') {
        match out.last_mut() {
            Some((_, field)) if line.starts_with(b" ") || line.starts_with(b"\t") => field.extend(line),
            _ => {
                let name = line.split(|&b| b == b':').next().unwrap_or_default();
                out.push((names.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(name)), line.to_vec()));
            }
        }
    }
    out.into_iter().filter(|(wanted, _)| *wanted).map(|(_, field)| field).collect()
}
