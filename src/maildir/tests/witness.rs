//! Whose doing a change was.

use std::collections::BTreeMap;

use super::*;
use crate::model::FlagChange;

/// What somebody does in the inbox.
type Act = fn(&Fixture);

/// An inbox of three messages, one of them in `new/`, and the stamp of a scan of it.
fn witnessed() -> (Fixture, Stamp) {
    let fixture = fixture();
    for (name, flags) in [("1.a", "\\Seen"), ("1.b", ""), ("1.c", "\\Flagged")] {
        deliver(&fixture.inbox, name, flags, b"Subject: x\r\n\r\n");
    }
    let scan = fixture.inbox.scan().unwrap();
    assert!(scan.unchanged);
    let stamp = scan.stamp;
    fixture.inbox.begin_witness(stamp);
    (fixture, stamp)
}

fn flag(inbox: &Maildir, name: &str, add: &str) -> Result<Located, Refused> {
    let (scan, name) = (inbox.scan_once().unwrap(), UniqueName::new(name.as_bytes()));
    let found = scan.get(&name).map(|entry| (entry.file(), entry.inode));
    let (file, inode) = found.unzip();
    let change = FlagChange { add: flags(add), remove: Flags::new() };
    let job = FlagJob { name, change, file, inode: inode.unwrap_or_default() };
    inbox.change_flags(&[job]).unwrap().remove(0)
}

fn rename(fixture: &Fixture, from: &str, to: &str) {
    let path = fixture.inbox.path();
    std::fs::rename(path.join(from), path.join(to)).unwrap();
}

#[test]
fn what_is_all_our_doing_has_a_stamp() {
    let acts: [(&str, Act); 4] = [
        ("a change of flags", |f| drop(flag(&f.inbox, "1.a", "\\Flagged").unwrap())),
        ("from new/ to cur/", |f| drop(flag(&f.inbox, "1.b", "\\Seen").unwrap())),
        ("a delivery", |f| drop(deliver(&f.inbox, "1.d", "", b"x\r\n"))),
        ("a removal", |f| {
            let file = FileRef::new(Place::Cur, b"1.c:2,F");
            let removed = f.inbox.remove(&[RemoveJob { file, inode: None }], &f.graveyard, &f.inbox_name()).unwrap();
            assert!(removed[0].is_ok());
        }),
    ];
    for (what, act) in acts {
        let (fixture, before) = witnessed();
        act(&fixture);
        let stamp = fixture.inbox.end_witness().unwrap_or_else(|| panic!("no stamp after {what}"));
        assert_eq!(stamp, fixture.inbox.stamp().unwrap(), "{what}");
        assert_ne!(stamp, before, "{what}");
        // The next change shows, however soon it comes.
        std::fs::write(fixture.inbox.path().join("new/1.z"), "").unwrap();
        assert_ne!(stamp, fixture.inbox.stamp().unwrap(), "{what}");
    }
}

#[test]
fn where_nothing_happens_the_stamp_stays() {
    let (fixture, stamp) = witnessed();
    assert_eq!(fixture.inbox.end_witness(), Some(stamp));
    assert_eq!(fixture.inbox.end_witness(), None, "it was ended");
}

