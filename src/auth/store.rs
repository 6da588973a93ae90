//! Where a sign-in is kept: in the Secret Service, or in a file of the state directory. Blocks.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::file::SecretFile;
use super::kept::Kept;
use super::keyring::Keyring;
use crate::config::TokenStore;

/// Why a sign-in cannot be read or kept.
#[derive(thiserror::Error, Clone, Debug)]
pub enum StoreError {
    /// The file cannot be read, or makes no sense.
    #[error("cannot read the sign-in in {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file cannot be written; what was there before is still there.
    #[error("cannot write the sign-in to {}: {why}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Others may read or change the file.
    #[error("the sign-in in {} can be read or changed by others (mode {mode:04o}); if nobody has, run: chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to someone else.
    #[error("the sign-in in {} belongs to user {owner}, and must be yours", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// There is no Secret Service.
    #[error("there is no Secret Service to keep the sign-in ({why})")]
    NoKeyring {
        /// What the bus said.
        why: String,
    },
    /// The Secret Service does not do what it is asked for.
    #[error("cannot use the Secret Service: {why}")]
    Keyring {
        /// What it said.
        why: String,
    },
}

/// Where a sign-in is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the Secret Service.
    Keyring,
    /// In this file.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyring => f.write_str("the Secret Service"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The places where the sign-in of an account may be kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    which: TokenStore,
    file: SecretFile,
    keyring: Keyring,
    lock: PathBuf,
}

impl Store {
    pub(super) fn new(which: TokenStore, account: &str, state_dir: &Path) -> Self {
        Self {
            which,
            file: SecretFile::new(state_dir.join(format!("{account}.token"))),
            keyring: Keyring::new(account, state_dir),
            lock: state_dir.join(format!("{account}.token-lock")),
        }
    }

    /// Waits until no other process is replacing the sign-in; others wait until the file is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`] if the lock file cannot be made.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.lock);
        let unwritable =
            |error: std::io::Error| StoreError::Unwritable { path: self.lock.clone(), why: error.to_string() };
        let file = open.map_err(unwritable)?;
        file.lock().map_err(unwritable)?;
        Ok(file)
    }

    /// Returns what is kept, and where.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn load(&self) -> Result<Option<(Kept, Place)>, StoreError> {
        // A file that is there says that there was no Secret Service when the user signed in.
        if self.which != TokenStore::Keyring
            && let Some(text) = self.file.read()?
        {
            let path = self.file.path().to_owned();
            let kept = Kept::from_text(&text);
            let kept = kept.map_err(|why| StoreError::Unreadable { path: path.clone(), why: why.to_owned() })?;
            return Ok(Some((kept, Place::File(path))));
        }
        if self.which == TokenStore::File {
            return Ok(None);
        }
        let Some(text) = self.keyring.read()? else { return Ok(None) };
        let kept = Kept::from_text(&text).map_err(|why| StoreError::Keyring { why: format!("in its item, {why}") })?;
        Ok(Some((kept, Place::Keyring)))
    }

    /// Returns the file.
    pub(super) fn file(&self) -> Place {
        Place::File(self.file.path().to_owned())
    }

    /// Returns where a new sign-in is to be kept.
    ///
    /// # Errors
    /// [`StoreError`] if only the Secret Service will do, and it does not.
    pub(super) fn choose(&self) -> Result<Place, StoreError> {
        match self.which {
            TokenStore::File => Ok(self.file()),
            TokenStore::Keyring => self.keyring.probe().map(|()| Place::Keyring),
            TokenStore::Auto => Ok(match self.keyring.probe() {
                Ok(()) => Place::Keyring,
                Err(error) => {
                    tracing::debug!(%error, "keeps the sign-in in a file");
                    self.file()
                }
            }),
        }
    }

    /// Puts a sign-in in the place of the one before; when this returns, it is durable.
    ///
    /// # Errors
    /// [`StoreError`]; the one before is still there.
    pub(super) fn save(&self, kept: &Kept, place: &Place) -> Result<(), StoreError> {
        let text = kept.to_text();
        match place {
            Place::Keyring => self.keyring.replace(&text.map_err(|why| StoreError::Keyring { why })?),
            Place::File(path) => {
                let unwritable = |why| StoreError::Unwritable { path: path.clone(), why };
                self.file.replace(&text.map_err(unwritable)?)
            }
        }
    }

    /// Removes what was kept elsewhere than in `place`, so that it is not taken for the newer.
    ///
    /// # Errors
    /// [`StoreError`]; it is still there.
    pub(super) fn forget_other_than(&self, place: &Place) -> Result<(), StoreError> {
        match (place, self.which) {
            (Place::Keyring, _) => self.file.remove(),
            (Place::File(_), TokenStore::Auto) => match self.keyring.remove() {
                Err(StoreError::NoKeyring { .. }) => Ok(()),
                result => result,
            },
            (Place::File(_), TokenStore::Keyring | TokenStore::File) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::sample;
    use super::*;

    #[test]
    fn a_file_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(TokenStore::File, "a", dir.path());
        assert!(store.load().unwrap().is_none());
        let place = store.choose().unwrap();
        store.save(&sample("one"), &place).unwrap();
        let (kept, found) = store.load().unwrap().unwrap();
        assert_eq!((kept.refresh_token.expose(), &found), ("one", &place));
        assert_eq!(place, Place::File(dir.path().join("a.token")));
        std::fs::write(dir.path().join("a.token"), "{").unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("only a part of it"), "{error}");
    }

    #[test]
    fn others_wait_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(TokenStore::File, "a", dir.path());
        let held = store.lock().unwrap();
        let other = File::open(dir.path().join("a.token-lock")).unwrap();
        assert!(other.try_lock().is_err());
        drop(held);
        other.try_lock().unwrap();
    }
}
