//! What a pass is asked for, tells while it runs, and has to say at its end: plain data, for people and for `--json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Filter;
use crate::maildir::Fate;
use crate::model::MailboxName;

/// What a pass is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mailboxes to look at, among those that the configuration mirrors.
    pub mailboxes: Filter,
    /// Only say what would be done: nothing changes on either side, nor in the database.
    pub dry_run: bool,
    /// List everything instead of using cursors.
    pub full: bool,
    /// How it goes about what takes long.
    pub pace: Pace,
    /// Where databases and the graveyard are.
    pub state_dir: PathBuf,
    /// Becomes true when the pass is to stop as soon as nothing is half done.
    pub stop: watch::Receiver<bool>,
}

/// What a pass is to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All mailboxes of both sides.
    All,
    /// All mailboxes, but on the server only for what may have come from one of them to another: one in which the same
    /// messages are, by their number and the next UID, is not listed for the sake of flags. This is enough to remove what is
    /// gone, and costs little where nothing but a listing tells of flags.
    Removals,
    /// These, by what happened to them: this costs what they cost. Nothing is removed, since what is gone from one of
    /// them may have come to another one; nor is a mailbox made, renamed or ended.
    Mailboxes(BTreeMap<MailboxName, Change>),
}

/// What happened to a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Something on the server: messages came or went, …
    pub there: bool,
    /// … or flags changed, too, or nobody knows.
    pub flags_there: bool,
    /// What those who watch its files told of them.
    pub here: Here,
}

/// What happened in a maildir.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Here {
    /// What became of these files, by their names with info.
    pub files: BTreeMap<Vec<u8>, Fate>,
    /// Something else, too, or nobody knows.
    pub anything: bool,
}

impl Here {
    /// Nothing was told.
    pub const CALM: Self = Self { files: BTreeMap::new(), anything: false };
    /// Nobody knows.
    pub const ANYTHING: Self = Self { files: BTreeMap::new(), anything: true };

    /// Returns the same, without names if there are too many.
    fn bounded(self) -> Self {
        if self.files.len() > MOST_FILES { Self::ANYTHING } else { self }
    }
}

/// More files than this are looked for by listing the maildir.
pub const MOST_FILES: usize = 1000;

impl Change {
    /// Something on the server, and nothing here.
    pub const THERE: Self = Self { there: true, flags_there: true, here: Here::CALM };
    /// Messages came or went on the server, and nothing else.
    pub const MESSAGES_THERE: Self = Self { there: true, flags_there: false, here: Here::CALM };
    /// Something in the maildir.
    pub const HERE: Self = Self { there: false, flags_there: false, here: Here::ANYTHING };
    /// Anything on both sides.
    pub const BOTH: Self = Self { there: true, flags_there: true, here: Here::ANYTHING };

    /// Returns that something became of these files.
    #[must_use]
    pub fn of_files(files: BTreeMap<Vec<u8>, Fate>) -> Self {
        Self { here: Here { files, anything: false }.bounded(), ..Self::HERE }
    }

    /// Adds what happened later.
    pub fn add(&mut self, later: Self) {
        self.there |= later.there;
        self.flags_there |= later.flags_there;
        let mut here = std::mem::replace(&mut self.here, Here::CALM);
        here.files.extend(later.here.files);
        here.anything |= later.here.anything;
        self.here = here.bounded();
    }
}

/// How a pass goes about what takes long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// It goes on until nothing is left that it can do.
    Thorough,
    /// It waits for nothing, and after this time, or some more where looking took long, begins nothing; what is left
    /// then is left to the next pass.
    Sliced(Duration),
}

/// What a pass over an account that stays open leads to.
#[derive(Clone, Debug)]
pub struct Passed {
    /// What became of the account.
    pub report: Report,
    /// The mailboxes that are to be looked at again.
    pub left: BTreeSet<MailboxName>,
    /// Something was done.
    pub did: bool,
    /// Something was left that only a pass over everything may do.
    pub wants_all: bool,
    /// When the first of what the server refused is to be tried again, in seconds since 1970.
    pub again_at: Option<i64>,
}

