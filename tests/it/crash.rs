//! The program is killed before each of its steps, and goes on: the end is that of a run that nothing disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use postkeep_sim::{Server, State};

use crate::account::{Account, Mailboxes, Remote};
use crate::dovecot::{Dovecot, PASSWORD, Profile};
use crate::random::Random;
use crate::reader::Reader;

/// What the first pass mirrors: the mailbox and the name of each message. UIDs count from 1 in each mailbox.
const BEFORE: [(&str, &str); 22] = [
    ("INBOX", "read-there"),
    ("INBOX", "tagged-there"),
    ("INBOX", "moved-there"),
    ("INBOX", "deleted-there"),
    ("INBOX", "read-here"),
    ("INBOX", "flagged-here"),
    ("INBOX", "changed-by-both"),
    ("INBOX", "moved-here"),
    ("INBOX", "deleted-here"),
    ("INBOX", "kept-here"),
    ("INBOX", "kept-there"),
    ("INBOX", "twin"),
    ("INBOX", "twin"),
    ("Archive", "replaced"),
    ("Archive", "quiet"),
    ("Trash", "binned"),
    ("Old", "old-1"),
    ("Old", "old-2"),
    ("There", "there-1"),
    ("Renumbered", "same-1"),
    ("Renumbered", "same-2"),
    ("Gone", "gone-1"),
];

/// What both sides have in the end: each mailbox, with its messages and their flags.
const AFTER: [(&str, &[&str]); 8] = [
    ("Archive", &["moved-here", "moved-there", "quiet", "replaced anew", "twin \\Flagged", "uploaded-2"]),
    ("Fresh/here", &["note"]),
    ("Fresh/there", &["downloaded-3"]),
    (
        "INBOX",
        &[
            "changed-by-both \\Flagged \\Seen",
            "downloaded-1",
            "downloaded-2 \\Seen",
            "flagged-here \\Flagged",
            "kept-here \\Flagged",
            "kept-there \\Flagged",
            "quiet",
            "read-here \\Seen",
            "read-there \\Seen",
            "tagged-there work",
            "twin",
            "uploaded-1",
        ],
    ),
    ("Renamed", &["old-1", "old-2"]),
    ("Renumbered", &["after", "same-1 \\Flagged", "same-2 \\Seen"]),
    ("There2", &["there-1"]),
    ("Trash", &["deleted-here", "replaced"]),
];

fn body(name: &str) -> String {
    format!("Message-ID: <{name}@example.org>\nSubject: {name}\n\nThe body of {name}.\n")
}

fn date(second: usize) -> String {
    format!("01-Jan-2024 00:00:{second:02} +0000")
}

fn served(name: &str) -> Vec<u8> {
    body(name).replace('\n', "\r\n").into_bytes()
}

pub fn subject(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or("no subject").to_owned()
}

/// A server with the mail of one user.
enum Host<'a> {
    Sim(Server),
    Dovecot(&'a Dovecot, String),
}

impl Host<'_> {
    fn remote(&self) -> Remote<'_> {
        match self {
            Self::Sim(server) => Remote::Sim(server),
            Self::Dovecot(server, user) => Remote::Dovecot { server, user, separator: '/', prefix: "" },
        }
    }

    fn login(&self) -> Reader {
        match self {
            Self::Sim(server) => Reader::login(server.port(), "user", "secret").unwrap(),
            Self::Dovecot(server, user) => server.login(user),
        }
    }

    fn account(&self) -> Account {
        let extra = "append_retry_after = \"1s\"";
        match self {
            Self::Sim(server) => Account::new(server.port(), "user", "secret", extra),
            Self::Dovecot(server, user) => Account::new(server.port(), user, PASSWORD, extra),
        }
    }
}

/// Both sides as they are when the run begins that is to be interrupted.
struct Prepared<'a> {
    /// `mail` and `state` of the account.
    account: Account,
    mailboxes: Stored<'a>,
}

enum Stored<'a> {
    Sim(Box<State>),
    Dovecot(&'a Dovecot, String),
}

impl Prepared<'_> {
    /// Returns a copy of both sides to run on.
    fn copy(&self, number: &str) -> (Account, Host<'_>) {
        let host = match &self.mailboxes {
            Stored::Sim(state) => {
                let server = Server::spawn(postkeep_sim::Profile::Full).unwrap();
                (*server.state()).clone_from(state);
                Host::Sim(server)
            }
            Stored::Dovecot(server, user) => {
                let copy = format!("{user}-{number}");
                let home = |user: &str| server.store(user).parent().unwrap().to_owned();
                copy_tree(&home(user), &home(&copy));
                Host::Dovecot(server, copy)
            }
        };
        let account = host.account();
        copy_tree(&self.account.maildir(), &account.maildir());
        copy_tree(&self.account.state_dir(), &account.state_dir());
        (account, host)
    }
}

