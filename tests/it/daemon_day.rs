//! A day in the life of the daemon: something goes wrong every few minutes, users act on both sides, and in the end both
//! are the same, nothing is lost, nobody was bothered too often, and the process is as small as it was.
//!
//! The day is real time, of which all long waits are shortened ([`HASTE`]): a clock that is moved would race the kernel's
//! sockets and the threads that write to disks.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postkeep_sim::{At, Fault, Options, Profile, Server, Share, When};
use rustix::process::Signal;

use crate::account::{Account, Remote};
use crate::crash::may_be_slow;
use crate::daemon::{Daemon, PATIENCE, watched};
use crate::histories::{Ledger, act_here, act_there, judge};
use crate::random::Random;

/// How much shorter long waits are than those of a user.
pub const HASTE: &str = "100";

/// How many connections the account may have.
const CONNECTIONS: usize = 4;

/// What may go wrong with a command; the server answers these words, or the connection ends.
const WORDS: [&str; 4] = ["NO not now", "BAD what is that?", "NO [UNAVAILABLE] try later", "NO Server Unavailable. 15"];

/// What a process needs of the system.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    descriptors: usize,
    watches: usize,
    /// In kB.
    memory: usize,
}

impl Size {
    /// Panics if a process that was of this size has grown to `now` though it has no more to do.
    #[track_caller]
    pub fn assert_kept(&self, now: Self) {
        assert_eq!(now.watches, self.watches, "{self:?} {now:?}");
        assert!(now.descriptors <= self.descriptors + CONNECTIONS, "{self:?} {now:?}");
        assert!(now.memory <= self.memory + self.memory / 4 + 4096, "{self:?} {now:?}");
    }
}

/// Returns what the process of a daemon needs.
pub fn size(daemon: &Daemon) -> Size {
    let proc = std::path::PathBuf::from(format!("/proc/{}", daemon.pid().as_raw_nonzero()));
    let infos: Vec<String> =
        fs::read_dir(proc.join("fdinfo")).unwrap().filter_map(|e| fs::read_to_string(e.unwrap().path()).ok()).collect();
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
    Size {
        descriptors: infos.len(),
        watches: infos.iter().map(|info| info.matches("inotify wd:").count()).sum(),
        memory: memory.unwrap(),
    }
}

/// Starts a server on a port that one had before, once nobody who was given the port meanwhile has it any more.
pub fn spawned_on(options: Options, port: u16) -> Server {
    let until = Instant::now() + PATIENCE;
    loop {
        match Server::spawn_on(options.clone(), port) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A day on its way.
struct Day {
    seed: u64,
    random: Random,
    account: Arc<Account>,
    profile: Profile,
    server: Option<Server>,
    daemon: Daemon,
    ledger: Ledger,
    /// How often somebody signed in to servers that have ended since.
    sign_ins: usize,
    violations: Vec<String>,
    /// How many of the faults were waited for, and how many of them happened.
    faults: (usize, usize),
    /// How often all began anew: each time everything is connected again.
    beginnings: usize,
    began: Instant,
    /// Up to when the server's clock was moved.
    clock: Instant,
}

impl Drop for Day {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.ledger.lines.join("\n"), self.daemon.log());
            eprintln!("that was the day of POSTKEEP_DAY={}", self.seed);
        }
    }
}