/// What is asked for what is held.
#[derive(Clone, Debug)]
pub struct Approve {
    /// The mailbox; `None` means every one.
    pub mailbox: Option<MailboxName>,
    /// Put back what would have been removed, instead of letting it go.
    pub undo: bool,
    /// Where databases and the graveyard are.
    pub state_dir: PathBuf,
}

/// What became of what was held in a mailbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approved {
    /// The mailbox.
    #[serde(with = "name")]
    pub mailbox: MailboxName,
    /// How many removals the next pass carries out, or puts back.
    pub removals: u64,
}

/// What became of an account in a pass.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The account.
    pub account: String,
    /// The worst of all that happened.
    pub outcome: Outcome,
    /// The mailboxes that the pass looked at, in order.
    pub mailboxes: Vec<MailboxReport>,
    /// What went wrong, or needs someone.
    pub problems: Vec<Problem>,
    /// What would be done, after a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<PlannedOp>,
}

/// How a pass over an account ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both sides are the same; after a dry run, it is known what would be done.
    InSync,
    /// Something could not be done; the rest was.
    Partial,
    /// It was asked to stop before it was through.
    Stopped,
    /// The user must sign in.
    SignIn,
    /// Something waits for approval, or the root is not the one it was.
    Held,
    /// A server cannot be reached or asks to come back later.
    Unreachable,
    /// Another process has the account.
    Busy,
}

impl Outcome {
    /// Returns the word that the database keeps for a pass that failed like this; none if that is no failure.
    #[must_use]
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Partial => Some("partial"),
            Self::SignIn => Some("sign_in"),
            Self::Held => Some("held"),
            Self::Unreachable => Some("unreachable"),
            Self::InSync | Self::Stopped | Self::Busy => None,
        }
    }

    /// Returns the outcome that [`Self::word`] stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let all = [Self::SignIn, Self::Held, Self::Unreachable];
        all.into_iter().find(|outcome| outcome.word() == Some(word)).unwrap_or(Self::Partial)
    }
}

/// What became of a mailbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MailboxReport {
    /// Its name.
    #[serde(with = "name")]
    pub mailbox: MailboxName,
    /// How it ended.
    pub state: MailboxState,
    /// What was done.
    pub counts: Counts,
    /// What is held.
    pub held: Vec<Held>,
    /// What went wrong.
    pub problem: Option<String>,
}

/// How a pass over a mailbox ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailboxState {
    /// Nothing had changed on either side.
    Unchanged,
    /// Both sides are the same now.
    InSync,
    /// Something could not be done; the rest was.
    Partial,
    /// Removals wait for approval.
    Held,
    /// Nothing could be done.
    Failed,
}

/// What was done, in messages unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Fetched and delivered.
    pub downloaded: u64,
    /// Their size as served, in bytes.
    pub downloaded_bytes: u64,
    /// Appended.
    pub uploaded: u64,
    /// Their size as sent, in bytes.
    pub uploaded_bytes: u64,
    /// Flags changed in the maildir.
    pub flags_local: u64,
    /// Flags changed on the server.
    pub flags_remote: u64,
    /// Removed from the maildir, to the graveyard.
    pub removed: u64,
    /// Expunged from the server, or moved to its trash.
    pub expunged: u64,
    /// Moved here from another mailbox.
    pub moved: u64,
    /// Found half done and completed.
    pub adopted: u64,
    /// Found on both sides by their content, and so not transferred.
    pub matched: u64,
    /// Cannot be transferred.
    pub skipped: u64,
}

/// Removals that wait for approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// How many.
    pub removals: u64,
    /// Why: a whole sentence without its full stop.
    pub why: String,
}