/// Copies a tree with all its dates, owners and modes.
fn copy_tree(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Mirrors an account once, and then changes both sides in every way that there is an op for.
fn prepare<'a>(host: Host<'a>) -> Prepared<'a> {
    let account = host.account();
    let mut reader = host.login();
    let mailboxes: BTreeSet<&str> = BEFORE.iter().map(|(mailbox, _)| *mailbox).collect();
    mailboxes.iter().filter(|m| **m != "INBOX").for_each(|m| drop(reader.ok(&format!("CREATE {m}"))));
    if let Host::Sim(server) = &host {
        server.state().mailbox_mut("Trash").special_use = Some("\\Trash".to_owned());
    }
    for (i, (mailbox, name)) in BEFORE.iter().enumerate() {
        reader.append(mailbox, "", &date(i), &served(name));
    }
    let first = run(&account, None);
    assert_eq!(first.status.code(), Some(0), "{}", shown(&first));
    account.assert_equal(host.remote());

    change_there(&mut reader);
    change_here(&account);
    let mailboxes = match host {
        Host::Sim(server) => Stored::Sim(Box::new(server.state().clone())),
        Host::Dovecot(server, user) => Stored::Dovecot(server, user),
    };
    Prepared { account, mailboxes }
}

fn change_there(reader: &mut Reader) {
    let uid = |name: &str| {
        let inbox = BEFORE.iter().filter(|(mailbox, _)| *mailbox == "INBOX");
        inbox.map(|(_, name)| *name).position(|n| n == name).unwrap() + 1
    };
    reader.ok("SELECT INBOX");
    let gone = format!("{},{}", uid("deleted-there"), uid("kept-here"));
    for command in [
        format!("UID STORE {} +FLAGS (\\Seen)", uid("read-there")),
        format!("UID STORE {} +FLAGS (Work)", uid("tagged-there")),
        format!("UID STORE {},{} +FLAGS (\\Flagged)", uid("changed-by-both"), uid("kept-there")),
        format!("UID STORE {} +FLAGS (\\Flagged)", uid("twin") + 1),
        format!("UID MOVE {},{} Archive", uid("moved-there"), uid("twin") + 1),
        format!("UID STORE {gone} +FLAGS (\\Deleted)"),
        format!("UID EXPUNGE {gone}"),
        "UNSELECT".to_owned(),
        "RENAME There There2".to_owned(),
        "DELETE Gone".to_owned(),
        "DELETE Renumbered".to_owned(),
        "CREATE Renumbered".to_owned(),
        "CREATE Fresh/there".to_owned(),
    ] {
        reader.ok(&command);
    }
    // A server that renumbers a mailbox keeps the dates.
    for (mailbox, flags, name, second) in [
        ("INBOX", "", "downloaded-1", 40),
        ("INBOX", "\\Seen", "downloaded-2", 41),
        ("Fresh/there", "", "downloaded-3", 42),
        ("Renumbered", "\\Seen", "same-2", 20),
        ("Renumbered", "\\Flagged", "same-1", 19),
        ("Renumbered", "", "after", 43),
    ] {
        reader.append(mailbox, flags, &date(second), &served(name));
    }
}

fn change_here(account: &Account) {
    let file = |mailbox: &str, name: &str| -> PathBuf {
        let mut files = account.files(mailbox).into_iter();
        files.find(|path| subject(&fs::read(path).unwrap()) == name).unwrap()
    };
    for (name, letters) in [("read-here", "S"), ("flagged-here", "F"), ("changed-by-both", "S"), ("kept-here", "F")] {
        account.set_info(&file("INBOX", name), letters);
    }
    account.move_to(&file("INBOX", "moved-here"), "Archive");
    fs::remove_file(file("INBOX", "deleted-here")).unwrap();
    fs::remove_file(file("INBOX", "kept-there")).unwrap();
    fs::remove_file(file("Trash", "binned")).unwrap();
    let new = [("INBOX", "uploaded-1"), ("Archive", "uploaded-2"), ("Fresh/here", "note"), ("INBOX", "quiet")];
    for (i, (mailbox, name)) in new.into_iter().enumerate() {
        let path = account.deliver(mailbox, body(name).as_bytes());
        account.set_date(&path, 1_700_000_000 + i as u64);
    }
    let replaced = file("Archive", "replaced");
    let anew = account.deliver("Archive", body("replaced anew").as_bytes());
    account.set_date(&anew, 1_700_000_100);
    fs::rename(anew, replaced).unwrap();
    fs::rename(account.maildir().join("Old"), account.maildir().join("Renamed")).unwrap();
}

