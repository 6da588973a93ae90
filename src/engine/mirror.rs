//! An account that stays open between passes: its locks, its database, its sessions.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::approve::approve_in;
use super::ledger::Ledger;
use super::lock::Locks;
use super::news;
use super::pass::Pass;
use super::pool::{Lease, Pool};
use super::report::{Approve, Approved, Options, Outcome, Passed, Progress, Report, Wanted};
use super::root::judge;
use crate::config::{self, Account};
use crate::db::Db;
use crate::imap::{Connect, Quirks, Tls};
use crate::maildir::{Graveyard, Layout, Root, unique_of};
use crate::model::MailboxName;

/// An account that this process has: nobody else writes to its database or its root until this is dropped.
pub struct Mirror<'a> {
    account: &'a Account,
    file: PathBuf,
    locks: RefCell<Locks>,
    /// Opened by the first pass that acts: a dry run makes none.
    db: RefCell<Option<Db>>,
    graveyard: Arc<Graveyard>,
    pool: Pool<'a>,
    /// Since when no connection is alive any more that an append without an answer went over.
    quiet_since: Cell<Instant>,
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
            file: state_dir.join(format!("{}.sqlite3", account.name)),
            locks: RefCell::new(Locks::take(state_dir, &account.name)?),
            db: RefCell::default(),
            graveyard: Arc::new(Graveyard::open(state_dir, &account.name)),
            pool: Pool::new(account, connect(account, state_dir)),
            quiet_since: Cell::new(Instant::now()),
        })
    }

    /// Makes a pass over what is wanted. One at a time: two would do everything twice.
    ///
    /// # Errors
    /// What ended it as a whole. What went wrong with one mailbox or message is in the report.
    pub async fn pass(&self, wanted: &Wanted, options: &Options, progress: &Progress) -> Result<Passed, Error> {
        // A dry run writes into a copy of the database, which is gone when it ends.
        let db = if options.dry_run { Db::scratch(&self.file)? } else { self.db()? };
        let layout = self.layout();
        // Looked at again each time: a disk may have been unmounted, or another one mounted there.
        let root = Root::open(&self.account.maildir, layout)?;
        let marker = root.as_ref().map(Root::marker).transpose()?.flatten();
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
            db,
            root,
            graveyard: Arc::clone(&self.graveyard),
            pool: &self.pool,
            progress,
            ledger: Ledger::default(),
            touched: RefCell::default(),
            quiet_since: &self.quiet_since,
            effects: Cell::new(0),
            hesitations: Cell::new(0),
            begun: Instant::now(),
            acting_since: Cell::new(None),
            wants_all: Cell::new(false),
        };
        let mut stop = options.stop.clone();
        let result = tokio::select! {
            result = pass.run(wanted, verdict, marker.map_or(0, |m| m.generation), state) => result,
            // What is cancelled here is found again by the intents; nothing has to be undone.
            _ = stop.wait_for(|stop| *stop) => Ok((Outcome::Stopped, Default::default())),
        };
        let (outcome, left) = result?;
        let did = pass.effects() > 0;
        Ok(Passed {
            left,
            did,
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

    /// Tells whether something happened to these files that is not what a pass did itself: by their names, whether each came
    /// last, or went.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn is_news(&self, mailbox: &MailboxName, files: BTreeMap<Vec<u8>, bool>) -> Result<bool, Error> {
        if files.len() > news::MOST {
            return Ok(true);
        }
        let (db, name) = (self.db()?, mailbox.clone());
        let read = db.read(move |tx| {
            let Some(row) = tx.mailboxes()?.into_iter().find(|row| row.name == name) else { return Ok(true) };
            let names: Vec<_> = files.keys().map(|file| unique_of(file)).collect();
            Ok(news::is_news(&tx.links_of_names(row.id, &names)?, &files))
        });
        Ok(read.await?)
    }

    /// Returns a session of its own for one who waits for changes: it counts as one of the account's connections.
    ///
    /// # Errors
    /// Those of connecting and signing in.
    pub async fn session(&self) -> Result<Lease<'_>, Error> {
        self.pool.get().await
    }

    /// Breaks all connections: whoever waits for an answer over one is told so, and the next one is opened anew.
    pub fn cut(&self) {
        self.pool.cut();
    }

    /// Says goodbye on all sessions that are not on loan.
    pub async fn close(&self) {
        self.pool.close().await;
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

fn connect(account: &Account, state_dir: &Path) -> Connect {
    let tls = match account.tls {
        config::TlsMode::Implicit => {
            Tls::Implicit { ca_file: account.tls_ca_file.clone(), pins: account.tls_pins.clone() }
        }
        config::TlsMode::None => Tls::None,
    };
    Connect {
        host: account.host.clone(),
        port: account.port,
        tls,
        spool_dir: state_dir.to_owned(),
        max_literal: account.max_message_size,
        timeout: Duration::from_secs(90),
        connect_timeout: Duration::from_secs(30),
        quirks: Quirks::default(),
    }
}
