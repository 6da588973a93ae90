//! Removals and arrivals that are one move, and those that are not.

use super::*;
use crate::model::{Flags, GoneRemote, Proof};

fn uid(n: u64) -> Uid {
    Uid::new(n).unwrap()
}

fn name(n: &str) -> UniqueName {
    UniqueName::new(n.as_bytes())
}

fn content(header: u8, body: u8) -> ContentKey {
    let fingerprint = Fingerprint { header: Digest([header; 32]), size: 10 + u64::from(header) };
    ContentKey { digest: Digest([body; 32]), fingerprint }
}

fn proof() -> Proof {
    GoneRemote::of([uid(1)]).proof(uid(1)).unwrap()
}

fn part(mailbox: &str) -> Part {
    Part { name: mailbox.into(), ..Part::default() }
}

fn known(part: &mut Part, id: i64, uid_: u64, file: &str, content: ContentKey, date: i64) {
    let state = LinkState::Synced { uid: uid(uid_), name: name(file), flags: Flags::new() };
    let id = LinkId(id);
    part.base.insert(id, Link { id, state, content: Some(content), internal_date: Some(date), inode: None });
}

fn leaves_here(part: &mut Part, id: i64, u: u64) {
    let op = Op::Expunge { link: LinkId(id), uid: uid(u), flags: Flags::new(), proof: proof() };
    part.plan.push(Planned { op, why: Why::DeletedHere });
}

fn leaves_there(part: &mut Part, id: i64, file: &str) {
    let op = Op::Remove { link: LinkId(id), name: name(file), flags: Flags::new(), proof: proof() };
    part.plan.push(Planned { op, why: Why::DeletedOnServer });
}

fn comes_here(part: &mut Part, file: &str, content: ContentKey) {
    part.files.insert(name(file), Keys::unmarked(content));
    let op = Op::Upload { link: None, name: name(file), flags: Flags::new() };
    part.plan.push(Planned { op, why: Why::NewHere });
}

fn comes_there(part: &mut Part, u: u64, content: ContentKey, date: i64) {
    let unlinked = Unlinked { uid: uid(u), fingerprint: content.fingerprint, bare: None, internal_date: date };
    part.messages.insert(uid(u), unlinked);
    let op = Op::Download { link: None, uid: uid(u), name: None, flags: Flags::new() };
    part.plan.push(Planned { op, why: Why::NewOnServer });
}

fn result(a: Part, b: Part) -> String {
    let mut parts = BTreeMap::from([(MailboxId(1), a), (MailboxId(2), b)]);
    find(&mut parts);
    parts.values().flat_map(|p| p.plan.iter().map(move |o| format!("{}: {o}\n", p.name))).collect()
}

#[test]
fn a_file_moved_under_the_same_or_another_name_moves_the_message() {
    for file in ["old", "new"] {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        leaves_here(&mut a, 1, 7);
        comes_here(&mut b, file, content(1, 1));
        assert_eq!(result(a, b), format!("A: move uid 7 to B {file}: moved here\n"));
    }
}

#[test]
fn a_message_moved_on_the_server_moves_the_file() {
    let (mut a, mut b) = (part("A"), part("B"));
    known(&mut a, 1, 7, "old", content(1, 1), 5);
    leaves_there(&mut a, 1, "old");
    comes_there(&mut b, 3, content(1, 1), 5);
    assert_eq!(result(a, b), "A: follow old to B uid 3: moved on the server\n");
}

#[test]
fn flags_changed_on_the_other_side_do_not_stop_a_move() {
    let (mut a, mut b) = (part("A"), part("B"));
    known(&mut a, 1, 7, "old", content(1, 1), 5);
    known(&mut a, 2, 8, "old2", content(2, 2), 5);
    let flags = Flags::from_parts(0, crate::model::Keyword::new("Work"));
    let op = Op::Upload { link: Some(LinkId(1)), name: name("old"), flags: flags.clone() };
    a.plan.push(Planned { op, why: Why::ChangedHere });
    let op = Op::Download { link: Some(LinkId(2)), uid: uid(8), name: None, flags };
    a.plan.push(Planned { op, why: Why::ChangedOnServer });
    comes_there(&mut b, 3, content(1, 1), 5);
    comes_here(&mut b, "old2", content(2, 2));
    let text = "A: follow old to B uid 3: moved on the server\nA: move uid 8 to B old2: moved here\n";
    assert_eq!(result(a, b), text);
}