/// Makes a pass that dies before its `step`-th step.
fn run(account: &Account, step: Option<u64>) -> Output {
    let mut command = account.command(&["sync"]);
    command.env("RUST_LOG", "info");
    if let Some(step) = step {
        command.env("POSTKEEP_CRASH_AT", step.to_string());
    }
    command.output().unwrap()
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(9)
}

/// Shows, when the test fails, what the program says that it has done.
pub struct Journal<'a>(pub &'a Account);

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.run(&["log", "a"]).stdout);
            eprintln!("graveyard: {:?}", graveyard(self.0));
        }
    }
}

/// Makes passes until one is complete.
fn resume(account: &Account) {
    let mut last = None;
    for _ in 0..4 {
        let output = run(account, None);
        let said = shown(&output);
        assert!(!said.contains("united"), "a crash was taken for a lost database: {said}");
        if output.status.code() == Some(0) {
            return;
        }
        last = Some(output);
    }
    panic!("no pass is complete: {}", shown(&last.unwrap()));
}

/// Returns each mailbox with its messages as in [`AFTER`].
fn in_words(mailboxes: &Mailboxes) -> Vec<(String, Vec<String>)> {
    let words = |(name, mails): (&String, &Vec<crate::reader::Mail>)| {
        let word = |mail: &crate::reader::Mail| {
            let flags = mail.flags.iter().map(|flag| format!(" {flag}"));
            subject(&mail.bytes) + &flags.collect::<String>()
        };
        let mut words: Vec<String> = mails.iter().map(word).collect();
        words.sort_unstable();
        (name.clone(), words)
    };
    mailboxes.iter().map(words).collect()
}

/// Panics unless nothing is left to do, and a pass and a dry run do nothing.
#[track_caller]
pub fn assert_settled(account: &Account, remote: Remote<'_>) {
    account.assert_equal(remote);
    let before = account.snapshot(remote);
    let dry = account.run(&["sync", "--dry-run"]);
    assert_eq!((dry.code, dry.stdout.as_str()), (0, "a: in sync; nothing would be done\n"), "{}", dry.stderr);
    let again = account.run(&["sync"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, "a: in sync\n"), "{}", again.stderr);
    assert_eq!(account.snapshot(remote), before, "a pass that has nothing to do changed something");
}

/// Returns the subjects of all messages in the graveyard.
fn graveyard(account: &Account) -> BTreeSet<String> {
    let (mut subjects, mut dirs) = (BTreeSet::new(), vec![account.state_dir()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.components().any(|c| c.as_os_str() == "cur" || c.as_os_str() == "new") {
                subjects.insert(subject(&fs::read(path).unwrap()));
            }
        }
    }
    subjects
}

/// What the end is compared with.
struct Expected {
    steps: u64,
    mailboxes: Mailboxes,
}

fn assert_end(account: &Account, host: &Host<'_>, expected: Option<&Expected>) {
    account.assert_equal(host.remote());
    let local = account.local();
    let after = AFTER.iter().map(|(name, mails)| ((*name).to_owned(), mails.iter().map(|m| (*m).to_owned()).collect()));
    assert_eq!(in_words(&local), after.collect::<Vec<(String, Vec<String>)>>());
    let dates = |mailboxes: &Mailboxes| -> BTreeMap<String, Vec<(i64, String)>> {
        let dates = |mails: &Vec<crate::reader::Mail>| {
            let mut dates: Vec<_> = mails.iter().map(|m| (m.date, subject(&m.bytes))).collect();
            dates.sort_unstable();
            dates
        };
        mailboxes.iter().map(|(name, mails)| (name.clone(), dates(mails))).collect()
    };
    if let Some(expected) = expected {
        assert_eq!(dates(&local), dates(&expected.mailboxes));
    }
    assert_settled(account, host.remote());
    let buried = graveyard(account);
    for name in ["deleted-there", "binned", "gone-1"] {
        assert!(buried.contains(name), "{name} is nowhere any more; in the graveyard: {buried:?}");
    }
    if let Host::Sim(server) = host {
        assert_eq!(server.violations(), Vec::<String>::new());
        assert!(server.commands().len() < 500, "{} commands", server.commands().len());
        let dangers: Vec<_> = server.commands().into_iter().filter(|c| c.danger().is_some()).collect();
        // Those of the reader, which no rule binds.
        assert!(dangers.is_empty(), "{dangers:?}");
    }
}

