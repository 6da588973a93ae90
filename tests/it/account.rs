//! An account of the real program in a temporary directory, and the comparison of both its sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use postkeep_sim::Server;

use crate::dovecot::{Dovecot, PASSWORD};
use crate::reader::{Mail, Reader, flags};

/// What a run of the program gave.
#[derive(Debug)]
pub struct Output {
    /// The exit code; -1 for a program that was killed.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The messages of each mailbox, by the names that users see, in a form that can be compared.
pub type Mailboxes = BTreeMap<String, Vec<Mail>>;

/// The server's side of an account, looked at past the program's own client.
#[derive(Clone, Copy)]
pub enum Remote<'a> {
    /// A simulated server.
    Sim(&'a Server),
    /// A user of a Dovecot.
    Dovecot {
        /// The server.
        server: &'a Dovecot,
        /// The user.
        user: &'a str,
        /// Its hierarchy separator.
        separator: char,
        /// The prefix of its personal namespace.
        prefix: &'a str,
    },
}

impl Remote<'_> {
    /// Returns what the server has, with UIDs, by the names that users see.
    pub fn mails(&self) -> BTreeMap<String, Vec<(u32, Mail)>> {
        match self {
            Self::Sim(server) => {
                let state = server.state();
                let selectable = state.mailboxes.iter().filter(|(_, m)| !m.no_select);
                let mails = |m: &postkeep_sim::Message| {
                    let flags = flags(m.flags.iter().map(String::as_str));
                    (m.uid, Mail { bytes: m.bytes.clone(), flags, date: m.internal_date })
                };
                selectable
                    .map(|(raw, mailbox)| {
                        let name = shown_name(raw, state.separator, &state.prefix);
                        (name, mailbox.messages.values().map(mails).collect())
                    })
                    .collect()
            }
            Self::Dovecot { server, user, separator, prefix } => {
                let mut reader: Reader = server.login(user);
                let names = reader.mailboxes();
                names.iter().map(|raw| (shown_name(raw, *separator, prefix), reader.mails(raw))).collect()
            }
        }
    }
}

/// Everything that a second run must leave as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Each message file with its inode, size and modification time in nanoseconds.
    files: BTreeMap<PathBuf, (u64, u64, i64)>,
    /// The server's messages with their UIDs.
    remote: BTreeMap<String, Vec<(u32, Mail)>>,
}

/// An account called `a` with its configuration, maildir and state.
pub struct Account {
    dir: tempfile::TempDir,
    /// Mailboxes lie as `.Lists.rust` in the root, which is the INBOX.
    plus_plus: bool,
}

impl Account {
    /// Makes an account on a simulated server.
    pub fn on_sim(server: &Server) -> Self {
        Self::new(server.port(), "user", "secret", "")
    }

    /// Makes an account for a user of a Dovecot.
    pub fn on_dovecot(server: &Dovecot, user: &str) -> Self {
        Self::new(server.port(), user, PASSWORD, "")
    }

