//! Keeps one account: one loop over everything that can happen to it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::agenda::{Agenda, Done, Work};
use super::clock;
use super::hooks::{Attention, Hooks};
use super::live::{Board, State};
use super::local;
use super::remote::{self, Told};
use super::retry::{Failures, dice};
use crate::config::{Account, Filter};
use crate::engine::report::{
    Approve, Approved, Change, Options, Outcome, Pace, Passed, Progress, ProgressEvent, Report, Wanted,
};
use crate::engine::{Error, Mirror};
use crate::haste::shortened;
use crate::imap::Stir;
use crate::maildir::Fate;
use crate::model::MailboxName;
use crate::{db, engine};

/// Everything that can happen to an account.
#[derive(Debug)]
pub(super) enum Event {
    /// A mailbox of the server changed, or a watcher says what it does.
    There(Told),
    /// This became of files: by their maildir, relative to the root, and their name.
    Here(BTreeMap<PathBuf, BTreeMap<Vec<u8>, Fate>>),
    /// Files are watched from now on, maybe in other maildirs than before.
    HereWatched,
    /// Files cannot be watched: they are to be looked at from time to time.
    HereUnwatched,
    /// The machine was suspended, or has another network: all that is known of connections is void.
    Fresh(&'static str),
    /// The machine goes to sleep: [`Event::Fresh`] follows, whatever becomes of that.
    Sleeps,
    /// The account is to be left, as soon as nothing is under way.
    Leave,
    /// Somebody asks for something.
    Asked(Ask),
}

/// What somebody asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// A pass, to its end.
    Sync {
        /// Among the mailboxes of the configuration, these.
        mailboxes: Filter,
        /// List everything.
        full: bool,
        /// Only say what would be done.
        dry_run: bool,
        /// What became of it.
        reply: oneshot::Sender<Report>,
    },
    /// To let go what is held, or put it back.
    Approve {
        /// Which.
        what: Approve,
        /// What became of it, or the reason why not.
        reply: oneshot::Sender<Result<Vec<Approved>, String>>,
    },
}

/// A pass begins nothing new after this time, so that what happens meanwhile waits no longer.
const SLICE: Duration = Duration::from_secs(10);

/// How often files that cannot be watched are looked at.
const LOOK_HERE: Duration = Duration::from_secs(10);

/// A pass that tells nothing for so long hangs. (A server that is silent is given up by its session much earlier.)
const HANGS: Duration = Duration::from_secs(15 * 60);

/// How long a server may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A machine that goes to sleep does so within this time, or says that it does not.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// What the server refused is not tried again earlier, …
const SOON: Duration = Duration::from_secs(60);

/// … nor later.
const LATEST: Duration = Duration::from_secs(6 * 60 * 60);

/// How often the loop turns, if nothing happens.
const TURN: Duration = Duration::from_secs(30);

/// What an account needs of the daemon.
pub(super) struct Keeper {
    /// The account.
    pub(super) account: Account,
    /// Where databases are.
    pub(super) state_dir: PathBuf,
    /// Where it is shown what goes on.
    pub(super) board: Board,
    /// Who is told what happened.
    pub(super) hooks: Hooks,
    /// Told with each turn of the loop, that it turns.
    pub(super) beat: watch::Sender<Duration>,
    /// Told when it is known whether the account can be mirrored now.
    pub(super) begun: watch::Sender<bool>,
    /// Becomes true when all is to end.
    pub(super) stop: watch::Receiver<bool>,
}

/// What the loop knows.
struct Loop<'a> {
    keeper: &'a Keeper,
    agenda: Agenda,
    /// Files that changed and were not looked at yet, by their maildir.
    files: BTreeMap<PathBuf, BTreeMap<Vec<u8>, Fate>>,
    /// The mailboxes of maildirs, as far as they are known.
    maildirs: BTreeMap<PathBuf, MailboxName>,
    asked: VecDeque<Ask>,
    /// Since the last pass that worked.
    failures: Failures,
    /// The last failure: it is told once.
    failure: Option<String>,
    /// Files cannot be watched; when they are looked at next.
    look_here: Option<Duration>,
    /// Nothing is tried before, since the machine goes to sleep.
    sleeps_until: Duration,
    /// It is known whether files can be watched.
    files_told: bool,
    /// Tells those who watch the server whether the account can be mirrored.
    works: watch::Sender<bool>,
    /// It is to end, as soon as nothing is under way.
    leaves: bool,
}

