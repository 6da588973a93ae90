//! Makes a listing of a maildir, with proof that nothing was missed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::error::failed;
use super::name::{self, split};
use super::{Error, FileRef, Keywords, Maildir, sys};
use crate::model::{Flags, Place, UniqueName};

/// When the two directories of a maildir last changed, and which they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    new: Changed,
    cur: Changed,
}

/// When a directory last changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Changed {
    inode: u64,
    /// The later of its times of modification and of change, in nanoseconds since 1970. The time of modification alone
    /// can be set back by anybody.
    nanos: i64,
}

/// How coarse times are on the worst file systems and networks.
const COARSEST: Duration = Duration::from_secs(2);

/// How coarse times are on any other: a tick of the kernel's clock is 10 ms at most.
const TICK: Duration = Duration::from_millis(30);

impl Stamp {
    /// Returns the stamp as numbers for the database.
    #[must_use]
    pub fn to_numbers(self) -> [i64; 4] {
        [self.new.inode.cast_signed(), self.new.nanos, self.cur.inode.cast_signed(), self.cur.nanos]
    }

    /// Returns the stamp that [`Self::to_numbers`] gave.
    #[must_use]
    pub fn from_numbers([new_inode, new, cur_inode, cur]: [i64; 4]) -> Self {
        let changed = |inode: i64, nanos| Changed { inode: inode.cast_unsigned(), nanos };
        Self { new: changed(new_inode, new), cur: changed(cur_inode, cur) }
    }

    /// Returns the inode number of `cur/`.
    #[must_use]
    pub fn directory(&self) -> u64 {
        self.cur.inode
    }

    /// Tells whether both directories had been quiet for two seconds at `now`. Only then do equal stamps mean that
    /// nothing changed: a change in the same tick of the clock leaves the time as it is.
    #[must_use]
    pub fn settled(&self, now: SystemTime) -> bool {
        self.age(now).is_some_and(|age| age > COARSEST)
    }

    /// Tells whether any change from `now` on must show in the stamp.
    pub(super) fn would_show_change(&self, now: SystemTime) -> bool {
        // Whole seconds in both are no chance, but a file system that knows no fractions.
        let coarse = [self.new, self.cur].iter().all(|c| c.nanos % 1_000_000_000 == 0);
        self.age(now).is_some_and(|age| age > if coarse { COARSEST } else { TICK })
    }

    /// Returns how long to wait from `now` on until a change must show in the stamp, if it need not yet.
    pub(super) fn until_change_shows(&self, now: SystemTime) -> Option<Duration> {
        let rest = || TICK.saturating_sub(self.age(now).unwrap_or_default()) + Duration::from_millis(1);
        (!self.would_show_change(now)).then(rest)
    }

    /// Returns for how long nothing changed, or `None` if the last change lies in the future.
    fn age(&self, now: SystemTime) -> Option<Duration> {
        let latest = u64::try_from(self.new.nanos.max(self.cur.nanos)).unwrap_or(0);
        now.duration_since(UNIX_EPOCH + Duration::from_nanos(latest)).ok()
    }
}

/// A message file, as a scan found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The unique name.
    pub name: &'a [u8],
    /// Where it is.
    pub place: Place,
    /// Its flags.
    pub flags: Flags,
    /// Its inode number.
    pub inode: u64,
    /// What follows the `:` in its name.
    pub info: &'a [u8],
    file: &'a [u8],
}

impl Entry<'_> {
    /// Returns where the file is and its whole name.
    #[must_use]
    pub fn file(&self) -> FileRef {
        FileRef::new(self.place, self.file)
    }

    /// Returns the unique name.
    #[must_use]
    pub fn unique(&self) -> UniqueName {
        UniqueName::new(self.name)
    }
}

/// Something in `new/` or `cur/` that is no message; it is ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// Where it is and what it is called.
    pub file: FileRef,
    /// What it is.
    pub what: &'static str,
}

