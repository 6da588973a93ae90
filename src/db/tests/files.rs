//! Files that are new, newer, damaged, in use, or not private.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rusqlite::Connection;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn sidecar(file: &Path, end: &str) -> std::path::PathBuf {
    file.with_file_name(format!("{}{end}", file.file_name().unwrap().to_str().unwrap()))
}

/// Runs the test called `test` once more, in a process of its own started by `start` (a program and its arguments) with
/// `DIRECTORY` set to `directory`, and returns whether it passed.
pub(super) fn again(test: &str, directory: &Path, start: &[&str]) -> bool {
    let mut command = Command::new(start[0]);
    command.args(&start[1..]).arg(std::env::current_exe().unwrap());
    let output = command.args([test, "--exact"]).env(DIRECTORY, directory).output().unwrap();
    // A test of another name would be no test at all, and pass.
    let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
    assert!(ran, "{}", String::from_utf8_lossy(&output.stderr));
    print!("{}", String::from_utf8_lossy(&output.stdout));
    output.status.success()
}

/// Tells a test that runs in a process of its own where to work.
pub(super) const DIRECTORY: &str = "POSTKEEP_TEST_DIRECTORY";

#[test]
fn files_are_private_under_any_umask() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let directory = Path::new(&directory).join("a").join("b");
        let file = directory.join("x.sqlite3");
        let db = Db::open(&file).unwrap();
        db.commit_now(|tx| Ok(mailbox(tx, "INBOX"))).unwrap();
        assert_eq!((mode(&directory), mode(directory.parent().unwrap())), (0o700, 0o700));
        for path in [file.clone(), sidecar(&file, "-wal"), sidecar(&file, "-shm")] {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        return;
    }
    for umask in ["000", "022", "077", "777"] {
        let directory = tempfile::tempdir().unwrap();
        let script = format!("umask {umask}; exec \"$@\"");
        let start = ["sh", "-c", &script, "sh"];
        assert!(again("db::tests::files::files_are_private_under_any_umask", directory.path(), &start), "{umask}");
    }
}

#[test]
fn a_file_that_others_can_read_is_closed_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.sqlite3");
    drop(Db::open(&file).unwrap());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(Db::open(&file).unwrap());
    // The directory was there before, and may be for others too.
    assert_eq!((mode(&file), mode(directory.path())), (0o600, 0o755));
}

#[test]
fn a_newer_database_is_refused_and_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.sqlite3");
    drop(Db::open(&file).unwrap());
    let refused = |file: &Path| {
        let before = fs::read(file).unwrap();
        let wal = fs::read(sidecar(file, "-wal")).unwrap_or_default();
        match Db::open(file).unwrap_err() {
            Error::Newer { found: 900, known: 6 } => {}
            error => panic!("{error}"),
        }
        assert!(fs::read(file).unwrap() == before && fs::read(sidecar(file, "-wal")).unwrap_or_default() == wal);
    };
    let newer = Connection::open(&file).unwrap();
    newer.execute_batch("CREATE TABLE later (x); PRAGMA user_version = 900").unwrap();
    // Once with the new version only in the WAL, as after a crash of the newer program, and once in the file.
    let crashed = directory.path().join("y.sqlite3");
    fs::copy(&file, &crashed).unwrap();
    fs::copy(sidecar(&file, "-wal"), sidecar(&crashed, "-wal")).unwrap();
    assert!(fs::metadata(sidecar(&crashed, "-wal")).unwrap().len() > 0);
    refused(&crashed);
    refused(&file);
    drop(newer);
    refused(&file);
}

#[test]
fn what_is_no_database_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.sqlite3");
    let garbage = "this is no database, however long it is made ".repeat(100);
    fs::write(&file, &garbage).unwrap();
    let error = Db::open(&file).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }) && text.contains("x.sqlite3") && text.contains("aside"), "{text}");
    assert_eq!(fs::read_to_string(&file).unwrap(), garbage);
}

/// Returns a database file of many pages, the later half overwritten: there are links, the schema is before.
fn overwritten(directory: &Path) -> std::path::PathBuf {
    let file = directory.join("x.sqlite3");
    let db = Db::open(&file).unwrap();
    db.commit_now(|tx| {
        let m = mailbox(tx, "INBOX");
        (1..500).try_for_each(|n| tx.insert_link(m, &synced(n)).map(|_| ()))
    })
    .unwrap();
    drop(db);
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn damage_is_found_when_it_is_met() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(&overwritten(directory.path())).unwrap();
    let error = db.read_now(|tx| tx.links_by_uid(tx.mailboxes()?[0].id, &mut |_| {})).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn damage_is_looked_for_after_an_unclean_stop() {
    let directory = tempfile::tempdir().unwrap();
    let file = overwritten(directory.path());
    // A WAL is left over, of something else.
    fs::write(sidecar(&file, "-wal"), [0; 100]).unwrap();
    let before = fs::read(&file).unwrap();
    let error = Db::open(&file).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn an_empty_file_and_a_missing_wal_are_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.sqlite3");
    fs::write(&file, "").unwrap();
    drop(Db::open(&file).unwrap());
    // The main file was moved aside, its WAL was not.
    fs::remove_file(&file).unwrap();
    fs::write(sidecar(&file, "-wal"), [3; 9000]).unwrap();
    let db = Db::open(&file).unwrap();
    assert_eq!(db.read_now(|tx| tx.mailboxes()).unwrap(), []);
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.sqlite3");
    let db = Db::open(&file).unwrap();
    db.commit_now(|tx| Ok(mailbox(tx, "INBOX"))).unwrap();
    // A second program looks on while the first has it.
    let other = Db::open(&file).unwrap();
    assert_eq!(other.read_now(|tx| tx.mailboxes()).unwrap().len(), 1);
    drop((db, other));
    // The last one to close leaves one file.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(Db::open(&file).unwrap().read_now(|tx| tx.mailboxes()).unwrap().len(), 1);
}

#[test]
fn a_database_that_another_program_writes_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.sqlite3");
    let db = Db::open(&file).unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // One who writes waits in vain, one who reads does not wait at all.
    let error = db.commit_now(|tx| Ok(mailbox(tx, "INBOX"))).unwrap_err();
    assert!(matches!(error, Error::Locked), "{error}");
    assert_eq!(db.read_now(|tx| tx.mailboxes()).unwrap(), []);
    other.execute_batch("ROLLBACK").unwrap();
    db.commit_now(|tx| Ok(mailbox(tx, "INBOX"))).unwrap();
}

#[test]
fn a_place_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    fs::write(&blocked, "").unwrap();
    let error = Db::open(&blocked.join("x.sqlite3")).unwrap_err();
    assert!(matches!(error, Error::File { .. }) && error.to_string().contains("file"), "{error}");
    let error = Db::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
}

#[test]
fn the_connection_is_durable_and_small() {
    let directory = tempfile::tempdir().unwrap();
    let conn = open::open(&directory.path().join("x.sqlite3")).unwrap();
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), number("synchronous"), number("foreign_keys")), ("wal", 2, 1));
    assert_eq!((number("cache_size"), number("mmap_size"), number("busy_timeout")), (-2048, 0, 5000));
}
