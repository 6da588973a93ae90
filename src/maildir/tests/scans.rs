//! Scans and changes of flags.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use super::*;
use crate::model::FlagChange;

fn touch(maildir: &Maildir, name: &[u8]) {
    std::fs::write(maildir.path().join(std::ffi::OsStr::from_bytes(name)), "text").unwrap();
}

fn job(inbox: &Maildir, name: &str, add: &str, remove: &str, file: Option<FileRef>) -> FlagJob {
    let (name, change) = (UniqueName::new(name.as_bytes()), FlagChange { add: flags(add), remove: flags(remove) });
    let inode = inbox.scan_once().unwrap().get(&name).map_or(0, |entry| entry.inode);
    FlagJob { name, change, file, inode }
}

fn listed(scan: &Scan) -> Vec<String> {
    scan.iter().map(|entry| entry.file().path().as_os_str().as_bytes().escape_ascii().to_string()).collect()
}

#[test]
fn a_scan_names_every_message_once() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    for name in ["new/1.b", "cur/1.a:2,S", "cur/1.c:2,", "cur/1.d", "new/.hidden", "cur/.nfs1", "tmp/1.e"] {
        touch(&inbox, name.as_bytes());
    }
    touch(&inbox, b"cur/\xff\n:2,F");
    touch(&inbox, &[b"cur/".as_slice(), &[b'l'; 255]].concat());
    std::fs::create_dir(inbox.path().join("cur/directory")).unwrap();
    symlink("/etc/passwd", inbox.path().join("cur/link:2,S")).unwrap();
    assert!(Command::new("mkfifo").arg(inbox.path().join("new/fifo")).status().unwrap().success());

    let scan = inbox.scan().unwrap();
    assert!(scan.unchanged && scan.doubles.is_empty());
    let long = format!("cur/{}", "l".repeat(255));
    assert_eq!(listed(&scan), ["cur/1.a:2,S", "new/1.b", "cur/1.c:2,", "cur/1.d", &long, r"cur/\xff\n:2,F"]);
    let entry = scan.get(&UniqueName::new(b"\xff\n")).unwrap();
    assert_eq!((entry.flags, entry.info, entry.place), (flags("\\Flagged"), b"2,F".as_slice(), Place::Cur));
    assert!(scan.get(&UniqueName::new(b"1.x")).is_none() && scan.len() == 6);
    let mut foreign: Vec<_> = scan.foreign.iter().map(|f| (f.file.path(), f.what)).collect();
    foreign.sort();
    let expected = [("cur/directory", "a directory"), ("cur/link:2,S", "a symbolic link"), ("new/fifo", "a FIFO")];
    assert_eq!(foreign, expected.map(|(path, what)| (path.into(), what)));
    for file in scan.foreign.iter().map(|foreign| &foreign.file) {
        assert!(matches!(inbox.read(file), Err(Error::Unusable { .. })));
    }
}

#[test]
fn files_with_one_name_are_told_apart() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    for name in ["new/1.a", "cur/1.a:2,S", "cur/1.a:2,F", "new/1.b"] {
        touch(&inbox, name.as_bytes());
    }
    let scan = inbox.scan().unwrap();
    assert_eq!(listed(&scan), ["cur/1.a:2,F", "new/1.b"]);
    let doubles: Vec<_> = scan.doubles.iter().map(FileRef::path).collect();
    assert_eq!(doubles, [Path::new("cur/1.a:2,S"), Path::new("new/1.a")]);
    let located = inbox.change_flags(&[job(&inbox, "1.a", "\\Draft", "", None)]).unwrap().remove(0).unwrap();
    assert_eq!(located.file.path(), Path::new("cur/1.a:2,DF"), "the one that the scan kept");
}

#[test]
fn a_directory_that_went_away_is_an_error_and_not_empty() {
    for gone in ["new", "cur"] {
        let Fixture { inbox, directory: _kept, .. } = fixture();
        deliver(&inbox, "1.a", "", b"text");
        std::fs::remove_dir_all(inbox.path().join(gone)).unwrap();
        assert!(matches!(inbox.scan(), Err(Error::Missing { .. })), "{gone}");
        // Also if another one stands in its place.
        std::fs::create_dir(inbox.path().join(gone)).unwrap();
        assert!(matches!(inbox.scan(), Err(Error::Missing { .. })), "{gone}");
    }
}

#[test]
fn an_error_inside_a_listing_is_not_its_end() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    std::fs::remove_dir(inbox.path().join("cur")).unwrap();
    // The directory can still be opened; reading it is what fails.
    let error = sys::list(inbox.cur.as_fd(), |_| {}).unwrap_err();
    assert_eq!(error, rustix::io::Errno::NOENT);
}