/// Makes the pass without a crash and returns its end.
fn undisturbed(prepared: &Prepared<'_>) -> Expected {
    let (account, host) = prepared.copy("0");
    let steps = account.state_dir().join("steps");
    let output = account.command(&["sync"]).env("POSTKEEP_STEPS", &steps).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let text = fs::read_to_string(&steps).unwrap();
    fs::remove_file(steps).unwrap();
    assert_end(&account, &host, None);
    let names: BTreeSet<&str> = text.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    for name in [
        "append",
        "change flags",
        "commit",
        "create",
        "create maildir",
        "deliver",
        "expunge",
        "move",
        "remove",
        "remove maildir",
        "rename",
        "rename maildir",
        "save keywords",
        "set marker",
        "store",
        "sync messages",
    ] {
        assert!(names.contains(name), "no step is called {name:?}: {names:?}");
    }
    Expected { steps: text.lines().count() as u64, mailboxes: account.local() }
}

/// Kills a pass at a step, in every second case also the one that follows, and looks at the end.
fn crash_at(prepared: &Prepared<'_>, expected: &Expected, step: u64) {
    let (account, host) = prepared.copy(&step.to_string());
    let _journal = Journal(&account);
    let output = run(&account, Some(step));
    // What runs side by side may need a step more or less than it did once.
    assert!(was_killed(&output) || step + 5 > expected.steps, "it was not killed at step {step}: {}", shown(&output));
    let mut random = Random::new(step);
    if random.one_in(2) {
        let step = 1 + random.below(expected.steps / 2);
        // Where it is killed this time, and whether it gets so far, is left to chance.
        let _ = run(&account, Some(step));
    }
    resume(&account);
    assert_end(&account, &host, Some(expected));
}

/// Crashes at each of `steps`, some at a time, and names those that end badly.
fn sweep(prepared: &Prepared<'_>, expected: &Expected, steps: &[u64]) {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(BTreeSet::new()));
    // Most of a run is waiting.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(&step) = steps.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let one = AssertUnwindSafe(|| crash_at(prepared, expected, step));
                    if std::panic::catch_unwind(one).is_err() {
                        eprintln!("that was with a crash at step {step}");
                        failed.lock().unwrap().insert(step);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "of {} steps, crashes at these end badly: {failed:?}", expected.steps);
}

/// Tells whether tests may take minutes.
pub fn may_be_slow() -> bool {
    std::env::var_os("POSTKEEP_SLOW_TESTS").is_some_and(|value| value == "1")
}

/// The system calls after which something is on the disk, and which of them the pass is killed at: strace counts them in
/// each thread of its own.
const SYSTEM_CALLS: [(&str, [u32; 2]); 4] =
    [("renameat2", [1, 4]), ("fsync", [1, 5]), ("fdatasync", [1, 6]), ("pwrite64", [3, 9])];

#[test]
fn killed_at_system_calls() {
    let prepared = prepare(Host::Sim(Server::spawn(postkeep_sim::Profile::Full).unwrap()));
    let expected = undisturbed(&prepared);
    let cases: Vec<_> = SYSTEM_CALLS.iter().flat_map(|(call, nth)| nth.map(|n| (*call, n))).collect();
    let killed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (call, n) in cases {
            let (prepared, expected, killed) = (&prepared, &expected, &killed);
            scope.spawn(move || {
                let (account, host) = prepared.copy(&format!("{call}-{n}"));
                let _journal = Journal(&account);
                let pass = account.command(&["sync"]);
                let mut traced = Command::new("strace");
                traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
                traced.args(["-e", &format!("inject={call}:signal=SIGKILL:when={n}")]);
                traced.arg(pass.get_program()).args(pass.get_args());
                traced.envs(pass.get_envs().filter_map(|(name, value)| Some((name, value?))));
                // It ends as what it traces does.
                killed.fetch_add(u64::from(was_killed(&traced.output().unwrap())), Ordering::Relaxed);
                resume(&account);
                assert_end(&account, &host, Some(expected));
            });
        }
    });
    // Which thread makes how many calls is a matter of chance; but most of the cases must be what they say.
    assert!(killed.load(Ordering::Relaxed) >= 4, "strace killed {killed:?} of 8 passes");
}

#[test]
fn killed_at_each_step_on_a_simulated_server() {
    let prepared = prepare(Host::Sim(Server::spawn(postkeep_sim::Profile::Full).unwrap()));
    let expected = undisturbed(&prepared);
    let steps: Vec<u64> = (1..=expected.steps).collect();
    sweep(&prepared, &expected, &steps);
}

#[test]
fn killed_at_steps_on_dovecot() {
    let dovecot = Dovecot::start(Profile::Full);
    let prepared = prepare(Host::Dovecot(&dovecot, "u".to_owned()));
    let expected = undisturbed(&prepared);
    let every = if may_be_slow() { 1 } else { 3 };
    let steps: Vec<u64> = (1..=expected.steps).step_by(every).collect();
    sweep(&prepared, &expected, &steps);
}
