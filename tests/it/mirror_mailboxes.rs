//! Mailboxes that come, go and change their names, and names that are hard to write down.

use std::fs;

use crate::dovecot::{Options, Profile};
use crate::mirror::{Host, Kind, World, everywhere, on_sims};

#[test]
fn mailboxes_come_from_either_side() {
    everywhere(|host| {
        let world = host.world("");
        world.mirror();
        world.create("There/below/deep");
        world.append("There/below/deep", "a", &[], 1_000);
        world.deliver("Here/below/deep", "b", 1_000);
        world.deliver("Entwürfe", "c", 1_000);
        world.account.deliver("Both", b"Subject: d\n\nx\n");
        world.create("Both");
        world.mirror();
        let listing = world.listing();
        assert_logged(&world, "Entwürfe: create the mailbox (new here)");
        for part in ["There/below/deep: a", "Here/below/deep: b", "Entwürfe: c", "Both: d"] {
            assert!(listing.contains(part), "{listing}");
        }
    });
}

fn tree<'h>(host: &'h Host, extra: &str) -> World<'h> {
    let world = host.world(extra);
    for mailbox in ["Lists", "Lists/rust", "Lists/rust/users", "Other"] {
        world.create(mailbox);
        world.append(mailbox, &mailbox.replace('/', "-"), &["\\Seen"], 1_000);
    }
    world.mirror();
    world
}

#[test]
fn renames_there_are_followed() {
    everywhere(|host| {
        let world = tree(host, "");
        world.rename("Lists", "Mailing lists");
        world.rename("Other", "Deep/below");
        world.mirror();
        world.assert_no_transfer();
        let listing = world.listing();
        for part in ["Deep/below: Other;", "Mailing lists: Lists; Mailing lists/rust: Lists-rust;"] {
            assert!(listing.contains(part), "{listing}");
        }
        assert!(!world.account.maildir().join("Other").exists());
        assert!(world.graveyard().is_empty());
        assert_logged(&world, "Other: rename the maildir to Deep/below (renamed on the server)");
        assert_logged(&world, "Lists: create the maildir (new on the server)");
    });
}

/// Panics unless `postkeep log` has a line that ends like this.
#[track_caller]
fn assert_logged(world: &World<'_>, end: &str) {
    let log = world.account.run(&["log", "a"]).stdout;
    assert!(log.lines().any(|line| line.ends_with(&format!("  {end}"))), "{end}: {log}");
}

#[test]
fn renames_here_are_followed() {
    everywhere(|host| {
        let world = tree(host, "");
        let at = |name: &str| world.account.maildir().join(name);
        fs::rename(at("Lists/rust"), at("Lists/oxide")).unwrap();
        fs::rename(at("Other"), at("Another")).unwrap();
        world.mirror();
        world.assert_no_transfer();
        let listing = world.listing();
        assert!(listing.starts_with("Another: Other; INBOX:; Lists: Lists; Lists/oxide: Lists-rust;"), "{listing}");
        let names: Vec<String> = world.changes();
        assert!(names.iter().all(|name| name == "RENAME"), "{names:?}");
        assert_logged(&world, "Other: rename the mailbox to Another (renamed here)");
    });
}

#[test]
fn a_mailbox_deleted_there_goes_to_the_graveyard() {
    everywhere(|host| {
        let world = tree(host, "");
        world.delete("Lists/rust/users");
        world.delete("Other");
        world.mirror();
        assert!(world.is_buried("Other") && world.is_buried("Lists-rust-users"));
        assert!(!world.account.maildir().join("Other").exists());
        assert_eq!(world.changes(), Vec::<String>::new());
    });
}

/// What is new or flagged in it makes it a mailbox again; what was only read goes.
#[test]
fn a_mailbox_deleted_there_with_something_new_here_comes_back() {
    everywhere(|host| {
        let world = tree(host, "");
        world.append("Other", "read", &[], 1_000);
        world.append("Other", "flagged", &[], 1_000);
        world.mirror();
        world.mark("Other", "read", "S");
        world.mark("Other", "flagged", "F");
        world.deliver("Other", "new", 2_000);
        world.delete("Other");
        world.mirror();
        assert!(world.listing().contains("Other: flagged new"), "{}", world.listing());
        assert!(world.is_buried("read") && world.is_buried("Other"));
    });
}

const SMALL_GUARD: &str = "[account.a.deletions]\nguard_count = 3";

