//! The disk is at fault: it cannot be read, it is full, or it forgets.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use postkeep_sim::Profile;

use crate::account::Output;
use crate::faults_scene::{Disk, Mount, Scene, below, mail_here, powerless, run, says, strace, sync_with};

#[test]
fn t01_a_failed_directory_read_deletes_nothing() {
    let scene = Scene::synced(Profile::Full, 20);
    // So many names do not fit into one read.
    for n in 21..=400 {
        let path = scene.delivered(n);
        let long = format!("{}{}", path.file_name().unwrap().display(), "x".repeat(200));
        fs::rename(&path, path.with_file_name(long)).unwrap();
    }
    scene.assert_heals();
    let mut number = 1000;
    for (place, when) in [("new", "1"), ("new", "2"), ("new", "3"), ("cur", "1"), ("cur", "2"), ("cur", "1+")] {
        // Otherwise nobody would look.
        number += 1;
        let path = scene.delivered(number);
        scene.account.set_info(&path, "S");
        let before = scene.snapshot();
        for error in ["EIO", "ESTALE"] {
            let dir = scene.account.maildir().join("INBOX").join(place);
            let inject = format!("getdents64:error={error}:when={when}");
            let (output, injected) = sync_with(&scene.account, &inject, Some(&dir));
            assert!(injected > 0, "{place} {when}: {output:?}");
            says(&output, 1, &["INBOX: could not list", "nothing was deleted because of that"]);
            scene.assert_told_nothing();
            assert!(scene.snapshot() == before, "{place} {when}");
            says(&scene.account.run(&["status"]), 1, &["could not list"]);
        }
    }
    scene.assert_graves(0);
    scene.assert_heals();
    says(&scene.account.run(&["status"]), 0, &[]);
}

#[test]
fn t01_a_directory_that_cannot_be_opened_holds_its_mailbox_only() {
    let scene = Scene::synced(Profile::Full, 3);
    scene.server.state().create("Other");
    scene.assert_heals();
    for place in ["new", "cur"] {
        let (other, dir) = (scene.arrives_in("Other", if place == "new" { 50 } else { 51 }), scene.account.maildir());
        let dir = dir.join("INBOX").join(place);
        let (before, _) = (scene.account.files("INBOX"), scene.server.take_commands());
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o000)).unwrap();
        let output = run(powerless(scene.account.command(&["sync", "--full"])));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        says(&output, 1, &["Permission denied", "INBOX"]);
        scene.assert_told_nothing();
        assert_eq!(scene.account.files("INBOX"), before);
        assert_eq!(scene.account.files("Other").len(), other as usize);
    }
    // No descriptor is left for the directory.
    let dir = scene.account.maildir().join("INBOX");
    let _ = scene.server.take_commands();
    let before = scene.snapshot();
    let (output, injected) = sync_with(&scene.account, "openat:error=EMFILE:when=1+", Some(&dir.join("cur")));
    assert!(injected > 0, "{output:?}");
    says(&output, 1, &["Too many open files"]);
    scene.assert_told_nothing();
    assert!(scene.snapshot() == before);
    scene.assert_graves(0);
    scene.assert_heals();
}

/// Returns the system calls of a traced run: name and arguments.
fn calls(trace: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(trace).unwrap();
    let call = |line: &str| {
        let (name, args) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        Some((name.to_owned(), args.to_owned()))
    };
    text.lines().filter_map(call).collect()
}

