//! What can go wrong on the disk, a variant for each reaction.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::{UniqueName, misleads};

/// A failure on the disk. Whatever it was, no message was lost by it and none stands half written under its name.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// No space or quota is left. Retry later: it goes on by itself.
    #[error(
        "could not {what} {}: no space is left there; nothing is lost, nothing half written is kept, \
         and it goes on as soon as there is space",
        shown(path)
    )]
    NoSpace {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// The file system is mounted read-only. Hold the account.
    #[error("could not {what} {}: its file system is read-only; nothing was changed", shown(path))]
    ReadOnly {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// A file or directory went away meanwhile. Look again; this proves nothing to be gone.
    #[error("could not {what} {}: it is not there any more; nothing was deleted because of that", shown(path))]
    Missing {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// The root's marker cannot be trusted. Hold the account.
    #[error("the marker {} is not usable: {why}; nothing in this directory was changed", shown(path))]
    Foreign {
        /// The marker.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A maildir lacks one of its three directories. Hold the mailbox.
    #[error(
        "the maildir {} has no directory {lacks}/: nothing is done in it until that is back; \
         if {lacks}/ was empty, make it by hand",
        shown(path)
    )]
    Broken {
        /// The maildir.
        path: PathBuf,
        /// The name of the directory that is not there.
        lacks: &'static str,
    },
    /// Two mailboxes would share a directory. Hold the mailbox.
    #[error(
        "{} and another mailbox are one directory here, since this file system does not tell upper from lower case; \
         rename one of the two on the server",
        shown(path)
    )]
    Collision {
        /// The directory of the mailbox that came second.
        path: PathBuf,
    },
    /// Something is already where something new should go. It was left alone; choose another name.
    #[error("{} is already there and was left alone", shown(path))]
    Exists {
        /// The file or directory.
        path: PathBuf,
    },
    /// Messages of a batch whose names were taken; the others were delivered. Deliver these again under other names.
    #[error("{} already has messages called {}; they were left alone", shown(path), joined(names))]
    Taken {
        /// The maildir.
        path: PathBuf,
        /// The names.
        names: Vec<UniqueName>,
    },
    /// This one file is no message that can be read. Skip it.
    #[error("{} cannot be taken as a message: {why}; it was left alone", shown(path))]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// A maildir cannot go, because it holds something that is no message. Its messages are in the graveyard.
    #[error("{} stays, because it holds more than messages; its messages are in the graveyard", shown(path))]
    Occupied {
        /// The maildir.
        path: PathBuf,
    },
    /// The system gave no random number. Retry later.
    #[error("no name for a new message could be made: the system gave no random number ({0})")]
    Random(getrandom::Error),
    /// Anything else. Retry later.
    #[error("could not {what} {}: {source}; nothing was deleted because of that", shown(path))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Returns the conversion of a system error that came when it was tried to `what` (a verb) the file `path`.
pub(super) fn failed<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Error + use<E> {
    let path = path.to_owned();
    move |error| {
        let source = error.into();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Error::NoSpace { what, path },
            Some(Errno::ROFS) => Error::ReadOnly { what, path },
            Some(Errno::NOENT) => Error::Missing { what, path },
            Some(Errno::EXIST) => Error::Exists { path },
            Some(Errno::LOOP) => Error::Io {
                what,
                path,
                source: io::Error::other("a symbolic link is in the way, and none is followed"),
            },
            _ => Error::Io { what, path, source },
        }
    }
}

/// Returns a path as text that is safe to print: names come from servers and may hold escape sequences.
pub(super) fn shown(path: &Path) -> String {
    let escape = |c: char| if misleads(c) { c.escape_default().to_string() } else { c.to_string() };
    path.to_string_lossy().chars().map(escape).collect()
}

fn joined(names: &[UniqueName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reaction_has_its_variant_and_each_text_names_the_path() {
        let path = Path::new("/Mail/esc\u{1b}[31m");
        type Is = fn(&Error) -> bool;
        let table: [(Errno, Is); 7] = [
            (Errno::NOSPC, |e| matches!(e, Error::NoSpace { .. })),
            (Errno::DQUOT, |e| matches!(e, Error::NoSpace { .. })),
            (Errno::ROFS, |e| matches!(e, Error::ReadOnly { .. })),
            (Errno::NOENT, |e| matches!(e, Error::Missing { .. })),
            (Errno::EXIST, |e| matches!(e, Error::Exists { .. })),
            (Errno::LOOP, |e| matches!(e, Error::Io { .. })),
            (Errno::IO, |e| matches!(e, Error::Io { .. })),
        ];
        for (errno, expected) in table {
            let error = failed("list", path)(errno);
            assert!(expected(&error), "{error:?}");
            assert!(error.to_string().contains("/Mail/esc\\u{1b}[31m"), "{error}");
        }
    }
}
