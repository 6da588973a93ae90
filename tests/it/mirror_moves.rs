//! Messages that move from one mailbox to another.

use std::fs;

use crate::mirror::{Host, World, everywhere, text};

fn filled<'h>(host: &'h Host, subjects: &[&str]) -> World<'h> {
    let world = host.world("");
    ["Work", "Archive"].iter().for_each(|m| world.create(m));
    for (n, subject) in subjects.iter().enumerate() {
        world.append("INBOX", subject, if n % 2 == 0 { &["\\Seen", "keyword"] } else { &[] }, 1_000 + n as i64);
    }
    world.mirror();
    world
}

#[test]
fn files_that_move_take_their_messages_along() {
    everywhere(|host| {
        let world = filled(host, &["a", "b", "c", "d", "e", "f", "stays"]);
        world.move_here("INBOX", "a", "Work");
        world.move_here("INBOX", "b", "Work");
        world.move_here("INBOX", "c", "Archive");
        // As mutt: a copy under a new name with the time of now in its name, and the old one deleted.
        let copied = world.deliver("Archive", "d", 1_003);
        let old = world.file("INBOX", "d");
        world.account.set_info(&copied, "");
        fs::remove_file(old).unwrap();
        // Moved and flagged at once; moved here while it was flagged there.
        let moved = world.move_here("INBOX", "e", "Work");
        world.account.set_info(&moved, "FS");
        world.move_here("INBOX", "f", "Work");
        world.flag("INBOX", "f", "+\\Flagged");
        if !host.has("UIDPLUS") {
            world.sync(0);
            assert_eq!(world.listing(), "Archive: c d; INBOX: a b c d e f stays; Work: a b e f");
            let flags = world.flags("INBOX");
            assert!(["a", "b", "c", "d", "e", "f"].iter().all(|s| flags[*s].contains("\\Deleted")), "{flags:?}");
            world.assert_at_rest(0);
            return;
        }
        world.mirror();
        assert_eq!(world.listing(), "Archive: c d; INBOX: stays; Work: a b e f");
        world.assert_no_transfer();
        let flags = world.flags("Work");
        assert_eq!([&flags["a"], &flags["b"], &flags["f"]], ["\\Seen keyword", "", "\\Flagged"]);
        assert!(flags["e"].contains("\\Flagged"));
    });
}

#[test]
fn messages_that_move_take_their_files_along() {
    everywhere(|host| {
        let world = filled(host, &["a", "b", "c", "d", "stays"]);
        let name = world.file("INBOX", "a").file_name().unwrap().to_owned();
        world.move_there("INBOX", "a", "Work");
        world.move_there("INBOX", "b", "Archive");
        world.move_there("INBOX", "c", "Work");
        world.mark("INBOX", "c", "FS");
        world.move_there("INBOX", "d", "Work");
        world.flag("Work", "d", "+\\Answered");
        world.mirror();
        assert_eq!(world.listing(), "Archive: b; INBOX: stays; Work: a c d");
        world.assert_no_transfer();
        assert_eq!(world.file("Work", "a").file_name().unwrap(), name);
        assert!(world.flags("Work")["c"].contains("\\Flagged"), "{:?}", world.flags("Work"));
        assert!(world.graveyard().is_empty());
    });
}