/// What is in a maildir. 100,000 messages take about 8 MB.
pub struct Scan {
    /// All file names, one behind the other.
    names: Vec<u8>,
    /// Sorted by unique name; each only once.
    index: Vec<Slot>,
    keywords: Keywords,
    /// When the directories last changed, as of the beginning of the scan.
    pub stamp: Stamp,
    /// Neither directory changed while they were read: what is not here is not there.
    pub unchanged: bool,
    /// Further files with a unique name that the scan has already.
    pub doubles: Vec<FileRef>,
    /// What is no message.
    pub foreign: Vec<Foreign>,
}

/// One file in [`Scan::names`]; 16 bytes, so that a large maildir stays small.
#[derive(Clone, Copy)]
struct Slot {
    inode: u64,
    /// Where its name begins.
    start: u32,
    /// NAME_MAX is 255.
    length: u8,
    /// How much of it is the unique name.
    unique: u8,
    place: Place,
}

impl Slot {
    fn file(self, names: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &names[start..start + usize::from(self.length)]
    }

    fn unique(self, names: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &names[start..start + usize::from(self.unique)]
    }
}

impl Scan {
    /// Returns how many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Tells whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns all messages in the order of their unique names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.index.iter().map(|slot| self.entry(*slot))
    }

    /// Returns the message with a unique name.
    #[must_use]
    pub fn get(&self, name: &UniqueName) -> Option<Entry<'_>> {
        let at = self.index.binary_search_by_key(&name.as_bytes(), |slot| slot.unique(&self.names)).ok()?;
        Some(self.entry(self.index[at]))
    }

    fn entry(&self, slot: Slot) -> Entry<'_> {
        let file = slot.file(&self.names);
        let (name, info) = split(file);
        let flags = name::flags(file, &self.keywords);
        Entry { name, place: slot.place, flags, inode: slot.inode, info, file }
    }
}

/// What was read from the directories, before it is put in order.
#[derive(Default)]
struct Raw {
    names: Vec<u8>,
    index: Vec<Slot>,
    foreign: Vec<Foreign>,
    /// More than 4 GB of names.
    too_many: bool,
}

impl Raw {
    fn add(&mut self, place: Place, entry: &sys::Listed<'_>) {
        if entry.name.starts_with(b".") {
            return;
        }
        if let Some(what) = foreign(entry.kind) {
            self.foreign.push(Foreign { file: FileRef::new(place, entry.name), what });
            return;
        }
        let (Ok(start), Ok(length)) = (u32::try_from(self.names.len()), u8::try_from(entry.name.len())) else {
            self.too_many = true;
            return;
        };
        let unique = u8::try_from(split(entry.name).0.len()).unwrap_or(length);
        self.names.extend_from_slice(entry.name);
        self.index.push(Slot { inode: entry.inode, start, length, unique, place });
    }
}

/// Returns what something in a maildir is, if it is no file.
fn foreign(kind: FileType) -> Option<&'static str> {
    Some(match kind {
        FileType::RegularFile => return None,
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown type",
    })
}

/// How often a scan is repeated when something changed meanwhile.
const REPEATS: usize = 3;

impl Maildir {
    /// Returns when the directories last changed.
    ///
    /// # Errors
    /// [`Error::Missing`] if a directory is not the one that was opened.
    pub fn stamp(&self) -> Result<Stamp, Error> {
        Ok(Stamp { new: self.changed(Place::New)?, cur: self.changed(Place::Cur)? })
    }

