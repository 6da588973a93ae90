//! Carries out what [`tree`](super::tree) decides about whole mailboxes, and names those that a round is to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use super::burial::delete;
use super::cycle::Job;
use super::execute::{Place, Trash};
use super::observe::raw_name;
use super::pass::{Pass, now_ms};
use super::renaming::{is_same_here, is_same_there};
use super::report::{Change, Here};
use super::tree::{Step, reconcile};
use crate::config::{Direction, OnLocal, OnServer};
use crate::db::{Entry, HoldCause, Mailbox, NewMailbox};
use crate::imap::{self, Habit, Lists, MailboxStatus, Role, Session};
use crate::maildir::Maildir;
use crate::model::{Cursor, MailboxId, MailboxName};

/// What a round has to do, and the mailboxes that there are.
#[derive(Default)]
pub(super) struct Prepared {
    pub jobs: Vec<Job>,
    pub places: BTreeMap<MailboxName, Place>,
    pub trash: Option<Trash>,
    /// Mailboxes that the next round is to look at.
    pub left: BTreeSet<MailboxName>,
    /// Something was done.
    pub did: bool,
    /// These are not all mailboxes that there are.
    pub partial: bool,
}

/// Brings the mailboxes of both sides together and returns those to look at.
pub(super) async fn prepare(
    pass: &Pass<'_>,
    session: &mut Session,
    lists: Lists,
    wanted: Option<&BTreeSet<MailboxName>>,
    unite: bool,
) -> Result<Prepared, Error> {
    let Lists { mailboxes, unusable } = lists;
    for (name, why) in unusable {
        pass.account_problem(format!("mailbox {name} of the server cannot be mirrored: {why}"), None);
    }
    let in_scope = |name: &MailboxName| pass.account.mailboxes.matches(name) && pass.options.mailboxes.matches(name);
    let trash = find_trash(pass, &mailboxes);
    let sent = mailboxes.iter().find(|l| l.role == Some(Role::Sent)).map(|l| l.name.clone());
    let copies = sent.filter(|_| session.quirks().has(Habit::CopiesSent));
    pass.copies.replace(Some(copies.clone()));
    let ignores_case = session.quirks().has(Habit::IgnoresCase);
    let there: BTreeMap<MailboxName, imap::Listed> =
        mailboxes.into_iter().filter(|l| l.selectable && in_scope(&l.name)).map(|l| (l.name.clone(), l)).collect();
    let rows: BTreeMap<MailboxId, Mailbox> =
        pass.db.read(|tx| tx.mailboxes()).await?.into_iter().filter(|m| in_scope(&m.name)).map(|m| (m.id, m)).collect();
    let here: BTreeSet<MailboxName> = maildirs(pass, &rows)?.into_iter().filter(|name| in_scope(name)).collect();
    let known: BTreeMap<MailboxName, MailboxId> = rows.values().map(|m| (m.name.clone(), m.id)).collect();
    let listed: BTreeSet<MailboxName> = there.keys().cloned().collect();
    let push = pass.account.direction == Direction::Both;
    let mut round = Round {
        pass,
        session,
        there: &there,
        wanted,
        unite,
        copies,
        ignores_case,
        new_there: listed.iter().filter(|name| !known.contains_key(name)).cloned().collect(),
        new_here: here.iter().filter(|n| !known.contains_key(n) && !listed.contains(n)).cloned().collect(),
        renamed: Vec::new(),
        out: Prepared { trash, ..Prepared::default() },
    };
    for step in reconcile(&listed, &known, &here, push) {
        let name = name_of(&step).clone();
        match round.carry_out(step, &rows).await {
            Ok(()) => {}
            Err(error) if error.is_for_account() || error.is_worth_a_retry() => return Err(error),
            Err(error) => pass.failed_mailbox(&name, &error).await,
        }
    }
    Ok(round.out)
}

