//! The marker in a root: by it a root is known to be the one that the database was made with.

use std::os::fd::BorrowedFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::failed;
use super::{Error, sys};

/// The file in the root.
pub(super) const FILE: &str = ".postkeep";

const LARGEST: u64 = 4096;

const COMMENT: &str = "\
# postkeep knows by this file that the directory is the one it keeps, and not an empty mount point or an old copy.
# Leave it where it is. If you restored the directory from a backup, restore this file with it.
";

/// Says which account a root belongs to, and which state of the database it was last kept with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Marker {
    /// The account's name in the configuration.
    pub account: String,
    /// Counts up with the database; an older one means that a backup was restored.
    pub generation: u64,
    /// Drawn when the database was made; another one means that this is another mirror.
    pub nonce: String,
}

impl Marker {
    /// Reads the marker of a root; `None` if there is none.
    pub(super) fn load(root: BorrowedFd<'_>, path: &Path) -> Result<Option<Self>, Error> {
        let foreign = |why: String| Error::Foreign { path: path.join(FILE), why };
        let bytes = match sys::read_small(root, FILE, LARGEST) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => return Err(foreign(error.to_string())),
        };
        let text = String::from_utf8(bytes).map_err(|_| foreign("it is no text".to_owned()))?;
        toml::from_str(&text).map(Some).map_err(|error| foreign(error.message().to_owned()))
    }

    /// Writes the marker of a root, durably and as a whole.
    pub(super) fn save(&self, root: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let path = path.join(FILE);
        let text = toml::to_string(self)
            .map_err(|error| Error::Foreign { path: path.clone(), why: format!("it cannot be written: {error}") })?;
        crate::step::before("set marker");
        sys::replace_small(root, FILE, format!("{COMMENT}{text}").as_bytes()).map_err(failed("write", &path))
    }
}