impl Keeper {
    /// Keeps the account until it is to stop.
    ///
    /// # Errors
    /// What no further attempt can mend: the process is to end, and to be started again.
    pub(super) async fn keep(
        &self,
        tell: mpsc::UnboundedSender<Event>,
        mut told: mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), Error> {
        let mut stop = self.stop.clone();
        let work = async {
            let mirror = self.open().await;
            // One connection is for passes.
            let watchers = self.account.watch.iter().take(self.account.connections.saturating_sub(1));
            let names: Vec<MailboxName> = watchers.map(|name| MailboxName::from(name.as_str())).collect();
            let (tell_works, works) = watch::channel(false);
            let there = remote::watch(&mirror, &names, works, |told| {
                // Nobody listens when all ends.
                let _ = tell.send(Event::There(told));
            });
            let here = local::watch(&mirror, &self.account.maildir, &tell);
            let mut turning = Loop::new(self, tell_works);
            let result = tokio::select! {
                result = turning.turn(&mirror, &mut told) => result,
                ((), ()) = async { tokio::join!(async { there.await; std::future::pending().await }, here) } => Ok(()),
            };
            if tokio::time::timeout(GOODBYE, mirror.close()).await.is_err() {
                tracing::debug!(account = self.account.name, "the server took too long to say goodbye");
            }
            result
        };
        tokio::select! {
            result = work => result,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    }

    /// Takes the account, as soon as no other process has it.
    async fn open(&self) -> Mirror<'_> {
        let mut failures = Failures::default();
        loop {
            match Mirror::open(&self.account, &self.state_dir) {
                Ok(mirror) => return mirror,
                Err(error) => {
                    let pause = failures.count(&error, clock::unix_now(), dice());
                    if failures.total() == 1 {
                        tracing::warn!(account = self.account.name, %error, "waiting for the account");
                    }
                    self.show_failure(&error.to_string(), failures.total(), pause);
                    self.turn_over(pause).await;
                }
            }
        }
    }

    /// Waits, and shows that it does.
    async fn turn_over(&self, pause: Duration) {
        let until = clock::now() + pause;
        while clock::now() < until {
            self.beat.send_replace(clock::now());
            tokio::time::sleep(until.saturating_sub(clock::now()).min(TURN)).await;
        }
    }

    fn show_failure(&self, text: &str, failures: u32, pause: Duration) {
        let retry_at = clock::unix_now() + i64::try_from(pause.as_secs()).unwrap_or(i64::MAX / 2);
        self.board.set(|live| {
            live.state = State::Waiting;
            live.problem = Some(text.to_owned());
            live.failures = failures;
            live.retry_at = Some(retry_at);
            live.total.failed += 1;
        });
        self.begun.send_replace(true);
    }
}

impl<'a> Loop<'a> {
    fn new(keeper: &'a Keeper, works: watch::Sender<bool>) -> Self {
        let agenda = Agenda::new(clock::now(), keeper.account.poll_interval);
        Self {
            keeper,
            agenda,
            files: BTreeMap::new(),
            maildirs: BTreeMap::new(),
            asked: VecDeque::new(),
            failures: Failures::default(),
            failure: None,
            look_here: None,
            sleeps_until: Duration::ZERO,
            files_told: false,
            works,
            leaves: false,
        }
    }

    async fn turn(&mut self, mirror: &Mirror<'_>, told: &mut mpsc::UnboundedReceiver<Event>) -> Result<(), Error> {
        // First it is watched, then looked: so nothing falls in between.
        while !self.files_told {
            match told.recv().await {
                Some(event) => self.take(mirror, event),
                None => return Ok(()),
            }
        }
        loop {
            // What was told in one go (a move with both its ends) is known as a whole before anything is done, however late
            // this process was let run.
            while let Ok(event) = told.try_recv() {
                self.take(mirror, event);
            }
            if self.leaves {
                return Ok(());
            }
            self.keeper.beat.send_replace(clock::now());
            if let Some(ask) = self.asked.pop_front() {
                self.answer(mirror, told, ask).await?;
                continue;
            }
            self.sift(mirror).await?;
            let now = clock::now();
            if let Some(work) = self.agenda.next(now) {
                self.work(mirror, told, work).await?;
                continue;
            }
            self.show_rest();
            let wakes = self.agenda.wakes().min(self.look_here.unwrap_or(Duration::MAX));
            tokio::select! {
                event = told.recv() => match event {
                    Some(event) => self.take(mirror, event),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wakes.saturating_sub(now).min(TURN)) => {}
            }
        }
    }