    /// Makes an account on a port of 127.0.0.1; `extra` are more lines of its table in the configuration, and may open
    /// further tables.
    pub fn new(port: u16, user: &str, password: &str, extra: &str) -> Self {
        let account = Self { dir: scratch("postkeep"), plus_plus: extra.contains("maildir++") };
        let path = |name: &str| account.dir.path().join(name).display().to_string();
        let (password_file, maildir, state_dir) = (path("password"), path("mail"), path("state"));
        let config = format!(
            "[daemon]\nstate_dir = {state_dir:?}\n\n[account.a]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
             username = {user:?}\nemail = \"a@example.org\"\nauth = \"password\"\npassword_file = {password_file:?}\n\
             maildir = {maildir:?}\n{extra}\n"
        );
        fs::write(account.config(), config).unwrap();
        fs::write(&password_file, format!("{password}\n")).unwrap();
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600)).unwrap();
        account
    }

    /// Returns the configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// Returns the root of the maildirs.
    pub fn maildir(&self) -> PathBuf {
        self.dir.path().join("mail")
    }

    /// Returns the directory of a mailbox whose name can stand for itself.
    pub fn mailbox(&self, mailbox: &str) -> PathBuf {
        match (self.plus_plus, mailbox) {
            (false, _) => self.maildir().join(mailbox),
            (true, "INBOX") => self.maildir(),
            (true, _) => self.maildir().join(format!(".{}", mailbox.replace('/', "."))),
        }
    }

    /// Returns the mailbox of a maildir.
    fn mailbox_of(&self, dir: &Path) -> String {
        let below = dir.strip_prefix(self.maildir()).unwrap().to_str().unwrap();
        let name = match (self.plus_plus, below) {
            (false, _) => below.to_owned(),
            (true, "") => "INBOX".to_owned(),
            (true, _) => below.trim_start_matches('.').replace('.', "/"),
        };
        unescaped(&name)
    }

    /// Returns the directory of the databases and the graveyard.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Returns the program with this account's configuration and these arguments, ready to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep"));
        command.arg("--config").arg(self.config()).args(args);
        // Nothing of the user who runs the tests.
        command.env("HOME", self.dir.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command.env("XDG_RUNTIME_DIR", self.dir.path());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, &[])
    }

    /// Runs the program to its end with more environment, as `POSTKEEP_CRASH_AT`.
    pub fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let output = self.command(args).envs(environment.iter().copied()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Delivers a message to `new/` of a mailbox, as a delivery agent does; makes the maildir if there is none.
    pub fn deliver(&self, mailbox: &str, bytes: &[u8]) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let dir = self.mailbox(mailbox);
        ["cur", "new", "tmp"].iter().for_each(|d| fs::create_dir_all(dir.join(d)).unwrap());
        let name = format!("1700000000.M{}.test", COUNT.fetch_add(1, Ordering::Relaxed));
        let (tmp, new) = (dir.join("tmp").join(&name), dir.join("new").join(&name));
        fs::write(&tmp, bytes).unwrap();
        // One that was written this very moment would be waited for: it may still be growing.
        let a_while_ago = SystemTime::now() - Duration::from_secs(1);
        fs::File::options().write(true).open(&tmp).unwrap().set_modified(a_while_ago).unwrap();
        fs::rename(&tmp, &new).unwrap();
        new
    }

    /// Gives a message these info letters in `cur/`, as a mail reader does. Returns its new path.
    pub fn set_info(&self, path: &Path, letters: &str) -> PathBuf {
        let to = directory(path).join("cur").join(format!("{}:2,{letters}", unique(path)));
        fs::rename(path, &to).unwrap();
        to
    }

    /// Moves a message to another maildir, as a mail reader does: under the same name. Returns its new path.
    pub fn move_to(&self, path: &Path, mailbox: &str) -> PathBuf {
        let dir = self.mailbox(mailbox);
        ["cur", "new", "tmp"].iter().for_each(|d| fs::create_dir_all(dir.join(d)).unwrap());
        let to = dir.join("cur").join(path.file_name().unwrap());
        fs::rename(path, &to).unwrap();
        to
    }

    /// Gives a file the date of a message.
    pub fn set_date(&self, path: &Path, seconds: u64) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    /// Returns the message files of a mailbox, those in `new/` first.
    pub fn files(&self, mailbox: &str) -> Vec<PathBuf> {
        files_in(&self.mailbox(mailbox))
    }

    /// Returns the directories of all maildirs.
    fn maildirs(&self) -> Vec<PathBuf> {
        let (mut found, mut dirs) = (Vec::new(), vec![self.maildir()]);
        while let Some(dir) = dirs.pop() {
            dirs.extend(entries(&dir).into_iter().filter(|p| p.is_dir() && !is_maildir_part(p)));
            if dir.join("cur").is_dir() {
                found.push(dir);
            }
        }
        found
    }

    /// Returns the messages of every maildir. Bytes are as served.
    pub fn local(&self) -> Mailboxes {
        let mails = |dir: &PathBuf| {
            let keywords = keywords(dir);
            files_in(dir).iter().map(|path| read(path, &keywords)).collect()
        };
        self.maildirs().iter().map(|dir| (self.mailbox_of(dir), mails(dir))).collect()
    }

    /// Tells whether the two sides differ, also where a file comes or goes at this moment.
    pub fn differs(&self, remote: Remote<'_>) -> bool {
        let served = remote.mails().into_iter();
        let served: Mailboxes =
            served.map(|(name, mails)| (name, mails.into_iter().map(|(_, m)| m).collect())).collect();
        let local = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.local()));
        local.map_or(true, |local| !differences(&served, &local).is_empty())
    }

    /// Panics, naming the difference, unless both sides have the same mailboxes with the same messages, each as often.
    #[track_caller]
    pub fn assert_equal(&self, remote: Remote<'_>) {
        let served = remote.mails().into_iter();
        let served = served.map(|(name, mails)| (name, mails.into_iter().map(|(_, m)| m).collect())).collect();
        let differences = differences(&served, &self.local());
        assert!(differences.is_empty(), "the two sides differ:\n{}", differences.join("\n"));
    }

    /// Returns what a run that has nothing to do must leave as it is.
    pub fn snapshot(&self, remote: Remote<'_>) -> Snapshot {
        let mut files = BTreeMap::new();
        for dir in self.maildirs() {
            for path in files_in(&dir) {
                let meta = fs::metadata(&path).unwrap();
                files.insert(path, (meta.ino(), meta.len(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec()));
            }
        }
        Snapshot { files, remote: remote.mails() }
    }
}