    /// Looks at a directory by its name: an open directory can be listed even if it was deleted, and is empty then.
    fn changed(&self, place: Place) -> Result<Changed, Error> {
        let path = self.path().join(name::directory(place));
        let named = statat(&self.directory, name::directory(place), AtFlags::SYMLINK_NOFOLLOW);
        let named = named.map_err(failed("look at", &path))?;
        let open = rustix::fs::fstat(self.place(place)).map_err(failed("look at", &path))?;
        if (named.st_ino, named.st_dev) != (open.st_ino, open.st_dev) {
            return Err(failed("look at", &path)(Errno::NOENT));
        }
        let nanos = |seconds: i64, nanos| seconds.saturating_mul(1_000_000_000).saturating_add_unsigned(nanos);
        let modified = nanos(named.st_mtime, named.st_mtime_nsec);
        Ok(Changed { inode: named.st_ino, nanos: modified.max(nanos(named.st_ctime, named.st_ctime_nsec)) })
    }

    /// Lists all messages; up to three times again if somebody changes something meanwhile.
    ///
    /// `new/` is read before `cur/`: a message that moves from one to the other meanwhile is seen at least once.
    ///
    /// # Errors
    /// Any error of a listing: what was seen until then is not everything.
    pub fn scan(&self) -> Result<Scan, Error> {
        let mut repeats = 0;
        loop {
            let scan = self.scan_once()?;
            if scan.unchanged || repeats == REPEATS {
                return Ok(scan);
            }
            repeats += 1;
        }
    }

    pub(super) fn scan_once(&self) -> Result<Scan, Error> {
        let mut stamp = self.stamp()?;
        if let Some(rest) = stamp.until_change_shows(SystemTime::now()) {
            // Our own last change may be too fresh for another one to show.
            std::thread::sleep(rest);
            stamp = self.stamp()?;
        }
        let certain = stamp.would_show_change(SystemTime::now());
        let keywords = self.keywords()?;
        let mut raw = Raw::default();
        for place in [Place::New, Place::Cur] {
            let path = || self.path().join(name::directory(place));
            sys::list(self.place(place), |entry| raw.add(place, &entry)).map_err(|e| failed("list", &path())(e))?;
        }
        if raw.too_many {
            return Err(failed("list", self.path())(Errno::OVERFLOW));
        }
        let Raw { mut names, mut index, foreign, .. } = raw;
        names.shrink_to_fit();
        // Of files with one name, that in `cur/` comes first: it is the later one.
        let key = |slot: &Slot| (slot.unique(&names), slot.place == Place::New, slot.file(&names));
        index.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        let (doubles, lost) = self.take_doubles(&names, &mut index)?;
        index.shrink_to_fit();
        let unchanged = certain && !lost && self.stamp()? == stamp;
        Ok(Scan { names, index, keywords, stamp, unchanged, doubles, foreign })
    }

    /// Takes out all but the first of the files with one unique name. One that was renamed during the scan may have
    /// been seen under both names; only those that are still there count. Returns also whether one with no name left
    /// was found.
    fn take_doubles(&self, names: &[u8], index: &mut Vec<Slot>) -> Result<(Vec<FileRef>, bool), Error> {
        let same = |a: &Slot, b: &Slot| a.unique(names) == b.unique(names);
        let mut there: Vec<Slot> = Vec::new();
        let (mut doubles, mut lost) = (Vec::new(), false);
        if !index.windows(2).any(|pair| same(&pair[0], &pair[1])) {
            return Ok((doubles, lost));
        }
        let mut kept = Vec::with_capacity(index.len());
        for group in index.chunk_by(same) {
            if let [single] = group {
                kept.push(*single);
                continue;
            }
            there.clear();
            for slot in group {
                let path = || self.path_of(&FileRef::new(slot.place, slot.file(names)));
                let seen = sys::look(self.place(slot.place), slot.file(names));
                if seen.map_err(|error| failed("look at", &path())(error))?.is_some() {
                    there.push(*slot);
                }
            }
            match there.split_first() {
                Some((first, others)) => {
                    kept.push(*first);
                    doubles.extend(others.iter().map(|slot| FileRef::new(slot.place, slot.file(names))));
                }
                // It has a third name by now; the directory changed, so that nothing is concluded from this.
                None => lost = true,
            }
        }
        *index = kept;
        Ok((doubles, lost))
    }
}
