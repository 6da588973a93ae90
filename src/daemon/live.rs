//! What the daemon is doing, for `status` and the metrics: plain data that crosses the control socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::engine::report::{MailboxState, Progress, ProgressEvent};

/// What the daemon is doing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Live {
    /// Its process id.
    pub pid: u32,
    /// When it began, in seconds since 1970.
    pub since: i64,
    /// The accounts that it has.
    pub accounts: Vec<LiveAccount>,
}

/// What it is doing with an account.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LiveAccount {
    /// Its name.
    pub account: String,
    /// What is going on.
    pub state: State,
    /// The mailboxes at which something is being done, or was in this pass.
    pub mailboxes: BTreeMap<String, LiveMailbox>,
    /// The server tells of changes in all mailboxes at once, …
    #[serde(default)]
    pub all_watched: bool,
    /// … or in these.
    pub watched: Vec<String>,
    /// Changes of files are told at once; else they are looked for.
    pub files_watched: bool,
    /// What keeps the account from being mirrored.
    pub problem: Option<String>,
    /// How often in a row it could not be mirrored.
    pub failures: u32,
    /// When the next attempt is made after that, in seconds since 1970.
    pub retry_at: Option<i64>,
    /// How long the server, or a rule of its provider, has asked to wait, in seconds since 1970.
    pub throttled_until: Option<i64>,
    /// When the last pass over everything ended, in seconds since 1970.
    pub swept_at: Option<i64>,
    /// Looks that wait: one at each mailbox to which something happened, and one at all of them if something may have to
    /// be removed.
    pub waiting: u64,
    /// Everything that was done since the daemon began.
    pub total: Total,
}

/// What was done since the daemon began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Total {
    /// Messages fetched.
    pub downloaded: u64,
    /// Messages appended.
    pub uploaded: u64,
    /// Messages whose flags were changed, on either side.
    pub flags: u64,
    /// Messages removed, on either side.
    pub removed: u64,
    /// Messages moved.
    pub moved: u64,
    /// Bytes of all messages transferred.
    pub bytes: u64,
    /// Passes.
    pub passes: u64,
    /// Passes that failed as a whole.
    pub failed: u64,
}

/// What it is doing with a mailbox.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LiveMailbox {
    /// Messages to transfer or change.
    pub planned: u64,
    /// How many of them were.
    pub done: u64,
    /// It is through.
    pub finished: bool,
}

/// What is going on with an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing was done yet.
    #[default]
    Starting,
    /// Everything is being looked at.
    Sweeping,
    /// Some mailboxes are.
    Working,
    /// It waits for something to happen.
    Watching,
    /// It waits after a failure.
    Waiting,
}

/// What is known of an account now; clones are the same, and may be used from several threads.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    live: LiveAccount,
    /// How many things were told.
    told: u64,
}

impl Board {
    pub(super) fn new(account: &str) -> Self {
        let live = LiveAccount { account: account.to_owned(), ..LiveAccount::default() };
        Self(Arc::new(Mutex::new(Inner { live, told: 0 })))
    }

    /// Returns what is known.
    pub(super) fn read(&self) -> LiveAccount {
        self.with(|inner| inner.live.clone())
    }

    /// Changes what is known.
    pub(super) fn set(&self, change: impl FnOnce(&mut LiveAccount)) {
        self.with(|inner| change(&mut inner.live));
    }

    /// Returns a number that grows with everything that a pass tells.
    pub(super) fn told(&self) -> u64 {
        self.with(|inner| inner.told)
    }

    /// Returns where a pass tells how it gets on; what `also` is told is everything.
    pub(super) fn progress(&self, also: impl Fn(&ProgressEvent) + Send + Sync + 'static) -> Progress {
        let board = self.clone();
        Progress::new(move |event| {
            also(&event);
            board.with(|inner| {
                inner.told += 1;
                note(&mut inner.live, event);
            });
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        // What is shown may be old after a panic elsewhere, but it is whole.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn note(live: &mut LiveAccount, event: ProgressEvent) {
    match event {
        ProgressEvent::Connected { .. } => live.throttled_until = None,
        ProgressEvent::Listed { .. } | ProgressEvent::Changed(_) => {}
        ProgressEvent::Planned { downloads: 0, uploads: 0, other: 0, .. } => {}
        ProgressEvent::Planned { mailbox, downloads, uploads, other } => {
            let planned = downloads + uploads + other;
            live.mailboxes.insert(mailbox.to_string(), LiveMailbox { planned, ..LiveMailbox::default() });
        }
        ProgressEvent::Done { mailbox, ops, bytes } => {
            live.mailboxes.entry(mailbox.to_string()).or_default().done += ops;
            live.total.bytes += bytes;
        }
        ProgressEvent::Waiting { seconds, .. } => {
            live.throttled_until = Some(super::clock::unix_now() + i64::try_from(seconds).unwrap_or(i64::MAX / 2));
        }
        ProgressEvent::Finished { mailbox, state } => {
            if let Some(shown) = live.mailboxes.get_mut(mailbox.to_string().as_str()) {
                shown.finished = matches!(state, MailboxState::InSync | MailboxState::Unchanged);
            }
        }
    }
}
