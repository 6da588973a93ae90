//! One pass over an account: rounds over its mailboxes until both sides agree, or nothing more can be done.
//!
//! A round looks at what may have changed, finds moves over all mailboxes, carries out everything that adds or changes,
//! and only then, when that is durable everywhere, what removes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::ledger::{Ledger, Meter};
use super::mailboxes;
use super::pool::Pool;
use super::report::{
    Change, Counts, Held, MailboxState, Options, Outcome as End, Pace, PlannedOp, Problem, Progress, ProgressEvent,
    Wanted,
};
use super::retention::{self, Clocks, Decision};
use super::root::{Older, Verdict, with_what_came};
use super::round::RoundEnd;
use crate::clock;
use crate::config::{self, Account};
use crate::db::{self, AccountState, Db, Tx};
use crate::maildir::{Graveyard, LineEndings, Maildir, Marker, Root};
use crate::model::{LinkId, LinkState, MailboxId, MailboxName, Uid};

/// A pass that does not come to an end in so many rounds leaves the rest to the next one.
const ROUNDS: u32 = 8;

/// How long is waited when all that is left is a file that is still being written, or a maildir in motion, …
const SETTLING: Duration = Duration::from_millis(600);
/// … and how often.
const PAUSES: u32 = 4;

/// What a pass shares between its parts.
pub(super) struct Pass<'a> {
    pub account: &'a Account,
    pub options: &'a Options,
    pub db: Db,
    /// None in a dry run that would make it.
    pub root: Option<Root>,
    pub graveyard: Arc<Graveyard>,
    pub pool: &'a Pool<'a>,
    pub(super) progress: &'a Progress,
    pub(super) ledger: Ledger,
    /// Mailboxes that an op in another one changed: the next round looks at them.
    pub(super) touched: RefCell<BTreeSet<MailboxName>>,
    /// Since when no connection is alive any more that an append without an answer went over.
    pub(super) quiet_since: &'a Cell<Instant>,
    /// How many commits said that something was done.
    pub(super) effects: Cell<u64>,
    /// A session ended in this round because its token ran out.
    pub(super) ran_out: Cell<bool>,
    /// In how many rounds something was left, since it may be half of a move.
    pub(super) hesitations: Cell<u32>,
    /// When it began to look, …
    pub(super) begun: Instant,
    /// … and when it began to act.
    pub(super) acting_since: Cell<Option<Instant>>,
    /// Something was left that only a pass over everything may do.
    pub(super) wants_all: Cell<bool>,
    /// It is made so that what is gone can be removed: see [`Wanted::Removals`].
    pub(super) for_removals: bool,
    /// The mailbox into which the server puts copies of what is sent by itself, once a pass over everything has told.
    pub(super) copies: &'a RefCell<Option<Option<MailboxName>>>,
    /// Messages about which the server refused something in this pass.
    pub(super) refused: RefCell<BTreeSet<LinkId>>,
    /// The server refused a message since it has no room for any, with these words.
    pub(super) full: RefCell<Option<String>>,
    /// Messages that the server did not give, though it lists them.
    pub(super) withheld: RefCell<BTreeSet<(MailboxId, Uid)>>,
}

/// Returns the time in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    clock::wall().as_millisecond()
}

