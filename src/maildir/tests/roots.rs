//! Roots: markers, the tree of mailboxes, and that nothing leaves it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use super::*;

const BOTH: [Layout; 2] = [Layout::Nested, Layout::PlusPlus];

fn names(root: &Root) -> Vec<String> {
    root.mailboxes().unwrap().into_iter().filter_map(|(name, _)| Some(name?.as_str().to_owned())).collect()
}

#[test]
fn a_root_that_is_not_there_is_none() {
    let at = fixture();
    assert!(Root::open(&at.directory.path().join("nothing"), Layout::Nested).unwrap().is_none());
    symlink("nowhere", at.directory.path().join("dangling")).unwrap();
    assert!(Root::open(&at.directory.path().join("dangling"), Layout::Nested).unwrap().is_none());
    std::fs::write(at.directory.path().join("file"), "").unwrap();
    assert!(Root::open(&at.directory.path().join("file"), Layout::Nested).is_err());
    assert!(Root::create(&at.directory.path().join("file/below"), Layout::Nested).is_err());
    // A link that leads to the root is the user's own choice.
    symlink("Mail", at.directory.path().join("link")).unwrap();
    let linked = Root::open(&at.directory.path().join("link"), Layout::Nested).unwrap().unwrap();
    assert_eq!(names(&linked), ["INBOX"]);
}

#[test]
fn the_marker_is_replaced_as_a_whole_and_never_guessed() {
    let Fixture { root, directory: _kept, .. } = fixture();
    assert_eq!(root.marker().unwrap(), None);
    for generation in [1, 2] {
        let marker = Marker { account: "me \"quoted\"\n".to_owned(), generation, nonce: "abc".to_owned() };
        root.set_marker(&marker).unwrap();
        assert_eq!(root.marker().unwrap(), Some(marker));
    }
    let path = root.path().join(".postkeep");
    for garbled in [&b""[..], b"account = ", b"\xff", b"account = \"me\"\n", &[b'#'; 5000]] {
        std::fs::write(&path, garbled).unwrap();
        let error = root.marker().unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }) && error.to_string().contains("/Mail/.postkeep"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    symlink("/etc/hostname", &path).unwrap();
    assert!(matches!(root.marker(), Err(Error::Foreign { .. })));
}

#[test]
fn a_root_is_empty_without_maildirs_and_files() {
    let directory = tempfile::tempdir().unwrap();
    for layout in BOTH {
        let root = Root::create(&directory.path().join(format!("a/b/{layout:?}")), layout).unwrap();
        std::fs::create_dir(root.path().join("lost+found")).unwrap();
        root.set_marker(&Marker { account: "me".to_owned(), generation: 1, nonce: String::new() }).unwrap();
        assert!(root.is_empty().unwrap());
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(!root.is_empty().unwrap());
        std::fs::remove_file(root.path().join("file")).unwrap();
        root.create_maildir(&root.path_of(&MailboxName::from("Lists/rust")).unwrap()).unwrap();
        assert!(!root.is_empty().unwrap());
    }
}