/// What a power cut leaves is a prefix of what was made durable, on each disk for itself. So the order tells.
#[test]
fn t06_a_message_is_durable_before_the_base_says_so() {
    let scene = Scene::new(Profile::Full);
    scene.arrives(1);
    scene.sync_says(0, &[]);
    scene.arrives(2);
    let trace = scene.account.state_dir().with_file_name("trace");
    let command = scene.account.command(&["sync"]);
    let strace = strace(&command, &trace, "fsync,fdatasync,renameat2,pwrite64:delay_exit=1", None);
    let mut args: Vec<_> = vec!["-y".into()];
    args.extend(strace.get_args().map(ToOwned::to_owned));
    let mut with_paths = std::process::Command::new(strace.get_program());
    with_paths.args(args);
    says(&run(with_paths), 0, &["1 downloaded"]);
    let calls = calls(&trace);
    const SYNC: &str = "fsync fdatasync";
    let is = |call: &(String, String), name: &str, text: &str| name.contains(call.0.as_str()) && call.1.contains(text);
    let find = |from: usize, name: &str, text: &str| {
        let found = calls[from..].iter().position(|call| is(call, name, text));
        from + found.unwrap_or_else(|| panic!("no {name} {text} after {from} in {calls:#?}"))
    };
    let rename = find(0, "renameat2", "/INBOX/tmp>");
    assert!(calls[rename].1.contains("/INBOX/new>") && calls[rename].1.contains("RENAME_NOREPLACE"));
    assert!(calls[rename + 1..].iter().all(|(n, args)| n != "renameat2" || !args.contains("/INBOX/tmp>")));
    let before = |at: usize, name: &str, text: &str| calls[..at].iter().any(|call| is(call, name, text));
    assert!(before(rename, "fsync", "/INBOX/tmp/"), "the file is not durable before it has its name: {calls:#?}");
    assert!(before(rename, SYNC, "a.sqlite3-wal"), "the intent is not durable before the effect: {calls:#?}");
    let directory = find(rename, "fsync", "/INBOX/new>");
    let written = find(rename, "pwrite64", "a.sqlite3-wal");
    assert!(directory < written, "the base was written before the name was durable: {calls:#?}");
    find(written, SYNC, "a.sqlite3-wal");
}

#[test]
fn t06_state_and_maildir_may_be_on_two_file_systems() {
    let scene = Scene::new(Profile::Full);
    let _mounts = [Mount::tmpfs(scene.account.maildir(), "4m"), Mount::tmpfs(scene.account.state_dir(), "4m")];
    (1..=4).for_each(|n| assert_eq!(scene.arrives(n), n));
    scene.assert_heals();
    let (kept, gone) = (scene.file("INBOX", 1), scene.file("INBOX", 2));
    scene.unwanted(1);
    scene.server.state().expunge("INBOX", 1);
    scene.unwanted(2);
    fs::remove_file(gone).unwrap();
    // The copy to the other file system fails: the file stays.
    let graves = scene.account.state_dir().join("graveyard");
    let (output, injected) = sync_with(&scene.account, "fsync:error=EIO:when=1+", None);
    assert!(injected > 0, "{output:?}");
    assert_eq!(output.code, 1, "{output:?}");
    assert!(kept.exists() || below(&graves).iter().any(|p| fs::read(p).unwrap() == mail_here(1)), "{output:?}");
    scene.assert_heals();
    let contents: BTreeSet<Vec<u8>> = below(&graves).iter().map(|p| fs::read(p).unwrap()).collect();
    assert_eq!(contents, BTreeSet::from([mail_here(1), mail_here(2)]));
}

/// The power fails while the state and the maildirs are on two disks, of which one has written back all that it had and
/// the other only what it was told to. The base lags then, and never leads: all that it calls agreed is there. What the
/// user has put here is not durable before that, and may be lost.
#[test]
fn t06_a_power_cut_on_two_disks_loses_and_doubles_nothing() {
    // And whether the user's own file must be agreed by then.
    let moments =
        [("UID FETCH", false), ("UID STORE", false), ("APPEND", false), ("UID EXPUNGE", true), ("LOGOUT", true)];
    // Most of this is waiting for disks.
    std::thread::scope(|scope| {
        for (command, own_agreed) in moments {
            scope.spawn(move || [0, 1].map(|complete| cut_power_at(command, complete, own_agreed)));
        }
    });
}

