//! What `postkeep check` makes of what it found: one line for each thing, and what to do about it. Pure: no I/O, no clock.

use std::path::Path;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Exit;
use super::output::{grouped, many, size};
use crate::imap::{Capabilities, Habit, Quirks};

/// How good or bad something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Mark {
    /// It is as it should be.
    Ok,
    /// It works, but there is something to know.
    Note,
    /// `sync` would end like this, or somebody else could make it do what the user does not want.
    Problem(Exit),
}

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

impl Mark {
    /// Returns the mark as a word of six characters or more.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem(_) => "problem",
        }
    }

    /// Returns how the program ends if this is the worst.
    pub(super) const fn exit(self) -> Exit {
        match self {
            Self::Ok | Self::Note => Exit::Done,
            Self::Problem(exit) => exit,
        }
    }
}

/// What was found about one thing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// What it is about: a word that scripts may depend on.
    pub(super) topic: &'static str,
    pub(super) mark: Mark,
    /// A sentence without its full stop.
    pub(super) text: String,
    /// What to do, where there is something to do.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(topic: &'static str, text: impl Into<String>) -> Self {
        Self { topic, mark: Mark::Ok, text: text.into(), advice: None }
    }

    pub(super) fn note(topic: &'static str, text: impl Into<String>) -> Self {
        Self { mark: Mark::Note, ..Self::ok(topic, text) }
    }

    pub(super) fn problem(topic: &'static str, exit: Exit, text: impl Into<String>) -> Self {
        Self { mark: Mark::Problem(exit), ..Self::ok(topic, text) }
    }

    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Whose a file or directory is, and who may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access {
    /// It belongs to the user who runs this.
    pub(super) ours: bool,
    /// Its permission bits.
    pub(super) mode: u32,
}

/// Others may write.
const WRITABLE: u32 = 0o022;
/// Others may do anything.
const OPEN: u32 = 0o077;

/// The configuration names programs that are started: whoever can change it can start them.
pub(super) fn configuration(path: &Path, access: Access, accounts: usize) -> Finding {
    let (path, accounts) = (path.display(), many(accounts as u64, "account"));
    if access.mode & WRITABLE != 0 {
        let text = format!("{path} can be changed by others (mode {:04o}), and names programs to start", access.mode);
        return Finding::problem("configuration", Exit::Usage, text).advise(format!("run: chmod 600 {path}"));
    }
    if !access.ours {
        return Finding::note(
            "configuration",
            format!("{path}: {accounts}; it belongs to another user, who can change it"),
        );
    }
    Finding::ok("configuration", format!("{path}: {accounts}"))
}

/// `access` is none where there is no such directory yet.
pub(super) fn state_dir(path: &Path, access: Option<Access>, open_files: &[(String, u32)]) -> Finding {
    let path = path.display();
    let Some(access) = access else {
        return Finding::ok("state", format!("{path} is not there yet; the first login or sync makes it"));
    };
    if !access.ours || access.mode & WRITABLE != 0 {
        let text = format!("{path} must be yours, and not writable by others (mode {:04o})", access.mode);
        return Finding::problem("state", Exit::Usage, text).advise(format!("run: chmod go-w {path}"));
    }
    if let Some((file, mode)) = open_files.first() {
        let text = format!("{path}/{file} can be read or changed by others (mode {mode:04o})");
        let advice = format!("if nobody has, run: chmod 600 {path}/{file}");
        // A sign-in that others can read is refused; a database is made private when it is opened.
        let is_secret = file.ends_with(".token");
        let finding = Finding::note("state", text);
        let mark = if is_secret { Mark::Problem(Exit::SignIn) } else { finding.mark };
        return Finding { mark, ..finding }.advise(advice);
    }
    Finding::ok("state", format!("{path} is for you alone to write to"))
}

/// Tells of the root's directory, which is there.
pub(super) fn root(path: &Path, access: Access, writable: bool) -> Finding {
    let path = path.display();
    if !writable {
        return Finding::problem("maildir", Exit::Held, format!("{path} cannot be written to"))
            .advise("see whose it is, and whether its file system is mounted read-only");
    }
    if access.mode & OPEN != 0 {
        let text =
            format!("{path} is the account's; others on this machine may look into it (mode {:04o})", access.mode);
        return Finding::note("maildir", text).advise(format!("if they should not, run: chmod 700 {path}"));
    }
    Finding::ok("maildir", format!("{path} is the account's, and for you alone"))
}

