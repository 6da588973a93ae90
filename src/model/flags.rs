//! What is said about a message: system flags and keywords (RFC 3501 §2.3.2), as sets.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

/// A flag that both IMAP and Maildir have a fixed sign for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Flag {
    /// `\Draft`, `D`
    Draft = 1,
    /// `\Flagged`, `F`
    Flagged = 2,
    /// `$Forwarded` (RFC 5788 registry), `P`
    Forwarded = 4,
    /// `\Answered`, `R`
    Answered = 8,
    /// `\Seen`, `S`
    Seen = 16,
    /// `\Deleted`, `T`
    Deleted = 32,
}

impl Flag {
    /// Every flag, in the order of its Maildir letter.
    pub const ALL: [Self; 6] = [Self::Draft, Self::Flagged, Self::Forwarded, Self::Answered, Self::Seen, Self::Deleted];

    /// Returns the IMAP name.
    #[must_use]
    pub const fn imap(self) -> &'static str {
        match self {
            Self::Draft => "\\Draft",
            Self::Flagged => "\\Flagged",
            Self::Forwarded => "$Forwarded",
            Self::Answered => "\\Answered",
            Self::Seen => "\\Seen",
            Self::Deleted => "\\Deleted",
        }
    }

    /// Returns the Maildir letter.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Draft => b'D',
            Self::Flagged => b'F',
            Self::Forwarded => b'P',
            Self::Answered => b'R',
            Self::Seen => b'S',
            Self::Deleted => b'T',
        }
    }
}

/// A word of the user (RFC 3501 §2.3.2), compared without regard to ASCII case as servers do.
#[derive(Clone, Debug)]
pub struct Keyword(Box<str>);

impl Keyword {
    /// Returns the keyword, or `None` if it is not an atom (RFC 3501 §9) of at most 255 bytes or is `$Forwarded`,
    /// which is a [`Flag`].
    #[must_use]
    pub fn new(word: &str) -> Option<Self> {
        let atom = |b: u8| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b);
        let fits = !word.is_empty() && word.len() <= 255 && word.bytes().all(atom);
        (fits && !word.eq_ignore_ascii_case(Flag::Forwarded.imap())).then(|| Self(word.into()))
    }

    /// Returns the word as it was first seen.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> Ordering {
        let fold = |k: &Self| k.0.bytes().map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
        fold(self).cmp(&fold(other))
    }
}

impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

/// A set of flags and keywords. `\Recent` is the server's own and never part of it.
///
/// Small, since there is one for each message of a mailbox, and few have keywords.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Flags {
    system: u8,
    /// Never an empty set. Boxed, since a set is three times as large as the rest.
    #[allow(clippy::box_collection)]
    keywords: Option<Box<BTreeSet<Keyword>>>,
}

