//! One writer per database and per root: held by locks that the system drops with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::Error;

/// The locks of an account; dropping them lets others in.
#[derive(Debug)]
pub(super) struct Locks {
    _account: File,
    root: Option<File>,
}

impl Locks {
    /// Takes the lock of the account's database.
    ///
    /// # Errors
    /// [`Error::Busy`] with the process that has it, [`Error::File`] if the lock file cannot be made.
    pub(super) fn take(state_dir: &Path, account: &str) -> Result<Self, Error> {
        let path = state_dir.join(format!("{account}.lock"));
        let fault = |source| Error::File { what: "could not lock", path: path.clone(), source };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(fault)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Without the number the refusal is just as right.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(Error::Busy { pid, what: format!("account {account}") });
            }
            Err(TryLockError::Error(source)) => return Err(fault(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(fault)?;
        writeln!(file, "{}", std::process::id()).map_err(fault)?;
        Ok(Self { _account: file, root: None })
    }

    /// Takes the lock of the root as well: two state directories must not write to one tree. If the path leads to
    /// another directory than the one that is locked already, the lock moves on to that.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn take_root(&mut self, root: &Path) -> Result<(), Error> {
        let fault = |source| Error::File { what: "could not lock", path: root.to_owned(), source };
        let directory = File::open(root).map_err(fault)?;
        let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        if let Some(held) = &self.root
            && identity(held).map_err(fault)? == identity(&directory).map_err(fault)?
        {
            return Ok(());
        }
        match directory.try_lock() {
            Ok(()) => self.root = Some(directory),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy { pid: None, what: format!("the maildir {}", root.display()) });
            }
            Err(TryLockError::Error(source)) => return Err(fault(source)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_refused_and_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Locks::take(dir.path(), "a").unwrap();
        let refused = Locks::take(dir.path(), "a").unwrap_err().to_string();
        assert_eq!(refused, format!("another postkeep (process {}) has account a", std::process::id()));
        first.take_root(dir.path()).unwrap();
        let mut other = Locks::take(dir.path(), "b").unwrap();
        assert!(matches!(other.take_root(dir.path()), Err(Error::Busy { pid: None, .. })));
        first.take_root(dir.path()).unwrap();
        drop(first);
        other.take_root(dir.path()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        other.take_root(elsewhere.path()).unwrap();
        Locks::take(dir.path(), "c").unwrap().take_root(dir.path()).unwrap();
        Locks::take(dir.path(), "a").unwrap();
    }
}
