//! One suite over every kind of server: somebody acts on one side or on both, the program mirrors, and the sides are
//! compared by what they really have.
//!
//! Here is the stage: a [`World`] is an account with a server on which another client acts. The rows are in `mirror_*`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use postkeep_sim::{Command, Server};

use crate::account::{Account, Output, Remote, Snapshot, served};
use crate::dovecot::{self, Dovecot, PASSWORD};
use crate::reader::{Mail, Reader};

/// A kind of server.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A simulated one.
    Sim(postkeep_sim::Profile),
    /// A real one.
    Dovecot(dovecot::Options),
}

/// A server, or the recipe for one: a simulated server has one user only, so each world gets its own.
pub enum Host {
    /// A simulated server of this profile.
    Sim(postkeep_sim::Profile),
    /// A Dovecot, shared by worlds one after the other.
    Dovecot(Box<Dovecot>, dovecot::Options, Cell<u32>),
}

/// Runs rows over every kind of server.
pub fn everywhere(rows: impl Fn(&Host)) {
    on_sims(&rows);
    on_dovecots(&rows);
}

/// Runs rows over the simulated servers.
pub fn on_sims(rows: impl Fn(&Host)) {
    for profile in postkeep_sim::Profile::ALL {
        rows(&Host::start(Kind::Sim(profile)));
    }
}

/// Runs rows over real servers.
pub fn on_dovecots(rows: impl Fn(&Host)) {
    for profile in dovecot::Profile::ALL {
        rows(&Host::start(Kind::Dovecot(profile.into())));
    }
}

impl Host {
    /// Starts a server.
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::Sim(profile) => Self::Sim(profile),
            Kind::Dovecot(options) => Self::Dovecot(Box::new(Dovecot::start(options)), options, Cell::new(0)),
        }
    }

    /// Tells whether the server announces UIDPLUS, MOVE or SPECIAL-USE.
    pub fn has(&self, capability: &str) -> bool {
        match self {
            Self::Sim(profile) => profile.has(capability),
            Self::Dovecot(_, options, _) => {
                capability == "SPECIAL-USE" || options.profile != dovecot::Profile::NoUidplus
            }
        }
    }

    /// Returns a fresh account with an empty INBOX; `extra` as for [`Account::new`].
    pub fn world(&self, extra: &str) -> World<'_> {
        let extra = format!("append_retry_after = \"1s\"\n{extra}");
        let (there, account, separator, prefix) = match self {
            Self::Sim(profile) => {
                eprintln!("on the simulated server, {profile:?}");
                let server = Server::spawn(*profile).unwrap();
                let account = Account::new(server.port(), "user", "secret", &extra);
                (There::Sim(server), account, '/', "")
            }
            Self::Dovecot(server, options, users) => {
                users.set(users.get() + 1);
                let user = format!("u{}", users.get());
                eprintln!("on Dovecot, {options:?}, user {user}");
                let account = Account::new(server.port(), &user, PASSWORD, &extra);
                (There::Dovecot(server, user), account, options.separator, options.prefix)
            }
        };
        let world = World {
            there,
            account,
            separator,
            prefix,
            seen: Cell::new(0),
            known: RefCell::default(),
            wanted_gone: RefCell::default(),
        };
        world.log_begins();
        world
    }
}

enum There<'h> {
    Sim(Server),
    Dovecot(&'h Dovecot, String),
}

/// An account and its server, on which another client acts. Mailboxes are called as users see them, messages by their
/// subject.
pub struct World<'h> {
    there: There<'h>,
    /// The account.
    pub account: Account,
    separator: char,
    prefix: &'static str,
    /// How many commands the log had when the last run began.
    seen: Cell<usize>,
    /// Every content that either side ever had.
    known: RefCell<BTreeSet<Vec<u8>>>,
    /// Contents that the user deleted on both sides.
    wanted_gone: RefCell<BTreeSet<Vec<u8>>>,
}

/// Returns a message.
pub fn message(subject: &str) -> Vec<u8> {
    format!(
        "From: a@example.org\r\nSubject: {subject}\r\nMessage-ID: <{}@example.org>\r\n\r\nThis is {subject}.\r\n",
        subject.replace(' ', "-")
    )
    .into_bytes()
}