/// What a disk has left: bytes, and files where it counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Left {
    pub(super) bytes: u64,
    pub(super) files: Option<u64>,
}

/// With less than this nothing is delivered any more before long.
const LITTLE: u64 = 1_000_000_000;
const FEW_FILES: u64 = 100_000;
/// With less than this not even the database can be written.
const NOTHING: u64 = 1_000_000;

pub(super) fn disk(path: &Path, left: Left) -> Finding {
    let files = left.files.map(|files| format!(" and room for {} files", grouped(files))).unwrap_or_default();
    let text = format!("{} left at {}{files}", size(left.bytes), path.display());
    let advice = "make room: without it no message is delivered; nothing is lost by that";
    if left.bytes < NOTHING || left.files == Some(0) {
        return Finding::problem("disk", Exit::Partial, text).advise(advice);
    }
    if left.bytes < LITTLE || left.files.is_some_and(|files| files < FEW_FILES) {
        return Finding::note("disk", text).advise(advice);
    }
    Finding::ok("disk", text)
}

/// What kind of file system mail lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileSystem {
    /// The number that statfs(2) gives the kind.
    pub(super) kind: u64,
    /// The longest name of a file, in bytes.
    pub(super) longest_name: u64,
    /// It takes upper and lower case for the same; none where that is not known.
    pub(super) ignores_case: Option<bool>,
}

