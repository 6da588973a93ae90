//! Which letter stands for which keyword in a maildir: its file `dovecot-keywords`.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::error::failed;
use super::{Error, sys};
use crate::model::{Flag, FlagChange, Flags, Keyword};

/// The file, as Dovecot and patched mutts have it: a line for each keyword, its number (0 is `a`), a space, its name.
pub(super) const FILE: &str = "dovecot-keywords";

/// More than 26 keywords of 255 bytes.
const LARGEST: u64 = 64 * 1024;

/// The letters of a maildir. A letter without a name is somebody else's: it is kept, and is no flag.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Keywords {
    names: [Option<Box<str>>; 26],
    /// Lines that mean nothing to us, written back as they were.
    other: Vec<Box<[u8]>>,
}

impl Keywords {
    /// Reads the file of a maildir; without one there are no letters.
    pub(super) fn load(maildir: BorrowedFd<'_>, path: &Path) -> Result<Self, Error> {
        let bytes = sys::read_small(maildir, FILE, LARGEST).map_err(failed("read the keywords of", path))?;
        Ok(bytes.map(|bytes| Self::parse(&bytes)).unwrap_or_default())
    }

    /// Writes the file of a maildir, durably and as a whole.
    pub(super) fn save(&self, maildir: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        crate::step::before("save keywords");
        sys::replace_small(maildir, FILE, &self.to_bytes()).map_err(failed("write the keywords of", path))
    }