/// Returns the jobs for mailboxes that something happened to, without a look at any others; asks for a pass over
/// everything where a mailbox is new, gone, or not in order.
pub(super) async fn prepare_some(pass: &Pass<'_>, changes: &BTreeMap<MailboxName, Change>) -> Result<Prepared, Error> {
    let mut out = Prepared { partial: true, ..Prepared::default() };
    // Only a list of all mailboxes tells which of them it is.
    let Some(copies_into) = pass.copies.borrow().clone() else {
        pass.wants_all.set(true);
        return Ok(out);
    };
    let names: Vec<MailboxName> = changes.keys().cloned().collect();
    let read = pass.db.read(move |tx| {
        let rows = names.iter().map(|name| Ok(tx.mailbox_named(name)?.map(|row| (row.name.clone(), row))));
        let rows = rows.filter_map(Result::transpose).collect::<Result<BTreeMap<_, _>, crate::db::Error>>()?;
        Ok((rows, tx.renamings()?))
    });
    let (rows, renamings) = read.await?;
    if !renamings.is_empty() {
        pass.wants_all.set(true);
        return Ok(out);
    }
    for (name, change) in changes {
        if !pass.account.mailboxes.matches(name) {
            continue;
        }
        let row = rows.get(name).filter(|row| row.raw.is_some() && row.missing_since.is_none());
        let maildir = match row.and_then(|row| row.path.as_ref()) {
            Some(path) => pass.maildir(path)?,
            None => None,
        };
        let (Some(mailbox), Some(maildir)) = (row.cloned(), maildir) else {
            pass.wants_all.set(true);
            continue;
        };
        // Another directory than before may be that of another mailbox.
        if mailbox.directory.is_some_and(|known| maildir.stamp().is_ok_and(|stamp| stamp.directory() != known)) {
            pass.wants_all.set(true);
            continue;
        }
        let place = Place { mailbox: mailbox.clone(), maildir: Arc::clone(&maildir) };
        out.places.insert(name.clone(), place);
        let copies = copies_into.as_ref() == Some(name);
        out.jobs.push(Job {
            mailbox,
            maildir: Some(maildir),
            changed_there: change.there,
            flags_there: change.flags_there,
            // Nobody asked; so the next pass over everything looks again.
            unseen: None,
            copies,
            here: change.here.clone(),
            unite: false,
            gone: false,
            alone: true,
        });
    }
    Ok(out)
}

fn name_of(step: &Step) -> &MailboxName {
    match step {
        Step::Mirror { name, .. }
        | Step::Create { name }
        | Step::MaildirMissing { name, .. }
        | Step::GoneThere { name, .. }
        | Step::Forget { name, .. } => name,
    }
}

/// Returns the state of a mailbox, if the server told it.
pub(super) fn status(listed: &imap::Listed) -> Option<&MailboxStatus> {
    listed.status.as_ref()?.as_ref().ok()
}

/// Returns where mails that are thrown away go, by what the user wants and the server has.
fn find_trash(pass: &Pass<'_>, listed: &[imap::Listed]) -> Option<Trash> {
    let wants = pass.account.deletions.on_local;
    let found = listed.iter().find(|l| l.role == Some(Role::Trash) && l.selectable);
    match (wants, found) {
        (OnLocal::Auto | OnLocal::Trash, Some(l)) => Some(Trash { name: l.name.clone(), raw: l.raw.clone() }),
        (OnLocal::Trash, None) => {
            let text =
                "the server has no trash mailbox, so what is deleted here is copied to the graveyard and expunged";
            pass.account_problem(text.to_owned(), None);
            None
        }
        (OnLocal::Auto, None) | (OnLocal::Expunge | OnLocal::Keep, _) => None,
    }
}

