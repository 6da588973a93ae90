//! Opens a database file: private, durable, of the right schema, and small in memory.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{Error, migrate};

/// How long another program may hold the database before this one gives up.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What SQLite may cache, in KiB (the pragma takes it as a negative number).
const CACHE_KIB: i32 = 2048;

/// How many pages of 4 KiB the WAL takes before it is written back.
const CHECKPOINT_PAGES: i32 = 1000;

/// To how many bytes the WAL file is cut after a large transaction: those pages.
const WAL_BYTES: i32 = CHECKPOINT_PAGES * 4096;

/// How many prepared statements are kept: all that this module has.
const STATEMENTS: usize = 64;

/// Opens the database `file`; makes it, and its directory, if there is none.
pub(super) fn open(file: &Path) -> Result<Connection, Error> {
    make_private(file)?;
    let unclean = fs::metadata(wal(file)).is_ok_and(|wal| wal.len() > 0);
    let failed = |error| Error::sqlite(error, "open a connection", file);
    // Not SQLITE_OPEN_URI, which would give a `?` in the path a meaning.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(file, flags).map_err(failed)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    // A database that is refused is left as it is: closing it must not write the WAL back.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    migrate::refuse_newer(&conn, file)?;
    if unclean {
        check(&conn, file)?;
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    configure(&conn).map_err(failed)?;
    migrate::migrate(&mut conn, file)?;
    Ok(conn)
}

/// Opens a database that is gone when it is closed.
pub(super) fn memory() -> Result<Connection, Error> {
    let file = Path::new(":memory:");
    let failed = |error| Error::sqlite(error, "open a connection", file);
    let mut conn = Connection::open_in_memory().map_err(failed)?;
    configure(&conn).map_err(failed)?;
    migrate::migrate(&mut conn, file)?;
    Ok(conn)
}

/// Opens a copy of a database that is gone when it is closed.
pub(super) fn scratch(file: &Path) -> Result<Connection, Error> {
    let failed = |error| Error::sqlite(error, "copy", file);
    // An empty name stands for a temporary database on the disk.
    let mut conn = Connection::open("").map_err(failed)?;
    if file.exists() {
        let original = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        original.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        migrate::refuse_newer(&original, file)?;
        let backup = Backup::new(&original, &mut conn).map_err(failed)?;
        backup.run_to_completion(1000, Duration::ZERO, None).map_err(failed)?;
    }
    configure(&conn).map_err(failed)?;
    migrate::migrate(&mut conn, file)?;
    Ok(conn)
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if !matches!(mode.as_str(), "wal" | "memory" | "delete") {
        // Some network file systems cannot; a rollback journal is as safe, only slower.
        tracing::warn!(mode, "this file system does not support write-ahead logging");
    }
    // The base may lag behind the maildirs, but never lead: a commit is on the disk when it returns.
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Through a mapping, a disk that fails is a signal instead of an error.
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// Looks for damage. Done after a stop that left a WAL: the power may have failed, and disks lie about what they hold.
fn check(conn: &Connection, file: &Path) -> Result<(), Error> {
    let verdict: String = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| Error::sqlite(error, "check for damage", file))?;
    if verdict == "ok" { Ok(()) } else { Err(Error::corrupt(file, &verdict)) }
}

fn wal(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Makes the file, if there is none, and lets nobody but its owner read it; SQLite gives its mode to `-wal` and `-shm`.
fn make_private(file: &Path) -> Result<(), Error> {
    if let Some(directory) = file.parent().filter(|d| !d.as_os_str().is_empty()) {
        make_directory(directory)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(_) => {}
        // By path, not by opening it: to close any descriptor of a file would drop the locks of SQLite on it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::file(error, "create the database", file)),
    }
    restrict(file, 0o600)
}

/// Makes a directory and what is missing above it. One that exists is left as it is: it may not be ours alone.
fn make_directory(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => restrict(path, 0o700),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(Error::file(error, "create the directory", path)),
    }
}

/// Sets the mode, if it is another one: the umask may have taken bits, another program may have added some.
fn restrict(path: &Path, mode: u32) -> Result<(), Error> {
    let current = fs::metadata(path).map_err(|error| Error::file(error, "look at", path))?.permissions().mode();
    if current & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| Error::file(error, "protect", path))
}
