//! A large mailbox is walked over in order, and completely.

use super::*;

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
