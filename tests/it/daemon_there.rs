//! The daemon mirrors at once what happens, on either side.

use std::fs;

use postkeep_sim::Profile;

use crate::daemon::{Daemon, NO_SWEEP, message, scene};

#[test]
fn a_message_there_becomes_a_file_here() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.state().append("INBOX", &message("first"), &[], 1000);
    let daemon = Daemon::start(&account);
    daemon.until("the first pass", || account.files("INBOX").len() == 1);
    daemon.watches(&account);
    server.state().append("INBOX", &message("second"), &["\\Seen"], 2000);
    daemon.until_equal(&account, &server);
    assert_eq!(account.files("INBOX").len(), 2);
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

/// To ask a server for flags that counts no changes takes long, and what came is not to wait for it.
#[test]
fn what_comes_into_a_large_mailbox_waits_for_no_sweep_of_flags() {
    let (server, account) = scene(Profile::ExoClassic, NO_SWEEP);
    for n in 0..600 {
        server.state().append("INBOX", &message(&n.to_string()), &["\\Seen"], 1000);
    }
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    daemon.rest(&account);
    drop(server.take_commands());
    server.state().append("INBOX", &message("new"), &[], 2000);
    daemon.until_equal(&account, &server);
    daemon.rest(&account);
    let commands = server.take_commands();
    assert!(!commands.iter().any(|c| c.args.contains("SEEN")), "it asked for flags: {commands:?}");
    // The next look at everything must not take that for a sweep: flags may have changed of which nobody told.
    let database = rusqlite::Connection::open(account.state_dir().join("a.sqlite3")).unwrap();
    let sql = "SELECT unseen FROM mailbox WHERE name = 'INBOX'";
    assert_eq!(database.query_row(sql, [], |row| row.get::<_, Option<u32>>(0)).unwrap(), None);
    drop(database);
    server.state().set_flags("INBOX", 5, &["\\Flagged"]);
    daemon.until_equal(&account, &server);
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn flags_cross_both_ways() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.state().append("INBOX", &message("a"), &[], 1000);
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    let path = account.files("INBOX").remove(0);
    let path = account.set_info(&path, "S");
    daemon.until("the flag on the server", || server.state().mailbox("INBOX").messages[&1].flags.contains("\\Seen"));
    server.state().set_flags("INBOX", 1, &["\\Seen", "\\Flagged"]);
    daemon.until("the flag here", || account.files("INBOX")[0].to_string_lossy().ends_with(":2,FS"));
    assert!(!path.exists());
    daemon.until_equal(&account, &server);
}

#[test]
fn a_file_here_becomes_a_message_there() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start(&account);
    daemon.until("the maildir", || account.mailbox("INBOX").join("cur").is_dir());
    account.deliver("INBOX", &message("written here"));
    daemon.until("the upload", || server.state().mailbox("INBOX").messages.len() == 1);
    daemon.until_equal(&account, &server);
}

#[test]
fn a_file_that_is_still_written_waits_until_it_is_whole() {
    use std::io::Write;
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start(&account);
    daemon.until("the maildir", || account.mailbox("INBOX").join("cur").is_dir());
    let whole = message("grows").repeat(20);
    let mut file = fs::File::create(account.mailbox("INBOX").join("new/1.grows")).unwrap();
    for part in whole.chunks(100) {
        file.write_all(part).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
    drop(file);
    daemon.until("the upload", || !server.state().mailbox("INBOX").messages.is_empty());
    daemon.until_equal(&account, &server);
    assert_eq!(server.state().mailbox("INBOX").messages.len(), 1);
}

#[test]
fn new_mailboxes_are_made_on_the_other_side() {
    let (server, account) = scene(Profile::Full, "poll_interval = \"1s\"");
    let daemon = Daemon::start(&account);
    account.deliver("Lists/here", &message("here"));
    daemon.until("the mailbox there", || server.state().mailboxes.contains_key("Lists/here"));
    server.state().create("Lists/there");
    server.state().append("Lists/there", &message("there"), &[], 1000);
    daemon.until("the maildir here", || account.files("Lists/there").len() == 1);
    // What happens in a maildir that was just made is seen as well.
    account.deliver("Lists/there", &message("answer"));
    daemon.until_equal(&account, &server);
}

/// To look at one of them alone would be to take what the other has for new.
#[test]
fn a_mailbox_that_is_made_slowly_is_watched_once_it_is_whole() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start(&account);
    daemon.watches(&account);
    for part in ["tmp", "new", "cur"] {
        fs::create_dir_all(account.mailbox("Lists/rust").join(part)).unwrap();
        // Until then the directories have been watched anew.
        daemon.rest(&account);
    }
    account.deliver("Lists/rust", &message("a"));
    let uploaded = || server.state().mailboxes.get("Lists/rust").is_some_and(|there| there.messages.len() == 1);
    daemon.until("the upload", uploaded);
    daemon.until_equal(&account, &server);
}

