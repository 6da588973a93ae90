//! What is written is read back, and found by everything that it can be asked for by.

use proptest::prelude::*;

use super::*;
use crate::db::{HoldCause, Renaming};
use crate::model::{Cursor, Link, LinkId, ModSeq, Side, UidSet, UidValidity};

fn a_uid() -> impl Strategy<Value = Uid> {
    (1..=u32::MAX).prop_map(uid)
}

fn a_name() -> impl Strategy<Value = UniqueName> {
    prop::collection::vec(any::<u8>(), 1..40).prop_map(|bytes| UniqueName::new(&bytes))
}

fn some_flags() -> impl Strategy<Value = Flags> {
    let words = prop::collection::vec("[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~-]{1,12}", 0..4);
    (0u8..64, words).prop_map(|(bits, words)| Flags::from_parts(bits, words.iter().filter_map(|w| Keyword::new(w))))
}

fn a_reason() -> impl Strategy<Value = SkipReason> {
    prop_oneof![
        any::<u64>().prop_map(SkipReason::TooLarge),
        ".*".prop_map(SkipReason::Refused),
        ".*".prop_map(SkipReason::Unusable),
        Just(SkipReason::Kept),
    ]
}

fn a_state() -> impl Strategy<Value = LinkState> {
    prop_oneof![
        (a_uid(), a_name(), some_flags()).prop_map(|(uid, name, flags)| LinkState::Synced { uid, name, flags }),
        (a_uid(), a_name(), some_flags()).prop_map(|(uid, name, flags)| LinkState::Downloading { uid, name, flags }),
        (a_name(), some_flags(), a_uid(), any::<i64>())
            .prop_map(|(name, flags, uid_next, since)| LinkState::Uploading { name, flags, uid_next, since }),
        (a_uid(), a_reason()).prop_map(|(u, reason)| LinkState::Skipped { uid: Some(u), name: None, reason }),
        (a_name(), a_reason()).prop_map(|(n, reason)| LinkState::Skipped { uid: None, name: Some(n), reason }),
        (a_uid(), a_name(), a_reason()).prop_map(|(u, n, reason)| LinkState::Skipped {
            uid: Some(u),
            name: Some(n),
            reason
        }),
    ]
}

fn a_link() -> impl Strategy<Value = NewLink> {
    let key = (any::<[u8; 32]>(), any::<[u8; 32]>(), 0..=u64::MAX / 2).prop_map(|(digest, header, size)| ContentKey {
        digest: Digest(digest),
        fingerprint: Fingerprint { header: Digest(header), size },
    });
    (a_state(), prop::option::of(key), any::<Option<i64>>(), any::<Option<u64>>())
        .prop_map(|(state, content, internal_date, inode)| NewLink { state, content, internal_date, inode })
}

fn link(id: LinkId, new: NewLink) -> Link {
    Link { id, state: new.state, content: new.content, internal_date: new.internal_date, inode: new.inode }
}

