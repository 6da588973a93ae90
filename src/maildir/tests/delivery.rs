//! Delivery: what is there afterwards, and what is not after a failure.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

#[test]
fn messages_are_filed_by_their_flags() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    let table = [
        ("1.a", "", "new/1.a"),
        ("1.b", "\\Seen \\Flagged", "cur/1.b:2,FS"),
        ("1.c", "$Forwarded \\Deleted \\Draft \\Answered", "cur/1.c:2,DPRT"),
        ("1.d", "work", "cur/1.d:2,a"),
        ("1.e", "later Work \\Seen", "cur/1.e:2,Sab"),
    ];
    for (name, flag_text, path) in table {
        let written = deliver(&inbox, name, flag_text, b"A: b\r\n\r\nbody\r\n");
        assert_eq!(written.file.path(), PathBuf::from(path));
        assert_eq!(written.flags, flags(flag_text));
        let full = inbox.path().join(path);
        assert_eq!(std::fs::read(&full).unwrap(), b"A: b\n\nbody\n");
        let data = full.metadata().unwrap();
        assert_eq!((data.mode() & 0o7777, data.mtime(), data.ino()), (0o600, 1_000_000_000, written.inode));
        let keyed = inbox.key(&written.file).unwrap();
        assert_eq!((keyed.keys.whole, keyed.internal_date, keyed.inode), (written.key, 1_000_000_000, written.inode));
    }
    assert_eq!(std::fs::read(inbox.path().join("dovecot-keywords")).unwrap(), b"0 work\n1 later\n");
}

#[test]
fn another_reader_sees_the_same() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for n in 0..300 {
        let body = format!("Subject: {n}\r\n\r\nline of {n}\r\n");
        let flag_text = ["", "\\Seen", "\\Flagged \\Seen", "\\Deleted"][n % 4];
        let letters = ["", "S", "FS", "T"][n % 4];
        let name = unique_name().unwrap();
        let message = incoming(&name.to_string(), flag_text, body.as_bytes());
        delivery.write(message).unwrap();
        expected.insert(name.to_string(), (letters.to_owned(), body.replace("\r\n", "\n")));
    }
    delivery.commit().unwrap();
    let other = maildir::Maildir::from(inbox.path().to_owned());
    let entries = other.list_new().chain(other.list_cur()).map(Result::unwrap);
    let seen: std::collections::BTreeMap<_, _> = entries
        .map(|entry| {
            let body = String::from_utf8(std::fs::read(entry.path()).unwrap()).unwrap();
            (entry.id().to_owned(), (entry.flags().to_owned(), body))
        })
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn without_a_commit_nothing_is_left() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
    delivery.write(incoming("1.a", "", b"text")).unwrap();
    assert_eq!((files(inbox.path()), delivery.len()), (vec!["tmp/1.a".to_owned()], 1));
    drop(delivery);
    assert_eq!(files(inbox.path()), Vec::<String>::new());
}

#[test]
fn a_taken_name_is_told_and_the_file_left_alone() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    std::fs::write(inbox.path().join("new/1.a"), "old").unwrap();
    let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
    for name in ["1.a", "1.b"] {
        delivery.write(incoming(name, "", b"new")).unwrap();
    }
    let error = delivery.commit().unwrap_err();
    assert!(matches!(&error, Error::Taken { names, .. } if *names == [UniqueName::new(b"1.a")]), "{error}");
    assert_eq!(files(inbox.path()), ["new/1.a", "new/1.b"]);
    assert_eq!(std::fs::read(inbox.path().join("new/1.a")).unwrap(), b"old");
}

#[test]
fn what_a_crash_left_of_the_same_name_is_replaced() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    std::fs::write(inbox.path().join("tmp/1.a"), "half a mess").unwrap();
    deliver(&inbox, "1.a", "", b"whole");
    assert_eq!(files(inbox.path()), ["new/1.a"]);
    assert_eq!(std::fs::read(inbox.path().join("new/1.a")).unwrap(), b"whole");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let Fixture { inbox, directory, .. } = fixture();
    let before = files(directory.path());
    let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
    for name in ["../x", "", ".", "..", "a:2,S", "/etc/x", "nul\0"] {
        let error = delivery.write(incoming(name, "", b"text")).unwrap_err();
        assert!(matches!(error, Error::Unusable { .. }), "{error}");
    }
    drop(delivery);
    assert_eq!(files(directory.path()), before);
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let disk = Mounted::new("512k");
    let root = Root::create(&disk.path().join("Mail"), Layout::Nested).unwrap();
    let inbox = root.create_maildir(Path::new("INBOX")).unwrap();
    deliver(&inbox, "1.first", "", &[b'x'; 100_000]);
    let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
    let mut written = 0;
    let error = loop {
        match delivery.write(incoming(&format!("2.{written}"), "", &[b'y'; 100_000])) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    // The file's name is another one with each try, so that the same failure would look like a new one.
    assert!(error.to_string().contains("/INBOX: no space") && !error.to_string().contains("2."), "{error}");
    // The message that did not fit is gone, those before it can still be delivered.
    assert_eq!(files(&inbox.path().join("tmp")).len(), written);
    assert!(written > 0);
    delivery.commit().unwrap();
    assert_eq!(files(&inbox.path().join("tmp")), Vec::<String>::new());
    let scan = inbox.scan().unwrap();
    assert_eq!(scan.len(), written + 1);
    assert!(scan.iter().all(|entry| inbox.read(&entry.file()).unwrap().length() == 100_000));
    // With space again it goes on by itself; also keywords need space, and an old file stays whole without.
    std::fs::remove_file(inbox.path().join("new/2.0")).unwrap();
    deliver(&inbox, "3.last", "", &[b'z'; 50_000]);
    assert_eq!(inbox.scan().unwrap().len(), written + 1);
}

