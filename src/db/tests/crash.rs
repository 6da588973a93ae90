//! A process that is killed, or a disk that kept a part, leaves the old state or the new one, never a mixture.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::files::DIRECTORY;
use super::*;
use crate::model::{Cursor, UidValidity};

/// How many messages a step adds: enough that it touches many pages.
const BATCH: u32 = 30;

/// Makes the n-th step: a commit that changes every table in a way that [`state`] can check.
fn step(db: &Db, n: u32) -> Result<(), Error> {
    db.commit_now(move |tx| {
        let mut account = tx.account()?;
        account.generation = n.into();
        tx.set_account(&account)?;
        let mut found = match tx.mailboxes()?.pop() {
            Some(found) => found,
            None => tx.mailbox(mailbox(tx, "INBOX"))?.unwrap(),
        };
        let uid_validity = UidValidity::new(1).unwrap();
        let (uid_next, highest_mod_seq, unseen) = (uid(n * BATCH + 1), None, None);
        found.cursor = Some(Cursor { uid_validity, uid_next, highest_mod_seq, messages: n * BATCH, unseen });
        tx.update_mailbox(&found)?;
        for k in (n - 1) * BATCH + 1..=n * BATCH {
            tx.insert_link(found.id, &synced(k))?;
        }
        let (at, op, cause) = (n.into(), "op".into(), "cause".into());
        tx.journal(&Entry { at, mailbox: found.name, op, cause, kind: "download".into(), kept: None })
    })
}

/// Opens the database and returns how many steps it has seen; panics if the tables do not agree.
fn state(file: &Path) -> u32 {
    let db = Db::open(file).unwrap();
    let steps = db
        .read_now(|tx| {
            let steps = tx.account()?.generation;
            let journal: Vec<u64> = tx.entries(None, None)?.iter().map(|e| e.at as u64).collect();
            assert_eq!(journal, (1..=steps).collect::<Vec<_>>());
            let mailboxes = tx.mailboxes()?;
            assert_eq!(mailboxes.len(), usize::from(steps > 0));
            for mailbox in mailboxes {
                assert_eq!(u64::from(mailbox.cursor.unwrap().messages), steps * u64::from(BATCH));
                assert_eq!(tx.count(mailbox.id)?.synced, steps * u64::from(BATCH));
            }
            Ok(steps)
        })
        .unwrap();
    drop(db);
    assert_eq!(integrity(file), "ok");
    steps.try_into().unwrap()
}

/// Starts this test once more, as a process that makes steps in `directory`.
fn child(directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["db::tests::crash::a_killed_process_leaves_the_old_or_the_new", "--exact", "--nocapture"]);
    command.env(DIRECTORY, directory).stdout(Stdio::piped());
    command
}

#[test]
fn a_killed_process_leaves_the_old_or_the_new() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let db = Db::open(&Path::new(&directory).join("x.sqlite3")).unwrap();
        let from = db.read_now(|tx| tx.account()).unwrap().generation as u32;
        let last = if std::env::var_os("POSTKEEP_CRASH_AT").is_some() { 3 } else { u32::MAX / BATCH };
        for n in from + 1..=last {
            step(&db, n).unwrap();
            println!("\nmade {n}");
        }
        return;
    }
    // Right before each commit: the six migrations, then three steps. What was not committed is not there.
    for at in 1..=9 {
        let directory = tempfile::tempdir().unwrap();
        let status = child(directory.path()).env("POSTKEEP_CRASH_AT", at.to_string()).output().unwrap().status;
        assert_eq!(status.signal(), Some(9));
        assert_eq!(state(&directory.path().join("x.sqlite3")), u32::saturating_sub(at, 7));
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(child(directory.path()).env("POSTKEEP_CRASH_AT", "10").output().unwrap().status.success());
    assert_eq!(state(&directory.path().join("x.sqlite3")), 3);

    // At any moment, again and again on what the last one left. What was reported as made is there.
    let directory = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let mut running = child(directory.path()).spawn().unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut made = lines.filter_map(|line| line.strip_prefix("made ").map(|n| n.parse::<u32>().unwrap()));
        let reported = made.nth(round).unwrap();
        // Some way into a later step, another way each time.
        for n in 0..round * 20_000 {
            std::hint::black_box(n);
        }
        running.kill().unwrap();
        let reported = made.last().unwrap_or(reported);
        assert_eq!(running.wait().unwrap().signal(), Some(9));
        let found = state(&directory.path().join("x.sqlite3"));
        assert!(found == reported || found == reported + 1, "{found} steps, {reported} were reported");
    }
}

#[test]
fn a_wal_of_which_the_disk_kept_a_part_leaves_an_earlier_state() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let db = Db::open(&path("x.sqlite3")).unwrap();
    (1..=8).for_each(|n| step(&db, n).unwrap());
    let (main, wal) = (fs::read(path("x.sqlite3")).unwrap(), fs::read(path("x.sqlite3-wal")).unwrap());
    drop(db);
    let mut last = 0;
    for kept in (0..=wal.len()).step_by(8_191).chain([wal.len()]) {
        // The rest is missing, or is something else.
        for rest in [0, wal.len() - kept] {
            fs::write(path("y.sqlite3"), &main).unwrap();
            fs::write(path("y.sqlite3-wal"), [&wal[..kept], &vec![0x5a; rest]].concat()).unwrap();
            let _ = fs::remove_file(path("y.sqlite3-shm"));
            let found = state(&path("y.sqlite3"));
            assert!(found >= last, "{found} steps of {kept} bytes, {last} of fewer");
            last = found;
        }
    }
    assert_eq!(last, 8);
}