#[test]
fn other_content_or_another_date_is_no_move() {
    let (mut a, mut b) = (part("A"), part("B"));
    known(&mut a, 1, 7, "old", content(1, 1), 5);
    known(&mut a, 2, 8, "old2", content(2, 2), 5);
    leaves_here(&mut a, 1, 7);
    leaves_there(&mut a, 2, "old2");
    comes_here(&mut b, "new", content(1, 9));
    comes_there(&mut b, 3, content(2, 2), 6);
    let text = result(a, b);
    assert!(!text.contains("move uid") && !text.contains("follow"), "{text}");
    assert_eq!(text.lines().count(), 4);
}

#[test]
fn equal_headers_with_different_bodies_prove_nothing() {
    let (mut a, mut b) = (part("A"), part("B"));
    known(&mut a, 1, 7, "x", content(1, 1), 5);
    known(&mut a, 2, 8, "y", content(1, 2), 5);
    leaves_there(&mut a, 1, "x");
    leaves_there(&mut a, 2, "y");
    comes_there(&mut b, 3, content(1, 1), 5);
    assert!(!result(a, b).contains("follow"));
}

#[test]
fn copies_are_counted() {
    let (mut a, mut b) = (part("A"), part("B"));
    known(&mut a, 1, 7, "x", content(1, 1), 5);
    known(&mut a, 2, 8, "y", content(1, 1), 5);
    leaves_here(&mut a, 1, 7);
    leaves_here(&mut a, 2, 8);
    comes_here(&mut b, "z", content(1, 1));
    assert_eq!(result(a, b), "A: move uid 7 to B z: moved here\nA: expunge uid 8: deleted here\n");
}

#[test]
fn what_an_interrupted_upload_may_have_brought_elsewhere_is_not_expunged_yet() {
    let uploading = |part: &mut Part, content: ContentKey| {
        let (id, since) = (LinkId(3), 0);
        let state = LinkState::Uploading { name: name("x"), flags: Flags::new(), uid_next: uid(1), since };
        part.base.insert(id, Link { id, state, content: Some(content), internal_date: None, inode: None });
    };
    let leaving = || {
        let mut part = part("A");
        known(&mut part, 1, 7, "x", content(1, 1), 5);
        known(&mut part, 2, 8, "y", content(2, 2), 5);
        leaves_here(&mut part, 1, 7);
        leaves_here(&mut part, 2, 8);
        part
    };
    // No answer yet.
    let mut b = part("B");
    uploading(&mut b, content(1, 1));
    let mut parts = BTreeMap::from([(MailboxId(1), leaving()), (MailboxId(2), b)]);
    find(&mut parts);
    let (a, b) = (&parts[&MailboxId(1)], &parts[&MailboxId(2)]);
    assert_eq!(a.plan.iter().map(ToString::to_string).collect::<Vec<_>>(), ["expunge uid 8: deleted here"]);
    assert!(a.postponed && !b.postponed);
    // Nor is a file uploaded that was moved away before the answer, or in the round in which it comes.
    for answered in [false, true] {
        let (mut a, mut b) = (part("A"), part("B"));
        uploading(&mut a, content(1, 1));
        if answered {
            let op = Op::Adopt { link: LinkId(3), uid: uid(1), name: name("x") };
            a.plan.push(Planned { op, why: Why::Interrupted });
        }
        comes_here(&mut b, "x", content(1, 1));
        comes_here(&mut b, "y", content(2, 2));
        let text = result(a, b);
        assert!(text.ends_with("B: upload y (): new here\n") && !text.contains("upload x"), "{text}");
    }
    // It did not happen: the move is made now.
    let mut b = part("B");
    uploading(&mut b, content(1, 1));
    b.files.insert(name("x"), Keys::unmarked(content(1, 1)));
    let op = Op::Upload { link: Some(LinkId(3)), name: name("x"), flags: Flags::new() };
    b.plan.push(Planned { op, why: Why::Interrupted });
    assert_eq!(result(leaving(), b), "A: move uid 7 to B x: moved here\nA: expunge uid 8: deleted here\n");
}

fn lost(part: &mut Part, id: i64) {
    part.plan.push(Planned { op: Op::Forget { link: LinkId(id) }, why: Why::DeletedOnBoth });
}