#[test]
fn what_somebody_else_did_leaves_no_stamp() {
    let acts: [(&str, Act); 7] = [
        ("a rename", |f| rename(f, "cur/1.a:2,S", "cur/1.a:2,RS")),
        ("a rename and back", |f| {
            rename(f, "cur/1.a:2,S", "cur/1.a:2,RS");
            rename(f, "cur/1.a:2,RS", "cur/1.a:2,S");
        }),
        ("a message that came and went", |f| {
            std::fs::write(f.inbox.path().join("new/1.x"), "x").unwrap();
            std::fs::remove_file(f.inbox.path().join("new/1.x")).unwrap();
        }),
        // Ours, but with flags that nobody has compared yet.
        ("a move into it", |f| {
            let other = f.root.create_maildir(Path::new("Other")).unwrap();
            let written = deliver(&other, "1.e", "\\Seen", b"x\r\n");
            let moved = other.move_to(&[RemoveJob { file: written.file, inode: None }], &f.inbox).unwrap();
            assert!(moved[0].is_ok());
        }),
        ("a deletion", |f| std::fs::remove_file(f.inbox.path().join("new/1.b")).unwrap()),
        ("a directory that was replaced", |f| {
            rename(f, "new", "old");
            std::fs::create_dir(f.inbox.path().join("new")).unwrap();
        }),
        ("more than the kernel keeps", |f| {
            let most = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
            for n in 0..most.trim().parse::<usize>().unwrap() {
                let names =
                    [format!("cur/1.a:2,S{}", "x".repeat(n % 2)), format!("cur/1.a:2,S{}", "x".repeat((n + 1) % 2))];
                rename(f, &names[0], &names[1]);
            }
        }),
    ];
    for (what, act) in acts {
        for first in [true, false] {
            let (fixture, _) = witnessed();
            let ours = || drop(flag(&fixture.inbox, "1.c", "\\Seen").unwrap());
            if first {
                act(&fixture);
                // A replaced directory cannot be scanned.
                if fixture.inbox.stamp().is_ok() {
                    ours();
                }
            } else {
                ours();
                act(&fixture);
            }
            assert_eq!(fixture.inbox.end_witness(), None, "{what}");
        }
    }
}

#[test]
fn what_somebody_did_in_our_place_is_not_our_doing() {
    let (fixture, _) = witnessed();
    let change = FlagChange { add: flags("\\Flagged"), remove: Flags::new() };
    let (file, name) = (FileRef::new(Place::Cur, b"1.a:2,S"), UniqueName::new(b"1.a"));
    let inode = fixture.inbox.scan_once().unwrap().get(&name).unwrap().inode;
    rename(&fixture, "cur/1.a:2,S", "cur/1.a:2,FS");
    let job = FlagJob { name, change, file: Some(file), inode };
    assert!(fixture.inbox.change_flags(&[job]).unwrap()[0].is_ok());
    assert_eq!(fixture.inbox.end_witness(), None);
}

#[test]
fn a_change_before_it_began_leaves_no_stamp() {
    let (fixture, stamp) = witnessed();
    rename(&fixture, "cur/1.a:2,S", "cur/1.a:2,RS");
    fixture.inbox.begin_witness(stamp);
    flag(&fixture.inbox, "1.c", "\\Seen").unwrap();
    assert_eq!(fixture.inbox.end_witness(), None);
}

#[test]
fn two_over_one_maildir_know_nothing() {
    let (fixture, stamp) = witnessed();
    let again = fixture.root.maildir(Path::new("INBOX")).unwrap().unwrap();
    again.begin_witness(stamp);
    flag(&fixture.inbox, "1.c", "\\Seen").unwrap();
    assert_eq!((fixture.inbox.end_witness(), again.end_witness()), (None, None));
}

#[test]
fn messages_are_found_by_name_and_flags() {
    let (fixture, _) = witnessed();
    rename(&fixture, "new/1.b", "cur/1.b:1,odd");
    let table = [
        ("1.a", "\\Seen", Some("cur/1.a:2,S")),
        ("1.b", "", Some("cur/1.b:1,odd")),
        // With other flags than the base has.
        ("1.c", "\\Seen", Some("cur/1.c:2,F")),
        ("1.d", "", None),
    ];
    let wanted: BTreeMap<_, _> = table.iter().map(|(n, f, _)| (UniqueName::new(n.as_bytes()), flags(f))).collect();
    let located = fixture.inbox.locate(&wanted).unwrap();
    let scan = fixture.inbox.scan().unwrap();
    for (name, _, path) in table {
        let name = UniqueName::new(name.as_bytes());
        assert_eq!(located.get(&name).map(|l| l.file.path()), path.map(Into::into), "{name}");
        let entry = scan.get(&name);
        let seen = entry.map(|entry| Located { file: entry.file(), flags: entry.flags.clone(), inode: entry.inode });
        assert_eq!(located.get(&name), seen.as_ref(), "{name}");
    }
}