    /// Takes note of what happened.
    fn take(&mut self, mirror: &Mirror<'_>, event: Event) {
        let now = clock::now();
        match event {
            Event::There(told) => self.take_told(told, now),
            Event::Here(files) => {
                for (maildir, files) in files {
                    self.files.entry(maildir).or_default().extend(files);
                }
            }
            Event::HereWatched => {
                // They are watched only since now: what happened until now was not seen.
                (self.look_here, self.files_told) = (None, true);
                self.maildirs.clear();
                self.agenda.mark_all(now);
                self.keeper.board.set(|live| live.files_watched = true);
            }
            Event::HereUnwatched => {
                self.files_told = true;
                self.look_here.get_or_insert(now + shortened(LOOK_HERE));
                self.keeper.board.set(|live| live.files_watched = false);
            }
            Event::Fresh(why) => {
                tracing::info!(
                    account = self.keeper.account.name,
                    why,
                    "drops all connections and looks at everything"
                );
                mirror.cut();
                self.failures.clear();
                self.sleeps_until = Duration::ZERO;
                self.agenda.refresh(now);
            }
            Event::Sleeps => {
                // A server that is told now holds nothing open for a machine that is not there.
                tracing::info!(account = self.keeper.account.name, "closes its connections while the machine sleeps");
                mirror.sleep();
                self.works.send_replace(false);
                self.sleeps_until = now + LONGEST_NAP;
                self.agenda.rest(self.sleeps_until);
            }
            Event::Leave => self.leaves = true,
            Event::Asked(ask) => self.asked.push_back(ask),
        }
    }

    fn take_told(&mut self, told: Told, now: Duration) {
        match told {
            Told::Began(None) => {
                self.agenda.mark_all(now);
                self.keeper.board.set(|live| live.all_watched = true);
            }
            Told::Began(Some(mailbox)) => {
                self.agenda.mark(&mailbox, self.there(), now);
                self.keeper.board.set(|live| live.watched.push(mailbox.to_string()));
            }
            Told::Changed(None, _) => self.agenda.mark_all(now),
            Told::Changed(Some(mailbox), stir) => {
                let flags_there = stir == Stir::Anything;
                self.agenda.mark(&mailbox, Change { flags_there, ..self.there() }, now);
            }
            // What ended this may have ended everything.
            Told::Ended(None) => {
                self.keeper.board.set(|live| live.all_watched = false);
                self.agenda.mark(&MailboxName::from("INBOX"), self.there(), now);
            }
            Told::Ended(Some(mailbox)) => {
                self.keeper.board.set(|live| live.watched.retain(|name| *name != mailbox.to_string()));
                self.agenda.mark(&mailbox, self.there(), now);
            }
        }
    }

    /// Returns what is known to have happened when the server tells of a change.
    fn there(&self) -> Change {
        if self.look_here.is_none() { Change::THERE } else { Change::BOTH }
    }

