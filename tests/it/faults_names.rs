//! Mailbox names at fault: they want out of the maildir, or to share one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use postkeep_sim::{Fault, Profile, When};

use crate::account::{Account, Remote};
use crate::dovecot::{Dovecot, Options};
use crate::faults_scene::{Scene, below, mail, mail_here, says};

/// Panics unless every file that has one of the mails is below the maildir's root, and no directory has two mails.
#[track_caller]
fn assert_contained(scene: &Scene) {
    let root = scene.account.maildir();
    let home = root.parent().unwrap();
    let inside = |path: &std::path::Path| path.starts_with(&root) || path.starts_with(scene.account.state_dir());
    let known = ["config.toml", "password", "trace", "steps"];
    for path in below(home) {
        let name = path.file_name().unwrap().to_str().unwrap_or_default();
        assert!(inside(&path) || known.contains(&name), "{} is outside", path.display());
    }
    let mut directories = BTreeSet::new();
    for path in
        below(&root).iter().filter(|p| p.parent().unwrap().ends_with("new") || p.parent().unwrap().ends_with("cur"))
    {
        assert!(directories.insert(path.parent().unwrap().to_owned()), "{} has two mailboxes", path.display());
        let bytes = path.as_os_str().as_bytes();
        assert!(!bytes.iter().any(|b| b.is_ascii_control()), "{}", path.display());
    }
}

#[test]
fn t37_hostile_names_stay_below_the_root() {
    let names = [
        "..",
        ".",
        "../../escaped",
        "a/../../escaped",
        "/absolute",
        "a//b",
        "trailing/",
        "~",
        "~root",
        "cur",
        "new",
        "tmp",
        "x/cur",
        "x/tmp/new",
        ".hidden",
        ".postkeep",
        "trailing ",
        " leading",
        "with:colon",
        "with\\backslash",
        "percent%2Fsign",
        "%2e%2e",
        "&ABsAWw-31m",
        "&AAoADQ-",
        "&AAA-",
        "&AC8-",
        "&IC4-txt",
        "&Jjo-&Jjo-",
        "&broken",
        "&AGE-",
        "a\"quote",
    ];
    let scene = Scene::new(Profile::Full);
    let long = ["l".repeat(300), "&Jjo-".repeat(200), "d/".repeat(60) + "end"];
    for (n, name) in (1..).zip(names.iter().map(|n| (*n).to_owned()).chain(long)) {
        scene.server.state().create(&name);
        scene.server.state().append(&name, &mail(n), &[], 1000);
    }
    scene.arrives(1000);
    let output = scene.sync();
    assert!([0, 1].contains(&output.code), "{output:?}");
    assert!(!output.stderr.contains("panicked"), "{output:?}");
    assert_contained(&scene);
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{text:?}");
    }
    // What can be mirrored is, and what cannot is named.
    let files = below(&scene.account.maildir());
    let here = |n: u32| files.iter().any(|p| fs::read(p).is_ok_and(|b| b == mail_here(n)));
    assert!(here(1000), "{output:?}");
    for (n, name) in (1..).zip(names) {
        if !here(n) {
            assert_eq!(output.code, 1, "{name} is missing: {output:?}");
            let word: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(output.stdout.contains(&word), "{name} is not named: {output:?}");
        }
    }
    for n in [8, 10, 11, 13, 15, 17] {
        assert!(here(n), "{} was not mirrored: {output:?}", names[n as usize - 1]);
    }
    scene.assert_decent();
    // And nothing comes of a second look.
    let again = scene.sync();
    assert_eq!(again.code, output.code, "{again:?}");
    scene.assert_told_nothing();
    assert_eq!(below(&scene.account.maildir()).len(), files.len());
    scene.assert_graves(0);
}

#[test]
fn t38_names_that_differ_little_have_directories_of_their_own() {
    let scene = Scene::new(Profile::Full);
    // Upper and lower case, composed and decomposed, the separator of the other layout.
    let names = ["Spam", "spam", "SPAM", "Inbox2", "a.b", "a/b", "&AOk-t&AOk-", "e&AwE-te&AwE-", "a b", "a_b"];
    for (n, name) in (1..).zip(names) {
        scene.arrives_in_new(name, n);
    }
    scene.arrives(1000);
    let output = scene.sync();
    says(&output, 0, &[]);
    assert_contained(&scene);
    scene.assert_heals();
    for n in 1..=names.len() as u32 {
        let files = below(&scene.account.maildir());
        assert_eq!(files.iter().filter(|p| fs::read(p).is_ok_and(|b| b == mail_here(n))).count(), 1, "{n}");
    }
}

#[test]
fn t38_inbox_has_no_case() {
    let scene = Scene::synced(Profile::Full, 2);
    scene.server.inject("LIST", When::Every, Fault::edit(|line| Some(line.replace("INBOX", "Inbox"))));
    let before = scene.snapshot();
    scene.sync_says(0, &[]);
    scene.assert_fired("LIST edit");
    assert!(scene.snapshot() == before);
    scene.assert_told_nothing();
    scene.server.calm();
    scene.assert_heals();
}

#[test]
fn t38_a_server_without_hierarchy() {
    let scene = Scene::synced(Profile::Bare, 1);
    scene.arrives_in_new("flat.name", 2);
    scene.server.inject("LIST", When::Every, Fault::edit(|line| Some(line.replace(" \"/\" ", " NIL "))));
    let output = scene.sync();
    scene.assert_fired("LIST edit");
    says(&output, 0, &[]);
    scene.account.assert_equal(Remote::Sim(&scene.server));
    // A directory inside another cannot become a mailbox there.
    scene.account.deliver("up/down", b"Subject: x\n\nx\n");
    let output = scene.sync();
    assert!([0, 1].contains(&output.code), "{output:?}");
    assert_contained(&scene);
    assert_eq!(scene.account.files("up/down").len(), 1);
}

#[test]
fn t38_separators_of_a_real_server() {
    for (separator, prefix) in [('.', "INBOX."), ('/', ""), ('^', "")] {
        let mut options = Options::from(crate::dovecot::Profile::Full);
        (options.separator, options.prefix) = (separator, prefix);
        let dovecot = Dovecot::start(options);
        let account = Account::on_dovecot(&dovecot, "u");
        let remote = Remote::Dovecot { server: &dovecot, user: "u", separator, prefix };
        let mut reader = dovecot.login("u");
        let raw = format!("{prefix}Lists{separator}rust");
        reader.ok(&format!("CREATE \"{raw}\""));
        reader.append(&raw, "", "01-Jan-2024 00:00:00 +0000", b"Subject: x\r\n\r\nx\r\n");
        account.deliver("Mine/deep", b"Subject: y\n\ny\n");
        says(&account.run(&["sync"]), 0, &["1 downloaded", "1 uploaded"]);
        account.assert_equal(remote);
        assert_eq!(account.files("Lists/rust").len(), 1, "{separator}");
        assert!(remote.mails().contains_key("Mine/deep"), "{separator}");
        let before = account.snapshot(remote);
        says(&account.run(&["sync"]), 0, &[]);
        assert!(account.snapshot(remote) == before);
    }
}
