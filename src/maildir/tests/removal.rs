//! Removal to the graveyard, and moves.

use std::os::unix::fs::MetadataExt;

use super::*;

fn expected(written: &Written) -> RemoveJob {
    RemoveJob { file: written.file.clone(), inode: Some(written.inode) }
}

#[test]
fn only_what_is_as_expected_is_removed() {
    let at = fixture();
    let (inbox, mailbox) = (&at.inbox, at.inbox_name());
    let written: Vec<_> = ["1.a", "1.b", "1.c", "1.d"].map(|name| deliver(inbox, name, "\\Seen", b"A: b\r\n")).into();
    let jobs: Vec<_> = written.iter().map(expected).collect();
    // b gets other flags, c is another file under the same name, d is gone.
    let cur = inbox.path().join("cur");
    std::fs::rename(cur.join("1.b:2,S"), cur.join("1.b:2,FS")).unwrap();
    std::fs::write(cur.join("1.c"), "other").unwrap();
    std::fs::rename(cur.join("1.c"), cur.join("1.c:2,S")).unwrap();
    std::fs::remove_file(cur.join("1.d:2,S")).unwrap();

    let done = inbox.remove(&jobs, &at.graveyard, &mailbox).unwrap();
    let refused: Vec<_> = done.iter().map(|done| done.as_ref().err().copied()).collect();
    assert_eq!(refused, [None, Some(Refused::Changed), Some(Refused::Changed), Some(Refused::Vanished)]);
    assert_eq!(files(inbox.path()), ["cur/1.b:2,FS", "cur/1.c:2,S"]);

    let buried = at.graveyard.today(&mailbox).unwrap();
    let located = done[0].as_ref().unwrap();
    assert_eq!(files(buried.path()), ["cur/1.a:2,S"]);
    assert_eq!((located.file.path(), located.inode), ("cur/1.a:2,S".into(), written[0].inode));
    assert_eq!(served(&buried, &located.file), b"A: b\r\n");
    assert!(inbox.remove(&[], &at.graveyard, &mailbox).unwrap().is_empty());
}

#[test]
fn what_was_removed_can_be_put_back() {
    let at = fixture();
    let mailbox = MailboxName::from("Lists/../x");
    let maildir = at.root.create_maildir(&at.root.path_of(&mailbox).unwrap()).unwrap();
    let written = deliver(&maildir, "1.a", "\\Flagged work", b"text");
    maildir.remove(&[expected(&written)], &at.graveyard, &mailbox).unwrap().remove(0).unwrap();
    assert!(maildir.scan().unwrap().is_empty());
    assert!(at.graveyard.find(&at.inbox_name(), &written.file.unique()).unwrap().is_none());

    deliver(&at.inbox, "1.x", "other", b"text");
    let back = at.graveyard.put_back(&mailbox, &written.file.unique(), &at.inbox).unwrap().unwrap().unwrap();
    assert_eq!(back.flags, flags("\\Flagged work"));
    assert_eq!(back.file.path(), Path::new("cur/1.a:2,Fb"), "a keyword has the letter that it has there");
    assert_eq!(at.graveyard.put_back(&mailbox, &written.file.unique(), &at.inbox).unwrap(), None);
}

#[test]
fn a_graveyard_on_another_disk_gets_verified_copies() {
    let (at, disk) = (fixture(), Mounted::new("4m"));
    let graveyard = Graveyard::open(disk.path(), "me");
    let body = b"line\r\n".repeat(30_000);
    let written = deliver(&at.inbox, "1.a", "\\Seen work", &body);
    let done = at.inbox.remove(&[expected(&written)], &graveyard, &at.inbox_name()).unwrap().remove(0).unwrap();
    assert_eq!(files(at.inbox.path()), ["dovecot-keywords"]);
    let (buried, file) = graveyard.find(&at.inbox_name(), &written.file.unique()).unwrap().unwrap();
    assert!(buried.path().starts_with(disk.path()) && file == done.file);
    let keyed = buried.key(&file).unwrap();
    assert_eq!((keyed.keys.whole, keyed.internal_date, keyed.inode), (written.key, 1_000_000_000, done.inode));
    assert_eq!(buried.path_of(&file).metadata().unwrap().mode() & 0o7777, 0o600);
    // And back again.
    let back = graveyard.put_back(&at.inbox_name(), &written.file.unique(), &at.inbox).unwrap().unwrap().unwrap();
    assert_eq!(at.inbox.key(&back.file).unwrap().keys.whole, written.key);
    assert_eq!(files(buried.path()), ["dovecot-keywords"]);
}

