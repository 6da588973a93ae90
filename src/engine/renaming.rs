//! Follows mailboxes that changed their names in a chain or in a circle ([`chains`](super::chains)), where one has by now
//! the name that another is known by: the maildirs those on the server, or the other way round.
//!
//! The intent first; then each gets a name that nothing else has, and then, when no old name is in the way any more, its
//! new one. What a crash interrupts, the next pass finishes before it looks at anything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::chains::{Chain, chains};
use super::mailboxes::{entry, status};
use super::observe::{raw_name, settle_sizes};
use super::pass::Pass;
use crate::config::Direction;
use crate::db::{Mailbox, Renaming};
use crate::imap::{self, Habit, Listed, Lists, RawName, Session};
use crate::maildir::{Maildir, Root};
use crate::model::{Link, LinkState, MailboxId, MailboxName, Side, UidSet, UidValidity};

/// How many messages prove that a mailbox is another one under a new name.
const SAMPLE: usize = 20;

/// The mailboxes of the server after all that was followed.
pub(super) struct Followed {
    /// What the server lists now.
    pub lists: Lists,
    /// Something was renamed.
    pub did: bool,
}

/// What both sides have under which name.
struct View<'l> {
    /// Of all mailboxes.
    paths: BTreeSet<PathBuf>,
    rows: BTreeMap<MailboxName, Mailbox>,
    there: BTreeMap<MailboxName, &'l Listed>,
}

impl View<'_> {
    fn epoch_there(&self, name: &MailboxName) -> Option<UidValidity> {
        Some(status(self.there.get(name)?)?.uid_validity)
    }
}