#[test]
fn what_both_moved_goes_where_the_server_has_it() {
    let moved = || {
        let mut a = part("A");
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        lost(&mut a, 1);
        a
    };
    let run = |b: Part, c: Part| {
        let mut parts = BTreeMap::from([(MailboxId(1), moved()), (MailboxId(2), b), (MailboxId(3), c)]);
        find(&mut parts);
        // Whatever comes of it, the place that it left is looked at again.
        let gone = parts[&MailboxId(1)].plan.is_empty();
        assert_eq!(parts[&MailboxId(1)].postponed, gone);
        parts.values().flat_map(|p| p.plan.iter().map(move |o| format!("{}: {o}\n", p.name))).collect::<String>()
    };
    let why = "moved on both sides: the server's place wins";
    // To two places.
    let (mut b, mut c) = (part("B"), part("C"));
    comes_here(&mut b, "new", content(1, 1));
    comes_there(&mut c, 3, content(1, 1), 5);
    assert_eq!(run(b, c), format!("B: follow new to C uid 3: {why}\n"));
    // To one.
    let (mut b, mut c) = (part("B"), part("C"));
    comes_here(&mut b, "new", content(1, 1));
    comes_there(&mut b, 3, content(1, 1), 5);
    comes_here(&mut c, "other", content(2, 2));
    assert_eq!(run(b, c), format!("B: join uid 3 new: {why}\nC: upload other (): new here\n"));
    // An earlier run was about to follow, and the file went elsewhere meanwhile.
    let (mut b, mut c) = (part("B"), part("C"));
    comes_here(&mut b, "new", content(1, 1));
    interrupted(&mut c, 9, 3, content(1, 1), 5);
    assert_eq!(run(b, c), format!("B: follow new to C uid 3: {why}\n"));
    // Deleted on one side.
    let (mut b, c) = (part("B"), part("C"));
    comes_there(&mut b, 3, content(1, 1), 5);
    assert_eq!(run(b, c), "A: forget link 1: deleted on both sides\nB: download uid 3 (): new on the server\n");
}

#[test]
fn what_came_back_there_gives_up_its_old_name_before_its_file_follows() {
    let run = |file: &str| {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        lost(&mut a, 1);
        comes_there(&mut a, 9, content(1, 1), 5);
        comes_here(&mut b, file, content(1, 1));
        result(a, b)
    };
    let why = "moved on both sides: the server's place wins";
    assert_eq!(run("old"), format!("A: supersede old: {why}\n"));
    // Its row has another name then, and no other row has the one of the file.
    assert_eq!(run("new"), format!("B: follow new to A uid 9: {why}\n"));
}

/// A download that an earlier run began, and whose file is not there.
fn interrupted(part: &mut Part, id: i64, u: u64, content: ContentKey, date: i64) {
    let (id, flags) = (LinkId(id), Flags::new());
    let state = LinkState::Downloading { uid: uid(u), name: name("old"), flags: flags.clone() };
    part.base.insert(id, Link { id, state, content: Some(content), internal_date: Some(date), inode: None });
    let op = Op::Download { link: Some(id), uid: uid(u), name: Some(name("old")), flags };
    part.plan.push(Planned { op, why: Why::Interrupted });
}

#[test]
fn a_move_that_was_about_to_be_followed_is_followed() {
    let (mut a, mut b) = (part("A"), part("B"));
    known(&mut a, 1, 7, "old", content(1, 1), 5);
    // Changed here meanwhile, so that it would be kept.
    let op = Op::Upload { link: Some(LinkId(1)), name: name("old"), flags: Flags::new() };
    a.plan.push(Planned { op, why: Why::ChangedHere });
    interrupted(&mut b, 9, 3, content(1, 1), 5);
    assert_eq!(result(a, b), "A: follow old to B uid 3: moved on the server\n");
}

#[test]
fn in_one_mailbox_only_a_name_or_a_number_changed() {
    let mut a = part("A");
    known(&mut a, 1, 7, "old", content(1, 1), 5);
    known(&mut a, 2, 8, "same", content(2, 2), 5);
    leaves_here(&mut a, 1, 7);
    comes_here(&mut a, "new", content(1, 1));
    leaves_there(&mut a, 2, "same");
    comes_there(&mut a, 9, content(2, 2), 5);
    assert_eq!(result(a, part("B")), "A: adopt uid 7 new: moved here\nA: adopt uid 9 same: moved on the server\n");
}