#[test]
fn a_full_graveyard_removes_nothing() {
    let (at, disk) = (fixture(), Mounted::new("256k"));
    let graveyard = Graveyard::open(disk.path(), "me");
    let written = deliver(&at.inbox, "1.a", "", &[b'x'; 300_000]);
    let error = at.inbox.remove(&[expected(&written)], &graveyard, &at.inbox_name()).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert_eq!(at.inbox.key(&written.file).unwrap().keys.whole, written.key);
    assert_eq!(files(disk.path()), Vec::<String>::new());
}

#[test]
fn copies_are_kept_until_their_day_is_purged() {
    let at = fixture();
    let kept = at.graveyard.keep(&at.inbox_name(), Source::Memory(b"A: b\r\n"), flags("\\Seen"), 5).unwrap();
    assert_eq!(std::fs::read(&kept).unwrap(), b"A: b\n");
    assert_eq!(kept.metadata().unwrap().mtime(), 5);
    for name in ["2000-01-01", "not-a-day", "2000-1-1"] {
        std::fs::create_dir_all(at.graveyard.path().join(name).join("INBOX/cur")).unwrap();
    }
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let old = jiff::civil::date(2000, 1, 1);
    assert_eq!(at.graveyard.dates().unwrap(), [old, today].into());
    at.graveyard.purge(&[old, jiff::civil::date(2000, 1, 2)]).unwrap();
    assert!(kept.exists() && !at.graveyard.path().join("2000-01-01").exists());
    assert!(at.graveyard.path().join("not-a-day").exists() && at.graveyard.path().join("2000-1-1").exists());
    at.graveyard.purge(&[today]).unwrap();
    assert!(!kept.exists());
    assert!(Graveyard::open(at.directory.path(), "nobody").dates().unwrap().is_empty());
}

#[test]
fn accounts_have_graveyards_of_their_own() {
    let state = Path::new("/state");
    let paths: Vec<_> =
        ["a", "..", "a/b", ""].iter().map(|name| Graveyard::open(state, name).path().to_owned()).collect();
    assert_eq!(paths, ["a", "%2E.", "a%2Fb", "%~"].map(|name| state.join("graveyard").join(name)));
}

#[test]
fn a_moved_message_keeps_its_name_flags_and_inode() {
    let at = fixture();
    let target = at.root.create_maildir(Path::new("Work")).unwrap();
    deliver(&target, "1.x", "first", b"text");
    deliver(&target, "1.c", "", b"a copy of the same name");
    let moved =
        [("1.a", "work \\Seen"), ("1.b", ""), ("1.c", "\\Seen")].map(|(name, f)| deliver(&at.inbox, name, f, b"text"));
    let done = at.inbox.move_to(&moved.each_ref().map(expected), &target).unwrap();
    let done: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    assert_eq!(done[0].file.path(), Path::new("cur/1.a:2,Sb"));
    assert_eq!(done[1].file.path(), Path::new("new/1.b"));
    assert_ne!(done[2].file.unique(), moved[2].file.unique());
    for (written, located) in moved.iter().zip(&done) {
        assert_eq!((&written.flags, written.inode), (&located.flags, located.inode));
        assert_eq!(target.key(&located.file).unwrap().keys.whole, written.key);
    }
    assert_eq!((at.inbox.scan().unwrap().len(), target.scan().unwrap().len()), (0, 5));
}