/// The server's place wins, and the flags of both are merged. What both moved to one place is one there.
#[test]
fn moved_on_both_sides() {
    everywhere(|host| {
        let world = filled(host, &["stays", "a", "b", "c", "d", "also-stays"]);
        for (subject, here, there) in
            [("a", "Work", "Archive"), ("b", "Archive", "Work"), ("c", "Work", "Work"), ("d", "Archive", "Archive")]
        {
            let file = world.move_here("INBOX", subject, here);
            world.move_there("INBOX", subject, there);
            world.flag(there, subject, "+\\Flagged");
            // Some mail readers give it another name.
            let file = match subject {
                "b" | "d" => {
                    let renamed = file.with_file_name(format!("another-{subject}:2,"));
                    fs::rename(&file, &renamed).unwrap();
                    renamed
                }
                _ => file,
            };
            world.account.set_info(&file, "RS");
        }
        world.mirror();
        assert_eq!(world.listing(), "Archive: a d; INBOX: also-stays stays; Work: b c");
        world.assert_no_transfer();
        for (mailbox, subject) in [("Archive", "a"), ("Work", "b"), ("Work", "c"), ("Archive", "d")] {
            let flags = &world.flags(mailbox)[subject];
            assert!(["\\Answered", "\\Flagged", "\\Seen"].iter().all(|f| flags.contains(f)), "{subject}: {flags}");
        }
        assert!(world.graveyard().is_empty());
    });
}

/// Copies are counted: what both moved away, out of several, is one.
#[test]
fn one_of_several_equal_messages_is_moved_on_both_sides() {
    everywhere(|host| {
        if !host.has("UIDPLUS") {
            return;
        }
        for which in 0..3 {
            let world = filled(host, &["same", "same", "same"]);
            let file = world.files("INBOX", "same").remove(which);
            world.account.move_to(&file, "Work");
            world.move_there("INBOX", "same", "Archive");
            world.mirror();
            assert_eq!(world.listing().matches("same").count(), 3, "{}", world.listing());
        }
    });
}

/// A move outlives a deletion on the other side.
#[test]
fn moved_on_one_side_and_deleted_on_the_other() {
    everywhere(|host| {
        let world = filled(host, &["stays", "here", "also-stays", "there"]);
        world.move_here("INBOX", "here", "Work");
        world.expunge("INBOX", "here");
        world.move_there("INBOX", "there", "Work");
        world.delete_here("INBOX", "there");
        world.mirror();
        assert_eq!(world.listing(), "Archive:; INBOX: also-stays stays; Work: here there");
    });
}

/// There and back, and around: what is where it was is not touched.
#[test]
fn moved_and_moved_back() {
    everywhere(|host| {
        if !host.has("UIDPLUS") {
            return;
        }
        let world = filled(host, &["a", "b", "stays"]);
        world.move_here("INBOX", "a", "Work");
        world.move_there("INBOX", "b", "Work");
        world.mirror();
        world.move_there("Work", "a", "INBOX");
        world.move_here("Work", "b", "INBOX");
        world.mirror();
        assert_eq!(world.listing(), "Archive:; INBOX: a b stays; Work:");
        world.assert_no_transfer();
    });
}

/// Copies are counted: of three equal messages one moves.
#[test]
fn one_of_several_equal_messages_moves() {
    everywhere(|host| {
        if !host.has("UIDPLUS") {
            return;
        }
        let world = filled(host, &["same", "same", "same"]);
        let file = world.files("INBOX", "same").remove(0);
        world.account.move_to(&file, "Work");
        world.mirror();
        assert_eq!(world.listing(), "Archive:; INBOX: same same; Work: same");
        world.move_there("INBOX", "same", "Archive");
        world.mirror();
        assert_eq!(world.listing(), "Archive: same; INBOX: same; Work: same");
    });
}

/// A file that is edited under its name is another message.
#[test]
fn an_edited_file_is_a_new_message() {
    everywhere(|host| {
        if !host.has("UIDPLUS") {
            return;
        }
        let world = filled(host, &["draft", "stays"]);
        let file = world.file("INBOX", "draft");
        let tmp = world.account.maildir().join("INBOX/tmp/edited");
        fs::write(&tmp, [text("draft"), b"More of it.\n".to_vec()].concat()).unwrap();
        fs::rename(&tmp, &file).unwrap();
        world.mirror();
        assert_eq!(world.listing(), "Archive:; INBOX: draft stays; Work:");
        let mails = world.remote().mails();
        let draft = mails["INBOX"].iter().find(|(_, m)| m.bytes.ends_with(b"More of it.\r\n"));
        assert!(draft.is_some() && world.is_buried("draft"));
    });
}