/// Cuts the power when a command comes for the first time; of the two disks, `complete` has written back all.
fn cut_power_at(command: &'static str, complete: usize, own_agreed: bool) {
    let scene = Scene::new(Profile::Full);
    let images = tempfile::tempdir().unwrap();
    let mut disks = [(scene.account.maildir(), "mail"), (scene.account.state_dir(), "state")]
        .map(|(dir, name)| Disk::new(dir, images.path().join(name)));
    bustle(&scene, 0);
    scene.assert_heals();
    let own = bustle(&scene, 1);
    let fired = scene.server.fired().len();
    let left = Arc::new(Mutex::new(None));
    let (keep, complete) = (Arc::clone(&left), disks[complete].dir().to_owned());
    // The state first: what is done while they are copied must not make it seem to lead.
    let copies: Vec<_> = disks.iter().rev().map(|d| (d.image().to_owned(), d.image().with_extension("cut"))).collect();
    scene.server.on_command(command, 1, move |state| {
        let run = |program: &str, args: &[&Path]| {
            assert!(std::process::Command::new(program).args(args).status().unwrap().success(), "{program}");
        };
        run("sync", &[Path::new("-f"), &complete]);
        for (image, copy) in &copies {
            run("cp", &[Path::new("--sparse=always"), image, copy]);
        }
        *keep.lock().unwrap() = Some(state.clone());
    });
    let output = scene.sync();
    assert!(scene.server.fired().len() > fired, "{command} did not come: {output:?}");
    // All that came after that moment never was.
    scene.server.calm();
    *scene.server.state() = left.lock().unwrap().take().unwrap();
    for disk in &mut disks {
        let image = disk.image().with_extension("cut");
        disk.replace(image);
    }
    let agreed = scene.assert_base_lags();
    assert!(agreed.contains(&own) || !own_agreed, "{command}: mail {own} is not agreed, but {agreed:?}");
    scene.loses_fragments(own);
    scene.assert_heals_within(2);
}

/// Makes one of everything that a pass does: messages to fetch, to append and to remove on both sides, flags to change.
/// Returns the number of the mail to append.
fn bustle(scene: &Scene, round: u32) -> u32 {
    let number = 100 + 10 * round;
    let old = number - 10;
    scene.arrives(number);
    scene.arrives(number + 1);
    scene.arrives(number + 2);
    scene.delivered(number + 3);
    if round == 0 {
        return number + 3;
    }
    let [read, deleted] = [old + 2, old].map(|n| uid(scene, n));
    scene.server.state().set_flags("INBOX", read, &["\\Seen"]);
    let path = scene.file("INBOX", old + 3);
    scene.account.set_info(&path, "R");
    scene.unwanted(old);
    scene.server.state().expunge("INBOX", deleted);
    scene.unwanted(old + 1);
    fs::remove_file(scene.file("INBOX", old + 1)).unwrap();
    number + 3
}

fn uid(scene: &Scene, number: u32) -> u32 {
    let is = |bytes: &[u8]| bytes == crate::faults_scene::mail(number) || bytes == mail_here(number);
    scene.server.state().messages("INBOX").iter().find(|m| is(&m.bytes)).unwrap().uid
}

/// Every system call by which anything is written fails once, the first, the second and so on until none is left.
fn sweep(call: &str, error: &str, step: usize) {
    let scene = Scene::new(Profile::Full);
    bustle(&scene, 0);
    scene.assert_heals();
    let (mut fired, mut round) = (0, 0);
    for when in (1..).step_by(step) {
        round += 1;
        bustle(&scene, round);
        let (output, injected) = sync_with(&scene.account, &format!("{call}:error={error}:when={when}"), None);
        fired += injected;
        if output.code != 0 {
            assert_eq!(output.code, 1, "{call} {when}: {output:?}");
            assert!(!output.stdout.contains("in sync"), "{call} {when}: {output:?}");
            assert!(!output.stderr.contains("panicked"), "{call} {when}: {output:?}");
        }
        scene.assert_whole();
        scene.assert_heals();
        if injected == 0 {
            break;
        }
    }
    assert!(fired > 0, "{call} was never called");
}

#[test]
fn t07_each_write_of_the_database_may_fail() {
    sweep("pwrite64", "EIO", 29);
}