/// Returns the message as a mail reader writes it into a file.
pub fn text(subject: &str) -> Vec<u8> {
    message(subject).into_iter().filter(|b| *b != b'\r').collect()
}

fn is_about(bytes: &[u8], subject: &str) -> bool {
    let line = format!("Subject: {subject}");
    bytes.split(|b| *b == b'\n').any(|l| l.strip_suffix(b"\r").unwrap_or(l) == line.as_bytes())
}

// What the other client does.
impl World<'_> {
    /// Returns the server's side.
    pub fn remote(&self) -> Remote<'_> {
        match &self.there {
            There::Sim(server) => Remote::Sim(server),
            There::Dovecot(server, user) => {
                Remote::Dovecot { server, user, separator: self.separator, prefix: self.prefix }
            }
        }
    }

    /// Gives the simulated server another separator and a prefix before the names of mailboxes.
    pub fn with_hierarchy(mut self, separator: char, prefix: &'static str) -> Self {
        (self.separator, self.prefix) = (separator, prefix);
        {
            let mut state = self.sim().state();
            (state.separator, state.prefix) = (separator, prefix.to_owned());
        }
        self
    }

    /// Returns the simulated server, where a row is for it alone.
    pub fn sim(&self) -> &Server {
        match &self.there {
            There::Sim(server) => server,
            There::Dovecot(..) => panic!("this is no simulation"),
        }
    }

    /// Returns the Dovecot and its user, where a row is for it alone.
    pub fn dovecot(&self) -> (&Dovecot, &str) {
        match &self.there {
            There::Sim(_) => panic!("this is a simulation"),
            There::Dovecot(server, user) => (server, user),
        }
    }

    /// Returns the server's name of a mailbox.
    pub fn raw(&self, mailbox: &str) -> String {
        let encoded: Vec<String> = mailbox.split('/').map(encode).collect();
        let name = encoded.join(&self.separator.to_string());
        if mailbox == "INBOX" { name } else { format!("{}{name}", self.prefix) }
    }

    fn reader(&self) -> Reader {
        let (server, user) = self.dovecot();
        server.login(user)
    }

    /// Returns the UIDs of the messages about `subject`.
    pub fn uids(&self, mailbox: &str, subject: &str) -> Vec<u32> {
        let mails = self.remote().mails().remove(mailbox).unwrap_or_default();
        mails.into_iter().filter(|(_, mail)| is_about(&mail.bytes, subject)).map(|(uid, _)| uid).collect()
    }

    #[track_caller]
    fn uid(&self, mailbox: &str, subject: &str) -> u32 {
        *self.uids(mailbox, subject).first().unwrap_or_else(|| panic!("{mailbox} of the server has no {subject}"))
    }

    /// Puts a message there.
    #[track_caller]
    pub fn append(&self, mailbox: &str, subject: &str, flags: &[&str], date: i64) {
        self.append_bytes(mailbox, &message(subject), flags, date);
    }

    /// Puts these bytes there as a message.
    #[track_caller]
    pub fn append_bytes(&self, mailbox: &str, bytes: &[u8], flags: &[&str], date: i64) {
        let raw = self.raw(mailbox);
        match &self.there {
            There::Sim(server) => {
                server.state().append(&raw, bytes, flags, date);
            }
            There::Dovecot(..) => {
                let when = jiff::Timestamp::from_second(date).unwrap().strftime("%d-%b-%Y %H:%M:%S +0000").to_string();
                self.reader().append(&raw, &flags.join(" "), &when, bytes);
            }
        }
    }

    /// Changes flags there; `changes` as `+\Seen -Work`.
    #[track_caller]
    pub fn flag(&self, mailbox: &str, subject: &str, changes: &str) {
        let (raw, uid) = (self.raw(mailbox), self.uid(mailbox, subject));
        match &self.there {
            There::Sim(server) => {
                let mut state = server.state();
                let mut flags = state.mailbox(&raw).messages[&uid].flags.clone();
                for change in changes.split(' ') {
                    match change.split_at(1) {
                        ("+", flag) => drop(flags.insert(flag.to_owned())),
                        (_, flag) => flags.retain(|f| !f.eq_ignore_ascii_case(flag)),
                    }
                }
                state.set_flags(&raw, uid, &flags.iter().map(String::as_str).collect::<Vec<_>>());
            }
            There::Dovecot(..) => {
                let mut reader = self.reader();
                reader.ok(&format!("SELECT \"{raw}\""));
                for change in changes.split(' ') {
                    let (sign, flag) = change.split_at(1);
                    reader.ok(&format!("UID STORE {uid} {sign}FLAGS ({flag})"));
                }
            }
        }
    }

    /// Removes a message there for good.
    #[track_caller]
    pub fn expunge(&self, mailbox: &str, subject: &str) {
        let (raw, uid) = (self.raw(mailbox), self.uid(mailbox, subject));
        match &self.there {
            There::Sim(server) => server.state().expunge(&raw, uid),
            There::Dovecot(..) => {
                let mut reader = self.reader();
                reader.ok(&format!("SELECT \"{raw}\""));
                reader.ok(&format!("UID STORE {uid} +FLAGS (\\Deleted)"));
                reader.ok(&format!("UID EXPUNGE {uid}"));
            }
        }
    }

    /// Moves a message there.
    #[track_caller]
    pub fn move_there(&self, from: &str, subject: &str, to: &str) {
        let (raw, target, uid) = (self.raw(from), self.raw(to), self.uid(from, subject));
        match &self.there {
            There::Sim(server) => {
                server.state().move_message(&raw, uid, &target);
            }
            There::Dovecot(..) => {
                let mut reader = self.reader();
                reader.ok(&format!("SELECT \"{raw}\""));
                reader.ok(&format!("UID MOVE {uid} \"{target}\""));
            }
        }
    }

    /// Creates a mailbox there.
    #[track_caller]
    pub fn create(&self, mailbox: &str) {
        let raw = self.raw(mailbox);
        match &self.there {
            There::Sim(server) => server.state().create(&raw),
            There::Dovecot(..) => drop(self.reader().ok(&format!("CREATE \"{raw}\""))),
        }
    }

    /// Creates the mailbox for what is thrown away, which says so itself.
    pub fn create_trash(&self) {
        self.create("Trash");
        if let There::Sim(server) = &self.there {
            server.state().mailbox_mut("Trash").special_use = Some("\\Trash".to_owned());
        }
    }

    /// Renames a mailbox there, with all below it.
    #[track_caller]
    pub fn rename(&self, from: &str, to: &str) {
        let (from, to) = (self.raw(from), self.raw(to));
        match &self.there {
            There::Sim(server) => server.state().rename(&from, &to),
            There::Dovecot(..) => drop(self.reader().ok(&format!("RENAME \"{from}\" \"{to}\""))),
        }
    }

    /// Deletes a mailbox there.
    #[track_caller]
    pub fn delete(&self, mailbox: &str) {
        let raw = self.raw(mailbox);
        match &self.there {
            There::Sim(server) => server.state().delete(&raw),
            There::Dovecot(..) => drop(self.reader().ok(&format!("DELETE \"{raw}\""))),
        }
    }

    /// Gives a mailbox another UIDVALIDITY.
    pub fn renumber(&self, mailbox: &str) {
        let raw = self.raw(mailbox);
        match &self.there {
            There::Sim(server) => server.state().set_uid_validity(&raw, 1_800_000_000),
            There::Dovecot(server, user) => {
                server.doveadm(&["mailbox", "update", "-u", user, "--uid-validity", "1800000000", &raw]);
            }
        }
    }
}