/// Everything that a link can be found by finds it.
fn found(tx: &Tx<'_>, mailbox: MailboxId, link: &Link) {
    let only = std::slice::from_ref(link);
    assert_eq!(tx.link(link.id).unwrap().as_ref(), Some(link));
    let (mut by_uid, mut uids, mut names) = (Vec::new(), Vec::new(), Vec::new());
    tx.links_by_uid(mailbox, &mut |l| by_uid.push(l)).unwrap();
    tx.each_uid(mailbox, &mut |uid, bits, words, id, stage| uids.push((uid, flags(bits, words), id, stage))).unwrap();
    tx.links_by_name(mailbox, &mut |row| {
        names.push((UniqueName::new(row.name), flags(row.flags, row.keywords), row.inode, row.id, row.state));
    })
    .unwrap();
    let (stage, set) = match &link.state {
        LinkState::Synced { flags, .. } => (Stage::Synced, flags.clone()),
        LinkState::Downloading { flags, .. } => (Stage::Downloading, flags.clone()),
        LinkState::Uploading { flags, .. } => (Stage::Uploading, flags.clone()),
        LinkState::Skipped { .. } => (Stage::Skipped, Flags::new()),
    };
    match link.uid() {
        Some(uid) => {
            assert_eq!(tx.links_of_uids(mailbox, &UidSet::range(uid, uid)).unwrap(), only);
            assert_eq!((by_uid.as_slice(), uids), (only, vec![(uid, set.clone(), link.id, stage)]));
        }
        None => assert!(by_uid.is_empty() && uids.is_empty()),
    }
    match link.name() {
        Some(name) => {
            assert_eq!(tx.links_of_names(mailbox, &[name.clone(), name.clone()]).unwrap(), only);
            assert_eq!(names, [(name.clone(), set, link.inode, link.id, stage)]);
        }
        None => assert!(names.is_empty()),
    }
    let is = |stages: &[Stage]| if stages.contains(&stage) { only } else { &[] };
    assert_eq!(tx.pending(mailbox).unwrap(), is(&[Stage::Downloading, Stage::Uploading]));
    assert_eq!(tx.skipped(mailbox).unwrap(), is(&[Stage::Skipped]));
    let one = |s| u64::from(stage == s);
    let (synced, downloading) = (one(Stage::Synced), one(Stage::Downloading));
    let (uploading, skipped) = (one(Stage::Uploading), one(Stage::Skipped));
    assert_eq!(tx.count(mailbox).unwrap(), Counts { synced, downloading, uploading, skipped });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_link_is_read_back(first in a_link(), second in a_link()) {
        fresh(move |tx| {
            let (other, here) = (mailbox(tx, "other"), mailbox(tx, "here"));
            let id = tx.insert_link(here, &first).unwrap();
            found(tx, here, &link(id, first));
            let changed = link(id, second);
            tx.set_link(&changed).unwrap();
            found(tx, here, &changed);
            assert_eq!(tx.count(other).unwrap(), Counts::default());
            tx.delete_link(id).unwrap();
            assert_eq!((tx.link(id).unwrap(), tx.count(here).unwrap()), (None, Counts::default()));
        });
    }
}

#[test]
fn what_is_gone_cannot_be_changed() {
    fresh(|tx| {
        let m = mailbox(tx, "INBOX");
        let id = tx.insert_link(m, &synced(1)).unwrap();
        tx.delete_link(id).unwrap();
        tx.delete_link(id).unwrap();
        assert!(matches!(tx.set_link(&link(id, synced(1))), Err(Error::Sqlite { .. })));
        assert!(matches!(tx.complete_links(&[id]), Err(Error::Sqlite { .. })));
        assert!(matches!(tx.set_flags(id, &flags(1, "")), Err(Error::Sqlite { .. })));
        // An inode is a hint.
        tx.set_inode(id, 5).unwrap();
        // Its number is not given again.
        assert!(tx.insert_link(m, &synced(1)).unwrap() > id);
    });
}

#[test]
fn downloads_are_completed_as_they_were_begun() {
    fresh(|tx| {
        let m = mailbox(tx, "INBOX");
        let begin = |n: u32| {
            let LinkState::Synced { uid, name, flags } = synced(n).state else { unreachable!() };
            let begun = NewLink { state: LinkState::Downloading { uid, name, flags }, ..synced(n) };
            tx.insert_link(m, &begun).unwrap()
        };
        let ids: Vec<LinkId> = (1..=3).map(begin).collect();
        let agreed = tx.insert_link(m, &synced(4)).unwrap();
        let last = begin(5);
        tx.complete_links(&[ids[0], ids[1], last]).unwrap();
        assert!(matches!(tx.link(ids[2]).unwrap().unwrap().state, LinkState::Downloading { .. }));
        tx.complete_links(&[ids[2]]).unwrap();
        let done = (1..).zip([ids[0], ids[1], ids[2], agreed, last]).map(|(n, id)| link(id, synced(n)));
        found_all(tx, m, &done.collect::<Vec<_>>());
        tx.complete_links(&[]).unwrap();
        // These are no downloads, or no more.
        for none in [&[agreed][..], &[ids[0]], &[ids[1], ids[2]]] {
            assert!(matches!(tx.complete_links(none), Err(Error::Sqlite { .. })));
        }
    });
}

#[test]
fn flags_and_inodes_are_changed_alone() {
    fresh(|tx| {
        let m = mailbox(tx, "INBOX");
        let id = tx.insert_link(m, &synced(1)).unwrap();
        let other = tx.insert_link(m, &synced(2)).unwrap();
        tx.set_flags(id, &flags(9, "a b")).unwrap();
        tx.set_inode(id, u64::MAX).unwrap();
        let state = LinkState::Synced { uid: uid(1), name: name("1.host"), flags: flags(9, "a b") };
        let changed = link(id, NewLink { state, inode: Some(u64::MAX), ..synced(1) });
        found_all(tx, m, &[changed, link(other, synced(2))]);
        let begun = LinkState::Downloading { uid: uid(3), name: name("3"), flags: flags(1, "") };
        let begun = tx.insert_link(m, &new(begun)).unwrap();
        assert!(matches!(tx.set_flags(begun, &flags(2, "")), Err(Error::Sqlite { .. })), "not agreed yet");
    });
}