#[test]
fn t07_each_sync_may_fail() {
    sweep("fsync,fdatasync,syncfs", "EIO", 1);
}

#[test]
fn t07_each_rename_may_fail() {
    sweep("renameat2", "EIO", 1);
    sweep("ftruncate,mkdirat,unlinkat", "ENOSPC", 1);
}

/// Ends another thread's work when this is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn t18_renames_during_a_scan_delete_nothing() {
    let scene = Scene::new(Profile::Full);
    let count = 2000;
    for n in 1..=count {
        scene.arrives(n);
    }
    scene.sync_says(0, &["2,000 downloaded"]);
    scene.assert_decent();
    let dir = scene.account.maildir().join("INBOX");
    let (stop, renames) = (AtomicBool::new(false), AtomicU32::new(0));
    let uniques: Vec<String> = scene
        .account
        .files("INBOX")
        .iter()
        .map(|p| p.file_name().unwrap().to_str().unwrap().split(':').next().unwrap().to_owned())
        .collect();
    std::thread::scope(|scope| {
        // A mail reader: from new/ to cur/ once, and then one flag after the other.
        scope.spawn(|| {
            let mut from: Vec<_> = uniques.iter().map(|u| dir.join("new").join(u)).collect();
            for turn in 0.. {
                for (unique, from) in uniques.iter().zip(&mut from) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let to = dir.join("cur").join(format!("{unique}:2,{}", ["S", "FS", "RS"][turn % 3]));
                    fs::rename(&from, &to).unwrap();
                    *from = to;
                    renames.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..3 {
            let before = renames.load(Ordering::Relaxed);
            let output = scene.sync();
            assert!(renames.load(Ordering::Relaxed) > before + 100, "the storm was none");
            assert!([0, 1].contains(&output.code), "{output:?}");
            assert!(!output.stdout.contains("removed"), "{output:?}");
        }
    });
    let removing = ["UID EXPUNGE", "UID MOVE", "UID COPY", "APPEND"];
    let commands = scene.server.commands();
    assert!(!commands.iter().any(|c| removing.contains(&c.name.as_str())), "{commands:?}");
    assert!(commands.iter().any(|c| c.name == "UID STORE"));
    scene.assert_graves(0);
    scene.assert_heals();
    assert!(scene.server.state().messages("INBOX").iter().all(|m| m.flags.contains("\\Seen")));
}

#[test]
fn t20_a_file_that_is_there_is_not_overwritten() {
    let scene = Scene::new(Profile::Full);
    scene.arrives(1);
    let steps = scene.account.state_dir().with_file_name("steps");
    // Where is it about to be delivered?
    let other = Scene::new(Profile::Full);
    other.arrives(1);
    let output = other.account.run_with(&["sync"], &[("POSTKEEP_STEPS", steps.to_str().unwrap())]);
    says(&output, 0, &[]);
    let steps = fs::read_to_string(&steps).unwrap();
    let step = steps.lines().find_map(|line| line.strip_suffix(" deliver")).unwrap();
    let output = scene.account.run_with(&["sync"], &[("POSTKEEP_CRASH_AT", step)]);
    assert_eq!(output.code, -1, "{output:?}");
    // Somebody else's mail has the name that was chosen, in the directory that was chosen.
    let dir = scene.account.maildir().join("INBOX");
    let drafts = below(&dir.join("tmp"));
    assert_eq!(drafts.len(), 1, "{drafts:?}");
    let path = scene.delivered(2);
    let taken = dir.join("new").join(drafts[0].file_name().unwrap());
    fs::rename(path, &taken).unwrap();
    let inode = fs::metadata(&taken).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap();
    scene.assert_heals_within(2);
    assert_eq!(fs::read(&taken).unwrap(), mail_here(2));
    assert_eq!(fs::metadata(&taken).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap(), inode);
}

#[test]
fn t20_a_name_taken_at_the_last_moment_is_left_alone() {
    let scene = Scene::synced(Profile::Full, 1);
    scene.arrives(2);
    // As if a file with that name had appeared right before the rename.
    let (output, injected) = sync_with(&scene.account, "renameat2:error=EEXIST:when=1", None);
    assert!(injected > 0, "{output:?}");
    assert!([0, 1].contains(&output.code), "{output:?}");
    scene.assert_heals();
}

/// Bodies of 100 kB, so that a small disk is full soon.
fn large(number: u32) -> Vec<u8> {
    let line = format!("{number:076}\r\n");
    [format!("Message-ID: <{number}@example.org>\r\n\r\n").into_bytes(), line.repeat(1300).into_bytes()].concat()
}

fn assert_none_cut(scene: &Scene, count: u32) {
    let whole: BTreeSet<Vec<u8>> =
        (1..=count).map(|n| String::from_utf8(large(n)).unwrap().replace("\r\n", "\n").into_bytes()).collect();
    for path in scene.account.files("INBOX") {
        assert!(whole.contains(&fs::read(&path).unwrap()), "{} is cut", path.display());
    }
}

#[test]
fn t21_a_full_disk_below_the_maildir() {
    let scene = Scene::new(Profile::Full);
    let disk = Mount::tmpfs(scene.account.maildir(), "600k");
    for n in 1..=12 {
        scene.server.state().append("INBOX", &large(n), &[], 1000);
    }
    for _ in 0..2 {
        scene.sync_says(1, &["no space is left there", "it goes on as soon as there is space"]);
        assert_none_cut(&scene, 12);
        let drafts = below(&scene.account.maildir().join("INBOX/tmp"));
        assert!(drafts.is_empty(), "{drafts:?}");
    }
    says(&scene.account.run(&["status"]), 1, &["no space is left"]);
    assert_eq!(scene.server.state().messages("INBOX").len(), 12);
    scene.assert_told_nothing();
    // Wherever the disk ends, it goes on from there.
    for size in (650..=1500).step_by(170) {
        disk.resize(&format!("{size}k"));
        let output = scene.sync();
        assert!([0, 1].contains(&output.code), "{output:?}");
        assert_none_cut(&scene, 12);
    }
    disk.resize("4m");
    scene.assert_heals();
    assert_eq!(scene.account.files("INBOX").len(), 12);
    // A full disk must not keep flags from crossing over, or deletions.
    scene.server.state().expunge("INBOX", 1);
    scene.server.state().set_flags("INBOX", 2, &["\\Seen"]);
    scene.assert_heals();
    assert_none_cut(&scene, 12);
}

#[test]
fn t21_a_full_disk_below_the_database() {
    let scene = Scene::new(Profile::Full);
    let disk = Mount::tmpfs(scene.account.state_dir(), "400k");
    for n in 1..=600 {
        scene.arrives(n);
    }
    let mut output = Output { code: 0, stdout: String::new(), stderr: String::new() };
    for _ in 0..2 {
        output = scene.sync();
        scene.assert_whole();
        says(&output, 1, &["no space is left on the disk that holds the database"]);
    }
    assert!(!output.stdout.contains("in sync"), "{output:?}");
    scene.assert_told_nothing();
    disk.resize("16m");
    scene.assert_heals();
}

#[test]
fn t21_no_room_for_the_graveyard_keeps_the_file() {
    let scene = Scene::new(Profile::Full);
    let maildir = Mount::tmpfs(scene.account.maildir(), "4m");
    let disk = Mount::tmpfs(scene.account.state_dir(), "4m");
    for n in 1..=3 {
        scene.server.state().append("INBOX", &large(n), &[], 1000);
    }
    scene.assert_heals();
    fs::write(scene.account.state_dir().join("ballast"), vec![0; 4 << 20]).unwrap_err();
    scene.server.state().expunge("INBOX", 1);
    let before = scene.account.files("INBOX");
    scene.sync_says(1, &["no space is left"]);
    assert_eq!(scene.account.files("INBOX"), before);
    scene.assert_graves(0);
    disk.resize("16m");
    fs::remove_file(scene.account.state_dir().join("ballast")).unwrap();
    scene.assert_heals();
    scene.assert_graves(1);
    drop(maildir);
}
