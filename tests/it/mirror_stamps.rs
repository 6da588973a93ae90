//! What was looked at is not looked at again, and what was not seen is.

use postkeep::db::Db;
use postkeep::maildir::{Layout, Root};
use postkeep_sim::Profile;

use crate::mirror::{Host, Kind, World, letters};

/// What somebody does on either side.
type Act = fn(&World<'_>);

fn host() -> Host {
    Host::start(Kind::Sim(Profile::Full))
}

/// An INBOX that is the same on both sides, with messages called `0` to `9`.
fn filled(host: &Host) -> World<'_> {
    let world = host.world("");
    for n in 0..10 {
        world.append("INBOX", &n.to_string(), &["\\Seen"], 1_000_000_000 + n);
    }
    world.sync(0);
    world
}

/// Tells whether the database knows the maildir as it is now, so that the next pass need not list it.
fn is_known(world: &World<'_>) -> bool {
    let db = Db::open(&world.account.state_dir().join("a.sqlite3")).unwrap();
    let row = db.read_now(|tx| tx.mailboxes()).unwrap().into_iter().find(|row| row.name.is_inbox()).unwrap();
    let root = Root::open(&world.account.maildir(), Layout::Nested).unwrap().unwrap();
    let maildir = root.maildir(&row.path.unwrap()).unwrap().unwrap();
    row.stamp == Some(maildir.stamp().unwrap().to_numbers())
}

#[test]
fn what_a_pass_did_need_not_be_listed_by_the_next() {
    let host = host();
    let world = filled(&host);
    assert!(is_known(&world), "after the first pass");
    let acts: [(&str, Act); 4] = [
        ("flags", |w| w.flag("INBOX", "3", "+\\Flagged")),
        ("a new message", |w| w.append("INBOX", "new", &[], 1_000_000_100)),
        ("an expunge", |w| w.expunge("INBOX", "4")),
        ("all at once, and a change here", |w| {
            w.flag("INBOX", "5", "+\\Answered");
            w.append("INBOX", "newer", &["\\Seen"], 1_000_000_101);
            w.expunge("INBOX", "6");
            w.mark("INBOX", "7", "FS");
        }),
    ];
    for (what, act) in acts {
        act(&world);
        world.sync(0);
        assert!(is_known(&world), "after {what}");
        world.account.assert_equal(world.remote());
    }
    // What a reader does now shows at once.
    world.mark("INBOX", "8", "FS");
    assert!(!is_known(&world));
    world.mirror();
    assert_eq!(world.flags("INBOX")["8"], "\\Flagged \\Seen");
}

#[test]
fn what_a_reader_does_during_a_pass_is_seen_by_the_next() {
    // The command at which the reader acts; then the pass has looked at the maildir, and is about to change it.
    let table: [(&str, Act); 3] = [
        ("UID FETCH BODY.PEEK[]", |w| w.append("INBOX", "new", &[], 1_000_000_100)),
        ("UID FETCH BODY.PEEK[]", |w| {
            w.append("INBOX", "new", &[], 1_000_000_100);
            w.flag("INBOX", "3", "+\\Flagged");
        }),
        ("UID STORE", |w| {
            w.mark("INBOX", "3", "FS");
            w.flag("INBOX", "4", "+\\Flagged");
        }),
    ];
    for (command, act) in table {
        let host = host();
        let world = filled(&host);
        act(&world);
        let (from, to) = (world.file("INBOX", "8"), world.file("INBOX", "8").with_file_name("reader:2,RS"));
        let name = from.file_name().unwrap().to_str().unwrap().replace(":2,S", ":2,RS");
        let to = to.with_file_name(name);
        let rename = (from, to.clone());
        world.sim().on_command(command, 1, move |_| std::fs::rename(&rename.0, &rename.1).unwrap());
        world.sync(0);
        assert!(to.exists(), "{command}: the reader did not act");
        let answered = world.flags("INBOX")["8"] == "\\Answered \\Seen";
        assert!(answered || !is_known(&world), "{command}: the reader's change was passed over");
        world.mirror();
        assert_eq!(world.flags("INBOX")["8"], "\\Answered \\Seen", "{command}");
        assert_eq!(letters(&world.file("INBOX", "8")), "RS");
    }
}

#[test]
fn a_change_here_is_seen_though_the_last_change_was_the_programs_own() {
    let host = host();
    let world = filled(&host);
    // The stamp is now one that the program vouches for.
    world.flag("INBOX", "3", "+\\Flagged");
    world.sync(0);
    assert!(is_known(&world));
    // The user flags what is expunged on the server: the message is to be kept.
    world.mark("INBOX", "5", "FS");
    world.expunge("INBOX", "5");
    world.delete_here("INBOX", "6");
    world.flag("INBOX", "7", "+\\Draft");
    world.is_meant_to_vanish("6");
    world.mirror();
    let flags = world.flags("INBOX");
    assert_eq!((flags["5"].as_str(), flags["7"].as_str()), ("\\Flagged \\Seen", "\\Draft \\Seen"));
    assert!(!flags.contains_key("6"));
}

#[test]
fn flags_of_a_message_that_moves_there_are_merged_where_it_goes() {
    let host = host();
    let world = filled(&host);
    world.create("Other");
    for n in 0..5 {
        world.append("Other", &format!("other {n}"), &["\\Seen"], 1_000_000_200 + n);
    }
    world.sync(0);
    world.mark("INBOX", "3", "RS");
    world.move_there("INBOX", "3", "Other");
    world.mirror();
    assert_eq!(world.flags("Other")["3"], "\\Answered \\Seen");
}

#[test]
fn a_file_with_an_unusual_name_is_found() {
    let host = host();
    let world = filled(&host);
    for n in ["3", "4", "5"] {
        let file = world.file("INBOX", n);
        let name = format!("{}S", file.file_name().unwrap().to_str().unwrap());
        std::fs::rename(&file, file.with_file_name(name)).unwrap();
    }
    world.mirror();
    world.flag("INBOX", "3", "+\\Flagged");
    world.expunge("INBOX", "4");
    world.is_meant_to_vanish("4");
    world.mirror();
    assert_eq!(world.flags("INBOX")["3"], "\\Flagged \\Seen");
    assert!(world.files("INBOX", "4").is_empty());
    assert_eq!((letters(&world.file("INBOX", "3")), letters(&world.file("INBOX", "5"))), ("FS", "SS"));
}