/// The mailbox has these links, in the order of their UIDs, and nothing is pending.
fn found_all(tx: &Tx<'_>, mailbox: MailboxId, links: &[Link]) {
    let mut all = Vec::new();
    tx.links_by_uid(mailbox, &mut |link| all.push(link)).unwrap();
    assert_eq!(all, links);
    assert_eq!(tx.pending(mailbox).unwrap(), []);
    assert_eq!(tx.count(mailbox).unwrap(), Counts { synced: links.len() as u64, ..Counts::default() });
}

#[test]
fn links_are_asked_for_in_sets() {
    fresh(|tx| {
        let (m, other) = (mailbox(tx, "INBOX"), mailbox(tx, "Sent"));
        let ids: Vec<LinkId> = (1..=9).map(|n| tx.insert_link(m, &synced(n)).unwrap()).collect();
        tx.insert_link(other, &synced(3)).unwrap();
        let uids = |links: Vec<Link>| links.iter().map(|l| l.uid().unwrap().get()).collect::<Vec<_>>();
        let mut asked = UidSet::range(uid(3), uid(5));
        asked.extend([uid(1), uid(8), uid(700)]);
        assert_eq!(uids(tx.links_of_uids(m, &asked).unwrap()), [1, 3, 4, 5, 8]);
        assert_eq!(uids(tx.links_of_names(m, &[name("7.host"), name("2.host"), name("no")]).unwrap()), [2, 7]);
        assert_eq!(uids(tx.links_by_ids(&[ids[4], LinkId(999), ids[0]]).unwrap()), [5, 1]);
    });
}

#[test]
fn a_mailbox_is_read_back() {
    fresh(|tx| {
        let raw = |text: &str| Some(text.as_bytes().to_vec());
        let new = NewMailbox { name: "Lists/rust".into(), raw: raw("Lists.rust"), path: Some("Lists/rust".into()) };
        let id = tx.insert_mailbox(&new).unwrap();
        let mut expected = Mailbox {
            id,
            name: new.name,
            raw: new.raw,
            path: new.path,
            cursor: None,
            stamp: None,
            listed_at: None,
            missing_since: None,
            last_complete: None,
            problem: None,
            must_list: true,
            must_scan: true,
            swept_at: None,
            sweeps: false,
            directory: None,
        };
        assert_eq!(tx.mailbox(id).unwrap().as_ref(), Some(&expected));
        let cursors = [(None, None), (ModSeq::new(u64::MAX / 2).ok(), None), (None, Some(0)), (None, Some(u32::MAX))];
        for (highest_mod_seq, unseen) in cursors {
            let (uid_validity, uid_next) = (UidValidity::new(u32::MAX.into()).unwrap(), Uid::MAX);
            expected.cursor = Some(Cursor { uid_validity, uid_next, highest_mod_seq, messages: 0, unseen });
            tx.update_mailbox(&expected).unwrap();
            assert_eq!(tx.mailbox(id).unwrap().as_ref(), Some(&expected));
        }
        expected = Mailbox {
            name: "INBOX".into(),
            raw: None,
            // The root itself: where INBOX is in the layout maildir++.
            path: Some("".into()),
            cursor: None,
            stamp: Some([i64::MIN, -1, 0, i64::MAX]),
            listed_at: Some(1),
            missing_since: Some(2),
            last_complete: Some(3),
            problem: Some("no".into()),
            must_list: false,
            must_scan: false,
            swept_at: Some(15),
            sweeps: true,
            directory: Some(u64::MAX),
            ..expected
        };
        tx.update_mailbox(&expected).unwrap();
        let second = mailbox(tx, "Archive");
        let all = tx.mailboxes().unwrap();
        assert_eq!(all.iter().map(|m| m.id).collect::<Vec<_>>(), [second, id]);
        assert_eq!(all[1], expected);
        tx.delete_mailbox(id).unwrap();
        assert_eq!(tx.mailbox(id).unwrap(), None);
        assert!(matches!(tx.update_mailbox(&expected), Err(Error::Sqlite { .. })));
    });
}

