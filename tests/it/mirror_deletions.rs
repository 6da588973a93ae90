//! What is deleted on one side, and what becomes of it on the other.

use crate::mirror::{Host, World, everywhere, on_sims};

/// Messages of which one side is deleted while the other side is changed: the flags that both had, what happens there,
/// what happens here (letters, or `-` for deleted), and whether the message is to be there afterwards.
const ROWS: [(&str, &[&str], &str, &str, bool); 16] = [
    ("stays", &[], "", "", true),
    ("gone-there", &[], "-", "", false),
    ("gone-there-read-here", &[], "-", "S", false),
    ("gone-there-answered-here", &["\\Seen"], "-", "PRS", false),
    ("gone-there-flagged-here", &[], "-", "F", true),
    ("gone-there-keyword-here", &[], "-", "a", true),
    ("gone-there-keyword-gone-here", &["work"], "-", "", true),
    ("gone-there-undeleted-here", &["\\Deleted"], "-", "", true),
    ("gone-here", &[], "", "-", false),
    ("gone-here-read-there", &[], "+\\Seen", "-", false),
    ("gone-here-answered-there", &[], "+\\Answered +$Forwarded", "-", false),
    ("gone-here-flagged-there", &[], "+\\Flagged", "-", true),
    ("gone-here-keyword-there", &[], "+work", "-", true),
    ("gone-here-keyword-gone-there", &["work"], "-work", "-", true),
    ("gone-here-undeleted-there", &["\\Deleted"], "-\\Deleted", "-", true),
    ("gone-on-both", &[], "-", "-", false),
];

/// Deletes and changes as the rows say.
fn act(world: &World<'_>) {
    for (subject, _, there, here, _) in ROWS {
        match there {
            "" => {}
            "-" => world.expunge("INBOX", subject),
            changes => world.flag("INBOX", subject, changes),
        }
        match here {
            "-" => world.delete_here("INBOX", subject),
            letters => drop(world.mark("INBOX", subject, letters)),
        }
    }
    world.is_meant_to_vanish("gone-on-both");
}

fn filled<'h>(host: &'h Host, extra: &str, trash: bool) -> World<'h> {
    let world = host.world(extra);
    if trash {
        world.create_trash();
    }
    world.append("INBOX", "keyword", &["work"], 1);
    for (subject, flags, ..) in ROWS {
        world.append("INBOX", subject, flags, 1_000);
    }
    world.mirror();
    act(&world);
    world
}

/// Returns the subjects of the rows that `which` accepts, in order, as [`World::listing`] has them.
fn subjects(which: impl Fn(&str, &str, bool) -> bool) -> String {
    let mut subjects: Vec<&str> = ROWS.iter().filter(|(_, _, t, h, stays)| which(t, h, *stays)).map(|r| r.0).collect();
    subjects.sort_unstable();
    subjects.join(" ")
}

/// `auto`, `trash` and `expunge`, where there is a trash mailbox and where there is none.
#[test]
fn a_deletion_crosses_unless_the_other_side_wants_to_keep_the_message() {
    let inbox = format!("INBOX: {}", subjects(|_, _, stays| stays).replace("stays", "keyword stays"));
    let thrown = subjects(|_, here, stays| here == "-" && !stays).replace(" gone-on-both", "");
    let modes = [("auto", true), ("auto", false), ("trash", true), ("expunge", true), ("expunge", false)];
    everywhere(|host| {
        for (n, (mode, trash)) in modes.into_iter().enumerate() {
            // Some servers do not say which one is the trash.
            let to_trash = trash && mode != "expunge" && host.has("SPECIAL-USE");
            // One mode is enough for most servers. For those without UIDPLUS, see below.
            if n > 1 && !matches!(host, Host::Sim(postkeep_sim::Profile::Full)) || !host.has("UIDPLUS") {
                continue;
            }
            let world = filled(host, &format!("[account.a.deletions]\non_local = \"{mode}\""), trash);
            world.mirror();
            let trash_now = if to_trash { format!("; Trash: {thrown}") } else { "; Trash:".to_owned() };
            assert_eq!(world.listing(), format!("{inbox}{}", if trash { &trash_now } else { "" }), "{mode}");
            for (subject, _, there, here, stays) in ROWS {
                let buried =
                    there == "-" && here != "-" && !stays || here == "-" && there != "-" && !stays && !to_trash;
                assert_eq!(world.is_buried(subject), buried, "{mode} {subject}");
            }
        }
    });
}

/// Without UIDPLUS nothing may be expunged, for a plain EXPUNGE takes along what others have marked.
#[test]
fn without_uidplus_what_is_deleted_here_is_marked_there() {
    everywhere(|host| {
        if host.has("UIDPLUS") {
            return;
        }
        let world = host.world("");
        ["a", "b", "c"].iter().for_each(|s| world.append("INBOX", s, &[], 1_000));
        world.append("INBOX", "marked", &["\\Deleted"], 1_000);
        world.mirror();
        world.delete_here("INBOX", "b");
        world.sync(0);
        assert_eq!(world.flags("INBOX")["b"], "\\Deleted");
        assert_eq!(world.listing(), "INBOX: a b c marked");
        assert!(world.files("INBOX", "b").is_empty());
        world.assert_at_rest(0);
        world.expunge("INBOX", "b");
        world.expunge("INBOX", "marked");
        world.mirror();
        assert_eq!(world.account.run(&["status"]).code, 0);
    });
}