/// Something that went wrong, or needs someone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about: empty for the account, else a mailbox or a message in it.
    pub scope: String,
    /// What happened.
    pub text: String,
    /// What to do.
    pub advice: Option<String>,
}

/// An op that a dry run found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedOp {
    /// The mailbox.
    #[serde(with = "name")]
    pub mailbox: MailboxName,
    /// The op in its one-line form.
    pub text: String,
    /// Why it would be done.
    pub why: String,
}

/// What a pass tells while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProgressEvent {
    /// A session was opened.
    Connected {
        /// The server.
        host: String,
    },
    /// The mailboxes are known.
    Listed {
        /// How many there are to look at.
        mailboxes: u64,
    },
    /// It is known what a mailbox needs.
    Planned {
        /// The mailbox.
        mailbox: MailboxName,
        /// Messages to fetch.
        downloads: u64,
        /// Messages to append.
        uploads: u64,
        /// Other ops.
        other: u64,
    },
    /// Some of it was done.
    Done {
        /// The mailbox.
        mailbox: MailboxName,
        /// How many ops.
        ops: u64,
        /// How many bytes were transferred for them.
        bytes: u64,
    },
    /// A file is another one, or elsewhere, than before.
    Changed(FileChange),
    /// The server, or a rule of its provider, asks to wait.
    Waiting {
        /// How long, in seconds.
        seconds: u64,
        /// Why.
        why: String,
    },
    /// A mailbox is through.
    Finished {
        /// The mailbox.
        mailbox: MailboxName,
        /// How it ended.
        state: MailboxState,
    },
}

/// What a pass did to a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileChange {
    /// The mailbox that it is in, or was.
    pub mailbox: MailboxName,
    /// What was done.
    pub deed: Deed,
    /// Where it is; where it was, if it was removed.
    pub path: PathBuf,
    /// Where it was, if it is elsewhere or has another name now.
    pub old_path: Option<PathBuf>,
}

/// What was done to a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Delivered, and not seen by anybody so far.
    Arrived,
    /// Delivered, with flags.
    Added,
    /// Given other flags.
    Flagged,
    /// Moved from another mailbox.
    Moved,
    /// Removed, to the graveyard.
    Removed,
}

/// Where a pass tells how it gets on. Cheap to clone; what is told is shown at once.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(ProgressEvent) + Send + Sync>);

impl Progress {
    /// Returns a listener that hands every event to `tell`, which must not block.
    #[must_use]
    pub fn new(tell: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Returns a listener that hears nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Tells something.
    pub fn tell(&self, event: ProgressEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

impl Report {
    /// Returns the report of an account of which nothing could be done.
    #[must_use]
    pub fn failed(account: &str, outcome: Outcome, text: String) -> Self {
        let problem = Problem { scope: String::new(), text, advice: None };
        Self { account: account.to_owned(), outcome, mailboxes: vec![], problems: vec![problem], planned: vec![] }
    }

    /// Returns what was done in all mailboxes together.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.mailboxes.iter().fold(Counts::default(), |sum, mailbox| sum.plus(&mailbox.counts))
    }
}

impl Counts {
    /// Returns the sum.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            downloaded: self.downloaded + other.downloaded,
            downloaded_bytes: self.downloaded_bytes + other.downloaded_bytes,
            uploaded: self.uploaded + other.uploaded,
            uploaded_bytes: self.uploaded_bytes + other.uploaded_bytes,
            flags_local: self.flags_local + other.flags_local,
            flags_remote: self.flags_remote + other.flags_remote,
            removed: self.removed + other.removed,
            expunged: self.expunged + other.expunged,
            moved: self.moved + other.moved,
            adopted: self.adopted + other.adopted,
            matched: self.matched + other.matched,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// The name of a mailbox as a text.
mod name {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::MailboxName;

    pub(super) fn serialize<S: Serializer>(name: &MailboxName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MailboxName, D::Error> {
        Ok(MailboxName::from(String::deserialize(from)?.as_str()))
    }
}