/// Returns the mailboxes that have a maildir: those found below the root, and those at the paths of known ones.
fn maildirs(pass: &Pass<'_>, rows: &BTreeMap<MailboxId, Mailbox>) -> Result<BTreeSet<MailboxName>, Error> {
    let Some(root) = &pass.root else { return Ok(BTreeSet::new()) };
    let mut here = BTreeSet::new();
    for (name, path) in root.mailboxes()? {
        match name {
            Some(name) => drop(here.insert(name)),
            None if rows.values().any(|row| row.path.as_ref() == Some(&path)) => {}
            None => {
                let path = root.path().join(path);
                let text = format!("the maildir {} was passed over", path.to_string_lossy().escape_debug());
                let advice = "no mailbox is kept at this path; rename it, or move its messages to another maildir";
                pass.account_problem(text, Some(advice.to_owned()));
            }
        }
    }
    for row in rows.values() {
        if let Some(path) = &row.path
            && !here.contains(&row.name)
            && !matches!(root.maildir(path), Ok(None))
        {
            here.insert(row.name.clone());
        }
    }
    Ok(here)
}

/// Returns a journal entry about a mailbox as a whole.
pub(super) fn entry(mailbox: &MailboxName, kind: &str, op: String, cause: &str) -> Entry {
    Entry { at: now_ms(), mailbox: mailbox.clone(), op, cause: cause.to_owned(), kind: kind.to_owned(), kept: None }
}

struct Round<'r, 'p> {
    pass: &'r Pass<'p>,
    session: &'r mut Session,
    there: &'r BTreeMap<MailboxName, imap::Listed>,
    wanted: Option<&'r BTreeSet<MailboxName>>,
    unite: bool,
    /// The mailbox into which the server puts copies of what is sent.
    copies: Option<MailboxName>,
    /// Mailbox names that differ by case only are one on the server.
    ignores_case: bool,
    /// Unknown mailboxes of the server: one of them may be a known one under a new name.
    new_there: Vec<MailboxName>,
    /// Unknown maildirs, likewise.
    new_here: Vec<MailboxName>,
    /// Renames that were followed: a mailbox takes those below it along.
    renamed: Vec<(MailboxName, MailboxName)>,
    out: Prepared,
}

impl Round<'_, '_> {
    async fn carry_out(&mut self, step: Step, rows: &BTreeMap<MailboxId, Mailbox>) -> Result<(), Error> {
        let row = |id: MailboxId| rows.get(&id).cloned();
        match step {
            // A name that a rename turned out to have led to is not new any more.
            Step::Mirror { name, known: None, .. } if !self.new_there.contains(&name) => Ok(()),
            Step::Create { name } if !self.new_here.contains(&name) => Ok(()),
            Step::Mirror { name, known, make_maildir } => self.mirror(name, known.and_then(row), make_maildir).await,
            Step::Create { name } => self.create(name).await,
            Step::MaildirMissing { known, .. } => match row(known) {
                Some(row) => self.maildir_missing(row).await,
                None => Ok(()),
            },
            Step::GoneThere { known, .. } => match row(known) {
                Some(row) => self.gone_there(row).await,
                None => Ok(()),
            },
            Step::Forget { known, name } => {
                tracing::info!(mailbox = %name, "forgot a mailbox that neither side has any more");
                self.forget(
                    known,
                    entry(&name, "forget", "forget the mailbox".to_owned(), "neither side has it any more"),
                )
                .await
            }
        }
    }

    /// Tells whether this rename came along with that of a mailbox above.
    fn came_along(&self, from: &MailboxName, to: &MailboxName) -> bool {
        self.renamed.iter().any(|(above, now)| {
            let below = from.as_str().strip_prefix(above.as_str()).filter(|rest| rest.starts_with('/'));
            below.is_some() && below == to.as_str().strip_prefix(now.as_str())
        })
    }

    async fn forget(&mut self, id: MailboxId, done: Entry) -> Result<(), Error> {
        let write = self.pass.db.commit(move |tx| {
            tx.journal(&done)?;
            delete(tx, id)
        });
        Ok(write.await?)
    }

    fn path_of(&self, name: &MailboxName) -> Result<PathBuf, Error> {
        match &self.pass.root {
            Some(root) => Ok(root.path_of(name)?),
            // In a dry run of the first pass nothing is there, and nothing is made.
            None => Ok(PathBuf::from(name.as_str())),
        }
    }