#[test]
fn a_mailbox_with_links_stays() {
    fresh(|tx| {
        let m = mailbox(tx, "INBOX");
        let id = tx.insert_link(m, &synced(1)).unwrap();
        tx.hold_mailbox(m, HoldCause::MaildirMissing, "the directory is missing").unwrap();
        assert!(matches!(tx.delete_mailbox(m), Err(Error::Sqlite { .. })));
        tx.delete_link(id).unwrap();
        tx.delete_mailbox(m).unwrap();
        assert_eq!((tx.mailboxes().unwrap(), tx.mailbox_hold(m).unwrap()), (vec![], None));
    });
}

#[test]
fn the_account_is_read_back() {
    fresh(|tx| {
        let mut state = tx.account().unwrap();
        let empty = (state.generation, state.nonce.as_str(), &state.pending, state.clean, state.scope.as_str());
        assert_eq!(empty, (0, "", &None, true, ""));
        for (pending, clean) in [(Some((8, "b".into())), false), (None, true)] {
            let (nonce, scope) = ("a".into(), "c".into());
            state = AccountState { generation: u64::MAX / 2, nonce, pending, clean, scope };
            tx.set_account(&state).unwrap();
            assert_eq!(tx.account().unwrap(), state);
        }
        state.generation = u64::MAX;
        assert!(matches!(tx.set_account(&state), Err(Error::Sqlite { .. })));
    });
}

#[test]
fn what_is_held_waits_for_approval() {
    fresh(|tx| {
        let (a, b) = (mailbox(tx, "A"), mailbox(tx, "B"));
        let ids: Vec<LinkId> = (1..=4).map(|n| tx.insert_link(a, &synced(n)).unwrap()).collect();
        let elsewhere = tx.insert_link(b, &synced(1)).unwrap();
        let state = |tx: &Tx<'_>| tx.held(a).unwrap().iter().map(|h| (h.link, h.side, h.approved)).collect::<Vec<_>>();
        let (local, remote) = (Side::Local, Side::Remote);

        tx.hold(a, &[(ids[0], local), (ids[1], remote), (elsewhere, local)]).unwrap();
        assert_eq!(state(tx), [(ids[0], local, false), (ids[1], remote, false)]);
        assert_eq!(tx.held(b).unwrap(), []);
        tx.conn.execute("UPDATE held SET at = 5", []).unwrap();
        // What waited and is not asked for any more goes, what waited already keeps its time.
        tx.hold(a, &[(ids[1], remote), (ids[2], local)]).unwrap();
        assert_eq!(state(tx), [(ids[1], remote, false), (ids[2], local, false)]);
        let times: Vec<i64> = tx.held(a).unwrap().iter().map(|h| h.at).collect();
        assert!(times[0] == 5 && times[1] > 1_600_000_000, "{times:?}");

        assert_eq!(tx.approve(a).unwrap(), 2);
        assert_eq!(tx.approve(a).unwrap(), 0);
        // An approval stays, but not for the other side.
        tx.hold(a, &[(ids[1], remote), (ids[2], remote), (ids[3], local)]).unwrap();
        assert_eq!(state(tx), [(ids[1], remote, true), (ids[2], remote, false), (ids[3], local, false)]);
        assert_eq!(tx.held_counts().unwrap(), [HeldCount { mailbox: a, waiting: 2, whole: None }]);

        // What is held of a link goes with it.
        tx.delete_link(ids[3]).unwrap();
        assert_eq!(state(tx).len(), 2);
        tx.hold(b, &[(elsewhere, local)]).unwrap();
        tx.release(a).unwrap();
        assert_eq!((state(tx).len(), tx.held(b).unwrap().len()), (0, 1));
    });
}

