//! The few calls to the system that need care: opening below a directory, listing, renaming without replacing.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// How directories are opened: to be listed, synced and opened below, never through a symbolic link.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How files are opened for reading. Without `NONBLOCK` a FIFO would block for ever.
pub(super) const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// How new files are made: never over something, never through a symbolic link.
pub(super) const NEW_FILE: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mode of every directory, whatever the umask.
pub(super) const DIRECTORY_MODE: Mode = Mode::RWXU;

/// The mode of every file, whatever the umask.
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Opens the directory `path` below `root`; an empty path is `root` itself. No symbolic link is followed.
///
/// # Errors
/// `XDEV` for a path that would leave `root`, `LOOP` or `NOTDIR` for a symbolic link, else as open(2).
pub(super) fn open_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
        // Kernels before 5.6, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => walk(root, path),
        opened => opened,
    }
}

/// As [`open_directory`], with one open(2) for each component.
pub(super) fn walk(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    path.components().try_fold(fs::openat(root, ".", DIRECTORY, Mode::empty())?, |at, part| match part {
        Component::Normal(name) => fs::openat(&at, name, DIRECTORY, Mode::empty()),
        Component::CurDir => Ok(at),
        Component::ParentDir | Component::RootDir | Component::Prefix(_) => Err(Errno::XDEV),
    })
}

/// Makes the directory `name` in `parent` if it is not there, durably and with mode 0700, and opens it.
pub(super) fn make_directory(parent: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd> {
    let made = match fs::mkdirat(parent, name, DIRECTORY_MODE) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let directory = fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    if made {
        fs::fchmod(&directory, DIRECTORY_MODE)?;
    }
    // Also when it was there: it may be from a process that died before this line.
    fs::fsync(parent)?;
    Ok(directory)
}

/// What a directory read gave.
pub(super) struct Listed<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    pub(super) kind: FileType,
}

/// Calls `each` for everything in a directory but `.` and `..`.
///
/// # Errors
/// Any error of a read: what was listed until then is not everything. An error is never the end.
pub(super) fn list(directory: BorrowedFd<'_>, mut each: impl FnMut(Listed<'_>)) -> Result<()> {
    // An own descriptor, since two listings over one would share their position.
    let own = fs::openat(directory, ".", DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::<u8>::with_capacity(64 * 1024);
    let mut entries = RawDir::new(&own, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match fs::statat(&own, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            },
            known => known,
        };
        each(Listed { name: name.to_bytes(), inode: entry.ino(), kind });
    }
    Ok(())
}

/// Reads the beginning of a directory, for no other purpose than to wait for those who are changing it at this moment.
pub(super) fn wait_for_changes(directory: BorrowedFd<'_>) -> Result<()> {
    let own = fs::openat(directory, ".", DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 512];
    RawDir::new(&own, &mut buffer).next().transpose().map(|_| ())
}

/// Renames, unless something is already there.
///
/// # Errors
/// `EXIST` if something is there, `XDEV` between file systems, `NOENT` if there is nothing to rename.
pub(super) fn rename(from: BorrowedFd<'_>, old: &[u8], to: BorrowedFd<'_>, new: &[u8]) -> Result<()> {
    match fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        // File systems without this flag (NFS, some FUSE): a link refuses to replace, too.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::linkat(from, old, to, new, AtFlags::empty())?;
            fs::unlinkat(from, old, AtFlags::empty())
        }
        renamed => renamed,
    }
}

/// Renames a directory that is not empty, unless something is already there.
///
/// # Errors
/// As [`rename`].
pub(super) fn rename_directory(from: BorrowedFd<'_>, old: &[u8], to: BorrowedFd<'_>, new: &[u8]) -> Result<()> {
    match fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        // Without the flag nothing but an empty directory could be replaced between these two calls.
        Err(Errno::INVAL | Errno::NOSYS) => match look(to, new)? {
            Some(_) => Err(Errno::EXIST),
            None => fs::renameat(from, old, to, new),
        },
        renamed => renamed,
    }
}

/// Makes a new file with mode 0600, whatever the umask; returns also its inode number.
pub(super) fn create(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(File, u64)> {
    let file = File::from(fs::openat(directory, name, NEW_FILE, FILE_MODE)?);
    let stat = fs::fstat(&file)?;
    if Mode::from_raw_mode(stat.st_mode) != FILE_MODE {
        fs::fchmod(&file, FILE_MODE)?;
    }
    Ok((file, stat.st_ino))
}

/// Returns what is in a small regular file, or `None` if it is not there.
///
/// # Errors
/// `InvalidData` for anything but a regular file of at most `limit` bytes.
pub(super) fn read_small(directory: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let file = match fs::openat(directory, name, FILE, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return refused("it is a symbolic link"),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return refused("it is no regular file");
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { refused("it is too large") } else { Ok(Some(bytes)) }
}

/// Replaces a small file as a whole, durably: after a crash it is the old one or the new one.
pub(super) fn replace_small(directory: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let draft = format!("{name}.tmp");
    match fs::unlinkat(directory, &draft, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let (mut file, _) = create(directory, draft.as_bytes())?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| Ok(fs::renameat(directory, &draft, directory, name)?));
    if let Err(error) = renamed {
        // The first error is the one to report.
        let _ = fs::unlinkat(directory, &draft, AtFlags::empty());
        return Err(error);
    }
    Ok(fs::fsync(directory)?)
}

/// Returns the inode of what is called `name`, and whether it is a regular file; `None` if there is nothing.
pub(super) fn look(directory: impl AsFd, name: &[u8]) -> Result<Option<(u64, FileType)>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((stat.st_ino, FileType::from_raw_mode(stat.st_mode)))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