    async fn mirror(&mut self, name: MailboxName, row: Option<Mailbox>, make_maildir: bool) -> Result<(), Error> {
        let listed = self.there.get(&name);
        let raw = listed.map(|l| l.raw.as_bytes().to_vec());
        let path = match row.as_ref().and_then(|r| r.path.clone()) {
            Some(path) => path,
            None => self.path_of(&name)?,
        };
        let mut maildir = self.pass.maildir(&path)?;
        let mut made = None;
        if maildir.is_none() && make_maildir {
            if self.pass.options.dry_run {
                self.pass.would(&name, "create the maildir".to_owned(), "new on the server");
            } else if let Some(root) = &self.pass.root {
                maildir = Some(Arc::new(root.create_maildir(&path)?));
                made = Some(entry(&name, "create", "create the maildir".to_owned(), "new on the server"));
                self.out.did = true;
            }
        }
        let row = match row {
            None => self.insert(NewMailbox { name: name.clone(), raw: raw.clone(), path: Some(path) }, made).await?,
            Some(mut row) if raw.is_some() && (row.raw != raw || row.missing_since.is_some()) => {
                (row.raw, row.missing_since) = (raw, None);
                self.update(row).await?
            }
            Some(row) => row,
        };
        self.look_at(row, maildir, listed.and_then(status).copied());
        Ok(())
    }

    /// Adds a mailbox to those that there are, and to those to look at.
    fn look_at(&mut self, mailbox: Mailbox, maildir: Option<Arc<Maildir>>, status: Option<MailboxStatus>) {
        if let Some(maildir) = &maildir {
            let place = Place { mailbox: mailbox.clone(), maildir: Arc::clone(maildir) };
            self.out.places.insert(mailbox.name.clone(), place);
        }
        if self.wanted.is_some_and(|wanted| !wanted.contains(&mailbox.name)) {
            return;
        }
        let has_mod_seq = self.session.capabilities().has("CONDSTORE");
        let sweeps = mailbox.sweeps && self.session.quirks().has(Habit::Sweeps);
        let oldest = i64::try_from(self.pass.account.sweep_after.as_secs()).unwrap_or(i64::MAX);
        let just_swept = mailbox.swept_at.is_some_and(|at| self.pass.now() - at < oldest);
        // A sweep of a moment ago holds, unless the number of unread messages tells otherwise.
        let spares = sweeps && just_swept || self.pass.for_removals;
        let may_differ = |mailbox: &Mailbox, cursor: &Cursor, status: &MailboxStatus| {
            !spares || status.unseen != cursor.unseen || mailbox.must_list
        };
        let changed_there = match (&status, &mailbox.cursor) {
            // Without a change counter nothing but a listing tells whether flags changed.
            (Some(status), Some(cursor)) => {
                !has_mod_seq && may_differ(&mailbox, cursor, status)
                    || status.uid_validity != cursor.uid_validity
                    || status.uid_next != Some(cursor.uid_next)
                    || status.messages != cursor.messages
                    || has_mod_seq && status.highest_mod_seq.is_none()
                    || status.highest_mod_seq != cursor.highest_mod_seq
            }
            _ => true,
        };
        let unseen = status.and_then(|status| status.unseen);
        let copies = self.copies.as_ref() == Some(&mailbox.name);
        let unite = self.unite;
        self.out.jobs.push(Job {
            mailbox,
            maildir,
            changed_there,
            flags_there: true,
            unseen,
            copies,
            here: Here::ANYTHING,
            unite,
            gone: false,
            alone: false,
        });
    }

    /// Writes down a new mailbox, and in the journal that it was made.
    async fn insert(&mut self, new: NewMailbox, made: Option<Entry>) -> Result<Mailbox, Error> {
        let inserted = self.pass.db.commit(move |tx| {
            let id = tx.insert_mailbox(&new)?;
            if let Some(entry) = made {
                tx.journal(&entry)?;
            }
            tx.mailbox(id)
        });
        inserted.await?.ok_or_else(|| Error::Worker("a mailbox that was just written is not there".to_owned()))
    }