#[test]
fn stamps_show_changes_even_if_times_are_set_back() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    let stamp = inbox.stamp().unwrap();
    assert_eq!(Stamp::from_numbers(stamp.to_numbers()), stamp);
    assert!(!stamp.settled(SystemTime::now()));
    assert!(stamp.settled(SystemTime::now() + Duration::from_secs(3)));
    assert!(!stamp.settled(SystemTime::UNIX_EPOCH));
    let cur = inbox.path().join("cur");
    let before = std::fs::metadata(&cur).unwrap().modified().unwrap();
    // A scan waits until a change would show.
    assert_eq!(inbox.scan().unwrap().stamp, stamp);
    touch(&inbox, b"cur/1.a");
    std::fs::File::open(&cur).unwrap().set_modified(before).unwrap();
    assert_ne!(inbox.stamp().unwrap(), stamp);
}

#[test]
fn unusable_files_are_refused_and_say_why() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    std::fs::write(inbox.path().join("cur/1.empty:2,"), "").unwrap();
    let error = inbox.read(&FileRef::new(Place::Cur, b"1.empty:2,")).err().unwrap();
    assert!(matches!(error, Error::Unusable { .. }));
    assert!(error.to_string().ends_with("cur/1.empty:2, cannot be taken as a message: it is empty; it was left alone"));
    let error = inbox.read(&FileRef::new(Place::Cur, b"1.gone")).err().unwrap();
    assert!(matches!(error, Error::Missing { .. }));
}

#[test]
fn flags_are_changed_from_what_they_are_now() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    for name in ["new/1.a", "cur/1.b:2,S", "cur/1.c:2,FX", "new/1.d", "cur/1.f:2,", "cur/1.f:2,S"] {
        touch(&inbox, name.as_bytes());
    }
    touch(&inbox, &[b"cur/".as_slice(), &[b'l'; 251], b":2,"].concat());
    let file = |place, name: &str| Some(FileRef::new(place, name.as_bytes()));
    let long = "l".repeat(251);
    let jobs = [
        job(&inbox, "1.a", "\\Seen", "", file(Place::New, "1.a")),
        // Known under an old name: a mail reader has changed it meanwhile.
        job(&inbox, "1.b", "\\Flagged", "", file(Place::New, "1.b")),
        job(&inbox, "1.c", "\\Seen work", "\\Flagged", None),
        job(&inbox, "1.d", "", "\\Seen", file(Place::New, "1.d")),
        job(&inbox, "1.e", "\\Seen", "", file(Place::Cur, "1.e:2,")),
        job(&inbox, "1.f", "\\Seen", "", file(Place::Cur, "1.f:2,")),
        job(&inbox, &long, "\\Seen \\Flagged", "", None),
    ];
    let done = inbox.change_flags(&jobs).unwrap();
    let paths: Vec<_> = done
        .iter()
        .map(|done| match done {
            Ok(located) => located.file.path().to_str().unwrap().to_owned(),
            Err(refused) => refused.to_string(),
        })
        .collect();
    let (vanished, occupied, too_long) = (Refused::Vanished, Refused::Occupied, Refused::TooLong);
    let expected = ["cur/1.a:2,S", "cur/1.b:2,FS", "cur/1.c:2,SXa", "new/1.d"].map(str::to_owned);
    let refused = [vanished, occupied, too_long].map(|refused| refused.to_string());
    assert_eq!(paths, [&expected[..], &refused[..]].concat());
    assert_eq!(done[2].as_ref().unwrap().flags, flags("\\Seen work"));
    let scan = inbox.scan().unwrap();
    for located in done.iter().flatten() {
        let entry = scan.get(&located.file.unique()).unwrap();
        assert_eq!(
            (entry.file(), entry.flags, entry.inode),
            (located.file.clone(), located.flags.clone(), located.inode)
        );
    }
}

#[test]
fn a_file_that_took_the_name_of_another_keeps_its_flags() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    let known = |place, name: &str| Some(FileRef::new(place, name.as_bytes()));
    for (name, file) in [("1.a", known(Place::New, "1.a")), ("1.a", None), ("1.a", known(Place::Cur, "1.a:2,S"))] {
        touch(&inbox, b"new/1.a");
        let job = job(&inbox, name, "\\Flagged", "", file.clone());
        touch(&inbox, b"tmp/2.b");
        std::fs::rename(inbox.path().join("tmp/2.b"), inbox.path().join("new/1.a")).unwrap();
        assert_eq!(inbox.change_flags(&[job]).unwrap(), [Err(Refused::Changed)], "{file:?}");
        assert_eq!(listed(&inbox.scan().unwrap()), ["new/1.a"], "{file:?}");
    }
}

#[test]
fn keywords_beyond_the_letters_are_left_out() {
    let Fixture { inbox, directory: _kept, .. } = fixture();
    let text: String = (0..30).map(|n| format!("k{n:02} ")).collect();
    assert_eq!(inbox.mask(&flags(&text)).unwrap().keywords().count(), 26);
    let written = deliver(&inbox, "1.a", &text, b"text");
    assert_eq!(written.flags.keywords().count(), 26);
    assert_eq!(inbox.scan().unwrap().get(&written.file.unique()).unwrap().flags, written.flags);
    assert_eq!(inbox.mask(&flags("K29 k01 \\Seen")).unwrap(), flags("k01 \\Seen"));
}
