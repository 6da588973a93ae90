//! An account's root: where its maildirs are, and which.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::error::failed;
use super::name::as_path;
use super::path::Layout;
use super::store::{Condition, condition};
use super::witness::Witness;
use super::{Error, Graveyard, Maildir, Marker, RemoveJob, marker, path, sys};
use crate::model::MailboxName;

/// An account's root, held open; everything below it is opened relative to it and through no symbolic link.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
    layout: Layout,
    /// Sees changes in its maildirs; made when the first is opened.
    witness: OnceLock<Option<Arc<Witness>>>,
}

impl Root {
    /// Opens a root; `None` if there is no such directory. The path itself may lead through symbolic links.
    ///
    /// # Errors
    /// Those of opening, also if it is no directory.
    pub fn open(path: &Path, layout: Layout) -> Result<Option<Self>, Error> {
        let flags = fs::OFlags::RDONLY | fs::OFlags::DIRECTORY | fs::OFlags::CLOEXEC;
        match fs::open(path, flags, Mode::empty()) {
            Ok(directory) => Ok(Some(Self { directory, path: path.to_owned(), layout, witness: OnceLock::new() })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    /// Opens a root and makes its directory, and those above it, if they are not there; durably and with mode 0700.
    ///
    /// # Errors
    /// Those of making the directory.
    pub fn create(path: &Path, layout: Layout) -> Result<Self, Error> {
        make_path(path).map_err(failed("make the directory", path))?;
        Self::open(path, layout)?.ok_or_else(|| failed("open", path)(Errno::NOENT))
    }

    /// Returns the path of the root, for texts.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the marker; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Foreign`] for one that cannot be read.
    pub fn marker(&self) -> Result<Option<Marker>, Error> {
        Marker::load(self.directory.as_fd(), &self.path)
    }

    /// Writes the marker, durably.
    ///
    /// # Errors
    /// Those of writing; then the old one is still there.
    pub fn set_marker(&self, marker: &Marker) -> Result<(), Error> {
        marker.save(self.directory.as_fd(), &self.path)
    }

    /// Tells whether there is no maildir below the root, and no file in it but the marker.
    ///
    /// # Errors
    /// Those of listing.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let mut files = false;
        let each = |entry: sys::Listed<'_>| {
            let marker = entry.name.strip_prefix(marker::FILE.as_bytes()).is_some_and(|s| matches!(s, b"" | b".tmp"));
            files |= entry.kind != FileType::Directory && !marker;
        };
        sys::list(self.directory.as_fd(), each).map_err(failed("list", &self.path))?;
        Ok(!files && self.maildirs()?.is_empty())
    }

    /// Returns the path of a mailbox's maildir, relative to the root; each mailbox has its own.
    ///
    /// # Errors
    /// None so far: every name has a path.
    pub fn path_of(&self, name: &MailboxName) -> Result<PathBuf, Error> {
        Ok(path::path_of(self.layout, name))
    }

    /// Returns the mailbox that a path belongs to, or `None` for a path that [`Self::path_of`] does not give, and for
    /// one that was shortened because the name is too long for the file system.
    #[must_use]
    pub fn name_of(&self, path: &Path) -> Option<MailboxName> {
        path::name_of(self.layout, path)
    }

    /// Returns the path of every maildir below the root with its mailbox, in the order of the paths; without one, if
    /// [`Self::name_of`] knows none for the path.
    ///
    /// One that lacks a part is returned too; it is [`Self::maildir`] that says so. Left out is anything behind a
    /// symbolic link, or hidden.
    ///
    /// # Errors
    /// Any error of a listing: there may be more maildirs, then.
    pub fn mailboxes(&self) -> Result<Vec<(Option<MailboxName>, PathBuf)>, Error> {
        Ok(self.maildirs()?.into_iter().map(|path| (self.name_of(&path), path)).collect())
    }

    /// Returns the path of every maildir, whole or not, in order.
    fn maildirs(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        self.walk(|path, directory| {
            match condition(directory).map_err(failed("look into", &self.path.join(path)))? {
                Condition::Whole | Condition::Lacks(_) => found.push(path.to_owned()),
                Condition::Absent => {}
            }
            Ok(())
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Visits each directory that may be a mailbox's or lead to one, with its path below the root: first it is visited,
    /// then it is listed.
    pub(super) fn walk(&self, mut visit: impl FnMut(&Path, BorrowedFd<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            let full = self.path.join(&path);
            let directory = match sys::open_directory(self.directory.as_fd(), &path) {
                Ok(directory) => directory,
                // Gone since it was listed.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(failed("open", &full)(error)),
            };
            visit(&path, directory.as_fd())?;
            if self.layout.goes_on(&path) {
                let each = |entry: sys::Listed<'_>| {
                    if entry.kind == FileType::Directory && self.layout.is_way(entry.name) {
                        open.push(path.join(as_path(entry.name)));
                    }
                };
                sys::list(directory.as_fd(), each).map_err(failed("list", &full))?;
            }
        }
        Ok(())
    }

    /// Tells whether there is anything at a path below the root.
    ///
    /// # Errors
    /// Those of looking.
    pub fn has(&self, path: &Path) -> Result<bool, Error> {
        let failed = || failed("look at", &self.path.join(path));
        let Some(name) = path.file_name() else { return Ok(true) };
        match sys::open_directory(self.directory.as_fd(), path.parent().unwrap_or(Path::new(""))) {
            Ok(above) => Ok(sys::look(&above, name.as_bytes()).map_err(failed())?.is_some()),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed()(error)),
        }
    }

    /// Returns the inode number of the `cur/` of the maildir at a path below the root, which it keeps wherever it goes;
    /// `None` if there is none.
    ///
    /// # Errors
    /// Those of looking.
    pub fn directory_of(&self, path: &Path) -> Result<Option<u64>, Error> {
        let look = |at: OwnedFd| sys::look(&at, b"cur");
        match sys::open_directory(self.directory.as_fd(), path).and_then(look) {
            Ok(Some((inode, FileType::Directory))) => Ok(Some(inode)),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("look into", &self.path.join(path))(error)),
        }
    }

    /// Opens the maildir at a path below the root; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Broken`] if a part of it is missing, [`Error::Collision`] if the file system takes another mailbox's
    /// directory for it, else those of opening.
    pub fn maildir(&self, path: &Path) -> Result<Option<Maildir>, Error> {
        let full = self.path.join(path);
        let directory = match sys::open_directory(self.directory.as_fd(), path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed("open", &full)(error)),
        };
        let witness = self.witness.get_or_init(|| Witness::new().map(Arc::new)).clone();
        let maildir = Maildir::open(directory, full, witness)?;
        if let Some(maildir) = &maildir
            && ignores_case(maildir).map_err(failed("look into", maildir.path()))?
            && !self.is_spelled(path).map_err(failed("list the directories above", maildir.path()))?
        {
            return Err(Error::Collision { path: maildir.path().to_owned() });
        }
        Ok(maildir)
    }