    /// Marks the mailboxes whose files were changed by somebody else.
    async fn sift(&mut self, mirror: &Mirror<'_>) -> Result<(), Error> {
        let now = clock::now();
        if self.look_here.is_some_and(|at| at <= now) {
            self.look_here = Some(now + shortened(LOOK_HERE));
            for mailbox in mirror.maildirs().await.unwrap_or_default().values() {
                self.agenda.mark(mailbox, Change::HERE, now);
            }
        }
        let files = std::mem::take(&mut self.files);
        if files.keys().any(|path| !self.maildirs.contains_key(path)) {
            match mirror.maildirs().await {
                Ok(maildirs) => self.maildirs = maildirs,
                Err(error) if is_fatal(&error) => return Err(error),
                // Then whoever looks at everything finds out.
                Err(_) => self.agenda.mark_all(now),
            }
        }
        for (path, files) in files {
            // Not every maildir is one of a mailbox's.
            let Some(mailbox) = self.maildirs.get(&path).cloned() else { continue };
            match mirror.is_news(&mailbox, &files).await {
                Ok(true) => {
                    tracing::debug!(account = self.keeper.account.name, %mailbox, "files changed");
                    self.agenda.mark(&mailbox, Change::of_files(files), now);
                }
                Ok(false) => {}
                Err(error) if is_fatal(&error) => return Err(error),
                // Then whoever looks finds out.
                Err(_) => self.agenda.mark(&mailbox, Change::HERE, now),
            }
        }
        Ok(())
    }

    /// Makes a pass, and takes note of what happens meanwhile.
    async fn work(
        &mut self,
        mirror: &Mirror<'_>,
        told: &mut mpsc::UnboundedReceiver<Event>,
        work: Work,
    ) -> Result<(), Error> {
        let (wanted, state) = match &work {
            Work::All => (Wanted::All, State::Sweeping),
            Work::Removals => (Wanted::Removals, State::Working),
            Work::Some(mailboxes) => (Wanted::Mailboxes(mailboxes.clone()), State::Working),
        };
        let options = self.options(Pace::Sliced(SLICE));
        let began = clock::now();
        self.keeper.board.set(|live| {
            (live.state, live.waiting) = (state, self.agenda.waiting() as u64);
            live.mailboxes.clear();
        });
        let passed = self.pass(mirror, told, &wanted, &options).await;
        let now = clock::now();
        match passed {
            Ok(passed) => {
                let done = Done { left: passed.left, did: passed.did, wants_all: passed.wants_all };
                self.agenda.finish(&work, &done, now - began, now);
                self.try_again(passed.again_at, work == Work::All, now);
                self.succeeded(work == Work::All, &passed.report);
                Ok(())
            }
            Err(error) => self.failed(error),
        }
    }

    fn options(&self, pace: Pace) -> Options {
        Options {
            mailboxes: Filter::default(),
            dry_run: false,
            full: false,
            pace,
            state_dir: self.keeper.state_dir.clone(),
            stop: self.keeper.stop.clone(),
        }
    }

    async fn pass(
        &mut self,
        mirror: &Mirror<'_>,
        told: &mut mpsc::UnboundedReceiver<Event>,
        wanted: &Wanted,
        options: &Options,
    ) -> Result<Passed, Error> {
        mirror.wake();
        let progress = self.progress();
        let mut pass = std::pin::pin!(mirror.pass(wanted, options, &progress));
        let (mut told_before, mut told_at) = (self.keeper.board.told(), clock::now());
        loop {
            tokio::select! {
                passed = &mut pass => return passed,
                event = told.recv() => match event {
                    Some(event) => self.take(mirror, event),
                    None => return Err(Error::Stopped),
                },
                () = tokio::time::sleep(TURN) => {}
            }
            let (now, told_now) = (clock::now(), self.keeper.board.told());
            if told_now != told_before {
                (told_before, told_at) = (told_now, now);
            }
            if now.saturating_sub(told_at) < HANGS {
                self.keeper.beat.send_replace(now);
            }
        }
    }

    fn progress(&self) -> Progress {
        let (hooks, begun) = (self.keeper.hooks.clone(), self.keeper.begun.clone());
        let account = self.keeper.account.name.clone();
        let watched = self.keeper.account.watch.clone();
        self.keeper.board.progress(move |event| match event {
            ProgressEvent::Connected { .. } => drop(begun.send_replace(true)),
            ProgressEvent::Changed(change) => hooks.changed(&account, &watched, change),
            _ => {}
        })
    }

    /// Sees to it that what the server refused is tried again when it is due, after a pass over some mailboxes or over
    /// `everything`.
    fn try_again(&mut self, at: Option<i64>, everything: bool, now: Duration) {
        let Some(at) = at else { return };
        let pause = u64::try_from(at.saturating_sub(clock::unix_now())).unwrap_or(0);
        if pause == 0 && everything {
            // It was not tried though it was due, as in a mailbox that is not mirrored any more.
            return;
        }
        // What is due too late was written by another clock.
        let pause = Duration::from_secs(pause).clamp(shortened(SOON), LATEST);
        self.agenda.mark_all(now + pause);
    }

