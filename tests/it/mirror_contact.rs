//! Numbers that hold no more: renumbered mailboxes, restored backups, lost databases, trees that others filled.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postkeep_sim::Command;

use crate::dovecot::{PASSWORD, Profile};
use crate::mirror::{Host, Kind, World, everywhere, letters, on_sims};

fn filled(host: &Host) -> World<'_> {
    let world = host.world("");
    world.create("Lists/rust");
    for (n, subject) in ["a", "b", "c", "d"].into_iter().enumerate() {
        world.append("INBOX", subject, if n == 0 { &["\\Seen", "work"] } else { &[] }, 1_000 + n as i64);
        world.append("Lists/rust", &format!("list-{subject}"), &[], 2_000 + n as i64);
    }
    world.mirror();
    world
}

fn database(world: &World<'_>) -> Vec<std::path::PathBuf> {
    ["sqlite3", "sqlite3-wal", "sqlite3-shm"].map(|end| world.account.state_dir().join(format!("a.{end}"))).into()
}

fn copy_tree(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_renumbered_mailbox_is_matched_by_content() {
    everywhere(|host| {
        let world = filled(host);
        world.flag("INBOX", "b", "+\\Flagged");
        world.mark("INBOX", "c", "S");
        world.mark("INBOX", "a", "");
        world.renumber("INBOX");
        world.mirror();
        world.assert_no_transfer();
        let flags = world.flags("INBOX");
        assert_eq!([&flags["a"], &flags["b"], &flags["c"], &flags["d"]], ["", "\\Flagged", "\\Seen", ""]);
    });
}

/// While the numbers change, mail comes and goes on both sides: nothing is removed in that pass.
#[test]
fn a_mailbox_is_renumbered_while_mail_comes_and_goes() {
    everywhere(|host| {
        let world = filled(host);
        world.append("INBOX", "new there", &[], 5_000);
        world.deliver("INBOX", "new here", 5_000);
        world.expunge("INBOX", "b");
        world.delete_here("INBOX", "c");
        world.renumber("INBOX");
        world.mirror();
        assert_eq!(world.listing(), "INBOX: a b c d new here new there; Lists/rust: list-a list-b list-c list-d");
    });
}

#[test]
fn a_lost_database_costs_nothing() {
    everywhere(|host| {
        for marker_too in [false, true] {
            let world = filled(host);
            database(&world).iter().for_each(|file| drop(fs::remove_file(file)));
            if marker_too {
                fs::remove_file(world.account.maildir().join(".postkeep")).unwrap();
            }
            world.flag("INBOX", "b", "+\\Flagged");
            world.mark("INBOX", "c", "S");
            // That both sides have been united is worth telling, once.
            let output = world.sync(i32::from(!marker_too));
            assert_eq!(output.stdout.contains("united by content"), !marker_too, "{}", output.stdout);
            let log = world.log();
            let lists = |c: &&Command| c.name == "UID FETCH" && c.args.starts_with("1:* (") && !c.args.contains("BODY");
            let lists: Vec<_> = log.iter().filter(lists).map(ToString::to_string).collect();
            assert_eq!(lists.len(), 2, "each mailbox is to be listed once: {lists:?}");
            world.assert_no_transfer();
            world.assert_mirrored();
            let flags = world.flags("INBOX");
            assert_eq!([&flags["a"], &flags["b"], &flags["c"]], ["\\Seen work", "\\Flagged", "\\Seen"]);
        }
    });
}

/// The server lost its last mails, and gives their numbers to others.
#[test]
fn a_server_restored_from_a_backup_loses_nothing() {
    on_sims(|host| {
        for reused in 0..2 {
            let world = filled(host);
            let backup = world.sim().state().mailbox("INBOX").clone();
            ["e", "f", "g"].iter().for_each(|s| world.append("INBOX", s, &[], 3_000));
            world.flag("INBOX", "b", "+\\Flagged");
            world.mirror();
            world.sim().state().restore_backup("INBOX", &backup);
            (0..reused).for_each(|n| world.append("INBOX", &format!("x{n}"), &[], 4_000));
            world.mirror();
            let others = if reused > 0 { " x0" } else { "" };
            assert!(world.listing().starts_with(&format!("INBOX: a b c d e f g{others};")), "{}", world.listing());
        }
    });
}

/// The maildir is put back to what it was before: what came since then comes again, what was deleted since then is back.
#[test]
fn a_restored_maildir_loses_nothing() {
    everywhere(|host| {
        let world = filled(host);
        let (root, aside) = (world.account.maildir(), world.account.maildir().with_extension("backup"));
        copy_tree(&root, &aside);
        world.append("INBOX", "new there", &[], 5_000);
        world.deliver("Lists/rust", "new here", 5_000);
        world.expunge("INBOX", "b");
        world.delete_here("INBOX", "c");
        world.sync(0);
        fs::remove_dir_all(&root).unwrap();
        copy_tree(&aside, &root);
        let output = world.sync(1);
        assert!(output.stdout.contains("maildir is older than its database"), "{}", output.stdout);
        assert!(!world.changes().iter().any(|name| name.contains("EXPUNGE") || name.contains("MOVE")));
        world.assert_mirrored();
        let listing = world.listing();
        assert!(listing.starts_with("INBOX: a b c d new there; Lists/rust: list-a"), "{listing}");
        assert!(listing.contains("new here"), "{listing}");
    });
}

#[test]
fn a_restored_database_loses_nothing() {
    everywhere(|host| {
        let world = filled(host);
        let files = database(&world);
        let saved: Vec<_> = files.iter().map(|file| fs::read(file).ok()).collect();
        world.append("INBOX", "new there", &[], 5_000);
        world.deliver("Lists/rust", "new here", 5_000);
        world.expunge("INBOX", "b");
        world.sync(0);
        for (file, bytes) in files.iter().zip(saved) {
            match bytes {
                Some(bytes) => fs::write(file, bytes).unwrap(),
                None => drop(fs::remove_file(file)),
            }
        }
        let output = world.sync(1);
        assert!(output.stdout.contains("database is older than the maildir"), "{}", output.stdout);
        world.assert_no_transfer();
        world.assert_mirrored();
        assert!(world.listing().starts_with("INBOX: a c d new there;"), "{}", world.listing());
    });
}

/// The server lost its last mails, and all their numbers were given to others before anybody looked: no number tells, but
/// dates do once everything is listed.
#[test]
fn a_server_that_gave_all_numbers_again_is_noticed() {
    on_sims(|host| {
        if host.has("CONDSTORE") {
            return;
        }
        let world = filled(host);
        let backup = world.sim().state().mailbox("INBOX").clone();
        (0..3).for_each(|n| world.append("INBOX", &format!("old{n}"), &[], 3_000 + n));
        world.mirror();
        world.sim().state().restore_backup("INBOX", &backup);
        (0..4).for_each(|n| world.append("INBOX", &format!("new{n}"), &["\\Seen"], 4_000 + n));
        // Said of one of the lost ones, whose number another one has.
        world.delete_here("INBOX", "old1");
        world.is_meant_to_vanish("old1");
        assert_eq!(world.run(&["sync", "--full"]).code, 0);
        world.assert_mirrored();
        let listing = world.listing();
        assert!(listing.starts_with("INBOX: a b c d new0 new1 new2 new3 old0 old2;"), "{listing}");
        assert_eq!(world.flags("INBOX")["old0"], "");
        // It is the same again: nothing is noticed any more.
        assert_eq!(world.run(&["sync", "--full"]).stdout, "a: in sync\n");
    });
}

/// Runs mbsync over all mailboxes, as a user did until today.
fn mbsync(world: &World<'_>) {
    let (root, dir) = (world.account.maildir(), world.account.state_dir().with_extension("mbsync"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let (server, user) = world.dovecot();
    let config = format!(
        "IMAPAccount a\nHost 127.0.0.1\nPort {}\nUser {user}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount a\n\nMaildirStore near\nPath {root}/\nInbox {root}/INBOX\nSubFolders Verbatim\n\n\
         Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nSync All\nCopyArrivalDate yes\nSyncState {dir}/\n",
        server.port(),
        root = root.display(),
        dir = dir.display()
    );
    fs::write(dir.join("rc"), config).unwrap();
    let output = std::process::Command::new("mbsync").arg("-c").arg(dir.join("rc")).arg("c").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_marked(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| window == b"X-TUID: ")
}

/// Names with `,U=7` and files that this program knows nothing of. mbsync marks each copy that it stores, on either side,
/// with a header line that the other copy lacks: they are the same, and neither is touched for it.
#[test]
fn a_tree_that_mbsync_has_filled_is_taken_over() {
    let host = Host::start(Kind::Dovecot(Profile::Full.into()));
    let world = host.world("");
    world.create("Lists/rust");
    for (n, subject) in ["a", "b", "c", "same", "same"].into_iter().enumerate() {
        world.append("INBOX", subject, if n == 0 { &["\\Seen", "\\Flagged"] } else { &[] }, 1_000 + n as i64);
        world.append("Lists/rust", &format!("list-{subject}"), &["\\Answered"], 2_000 + n as i64);
    }
    mbsync(&world);
    for subject in ["pushed", "pushed-too", "twin", "twin"] {
        world.deliver("INBOX", subject, 3_000);
    }
    mbsync(&world);
    assert!(world.file("INBOX", "a").to_str().unwrap().contains(",U="));
    let here = |subject: &str| is_marked(&fs::read(world.file("INBOX", subject)).unwrap());
    assert!(here("a") && !here("pushed"));
    let there = world.remote().mails();
    assert_eq!(there["INBOX"].iter().filter(|(_, mail)| is_marked(&mail.bytes)).count(), 4);

    let files = |world: &World<'_>| {
        world.account.files("INBOX").into_iter().map(|file| fs::read(file).unwrap()).collect::<BTreeSet<_>>()
    };
    let before = files(&world);
    world.flag("INBOX", "b", "+\\Seen");
    for lost in [false, true] {
        if lost {
            database(&world).iter().for_each(|file| drop(fs::remove_file(file)));
            fs::remove_file(world.account.maildir().join(".postkeep")).unwrap();
        }
        // Of equal messages, the bodies tell.
        let output = world.sync(0);
        assert!(output.stdout.contains("matched by content"), "{}", output.stdout);
        assert_eq!(world.changes(), Vec::<String>::new());
        assert!(files(&world) == before && world.account.files("INBOX").len() == 9);
        assert_eq!(world.account.files("Lists/rust").len(), 5);
        world.assert_at_rest(0);
    }
    // A copy of the tree has other inodes: its files are read again, and are what they were.
    let (root, aside) = (world.account.maildir(), world.account.maildir().with_extension("copy"));
    fs::rename(&root, &aside).unwrap();
    copy_tree(&aside, &root);
    world.sync(0);
    world.assert_no_transfer();
    assert_eq!(world.changes(), Vec::<String>::new());
    // What is done to them crosses, also moves.
    world.flag("INBOX", "pushed", "+\\Flagged");
    world.mark("INBOX", "c", "S");
    world.move_here("INBOX", "a", "Lists/rust");
    world.move_here("INBOX", "pushed-too", "Lists/rust");
    world.move_there("INBOX", "b", "Lists/rust");
    world.move_there("INBOX", "pushed", "Lists/rust");
    world.sync(0);
    world.assert_no_transfer();
    world.assert_at_rest(0);
    let listing = world.listing();
    assert!(
        listing.contains("Lists/rust: a b list-a list-b list-c list-same list-same pushed pushed-too"),
        "{listing}"
    );
    assert_eq!(world.flags("INBOX")["c"], "\\Seen");
    assert!(letters(&world.file("Lists/rust", "pushed")).contains('F') && world.graveyard().is_empty());
}