    /// Tells whether a path is written as the directories in it are.
    pub(super) fn is_spelled(&self, path: &Path) -> rustix::io::Result<bool> {
        let mut above = PathBuf::new();
        for part in path {
            let mut same = false;
            let directory = sys::open_directory(self.directory.as_fd(), &above)?;
            sys::list(directory.as_fd(), |entry| same |= entry.name == part.as_bytes())?;
            if !same {
                return Ok(false);
            }
            above.push(part);
        }
        Ok(true)
    }

    /// Makes the maildir at a path below the root, durably and with mode 0700; one that is there is opened.
    ///
    /// # Errors
    /// Those of [`Self::maildir`] and of making directories.
    pub fn create_maildir(&self, path: &Path) -> Result<Maildir, Error> {
        if let Some(maildir) = self.maildir(path)? {
            return Ok(maildir);
        }
        crate::step::before("create maildir");
        let full = self.path.join(path);
        let failed = || failed("make the maildir", &full);
        let directory = self.make_directories(path).map_err(failed())?;
        // `cur` last: what a crash leaves of this is no maildir yet.
        for part in ["tmp", "new", "cur"] {
            sys::make_directory(directory.as_fd(), part).map_err(failed())?;
        }
        self.maildir(path)?.ok_or_else(|| failed()(Errno::NOENT))
    }

    /// Makes each directory of a path below the root.
    fn make_directories(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let root = sys::open_directory(self.directory.as_fd(), Path::new(""))?;
        path.iter().try_fold(root, |above, part| {
            // A path of ours has plain names only; nothing else may lead out of the root.
            if matches!(part.as_bytes(), b"." | b"..") || part.as_bytes().contains(&b'/') {
                return Err(Errno::XDEV);
            }
            sys::make_directory(above.as_fd(), part)
        })
    }