#[test]
fn mailboxes_are_found_again_whatever_they_are_called() {
    let hostile = [
        "INBOX",
        "Lists",
        "Lists/rust",
        "..",
        "../../x",
        "/etc/passwd",
        ".",
        "",
        "a//b",
        "cur",
        "new/tmp",
        ".postkeep",
        "postkeep/tmp",
        "~",
        "nul\0",
        "line\nfeed",
        "esc\x1b[31m",
        "%2E",
        "%",
        "trailing ",
        " ",
        "Entwürfe",
        "\u{202e}rtl",
        "A",
        "a",
        "a.b",
        "a/b",
    ];
    let directory = tempfile::tempdir().unwrap();
    for layout in BOTH {
        let outer = directory.path().join(format!("{layout:?}"));
        let root = Root::create(&outer.join("root"), layout).unwrap();
        root.set_marker(&Marker { account: "me".to_owned(), generation: 1, nonce: String::new() }).unwrap();
        let expected: BTreeSet<_> = hostile.map(MailboxName::from).into();
        for (n, name) in expected.iter().enumerate() {
            let path = root.path_of(name).unwrap();
            assert!(root.maildir(&path).unwrap().is_none(), "{name}");
            let maildir = root.create_maildir(&path).unwrap();
            deliver(&maildir, &format!("1.{n}"), "", b"text");
        }
        let long = MailboxName::from("long ".repeat(1000).as_str());
        assert!(root.create_maildir(&root.path_of(&long).unwrap()).unwrap().scan().unwrap().is_empty());

        let found = root.mailboxes().unwrap().into_iter().filter_map(|(name, path)| Some((name?, path)));
        let found: Vec<_> = found.collect();
        assert_eq!(found.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), expected);
        for (name, path) in &found {
            assert_eq!(*path, root.path_of(name).unwrap());
            assert_eq!(root.maildir(path).unwrap().unwrap().scan().unwrap().len(), 1, "{name}");
        }
        assert_eq!(std::fs::read_dir(&outer).unwrap().count(), 1, "nothing beside the root");
        assert_eq!(root.marker().unwrap().unwrap().generation, 1);
    }
}