    /// Takes the letters from the text of a file.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut keywords = Self::default();
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let entry = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' '));
            let slot = entry.and_then(|(number, name)| Some((number.parse::<usize>().ok()?, name)));
            match slot {
                Some((number, name)) if number < 26 && keywords.names[number].is_none() && !name.is_empty() => {
                    keywords.names[number] = Some(name.into());
                }
                _ => keywords.other.push(line.into()),
            }
        }
        keywords
    }

    /// Returns the keywords that have a letter.
    pub fn named(&self) -> impl Iterator<Item = Keyword> + '_ {
        self.names.iter().flatten().filter_map(|name| Keyword::new(name))
    }

    /// Tells whether a further keyword would get a letter.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.names.iter().any(Option::is_none)
    }

    /// Returns the text of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let named = self.names.iter().enumerate().filter_map(|(at, name)| Some((at, name.as_ref()?)));
        let mut bytes = named.map(|(at, name)| format!("{at} {name}\n")).collect::<String>().into_bytes();
        for line in &self.other {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        bytes
    }

    /// Returns the letter of a keyword, if it has one.
    #[must_use]
    pub fn letter_of(&self, word: &Keyword) -> Option<u8> {
        let is_it = |name: &Option<Box<str>>| name.as_ref().is_some_and(|n| n.eq_ignore_ascii_case(word.as_str()));
        (b'a'..=b'z').zip(&self.names).find_map(|(letter, name)| is_it(name).then_some(letter))
    }

    /// Gives a keyword a letter; returns whether that changed anything, which needs to be saved.
    ///
    /// It changes nothing if the keyword has a letter, or if no letter is free: then only the server keeps it.
    pub fn allocate(&mut self, word: &Keyword) -> bool {
        if self.letter_of(word).is_some() {
            return false;
        }
        let Some(free) = self.names.iter_mut().find(|name| name.is_none()) else { return false };
        *free = Some(word.as_str().into());
        true
    }

    /// Gives letters to all keywords in a set; returns whether that changed anything.
    pub(super) fn allocate_all<'a>(&mut self, sets: impl IntoIterator<Item = &'a Flags>) -> bool {
        sets.into_iter().flat_map(Flags::keywords).fold(false, |changed, word| self.allocate(word) | changed)
    }

    /// Returns what of `wanted` can be kept here: all flags, and the keywords that have a letter or would get one.
    #[must_use]
    pub fn mask(&self, wanted: &Flags) -> Flags {
        let mut keywords = self.clone();
        keywords.allocate_all([wanted]);
        let kept = wanted.keywords().filter(|word| keywords.letter_of(word).is_some()).cloned();
        Flags::from_parts(wanted.bits(), kept)
    }

    /// Returns the flags that letters stand for.
    #[must_use]
    pub fn read(&self, letters: &[u8]) -> Flags {
        let mut flags = Flags::new();
        letters.iter().for_each(|letter| self.insert(*letter, &mut flags));
        flags
    }

    /// Adds what a letter stands for, if it is known.
    fn insert(&self, letter: u8, flags: &mut Flags) {
        if let Some(flag) = Flag::ALL.into_iter().find(|flag| flag.letter() == letter) {
            flags.insert(flag);
        } else if letter.is_ascii_lowercase()
            && let Some(name) = &self.names[usize::from(letter - b'a')]
            && !name.starts_with('\\')
        {
            // By its IMAP name, since Dovecot keeps `$Forwarded` here.
            flags.insert_imap(name);
        }
    }

    /// Returns letters after a change: sorted if anything changed, unknown ones kept. Keywords without a letter are
    /// left out.
    #[must_use]
    pub(super) fn change(&self, letters: &[u8], change: &FlagChange) -> Vec<u8> {
        let (before, gone) = (self.read(letters), change.remove.difference(&change.add));
        let after = before.changed(change);
        let stays = |letter: &u8| self.read(&[*letter]).intersection(&gone).is_empty();
        let mut kept: Vec<u8> = letters.iter().copied().filter(stays).collect();
        let added = after.difference(&before);
        kept.extend(added.flags().map(Flag::letter));
        kept.extend(added.keywords().filter_map(|word| self.letter_of(word)));
        if kept != letters {
            kept.sort_unstable();
            kept.dedup();
        }
        kept
    }

    /// Returns what letters of this maildir are in another one. Unknown small letters are left out: there they would
    /// mean something else.
    pub(super) fn translate(&self, letters: &[u8], there: &Self) -> Vec<u8> {
        let unknown = |letter: &u8| self.read(&[*letter]).is_empty() && !letter.is_ascii_lowercase();
        let mut translated = there.spell(&self.read(letters));
        translated.extend(letters.iter().copied().filter(unknown));
        translated.sort_unstable();
        translated.dedup();
        translated
    }

    /// Returns the letters of a set, sorted; keywords without a letter are left out.
    #[must_use]
    pub(super) fn spell(&self, flags: &Flags) -> Vec<u8> {
        self.change(b"", &FlagChange { add: flags.clone(), remove: Flags::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Keyword {
        Keyword::new(text).unwrap()
    }

    #[test]
    fn the_file_is_kept_as_it_was() {
        let text = b"0 Work\n3 $Forwarded\n25 z\n26 beyond\nnonsense\n3 again\n";
        let keywords = Keywords::parse(text);
        assert_eq!(keywords.to_bytes(), b"0 Work\n3 $Forwarded\n25 z\n26 beyond\nnonsense\n3 again\n");
        assert_eq!(keywords.letter_of(&word("WORK")), Some(b'a'));
        assert_eq!(keywords.read(b"adyzS").to_string(), "($Forwarded \\Seen Work z)");
        assert_eq!(Keywords::parse(b"0 \\Seen\n").read(b"a"), Flags::new());
    }

    #[test]
    fn there_are_letters_for_26_keywords() {
        let mut keywords = Keywords::parse(b"1 second\n");
        for n in 0..25 {
            assert!(keywords.allocate(&word(&format!("k{n}"))));
            assert!(!keywords.allocate(&word(&format!("K{n}"))));
        }
        assert!(!keywords.allocate(&word("one-too-many")));
        assert_eq!(keywords.letter_of(&word("one-too-many")), None);
        let wanted = Flags::from_parts(63, [word("k3"), word("one-too-many")]);
        assert_eq!(keywords.mask(&wanted), Flags::from_parts(63, [word("k3")]));
    }
}