#[test]
fn a_mailbox_is_held_as_a_whole() {
    fresh(|tx| {
        let (a, b) = (mailbox(tx, "A"), mailbox(tx, "B"));
        tx.hold_mailbox(a, HoldCause::MaildirMissing, "missing").unwrap();
        tx.conn.execute("UPDATE held_mailbox SET at = 5", []).unwrap();
        assert_eq!(tx.approve(a).unwrap(), 1);
        tx.hold_mailbox(a, HoldCause::MaildirMissing, "missing").unwrap();
        let whole = MailboxHold { cause: HoldCause::MaildirMissing, reason: "missing".into(), at: 5, approved: true };
        assert_eq!(tx.mailbox_hold(a).unwrap(), Some(whole.clone()));
        let expected = HeldCount { mailbox: a, waiting: 0, whole: Some(whole) };
        assert_eq!(tx.held_counts().unwrap(), [expected]);
        // Another reason was not approved.
        tx.hold_mailbox(a, HoldCause::MaildirMissing, "replaced").unwrap();
        let hold = tx.mailbox_hold(a).unwrap().unwrap();
        assert!(hold.reason == "replaced" && !hold.approved && hold.at > 5);
        tx.release(a).unwrap();
        assert_eq!((tx.mailbox_hold(a).unwrap(), tx.mailbox_hold(b).unwrap()), (None, None));
        assert!(tx.hold_mailbox(MailboxId(99), HoldCause::MaildirMissing, "missing").is_err());
    });
}

fn entry(at: i64, mailbox: &str, kind: &str) -> Entry {
    let (op, cause) = (format!("{kind} {at}"), "because".into());
    Entry { at, mailbox: mailbox.into(), op, cause, kind: kind.into(), kept: None }
}

fn asked(tx: &Tx<'_>, mailbox: Option<&str>, since: Option<i64>) -> Vec<i64> {
    tx.entries(mailbox.map(MailboxName::from).as_ref(), since).unwrap().iter().map(|e| e.at).collect()
}

#[test]
fn the_journal_tells_what_was_done() {
    fresh(|tx| {
        let kept = Entry { kept: Some("/graveyard/a".into()), ..entry(1, "Lists/a", "remove") };
        tx.journal(&kept).unwrap();
        // Where the clock was set back, too.
        for (at, mailbox, kind) in [(5, "Lists/a/b", "expunge"), (3, "Lists/a", "move"), (4, "Lists/a", "expunge")] {
            tx.journal(&entry(at, mailbox, kind)).unwrap();
        }
        assert_eq!(tx.entries(None, None).unwrap()[0], kept);
        assert_eq!(asked(tx, None, None), [1, 3, 4, 5]);
        assert_eq!(asked(tx, None, Some(4)), [4, 5]);
        assert_eq!(asked(tx, Some("Lists/a"), None), [1, 3, 4]);
        assert_eq!(asked(tx, Some("Lists/a"), Some(2)), [3, 4]);
        assert_eq!(asked(tx, Some("Lists"), None), [0; 0]);
        let removals = |name: &str, at| tx.removals_since(&name.into(), at).unwrap();
        assert_eq!((removals("Lists/a", 0), removals("Lists/a", 2), removals("Lists/a", 5)), (2, 1, 0));
        assert_eq!((removals("Lists/a/b", 5), removals("Lists", 0)), (1, 0));
    });
}

#[test]
fn the_journal_forgets() {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    fresh(|tx| {
        for at in 0..1023 {
            tx.journal(&entry(at, "INBOX", "flags")).unwrap();
        }
        assert_eq!(asked(tx, None, None).len(), 1023);
        // The 1024th entry, 90 days after the eleventh.
        tx.journal(&entry(10 + 90 * DAY, "INBOX", "flags")).unwrap();
        assert_eq!(asked(tx, None, None).len(), 1014);
        assert_eq!(asked(tx, None, None)[0], 10);
        // Of rows that are not as old, those after the last but 1,000,000 remain: with 1,001,472 (978 times 1024) that
        // is 1,472, where 1,011 to 2,024 are there.
        tx.conn.execute_batch("UPDATE journal SET id = id + 1000000; UPDATE journal SET id = id - 999000").unwrap();
        let jump = "INSERT INTO journal (id, at, mailbox, op, cause, kind) VALUES (1001471, 10, 'INBOX', '', '', '')";
        tx.conn.execute(jump, []).unwrap();
        tx.journal(&entry(10 + 90 * DAY, "INBOX", "flags")).unwrap();
        assert_eq!(asked(tx, None, None).len(), 2024 - 1472 + 2);
    });
}

