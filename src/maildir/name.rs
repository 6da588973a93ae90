//! The names of message files: `unique name`, and after a `:` the `info` with the flags in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Error;
use super::keywords::Keywords;
use crate::model::{FlagChange, Flags, Place, UniqueName};

/// Where a message file is, and its whole name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileRef {
    /// `new/` or `cur/`
    pub place: Place,
    file: Box<[u8]>,
}

impl FileRef {
    pub(super) fn new(place: Place, file: &[u8]) -> Self {
        Self { place, file: file.into() }
    }

    /// Returns the name of the file, without a directory.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        &self.file
    }

    /// Returns the part of the name that stays the same.
    #[must_use]
    pub fn unique(&self) -> UniqueName {
        UniqueName::new(split(&self.file).0)
    }

    /// Returns what follows the `:`, or nothing.
    #[must_use]
    pub fn info(&self) -> &[u8] {
        split(&self.file).1
    }

    /// Returns the path of the file, below its maildir.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(directory(self.place)).join(as_path(&self.file))
    }

    /// Returns the file as it will be called after a change of its flags. A file without flags stays in `new/`.
    pub(super) fn changed(&self, change: &FlagChange, keywords: &Keywords) -> Self {
        let (unique, info) = split(&self.file);
        let (letters, rest) = letters(info);
        let after = keywords.change(letters, change);
        if after == letters {
            // Not even a name that is spelled unusually is touched without need.
            return self.clone();
        }
        let place = if after.is_empty() { self.place } else { Place::Cur };
        Self { place, file: spell(unique, &after, rest).into() }
    }

    /// Returns the file as it will be called in another maildir, where keywords have other letters.
    pub(super) fn translated(&self, unique: &UniqueName, here: &Keywords, there: &Keywords) -> Self {
        let (letters, rest) = letters(self.info());
        let letters = here.translate(letters, there);
        match (self.place, letters.is_empty()) {
            (Place::New, true) => Self::new(Place::New, unique.as_bytes()),
            (Place::New, false) | (Place::Cur, _) => {
                Self { place: Place::Cur, file: spell(unique.as_bytes(), &letters, rest).into() }
            }
        }
    }
}

/// Returns the name of the directory that a place is.
pub(super) const fn directory(place: Place) -> &'static str {
    match place {
        Place::New => "new",
        Place::Cur => "cur",
    }
}

/// Returns bytes of a file name as a path.
pub(super) fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Returns the unique name and the info of a file name.
pub(super) fn split(file: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', file) {
        Some(at) => (&file[..at], &file[at + 1..]),
        None => (file, b""),
    }
}

/// Returns the part of a file name that stays the same.
#[must_use]
pub fn unique_of(file: &[u8]) -> UniqueName {
    UniqueName::new(split(file).0)
}

/// Returns the flag letters of a file name.
#[must_use]
pub fn letters_of(file: &[u8]) -> &[u8] {
    letters(split(file).1).0
}

/// Returns the flag letters of an info, and what other programs put behind them after a further comma.
pub(super) fn letters(info: &[u8]) -> (&[u8], &[u8]) {
    let Some(letters) = info.strip_prefix(b"2,") else { return (b"", b"") };
    letters.split_at(memchr::memchr(b',', letters).unwrap_or(letters.len()))
}

/// Returns the file name that these parts make; in `cur/` it always has an info.
pub(super) fn spell(unique: &[u8], letters: &[u8], rest: &[u8]) -> Vec<u8> {
    [unique, b":2,", letters, rest].concat()
}

/// Returns the flags that a file name says.
pub(super) fn flags(file: &[u8], keywords: &Keywords) -> Flags {
    keywords.read(letters(split(file).1).0)
}

/// The longest name that [`unique_name`] makes; leaves room for an info (NAME_MAX is 255).
const LONGEST: usize = 120;

