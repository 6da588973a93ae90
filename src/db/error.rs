//! What can go wrong with the database, one variant for each thing that can be done about it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the database could not do what was asked. What was asked was then not done, not even in part; only when a commit
/// itself fails with [`Error::Sqlite`] or [`Error::NoSpace`] may the whole of it still turn up after a restart.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// Another program held the database for longer than this one waits; try again later.
    #[error(
        "the database is in use by another program, also after a wait of {} s; end that program (sqlite3, a backup), \
         or wait for it",
        super::open::BUSY_TIMEOUT.as_secs()
    )]
    Locked,
    /// The disk is full; works again as soon as there is room.
    #[error("no space is left on the disk that holds the database (daemon.state_dir); free some, nothing was lost")]
    NoSpace,
    /// A newer postkeep has written the database; it was not touched.
    #[error(
        "the database has schema {found}, and this postkeep knows schemas up to {known}: a newer postkeep has written \
         it. Install that one again, or move the database aside; it was not touched"
    )]
    Newer {
        /// The schema of the file.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// The file is damaged; somebody has to move it aside.
    #[error(
        "the database {} is damaged ({text}). Move it aside, together with the files of the same name that end in -wal \
         and -shm, and sync again: mails and server are then matched by their content, and no mail is lost",
        file.display()
    )]
    Corrupt {
        /// The database.
        file: PathBuf,
        /// What was found.
        text: String,
    },
    /// The directory or the file could not be made or protected.
    #[error("could not {what}: {source}")]
    File {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Anything else that SQLite refused: a broken disk, missing permissions, a row that breaks a rule.
    #[error("could not {what}: {source}")]
    Sqlite {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The database thread has ended, because a closure panicked; only a restart helps.
    #[error("the database was closed by an internal error that was reported before; restart postkeep")]
    Stopped,
}

impl Error {
    /// Returns the error for what SQLite reported of the database `file` while it should `what`.
    pub(super) fn sqlite(source: rusqlite::Error, what: &str, file: &Path) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
        // A value that cannot be read back was not written by this program.
        let unreadable = matches!(
            source,
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)
        );
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DiskFull) => Self::NoSpace,
            // SQLite says "full" only for a write: a full disk also fails to grow the index of the WAL, or to sync.
            Some(ErrorCode::SystemIoFailure) if is_full(file) => Self::NoSpace,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::corrupt(file, &source),
            _ if unreadable => Self::corrupt(file, &format_args!("{what}: {source}")),
            _ => Self::Sqlite { what: format!("{what} in the database {}", file.display()), source },
        }
    }

    /// Returns the error for damage in `file`.
    pub(super) fn corrupt(file: &Path, text: &dyn std::fmt::Display) -> Self {
        Self::Corrupt { file: file.to_owned(), text: text.to_string() }
    }

    /// Returns the error for what the system reported of `path` while it should `what`.
    pub(super) fn file(source: io::Error, what: &str, path: &Path) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull => Self::NoSpace,
            _ => Self::File { what: format!("{what} {}", path.display()), source },
        }
    }
}

/// Tells whether less is free on the disk of `file` than the smallest thing that SQLite may have wanted to write.
fn is_full(file: &Path) -> bool {
    /// The index of the WAL grows by 32 KiB.
    const STEP: u64 = 32 * 1024;
    rustix::fs::statvfs(file).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < STEP)
}
