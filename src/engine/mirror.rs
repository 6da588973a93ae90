//! An account that stays open between passes: its locks, its database, its sessions.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::approve::approve_in;
use super::ledger::Ledger;
use super::lock::Locks;
use super::news;
use super::pass::{Pass, now_ms};
use super::pool::{Lease, Pool};
use super::report::{Approve, Approved, MOST_FILES, Options, Outcome, Passed, Progress, Report, Wanted};
use super::root::judge;
use super::service;
use crate::config::{self, Account, Provider};
use crate::db::{self, Db, Failure};
use crate::haste::shortened;
use crate::imap::{self, Connect, Quirks, Route, Tls};
use crate::maildir::{Fate, Graveyard, Layout, Root, Watch, unique_of};
use crate::model::MailboxName;

/// An account that this process has: nobody else writes to its database or its root until this is dropped.
pub struct Mirror<'a> {
    account: &'a Account,
    state_dir: PathBuf,
    file: PathBuf,
    locks: RefCell<Locks>,
    /// Opened by the first pass that acts: a dry run makes none.
    db: RefCell<Option<Db>>,
    graveyard: Arc<Graveyard>,
    /// Made by the first pass that needs it: an account that cannot sign in can be asked for other things.
    pool: OnceCell<Pool<'a>>,
    /// What was learned about the way to the server.
    route: Route,
    /// Since when no connection is alive any more that an append without an answer went over.
    quiet_since: Cell<Instant>,
    /// The mailbox into which the server puts copies of what is sent by itself, once a pass over everything has told.
    copies: RefCell<Option<Option<MailboxName>>>,
}

/// Makes one complete pass over an account.
///
/// # Errors
/// What ended it as a whole. What went wrong with one mailbox or message is in the report.
pub async fn sync(account: &Account, options: &Options, progress: &Progress) -> Result<Report, Error> {
    let mirror = Mirror::open(account, &options.state_dir)?;
    let passed = mirror.pass(&Wanted::All, options, progress).await;
    if !matches!(&passed, Ok(passed) if passed.report.outcome == Outcome::Stopped) {
        mirror.close().await;
    }
    passed.map(|passed| passed.report)
}