/// Returns a name for a new message that no other message has, on this machine or any other.
///
/// It follows the Maildir convention: seconds, then microseconds, process, counter and 64 random bits, then the host.
///
/// # Errors
/// [`Error::Random`] if the system gives no random number: the clock may go back, so that it is no name without one.
pub fn unique_name() -> Result<UniqueName, Error> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static HOST: LazyLock<String> =
        LazyLock::new(|| host(&std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()));

    // Drawn once: with the counter it is another name each time, with the rest another one in each process.
    static PROCESS: OnceLock<(u32, u64)> = OnceLock::new();
    let (process, random) = match PROCESS.get() {
        Some(drawn) => *drawn,
        None => {
            let random = getrandom::u64().map_err(Error::Random)?;
            *PROCESS.get_or_init(|| (std::process::id(), random))
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    let mut name = format!("{seconds}.M{micros}P{process}Q{counter}R{random:016x}.{}", *HOST);
    name.truncate(LONGEST);
    Ok(UniqueName::new(name.as_bytes()))
}

/// Returns a host name of which only harmless ASCII characters are left.
fn host(raw: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' };
    let name: String = raw.trim().chars().map(harmless).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Tells whether a file name is one that [`unique_name`] made.
pub(super) fn is_ours(name: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return false };
    let mut parts = text.splitn(3, '.');
    let (seconds, middle, host) = (parts.next(), parts.next(), parts.next());
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let numbered = |middle: &str| {
        let (micros, rest) = middle.strip_prefix('M')?.split_once('P')?;
        let (process, rest) = rest.split_once('Q')?;
        let (counter, random) = rest.split_once('R')?;
        let hex = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
        Some(hex && [micros, process, counter].into_iter().all(digits))
    };
    host.is_some() && seconds.is_some_and(digits) && middle.and_then(numbered) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Flag, Keyword};
    use proptest::prelude::*;

    #[test]
    fn names_are_split_at_the_first_colon() {
        let table: [(&[u8], &[u8], &[u8]); 5] = [
            (b"1.a:2,FS", b"1.a", b"2,FS"),
            (b"1.a", b"1.a", b""),
            (b"1.a:", b"1.a", b""),
            (b"1:2:2,S", b"1", b"2:2,S"),
            (b"\xff\n:2,\xfe", b"\xff\n", b"2,\xfe"),
        ];
        for (file, unique, info) in table {
            assert_eq!(split(file), (unique, info));
        }
    }

    #[test]
    fn flags_change_and_everything_else_stays() {
        let mut keywords = Keywords::parse(b"0 work\n2 $Forwarded\n");
        assert!(keywords.allocate(&Keyword::new("later").unwrap()));
        let (new, cur) = (Place::New, Place::Cur);
        let table: [(Place, &str, &str, &str, Place, &str); 14] = [
            (new, "a", "\\Seen", "", cur, "a:2,S"),
            (new, "a", "", "\\Seen", new, "a"),
            (new, "a:2,", "", "", new, "a:2,"),
            (cur, "a", "", "", cur, "a"),
            (cur, "a:2,S", "", "\\Seen", cur, "a:2,"),
            (cur, "a:2,S", "\\Flagged", "", cur, "a:2,FS"),
            (cur, "a:2,XSz", "\\Flagged", "\\Seen", cur, "a:2,FXz"),
            (cur, "a:2,SF", "", "", cur, "a:2,SF"),
            (cur, "a:2,SSF", "\\Draft", "", cur, "a:2,DFS"),
            (cur, "a:2,S,x=1", "work", "", cur, "a:2,Sa,x=1"),
            (cur, "a:2,a", "later", "work", cur, "a:2,b"),
            (cur, "a:2,c", "", "$Forwarded", cur, "a:2,"),
            (cur, "a:2,Pc", "$Forwarded", "", cur, "a:2,Pc"),
            (cur, "a:2,", "unknown", "", cur, "a:2,"),
        ];
        let set = |text: &str| {
            let mut flags = Flags::new();
            assert!(text.split_whitespace().all(|name| flags.insert_imap(name)));
            flags
        };
        for (place, file, add, remove, then, name) in table {
            let change = FlagChange { add: set(add), remove: set(remove) };
            let changed = FileRef::new(place, file.as_bytes()).changed(&change, &keywords);
            assert_eq!(changed, FileRef::new(then, name.as_bytes()), "{file} {change}");
        }
    }

    proptest! {
        #[test]
        fn flags_survive_the_name(
            bits in 0u8..64,
            words in prop::collection::btree_set("[a-z]{1,8}", 0..9),
            unique in prop::collection::vec(any::<u8>().prop_filter("no name", |b| !b":/\0".contains(b)), 1..40),
        ) {
            let flags = Flags::from_parts(bits, words.iter().filter_map(|w| Keyword::new(w)));
            let mut keywords = Keywords::default();
            flags.keywords().for_each(|word| { keywords.allocate(word); });
            let keywords = Keywords::parse(&keywords.to_bytes());
            let file = FileRef::new(Place::New, &unique);
            let changed = file.changed(&FlagChange { add: flags.clone(), remove: Flags::new() }, &keywords);
            prop_assert_eq!(super::flags(changed.file_name(), &keywords), flags.clone());
            prop_assert_eq!(changed.unique(), UniqueName::new(&unique));
            prop_assert_eq!(changed.place == Place::Cur, !flags.is_empty());
            let back = changed.changed(&FlagChange { add: Flags::new(), remove: flags }, &keywords);
            prop_assert!(super::flags(back.file_name(), &keywords).is_empty());
        }
    }

    #[test]
    fn a_change_of_a_flag_leaves_the_others() {
        for bits in 0..64 {
            for flag in Flag::ALL {
                let all = Flags::from_parts(bits, []);
                let keywords = Keywords::default();
                let file = FileRef::new(Place::Cur, b"a:2,");
                let file = file.changed(&FlagChange { add: all.clone(), remove: Flags::new() }, &keywords);
                let change = FlagChange { add: Flags::new(), remove: [flag].into_iter().collect() };
                let after = flags(file.changed(&change, &keywords).file_name(), &keywords);
                assert_eq!(after, all.changed(&change));
            }
        }
    }

    #[test]
    fn new_names_are_all_different_short_and_known_again() {
        let names: std::collections::BTreeSet<_> = (0..1000).map(|_| unique_name().unwrap()).collect();
        assert_eq!(names.len(), 1000);
        for name in names {
            assert!(name.as_bytes().len() <= LONGEST && is_ours(name.as_bytes()), "{name}");
            assert!(!name.as_bytes().iter().any(|b| b":/, ".contains(b)));
        }
        for foreign in
            ["", "a", "1.M2P3Q4R5.host", "1.2.host", "1.M2P3Q4R0123456789abcdeg.h", "1.M2P3Q4R0123456789abcdef"]
        {
            assert!(!is_ours(foreign.as_bytes()), "{foreign}");
        }
        assert_eq!(host(" a/b:c \n"), "a_b_c");
        assert_eq!(host("\n"), "localhost");
    }
}