#[test]
fn a_large_mailbox_deleted_there_is_held() {
    for kind in [Kind::Sim(postkeep_sim::Profile::Bare), Kind::Dovecot(Profile::Full.into())] {
        let host = &Host::start(kind);
        for undo in [false, true] {
            let world = tree(host, SMALL_GUARD);
            (0..5).for_each(|n| world.append("Other", &format!("m{n}"), &[], 1_000));
            world.mirror();
            world.delete("Other");
            let output = world.sync(4);
            assert!(output.stdout.contains("Other"), "{}", output.stdout);
            assert_eq!(world.account.files("Other").len(), 6);
            world.assert_at_rest(4);
            if undo {
                assert_eq!(world.run(&["approve", "a", "--undo"]).code, 0);
                world.mirror();
                assert!(world.listing().contains("Other: Other m0 m1 m2 m3 m4"), "{}", world.listing());
            } else {
                assert_eq!(world.run(&["approve", "a", "--mailbox", "Other"]).code, 0);
                world.mirror();
                assert!(!world.account.maildir().join("Other").exists());
                assert!((0..5).all(|n| world.is_buried(&format!("m{n}"))));
            }
        }
    }
}

/// No maildir that is missing deletes a mailbox.
#[test]
fn a_maildir_that_is_missing_is_held() {
    everywhere(|host| {
        if !host.has("UIDPLUS") {
            return;
        }
        for undo in [false, true] {
            let world = tree(host, "");
            fs::remove_dir_all(world.account.maildir().join("Other")).unwrap();
            let output = world.sync(4);
            assert!(output.stdout.contains("Other: ") && output.stdout.contains("approve"), "{}", output.stdout);
            assert_eq!(world.account.run(&["status"]).code, 4);
            world.sync(4);
            assert_eq!(world.changes(), Vec::<String>::new());
            let args: &[&str] = if undo { &["approve", "a", "--undo"] } else { &["approve", "a"] };
            assert_eq!(world.run(args).code, 0);
            world.mirror();
            assert_eq!(world.uids("Other", "Other").len(), usize::from(undo));
            assert_eq!(world.files("Other", "Other").len(), usize::from(undo));
            assert!(undo || world.is_buried("Other"));
            assert!(world.listing().contains("; Other:"), "the mailbox itself stays: {}", world.listing());
        }
    });
}

#[test]
fn a_root_that_is_missing_or_another_ones_is_held() {
    everywhere(|host| {
        let world = tree(host, "");
        let (root, aside) = (world.account.maildir(), world.account.maildir().with_extension("aside"));
        fs::rename(&root, &aside).unwrap();
        world.account.run(&["sync"]);
        assert_eq!((world.account.run(&["sync"]).code, root.exists()), (4, false));
        fs::create_dir(&root).unwrap();
        assert_eq!(world.account.run(&["sync"]).code, 4);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir(&root).unwrap();
        fs::rename(&aside, &root).unwrap();
        world.mirror();
        assert_eq!(world.changes(), Vec::<String>::new());
    });
}

/// Each of these is one component of a name.
const HARD: [&str; 16] = [
    "..",
    ".",
    "cur",
    "new",
    "tmp",
    ".hidden",
    "100%",
    "50%25",
    "%2F",
    "a b",
    "case",
    "Case",
    "it's",
    "-rf",
    "a\\b",
    "Ünïcödé 💩",
];

/// Returns the contents of both sides without the names of the mailboxes.
#[track_caller]
fn assert_same_messages(world: &World<'_>, subjects: usize) {
    let mut there: Vec<_> = world.remote().mails().into_values().flatten().map(|(_, mail)| mail).collect();
    let mut here: Vec<_> = world.account.local().into_values().flatten().collect();
    there.sort();
    here.sort();
    assert_eq!(there, here);
    assert_eq!(there.len(), subjects);
}

#[test]
fn hard_names_stay_below_the_root_and_apart() {
    for profile in [postkeep_sim::Profile::Full, postkeep_sim::Profile::Bare] {
        let host = Host::start(Kind::Sim(profile));
        for layout in ["nested", "maildir++"] {
            let world = host.world(&format!("layout = {layout:?}"));
            let long = "x".repeat(300);
            let deep = ["d"; 40].join("/");
            let more = ["a/../../b", "bell\u{7}", "line\nend", "esc\u{1b}[31m", "dot.ted", &long, &deep, "INBOX/below"];
            let names: Vec<&str> = HARD.into_iter().chain(more).collect();
            for (n, name) in names.iter().enumerate() {
                world.create(name);
                let raw = world.raw(name);
                world.sim().state().append(&raw, format!("Subject: {n}\r\n\r\n").as_bytes(), &[], 1_000);
            }
            world.sync(0);
            assert_same_messages(&world, names.len());
            world.assert_at_rest(0);
            // Outside the root there is only what was there.
            let mut beside: Vec<_> = fs::read_dir(world.account.maildir().parent().unwrap()).unwrap().collect();
            beside.retain(|entry| !entry.as_ref().unwrap().file_name().to_str().unwrap().contains("dconf"));
            assert_eq!(beside.len(), 4, "{beside:?}");
            // What is done in them crosses.
            for (n, name) in names.iter().enumerate() {
                let (raw, uid) = (world.raw(name), 1);
                match n % 2 {
                    0 => world.sim().state().set_flags(&raw, uid, &["\\Flagged"]),
                    _ => world.sim().state().expunge(&raw, uid),
                }
            }
            world.sync(0);
            assert_same_messages(&world, names.len().div_ceil(2));
            world.assert_at_rest(0);
        }
    }
}