// What the user does here, as mail readers do it.
impl World<'_> {
    /// Returns the files about `subject`.
    pub fn files(&self, mailbox: &str, subject: &str) -> Vec<PathBuf> {
        let about = |path: &PathBuf| is_about(&fs::read(path).unwrap(), subject);
        self.account.files(mailbox).into_iter().filter(about).collect()
    }

    /// Returns the file about `subject`.
    #[track_caller]
    pub fn file(&self, mailbox: &str, subject: &str) -> PathBuf {
        self.files(mailbox, subject).into_iter().next().unwrap_or_else(|| panic!("{mailbox} here has no {subject}"))
    }

    /// Delivers a message to `new/` with this date.
    pub fn deliver(&self, mailbox: &str, subject: &str, date: u64) -> PathBuf {
        let path = self.account.deliver(mailbox, &text(subject));
        self.account.set_date(&path, date);
        path
    }

    /// Gives a message these letters.
    #[track_caller]
    pub fn mark(&self, mailbox: &str, subject: &str, letters: &str) -> PathBuf {
        self.account.set_info(&self.file(mailbox, subject), letters)
    }

    /// Deletes a file.
    #[track_caller]
    pub fn delete_here(&self, mailbox: &str, subject: &str) {
        fs::remove_file(self.file(mailbox, subject)).unwrap();
    }

    /// Moves a file under its name.
    #[track_caller]
    pub fn move_here(&self, from: &str, subject: &str, to: &str) -> PathBuf {
        self.account.move_to(&self.file(from, subject), to)
    }

    /// Says that the user deleted a message on both sides.
    pub fn is_meant_to_vanish(&self, subject: &str) {
        self.wanted_gone.borrow_mut().insert(message(subject));
    }
}