impl<'a> Mirror<'a> {
    /// Takes an account. Its root is looked at by each pass.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process has it, [`Error::File`] if its lock cannot be used.
    pub fn open(account: &'a Account, state_dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            account,
            state_dir: state_dir.to_owned(),
            file: state_dir.join(format!("{}.sqlite3", account.name)),
            locks: RefCell::new(Locks::take(state_dir, &account.name)?),
            db: RefCell::default(),
            graveyard: Arc::new(Graveyard::open(state_dir, &account.name)),
            pool: OnceCell::new(),
            route: Route::default(),
            quiet_since: Cell::new(Instant::now()),
            copies: RefCell::default(),
        })
    }

    /// Makes a pass over what is wanted. One at a time: two would do everything twice.
    ///
    /// # Errors
    /// What ended it as a whole. What went wrong with one mailbox or message is in the report.
    pub async fn pass(&self, wanted: &Wanted, options: &Options, progress: &Progress) -> Result<Passed, Error> {
        // A dry run writes into a copy of the database, which is gone when it ends.
        let db = if options.dry_run { Db::scratch(&self.file)? } else { self.db()? };
        let passed = self.pass_with(&db, wanted, options, progress).await;
        let ended = match &passed {
            Ok(passed) => (passed.report.outcome, None),
            Err(error) => (error.outcome(), Some(error.to_string())),
        };
        if let Err(error) = write_down_end(&db, ended).await {
            tracing::warn!(account = self.account.name, %error, "could not keep for status how the pass ended");
        }
        passed
    }

    async fn pass_with(
        &self,
        db: &Db,
        wanted: &Wanted,
        options: &Options,
        progress: &Progress,
    ) -> Result<Passed, Error> {
        let layout = self.layout();
        // Looked at again each time: a disk may have been unmounted, or another one mounted there.
        let root = Root::open(&self.account.maildir, layout)?;
        let marker = root.as_ref().map(Root::marker).transpose()?.flatten();
        self.ask_leave(db).await?;
        let state = db.read(|tx| tx.account()).await?;
        let verdict = judge(&self.account.name, &self.account.maildir, root.is_some(), marker.as_ref(), &state)?;
        let root = match root {
            None if !options.dry_run => Some(Root::create(&self.account.maildir, layout)?),
            root => root,
        };
        if root.is_some() {
            self.locks.borrow_mut().take_root(&self.account.maildir)?;
        }
        let pass = Pass {
            account: self.account,
            options,
            db: db.clone(),
            root,
            graveyard: Arc::clone(&self.graveyard),
            pool: self.pool()?,
            progress,
            ledger: Ledger::default(),
            touched: RefCell::default(),
            quiet_since: &self.quiet_since,
            effects: Cell::new(0),
            ran_out: Cell::new(false),
            hesitations: Cell::new(0),
            withheld: RefCell::default(),
            refused: RefCell::default(),
            full: RefCell::default(),
            begun: Instant::now(),
            acting_since: Cell::new(None),
            wants_all: Cell::new(false),
            for_removals: *wanted == Wanted::Removals,
            copies: &self.copies,
        };
        let mut stop = options.stop.clone();
        let result = tokio::select! {
            result = pass.run(wanted, verdict, marker.map_or(0, |m| m.generation), state) => result,
            // What is cancelled here is found again by the intents; nothing has to be undone.
            _ = stop.wait_for(|stop| *stop) => Ok((Outcome::Stopped, Default::default())),
        };
        let (outcome, left) = match result {
            // A dry run keeps nothing, and a pass over some mailboxes may have had nothing to do with the server.
            Ok(end) if options.dry_run || matches!(wanted, Wanted::Mailboxes(_)) => end,
            Ok(end) => {
                self.learn(db, None).await?;
                end
            }
            Err(error) if options.dry_run => return Err(self.explained(db, error).await?),
            Err(error) => {
                self.learn(db, Some(&error)).await?;
                return Err(self.explained(db, error).await?);
            }
        };
        let did = pass.effects() > 0;
        let again_at = db.read(|tx| tx.next_again()).await?;
        Ok(Passed {
            left,
            did,
            again_at,
            wants_all: pass.wants_all.get(),
            report: pass.ledger.report(&self.account.name, outcome),
        })
    }

    /// Lets what is held go, or puts it back; the next pass does it. Returns the mailboxes in which something was held.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn approve(&self, what: &Approve) -> Result<Vec<Approved>, Error> {
        approve_in(&self.db()?, what).await
    }

    /// Watches all maildirs, those that came since `before` too; `None` while there is no root.
    ///
    /// # Errors
    /// Those of [`Watch::new`].
    pub async fn watch(&self, before: Option<Watch>) -> Result<Option<Watch>, Error> {
        let Some(root) = Root::open(&self.account.maildir, self.layout())? else { return Ok(None) };
        let watch = move || before.map_or_else(|| Watch::new(&root), |before| before.extended(&root));
        Ok(Some(tokio::task::spawn_blocking(watch).await??))
    }

    /// Returns the paths of all maildirs, relative to the root, with their mailboxes; none if there is no root.
    ///
    /// # Errors
    /// Those of listing the root, and those of the database.
    pub async fn maildirs(&self) -> Result<BTreeMap<PathBuf, MailboxName>, Error> {
        let Some(root) = Root::open(&self.account.maildir, self.layout())? else { return Ok(BTreeMap::new()) };
        let found = tokio::task::spawn_blocking(move || root.mailboxes()).await??;
        let db = self.db()?;
        let rows = db.read(|tx| tx.mailboxes()).await?;
        let known: BTreeMap<_, _> = rows.into_iter().filter_map(|row| Some((row.path?, row.name))).collect();
        let name = |path: &PathBuf, name: Option<MailboxName>| known.get(path).cloned().or(name);
        Ok(found.into_iter().filter_map(|(found, path)| Some((path.clone(), name(&path, found)?))).collect())
    }

    /// Tells whether something became of these files that is not what a pass did itself.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn is_news(&self, mailbox: &MailboxName, files: &BTreeMap<Vec<u8>, Fate>) -> Result<bool, Error> {
        if files.len() > MOST_FILES {
            return Ok(true);
        }
        let (db, name, files) = (self.db()?, mailbox.clone(), files.clone());
        let read = db.read(move |tx| {
            let Some(row) = tx.mailbox_named(&name)? else { return Ok(true) };
            let names: Vec<_> = files.keys().map(|file| unique_of(file)).collect();
            Ok(news::is_news(&tx.links_of_names(row.id, &names)?, &files))
        });
        Ok(read.await?)
    }

    /// Returns a session of its own for one who waits for changes: it counts as one of the account's connections.
    ///
    /// # Errors
    /// [`Error::Quiet`] while the server is left alone, and those of connecting and signing in.
    pub async fn session(&self) -> Result<Lease<'_>, Error> {
        self.ask_leave(&self.db()?).await?;
        let lease = self.pool()?.keep().await;
        self.heed(lease).await
    }

    /// Ends when those who wait for changes are to give their sessions back, since the server lets in no others.
    pub async fn is_crowded(&self) {
        match self.pool() {
            Ok(pool) => pool.is_crowded().await,
            // Without one there are no sessions either.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes a session back with what was done over it; returns the result.
    ///
    /// # Errors
    /// Those in the result.
    pub async fn done<T>(&self, lease: Lease<'_>, result: Result<T, Error>) -> Result<T, Error> {
        self.heed(lease.done(result)).await
    }

    /// Keeps it if a server that was not asked by a pass wants to be left alone. (That it does not open the mailbox may be
    /// since passes have all the sessions that it allows.)
    async fn heed<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::Imap(imap::Error::Throttled { .. })) = &result {
            self.learn(&self.db()?, Some(error)).await?;
        }
        result
    }

    /// Looks whether the server may be asked for anything, and by which way.
    async fn ask_leave(&self, db: &Db) -> Result<(), Error> {
        let (service, now) = (db.read(|tx| tx.service()).await?, now_ms() / 1000);
        if let Some((until, why)) = service.quiet_at(now) {
            return Err(Error::Quiet { until, why: why.to_owned() });
        }
        if let Some(until) = service.ipv4_until {
            self.route.set_ipv4_only(until > now);
        }
        Ok(())
    }

    /// Keeps what the next pass, or the next run, must know of how the server treats the account.
    async fn learn(&self, db: &Db, end: Option<&Error>) -> Result<(), Error> {
        let before = db.read(|tx| tx.service()).await?;
        let service = service::after(&before, end, now_ms() / 1000, self.route.is_ipv4_only());
        if service != before {
            db.commit(move |tx| tx.set_service(&service)).await?;
        }
        // Whoever wants to be left alone gets no goodbye either.
        if let (Some(Error::Imap(imap::Error::Throttled { .. })), Some(pool)) = (end, self.pool.get()) {
            pool.cut();
        }
        Ok(())
    }

    async fn explained(&self, db: &Db, error: Error) -> Result<Error, Error> {
        let service = db.read(|tx| tx.service()).await?;
        Ok(service::explained(error, &service, now_ms() / 1000))
    }

    /// Breaks all connections: whoever waits for an answer over one is told so, and the next one is opened anew.
    pub fn cut(&self) {
        if let Some(pool) = self.pool.get() {
            pool.cut();
        }
    }

    /// Breaks all connections, and opens no others until [`Self::wake`]: what is under way fails.
    pub fn sleep(&self) {
        if let Some(pool) = self.pool.get() {
            pool.sleep();
        }
    }

    /// Opens connections again.
    pub fn wake(&self) {
        if let Some(pool) = self.pool.get() {
            pool.wake();
        }
    }

    /// Says goodbye on all sessions that are not on loan.
    pub async fn close(&self) {
        if let Some(pool) = self.pool.get() {
            pool.close().await;
        }
    }

    fn pool(&self) -> Result<&Pool<'a>, Error> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let pool =
            Pool::new(self.account, connect(self.account, &self.state_dir, self.route.clone()), &self.state_dir)?;
        Ok(self.pool.get_or_init(|| pool))
    }

    fn layout(&self) -> Layout {
        match self.account.layout {
            config::Layout::Nested => Layout::Nested,
            config::Layout::PlusPlus => Layout::PlusPlus,
        }
    }

    fn db(&self) -> Result<Db, Error> {
        let mut db = self.db.borrow_mut();
        Ok(match &*db {
            Some(db) => db.clone(),
            None => db.insert(Db::open(&self.file)?).clone(),
        })
    }
}