    fn succeeded(&mut self, everything: bool, report: &Report) {
        let account = &self.keeper.account.name;
        if self.failures.total() > 0 {
            tracing::info!(account, failures = self.failures.total(), "mirrored again");
        }
        self.failures.clear();
        self.failure = None;
        self.works.send_replace(clock::now() >= self.sleeps_until);
        let total = report.total();
        self.keeper.board.set(|live| {
            (live.problem, live.failures, live.retry_at) = (None, 0, None);
            live.total.passes += 1;
            live.total.downloaded += total.downloaded;
            live.total.uploaded += total.uploaded;
            live.total.flags += total.flags_local + total.flags_remote;
            live.total.removed += total.removed + total.expunged;
            live.total.moved += total.moved;
            if everything {
                live.swept_at = Some(clock::unix_now());
            }
        });
        self.keeper.begun.send_replace(true);
        self.keeper.hooks.succeeded(account);
        for mailbox in report.mailboxes.iter().filter(|mailbox| !mailbox.held.is_empty()) {
            self.keeper.hooks.attention(Attention::held(account, &mailbox.mailbox));
        }
    }

    fn failed(&mut self, error: Error) -> Result<(), Error> {
        if is_fatal(&error) {
            return Err(error);
        }
        if clock::now() < self.sleeps_until {
            // That broke it.
            self.agenda.rest(self.sleeps_until);
            return Ok(());
        }
        let account = &self.keeper.account.name;
        let pause = self.failures.count(&error, clock::unix_now(), dice());
        let text = error.to_string();
        // The same again is no news, however often.
        if self.failure.as_ref() == Some(&text) {
            tracing::debug!(account, error = text, failures = self.failures.total(), "failed again");
        } else {
            tracing::warn!(account, error = text, seconds = pause.as_secs(), "the account cannot be mirrored now");
        }
        self.failure = Some(text.clone());
        self.works.send_replace(false);
        self.agenda.rest(clock::now() + pause);
        self.keeper.show_failure(&text, self.failures.total(), pause);
        self.keeper.hooks.failed(account, error.outcome());
        Ok(())
    }

    async fn answer(
        &mut self,
        mirror: &Mirror<'_>,
        told: &mut mpsc::UnboundedReceiver<Event>,
        ask: Ask,
    ) -> Result<(), Error> {
        match ask {
            Ask::Sync { mailboxes, full, dry_run, reply } => {
                let options = Options { mailboxes, full, dry_run, ..self.options(Pace::Thorough) };
                self.keeper.board.set(|live| live.state = State::Sweeping);
                let passed = self.pass(mirror, told, &Wanted::All, &options).await;
                let report = match passed {
                    Ok(passed) => {
                        if self.failures.total() > 0 {
                            // What was waited for is over: the user may have signed in again.
                            self.agenda.refresh(clock::now());
                        }
                        self.try_again(passed.again_at, true, clock::now());
                        self.succeeded(false, &passed.report);
                        passed.report
                    }
                    Err(error) => {
                        let report = Report::failed(&self.keeper.account.name, error.outcome(), error.to_string());
                        self.failed(error)?;
                        report
                    }
                };
                // Whoever asked may have gone away.
                let _ = reply.send(report);
            }
            Ask::Approve { what, reply } => {
                let approved = mirror.approve(&what).await;
                self.agenda.mark_all(clock::now());
                let _ = reply.send(approved.map_err(|error| error.to_string()));
            }
        }
        Ok(())
    }

    fn show_rest(&self) {
        self.keeper.board.set(|live| {
            live.state = if self.failure.is_some() { State::Waiting } else { State::Watching };
            live.waiting = self.agenda.waiting() as u64;
        });
    }
}

/// Tells whether only a new process can mend it: a part of this one has ended.
fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Worker(_) | engine::Error::Db(db::Error::Stopped))
}

/// Tells whether the user has to do something about it.
pub(super) fn needs_the_user(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::SignIn | Outcome::Held)
}