    /// Renames a maildir, durably; never over something.
    ///
    /// In [`Layout::Nested`] the mailboxes below it lie inside it and move with it, as RENAME wants (RFC 3501 §6.3.5);
    /// in [`Layout::PlusPlus`] each is a directory of its own and must be renamed by itself.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is something at the new path, [`Error::Missing`] if there is nothing at the old one;
    /// the root itself (INBOX in [`Layout::PlusPlus`]) cannot be renamed.
    pub fn rename_maildir(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let (old, new) = (self.path.join(from), self.path.join(to));
        let (Some(old_name), Some(new_name)) = (from.file_name(), to.file_name()) else {
            return Err(failed("rename", &old)(Errno::INVAL));
        };
        let above = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
        let old_above = sys::open_directory(self.directory.as_fd(), &above(from)).map_err(failed("rename", &old))?;
        let new_above = self.make_directories(&above(to)).map_err(failed("rename a maildir to", &new))?;
        crate::step::before("rename maildir");
        let (old_at, new_at) = (old_above.as_fd(), new_above.as_fd());
        match sys::rename_directory(old_at, old_name.as_bytes(), new_at, new_name.as_bytes()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists { path: new }),
            Err(error) => return Err(failed("rename", &old)(error)),
        }
        fs::fsync(&new_above).and_then(|()| fs::fsync(&old_above)).map_err(failed("sync the directory of", &new))
    }

    /// Puts all messages of a maildir into the graveyard, then removes it and the directories above that held nothing
    /// else. Maildirs below it stay. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Occupied`] if it holds something that is no message: then its messages are in the graveyard, and it
    /// stays. Else those of listing and removing.
    pub fn archive_maildir(&self, path: &Path, graveyard: &Graveyard, name: &MailboxName) -> Result<(), Error> {
        let Some(maildir) = self.maildir(path)? else { return Ok(()) };
        let scan = maildir.scan()?;
        let doubles = scan.doubles.iter().map(|double| (double.clone(), None));
        let all = scan.iter().map(|entry| (entry.file(), Some(entry.inode))).chain(doubles);
        let jobs: Vec<_> = all.map(|(file, inode)| RemoveJob { file, inode }).collect();
        if maildir.remove(&jobs, graveyard, name)?.iter().any(Result::is_err) {
            // Somebody works in it: the next pass sees what is left.
            return Err(Error::Occupied { path: maildir.path().to_owned() });
        }
        crate::step::before("remove maildir");
        let failed = || failed("remove", maildir.path());
        let remove = |part: &str| match fs::unlinkat(&maildir.directory, part, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => Err(Error::Occupied { path: maildir.path().to_owned() }),
            done => done.map_err(failed()),
        };
        maildir.sweep_tmp(i64::MAX)?;
        remove("cur")?;
        if let Err(error) = remove("new") {
            // A message came in just now: make it a maildir again.
            sys::make_directory(maildir.directory.as_fd(), "cur").map_err(failed())?;
            return Err(error);
        }
        remove("tmp")?;
        for file in [super::keywords::FILE, "dovecot-keywords.tmp"] {
            match fs::unlinkat(&maildir.directory, file, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed()(error)),
            }
        }
        self.remove_empty(path).map_err(failed())
    }

    /// Removes a directory below the root, then those above it, as long as they are empty.
    fn remove_empty(&self, path: &Path) -> rustix::io::Result<()> {
        for path in path.ancestors() {
            let Some(name) = path.file_name() else { break };
            let above = sys::open_directory(self.directory.as_fd(), path.parent().unwrap_or(Path::new("")))?;
            match fs::unlinkat(&above, name, AtFlags::REMOVEDIR) {
                Ok(()) => fs::fsync(&above)?,
                Err(Errno::NOTEMPTY | Errno::EXIST) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Tells whether a maildir lies on a file system for which `CUR` is `cur`.
fn ignores_case(maildir: &Maildir) -> rustix::io::Result<bool> {
    let inode = |name: &[u8]| Ok::<_, Errno>(sys::look(&maildir.directory, name)?.map(|(inode, _)| inode));
    Ok(match inode(b"CUR")? {
        Some(upper) => Some(upper) == inode(b"cur")?,
        None => false,
    })
}

/// Makes a directory and those above it that are missing, durably and with mode 0700.
pub(super) fn make_path(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(data) if data.is_dir() => return Ok(()),
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    make_path(above)?;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(error),
    }
    std::fs::File::open(above)?.sync_all()
}