/// Returns how the sides differ, a line for each message; empty if they do not.
fn differences(remote: &Mailboxes, local: &Mailboxes) -> Vec<String> {
    let mut out = Vec::new();
    let names: BTreeSet<&String> = remote.keys().chain(local.keys()).collect();
    for name in names {
        if !remote.contains_key(name) || !local.contains_key(name) {
            let (side, other) = if remote.contains_key(name) { ("server", "maildir") } else { ("maildir", "server") };
            out.push(format!("{name}: on the {side} only, not on the {other}"));
        }
        let mut left: Vec<&Mail> = local.get(name).into_iter().flatten().collect();
        for mail in remote.get(name).into_iter().flatten() {
            match left.iter().position(|m| *m == mail) {
                Some(i) => drop(left.swap_remove(i)),
                None => out.push(format!("{name}: on the server only: {}", brief(mail))),
            }
        }
        out.extend(left.into_iter().map(|mail| format!("{name}: in the maildir only: {}", brief(mail))));
    }
    out
}

fn brief(mail: &Mail) -> String {
    let start = String::from_utf8_lossy(&mail.bytes[..mail.bytes.len().min(60)]).into_owned();
    format!("{start:?} ({} bytes) {:?} {}", mail.bytes.len(), mail.flags, mail.date)
}

/// Returns a fresh directory; in memory where that is possible, since what these tests do to a disk is mostly to wait for
/// it.
pub fn scratch(prefix: &str) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    builder.tempdir_in(memory).or_else(|_| builder.tempdir()).unwrap()
}

