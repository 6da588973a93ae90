//! Transactions, and the thread that runs them.

use std::sync::mpsc;
use std::time::Duration;

use super::*;

fn mailboxes(db: &Db) -> usize {
    db.read_now(|tx| Ok(tx.mailboxes()?.len())).unwrap()
}

#[test]
fn an_error_takes_everything_back() {
    let db = Db::memory().unwrap();
    let error = db.commit_now(|tx| {
        mailbox(tx, "INBOX");
        assert_eq!(tx.mailboxes()?.len(), 1);
        Err::<(), _>(Error::Stopped)
    });
    assert!(matches!(error, Err(Error::Stopped)));
    assert_eq!(mailboxes(&db), 0);
    // A broken rule in the middle, too.
    let broken = db.commit_now(|tx| {
        mailbox(tx, "INBOX");
        tx.insert_mailbox(&NewMailbox { name: "INBOX".into(), raw: None, path: None })
    });
    let text = broken.unwrap_err().to_string();
    assert_eq!(
        text,
        "could not add the mailbox INBOX in the database :memory:: UNIQUE constraint failed: mailbox.name"
    );
    assert_eq!(mailboxes(&db), 0);
    db.commit_now(|tx| Ok(mailbox(tx, "INBOX"))).unwrap();
    assert_eq!(mailboxes(&db), 1);
}

#[test]
fn reading_changes_nothing() {
    let db = Db::memory().unwrap();
    let new = NewMailbox { name: "INBOX".into(), raw: None, path: None };
    let refused = db.read_now(move |tx| tx.insert_mailbox(&new)).unwrap_err();
    assert!(refused.to_string().ends_with("a change was asked for where only reading is allowed"), "{refused}");
    assert_eq!(mailboxes(&db), 0);
}

#[test]
fn a_transaction_that_ended_takes_no_more_changes() {
    let db = Db::memory().unwrap();
    let late = db.commit_now(|tx| {
        mailbox(tx, "A");
        // As a disk that is full does it.
        tx.conn.execute_batch("ROLLBACK").unwrap();
        tx.insert_mailbox(&NewMailbox { name: "B".into(), raw: None, path: None })
    });
    assert!(late.unwrap_err().to_string().ends_with("the transaction was already rolled back"));
    assert_eq!(mailboxes(&db), 0);
}

#[test]
fn a_panic_stops_the_database_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.sqlite3");
    let db = Db::open(&file).unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let second = db.clone();
    let queued = std::thread::spawn(move || {
        wait.recv().unwrap();
        second.commit_now(|tx| Ok(mailbox(tx, "late")))
    });
    let panicked = db.commit_now(move |tx| -> Result<(), Error> {
        mailbox(tx, "INBOX");
        go.send(()).unwrap();
        panic!("on purpose");
    });
    assert!(matches!(panicked, Err(Error::Stopped)));
    assert!(matches!(queued.join().unwrap(), Err(Error::Stopped)));
    assert!(matches!(db.read_now(|tx| tx.account()), Err(Error::Stopped)));
    drop(db);
    assert_eq!(mailboxes(&Db::open(&file).unwrap()), 0);
    assert_eq!(integrity(&file), "ok");
}

#[tokio::test]
async fn closures_run_in_order_even_when_nobody_waits() {
    let db = Db::memory().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let blocked = db.commit(move |tx| {
        wait.recv().unwrap();
        Ok(mailbox(tx, "first"))
    });
    let mut blocked = Box::pin(blocked);
    assert!(futures_util::poll!(&mut blocked).is_pending());
    drop(blocked);
    let mut second = Box::pin(db.read(|tx| Ok(tx.mailboxes()?.len())));
    assert!(futures_util::poll!(&mut second).is_pending());
    go.send(()).unwrap();
    assert_eq!(second.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_run_during_a_commit() {
    let db = Db::memory().unwrap();
    let commit = db.commit(|_| {
        // Long enough for an idle runtime to turn its clock forward.
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    });
    tokio::time::timeout(Duration::from_secs(1), commit).await.expect("the clock ran").unwrap();
}

#[tokio::test]
async fn the_last_handle_may_be_dropped_on_the_thread_itself() {
    let db = Db::memory().unwrap();
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let last = db.clone();
    let mut job = Box::pin(db.read(move |_| {
        wait.recv().unwrap();
        drop(last);
        tell.send(()).unwrap();
        Ok(())
    }));
    assert!(futures_util::poll!(&mut job).is_pending());
    drop(job);
    drop(db);
    go.send(()).unwrap();
    told.recv().expect("the thread waited for itself");
}