impl Pass<'_> {
    /// Writes down what was done, or is about to be, in one commit.
    pub(super) async fn commit<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Tx<'_>) -> Result<T, db::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.effects.set(self.effects.get() + 1);
        Ok(self.db.commit(write).await?)
    }

    /// Returns a number that grows whenever something is done.
    pub(super) fn effects(&self) -> u64 {
        self.effects.get() + self.ledger.downloaded()
    }

    /// Returns the time in seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.now_ms() / 1000
    }

    /// Returns the time in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        now_ms()
    }

    /// Changes the counts of a mailbox.
    pub(super) fn tally(&self, mailbox: &MailboxName, change: impl FnOnce(&mut Counts)) {
        self.ledger.tally(mailbox, change);
    }

    /// Returns what counts for a mailbox from another thread.
    pub(super) fn meter(&self, mailbox: &MailboxName) -> Meter {
        Meter::new(mailbox, &self.ledger, self.progress)
    }

    /// Notes that something about a mailbox could not be done.
    pub(super) fn problem(&self, mailbox: &MailboxName, text: String) {
        tracing::warn!(account = self.account.name, %mailbox, "{text}");
        self.ledger.problem(mailbox, text);
    }

    /// Returns what was noted about a mailbox.
    pub(super) fn problems_of(&self, mailbox: &MailboxName) -> Vec<String> {
        self.ledger.problems_of(mailbox)
    }

    /// Notes that something about the account could not be done.
    pub(super) fn account_problem(&self, text: String, advice: Option<String>) {
        tracing::warn!(account = self.account.name, "{text}");
        self.ledger.account_problem(Problem { scope: String::new(), text, advice });
    }

    /// Notes what a dry run would do.
    pub(super) fn would(&self, mailbox: &MailboxName, text: String, why: &str) {
        self.ledger.would(PlannedOp { mailbox: mailbox.clone(), text, why: why.to_owned() });
    }

    /// Notes that a mailbox is held.
    pub(super) fn hold(&self, mailbox: &MailboxName, removals: u64, why: String) {
        self.ledger.hold(mailbox, Some(Held { removals, why }));
    }

    pub(super) fn set_state(&self, mailbox: &MailboxName, state: MailboxState) {
        self.ledger.set_state(mailbox, state);
    }

    /// Asks the next round to look at a mailbox.
    pub(super) fn touch(&self, mailbox: &MailboxName) {
        self.touched.borrow_mut().insert(mailbox.clone());
    }

    /// Notes that a connection went away while something that must not be repeated was on it.
    pub(super) fn lost_connection(&self) {
        self.quiet_since.set(Instant::now());
    }

    /// Tells whether a server could still be carrying out an append whose answer was lost.
    pub(super) fn is_too_early(&self) -> bool {
        self.quiet_since.get().elapsed() < self.account.append_retry_after
    }

    /// Returns how line ends are stored.
    pub(super) fn line_endings(&self) -> LineEndings {
        match self.account.line_endings {
            config::LineEndings::Lf => LineEndings::Lf,
            config::LineEndings::Keep => LineEndings::Keep,
        }
    }

    /// Returns the maildir at a path below the root.
    pub(super) fn maildir(&self, path: &Path) -> Result<Option<Arc<Maildir>>, Error> {
        Ok(match &self.root {
            Some(root) => root.maildir(path)?.map(Arc::new),
            None => None,
        })
    }

    /// Tells whether what is left is to be left to the next pass.
    pub(super) fn time_is_up(&self) -> bool {
        let Pace::Sliced(slice) = self.options.pace else { return false };
        let Some(acting_since) = self.acting_since.get() else { return false };
        // Else a server that lists slowly would be asked for little but lists.
        acting_since.elapsed() >= slice.max(4 * acting_since.duration_since(self.begun))
    }

    /// Makes the pass; returns how it ended, and the mailboxes that are to be looked at again.
    pub(super) async fn run(
        &self,
        wanted: &Wanted,
        verdict: Verdict,
        marked: u64,
        state: AccountState,
    ) -> Result<(End, BTreeSet<MailboxName>), Error> {
        let scope = self.account.scope();
        if let Wanted::Mailboxes(changes) = wanted {
            let is_known = matches!(verdict, Verdict::Same) && state.scope == scope;
            return if is_known { self.look_at_some(changes, marked, &state).await } else { Ok(self.asks_for_all()) };
        }
        let unite = matches!(verdict, Verdict::Unite(_));
        match verdict {
            Verdict::Same => {}
            Verdict::First => self.mark(&state, marked, &scope).await?,
            Verdict::Unite(older) => {
                let older = match older {
                    Older::Maildir => "maildir is older than its database",
                    Older::Database => "database is older than the maildir, or was lost",
                };
                tracing::warn!(account = self.account.name, older, "united both sides by content, removed nothing");
                self.account_problem(
                    format!("the {older}: both sides were united by content, and nothing was removed in this pass"),
                    Some("messages that were deleted since then may be back; delete them again".to_owned()),
                );
            }
        }
        // After a crash, or with another filter, what is missing may be missing for another reason than a deletion.
        let cautious = unite || !state.clean || (state.generation > 0 && state.scope != scope);
        let (did, left) = self.rounds(cautious, unite).await?;
        if self.options.dry_run {
            return Ok((self.end(None).await?, left));
        }
        if did || unite || !state.clean || state.scope != scope {
            let state = self.db.read(|tx| tx.account()).await?;
            self.mark(&state, marked, &scope).await?;
        }
        self.tidy_graveyard().await?;
        Ok((self.end(None).await?, left))
    }

    /// Deletes for good what has been in the graveyard for long enough.
    async fn tidy_graveyard(&self) -> Result<(), Error> {
        let days = u32::try_from(self.account.deletions.graveyard.as_secs() / (24 * 60 * 60)).unwrap_or(u32::MAX);
        let graveyard = Arc::clone(&self.graveyard);
        let tidied = async {
            let there = tokio::task::spawn_blocking(move || graveyard.dates()).await??;
            let wall = clock::wall();
            let today = wall.to_zoned(jiff::tz::TimeZone::UTC).date();
            let clocks = Clocks { boot: clock::boot(), wall: wall.as_second(), today };
            let before = self.db.read(|tx| tx.lifetime()).await?;
            let Decision { write, gone } = retention::decide(before.as_ref(), &there, days, &clocks);
            if let Some(lifetime) = write {
                self.db.commit(move |tx| tx.set_lifetime(&lifetime)).await?;
            }
            let graveyard = Arc::clone(&self.graveyard);
            Ok(tokio::task::spawn_blocking(move || graveyard.purge(&gone)).await??)
        };
        match tidied.await {
            Err(Error::Maildir(error)) => {
                self.account_problem(format!("the graveyard could not be tidied: {error}"), None);
                Ok(())
            }
            end => end,
        }
    }

    /// Looks once at mailboxes that something is known to have happened to.
    async fn look_at_some(
        &self,
        changes: &BTreeMap<MailboxName, Change>,
        marked: u64,
        state: &AccountState,
    ) -> Result<(End, BTreeSet<MailboxName>), Error> {
        let prepared = mailboxes::prepare_some(self, changes).await?;
        if self.wants_all.get() {
            return Ok(self.asks_for_all());
        }
        let RoundEnd { mut left, did, .. } = self.act(prepared, false).await?;
        left.extend(self.touched.take());
        // After a crash only a pass over everything may say that all is well again.
        if did && state.clean {
            let state = self.db.read(|tx| tx.account()).await?;
            let scope = state.scope.clone();
            self.mark(&state, marked, &scope).await?;
        }
        Ok((self.end(Some(changes)).await?, left))
    }

    fn asks_for_all(&self) -> (End, BTreeSet<MailboxName>) {
        self.wants_all.set(true);
        (End::Partial, BTreeSet::new())
    }

    /// Gives root and database a new generation in common: written down as coming, put into the root, written down.
    async fn mark(&self, state: &AccountState, marked: u64, scope: &str) -> Result<(), Error> {
        let Some(root) = self.root.as_ref().filter(|_| !self.options.dry_run) else { return Ok(()) };
        // What was coming when the last pass was killed has come: two crashes here must not look like a lost database.
        let state = with_what_came(state.clone(), root.marker()?.as_ref());
        let generation = state.generation.max(marked) + 1;
        let nonce = format!("{:016x}", getrandom::u64().map_err(crate::maildir::Error::Random)?);
        let pending = AccountState { pending: Some((generation, nonce.clone())), ..state };
        self.db.commit(move |tx| tx.set_account(&pending)).await?;
        root.set_marker(&Marker { account: self.account.name.clone(), generation, nonce: nonce.clone() })?;
        let done = AccountState { generation, nonce, pending: None, clean: true, scope: scope.to_owned() };
        Ok(self.db.commit(move |tx| tx.set_account(&done)).await?)
    }

    /// Goes round until everything is agreed; returns whether anything was done, and the mailboxes that are left.
    async fn rounds(&self, mut cautious: bool, mut unite: bool) -> Result<(bool, BTreeSet<MailboxName>), Error> {
        let (mut wanted, mut did_ever, mut pauses, mut counted) = (None, false, 0, 0);
        for round in 0.. {
            let end = self.round(round, wanted.as_ref(), cautious, unite).await;
            let worked = matches!(&end, Ok(end) if end.did);
            // A round that a session ended which ran out is an hour's work, and no sign that the next one does nothing.
            let ran_out = self.ran_out.take();
            counted += u32::from(!(ran_out && worked));
            let RoundEnd { left, did, waiting, hesitated } = match end {
                Err(error) if error.is_expected() && counted < ROUNDS => {
                    did_ever = true;
                    continue;
                }
                end => end?,
            };
            did_ever |= did;
            let mut next = left;
            next.extend(self.touched.take());
            // Who keeps the account open comes back by himself.
            let goes_on = self.options.pace == Pace::Thorough && counted < ROUNDS;
            if self.options.dry_run || next.is_empty() || !goes_on {
                return Ok((did_ever, next));
            }
            if !did && !cautious && !hesitated && !ran_out {
                if waiting {
                    self.wait_for_appends().await;
                } else if pauses == PAUSES {
                    return Ok((did_ever, next));
                } else {
                    pauses += 1;
                    tokio::time::sleep(SETTLING).await;
                }
            }
            (wanted, cautious, unite) = (Some(next), false, false);
        }
        Ok((did_ever, wanted.unwrap_or_default()))
    }

    /// Waits until an append that went over a dead connection has certainly had its effect.
    async fn wait_for_appends(&self) {
        let rest = self.account.append_retry_after.saturating_sub(self.quiet_since.get().elapsed());
        let why = "an upload was interrupted, and the server may still be at it".to_owned();
        self.progress.tell(ProgressEvent::Waiting { seconds: rest.as_secs() + 1, why });
        tokio::time::sleep(rest).await;
    }

    /// Notes that a mailbox could not be taken up at all.
    pub(super) async fn failed_mailbox(&self, mailbox: &MailboxName, error: &Error) {
        self.write_down_failure(mailbox, error).await;
        self.problem(mailbox, error.to_string());
        self.set_state(mailbox, MailboxState::Failed);
    }

    /// Notes that a mailbox is not complete.
    pub(super) fn partial(&self, mailbox: &MailboxName) {
        self.set_state(mailbox, MailboxState::Partial);
    }

    /// Returns how the pass ended, once what is skipped is counted: everywhere, or in some mailboxes.
    async fn end(&self, among: Option<&BTreeMap<MailboxName, Change>>) -> Result<End, Error> {
        let among: Option<Vec<MailboxName>> = among.map(|among| among.keys().cloned().collect());
        let skipped = self
            .db
            .read(move |tx| {
                let mut names = Vec::new();
                let rows = match among {
                    None => tx.mailboxes()?,
                    Some(among) => {
                        let rows = among.iter().map(|name| tx.mailbox_named(name));
                        rows.filter_map(Result::transpose).collect::<Result<_, _>>()?
                    }
                };
                for mailbox in rows {
                    let kept = crate::model::SkipReason::Kept;
                    let counts =
                        |state: &LinkState| matches!(state, LinkState::Skipped { reason, .. } if *reason != kept);
                    let skipped = tx.skipped(mailbox.id)?.iter().filter(|link| counts(&link.state)).count();
                    if skipped > 0 {
                        names.push((mailbox.name, skipped));
                    }
                }
                Ok(names)
            })
            .await?;
        for (mailbox, count) in skipped {
            self.ledger.skipped(&mailbox, count);
        }
        if let Some(text) = self.pool.complaint().await {
            self.account_problem(text, None);
        }
        Ok(self.ledger.outcome())
    }
}