#[test]
fn mailboxes_exchange_their_names() {
    fresh(|tx| {
        let [a, b, other] = ["A", "B", "Other"].map(|name| mailbox(tx, name));
        let renaming = |mailbox, name: &str| Renaming {
            mailbox,
            side: Side::Local,
            name: name.into(),
            raw: name.into(),
            path: name.into(),
            away: false,
        };
        let (first, second) = (renaming(b, "A"), renaming(a, "B"));
        tx.begin_renaming(&first).unwrap();
        tx.begin_renaming(&second).unwrap();
        assert!(tx.begin_renaming(&renaming(other, "B")).is_err(), "two get one name");
        assert_eq!(tx.renamings().unwrap(), [first, second]);
        tx.all_away().unwrap();
        assert!(tx.renamings().unwrap().iter().all(|one| one.away));
        tx.end_renamings().unwrap();
        let names: Vec<_> = tx.mailboxes().unwrap().into_iter().map(|m| (m.id, m.name.to_string(), m.path)).collect();
        let named = |id, name: &str| (id, name.to_owned(), Some(name.into()));
        assert_eq!(names[..2], [named(b, "A"), named(a, "B")]);
        assert_eq!((names[2].0, tx.renamings().unwrap()), (other, vec![]));
        // A name that a mailbox keeps is not taken from it.
        tx.begin_renaming(&renaming(a, "Other")).unwrap();
        assert!(tx.end_renamings().is_err());
    });
}

#[test]
fn the_age_of_the_graveyard_is_read_back() {
    use crate::db::Lifetime;

    fresh(|tx| {
        assert_eq!(tx.lifetime().unwrap(), None);
        let over = [("0099-12-31", 0), ("2026-01-01", 7)].map(|(day, since)| (day.parse().unwrap(), since)).into();
        let first = Lifetime { boot: "a".into(), boot_clock: 5, wall: -1, counted: 9, over };
        tx.set_lifetime(&first).unwrap();
        assert_eq!(tx.lifetime().unwrap(), Some(first));
        let second = Lifetime { boot: String::new(), boot_clock: 0, wall: 9, counted: 9, over: [].into() };
        tx.set_lifetime(&second).unwrap();
        assert_eq!(tx.lifetime().unwrap(), Some(second.clone()));
        assert!(tx.set_lifetime(&Lifetime { counted: -1, ..second }).is_err());
    });
}

#[test]
fn what_was_refused_is_kept_until_it_is_done() {
    fresh(|tx| {
        let (m, other) = (mailbox(tx, "INBOX"), mailbox(tx, "Other"));
        let skipped = LinkState::Skipped { uid: Some(uid(900)), name: None, reason: SkipReason::Refused("no".into()) };
        let rows = [new(skipped), synced(1), synced(2)].map(|link| tx.insert_link(m, &link).unwrap());
        let elsewhere = tx.insert_link(other, &synced(3)).unwrap();
        assert_eq!((tx.again(m).unwrap(), tx.next_again().unwrap()), (vec![], None));
        for link in rows {
            tx.refuse(link, "once", |tries| Some(100 + i64::from(tries))).unwrap();
        }
        tx.refuse(rows[1], "again", |tries| Some(200 + i64::from(tries))).unwrap();
        tx.refuse(rows[2], "for good", |_| None).unwrap();
        tx.refuse(elsewhere, "there", |_| Some(50)).unwrap();
        let shown = |m| -> Vec<(u32, Option<i64>, String)> {
            tx.again(m).unwrap().into_iter().map(|row| (row.tries, row.next_at, row.why)).collect()
        };
        let row = |tries, next_at, why: &str| (tries, next_at, why.to_owned());
        assert_eq!(shown(m), [row(1, Some(101), "once"), row(2, Some(202), "again"), row(2, None, "for good")]);
        assert_eq!(tx.next_again().unwrap(), Some(50));

        // Both sides agree on its flags; it is given; it is gone; nobody wants it any more.
        tx.set_inode(rows[1], 7).unwrap();
        assert_eq!(shown(m).len(), 3);
        tx.set_flags(rows[1], &flags(8, "")).unwrap();
        let given = tx.link(rows[0]).unwrap().unwrap();
        let uploading = LinkState::Uploading { name: name("u"), flags: flags(0, ""), uid_next: uid(9), since: 0 };
        tx.set_link(&Link { state: uploading, ..given.clone() }).unwrap();
        assert_eq!(shown(m).len(), 2, "an intent is no success");
        let done = LinkState::Synced { uid: uid(900), name: name("u"), flags: flags(0, "") };
        tx.set_link(&Link { state: done, ..given }).unwrap();
        assert_eq!(shown(m), [row(2, None, "for good")]);
        tx.want_no_more(rows[2]).unwrap();
        tx.delete_link(elsewhere).unwrap();
        assert_eq!((shown(m), shown(other)), (vec![], vec![]));
        assert!(tx.refuse(LinkId(999), "no such link", |_| None).is_err());
    });
}