/// Returns the bytes that a server served or will serve for a file with these: those of a file without CR are lines
/// that end with CRLF; a CR at the very end and nowhere else only says that the LFs are bare.
pub fn served(file: &[u8]) -> Vec<u8> {
    if !file.contains(&b'\r') {
        return file.split(|&b| b == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    }
    match file.iter().rposition(|b| *b != b'\r') {
        Some(last) if file.contains(&b'\n') && !file[..last].contains(&b'\r') => file[..file.len() - 1].to_vec(),
        _ => file.to_vec(),
    }
}

fn read(path: &Path, keywords: &BTreeMap<u8, String>) -> Mail {
    let name = path.file_name().unwrap().to_str().unwrap();
    let letters = name.split_once(":2,").map_or("", |(_, letters)| letters);
    let flag = |letter: u8| match letter {
        b'D' => "\\Draft",
        b'F' => "\\Flagged",
        b'P' => "$Forwarded",
        b'R' => "\\Answered",
        b'S' => "\\Seen",
        b'T' => "\\Deleted",
        _ => keywords.get(&letter).map_or("unknown-letter", String::as_str),
    };
    let date = fs::metadata(path).unwrap().mtime();
    Mail { bytes: served(&fs::read(path).unwrap()), flags: flags(letters.bytes().map(flag)), date }
}

/// Reads `dovecot-keywords`: lines of an index, a space and a keyword; 0 is the letter `a`.
fn keywords(dir: &Path) -> BTreeMap<u8, String> {
    let text = fs::read_to_string(dir.join("dovecot-keywords")).unwrap_or_default();
    let line = |line: &str| {
        let (index, word) = line.split_once(' ')?;
        Some((b'a' + index.parse::<u8>().ok().filter(|i| *i < 26)?, word.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(dir) else { return Vec::new() };
    found.map(|e| e.unwrap().path()).collect()
}

/// Returns the message files of a maildir, those in `new/` first.
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for place in ["new", "cur"] {
        let mut found: Vec<PathBuf> = entries(&dir.join(place));
        found.sort();
        files.extend(found.into_iter().filter(|p| !p.file_name().unwrap().as_encoded_bytes().starts_with(b".")));
    }
    files
}

/// Decodes what stands as `%XX` in the name of a directory; a slash inside a component stays `%2F`.
fn unescaped(name: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), name.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code.filter(|code| first == b'%' && *code != b'/') {
            Some(code) => (out.push(code), rest = &tail[2..]).1,
            None => (out.push(first), rest = tail).1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_maildir_part(path: &Path) -> bool {
    ["cur", "new", "tmp"].iter().any(|d| path.file_name().is_some_and(|n| n == *d))
}

fn directory(path: &Path) -> &Path {
    path.parent().and_then(Path::parent).unwrap()
}

fn unique(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.split(':').next().unwrap_or(name).to_owned()
}

/// Returns the name that users see for a server's name: decoded, without the prefix, with `/` between components.
fn shown_name(raw: &str, separator: char, prefix: &str) -> String {
    let bare = raw.strip_prefix(prefix).unwrap_or(raw);
    let parts = bare.split(separator).map(|part| decoded(part).replace('/', "%2F"));
    parts.collect::<Vec<_>>().join("/")
}

/// Decodes modified UTF-7 (RFC 3501 §5.1.3).
fn decoded(name: &str) -> String {
    let (mut out, mut rest) = (String::new(), name);
    while let Some((plain, shifted)) = rest.split_once('&') {
        let (code, tail) = shifted.split_once('-').unwrap();
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(code.replace(',', "/")).unwrap();
        let units: Vec<u16> = bytes.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect();
        out += plain;
        out += if code.is_empty() { "&".to_owned() } else { String::from_utf16(&units).unwrap() }.as_str();
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dovecot::Profile;

    #[test]
    fn names_are_shown_as_users_see_them() {
        assert_eq!(shown_name("INBOX.Entw&APw-rfe.a/b", '.', "INBOX."), "Entwürfe/a%2Fb");
        assert_eq!(shown_name("A &- B/&2D3cqQ-", '/', ""), "A & B/💩");
    }

    #[test]
    fn the_program_is_started_with_the_account() {
        let server = Server::spawn(postkeep_sim::Profile::Full).unwrap();
        let account = Account::on_sim(&server);
        let output = account.run(&["--version"]);
        assert_ne!(output.code, -1, "{} {}", output.stdout, output.stderr);
        assert_eq!(fs::metadata(account.dir.path().join("password")).unwrap().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(account.config()).unwrap().contains(&format!("port = {}", server.port())));
        assert!(!account.state_dir().join("nothing").exists());
    }

    #[test]
    fn a_difference_is_named() {
        let server = Server::spawn(postkeep_sim::Profile::Full).unwrap();
        let account = Account::on_sim(&server);
        let remote = Remote::Sim(&server);
        for mailbox in ["INBOX", "Lists/rust"] {
            server.state().create(mailbox);
            server.state().append(mailbox, b"a\r\nb\r\n", &["\\Seen", "$Forwarded", "Work"], 1000);
            let path = account.deliver(mailbox, b"a\nb\n");
            account.set_date(&path, 1000);
            let dir = account.maildir().join(mailbox);
            fs::write(dir.join("dovecot-keywords"), "0 other\n1 work\n").unwrap();
            account.set_info(&path, "PSb");
        }
        account.assert_equal(remote);
        let before = account.snapshot(remote);
        assert_eq!(account.snapshot(remote), before);

        let path = account.files("INBOX").remove(0);
        let moved = account.move_to(&path, "Lists/rust");
        assert_ne!(account.snapshot(remote), before);
        let differences = |account: &Account| {
            let served = remote.mails().into_iter();
            let served = served.map(|(n, mails)| (n, mails.into_iter().map(|(_, m)| m).collect())).collect();
            differences(&served, &account.local())
        };
        let found = differences(&account);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("INBOX: on the server only: \"a\\r\\nb\\r\\n\" (6 bytes)"), "{found:?}");
        let back = account.move_to(&moved, "INBOX");
        assert_eq!(differences(&account), Vec::<String>::new());
        let more_flags = account.set_info(&back, "FPSb");
        assert_eq!(differences(&account).len(), 2);
        account.set_info(&more_flags, "PSb");
        server.state().append("INBOX", b"a\r\nb\r\n", &["\\Seen", "$Forwarded", "Work"], 1000);
        assert_eq!(differences(&account).len(), 1, "a message twice is not a message once");
        server.state().create("Empty");
        assert_eq!(differences(&account).len(), 2);
    }

    #[test]
    fn a_dovecot_is_compared_as_well() {
        let dovecot = Dovecot::start(Profile::Full);
        let account = Account::on_dovecot(&dovecot, "u");
        let remote = Remote::Dovecot { server: &dovecot, user: "u", separator: '/', prefix: "" };
        dovecot.login("u").append("INBOX", "\\Seen", "01-Jan-1970 00:16:40 +0000", b"a: b\r\n\r\nc\r\n");
        let path = account.deliver("INBOX", b"a: b\n\nc\n");
        account.set_date(&path, 1000);
        account.set_info(&path, "S");
        account.assert_equal(remote);
        assert_eq!(account.snapshot(remote), account.snapshot(remote));
    }
}