    async fn update(&mut self, row: Mailbox) -> Result<Mailbox, Error> {
        let write = row.clone();
        self.pass.db.commit(move |tx| tx.update_mailbox(&write)).await?;
        Ok(row)
    }

    /// Writes down a mailbox and, in the journal, what was done to it.
    async fn update_for(&mut self, row: Mailbox, done: Entry) -> Result<Mailbox, Error> {
        let write = row.clone();
        let write = self.pass.db.commit(move |tx| {
            tx.update_mailbox(&write)?;
            tx.journal(&done)
        });
        write.await?;
        Ok(row)
    }

    /// Returns the mailbox that the server takes for the same as one of this name, though it is spelled in another case.
    fn other_case(&self, name: &MailboxName) -> Option<&MailboxName> {
        let folded = name.as_str().to_lowercase();
        let known = self.there.keys().chain(self.out.places.keys());
        let mut same = known.filter(|other| *other != name && other.as_str().to_lowercase() == folded);
        same.next().filter(|_| self.ignores_case)
    }

    async fn create(&mut self, name: MailboxName) -> Result<(), Error> {
        if let Some(other) = self.other_case(&name) {
            let text = format!(
                "the maildir {name} is not mirrored: the server does not tell its name from that of mailbox {other}"
            );
            let advice = format!("move its messages to {other}, or give it a name that differs by more than case");
            self.pass.account_problem(text, Some(advice));
            return Ok(());
        }
        if self.pass.options.dry_run {
            self.pass.would(&name, "create the mailbox".to_owned(), "new here");
            return Ok(());
        }
        let raw = self.session.raw_name(&name)?;
        self.session.create(&raw).await?;
        self.out.did = true;
        let path = self.path_of(&name)?;
        let maildir = self.pass.maildir(&path)?;
        let made = entry(&name, "create", "create the mailbox".to_owned(), "new here");
        let new = NewMailbox { name, raw: Some(raw.as_bytes().to_vec()), path: Some(path) };
        let row = self.insert(new, Some(made)).await?;
        self.look_at(row, maildir, None);
        Ok(())
    }

    /// Follows a rename on the server, if the messages under the new name are those that were under the old one.
    async fn was_renamed_there(&mut self, mut row: Mailbox, to: &MailboxName) -> Result<bool, Error> {
        let Some(listed) = self.there.get(to) else { return Ok(false) };
        let sample = self.pass.sample(row.id).await?;
        if sample.is_empty() || !is_same_there(self.session, &row, listed, &sample).await? {
            return Ok(false);
        }
        let path = self.path_of(to)?;
        if self.pass.options.dry_run {
            self.pass.would(&row.name, format!("rename the maildir to {to}"), "renamed on the server");
            return Ok(true);
        }
        if let (Some(root), Some(from)) = (&self.pass.root, &row.path)
            && !(self.came_along(&row.name, to) && root.maildir(from)?.is_none())
        {
            root.rename_maildir(from, &path)?;
        }
        self.renamed.push((row.name.clone(), to.clone()));
        tracing::info!(from = %row.name, %to, "followed a rename on the server");
        let done = entry(&row.name, "rename", format!("rename the maildir to {to}"), "renamed on the server");
        (row.name, row.raw, row.path) = (to.clone(), Some(listed.raw.as_bytes().to_vec()), Some(path.clone()));
        let row = self.update_for(row, done).await?;
        self.out.did = true;
        let maildir = self.pass.maildir(&path)?;
        self.look_at(row, maildir, status(listed).copied());
        Ok(true)
    }