#[test]
fn a_full_disk_at_the_commit_leaves_no_draft() {
    let disk = Mounted::new("256k");
    let root = Root::create(&disk.path().join("Mail"), Layout::Nested).unwrap();
    let inbox = root.create_maildir(Path::new("INBOX")).unwrap();
    let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
    delivery.write(incoming("1.a", "a-new-keyword", b"text")).unwrap();
    // The keywords cannot be saved: without them the letter in the name would mean nothing.
    let filled = std::fs::write(disk.path().join("fill"), vec![0; 300_000]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let error = delivery.commit().unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert_eq!(files(inbox.path()), Vec::<String>::new());
}

#[test]
fn a_read_only_disk_is_told() {
    let disk = Mounted::new("256k");
    let root = Root::create(&disk.path().join("Mail"), Layout::Nested).unwrap();
    let inbox = root.create_maildir(Path::new("INBOX")).unwrap();
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status().unwrap();
    assert!(remount.success());
    let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
    let error = delivery.write(incoming("1.a", "", b"text")).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_delivered_is_read_again(bodies in prop::collection::vec("[\r\n\r\na\u{0}\u{fe}]{1,40}", 1..20)) {
        let Fixture { inbox, directory: _kept, .. } = fixture();
        let mut delivery = Delivery::new(&inbox, LineEndings::Lf).unwrap();
        let mut all = Vec::new();
        for body in &bodies {
            let spool = tempfile::tempfile().unwrap();
            spool.write_all_at(body.as_bytes(), 0).unwrap();
            let name = unique_name().unwrap();
            let message = Incoming { body: Source::File(&spool), ..incoming(&name.to_string(), "", b"") };
            all.push((delivery.write(message).unwrap(), body));
        }
        delivery.commit().unwrap();
        for (written, body) in all {
            prop_assert_eq!(served(&inbox, &written.file), body.as_bytes());
            prop_assert_eq!(inbox.key(&written.file).unwrap().keys.whole, written.key);
            let mut hasher = ContentHasher::default();
            hasher.update(body.as_bytes());
            prop_assert_eq!(hasher.finish(), written.key);
        }
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    const CHILD: &str = "POSTKEEP_TEST_UMASK_DIRECTORY";
    let Some(directory) = std::env::var_os(CHILD) else {
        // The umask belongs to the whole process, so this needs its own.
        for umask in ["0000", "0177", "0777"] {
            let directory = tempfile::tempdir().unwrap();
            let script = format!(
                "umask {umask}; exec \"$0\" --exact maildir::tests::delivery::modes_do_not_depend_on_the_umask"
            );
            let mut child = Command::new("sh");
            child.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).env(CHILD, directory.path());
            let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
            assert!(child.wait().unwrap().success(), "{umask}");
            assert!(directory.path().join("Mail/INBOX/new/1.a").exists());
            let mut open = vec![directory.path().join("Mail"), directory.path().join("state")];
            while let Some(path) = open.pop() {
                let data = path.metadata().unwrap();
                let expected = if data.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(data.permissions().mode() & 0o7777, expected, "{}", path.display());
                if data.is_dir() {
                    open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
        }
        return;
    };
    let directory = Path::new(&directory);
    let root = Root::create(&directory.join("Mail"), Layout::Nested).unwrap();
    root.set_marker(&Marker { account: "me".to_owned(), generation: 1, nonce: "n".to_owned() }).unwrap();
    let inbox = root.create_maildir(Path::new("INBOX")).unwrap();
    deliver(&inbox, "1.a", "", b"text");
    deliver(&inbox, "1.b", "work", b"text");
    let graveyard = Graveyard::open(&directory.join("state"), "me");
    graveyard.keep(&MailboxName::from("INBOX"), Source::Memory(b"text"), Flags::new(), 0).unwrap();
}

#[test]
fn old_leftovers_of_ours_are_swept() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    let ours = unique_name().unwrap().to_string();
    for name in [ours.as_str(), "1.foreign"] {
        std::fs::write(inbox.path().join("tmp").join(name), "half").unwrap();
    }
    let now = jiff::Timestamp::now().as_second();
    assert_eq!(inbox.sweep_tmp(now + 35 * 3600).unwrap(), 0);
    assert_eq!(inbox.sweep_tmp(now + 37 * 3600).unwrap(), 1);
    assert_eq!(files(inbox.path()), ["tmp/1.foreign"]);
}
