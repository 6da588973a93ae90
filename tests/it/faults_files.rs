//! The files here are at fault, or those who make them: odd files, copies, a lost or damaged database, two programs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};

use postkeep_sim::{Fault, Profile, When};

use crate::faults_scene::{Mount, Scene, mail, mail_here, powerless, run, says, sync_with};

fn inbox(scene: &Scene, name: &str) -> std::path::PathBuf {
    scene.account.maildir().join("INBOX").join(name)
}

#[test]
fn t48_what_is_no_message_is_left_alone() {
    let scene = Scene::synced(Profile::Full, 3);
    let outside = scene.account.state_dir().with_file_name("secret");
    fs::write(&outside, "not to be sent\n").unwrap();
    fs::create_dir(inbox(&scene, "cur/directory")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        inbox(&scene, "cur/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink(&outside, inbox(&scene, "cur/link:2,S")).unwrap();
    let _socket = UnixListener::bind(inbox(&scene, "cur/socket")).unwrap();
    fs::write(inbox(&scene, "new/.hidden"), "x").unwrap();
    let names = ["a directory", "a FIFO", "a symbolic link", "a socket", "was ignored"];
    let output = scene.sync();
    says(&output, output.code, &names);
    assert!([0, 1].contains(&output.code));
    scene.assert_told_nothing();
    says(&scene.account.run(&["status"]), 1, &names);
    for name in ["cur/directory", "cur/fifo", "cur/link:2,S", "cur/socket", "new/.hidden"] {
        assert!(fs::symlink_metadata(inbox(&scene, name)).is_ok(), "{name}");
        let path = inbox(&scene, name);
        if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    scene.assert_heals();
    says(&scene.account.run(&["status"]), 0, &[]);
}

#[test]
fn t48_an_unreadable_file_is_there_and_is_not_uploaded() {
    let scene = Scene::synced(Profile::Full, 3);
    let known = scene.file("INBOX", 1);
    let new = scene.delivered(4);
    for path in [&known, &new] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output = run(powerless(scene.account.command(&["sync", "--full"])));
    says(&output, 1, &["was not uploaded", "it is not allowed to be read"]);
    scene.assert_told_nothing();
    assert_eq!(scene.server.state().messages("INBOX").len(), 3);
    assert!(known.exists() && new.exists());
    assert_eq!(run(powerless(scene.account.command(&["status"]))).code, 1);
    for path in [&known, &new] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    says(&scene.account.run(&["sync", "--full"]), 0, &["1 uploaded"]);
    scene.assert_heals();
}

#[test]
fn t48_an_empty_file_is_no_message() {
    let scene = Scene::synced(Profile::Full, 2);
    let empty = scene.account.deliver("INBOX", b"");
    let output = scene.sync();
    says(&output, 1, &["was not uploaded"]);
    scene.assert_told_nothing();
    assert!(empty.exists());
    // It was only slow.
    let path = scene.delivered(3);
    fs::rename(path, &empty).unwrap();
    scene.assert_heals();
}

#[test]
fn t48_a_file_above_the_limit_is_skipped_and_told() {
    let scene = Scene::with(Profile::Full, "max_message_size = \"1MB\"");
    scene.arrives(1);
    scene.assert_heals();
    let large = [mail_here(2), vec![b'x'; 2 << 20]].concat();
    let here = scene.account.deliver("INBOX", &large);
    scene.server.state().append("INBOX", &[mail(3), vec![b'y'; 3 << 20]].concat(), &[], 0);
    scene.arrives(4);
    scene.sync_says(1, &["max_message_size"]);
    assert_eq!(fs::read(&here).unwrap(), large);
    assert_eq!(scene.server.state().messages("INBOX").len(), 3);
    let status = scene.account.run(&["status"]);
    says(&status, 1, &["2 skipped"]);
    assert_eq!(scene.account.files("INBOX").len(), 3, "mail 4 came all the same");
    scene.assert_graves(0);
    let config = fs::read_to_string(scene.account.config()).unwrap().replace("1MB", "9MB");
    fs::write(scene.account.config(), config).unwrap();
    says(&scene.account.run(&["sync", "--full"]), 0, &[]);
    scene.assert_heals();
}

#[test]
fn t48_a_file_that_vanishes_before_it_is_read_is_no_deletion() {
    let scene = Scene::synced(Profile::Full, 2);
    let path = scene.delivered(3);
    let (output, injected) =
        sync_with(&scene.account, "openat:error=ENOENT:when=1", Some(path.file_name().unwrap().as_ref()));
    assert!(injected > 0, "{output:?}");
    assert!([0, 1].contains(&output.code), "{output:?}");
    scene.assert_heals();
}

#[test]
fn t48_a_file_that_grows_is_uploaded_when_it_is_whole() {
    let scene = Scene::synced(Profile::Full, 1);
    let path = scene.account.deliver("INBOX", b"Subject: slow\n\nfirst\n");
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let mut file = fs::File::options().append(true).open(path).unwrap();
        for _ in 0..8 {
            file.write_all(b"more\n").unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    let output = scene.sync();
    assert!([0, 1].contains(&output.code), "{output:?}");
    writer.join().unwrap();
    scene.assert_heals_within(3);
    let sent: Vec<_> = scene.server.state().messages("INBOX").into_iter().map(|m| m.bytes).collect();
    let whole = format!("Subject: slow\r\n\r\nfirst\r\n{}", "more\r\n".repeat(8)).into_bytes();
    assert!(sent.contains(&whole));
    assert_eq!(sent.len(), 2);
}

#[test]
fn t33_a_copy_is_another_message() {
    let scene = Scene::synced(Profile::Full, 3);
    scene.server.state().create("Copies");
    scene.assert_heals();
    let path = scene.file("INBOX", 1);
    let copies = scene.account.maildir().join("Copies/cur");
    let name = path.file_name().unwrap().to_str().unwrap();
    // The same name elsewhere, a hard link elsewhere, a hard link under another name here.
    fs::copy(&path, copies.join(format!("{name}:2,S"))).unwrap();
    fs::hard_link(scene.file("INBOX", 2), copies.join("1700000001.M7.linked:2,")).unwrap();
    fs::hard_link(scene.file("INBOX", 3), inbox(&scene, "cur/1700000001.M8.linked:2,F")).unwrap();
    let output = scene.sync();
    says(&output, 0, &["3 uploaded"]);
    scene.account.assert_equal(crate::account::Remote::Sim(&scene.server));
    assert_eq!(scene.server.state().messages("Copies").len(), 2);
    assert_eq!(scene.server.state().messages("INBOX").len(), 4);
    scene.assert_quiet();
    // Removing a copy removes a copy.
    fs::remove_file(inbox(&scene, "cur/1700000001.M8.linked:2,F")).unwrap();
    says(&scene.sync(), 0, &["1 removed on the server"]);
    scene.assert_graves(1);
    assert_eq!(scene.server.state().messages("INBOX").len(), 3);
    scene.assert_quiet();
}

#[test]
fn t33_a_file_replaced_under_its_name_is_a_new_message() {
    let scene = Scene::synced(Profile::Full, 3);
    let path = scene.file("INBOX", 2);
    scene.unwanted(2);
    let draft = scene.delivered(9);
    fs::rename(draft, &path).unwrap();
    scene.assert_heals();
    let there = scene.server.state().messages("INBOX");
    assert!(!there.iter().any(|m| m.bytes == mail(2)), "the old draft is gone");
    // Its content is not: it can be had back.
    let graves = crate::faults_scene::below(&scene.account.state_dir().join("graveyard"));
    assert!(graves.iter().any(|p| fs::read(p).unwrap() == mail_here(2)), "{graves:?}");
}

/// While a pass is about to change the flags of the message whose name it takes.
#[test]
fn t33_a_file_replaced_during_a_pass_keeps_its_own_flags() {
    let scene = Scene::synced(Profile::Full, 2);
    let (replaced, read) = (scene.file("INBOX", 1), scene.file("INBOX", 2));
    scene.server.state().set_flags("INBOX", 1, &["\\Flagged"]);
    scene.account.set_info(&read, "S");
    let draft = scene.account.mailbox("INBOX").join("tmp/draft");
    fs::rename(scene.delivered(9), &draft).unwrap();
    scene.unwanted(1);
    // The server comes first; by then both files were seen.
    scene.server.on_command("UID STORE", 1, move |_| fs::rename(&draft, &replaced).unwrap());
    scene.assert_heals_within(2);
    scene.assert_fired("UID STORE run");
    let there = scene.server.state().messages("INBOX");
    let flags_of = |number: u32| there.iter().find(|m| m.bytes == mail(number)).map(|m| m.flags.len());
    assert_eq!((flags_of(9), flags_of(2), flags_of(1)), (Some(0), Some(1), Some(1)), "{there:?}");
}

fn database(scene: &Scene) -> std::path::PathBuf {
    scene.account.state_dir().join("a.sqlite3")
}

/// Panics unless a pass over the scene transfers no message and leaves every file where it is.
#[track_caller]
fn assert_matched_only(scene: &Scene, code: i32, matched: u32) {
    let _ = scene.server.take_commands();
    let before = scene.snapshot();
    scene.sync_says(code, &[&format!("{matched} matched by content")]);
    assert!(scene.snapshot() == before);
    let transfers: Vec<_> = scene.server.take_commands();
    let transfers: Vec<_> = transfers.iter().filter(|c| c.changes() || c.args.contains("BODY.PEEK[]")).collect();
    assert!(transfers.is_empty(), "{transfers:?}");
    scene.assert_graves(0);
}

#[test]
fn t30_without_its_database_nothing_is_transferred_or_deleted() {
    for profile in [Profile::Full, Profile::Outlook] {
        let scene = Scene::synced(profile, 8);
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(database(&scene).with_extension(format!("sqlite3{suffix}")));
        }
        // It is told that the database is not what it was.
        assert_matched_only(&scene, 1, 8);
        scene.assert_heals();
    }
}

#[test]
fn t30_a_damaged_database_is_kept_and_named() {
    let scene = Scene::synced(Profile::Full, 8);
    let whole = fs::read(database(&scene)).unwrap();
    let damages: [(&str, Vec<u8>); 3] = [
        ("overwritten", [&b"this is no database, or was one once"[..], &whole[36..]].concat()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        (
            "garbled",
            whole.iter().enumerate().map(|(i, b)| if i > 4096 && i % 7 == 0 { b ^ 0x5a } else { *b }).collect(),
        ),
    ];
    for (how, bytes) in damages {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(database(&scene).with_extension(format!("sqlite3{suffix}")));
        }
        fs::write(database(&scene), &bytes).unwrap();
        scene.arrives(match how {
            "overwritten" => 20,
            "cut" => 21,
            _ => 22,
        });
        let (files, _) = (scene.account.files("INBOX"), scene.server.take_commands());
        let output = scene.sync();
        says(&output, 1, &["is damaged", "Move it aside", "no mail is lost"]);
        assert_eq!(scene.account.files("INBOX"), files, "{how}");
        scene.assert_told_nothing();
        says(&scene.account.run(&["status"]), 1, &["is damaged"]);
        assert_eq!(fs::read(database(&scene)).unwrap().len(), bytes.len(), "{how}: it was left as it was");
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(database(&scene).with_extension(format!("sqlite3{suffix}")));
    }
    scene.sync_says(1, &["8 matched by content", "3 downloaded"]);
    scene.assert_heals();
    scene.assert_graves(0);
}

#[test]
fn t30_a_newer_database_is_not_touched() {
    let scene = Scene::synced(Profile::Full, 3);
    // PRAGMA user_version is at byte 60 of the file (sqlite.org/fileformat.html).
    let mut bytes = fs::read(database(&scene)).unwrap();
    let known: [u8; 4] = bytes[60..64].try_into().unwrap();
    bytes[60..64].copy_from_slice(&900_u32.to_be_bytes());
    fs::write(database(&scene), &bytes).unwrap();
    scene.arrives(4);
    let files = scene.account.files("INBOX");
    scene.sync_says(1, &["a newer postkeep has written it"]);
    assert_eq!(scene.account.files("INBOX"), files);
    assert_eq!(fs::read(database(&scene)).unwrap(), bytes);
    bytes[60..64].copy_from_slice(&known);
    fs::write(database(&scene), &bytes).unwrap();
    scene.assert_heals();
}

#[test]
fn t30_a_disk_that_cannot_be_written_changes_nothing() {
    let scene = Scene::new(Profile::Full);
    let maildir = Mount::tmpfs(scene.account.maildir(), "4m");
    let state = Mount::tmpfs(scene.account.state_dir(), "4m");
    (1..=3).for_each(|n| assert_eq!(scene.arrives(n), n));
    scene.assert_heals();
    scene.arrives(4);
    let before = scene.snapshot();
    state.remount("ro");
    let output = scene.sync();
    state.remount("rw");
    assert!([1, 2, 4].contains(&output.code), "{output:?}");
    says(&output, output.code, &["ead-only file system"]);
    assert!(scene.snapshot() == before);
    maildir.remount("ro");
    let output = scene.sync();
    maildir.remount("rw");
    says(&output, 4, &["read-only", "nothing was changed"]);
    assert!(scene.snapshot() == before);
    scene.assert_told_nothing();
    scene.assert_heals();
}

/// Starts `postkeep sync`, and waits until the server keeps it waiting.
fn waiting(scene: &Scene) -> Child {
    scene.server.inject("SELECT", When::Nth(1), Fault::Stall);
    let fired = scene.server.fired().len();
    let mut child = scene.account.command(&["sync"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while scene.server.fired().len() == fired {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    child
}

#[test]
fn t24_two_programs_are_one_too_many() {
    let scene = Scene::synced(Profile::Full, 3);
    scene.arrives(4);
    let mut first = waiting(&scene);
    let commands = scene.server.take_commands();
    assert!(!commands.is_empty());
    let pid = format!("process {}", first.id());
    for _ in 0..3 {
        scene.sync_says(6, &[&pid, "another postkeep"]);
    }
    // Another configuration, with a state directory of its own, and the same maildir.
    let config = fs::read_to_string(scene.account.config()).unwrap();
    let state = scene.account.state_dir();
    let other =
        config.replace(&format!("state_dir = {state:?}"), &format!("state_dir = {:?}", state.with_file_name("other")));
    assert_ne!(other, config);
    fs::write(scene.account.config(), &other).unwrap();
    let output = scene.sync();
    fs::write(scene.account.config(), &config).unwrap();
    says(&output, 6, &["another postkeep", scene.account.maildir().to_str().unwrap()]);
    assert_eq!(scene.server.take_commands(), vec![], "the second one talked to the server");
    says(&scene.account.run(&["status"]), 0, &[]);
    first.kill().unwrap();
    first.wait().unwrap();
    scene.assert_heals();
}

#[test]
fn t24_many_at_once_are_one_after_the_other() {
    let scene = Scene::synced(Profile::Full, 3);
    for n in 4..=30 {
        scene.arrives(n);
        scene.delivered(n + 100);
    }
    let children: Vec<Child> = (0..8)
        .map(|_| scene.account.command(&["sync"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    let codes: BTreeSet<i32> = children.into_iter().map(|mut c| c.wait().unwrap().code().unwrap()).collect();
    assert!(codes.contains(&6) && codes.is_subset(&BTreeSet::from([0, 6])), "{codes:?}");
    scene.assert_heals();
}
