//! A terminal of its own for a program, and who sits at it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty;

/// How long something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a terminal; returns our end of it and the one for a program.
pub fn open() -> (File, File) {
    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    let path = pty::ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32)
        .open(OsStr::from_bytes(path.as_bytes()))
        .unwrap();
    (File::from(ours), theirs)
}

/// A program on a terminal, and who reads and types there.
pub struct Talk {
    child: Child,
    keys: File,
    screen: Receiver<String>,
    /// All that was shown.
    pub shown: String,
    /// How much of it was waited for.
    read: usize,
}

impl Talk {
    /// Starts a program.
    pub fn start(mut command: Command) -> Self {
        let (ours, theirs) = open();
        let other = || theirs.try_clone().unwrap();
        let child = command.stdin(other()).stdout(other()).stderr(other()).spawn().unwrap();
        // The terminal ends when nobody has it open any more.
        drop((command, theirs));
        let (sender, screen) = channel();
        let mut reader = ours.try_clone().unwrap();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut piece) {
                let _ = sender.send(String::from_utf8_lossy(&piece[..length]).replace('\r', ""));
            }
        });
        Self { child, keys: ours, screen, shown: String::new(), read: 0 }
    }

    /// Waits until these words are shown, and returns what came before them since the last ones.
    #[track_caller]
    pub fn expect(&mut self, words: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let new = &self.shown[self.read..];
            if let Some(at) = new.find(words) {
                let before = new[..at].to_owned();
                self.read += at + words.len();
                return before;
            }
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(piece) => self.shown += &piece,
                Err(error) => panic!("{error} while {words:?} was waited for:\n{}", self.shown),
            }
        }
    }

    /// Waits for a question, and answers it with a line.
    #[track_caller]
    pub fn answer(&mut self, question: &str, line: &str) {
        self.expect(question);
        self.keys.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns the exit code.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        // Until the terminal has ended too.
        self.shown.extend(self.screen.iter());
        code
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