#[test]
fn names_differ_by_separator_and_prefix() {
    let options = Options { format: "sdbox", separator: '.', prefix: "INBOX.", ..Profile::Full.into() };
    let host = Host::start(Kind::Dovecot(options));
    let world = host.world("");
    for mailbox in ["Lists/rust", "Entwürfe", "it's"] {
        world.create(mailbox);
        world.append(mailbox, "there", &[], 1_000);
        world.append(mailbox, "moves", &[], 1_000);
    }
    world.deliver("Neu/here", "here", 2_000);
    world.mirror();
    world.move_here("Lists/rust", "moves", "Neu/here");
    world.rename("Entwürfe", "Drafts/old");
    world.mirror();
    let listing = world.listing();
    assert!(listing.contains("Drafts/old: moves there; INBOX:; Lists/rust: there; Neu/here: here moves"), "{listing}");
}

/// Where the separator is another character, a slash is as good as any.
#[test]
fn a_slash_in_a_name() {
    let host = Host::start(Kind::Sim(postkeep_sim::Profile::Full));
    let world = host.world("").with_hierarchy('.', "INBOX.");
    world.sim().state().create("INBOX.a/b.c");
    world.sim().state().create("INBOX.a/b");
    world.sim().state().append("INBOX.a/b", b"Subject: slash\r\n\r\n", &[], 1_000);
    world.deliver("a%2Fb/here", "here", 2_000);
    world.mirror();
    assert!(world.account.maildir().join("a%2Fb/new").is_dir());
    assert!(world.sim().state().mailboxes.contains_key("INBOX.a/b.here"), "{}", world.listing());
}

/// The maildir++ layout: the INBOX is the root itself, the others lie beside each other in it.
#[test]
fn the_layout_maildir_plus_plus() {
    everywhere(|host| {
        let world = host.world("layout = \"maildir++\"");
        world.append("INBOX", "inbox", &[], 1_000);
        for mailbox in ["Lists", "Lists/rust", "Entwürfe"] {
            world.create(mailbox);
            world.append(mailbox, "hello", &["\\Seen"], 1_000);
        }
        world.mirror();
        let root = world.account.maildir();
        assert!(root.join(".Lists.rust/cur").is_dir() && root.join("new").is_dir());
        world.deliver("Here/below", "new", 2_000);
        if host.has("UIDPLUS") {
            world.move_here("INBOX", "inbox", "Lists/rust");
        }
        world.rename("Lists", "Mailing lists");
        world.mirror();
        let listing = world.listing();
        let moved = if host.has("UIDPLUS") { "Mailing lists/rust: hello inbox" } else { "Mailing lists/rust: hello" };
        assert!(listing.contains(moved), "{listing}");
        assert!(root.join(".Mailing lists.rust").is_dir() && !root.join(".Lists").exists());
    });
}

/// A directory that could be a part of a maildir on some file system is no mailbox, and that is said.
#[test]
fn a_maildir_that_no_mailbox_has_is_told() {
    let host = Host::start(Kind::Sim(postkeep_sim::Profile::Full));
    let world = host.world("");
    world.deliver("New/here", "here", 1_000);
    world.deliver("Other", "there", 1_000);
    let output = world.sync(1);
    assert_eq!(output.stdout.matches("New/here was passed over").count(), 1, "{}", output.stdout);
    assert_eq!(world.listing(), "INBOX:; Other: there");
}

/// A name is known by what `mailboxes` says; what is left out is not touched on either side.
#[test]
fn what_is_left_out_stays_as_it_is() {
    on_sims(|host| {
        let world = host.world("mailboxes = [\"**\", \"!Lists/**\"]");
        for mailbox in ["Lists/rust", "Other"] {
            world.create(mailbox);
            world.append(mailbox, "there", &[], 1_000);
        }
        world.deliver("Lists/here", "here", 1_000);
        world.sync(0);
        world.assert_at_rest(0);
        assert_eq!(world.listing(), "INBOX:; Lists/rust: there; Other: there");
        assert!(!world.account.maildir().join("Lists/rust").exists());
    });
}