impl Day {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let profile = *random.of(&[Profile::Full, Profile::NoQresync, Profile::NoCondstore, Profile::Outlook]).unwrap();
        let server = Server::spawn(profile).unwrap();
        {
            let mut state = server.state();
            ["Trash", "A", "B"].into_iter().for_each(|name| state.create(name));
            state.mailbox_mut("Trash").special_use = Some("\\Trash".to_owned());
        }
        let extra = format!(
            "append_retry_after = \"1s\"\npoll_interval = \"3s\"\nwatch = [\"INBOX\", \"A\"]\n\
             connections = {CONNECTIONS}\n[account.a.deletions]\nguard_count = 1000"
        );
        let account = Account::new(server.port(), "user", "secret", &extra);
        let daemon = Daemon::start_with(&account, &[("POSTKEEP_HASTE", HASTE)]);
        // What users do, they do while the daemon works.
        let ledger = Ledger::with_daemon();
        Self {
            seed,
            random,
            account: Arc::new(account),
            profile,
            server: Some(server),
            daemon,
            ledger,
            sign_ins: 0,
            violations: Vec::new(),
            faults: (0, 0),
            beginnings: 1,
            began: Instant::now(),
            clock: Instant::now(),
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn note(&mut self, line: String) {
        self.ledger.lines.push(format!("{:.1} s: {line}", self.began.elapsed().as_secs_f32()));
    }

    /// Lets the server's clock go on to now.
    fn advance(&mut self) {
        let time = self.clock.elapsed();
        self.clock = Instant::now();
        self.server().state().advance(time);
    }

    /// Lets a user do something, here or there.
    fn act(&mut self) {
        // Here nobody can be where the root is not.
        if self.random.one_in(2) && self.account.maildir().is_dir() {
            act_here(&mut self.random, &self.account, &mut self.ledger);
        } else if let Some(server) = &self.server {
            act_there(&mut self.random, &mut server.state(), &self.account, &mut self.ledger);
        }
    }

    /// Lets this time pass, in which users act.
    fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.server.is_some() {
                self.advance();
            }
            self.act();
            std::thread::sleep(Duration::from_millis(20 + self.random.below(150)));
        }
    }

    /// Makes something go wrong on the server, and waits until it has.
    fn fault(&mut self, command: &str, when: When, fault: Fault) {
        let before = self.server().fired().len();
        self.note(format!("fault {fault:?} at {command}"));
        self.server().inject(command, when, fault);
        self.faults.0 += 1;
        let until = Instant::now() + Duration::from_secs(3);
        while self.server().fired().len() == before && Instant::now() < until {
            self.pass(Duration::from_millis(20));
        }
        self.faults.1 += usize::from(self.server().fired().len() > before);
    }

    fn disturb(&mut self, may_kill: bool) {
        const COMMANDS: [&str; 11] = [
            "LIST",
            "SELECT",
            "SELECT",
            "UID FETCH",
            "UID FETCH",
            "APPEND",
            "UID STORE",
            "UID MOVE",
            "UID EXPUNGE",
            "IDLE",
            "NOTIFY",
        ];
        const PLACES: [At; 4] = [At::Before, At::Unanswered, At::Middle, At::After];
        let command = *self.random.of(&COMMANDS).unwrap();
        match self.random.below(if may_kill { 16 } else { 14 }) {
            0..3 => {
                let at = *self.random.of(&PLACES).unwrap();
                self.fault(command, When::Nth(1), Fault::Close(at));
            }
            3..5 => {
                let words = *self.random.of(&WORDS).unwrap();
                self.fault(command, When::Nth(1), Fault::Answer(words.to_owned()));
            }
            5 => self.fault(command, When::Nth(1), Fault::Stall),
            6 => {
                let command = *self.random.of(&["UID FETCH", "IDLE", "SELECT"]).unwrap();
                self.fault(command, When::Nth(1), Fault::token_expired());
            }
            7 => {
                let time = Duration::from_millis(300 + self.random.below(1500));
                let bad = self.random.one_in(2);
                self.fault(command, When::Nth(1), Fault::Throttle { time, bad });
            }
            8 => {
                self.server().cut_after(0);
                let refusal = Fault::Answer("NO [AUTHENTICATIONFAILED] who are you?".to_owned());
                let sign_in = if self.profile.has("AUTH=PLAIN") { "AUTHENTICATE" } else { "LOGIN" };
                self.fault(sign_in, When::Nth(1), refusal);
                // What the user does then.
                self.pass(Duration::from_millis(500));
                let output = self.account.run(&["sync"]);
                self.note(format!("exit {} {}{}", output.code, output.stdout, output.stderr));
            }
            9 => {
                let share = *self.random.of(&[Share::All, Share::EverySecond, Share::FirstHalf]).unwrap();
                self.fault("UID FETCH", When::Nth(1), Fault::DropLines(share));
            }
            10 => {
                let bytes = self.random.below(3000);
                self.note(format!("cut after {bytes} bytes"));
                self.server().cut_after(bytes);
            }
            11 => self.restart_server(),
            12 => {
                self.note("the daemon is stopped and goes on".to_owned());
                self.daemon.signal(Signal::STOP);
                self.pass(Duration::from_millis(1500));
                self.daemon.signal(Signal::CONT);
            }
            13 => self.unmount(),
            _ => {
                self.note("the daemon is killed".to_owned());
                self.daemon.signal(Signal::KILL);
                assert_eq!(self.daemon.end(), -1);
                self.pass(Duration::from_millis(300));
                self.beginnings += 1;
                self.daemon = Daemon::start_with(&self.account, &[("POSTKEEP_HASTE", HASTE)]);
            }
        }
    }

    fn restart_server(&mut self) {
        self.note("the server goes away, and comes back".to_owned());
        let server = self.server.take().unwrap();
        let port = server.port();
        self.take_notes(&server);
        let state = server.stop();
        let time = 100 + self.random.below(900);
        self.pass(Duration::from_millis(time));
        let server = spawned_on(self.profile.into(), port);
        *server.state() = state;
        self.server = Some(server);
    }

    /// Takes the root away for a while, as a disk that is not mounted.
    fn unmount(&mut self) {
        self.note("the root goes away, and comes back".to_owned());
        let (root, away) = (self.account.maildir(), self.account.maildir().with_file_name("away"));
        fs::rename(&root, &away).unwrap();
        let until = Instant::now() + PATIENCE;
        // Users go on to act on the server, so that there is something to look for.
        while !self.problem().is_some_and(|text| text.contains("mail")) {
            assert!(Instant::now() < until, "it does not notice that the root is not there");
            self.pass(Duration::from_millis(50));
        }
        assert!(!root.exists(), "it made another root");
        fs::rename(&away, &root).unwrap();
    }

    /// Returns what keeps the daemon from its work.
    fn problem(&self) -> Option<String> {
        let live = self.daemon.ask(&self.account, "{\"command\":\"status\"}");
        live["accounts"][0]["problem"].as_str().map(str::to_owned)
    }

    /// Keeps what is to be known of a server in the end.
    fn take_notes(&mut self, server: &Server) {
        self.sign_ins += server.commands().iter().filter(|c| c.name == "LOGIN" || c.name == "AUTHENTICATE").count();
        self.violations.extend(server.violations());
    }

    /// Lets nothing go wrong any more, and waits until both sides are the same and the daemon rests.
    fn settle(&mut self) {
        self.note("calm".to_owned());
        self.server().calm();
        // What the server refused to take, or left out and said OK, is found when everything is listed: each day, or when
        // the user wants it.
        let found_daily = |fault: &String| fault == "APPEND answer" || fault.ends_with("drop-lines");
        let mut full = !self.server().fired().iter().any(found_daily);
        let until = Instant::now() + PATIENCE;
        loop {
            self.advance();
            full = full || self.account.run(&["sync", "--full"]).code == 0;
            if full && self.rests() && !self.account.differs(Remote::Sim(self.server())) && self.rests() {
                break;
            }
            if Instant::now() > until {
                self.account.assert_equal(Remote::Sim(self.server()));
                panic!("it does not come to rest: {:?}", self.daemon.ask(&self.account, "{\"command\":\"status\"}"));
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        self.ledger.settled();
    }

    fn rests(&self) -> bool {
        let live = &self.daemon.ask(&self.account, "{\"command\":\"status\"}")["accounts"][0];
        live["state"] == "watching" && live["waiting"] == 0 && live["problem"].is_null() && watched(live) >= 2
    }

    fn run(mut self, faults: usize) {
        self.pass(Duration::from_millis(500));
        self.settle();
        let mut before = None;
        for n in 0..faults {
            // One life of the process is long enough to see what grows.
            if n == faults / 3 {
                self.settle();
                before = Some(size(&self.daemon));
            }
            self.disturb(n < faults / 3);
            let time = self.random.below(600);
            self.pass(Duration::from_millis(time));
            if self.random.one_in(6) {
                self.settle();
            }
        }
        self.settle();
        self.end(before.unwrap(), faults);
    }

    fn end(mut self, before: Size, faults: usize) {
        let after = size(&self.daemon);
        let server = self.server.take().unwrap();
        self.take_notes(&server);
        let numbers = format!(
            "seed {} ({:?}): {} of {} faults at commands, {} sign-ins, {} bodies, {before:?} {after:?}",
            self.seed,
            self.profile,
            self.faults.1,
            self.faults.0,
            self.sign_ins,
            self.ledger.events.len()
        );
        eprintln!("{numbers}");
        assert!(server.signed_in() <= CONNECTIONS, "{} connections", server.signed_in());
        assert_eq!(self.violations, Vec::<String>::new());
        assert!(2 * self.faults.1 >= self.faults.0, "most faults did not happen: {numbers}");
        // Whatever happens breaks all connections, and those who were turned away come back once.
        assert!(self.sign_ins <= CONNECTIONS * (self.beginnings + 2 * faults), "{numbers}");
        before.assert_kept(after);
        assert!(!self.daemon.log().contains("panicked"));
        let wrong = judge(&self.ledger, &self.account.local());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        self.daemon.signal(Signal::TERM);
        assert_eq!(self.daemon.end(), 0);
    }
}

#[test]
fn a_day_full_of_faults_ends_well() {
    let seeds: Vec<u64> = match std::env::var("POSTKEEP_DAY") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) if may_be_slow() => (1..=4).collect(),
        Err(_) => vec![1],
    };
    // Most of a day is waiting.
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || Day::begin(seed).run(if may_be_slow() { 300 } else { 20 }));
        }
    });
}
