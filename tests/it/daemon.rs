//! The daemon as a process, and what it tells systemd.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postkeep_sim::{Profile, Server};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::{Account, Remote};

/// Nothing that a test waits for takes longer, on a machine that others use too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon. It is killed when this is dropped.
pub struct Daemon {
    child: Child,
    systemd: UnixDatagram,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon of an account, and waits until it says that it is ready.
    pub fn start(account: &Account) -> Self {
        Self::start_with(account, &[])
    }

    /// Starts it with more environment.
    pub fn start_with(account: &Account, environment: &[(&str, &str)]) -> Self {
        let mut daemon = Self::spawn(account, environment);
        daemon.wait_for("READY=1");
        daemon
    }

    /// Starts it so that it logs what users see, and waits until it says that it is ready.
    pub fn quiet(account: &Account) -> Self {
        let mut daemon = Self::spawn_as(account, &["run"], &[]);
        daemon.wait_for("READY=1");
        daemon
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(account: &Account, environment: &[(&str, &str)]) -> Self {
        Self::spawn_as(account, &["run", "-vv"], environment)
    }

    fn spawn_as(account: &Account, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = account.command(args);
        command.envs(environment.iter().copied());
        Self::of(account, command)
    }

    /// Starts a command that becomes the daemon of an account, and waits for nothing.
    pub fn of(account: &Account, mut command: Command) -> Self {
        let directory = account.config().parent().unwrap().to_owned();
        let (notify, log) = (directory.join("notify"), directory.join("log"));
        let _ = fs::remove_file(&notify);
        let systemd = UnixDatagram::bind(&notify).unwrap();
        systemd.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", &notify);
        command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), systemd, log }
    }

    /// Waits until systemd is told this; returns all that it was told until then.
    #[track_caller]
    pub fn wait_for(&mut self, wanted: &str) -> Vec<String> {
        let mut told = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let Ok(length) = self.systemd.recv(&mut buffer) else {
                panic!("systemd was not told {wanted}, but {told:?}; the log:\n{}", self.log());
            };
            told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if told.last().is_some_and(|text| text.contains(wanted)) {
                return told;
            }
        }
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended; returns its exit code, or -1 if it was killed.
    pub fn end(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "the daemon does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        self.until_within(PATIENCE, what, is_so);
    }

    /// Waits for so long until something is so.
    #[track_caller]
    pub fn until_within(&self, patience: Duration, what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + patience;
        while !is_so() {
            assert!(Instant::now() < until, "{what}: that did not happen; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks it for something over its control socket.
    pub fn ask(&self, account: &Account, request: &str) -> serde_json::Value {
        let socket = account.config().parent().unwrap().join("postkeep/control.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Returns what it tells of the account.
    pub fn live(&self, account: &Account) -> serde_json::Value {
        self.ask(account, "{\"command\":\"status\"}")["accounts"][0].take()
    }

    /// Waits until the server tells it of changes, in all mailboxes or in as many as are watched.
    #[track_caller]
    pub fn watches(&self, account: &Account) {
        self.until("the watch", || watched(&self.live(account)) > 0);
    }

    /// Waits until it has nothing to do.
    #[track_caller]
    pub fn rest(&self, account: &Account) {
        let passes = || {
            let live = self.live(account);
            let rests = live["state"] == "watching" && live["waiting"] == 0;
            rests.then(|| live["total"]["passes"].as_u64().unwrap())
        };
        // That nothing follows is seen only by waiting for it.
        self.until("it rests", || {
            let before = passes();
            std::thread::sleep(Duration::from_millis(200));
            before.is_some() && passes() == before
        });
    }

    /// Waits until both sides are the same.
    #[track_caller]
    pub fn until_equal(&self, account: &Account, server: &Server) {
        let until = Instant::now() + PATIENCE;
        let mut looked = Instant::now();
        while account.differs(Remote::Sim(server)) && Instant::now() < until {
            // To look all the time would hold up what is waited for.
            std::thread::sleep(looked.elapsed().max(Duration::from_millis(5)));
            looked = Instant::now();
        }
        if account.differs(Remote::Sim(server)) {
            println!("{}", self.log());
        }
        account.assert_equal(Remote::Sim(server));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().unwrap();
        }
        self.child.wait().unwrap();
    }
}

/// Returns a server with an INBOX, and an account on it whose sweeps are so far apart that no test waits for one.
pub fn scene(profile: Profile, extra: &str) -> (Server, Account) {
    let server = Server::spawn(profile).unwrap();
    let account = Account::new(server.port(), "user", "secret", extra);
    (server, account)
}

/// What makes sweeps so rare that no test waits for one.
pub const NO_SWEEP: &str = "poll_interval = \"1h\"";

/// Returns a message.
pub fn message(subject: &str) -> Vec<u8> {
    format!("Subject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\n{subject}\r\n").into_bytes()
}

/// Returns of how many mailboxes the server tells a daemon, by what the status of its account says.
pub fn watched(live: &serde_json::Value) -> usize {
    if live["all_watched"] == true { usize::MAX } else { live["watched"].as_array().map_or(0, Vec::len) }
}
