//! A file with a secret, which nobody else can read, and which is whole at every moment.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::store::StoreError;
use crate::step;

/// Longer is no sign-in.
const MOST_BYTES: usize = 64 * 1024;

/// A file with a secret. All of its functions block.
#[derive(Clone, Debug)]
pub(super) struct SecretFile(PathBuf);

impl SecretFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns what is in it, or nothing if there is no such file.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read, or others could read or change it.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<String>>, StoreError> {
        let path = || self.0.clone();
        let unreadable = |error: io::Error| StoreError::Unreadable { path: path(), why: error.to_string() };
        // Not blocking: a pipe in the place of the file must not stop the program.
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits()).unwrap_or(0);
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() {
            return Err(StoreError::Unreadable { path: path(), why: "it is not a file".to_owned() });
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(StoreError::Foreign { path: path(), owner: found.uid() });
        }
        if found.mode() & 0o077 != 0 {
            return Err(StoreError::Open { path: path(), mode: found.mode() & 0o7777 });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES + 1));
        file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > MOST_BYTES {
            return Err(StoreError::Unreadable { path: path(), why: "it is far too long".to_owned() });
        }
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| StoreError::Unreadable { path: path(), why: "it is not UTF-8".to_owned() })?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }

    /// Puts `text` in its place, durably: what was there before stays as it was until then.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`]; what was there before is still there.
    pub(super) fn replace(&self, text: &str) -> Result<(), StoreError> {
        let write = || -> io::Result<()> {
            let directory = self.0.parent().unwrap_or(Path::new("/"));
            let new = self.0.with_extension("token-new");
            step::before("write token");
            // What a crash left behind. Made anew, so that nobody has it open.
            remove(&new)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            step::before("rename token");
            std::fs::rename(&new, &self.0)?;
            step::before("sync token directory");
            File::open(directory)?.sync_all()
        };
        write().map_err(|error| StoreError::Unwritable { path: self.0.clone(), why: error.to_string() })
    }

    /// Removes it, if it is there.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`].
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        remove(&self.0).map_err(|error| StoreError::Unwritable { path: self.0.clone(), why: error.to_string() })
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn file(dir: &tempfile::TempDir) -> SecretFile {
        SecretFile::new(dir.path().join("a.token"))
    }

    #[test]
    fn it_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        assert!(file.read().unwrap().is_none());
        fs::write(dir.path().join("a.token-new"), "of a crash").unwrap();
        for text in ["one", "two"] {
            file.replace(text).unwrap();
            assert_eq!(file.read().unwrap().unwrap().as_str(), text);
        }
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_replaced_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        file.replace("one").unwrap();
        // In the way of the new one: a directory that is not empty.
        fs::create_dir_all(dir.path().join("a.token-new/x")).unwrap();
        let error = file.replace("two").unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("a.token"), "{error}");
        assert_eq!(file.read().unwrap().unwrap().as_str(), "one");
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        file.replace("one").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o677] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = file.read().unwrap_err();
            assert!(matches!(error, StoreError::Open { mode: m, .. } if m == mode), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        file.replace("two").unwrap();
        assert_eq!(file.read().unwrap().unwrap().as_str(), "two");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        fs::create_dir(file.path()).unwrap();
        assert!(matches!(file.read().unwrap_err(), StoreError::Unreadable { .. }));
        fs::remove_dir(file.path()).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", file.path()).unwrap();
        assert!(matches!(file.read().unwrap_err(), StoreError::Unreadable { .. }));
        fs::remove_file(file.path()).unwrap();
        for bytes in [vec![b'x'; MOST_BYTES + 1], vec![0xff]] {
            fs::write(file.path(), bytes).unwrap();
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(file.read().unwrap_err(), StoreError::Unreadable { .. }));
        }
    }

    #[test]
    fn one_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        file.replace("one").unwrap();
        // Only root can give a file away.
        if std::os::unix::fs::chown(file.path(), Some(12345), None).is_ok() {
            assert!(matches!(file.read().unwrap_err(), StoreError::Foreign { owner: 12345, .. }));
        }
    }
}