#[test]
fn mailboxes_that_change_places_do_so_on_the_other_side() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (server, account) = scene(Profile::Full, "poll_interval = \"1s\"");
    for (mailbox, subject) in [("A", "a"), ("B", "b")] {
        server.state().create(mailbox);
        server.state().append(mailbox, &message(subject), &[], 1000);
    }
    let daemon = Daemon::start(&account);
    daemon.until("both maildirs", || ["A", "B"].iter().all(|name| account.files(name).len() == 1));
    daemon.until_equal(&account, &server);
    let at = |name: &str| account.maildir().join(name);
    let _ = server.take_commands();
    renameat_with(CWD, at("A"), CWD, at("B"), RenameFlags::EXCHANGE).unwrap();
    let is_b = |mailbox: &postkeep_sim::Mailbox| mailbox.messages.values().any(|one| one.bytes == message("b"));
    daemon.until("the renames there", || server.state().mailboxes.get("A").is_some_and(is_b));
    daemon.until_equal(&account, &server);
    {
        let mut state = server.state();
        [("A", "T"), ("B", "A"), ("T", "B")].iter().for_each(|(from, to)| state.rename(from, to));
    }
    let here = |name: &str| account.files(name).first().and_then(|path| fs::read(path).ok());
    daemon.until("the renames here", || here("A").is_some_and(|bytes| bytes.windows(10).any(|w| w == b"Subject: a")));
    daemon.until_equal(&account, &server);
    let transfers = |c: &postkeep_sim::Command| c.name == "APPEND" || c.args.contains("BODY.PEEK[]");
    assert!(!server.commands().iter().any(transfers), "{:?}", server.commands());
}

#[test]
fn removals_cross_after_everything_was_looked_at() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    for subject in ["a", "b", "c"] {
        server.state().append("INBOX", &message(subject), &[], 1000);
    }
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    fs::remove_file(account.files("INBOX").remove(0)).unwrap();
    daemon.until("the expunge", || server.state().mailbox("INBOX").messages.len() == 2);
    let uid = *server.state().mailbox("INBOX").messages.keys().next().unwrap();
    server.state().expunge("INBOX", uid);
    daemon.until("the removal", || account.files("INBOX").len() == 1);
    daemon.until_equal(&account, &server);
}

#[test]
fn removals_cost_no_listing_of_mailboxes_to_which_nothing_came() {
    // Here nothing but a listing tells of flags.
    let (server, account) = scene(crate::outlook::PROFILE, NO_SWEEP);
    for mailbox in ["INBOX", "Archive"] {
        for subject in ["a", "b", "c"] {
            server.state().append(mailbox, &message(&format!("{subject}{mailbox}")), &[], 1000);
        }
    }
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    daemon.rest(&account);
    drop(server.take_commands());
    fs::remove_file(account.files("INBOX").remove(0)).unwrap();
    daemon.until("the removal", || server.state().mailbox("INBOX").messages.len() == 2);
    daemon.rest(&account);
    let opened =
        |c: &postkeep_sim::Command| ["SELECT", "EXAMINE"].contains(&c.name.as_str()) && c.args.contains("Archive");
    let commands = server.take_commands();
    assert!(!commands.iter().any(opened), "{commands:?}");
    daemon.until_equal(&account, &server);
}

#[test]
fn a_move_here_is_a_move_there_and_the_other_way_round() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    server.state().create("Archive");
    server.state().append("INBOX", &message("a"), &[], 1000);
    server.state().append("INBOX", &message("b"), &[], 1000);
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    drop(server.take_commands());
    let path = account.files("INBOX").remove(0);
    account.move_to(&path, "Archive");
    daemon.until("the move there", || server.state().mailbox("Archive").messages.len() == 1);
    daemon.until_equal(&account, &server);
    assert!(server.take_commands().iter().any(|c| c.name == "UID MOVE"), "it was not moved");
    daemon.rest(&account);
    let inode = |mailbox: &str| {
        use std::os::unix::fs::MetadataExt;
        account.files(mailbox).iter().map(|path| fs::metadata(path).unwrap().ino()).collect::<Vec<_>>()
    };
    let file = inode("INBOX");
    let uid = *server.state().mailbox("INBOX").messages.keys().next().unwrap();
    server.state().move_message("INBOX", uid, "Archive");
    daemon.until("the move here", || account.files("Archive").len() == 2);
    daemon.until_equal(&account, &server);
    assert!(inode("Archive").contains(&file[0]), "it was downloaded again: {}", daemon.log());
}

#[test]
fn what_happened_to_a_few_files_costs_no_listing_of_all() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    for n in 0..20 {
        server.state().append("INBOX", &message(&format!("m{n}")), &["\\Seen"], 1000);
    }
    let daemon = Daemon::start(&account);
    daemon.until_equal(&account, &server);
    daemon.watches(&account);
    daemon.rest(&account);
    let listings = || daemon.log().matches("lists all files").count();
    let before = listings();
    assert!(before > 0, "{}", daemon.log());
    let path = account.files("INBOX").remove(0);
    account.set_info(&path, "FS");
    let flagged = || server.state().mailbox("INBOX").messages.values().any(|m| m.flags.contains("\\Flagged"));
    daemon.until("the flag", flagged);
    account.deliver("INBOX", &message("written here"));
    daemon.until("the upload", || server.state().mailbox("INBOX").messages.len() == 21);
    server.state().append("INBOX", &message("announced"), &[], 1000);
    daemon.until("the download", || account.files("INBOX").len() == 22);
    daemon.rest(&account);
    assert_eq!(listings(), before, "{}", daemon.log());
    fs::remove_file(account.files("INBOX").remove(0)).unwrap();
    daemon.until("the removal", || server.state().mailbox("INBOX").messages.len() == 21);
    assert!(listings() > before, "only a listing proves that a file is gone");
    daemon.until_equal(&account, &server);
}

#[test]
fn what_the_daemon_did_itself_is_no_work() {
    let (server, account) = scene(Profile::Full, NO_SWEEP);
    let daemon = Daemon::start(&account);
    daemon.watches(&account);
    server.state().append("INBOX", &message("a"), &[], 1000);
    daemon.until_equal(&account, &server);
    daemon.rest(&account);
    let scans = daemon.log().matches("files changed").count();
    assert_eq!(scans, 0, "{}", daemon.log());
}