    /// Renames a mailbox on the server whose maildir was renamed, if the files under the new name are those that were
    /// under the old one.
    async fn was_renamed_here(&mut self, mut row: Mailbox, to: &MailboxName) -> Result<bool, Error> {
        let path = self.path_of(to)?;
        let Some(maildir) = self.pass.maildir(&path)? else { return Ok(false) };
        let sample = self.pass.sample(row.id).await?;
        if sample.is_empty() || !is_same_here(Arc::clone(&maildir), &sample).await? {
            return Ok(false);
        }
        if self.pass.options.dry_run {
            self.pass.would(&row.name, format!("rename the mailbox to {to}"), "renamed here");
            return Ok(true);
        }
        let raw = self.session.raw_name(to)?;
        if !self.came_along(&row.name, to) {
            self.session.rename(&raw_name(&row), &raw).await?;
        }
        self.renamed.push((row.name.clone(), to.clone()));
        tracing::info!(from = %row.name, %to, "renamed on the server what was renamed here");
        let done = entry(&row.name, "rename", format!("rename the mailbox to {to}"), "renamed here");
        (row.name, row.raw, row.path) = (to.clone(), Some(raw.as_bytes().to_vec()), Some(path));
        let row = self.update_for(row, done).await?;
        self.out.did = true;
        self.look_at(row, Some(maildir), None);
        Ok(true)
    }

    /// Holds a mailbox whose maildir is missing, unless it has a new name; once the user has decided, the maildir is made again.
    async fn maildir_missing(&mut self, row: Mailbox) -> Result<(), Error> {
        if self.pass.account.direction == Direction::Both && !row.name.is_inbox() {
            for to in self.new_here.clone() {
                if self.other_case(&to).is_none() && self.was_renamed_here(row.clone(), &to).await? {
                    self.new_here.retain(|name| *name != to);
                    return Ok(());
                }
            }
        }
        let id = row.id;
        let (counts, hold) = self.pass.db.read(move |tx| Ok((tx.count(id)?, tx.mailbox_hold(id)?))).await?;
        let known = counts.synced + counts.downloading + counts.uploading;
        if known == 0 || hold.as_ref().is_some_and(|h| h.approved) {
            if !self.pass.options.dry_run {
                if let (Some(root), Some(path)) = (&self.pass.root, &row.path) {
                    root.create_maildir(path)?;
                }
                self.pass.db.commit(move |tx| tx.release(id)).await?;
                self.out.did = true;
            }
            let made = entry(&row.name, "create", "create the maildir".to_owned(), "it was missing");
            let row = Mailbox { must_scan: true, stamp: None, ..row };
            let (name, row) = (row.name.clone(), self.update_for(row, made).await?);
            return self.mirror(name, Some(row), false).await;
        }
        let why =
            format!("its maildir is missing, and {known} messages with it; put it back, or say what the absence means");
        self.pass.hold(&row.name, known, why.clone());
        self.pass.db.commit(move |tx| tx.hold_mailbox(id, HoldCause::MaildirMissing, &why)).await?;
        Ok(())
    }

    /// Takes up a mailbox that the server lists no more. If it has no new name, then after a second LIST and a refused SELECT it is gone.
    async fn gone_there(&mut self, row: Mailbox) -> Result<(), Error> {
        for to in self.new_there.clone() {
            if self.was_renamed_there(row.clone(), &to).await? {
                self.new_there.retain(|name| *name != to);
                return Ok(());
            }
        }
        let keeps = self.pass.account.deletions.on_server == OnServer::Keep;
        if row.missing_since.is_none() {
            let name = row.name.clone();
            let row = Mailbox { missing_since: Some(self.pass.now()), ..row };
            self.update(row).await?;
            if !keeps {
                self.out.left.insert(name);
            }
            return Ok(());
        }
        if keeps {
            return Ok(());
        }
        let raw = raw_name(&row);
        match self.session.select(&raw).await {
            Err(imap::Error::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let text = "the server does not list it, but has it; nothing was done about it".to_owned();
                self.pass.problem(&row.name, text);
                self.pass.partial(&row.name);
                return Ok(());
            }
        }
        if self.wanted.is_some_and(|wanted| !wanted.contains(&row.name)) {
            return Ok(());
        }
        let maildir = match &row.path {
            Some(path) => self.pass.maildir(path)?,
            None => None,
        };
        self.out.jobs.push(Job {
            mailbox: row,
            maildir,
            changed_there: true,
            flags_there: true,
            unseen: None,
            copies: false,
            here: Here::ANYTHING,
            unite: false,
            gone: true,
            alone: false,
        });
        Ok(())
    }
}