/// What is known of a kind of file system.
enum Kind {
    /// Renames without replacing.
    Local(&'static str),
    /// Does so by a link that refuses to replace.
    ByLink(&'static str),
    /// Has no file names with a colon in them, in which Maildir keeps flags.
    NoColons(&'static str),
    Unknown,
}

/// Returns what is known of a kind, by its number in statfs(2).
const fn kind(number: u64) -> Kind {
    match number {
        0xef53 => Kind::Local("ext4"),
        0x9123_683e => Kind::Local("btrfs"),
        0x5846_5342 => Kind::Local("XFS"),
        0x0102_1994 => Kind::Local("tmpfs"),
        0x794c_7630 => Kind::Local("overlayfs"),
        0xf2f5_2010 => Kind::Local("F2FS"),
        0xca45_1a4e => Kind::Local("bcachefs"),
        0x2fc1_2fc1 => Kind::Local("ZFS"),
        0x6969 => Kind::ByLink("NFS"),
        0x6573_5546 => Kind::ByLink("FUSE"),
        0x0102_1997 => Kind::ByLink("9P"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Kind::NoColons("SMB"),
        0x4d44 => Kind::NoColons("FAT"),
        0x2011_bab0 => Kind::NoColons("exFAT"),
        _ => Kind::Unknown,
    }
}

/// Nothing is written to find this out.
pub(super) fn file_system(found: FileSystem) -> Finding {
    const TOPIC: &str = "file_system";
    let finding = match kind(found.kind) {
        Kind::Local(name) => Finding::ok(TOPIC, format!("{name} renames without replacing")),
        Kind::ByLink(name) => {
            let text =
                format!("{name} may not rename without replacing; a link, which refuses to replace, is used then");
            Finding::note(TOPIC, text).advise("let no other machine run postkeep on this directory")
        }
        Kind::NoColons(name) => {
            let text = format!("{name} has no file names with a colon, in which Maildir keeps flags");
            Finding::problem(TOPIC, Exit::Partial, text).advise("put the maildir on a file system of Linux")
        }
        Kind::Unknown => {
            let text = format!(
                "the kind 0x{:x} is not known; where it does not rename without replacing, links are used",
                found.kind
            );
            Finding::note(TOPIC, text)
        }
    };
    if found.ignores_case == Some(true) && !matches!(finding.mark, Mark::Problem(_)) {
        let text = format!("{}; it takes upper and lower case for the same", finding.text);
        return Finding::note(TOPIC, text)
            .advise("mailboxes whose names differ by case only share a directory here, and one of them is left out");
    }
    // The longest that postkeep gives is shorter; those of deep mailboxes are shortened to 255.
    if found.longest_name < 255 && finding.mark == Mark::Ok {
        let text = format!(
            "{}; its names have at most {} bytes, so mailboxes with long names fail",
            finding.text, found.longest_name
        );
        return Finding::note(TOPIC, text);
    }
    finding
}

/// `most` is how many directories a user may watch, `needed` how many the accounts have.
pub(super) fn inotify(needed: u64, most: Option<u64>) -> Finding {
    let Some(most) = most else {
        return Finding::note("inotify", "the system does not tell how many directories may be watched");
    };
    let text = format!("{} are to be watched, and {} may be", many_directories(needed), grouped(most));
    if needed > most {
        let more = (2 * needed).max(8192);
        return Finding::note("inotify", format!("{text}; changes here are found at each poll_interval only"))
            .advise(format!("run as root: sysctl fs.inotify.max_user_watches={more}"));
    }
    Finding::ok("inotify", text)
}

fn many_directories(count: u64) -> String {
    if count == 1 { "1 directory".to_owned() } else { format!("{} directories", grouped(count)) }
}

/// Clocks that are apart by less than this, in seconds, are said to agree.
const APART: u64 = 120;

/// `ahead` is by how many seconds the sign-in server's clock is ahead of this machine's, if it told.
pub(super) fn clock(ahead: Option<i64>) -> Finding {
    match ahead {
        None => Finding::ok("clock", "no server told its time, so the clock was not compared; IMAP has no way to ask"),
        Some(seconds) if seconds.unsigned_abs() < APART => {
            Finding::ok("clock", "it agrees with that of the sign-in server")
        }
        Some(seconds) => {
            let side = if seconds > 0 { "behind" } else { "ahead of" };
            let text = format!("it is {} {side} that of the sign-in server", span(seconds.unsigned_abs()));
            Finding::note("clock", text)
                .advise("set it, or certificates look as if they were not valid: timedatectl set-ntp true")
        }
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..7200 => many(seconds / 60, "minute"),
        7200..172_800 => many(seconds / 3600, "hour"),
        _ => many(seconds / 86_400, "day"),
    }
}

/// A certificate that is renewed as is usual has more than that left, in seconds.
const SOON: i64 = 7 * 86_400;

/// Tells of a connection that came about: `until` is when the certificate ends, in seconds since 1970, and `on` that date.
pub(super) fn tls(encrypted: bool, host: &str, until: Option<i64>, on: &str, now: i64) -> Finding {
    match (encrypted, until) {
        (false, _) => Finding::note("tls", format!("none: {host} is on this machine")),
        (true, None) => Finding::ok("tls", format!("{host} has a certificate that can be trusted")),
        (true, Some(until)) => {
            let days = many(u64::try_from((until - now) / 86_400).unwrap_or(0), "day");
            let text = format!("{host} has a certificate that can be trusted, until {on} ({days})");
            if until - now < SOON {
                Finding::note("tls", format!("{text}; if its owner does not renew it, mail stops then"))
            } else {
                Finding::ok("tls", text)
            }
        }
    }
}

/// Tells that there is a new access token, good for so long.
pub(super) fn renewed(place: &str, name: Option<&str>, lifetime: Duration) -> Finding {
    let minutes = many(lifetime.as_secs() / 60, "minute");
    Finding::ok("sign_in", format!("{}; it was renewed, and the access token is good for {minutes}", kept(place, name)))
}

/// Tells that there is a sign-in, which was not tried.
pub(super) fn kept(place: &str, name: Option<&str>) -> String {
    format!("the sign-in{} is kept in {place}", name.map(|name| format!(" of {name}")).unwrap_or_default())
}

/// Returns what an account with a password at Outlook.com is told.
pub(super) fn password_at_outlook(account: &str) -> Finding {
    let text = "Outlook.com has refused passwords since September 2024";
    Finding::problem("sign_in", Exit::SignIn, text).advise(format!(
        "put provider = \"outlook\" in the place of host and password of [account.{account}], then run: postkeep login {account}"
    ))
}

/// Returns what an account at Outlook.com without a registration is told.
pub(super) fn no_client_id(account: &str) -> Finding {
    let text = "there is no client_id, which says what program asks for your mail, and postkeep has none of its own";
    Finding::problem("sign_in", Exit::SignIn, text)
        .advise(format!("{CLIENT_ID} Write it below [account.{account}.oauth], then run: postkeep login {account}"))
}

/// How one comes by a client_id, in two sentences.
pub(super) const CLIENT_ID: &str = "Register an app at https://entra.microsoft.com (App registrations): account types with \
    personal Microsoft accounts, platform \"Mobile and desktop applications\" with the redirect address http://localhost, \
    public client flows allowed. Its \"Application (client) ID\" is the client_id.";

/// What Outlook.com offers over IMAP, and what it does not.
pub(super) fn only_mailboxes() -> Finding {
    let text = "Outlook.com gives IMAP its mailboxes only: contacts, calendar and sending are not part of it";
    Finding::ok("provider", text)
}

/// Returns how changes on the server are found out.
pub(super) fn strategy(capabilities: &Capabilities, quirks: &Quirks) -> Finding {
    let has = |name| capabilities.has(name);
    let text = if has("QRESYNC") && has("ENABLE") {
        "the server tells what changed and what went since the last look (QRESYNC)"
    } else if has("CONDSTORE") {
        "the server tells what changed since the last look (CONDSTORE); what went is found by a list of UIDs"
    } else if quirks.has(Habit::Sweeps) {
        "the server counts no changes: large mailboxes are swept by SEARCH, small ones listed; all are listed once a day"
    } else {
        return Finding::note(
            "changes",
            "the server counts no changes (no CONDSTORE): mailboxes that may have changed are listed in full",
        );
    };
    Finding::ok("changes", text)
}

/// Returns how the daemon learns that something changed on the server.
pub(super) fn watching(capabilities: &Capabilities, watched: &[String], poll: &str) -> Finding {
    if watched.is_empty() {
        return Finding::ok("watch", format!("the daemon looks at every mailbox each {poll}, since watch is empty"));
    }
    if capabilities.has("NOTIFY") {
        let text =
            format!("the daemon is told at once of changes in all mailboxes (NOTIFY), and looks at them each {poll}");
        return Finding::ok("watch", text);
    }
    if capabilities.has("IDLE") {
        let text = format!(
            "the daemon is told at once of changes in {} (IDLE), and looks at the rest each {poll}",
            watched.join(", ")
        );
        return Finding::ok("watch", text);
    }
    Finding::note(
        "watch",
        format!("the server tells of no changes (no IDLE): the daemon looks at every mailbox each {poll}"),
    )
}

/// Returns what the lack of extensions costs.
pub(super) fn extensions(capabilities: &Capabilities) -> Finding {
    let all = [
        ("UIDPLUS", "what was uploaded is found again by its content, and what was deleted here is only marked there"),
        ("MOVE", "moves are made by copying"),
    ];
    let lacks: Vec<String> = all
        .iter()
        .filter(|(name, _)| !capabilities.has(name))
        .map(|(name, cost)| format!("no {name}: {cost}"))
        .collect();
    if lacks.is_empty() {
        return Finding::ok("extensions", "the server has UIDPLUS and MOVE");
    }
    Finding::note("extensions", lacks.join("; "))
}

/// Returns which of the server's mailboxes are mirrored.
pub(super) fn mailboxes(mirrored: usize, left_out: &[String]) -> Finding {
    let text = format!("{} mirrored", many_mailboxes(mirrored));
    match (mirrored, left_out) {
        (0, _) => Finding::note("mailboxes", text).advise("see `mailboxes` in the configuration: it lets none in"),
        (_, []) => Finding::ok("mailboxes", text),
        (_, left_out) => Finding::ok("mailboxes", format!("{text}; left out: {}", left_out.join(", "))),
    }
}

fn many_mailboxes(count: usize) -> String {
    format!("{} mailbox{}", grouped(count as u64), if count == 1 { "" } else { "es" })
}

/// Tells of the daemon: `answers` is whether one runs, and has the accounts.
pub(super) fn daemon(answers: bool, unit: bool) -> Finding {
    match (answers, unit) {
        (true, _) => Finding::ok("daemon", "it runs"),
        (false, true) => Finding::note("daemon", "it does not run, though systemd has a unit for it")
            .advise("run: postkeep service status"),
        (false, false) => Finding::note("daemon", "it does not run: nothing is mirrored but by postkeep sync")
            .advise("to mirror all the time, run: postkeep service install"),
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
