//! One maildir: its three directories, held open.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{self, FileType, Mode};
use rustix::io::Errno;

use super::content::Message;
use super::error::failed;
use super::name::{as_path, directory, is_ours};
use super::witness::Witness;
use super::{Error, FileRef, Keywords, sys};
use crate::model::{Flags, Keys, Place};

/// The directory of a mailbox. It stays the same directory even if its path leads elsewhere meanwhile.
#[derive(Debug)]
pub struct Maildir {
    pub(super) directory: OwnedFd,
    pub(super) new: OwnedFd,
    pub(super) cur: OwnedFd,
    pub(super) tmp: OwnedFd,
    path: PathBuf,
    /// Syncing the whole file system took too long here; from then on each file is synced.
    sync_each: AtomicBool,
    pub(super) witness: Option<Arc<Witness>>,
    /// The witness's number of this maildir, while it is witnessed.
    pub(super) tally: Mutex<Option<u64>>,
}

/// The content of a file and what goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keyed {
    /// What identifies the content.
    pub keys: Keys,
    /// INTERNALDATE: the file's time of modification in seconds since 1970.
    pub internal_date: i64,
    /// The file's inode number.
    pub inode: u64,
}

/// What there is of a maildir in a directory.
pub(super) enum Condition {
    Whole,
    /// Nothing, or what a crash left of the making of one; certainly no message.
    Absent,
    /// Something, but not this directory.
    Lacks(&'static str),
}

/// Looks for the three directories. They are made in the order `tmp`, `new`, `cur`, and removed the other way round.
pub(super) fn condition(at: BorrowedFd<'_>) -> rustix::io::Result<Condition> {
    let is_there = |name: &str| match sys::look(at, name.as_bytes())? {
        Some((_, FileType::Directory)) => Ok(Some(true)),
        Some(_) => Ok(Some(false)),
        None => Ok(None),
    };
    Ok(match (is_there("cur")?, is_there("new")?, is_there("tmp")?) {
        (Some(true), Some(true), Some(true)) => Condition::Whole,
        (None, None, None | Some(true)) => Condition::Absent,
        (None, Some(true), Some(true)) => {
            let mut empty = true;
            sys::list(fs::openat(at, "new", sys::DIRECTORY, Mode::empty())?.as_fd(), |_| empty = false)?;
            if empty { Condition::Absent } else { Condition::Lacks("cur") }
        }
        (None | Some(false), _, _) => Condition::Lacks("cur"),
        (_, None | Some(false), _) => Condition::Lacks("new"),
        (_, _, None | Some(false)) => Condition::Lacks("tmp"),
    })
}

impl Maildir {
    /// Opens the maildir in a directory; `None` if it is a directory without one.
    pub(super) fn open(
        directory: OwnedFd,
        path: PathBuf,
        witness: Option<Arc<Witness>>,
    ) -> Result<Option<Self>, Error> {
        match condition(directory.as_fd()).map_err(failed("look into", &path))? {
            Condition::Absent => return Ok(None),
            Condition::Lacks(lacks) => return Err(Error::Broken { path, lacks }),
            Condition::Whole => {}
        }
        let open = |name| fs::openat(&directory, name, sys::DIRECTORY, Mode::empty()).map_err(failed("open", &path));
        let (new, cur, tmp) = (open("new")?, open("cur")?, open("tmp")?);
        let (sync_each, tally) = (AtomicBool::new(false), Mutex::new(None));
        Ok(Some(Self { directory, new, cur, tmp, path, sync_each, witness, tally }))
    }

    /// Returns the path of the maildir: for texts and hooks, since files are reached through the open directories.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a message file, for texts and hooks.
    #[must_use]
    pub fn path_of(&self, file: &FileRef) -> PathBuf {
        self.path.join(file.path())
    }