impl Flags {
    /// Returns the empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { system: 0, keywords: None }
    }

    /// Returns every [`Flag`] and no keyword.
    #[must_use]
    pub fn system() -> Self {
        Flag::ALL.into_iter().collect()
    }

    /// Returns the set that the stored form names: the bits of [`Self::bits`] and the keywords of [`Self::keywords`].
    #[must_use]
    pub fn from_parts(bits: u8, keywords: impl IntoIterator<Item = Keyword>) -> Self {
        Self { system: bits & 63, keywords: boxed(keywords.into_iter().collect()) }
    }

    /// Adds the flag of an IMAP name, in any case; returns false for `\Recent`, unknown system flags and non-atoms.
    pub fn insert_imap(&mut self, name: &str) -> bool {
        if let Some(flag) = Flag::ALL.into_iter().find(|f| f.imap().eq_ignore_ascii_case(name)) {
            self.insert(flag);
            return true;
        }
        match Keyword::new(name) {
            Some(word) => {
                self.insert_keyword(word);
                true
            }
            None => false,
        }
    }

    /// Adds a flag.
    pub fn insert(&mut self, flag: Flag) {
        self.system |= flag as u8;
    }

    /// Adds a keyword.
    pub fn insert_keyword(&mut self, word: Keyword) {
        self.keywords.get_or_insert_default().insert(word);
    }

    /// Tells whether `flag` is in the set.
    #[must_use]
    pub fn contains(&self, flag: Flag) -> bool {
        self.system & flag as u8 != 0
    }

    /// Tells whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.system == 0 && self.keywords.is_none()
    }

    /// Returns the system flags as bits, in the order of [`Flag::ALL`] from the lowest.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.system
    }

    /// Returns the flags in the order of their Maildir letters.
    pub fn flags(&self) -> impl Iterator<Item = Flag> + '_ {
        Flag::ALL.into_iter().filter(|f| self.contains(*f))
    }

    /// Returns the keywords in order.
    pub fn keywords(&self) -> impl Iterator<Item = &Keyword> {
        self.keywords.iter().flat_map(|words| words.iter())
    }

    /// Returns the IMAP names of all, system flags first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let system = self.flags().map(|f| -> &str { f.imap() });
        system.chain(self.keywords().map(Keyword::as_str))
    }

    /// Returns what is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let keywords = match (&self.keywords, &other.keywords) {
            (Some(a), Some(b)) => boxed(a.union(b).cloned().collect()),
            (a, b) => a.as_ref().or(b.as_ref()).cloned(),
        };
        Self { system: self.system | other.system, keywords }
    }

    /// Returns what is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let keywords = match (&self.keywords, &other.keywords) {
            (Some(a), Some(b)) => boxed(a.intersection(b).cloned().collect()),
            (None, _) | (_, None) => None,
        };
        Self { system: self.system & other.system, keywords }
    }

    /// Returns what is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let keywords = match (&self.keywords, &other.keywords) {
            (Some(a), Some(b)) => boxed(a.difference(b).cloned().collect()),
            (a, _) => a.clone(),
        };
        Self { system: self.system & !other.system, keywords }
    }

    /// Returns the set after a change.
    #[must_use]
    pub fn changed(&self, change: &FlagChange) -> Self {
        self.difference(&change.remove).union(&change.add)
    }
}

#[allow(clippy::box_collection)]
fn boxed(words: BTreeSet<Keyword>) -> Option<Box<BTreeSet<Keyword>>> {
    (!words.is_empty()).then(|| Box::new(words))
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut set = Self::new();
        flags.into_iter().for_each(|f| set.insert(f));
        set
    }
}

/// Prints as IMAP does, between parentheses.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.names().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What to add and what to remove; never an absolute set, so that what a user changes meanwhile survives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct FlagChange {
    /// Flags to set.
    pub add: Flags,
    /// Flags to clear.
    pub remove: Flags,
}

impl FlagChange {
    /// Returns the change that turns `from` into `to`.
    #[must_use]
    pub fn between(from: &Flags, to: &Flags) -> Self {
        Self { add: to.difference(from), remove: from.difference(to) }
    }

    /// Tells whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// Prints as `+\Seen -\Flagged`.
impl fmt::Display for FlagChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = |sign: char, set: &Flags| set.names().map(|name| format!("{sign}{name}")).collect::<Vec<_>>();
        let mut words = signed('+', &self.add);
        words.extend(signed('-', &self.remove));
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        let mut flags = Flags::new();
        assert!(["\\SEEN", "$forwarded", "Work", "WORK"].into_iter().all(|n| flags.insert_imap(n)));
        assert!(!["\\Recent", "\\Other", "two words", "", "a]b"].into_iter().any(|n| flags.insert_imap(n)));
        assert_eq!(flags.to_string(), "($Forwarded \\Seen Work)");
    }

    #[test]
    fn a_change_leads_from_one_set_to_the_other() {
        for a in 0..64 {
            for b in 0..64 {
                let (a, b) = (Flags::from_parts(a, Keyword::new("a")), Flags::from_parts(b, Keyword::new("b")));
                assert_eq!(a.changed(&FlagChange::between(&a, &b)), b);
            }
        }
    }
}
