//! A disk that is full: said so, nothing lost, and it goes on when there is room.

use std::fs;
use std::process::Command;

use super::files::{DIRECTORY, again};
use super::*;

fn mount(arguments: &[&str], at: &Path) {
    let mut command = Command::new("mount");
    assert!(command.args(arguments).arg(at).status().unwrap().success(), "could not mount: {arguments:?}");
}

/// Adds batches of messages from `from` on, until that fails; returns the first that was not added, and the error.
fn fill(db: &Db, from: u32) -> (u32, Error) {
    for start in (from..).step_by(100) {
        let added = db.commit_now(move |tx| {
            let m = tx.mailboxes()?[0].id;
            (start..start + 100).try_for_each(|n| tx.insert_link(m, &synced(n)).map(|_| ()))
        });
        if let Err(error) = added {
            return (start, error);
        }
        assert!(start < 100_000, "the disk did not get full");
    }
    unreachable!()
}

fn count(db: &Db) -> u64 {
    db.read_now(|tx| tx.count(tx.mailboxes()?[0].id)).unwrap().synced
}

/// Runs in name spaces of its own, where it is allowed to mount a small disk, which goes away with it.
#[test]
fn a_full_disk_is_said_and_survived() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        let directory = tempfile::tempdir().unwrap();
        let start = ["unshare", "--user", "--map-root-user", "--mount"];
        assert!(again("db::tests::space::a_full_disk_is_said_and_survived", directory.path(), &start));
        return;
    };
    let disk = Path::new(&directory);
    mount(&["-t", "tmpfs", "-o", "size=1m", "none"], disk);
    let file = disk.join("x.sqlite3");
    let db = Db::open(&file).unwrap();
    db.commit_now(|tx| Ok(mailbox(tx, "INBOX"))).unwrap();
    let (next, error) = fill(&db, 1);
    assert!(next > 100 && matches!(error, Error::NoSpace), "{error:?}");
    assert_eq!(count(&db), u64::from(next - 1));
    // Still full: another try is another refusal, and what is there can be read.
    assert!(matches!(fill(&db, next), (n, Error::NoSpace) if n >= next));
    let there = count(&db);

    mount(&["-o", "remount,size=2m"], disk);
    let next = u32::try_from(there).unwrap() + 1;
    let (end, error) = fill(&db, next);
    assert!(end > next && matches!(error, Error::NoSpace), "{error:?}");
    let there = count(&db);
    drop(db);

    // Opened on a disk without a free byte, when not even the index of the WAL is there any more.
    mount(&["-o", "remount,size=8m"], disk);
    drop(Db::open(&file).unwrap());
    assert_eq!(fs::read_dir(disk).unwrap().count(), 1);
    let ballast = disk.join("ballast");
    let error = fs::write(&ballast, vec![0; 8 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    for path in [file.clone(), disk.join("new.sqlite3")] {
        let opened = Db::open(&path).and_then(|db| db.commit_now(|tx| Ok(mailbox(tx, "Sent"))));
        assert!(matches!(opened, Err(Error::NoSpace)), "{}: {opened:?}", path.display());
    }
    fs::remove_file(&ballast).unwrap();
    let db = Db::open(&file).unwrap();
    assert_eq!(count(&db), there);
    db.commit_now(|tx| Ok(mailbox(tx, "Sent"))).unwrap();
    Db::open(&disk.join("new.sqlite3")).unwrap();
    drop(db);
    assert_eq!(integrity(&file), "ok");
}