#[test]
fn links_and_hidden_directories_are_no_mailboxes() {
    let at = fixture();
    let elsewhere = at.directory.path().join("elsewhere");
    let other = Root::create(&elsewhere, Layout::Nested).unwrap();
    other.create_maildir(Path::new("Secret")).unwrap();
    symlink(elsewhere.join("Secret"), at.root.path().join("Secret")).unwrap();
    symlink(&elsewhere, at.root.path().join("Above")).unwrap();
    at.root.create_maildir(Path::new(".notmuch/hidden")).unwrap();
    at.root.create_maildir(Path::new("not%41canonical")).unwrap();
    assert_eq!(names(&at.root), ["INBOX"]);
    let stranger = (None, Path::new("not%41canonical").to_owned());
    assert_eq!(at.root.mailboxes().unwrap().pop(), Some(stranger));
    for path in ["Secret", "Above/Secret", "../elsewhere/Secret", "/etc"] {
        let error = at.root.maildir(Path::new(path)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{path}: {error}");
        assert!(at.root.create_maildir(Path::new(path)).is_err());
        // As on kernels without openat2.
        let root = rustix::fs::open(at.root.path(), sys::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        assert!(sys::walk(root.as_fd(), Path::new(path)).is_err());
        assert!(sys::walk(root.as_fd(), Path::new("./INBOX/cur")).is_ok());
    }
    // A part of a maildir that leads elsewhere is no part of it.
    std::fs::remove_dir(at.root.path().join("INBOX/cur")).unwrap();
    symlink(elsewhere.join("Secret/cur"), at.root.path().join("INBOX/cur")).unwrap();
    assert!(matches!(at.root.maildir(Path::new("INBOX")), Err(Error::Broken { lacks: "cur", .. })));
}

#[test]
fn a_maildir_that_lacks_a_part_is_told_from_none() {
    // What is there besides, whether `new/` has a message, and what is lacking.
    let table: [(&[&str], bool, Option<&str>); 8] = [
        (&[], false, None),
        (&["tmp"], false, None),
        (&["tmp", "new"], false, None),
        (&["tmp", "new"], true, Some("cur")),
        (&["new"], false, Some("cur")),
        (&["cur"], false, Some("new")),
        (&["cur", "new"], false, Some("tmp")),
        (&["cur", "tmp"], false, Some("new")),
    ];
    for (parts, message, lacking) in table {
        let at = fixture();
        let directory = at.root.path().join("Work");
        std::fs::create_dir(&directory).unwrap();
        parts.iter().for_each(|part| std::fs::create_dir(directory.join(part)).unwrap());
        if message {
            std::fs::write(directory.join("new/1.a"), "text").unwrap();
        }
        let listed = names(&at.root).contains(&"Work".to_owned());
        match (at.root.maildir(Path::new("Work")), lacking) {
            (Ok(None), None) => {
                assert!(!listed);
                assert!(at.root.create_maildir(Path::new("Work")).unwrap().scan().unwrap().is_empty());
            }
            (Err(Error::Broken { lacks, .. }), Some(lacking)) => {
                assert!(listed && lacks == lacking);
                assert!(at.root.create_maildir(Path::new("Work")).is_err());
            }
            (other, _) => panic!("{parts:?}: {other:?}"),
        }
    }
}

#[test]
fn spelling_is_checked_where_case_is_ignored() {
    let at = fixture();
    at.root.create_maildir(Path::new("Lists/Rust")).unwrap();
    for (path, spelled) in [("Lists/Rust", true), ("", true), ("Lists/rust", false)] {
        assert_eq!(at.root.is_spelled(Path::new(path)).unwrap(), spelled, "{path}");
    }
}

#[test]
fn maildirs_are_renamed_but_never_over_another() {
    let at = fixture();
    for path in ["Lists", "Lists/rust", "Other"] {
        deliver(&at.root.create_maildir(Path::new(path)).unwrap(), "1.a", "", b"text");
    }
    let rename = |from: &str, to: &str| at.root.rename_maildir(Path::new(from), Path::new(to));
    assert!(matches!(rename("Lists", "Other"), Err(Error::Exists { .. })));
    assert!(matches!(rename("Nothing", "New"), Err(Error::Missing { .. })));
    assert!(rename("", "New").is_err() && rename("Lists", "../out").is_err());
    rename("Lists", "Archive/2024/Lists").unwrap();
    assert_eq!(names(&at.root), ["Archive/2024/Lists", "Archive/2024/Lists/rust", "INBOX", "Other"]);
}

#[test]
fn an_archived_maildir_is_in_the_graveyard_only() {
    let at = fixture();
    let name = MailboxName::from("Lists/rust");
    let path = at.root.path_of(&name).unwrap();
    let maildir = at.root.create_maildir(&path).unwrap();
    for (n, flag_text) in ["", "work", "\\Seen"].into_iter().enumerate() {
        deliver(&maildir, &format!("1.{n}"), flag_text, b"text");
    }
    std::fs::write(maildir.path().join("cur/1.2:2,FS"), "a double").unwrap();
    let ours = unique_name().unwrap().to_string();
    std::fs::write(maildir.path().join("tmp").join(ours), "left over").unwrap();
    std::fs::write(maildir.path().join("notes.txt"), "no message").unwrap();
    // Something in it that is no message: it stays a maildir, and says so.
    std::fs::create_dir(maildir.path().join("cur/directory")).unwrap();
    let error = at.root.archive_maildir(&path, &at.graveyard, &name).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    assert_eq!(names(&at.root), ["INBOX", "Lists/rust"]);
    let buried = at.graveyard.today(&name).unwrap().scan().unwrap();
    assert_eq!(buried.len(), 4);

    std::fs::remove_dir(maildir.path().join("cur/directory")).unwrap();
    at.root.archive_maildir(&path, &at.graveyard, &name).unwrap();
    assert_eq!(names(&at.root), ["INBOX"]);
    assert_eq!(files(at.root.path()), ["Lists/rust/notes.txt"], "what is not ours is left alone");
    std::fs::remove_file(at.root.path().join("Lists/rust/notes.txt")).unwrap();
    at.root.archive_maildir(&path, &at.graveyard, &name).unwrap();
    assert_eq!(at.graveyard.today(&name).unwrap().scan().unwrap().len(), 4);
}

#[test]
fn an_archived_maildir_leaves_those_below_it() {
    let at = fixture();
    for path in ["A", "A/b", "C/d"] {
        at.root.create_maildir(Path::new(path)).unwrap();
    }
    for path in ["A", "C/d", "nothing"] {
        at.root.archive_maildir(Path::new(path), &at.graveyard, &MailboxName::from(path)).unwrap();
    }
    assert_eq!(names(&at.root), ["A/b", "INBOX"]);
    assert_eq!(std::fs::read_dir(at.root.path()).unwrap().count(), 2);
}
