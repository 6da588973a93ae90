//! A large mailbox is walked over in order, and completely; and not at all for what is asked about a few messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::db::open;

const MESSAGES: u32 = 100_000;

/// Returns a number that no other `n` gives, in no order.
fn mixed(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

#[test]
fn a_hundred_thousand_links_come_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(&directory.path().join("x.sqlite3")).unwrap();
    let (m, other) = db.commit_now(|tx| Ok((mailbox(tx, "INBOX"), mailbox(tx, "Sent")))).unwrap();
    for start in (1..=MESSAGES).step_by(10_000) {
        db.commit_now(move |tx| {
            for n in start..start + 10_000 {
                let name = name(&format!("{:010}.M{n}P77.host.example", mixed(n)));
                let state = LinkState::Synced { uid: uid(n), name, flags: flags((n % 64) as u8, "") };
                let at = if n % 1000 == 0 { other } else { m };
                tx.insert_link(at, &NewLink { state, ..synced(n) })?;
            }
            Ok(())
        })
        .unwrap();
    }
    db.read_now(move |tx| {
        let (mut last, mut rows) = (Vec::new(), 0);
        tx.links_by_name(m, &mut |row| {
            assert!(row.name > last.as_slice());
            last.clear();
            last.extend_from_slice(row.name);
            rows += 1;
        })?;
        assert_eq!(rows, MESSAGES - MESSAGES / 1000);
        let expected = || (1..=MESSAGES).filter(|n| n % 1000 != 0);
        let mut left = expected();
        tx.each_uid(m, &mut |u, bits, words, _, stage| {
            let n = left.next().unwrap();
            assert_eq!((u, bits, words, stage), (uid(n), (n % 64) as u8, "", Stage::Synced));
        })?;
        assert_eq!(left.next(), None);
        let mut left = expected();
        tx.links_by_uid(m, &mut |link| assert_eq!(link.uid().map(Uid::get), left.next()))?;
        assert_eq!(left.next(), None);
        assert_eq!(tx.count(m)?.synced, expected().count() as u64);
        Ok(())
    })
    .unwrap();
}

fn ignore<T>(_: T) {}

#[test]
fn what_every_pass_asks_walks_over_no_mailbox() {
    const LINKS: u32 = 3000;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.sqlite3");
    let fill = |tx: &Tx<'_>| {
        let m = mailbox(tx, "INBOX");
        (1..=LINKS).try_for_each(|n| tx.insert_link(m, &synced(n)).map(|_| ()))?;
        Ok(m)
    };
    let m = Db::open(&file).unwrap().commit_now(fill).unwrap();
    let mut conn = open::open(&file).unwrap();
    let steps = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&steps);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    conn.progress_handler(1, Some(count)).unwrap();
    let transaction = conn.transaction().unwrap();
    let tx = Tx { conn: &transaction, file: &file, writable: false };
    let name = MailboxName::from("INBOX");
    let walks = |ask: &dyn Fn()| {
        let before = steps.load(Ordering::Relaxed);
        ask();
        steps.load(Ordering::Relaxed) - before > LINKS / 2
    };
    assert!(walks(&|| ignore(tx.count_uids(m).unwrap())), "what walks is noticed");
    let table: [(&str, &dyn Fn()); 8] = [
        ("pending", &|| ignore(tx.pending(m).unwrap())),
        ("skipped", &|| ignore(tx.skipped(m).unwrap())),
        ("again", &|| ignore(tx.again(m).unwrap())),
        ("held", &|| ignore(tx.held(m).unwrap())),
        ("hold", &|| ignore(tx.mailbox_hold(m).unwrap())),
        ("removals", &|| ignore(tx.removals_since(&name, 0).unwrap())),
        ("renumberings", &|| ignore(tx.renumberings_since(&name, 0).unwrap())),
        ("uids", &|| ignore(tx.links_of_uids(m, &[uid(7)].into_iter().collect()).unwrap())),
    ];
    for (what, ask) in table {
        assert!(!walks(ask), "{what}");
    }
}