    pub(super) fn place(&self, place: Place) -> BorrowedFd<'_> {
        match place {
            Place::New => self.new.as_fd(),
            Place::Cur => self.cur.as_fd(),
        }
    }

    /// Returns the letters that stand for keywords here, as of now.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn keywords(&self) -> Result<Keywords, Error> {
        Keywords::load(self.directory.as_fd(), &self.path)
    }

    /// Gives letters to all keywords in `sets`, durably, and returns all letters.
    pub(super) fn keywords_for<'a>(&self, sets: impl IntoIterator<Item = &'a Flags>) -> Result<Keywords, Error> {
        let mut keywords = self.keywords()?;
        if keywords.allocate_all(sets) {
            keywords.save(self.directory.as_fd(), &self.path)?;
        }
        Ok(keywords)
    }

    /// Returns what of `wanted` can be kept here: all flags, and the keywords that have a letter or would get one.
    ///
    /// # Errors
    /// Those of reading the keywords.
    pub fn mask(&self, wanted: &Flags) -> Result<Flags, Error> {
        Ok(self.keywords()?.mask(wanted))
    }

    /// Opens a message.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no such file (any more), [`Error::Unusable`] if it is empty, unreadable or not a
    /// regular file.
    pub fn read(&self, file: &FileRef) -> Result<Message, Error> {
        let unusable = |why: &str| Error::Unusable { path: self.path_of(file), why: why.to_owned() };
        let opened = match fs::openat(self.place(file.place), file.file_name(), sys::FILE, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::LOOP) => return Err(unusable("it is a symbolic link")),
            Err(Errno::ACCESS | Errno::PERM) => return Err(unusable("it is not allowed to be read")),
            Err(Errno::NXIO) => return Err(unusable("it is no regular file")),
            Err(error) => return Err(failed("open", &self.path_of(file))(error)),
        };
        let failed = || failed("read", &self.path_of(file));
        let data = opened.metadata().map_err(failed())?;
        match (data.is_file(), data.len()) {
            (false, _) => Err(unusable("it is no regular file")),
            (true, 0) => Err(unusable("it is empty")),
            (true, _) => Message::new(opened).map_err(failed()),
        }
    }

    /// Reads a message for what identifies it.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn key(&self, file: &FileRef) -> Result<Keyed, Error> {
        let mut message = self.read(file)?;
        let keys = message.keys().map_err(failed("read", &self.path_of(file)))?;
        Ok(Keyed { keys, internal_date: message.modified(), inode: message.inode() })
    }

    /// Makes directories durable: what was renamed into or out of them.
    pub(super) fn sync(&self, places: impl IntoIterator<Item = Place>) -> Result<(), Error> {
        let sync = |place| fs::fsync(self.place(place)).map_err(failed("sync", &self.path.join(directory(place))));
        places.into_iter().try_for_each(sync)
    }

    /// Makes messages durable that another program has written: their bytes and their names. One that is not found is
    /// passed over.
    ///
    /// # Errors
    /// Those of opening and syncing.
    pub fn make_durable<'a>(&self, messages: impl ExactSizeIterator<Item = &'a FileRef> + Clone) -> Result<(), Error> {
        let places: BTreeSet<Place> = messages.clone().map(|message| message.place).collect();
        if !self.sync_file_system(messages.len())? {
            let mut files = Vec::new();
            for message in messages {
                match fs::openat(self.place(message.place), message.file_name(), sys::FILE, Mode::empty()) {
                    Ok(file) => files.push(File::from(file)),
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed("open", &self.path_of(message))(error)),
                }
            }
            self.sync_each(&files.iter().collect::<Vec<_>>())?;
        }
        self.sync(places)
    }

    /// Makes new files in `tmp/` durable.
    pub(super) fn sync_files(&self, files: &[&File]) -> Result<(), Error> {
        if self.sync_file_system(files.len())? { Ok(()) } else { self.sync_each(files) }
    }

    /// Makes all that is on the file system durable, where that is the faster way for so many files; false if it is not.
    ///
    /// For many files, one syncfs(2) is five times as fast as an fsync(2) each; but it also writes what other programs
    /// left dirty, and not every file system does what it says.
    fn sync_file_system(&self, files: usize) -> Result<bool, Error> {
        if files < WORTH_SYNCFS || self.sync_each.load(Ordering::Relaxed) || !syncfs_holds(self.tmp.as_fd()) {
            return Ok(false);
        }
        let start = Instant::now();
        match fs::syncfs(&self.tmp) {
            Ok(()) => {
                self.sync_each.store(start.elapsed() > SLOW, Ordering::Relaxed);
                Ok(true)
            }
            Err(Errno::NOSYS) => Ok(false),
            Err(error) => Err(failed("sync", &self.path.join("tmp"))(error)),
        }
    }

    /// Makes files durable one by one, several at once: one after the other they take five times as long.
    fn sync_each(&self, files: &[&File]) -> Result<(), Error> {
        std::thread::scope(|scope| {
            let share = files.len().div_ceil(8).max(1);
            let sync = |part: &[&File]| part.iter().try_for_each(|file| file.sync_all());
            let parts: Vec<_> = files.chunks(share).map(|part| scope.spawn(move || sync(part))).collect();
            let died = |_| Err(std::io::Error::other("a thread that synced files died"));
            parts.into_iter().try_for_each(|part| part.join().unwrap_or_else(died))
        })
        .map_err(failed("sync", &self.path))
    }

    /// Removes what a crash left in `tmp/`: files with names of ours that did not change for 36 hours before `now`
    /// (seconds since 1970). Returns how many.
    ///
    /// # Errors
    /// Those of listing and removing.
    pub fn sweep_tmp(&self, now: i64) -> Result<usize, Error> {
        let mut ours = Vec::new();
        let collect = |entry: sys::Listed<'_>| {
            if entry.kind == FileType::RegularFile && is_ours(entry.name) {
                ours.push(entry.name.to_vec());
            }
        };
        let path = self.path.join("tmp");
        sys::list(self.tmp.as_fd(), collect).map_err(failed("list", &path))?;
        let mut swept = 0;
        for name in ours {
            // The time of modification is INTERNALDATE already.
            let changed = match fs::statat(&self.tmp, &name, fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat.st_ctime,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed("look at", &path.join(as_path(&name)))(error)),
            };
            if now.saturating_sub(changed) > LEFT_OVER {
                fs::unlinkat(&self.tmp, &name, fs::AtFlags::empty()).map_err(failed("remove", &path))?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// From how many files on syncing the whole file system is the faster way.
const WORTH_SYNCFS: usize = 8;

/// Longer than this, syncing the file system mostly writes what is not ours.
const SLOW: Duration = Duration::from_secs(1);

/// The Maildir convention: nothing is in `tmp/` for longer than 36 hours; seconds.
const LEFT_OVER: i64 = 36 * 60 * 60;

/// Tells whether syncfs(2) makes files durable and reports when it could not.
///
/// It reports failed writes since Linux 5.8; and FUSE and network file systems need not tell the other end.
fn syncfs_holds(directory: BorrowedFd<'_>) -> bool {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut version = kernel.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let reports = (version.next(), version.next()) >= (Some(5), Some(8));
    reports && is_local(directory)
}

/// Tells whether a directory is on a file system that only this kernel changes, and that is known to do as it should.
pub(super) fn is_local(directory: BorrowedFd<'_>) -> bool {
    /// `EXT4_SUPER_MAGIC` (2 and 3, too), XFS, Btrfs, F2FS, tmpfs: linux/magic.h.
    const KNOWN: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
    let known = |stat: fs::StatFs| u32::try_from(stat.f_type).is_ok_and(|magic| KNOWN.contains(&magic));
    fs::fstatfs(directory).is_ok_and(known)
}