// What the program does, and what must hold whatever it does.
impl World<'_> {
    fn all_commands(&self) -> Vec<Command> {
        match &self.there {
            There::Sim(server) => server.commands(),
            There::Dovecot(server, _) => server.proxy.commands(),
        }
    }

    fn log_begins(&self) {
        self.seen.set(self.all_commands().len());
    }

    /// Returns the commands since the last run began.
    pub fn log(&self) -> Vec<Command> {
        self.all_commands().split_off(self.seen.get())
    }

    /// Returns the names of the commands of the last run that can change the server.
    pub fn changes(&self) -> Vec<String> {
        self.log().into_iter().filter(Command::changes).map(|c| c.name).collect()
    }

    /// Tells whether the last run fetched a body.
    pub fn fetched_bodies(&self) -> bool {
        self.log().iter().any(|c| c.name == "UID FETCH" && c.args.contains("BODY.PEEK[]"))
    }

    /// Panics if the last run transferred a message in either direction.
    #[track_caller]
    pub fn assert_no_transfer(&self) {
        let log = self.log();
        let transfers = |c: &&Command| c.name == "APPEND" || c.args.contains("BODY.PEEK[]");
        let found: Vec<String> = log.iter().filter(transfers).map(ToString::to_string).collect();
        assert!(found.is_empty(), "transferred: {found:?}");
    }

    /// Runs the program; what must hold after any run is checked.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        let known = self.contents();
        self.known.borrow_mut().extend(known);
        self.log_begins();
        let output = self.account.run(args);
        self.assert_nothing_wrong(&output);
        output
    }

    /// Makes a pass that must end with this code.
    #[track_caller]
    pub fn sync(&self, code: i32) -> Output {
        let output = self.run(&["sync"]);
        assert_eq!(output.code, code, "{}{}", output.stdout, output.stderr);
        output
    }

    /// Makes a pass, after which both sides must be the same and a further one must find nothing to do.
    #[track_caller]
    pub fn mirror(&self) {
        self.sync(0);
        self.assert_mirrored();
    }

    /// Panics unless both sides are the same, and a pass finds nothing to do. Leaves the log of the pass before.
    #[track_caller]
    pub fn assert_mirrored(&self) {
        self.account.assert_equal(self.remote());
        self.assert_at_rest(0);
    }

    /// Panics if a pass changes anything on either side. Leaves the log of the pass before.
    #[track_caller]
    pub fn assert_at_rest(&self, code: i32) {
        let (before, began) = (self.snapshot(), self.seen.get());
        let output = self.sync(code);
        let changes = self.changes();
        assert!(changes.is_empty(), "a pass with nothing to do sent {changes:?}\n{}", output.stderr);
        assert!(!self.fetched_bodies(), "a pass with nothing to do fetched {:?}", self.log());
        assert_eq!(self.snapshot(), before, "a pass with nothing to do changed something");
        self.seen.set(began);
    }

    /// Returns what a run that has nothing to do leaves as it is.
    pub fn snapshot(&self) -> Snapshot {
        self.account.snapshot(self.remote())
    }

    /// Returns every content that is on either side.
    fn contents(&self) -> BTreeSet<Vec<u8>> {
        let there = self.remote().mails().into_values().flatten().map(|(_, mail)| mail);
        let here = self.account.local().into_values().flatten();
        there.chain(here).map(|mail| mail.bytes).collect()
    }

    /// Returns the contents of the graveyard.
    pub fn graveyard(&self) -> Vec<Vec<u8>> {
        let (mut files, mut dirs) = (Vec::new(), vec![self.account.state_dir().join("graveyard")]);
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { files.push(served(&fs::read(path).unwrap())) }
            }
        }
        files
    }

    /// Tells whether the graveyard has a message about `subject`.
    pub fn is_buried(&self, subject: &str) -> bool {
        self.graveyard().iter().any(|bytes| is_about(bytes, subject))
    }

    #[track_caller]
    fn assert_nothing_wrong(&self, output: &Output) {
        let log = self.log();
        let dangers: Vec<String> =
            log.iter().filter_map(|c| c.danger().map(|danger| format!("{c}: {danger}"))).collect();
        assert!(dangers.is_empty(), "{dangers:?}");
        let wrong = match &self.there {
            There::Sim(server) => server.violations(),
            There::Dovecot(server, _) => server.proxy.refused(),
        };
        assert!(wrong.is_empty(), "{wrong:?}");
        let mut left = self.contents();
        left.extend(self.graveyard());
        left.extend(self.wanted_gone.borrow().iter().cloned());
        let known = self.known.borrow();
        let lost: Vec<String> = known.difference(&left).map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        assert!(lost.is_empty(), "lost {lost:?}\n{}{}", output.stdout, output.stderr);
    }

    /// Returns the subjects in each mailbox of the server, as one line of text: `INBOX: a b; Work: c`.
    pub fn listing(&self) -> String {
        let mut lines = Vec::new();
        for (name, mails) in self.remote().mails() {
            let mut subjects: Vec<String> = mails.iter().map(|(_, mail)| subject(&mail.bytes)).collect();
            subjects.sort();
            lines.push(format!("{name}: {}", subjects.join(" ")).trim_end().to_owned());
        }
        lines.join("; ")
    }

    /// Returns the flags of each message of a mailbox of the server, by subject.
    pub fn flags(&self, mailbox: &str) -> BTreeMap<String, String> {
        let mails = self.remote().mails().remove(mailbox).unwrap_or_default();
        let words = |mail: &Mail| mail.flags.iter().cloned().collect::<Vec<_>>().join(" ");
        mails.iter().map(|(_, mail)| (subject(&mail.bytes), words(mail))).collect()
    }
}

fn subject(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or("-").to_owned()
}

/// Encodes as modified UTF-7 (RFC 3501 §5.1.3).
fn encode(name: &str) -> String {
    let (mut out, mut shifted) = (String::new(), Vec::new());
    let flush = |out: &mut String, shifted: &mut Vec<u8>| {
        if !shifted.is_empty() {
            let code = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&*shifted);
            *out += &format!("&{}-", code.replace('/', ","));
            shifted.clear();
        }
    };
    for c in name.chars() {
        if (' '..='~').contains(&c) {
            flush(&mut out, &mut shifted);
            out += if c == '&' { "&-".to_owned() } else { c.to_string() }.as_str();
        } else {
            shifted.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut out, &mut shifted);
    out
}

/// Returns the directory `cur` or `new` that a file is in.
pub fn place(path: &Path) -> &str {
    path.parent().and_then(|p| p.file_name()).and_then(|n| n.to_str()).unwrap()
}

/// Returns the letters of a file.
pub fn letters(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap().split_once(":2,").map_or("", |(_, letters)| letters)
}
