//! Real mail readers read what was written, and what they do crosses.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};

use crate::mirror::{Host, Kind, World, letters, message};
use crate::terminal;

fn filled(host: &Host) -> World<'_> {
    let world = host.world("");
    world.create("Lists/rust");
    world.append("INBOX", "new", &[], 1_000_000_000);
    world.append("INBOX", "seen", &["\\Seen"], 1_000_000_001);
    world.append("INBOX", "answered", &["\\Seen", "\\Answered"], 1_000_000_002);
    world.append("INBOX", "flagged", &["\\Flagged"], 1_000_000_003);
    world.append("Lists/rust", "draft", &["\\Draft", "work"], 1_000_000_004);
    world.mirror();
    world
}

fn sim() -> Host {
    Host::start(Kind::Sim(postkeep_sim::Profile::Full))
}

#[test]
fn the_maildir_crate_reads_the_same() {
    let host = sim();
    let world = filled(&host);
    let maildir = maildir::Maildir::from(world.account.maildir().join("INBOX"));
    assert_eq!((maildir.count_new(), maildir.count_cur()), (1, 3));
    let mut found = BTreeMap::new();
    for entry in maildir.list_new().chain(maildir.list_cur()) {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let subject = ["new", "seen", "answered", "flagged"]
            .into_iter()
            .find(|s| message(s).into_iter().filter(|b| *b != b'\r').collect::<Vec<_>>() == bytes);
        found.insert(subject.unwrap(), entry.flags().to_owned());
    }
    let wanted = [("answered", "RS"), ("flagged", "F"), ("new", ""), ("seen", "S")];
    assert_eq!(found, wanted.map(|(subject, letters)| (subject, letters.to_owned())).into());
    // What it stores and deletes crosses.
    let text: Vec<u8> = message("stored").into_iter().filter(|b| *b != b'\r').collect();
    maildir.store_cur_with_flags(&text, "FS").unwrap();
    let seen = world.file("INBOX", "seen").file_name().unwrap().to_str().unwrap().to_owned();
    maildir.delete(seen.split(':').next().unwrap()).unwrap();
    world.mirror();
    assert_eq!(world.listing(), "INBOX: answered flagged new stored; Lists/rust: draft");
    assert_eq!(world.flags("INBOX")["stored"], "\\Flagged \\Seen");
}

#[test]
fn notmuch_counts_the_same() {
    let host = sim();
    let world = filled(&host);
    let config = world.account.state_dir().join("notmuch-config");
    let text = format!(
        "[database]\npath={}\n[user]\nname=a\nprimary_email=a@example.org\n[new]\ntags=unread;inbox\n\
         ignore=/dovecot-.*/;.postkeep\n[maildir]\nsynchronize_flags=true\n",
        world.account.maildir().display()
    );
    fs::write(&config, text).unwrap();
    let notmuch = |args: &[&str]| {
        let mut command = Command::new("notmuch");
        command.args(args).env("NOTMUCH_CONFIG", &config).env("HOME", world.account.state_dir());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let added = notmuch(&["new"]);
    assert!(added.contains("Added 5 new messages"), "{added}");
    let counts = ["*", "tag:flagged", "tag:unread", "tag:replied", "tag:draft", "folder:Lists/rust"];
    assert_eq!(counts.map(|query| notmuch(&["count", query])), ["5", "1", "3", "1", "1", "1"]);
    // Its database lies in a hidden directory of the tree, and its tags become letters.
    notmuch(&["tag", "+flagged", "-unread", "subject:new"]);
    world.mirror();
    assert_eq!(letters(&world.file("INBOX", "new")), "FS");
    assert_eq!(world.flags("INBOX")["new"], "\\Flagged \\Seen");
    world.append("INBOX", "later", &[], 1_000_000_005);
    world.flag("INBOX", "flagged", "-\\Flagged +\\Seen");
    world.mirror();
    notmuch(&["new"]);
    assert_eq!(counts.map(|query| notmuch(&["count", query])), ["6", "1", "2", "1", "1", "1"]);
}

/// Runs mutt on a maildir, on a terminal of its own: a wrapper like `script` types an end of file into it when its own
/// standard input has ended, which to mutt is a command.
fn mutt(world: &World<'_>, mailbox: &Path, keys: &str) {
    let home = world.account.state_dir();
    let rc = home.join("muttrc");
    let lines = format!(
        "set folder={} record='' postponed='' confirmappend=no confirmcreate=no delete=yes move=no mark_old=no quit=yes\n",
        home.display()
    );
    fs::write(&rc, format!("{lines}push '{keys}'\n")).unwrap();
    let (terminal, screen) = terminal();
    // Keys that it takes for others would let it wait for more.
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5", "60", "mutt", "-n", "-F"]).arg(&rc).arg("-f").arg(mailbox);
    command.env("HOME", &home).env("TERM", "xterm");
    command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
    let mut child = command.spawn().unwrap();
    // The terminal ends when nobody has it open any more.
    drop(command);
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {}", screen.join().unwrap());
}

/// Opens a terminal: the end for a program, and a thread that returns what was written to it once nobody has it open.
fn terminal() -> (fs::File, JoinHandle<String>) {
    let (mut ours, theirs) = terminal::open();
    let read = move || {
        let mut text = Vec::new();
        // It ends with an error (EIO) where a pipe would just end.
        let _ = ours.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    (theirs, thread::spawn(read))
}

#[test]
fn what_mutt_does_crosses() {
    let host = sim();
    let world = filled(&host);
    let inbox = world.account.maildir().join("INBOX");
    mutt(&world, &inbox, "<limit>~s new<enter><flag-message><sync-mailbox><quit>");
    world.mirror();
    assert!(world.flags("INBOX")["new"].contains("\\Flagged"), "{:?}", world.flags("INBOX"));
    world.assert_no_transfer();

    // It copies a message under a new name, with a Content-Length, and deletes the old one: to us that is another message.
    let target = world.account.maildir().join("Lists/rust");
    let keys = format!("<limit>~s seen<enter><save-message>{}<enter><sync-mailbox><quit>", target.display());
    mutt(&world, &inbox, &keys);
    world.mirror();
    assert_eq!(world.listing(), "INBOX: answered flagged new; Lists/rust: draft seen");
    assert!(world.is_buried("seen"));

    mutt(&world, &inbox, "<limit>~s flagged<enter><delete-message><sync-mailbox><quit>");
    world.mirror();
    assert_eq!(world.listing(), "INBOX: answered new; Lists/rust: draft seen");
    assert!(world.is_buried("flagged"));
}
