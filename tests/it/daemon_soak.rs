//! The daemon and a real Dovecot over a bad line, for as long as is wanted: `POSTKEEP_SOAK_MINUTES`, else some seconds.
//!
//! A mail reader changes flags as fast as it can, mail comes on both sides, users delete some of it; the line is cut,
//! stalls and is reset.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postkeep_sim::When;
use rustix::process::Signal;

use crate::account::{Account, Remote};
use crate::crash::subject;
use crate::daemon::{Daemon, PATIENCE, message, watched};
use crate::daemon_day::{HASTE, Size, size};
use crate::dovecot::{Dovecot, PASSWORD, Profile};
use crate::proxy::Fault;
use crate::random::Random;
use crate::reader::Reader;

const USER: &str = "u";
const MAILBOXES: [&str; 3] = ["INBOX", "Archive", "Lists"];
/// How many messages a mailbox may have before users delete some: what grows is to be the time, not the work.
const MANY: usize = 150;

struct Soak {
    random: Random,
    dovecot: Dovecot,
    account: Account,
    daemon: Daemon,
    user: Reader,
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
    faults: u32,
}

/// Changes flags of files of INBOX until `stop`; counts how often.
fn storm(inbox: &Path, stop: &AtomicBool, renames: &AtomicU64) {
    let mut random = Random::new(7);
    while !stop.load(Ordering::Relaxed) {
        let entries = ["new", "cur"].iter().filter_map(|place| fs::read_dir(inbox.join(place)).ok()).flatten();
        let files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        for _ in 0..20 {
            let Some(file) = random.of(&files) else { continue };
            let name = file.file_name().unwrap().to_str().unwrap();
            let unique = name.split(':').next().unwrap();
            let letters = *random.of(&["", "S", "F", "FS", "RS"]).unwrap();
            let renamed = fs::rename(file, inbox.join("cur").join(format!("{unique}:2,{letters}")));
            // The daemon may have been faster.
            renames.fetch_add(u64::from(renamed.is_ok()), Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends another thread's work when this is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Soak {
    fn begin() -> Self {
        let dovecot = Dovecot::start(Profile::Full);
        let extra = "append_retry_after = \"1s\"\npoll_interval = \"3s\"\nwatch = [\"INBOX\", \"Archive\"]\n\
                     connections = 4\n[account.a.deletions]\nguard_count = 100000";
        let account = Account::new(dovecot.port(), USER, PASSWORD, extra);
        let mut user = dovecot.login(USER);
        ["Archive", "Lists", "Trash"].iter().for_each(|name| drop(user.ok(&format!("CREATE {name}"))));
        let daemon = Daemon::start_with(&account, &[("POSTKEEP_HASTE", HASTE)]);
        Self {
            random: Random::new(1),
            dovecot,
            account,
            daemon,
            user,
            created: BTreeSet::new(),
            deleted: BTreeSet::new(),
            faults: 0,
        }
    }

    fn act(&mut self) {
        let mailbox = *self.random.of(&MAILBOXES).unwrap();
        let name = format!("m{}", self.created.len() + 1);
        let files = self.account.files(mailbox);
        match self.random.below(4) {
            0 => {
                self.user.append(mailbox, "", "01-Jan-2024 00:00:00 +0000", &message(&name));
                self.created.insert(name);
            }
            1 => {
                let text = String::from_utf8(message(&name)).unwrap().replace("\r\n", "\n");
                self.account.deliver(mailbox, text.as_bytes());
                self.created.insert(name);
            }
            2 if files.len() > MANY => {
                let file = self.random.of(&files).unwrap();
                if let Ok(bytes) = fs::read(file)
                    && fs::remove_file(file).is_ok()
                {
                    self.deleted.insert(subject(&bytes));
                }
            }
            3 if files.len() > MANY => {
                let there = self.user.mails(mailbox);
                let Some((uid, mail)) = self.random.of(&there) else { return };
                self.deleted.insert(subject(&mail.bytes));
                self.user.ok(&format!("SELECT {mailbox}"));
                self.user.ok(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"));
                self.user.ok(&format!("UID EXPUNGE {uid}"));
            }
            _ => {}
        }
    }

    fn disturb(&mut self) {
        const COMMANDS: [&str; 7] = ["SELECT", "UID FETCH", "UID STORE", "APPEND", "IDLE", "NOTIFY", "LIST"];
        let command = *self.random.of(&COMMANDS).unwrap();
        let proxy = &self.dovecot.proxy;
        match self.random.below(4) {
            0 => proxy.cut_after(self.random.below(4000)),
            1 => proxy.inject(command, When::Nth(1), Fault::Stall),
            2 => proxy.inject(command, When::Nth(1), Fault::Swallow),
            _ => proxy.reset(),
        }
        self.faults += 1;
    }

    /// Waits until nothing is left to do.
    fn settle(&self) {
        self.dovecot.proxy.calm();
        let until = Instant::now() + PATIENCE;
        let remote = Remote::Dovecot { server: &self.dovecot, user: USER, separator: '/', prefix: "" };
        while self.account.differs(remote) {
            if Instant::now() > until {
                eprintln!("{}", self.daemon.log());
                self.account.assert_equal(remote);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.daemon.until("both are watched", || {
            let live = &self.daemon.ask(&self.account, "{\"command\":\"status\"}")["accounts"][0];
            live["problem"].is_null() && watched(live) >= 2
        });
        self.daemon.rest(&self.account);
    }

    /// Goes on for this long, while a storm blows.
    fn run(&mut self, time: Duration) -> u64 {
        let (stop, renames) = (AtomicBool::new(false), AtomicU64::new(0));
        let inbox = self.account.mailbox("INBOX");
        std::thread::scope(|scope| {
            scope.spawn(|| storm(&inbox, &stop, &renames));
            let _stop = Stop(&stop);
            let until = Instant::now() + time;
            while Instant::now() < until {
                (0..4).for_each(|_| self.act());
                if self.random.one_in(4) {
                    self.disturb();
                }
                std::thread::sleep(Duration::from_millis(self.random.below(300)));
            }
        });
        self.settle();
        renames.into_inner()
    }
}

#[test]
fn a_bad_line_for_long_loses_nothing_and_leaks_nothing() {
    let minutes: f64 = std::env::var("POSTKEEP_SOAK_MINUTES").map_or(0.2, |minutes| minutes.parse().unwrap());
    let time = Duration::from_secs_f64(60.0 * minutes / 3.0);
    let mut soak = Soak::begin();
    soak.settle();
    let mut renames = 0;
    let sizes: Vec<Size> = (0..3)
        .map(|_| {
            renames += soak.run(time);
            size(&soak.daemon)
        })
        .collect();
    let Soak { account, mut daemon, dovecot, created, deleted, faults, .. } = soak;
    let fired = dovecot.proxy.fired();
    let connections = dovecot.proxy.open();
    let sign_ins = dovecot.proxy.commands().iter().filter(|c| c.name == "AUTHENTICATE" || c.name == "LOGIN").count();
    eprintln!(
        "{renames} renames, {} messages, {} deleted, {} of {faults} faults, {sign_ins} sign-ins, {connections} \
         connections, {sizes:?}",
        created.len(),
        deleted.len(),
        fired.len()
    );
    assert!(renames > 100, "the storm was none");
    for kind in ["cut", "stall", "swallow", "reset"] {
        assert!(fired.iter().any(|fault| fault.ends_with(kind)), "no {kind}: {fired:?}");
    }
    assert!((1..=4).contains(&connections), "{connections}");
    assert!(sign_ins <= 4 + 8 * fired.len(), "{sign_ins}");
    sizes[0].assert_kept(sizes[2]);
    let mut found: Vec<String> = account.local().into_values().flatten().map(|mail| subject(&mail.bytes)).collect();
    found.sort_unstable();
    let there: BTreeSet<String> = found.iter().cloned().collect();
    let lost: Vec<_> = created.difference(&deleted).filter(|name| !there.contains(*name)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert_eq!(there.len(), found.len(), "some are there twice: {found:?}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), 0);
}
