//! Numbers that hold no more: renumbered mailboxes, restored backups, lost databases, trees that others filled.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::dovecot::{PASSWORD, Profile};
use crate::mirror::{Host, Kind, World, everywhere, on_sims};

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
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
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

/// Names with `,U=7` and files that this program knows nothing of. mbsync marks what it stores with a header of its own,
/// without which it is the message again.
#[test]
fn a_tree_that_mbsync_has_filled_is_taken_over() {
    let host = Host::start(Kind::Dovecot(Profile::Full.into()));
    let world = host.world("");
    world.create("Lists/rust");
    for (n, subject) in ["a", "b", "c"].into_iter().enumerate() {
        world.append("INBOX", subject, if n == 0 { &["\\Seen", "\\Flagged"] } else { &[] }, 1_000 + n as i64);
        world.append("Lists/rust", &format!("list-{subject}"), &["\\Answered"], 2_000 + n as i64);
    }
    let (root, dir) = (world.account.maildir(), world.account.state_dir().with_extension("mbsync"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let (server, user) = world.dovecot();
    let config = format!(
        "IMAPAccount a\nHost 127.0.0.1\nPort {}\nUser {user}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount a\n\nMaildirStore near\nPath {root}/\nInbox {root}/INBOX\nSubFolders Verbatim\n\n\
         Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSync All\nCopyArrivalDate yes\nSyncState {dir}/\n",
        server.port(),
        root = root.display(),
        dir = dir.display()
    );
    fs::write(dir.join("rc"), config).unwrap();
    let output = Command::new("mbsync").arg("-c").arg(dir.join("rc")).arg("c").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(world.file("INBOX", "a").to_str().unwrap().contains(",U="));
    for file in ["INBOX", "Lists/rust"].iter().flat_map(|mailbox| world.account.files(mailbox)) {
        let (text, date) = (fs::read_to_string(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
        let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| !line.starts_with("X-TUID: ")).collect();
        fs::write(&file, lines.concat()).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(date).unwrap();
    }
    world.flag("INBOX", "b", "+\\Seen");
    world.mirror();
    world.assert_no_transfer();
    assert_eq!(world.changes(), Vec::<String>::new());
}
