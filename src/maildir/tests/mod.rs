//! Maildirs as a whole: what is written is read again, whatever happens meanwhile.

mod crowd;
mod delivery;
mod removal;
mod roots;
mod scans;
mod witness;

use std::io::Read;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::model::{Flags, MailboxName, Place, UniqueName};

/// A root in a temporary directory with an INBOX, and a graveyard beside it.
struct Fixture {
    root: Root,
    inbox: Maildir,
    graveyard: Graveyard,
    directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::create(&directory.path().join("Mail"), Layout::Nested).unwrap();
    let inbox = root.create_maildir(Path::new("INBOX")).unwrap();
    let graveyard = Graveyard::open(&directory.path().join("state"), "me");
    Fixture { root, inbox, graveyard, directory }
}

impl Fixture {
    fn inbox_name(&self) -> MailboxName {
        MailboxName::from("INBOX")
    }
}

fn flags(text: &str) -> Flags {
    let mut flags = Flags::new();
    assert!(text.split_whitespace().all(|name| flags.insert_imap(name)));
    flags
}

fn incoming<'a>(name: &str, flags_text: &str, body: &'a [u8]) -> Incoming<'a> {
    let name = UniqueName::new(name.as_bytes());
    Incoming { name, flags: flags(flags_text), internal_date: 1_000_000_000, body: Source::Memory(body) }
}

/// Delivers one message and returns what was written.
fn deliver(maildir: &Maildir, name: &str, flags: &str, body: &[u8]) -> Written {
    let mut delivery = Delivery::new(maildir, LineEndings::Lf).unwrap();
    let written = delivery.write(incoming(name, flags, body)).unwrap();
    delivery.commit().unwrap();
    written
}

/// The paths of all files below a directory, in order.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn served(maildir: &Maildir, file: &FileRef) -> Vec<u8> {
    let mut bytes = Vec::new();
    maildir.read(file).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// A small file system of its own in memory, until it is dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        let mount = mount.unwrap();
        assert!(mount.status.success(), "this test must be able to mount: {mount:?}");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