#[test]
fn without_uidplus_a_copy_goes_to_the_trash() {
    everywhere(|host| {
        if host.has("UIDPLUS") || !host.has("SPECIAL-USE") {
            return;
        }
        let world = host.world("");
        world.create_trash();
        ["a", "b", "c"].iter().for_each(|s| world.append("INBOX", s, &[], 1_000));
        world.mirror();
        world.delete_here("INBOX", "b");
        world.sync(0);
        assert_eq!(world.flags("INBOX")["b"], "\\Deleted");
        assert_eq!(world.listing(), "INBOX: a b c; Trash: b");
        assert_eq!((world.files("INBOX", "b").len(), world.files("Trash", "b").len()), (0, 1));
        world.assert_at_rest(0);
    });
}

#[test]
fn what_is_deleted_in_the_trash_is_expunged() {
    everywhere(|host| {
        if !host.has("UIDPLUS") {
            return;
        }
        let world = host.world("");
        world.create_trash();
        ["a", "b"].iter().for_each(|s| world.append("Trash", s, &["\\Seen"], 1_000));
        world.mirror();
        world.delete_here("Trash", "a");
        world.mirror();
        assert_eq!(world.listing(), "INBOX:; Trash: b");
        assert!(world.is_buried("a"));
    });
}

#[test]
fn trash_is_asked_for_and_there_is_none() {
    on_sims(|host| {
        if !host.has("UIDPLUS") {
            return;
        }
        let world = host.world("[account.a.deletions]\non_local = \"trash\"");
        ["a", "b"].iter().for_each(|s| world.append("INBOX", s, &[], 1_000));
        let output = world.sync(1);
        assert!(output.stdout.contains("no trash mailbox"), "{}", output.stdout);
        world.delete_here("INBOX", "a");
        world.sync(1);
        assert_eq!(world.listing(), "INBOX: b");
        assert!(world.is_buried("a"));
    });
}

#[test]
fn deletions_here_are_kept_to_the_maildir() {
    everywhere(|host| {
        let world = filled(host, "[account.a.deletions]\non_local = \"keep\"", true);
        let before = world.listing();
        world.sync(0);
        let kept: Vec<String> = world.changes();
        assert!(kept.iter().all(|name| name == "APPEND"), "only what is flagged here goes back: {kept:?}");
        assert!(before.split(' ').all(|subject| world.listing().contains(subject)));
        assert!(world.files("INBOX", "gone-here").is_empty());
        assert!(world.files("INBOX", "gone-there").is_empty());
        assert_eq!(world.files("INBOX", "gone-here-flagged-there").len(), 1);
        world.assert_at_rest(0);
        let output = world.run(&["sync", "--full"]);
        assert_eq!((output.code, world.files("INBOX", "gone-here").len()), (0, 0), "{}", output.stdout);
    });
}

#[test]
fn deletions_there_are_kept_to_the_server() {
    everywhere(|host| {
        if !host.has("MOVE") {
            return;
        }
        let world = filled(host, "[account.a.deletions]\non_server = \"keep\"", true);
        world.sync(0);
        for (subject, _, there, here, stays) in ROWS {
            let stays_here = stays || there == "-" && here != "-";
            assert_eq!(world.files("INBOX", subject).len(), usize::from(stays_here), "{subject}");
            assert_eq!(world.uids("INBOX", subject).len(), usize::from(stays), "{subject}");
        }
        world.assert_at_rest(0);
        let output = world.run(&["sync", "--full"]);
        assert_eq!((output.code, world.uids("INBOX", "gone-there").len()), (0, 0), "{}", output.stdout);
    });
}

/// A backup: whatever happens here, the server is never changed.
#[test]
fn a_backup_never_changes_the_server() {
    everywhere(|host| {
        let world = filled(host, "direction = \"pull\"", true);
        world.deliver("INBOX", "new here", 5_000);
        world.deliver("Only here", "another", 5_000);
        world.append("INBOX", "new there", &[], 6_000);
        world.mark("INBOX", "stays", "FS");
        world.create("Work");
        world.move_here("INBOX", "keyword", "Work");
        let before = world.remote().mails();
        for args in [&["sync"][..], &["sync"], &["sync", "--full"]] {
            let output = world.run(args);
            assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
            assert_eq!(world.changes(), Vec::<String>::new());
        }
        assert_eq!(world.remote().mails(), before);
        assert_eq!(world.files("INBOX", "new there").len(), 1);
        assert_eq!(world.files("INBOX", "gone-there").len(), 0);
        assert_eq!(world.files("INBOX", "new here").len(), 1);
        world.assert_at_rest(0);
    });
}
