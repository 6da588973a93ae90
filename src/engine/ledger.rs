//! What a pass has to say at its end, kept by mailbox while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::report::{
    Counts, Deed, FileChange, Held, MailboxReport, MailboxState, Outcome, PlannedOp, Problem, Progress, ProgressEvent,
    Report,
};
use crate::model::MailboxName;

/// The books of a pass; clones are the same books, and may be kept from several threads.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    rows: BTreeMap<MailboxName, Row>,
    problems: Vec<Problem>,
    planned: Vec<PlannedOp>,
}

#[derive(Default)]
struct Row {
    counts: Counts,
    problems: BTreeSet<String>,
    held: Vec<Held>,
    state: Option<MailboxState>,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Counters stay right whatever ended another thread.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn row<T>(&self, mailbox: &MailboxName, change: impl FnOnce(&mut Row) -> T) -> T {
        change(self.book().rows.entry(mailbox.clone()).or_default())
    }

    /// Changes the counts of a mailbox.
    pub(super) fn tally(&self, mailbox: &MailboxName, change: impl FnOnce(&mut Counts)) {
        self.row(mailbox, |row| change(&mut row.counts));
    }

    /// Returns how many messages were delivered, in all mailboxes together.
    pub(super) fn downloaded(&self) -> u64 {
        self.book().rows.values().map(|row| row.counts.downloaded).sum()
    }

    /// Notes that something about a mailbox could not be done.
    pub(super) fn problem(&self, mailbox: &MailboxName, text: String) {
        self.row(mailbox, |row| row.problems.insert(text));
    }

    /// Returns what was noted about a mailbox.
    pub(super) fn problems_of(&self, mailbox: &MailboxName) -> Vec<String> {
        self.book().rows.get(mailbox).map(|row| row.problems.iter().cloned().collect()).unwrap_or_default()
    }

    /// Notes that something about the account could not be done; once, though each round may find it.
    pub(super) fn account_problem(&self, problem: Problem) {
        let problems = &mut self.book().problems;
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Notes what a dry run would do.
    pub(super) fn would(&self, op: PlannedOp) {
        self.book().planned.push(op);
    }

    /// Notes what of a mailbox is held now, if anything is.
    pub(super) fn hold(&self, mailbox: &MailboxName, held: Option<Held>) {
        self.row(mailbox, |row| row.held = held.into_iter().collect());
    }

    /// Notes how a mailbox stands. One that is held is held, unless it failed altogether.
    pub(super) fn set_state(&self, mailbox: &MailboxName, state: MailboxState) {
        self.row(mailbox, |row| {
            let held = !row.held.is_empty() && state != MailboxState::Failed;
            row.state = Some(if held { MailboxState::Held } else { state });
        });
    }

    /// Notes how many messages of a mailbox are skipped: it is not in sync then.
    pub(super) fn skipped(&self, mailbox: &MailboxName, count: usize) {
        self.row(mailbox, |row| {
            if row.problems.is_empty() {
                row.problems.insert(format!("{count} messages are skipped; postkeep status says which and why"));
            }
            if matches!(row.state, Some(MailboxState::InSync | MailboxState::Unchanged)) {
                row.state = Some(MailboxState::Partial);
            }
        });
    }

    /// Returns how the pass ended, by what was noted.
    pub(super) fn outcome(&self) -> Outcome {
        let book = self.book();
        let any = |state| book.rows.values().any(|row| row.state == Some(state));
        if book.rows.values().any(|row| !row.held.is_empty()) {
            Outcome::Held
        } else if any(MailboxState::Failed) || any(MailboxState::Partial) || !book.problems.is_empty() {
            Outcome::Partial
        } else {
            Outcome::InSync
        }
    }

    /// Returns everything that was noted, and forgets it.
    pub(super) fn report(&self, account: &str, outcome: Outcome) -> Report {
        let Book { rows, problems, planned } = std::mem::take(&mut *self.book());
        let mailboxes = rows.into_iter().map(|(mailbox, row)| MailboxReport {
            mailbox,
            state: row.state.unwrap_or(MailboxState::Partial),
            counts: row.counts,
            held: row.held,
            problem: (!row.problems.is_empty()).then(|| row.problems.into_iter().collect::<Vec<_>>().join("; ")),
        });
        Report { account: account.to_owned(), outcome, mailboxes: mailboxes.collect(), problems, planned }
    }
}

/// Counts the messages of a mailbox as they come and go, and tells the user.
pub(super) struct Meter {
    mailbox: MailboxName,
    ledger: Ledger,
    progress: Progress,
}

impl Meter {
    /// Makes a meter; it may be used from another thread.
    pub(super) fn new(mailbox: &MailboxName, ledger: &Ledger, progress: &Progress) -> Self {
        Self { mailbox: mailbox.clone(), ledger: ledger.clone(), progress: progress.clone() }
    }

    /// Counts delivered messages.
    pub(super) fn downloaded(&self, messages: u64, bytes: u64) {
        self.count(messages, bytes, |counts| {
            counts.downloaded += messages;
            counts.downloaded_bytes += bytes;
        });
    }

    /// Tells of a file that changed.
    pub(super) fn changed(&self, deed: Deed, path: PathBuf, old_path: Option<PathBuf>) {
        self.progress.tell(ProgressEvent::Changed(FileChange { mailbox: self.mailbox.clone(), deed, path, old_path }));
    }

    /// Counts appended messages.
    pub(super) fn uploaded(&self, messages: u64, bytes: u64) {
        self.count(messages, bytes, |counts| {
            counts.uploaded += messages;
            counts.uploaded_bytes += bytes;
        });
    }

    fn count(&self, ops: u64, bytes: u64, add: impl FnOnce(&mut Counts)) {
        self.ledger.tally(&self.mailbox, add);
        self.progress.tell(ProgressEvent::Done { mailbox: self.mailbox.clone(), ops, bytes });
    }
}