impl Pass<'_> {
    /// Follows all chains and circles; `None` in a dry run that would follow one, since it cannot tell what comes then.
    pub(super) async fn follow_chains(
        &self,
        session: &mut Session,
        mut lists: Lists,
    ) -> Result<Option<Followed>, Error> {
        let mut did = false;
        let mut renamings = self.db.read(|tx| tx.renamings()).await?;
        loop {
            if renamings.is_empty() {
                renamings = self.find_renamings(session, &lists).await?;
                if renamings.is_empty() {
                    return Ok(Some(Followed { lists, did }));
                }
                if !self.options.dry_run {
                    let intents = renamings.clone();
                    self.db.commit(move |tx| intents.iter().try_for_each(|one| tx.begin_renaming(one))).await?;
                }
            }
            if self.options.dry_run {
                self.announce(&renamings).await?;
                return Ok(None);
            }
            let followed = self.carry_out(session, &lists, std::mem::take(&mut renamings)).await?;
            lists = session.list().await?;
            if !followed {
                return Ok(Some(Followed { lists, did }));
            }
            did = true;
        }
    }

    async fn announce(&self, renamings: &[Renaming]) -> Result<(), Error> {
        let rows = self.db.read(|tx| tx.mailboxes()).await?;
        for one in renamings {
            let (what, why) = words(one.side);
            if let Some(row) = rows.iter().find(|row| row.id == one.mailbox) {
                self.would(&row.name, format!("rename the {what} to {}", one.name), why);
            }
        }
        Ok(())
    }

    /// Returns what is to be renamed so that one side follows the other: first the maildirs.
    async fn find_renamings(&self, session: &mut Session, lists: &Lists) -> Result<Vec<Renaming>, Error> {
        let Some(root) = &self.root else { return Ok(Vec::new()) };
        let in_scope =
            |name: &MailboxName| self.account.mailboxes.matches(name) && self.options.mailboxes.matches(name);
        let rows = self.db.read(|tx| tx.mailboxes()).await?;
        let selectable = lists.mailboxes.iter().filter(|l| l.selectable && in_scope(&l.name));
        let view = View {
            paths: rows.iter().filter_map(|row| row.path.clone()).collect(),
            rows: rows.into_iter().filter(|row| in_scope(&row.name)).map(|row| (row.name.clone(), row)).collect(),
            there: selectable.map(|l| (l.name.clone(), l)).collect(),
        };
        let seen = view.there.keys().filter_map(|name| Some((name.clone(), view.epoch_there(name)?))).collect();
        let epoch = |row: &Mailbox| row.cursor.map(|cursor| cursor.uid_validity);
        let known = view.rows.iter().map(|(name, row)| (name.clone(), epoch(row))).collect();
        for chain in chains(&known, &seen) {
            let found = self.renamed_there(session, root, &view, &chain).await?;
            if let Some(found) = found.filter(|found| self.can_step_aside(session, lists, found)) {
                return Ok(found);
            }
        }
        if self.account.direction != Direction::Both {
            return Ok(Vec::new());
        }
        let mut seen = BTreeMap::new();
        for (name, path) in root.mailboxes()? {
            if let (Some(name), Some(inode)) = (name.filter(in_scope), root.directory_of(&path)?) {
                seen.insert(name, inode);
            }
        }
        let known = view.rows.iter().map(|(name, row)| (name.clone(), row.directory)).collect();
        for chain in chains(&known, &seen) {
            let found = self.renamed_here(session, root, lists, &view, &chain).await?;
            if let Some(found) = found.filter(|found| self.can_step_aside(session, lists, found)) {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Returns which maildirs get which names, if the messages on the server prove the chain, and nothing else lies
    /// where a maildir is to go.
    async fn renamed_there(
        &self,
        session: &mut Session,
        root: &Root,
        view: &View<'_>,
        chain: &Chain,
    ) -> Result<Option<Vec<Renaming>>, Error> {
        let given_up: BTreeSet<&PathBuf> = chain.keys().filter_map(|from| view.rows.get(from)?.path.as_ref()).collect();
        let (mut found, mut proven) = (Vec::new(), false);
        for (from, to) in chain {
            let (Some(row), Some(listed)) = (view.rows.get(from), view.there.get(to)) else { return Ok(None) };
            let path = root.path_of(to)?;
            let is_free = given_up.contains(&path) || !view.paths.contains(&path) && !root.has(&path)?;
            let sample = self.sample(row.id).await?;
            if row.path.is_none() || !is_free || !is_same_there(session, row, listed, &sample).await? {
                return Ok(None);
            }
            proven |= !sample.is_empty();
            let raw = listed.raw.as_bytes().to_vec();
            found.push(Renaming { mailbox: row.id, side: Side::Local, name: to.clone(), raw, path, away: false });
        }
        Ok(proven.then_some(found))
    }

    /// Returns which mailboxes of the server get which names, if the files here prove the chain, and the server has all
    /// of them as they were and nothing else under the new names.
    async fn renamed_here(
        &self,
        session: &mut Session,
        root: &Root,
        lists: &Lists,
        view: &View<'_>,
        chain: &Chain,
    ) -> Result<Option<Vec<Renaming>>, Error> {
        let ignores_case = session.quirks().has(Habit::IgnoresCase);
        let same = |a: &MailboxName, b: &MailboxName| {
            a == b || ignores_case && a.as_str().to_lowercase() == b.as_str().to_lowercase()
        };
        let (mut found, mut proven) = (Vec::new(), false);
        for (from, to) in chain {
            let Some(row) = view.rows.get(from) else { return Ok(None) };
            let as_it_was = row.cursor.is_some_and(|c| view.epoch_there(from) == Some(c.uid_validity));
            let mut others = lists.mailboxes.iter().filter(|l| !chain.contains_key(&l.name));
            let path = match view.rows.get(to).and_then(|row| row.path.clone()) {
                Some(path) => path,
                None => root.path_of(to)?,
            };
            let Some(maildir) = self.maildir(&path)? else { return Ok(None) };
            let sample = self.sample(row.id).await?;
            let taken = others.any(|l| same(&l.name, to));
            if !as_it_was || taken || !is_same_here(maildir, &sample).await? {
                return Ok(None);
            }
            proven |= !sample.is_empty();
            let raw = session.raw_name(to)?.as_bytes().to_vec();
            found.push(Renaming { mailbox: row.id, side: Side::Remote, name: to.clone(), raw, path, away: false });
        }
        Ok(proven.then_some(found))
    }

    /// Gives mailboxes their new names; from wherever it was interrupted. Returns false if the server refused to give up
    /// an old name: then all have their old names again.
    async fn carry_out(
        &self,
        session: &mut Session,
        lists: &Lists,
        mut renamings: Vec<Renaming>,
    ) -> Result<bool, Error> {
        let rows: BTreeMap<MailboxId, Mailbox> =
            self.db.read(|tx| tx.mailboxes()).await?.into_iter().map(|row| (row.id, row)).collect();
        let on_server = renamings.iter().any(|one| one.side == Side::Remote);
        let mut names: BTreeSet<RawName> = lists.mailboxes.iter().map(|l| l.raw.clone()).collect();
        if on_server {
            // What a session holds for selected has another name then.
            session.select(&RawName::new(b"INBOX")).await?;
            self.pool.close().await;
        }
        // What lies below a mailbox goes before it, and comes after it.
        let depth = |name: &MailboxName| name.components().count();
        renamings.sort_by_key(|one| rows.get(&one.mailbox).map(|row| Reverse(depth(&row.name))));
        if renamings.iter().any(|one| !one.away) {
            for one in &renamings {
                let Some(row) = rows.get(&one.mailbox) else { continue };
                let (raw, path) = (raw_name(row), row.path.clone().unwrap_or_default());
                let aside = self.aside(session, one)?;
                if self.is_there(&names, one.side, &aside.0, &aside.1)? {
                    continue;
                }
                match self.rename(session, &mut names, one.side, (&raw, &path), aside).await {
                    Ok(()) => {}
                    Err(Error::Imap(imap::Error::Refused { text, .. })) => {
                        tracing::warn!(mailbox = %row.name, text, "the server does not let names change places");
                        self.put_back(session, &mut names, &renamings, &rows).await?;
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.db.commit(|tx| tx.all_away()).await?;
        }
        renamings.sort_by_key(|one| depth(&one.name));
        let mut entries = Vec::new();
        for one in &renamings {
            let (raw, path) = self.aside(session, one)?;
            let to = (RawName::new(&one.raw), one.path.clone());
            self.rename(session, &mut names, one.side, (&raw, &path), to).await?;
            if let Some(row) = rows.get(&one.mailbox) {
                let (what, why) = words(one.side);
                tracing::info!(from = %row.name, to = %one.name, why, "renamed the {what}");
                entries.push(entry(&row.name, "rename", format!("rename the {what} to {}", one.name), why));
            }
        }
        let done = self.db.commit(move |tx| {
            tx.end_renamings()?;
            entries.iter().try_for_each(|entry| tx.journal(entry))
        });
        done.await?;
        Ok(true)
    }

    /// Gives mailboxes their old names back, of which none has its new one yet.
    async fn put_back(
        &self,
        session: &mut Session,
        names: &mut BTreeSet<RawName>,
        renamings: &[Renaming],
        rows: &BTreeMap<MailboxId, Mailbox>,
    ) -> Result<(), Error> {
        for one in renamings.iter().rev() {
            let Some(row) = rows.get(&one.mailbox) else { continue };
            let (raw, path) = self.aside(session, one)?;
            let old = (raw_name(row), row.path.clone().unwrap_or_default());
            self.rename(session, names, one.side, (&raw, &path), old).await?;
        }
        Ok(self.db.commit(|tx| tx.forget_renamings()).await?)
    }

    /// Returns what a mailbox is called between its names: on the server, and here.
    fn aside(&self, session: &Session, one: &Renaming) -> Result<(RawName, PathBuf), Error> {
        let name = MailboxName::from(format!("postkeep-renames-{}", one.mailbox.0).as_str());
        let path = self.root.as_ref().map(|root| root.path_of(&name)).transpose()?;
        Ok((session.raw_name(&name)?, path.unwrap_or_default()))
    }

    /// Tells whether nobody else has the names that mailboxes get in between.
    fn can_step_aside(&self, session: &Session, lists: &Lists, renamings: &[Renaming]) -> bool {
        let names: BTreeSet<RawName> = lists.mailboxes.iter().map(|l| l.raw.clone()).collect();
        let is_free = |one: &Renaming| {
            let (raw, path) = self.aside(session, one)?;
            Ok::<_, Error>(!self.is_there(&names, one.side, &raw, &path)?)
        };
        renamings.iter().all(|one| is_free(one).unwrap_or(false))
    }

    /// Tells whether a side has a mailbox of this name.
    fn is_there(&self, names: &BTreeSet<RawName>, side: Side, raw: &RawName, path: &Path) -> Result<bool, Error> {
        Ok(match (side, &self.root) {
            (Side::Remote, _) => names.contains(raw),
            (Side::Local, Some(root)) => root.has(path)?,
            (Side::Local, None) => false,
        })
    }

    /// Renames a mailbox on one side, unless there is none of its old name: then that was done already.
    async fn rename(
        &self,
        session: &mut Session,
        names: &mut BTreeSet<RawName>,
        side: Side,
        (old_raw, old_path): (&RawName, &PathBuf),
        (raw, path): (RawName, PathBuf),
    ) -> Result<(), Error> {
        if !self.is_there(names, side, old_raw, old_path)? {
            return Ok(());
        }
        match (side, &self.root) {
            (Side::Remote, _) => {
                session.rename(old_raw, &raw).await?;
                names.remove(old_raw);
                names.insert(raw);
            }
            (Side::Local, Some(root)) => root.rename_maildir(old_path, &path)?,
            (Side::Local, None) => {}
        }
        Ok(())
    }

    /// Returns some links of a mailbox, spread over it, whose content is known.
    pub(super) async fn sample(&self, id: MailboxId) -> Result<Vec<Link>, Error> {
        let links = self.db.read(move |tx| {
            let mut links = Vec::new();
            let all = usize::try_from(tx.count(id)?.synced).unwrap_or(usize::MAX);
            let (mut i, every) = (0, all.div_ceil(SAMPLE).max(1));
            tx.links_by_uid(id, &mut |link| {
                if i % every == 0 && link.content.is_some() && matches!(link.state, LinkState::Synced { .. }) {
                    links.push(link);
                }
                i += 1;
            })?;
            Ok(links)
        });
        Ok(links.await?)
    }
}

/// What is renamed on a side, and why.
fn words(side: Side) -> (&'static str, &'static str) {
    match side {
        Side::Local => ("maildir", "renamed on the server"),
        Side::Remote => ("mailbox", "renamed here"),
    }
}

/// Tells whether all messages of a sample are in a mailbox of the server, which has their UIDVALIDITY.
pub(super) async fn is_same_there(
    session: &mut Session,
    row: &Mailbox,
    listed: &Listed,
    sample: &[Link],
) -> Result<bool, Error> {
    let epoch = row.cursor.map(|c| c.uid_validity);
    if epoch.is_none() || status(listed).map(|s| s.uid_validity) != epoch {
        return Ok(false);
    }
    if Some(session.select(&listed.raw).await?.uid_validity) != epoch {
        return Ok(false);
    }
    let uids: UidSet = sample.iter().filter_map(Link::uid).collect();
    let mut seen = session.fingerprints(&uids).await?;
    settle_sizes(session, &mut seen, sample.iter().filter_map(|link| link.content));
    let same = |link: &Link| {
        let content = link.content.map(|c| c.fingerprint);
        let is = |s: &imap::Seen| content == Some(s.fingerprint) || content.is_some() && content == s.bare;
        seen.iter().any(|s| Some(s.uid) == link.uid() && is(s))
    };
    Ok(sample.iter().all(same))
}

/// Tells whether most files of a sample are in a maildir: some may have been deleted since.
pub(super) async fn is_same_here(maildir: Arc<Maildir>, sample: &[Link]) -> Result<bool, Error> {
    let scan = tokio::task::spawn_blocking(move || maildir.scan()).await??;
    let here = sample.iter().filter(|link| link.name().is_some_and(|name| scan.get(name).is_some())).count();
    Ok(sample.is_empty() || here * 2 > sample.len())
}