/// Keeps for `status` why a pass ended before it was through, until one is.
async fn write_down_end(db: &Db, (outcome, failure): (Outcome, Option<String>)) -> Result<(), db::Error> {
    let failure = match (failure, outcome.word()) {
        (None, _) if outcome == Outcome::Stopped => return Ok(()),
        (None, _) => None,
        (Some(text), Some(word)) => Some(Failure { at: now_ms() / 1000, text, outcome: word.to_owned() }),
        (Some(_), None) => return Ok(()),
    };
    if failure.is_none() && db.read(|tx| tx.failure()).await?.is_none() {
        return Ok(());
    }
    db.commit(move |tx| tx.set_failure(failure.as_ref())).await
}

/// Returns the way to an account's server.
pub(super) fn connect(account: &Account, state_dir: &Path, route: Route) -> Connect {
    let tls = match account.tls {
        config::TlsMode::Implicit => {
            Tls::Implicit { ca_file: account.tls_ca_file.clone(), pins: account.tls_pins.clone() }
        }
        config::TlsMode::None => Tls::None,
    };
    Connect {
        host: account.host.clone(),
        other_hosts: account.other_hosts.clone(),
        port: account.port,
        tls,
        spool_dir: state_dir.to_owned(),
        max_literal: account.max_message_size,
        timeout: shortened(Duration::from_secs(90)),
        connect_timeout: Duration::from_secs(30),
        quirks: match account.provider {
            Some(Provider::Outlook) => Quirks::outlook(),
            None => Quirks::of_host(&account.host),
        },
        route,
    }
}
