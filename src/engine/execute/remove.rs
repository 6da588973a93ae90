//! Removals, on either side. Nothing is removed anywhere else in the program.
//!
//! Each carries the proof that the other copy is gone; the plan that it stands in passed the guard; and right before, the
//! copy is looked at again and must still be what the plan was made for. A file goes to the graveyard. A message goes to
//! the trash mailbox, or its content to the graveyard first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::refusals::{self, by_halves};
use super::relocate::{kept_there, move_by_halves};
use super::{Site, Trash};
use crate::engine::Error;
use crate::engine::cycle::Outcome;
use crate::engine::op::{Op, Planned};
use crate::engine::report::Deed;
use crate::imap::{self, Body, Fetched, Session};
use crate::maildir::{RemoveJob, Source};
use crate::model::{Flags, Link, LinkId, Uid, UidSet, UniqueName};

/// How many messages are removed between two commits: an interruption leaves at most so many to be looked at again.
const BATCH: usize = 500;

/// Carries out `Remove`: to the graveyard, if the file is still as it was.
pub(super) async fn remove_here(site: &Site<'_>, ops: Vec<Planned>, outcome: &mut Outcome) -> Result<(), Error> {
    for batch in ops.chunks(BATCH) {
        let mut jobs = Vec::new();
        for planned in batch {
            let Op::Remove { link, name, flags, .. } = &planned.op else { continue };
            match site.seen(name) {
                Some(found)
                    if site.local_mask.read(&found.flags, flags) == *flags && site.holds(found.inode, *link) =>
                {
                    jobs.push((planned, *link, RemoveJob { file: found.file, inode: Some(found.inode) }));
                }
                Some(_) | None => outcome.left = true,
            }
        }
        let removals: Vec<_> = jobs.iter().map(|(_, _, job)| job.clone()).collect();
        let (maildir, graveyard, name) =
            (Arc::clone(&site.maildir), Arc::clone(&site.pass.graveyard), site.mailbox.name.clone());
        let removed = move || Ok::<_, Error>((graveyard.today(&name)?, maildir.remove(&removals, &graveyard, &name)?));
        let (grave, results) = tokio::task::spawn_blocking(removed).await??;
        let mut writes = Vec::new();
        let meter = site.pass.meter(&site.mailbox.name);
        for ((planned, link, job), result) in jobs.into_iter().zip(results) {
            match result {
                Ok(located) => {
                    meter.changed(Deed::Removed, site.maildir.path_of(&job.file), None);
                    let kept = grave.path_of(&located.file).to_string_lossy().into_owned();
                    writes.push((link, site.entry(planned, Some(kept))));
                }
                Err(refused) => {
                    tracing::info!(mailbox = %site.mailbox.name, op = %planned.op, %refused, "removed nothing");
                    outcome.left = true;
                }
            }
        }
        site.pass.tally(&site.mailbox.name, |t| t.removed += writes.len() as u64);
        forget(site, writes).await?;
    }
    Ok(())
}

/// Carries out `Expunge`: to the trash mailbox if there is one and this is not it, else out of the mailbox, once its
/// content is in the graveyard.
pub(super) async fn expunge_there(
    site: &Site<'_>,
    session: &mut Session,
    ops: Vec<Planned>,
    trash: Option<&Trash>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let back = came_back(site, &ops).await?;
    for batch in ops.chunks(BATCH) {
        let mut wanted: BTreeMap<Uid, (&Planned, LinkId, &Flags)> = BTreeMap::new();
        for planned in batch {
            let Op::Expunge { link, uid, flags, .. } = &planned.op else { continue };
            if site.base.get(link).and_then(|l| l.name()).is_some_and(|name| back.contains(name)) {
                outcome.left = true;
            } else {
                wanted.insert(*uid, (planned, *link, flags));
            }
        }
        // Still what the plan was made for? Somebody may have flagged it in the meantime.
        let now = session.flags(&wanted.keys().copied().collect()).await?;
        wanted.retain(|uid, (_, _, flags)| {
            let same = now.get(uid).is_none_or(|m| site.remote_mask.read(&m.flags, flags) == **flags);
            outcome.left |= !same;
            same
        });
        let there: UidSet = wanted.keys().copied().filter(|uid| now.contains_key(uid)).collect();
        let trash = trash.filter(|trash| trash.name != site.mailbox.name);
        let mut kept: BTreeMap<Uid, String> = BTreeMap::new();
        // What the server cannot be told to remove, and has marked as deleted; what is in the trash, and here too.
        let (mut marked, mut doubled) = (UidSet::default(), UidSet::default());
        let mut no = Vec::new();
        let left = match trash {
            Some(trash) if !there.is_empty() => {
                let moved = move_by_halves(session, &there, &trash.raw).await?;
                no = moved.refused;
                let refused: UidSet = no.iter().flat_map(|(uids, _)| uids.iter()).collect();
                let there: UidSet = there.iter().filter(|uid| !refused.contains(*uid)).collect();
                if !there.is_empty() {
                    site.pass.touch(&trash.name);
                }
                kept.extend(there.iter().map(|uid| (uid, format!("mailbox {} on the server", trash.name))));
                for (uids, error) in moved.doubled {
                    // To try again would be to copy again.
                    let (trash, here) = (&trash.name, &site.mailbox.name);
                    let which = match uids.len() {
                        1 => "1 message was".to_owned(),
                        count => format!("{count} messages were"),
                    };
                    let text = format!("{which} copied to {trash}, and could not be removed from {here}: {error}");
                    site.pass.problem(here, text);
                    outcome.refused = true;
                    doubled.extend(uids.iter());
                }
                if session.leaves_behind() {
                    marked = there;
                    UidSet::default()
                } else {
                    session.present(&there.iter().filter(|uid| !doubled.contains(*uid)).collect()).await?
                }
            }
            None if !there.is_empty() => {
                kept = bury(site, session, &there).await?;
                let safe: UidSet = kept.keys().copied().collect();
                let expunge = async |session: &mut Session, uids: &UidSet| session.expunge(uids).await;
                match by_halves(session, vec![safe.clone()], expunge).await {
                    Ok((_, refusals)) => {
                        no = refusals;
                        session.present(&there).await?
                    }
                    Err(imap::Error::Unsupported(_)) => {
                        marked = safe;
                        there.iter().filter(|uid| !marked.contains(*uid)).collect()
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Some(_) | None => UidSet::default(),
        };
        for (uids, error) in &no {
            let links = wanted.extract_if(.., |uid, _| uids.contains(*uid)).map(|(_, (_, link, _))| link).collect();
            refusals::refused(site, links, "a removal", error, outcome).await?;
        }
        let (mut writes, mut stays) = (Vec::new(), Vec::new());
        for (uid, (planned, link, _)) in wanted {
            let entry = site.entry(planned, kept.remove(&uid));
            if left.contains(uid) {
                outcome.left = true;
            } else if marked.contains(uid) || doubled.contains(uid) {
                let entry = marked.contains(uid).then_some(entry);
                stays.extend(site.base.get(&link).and_then(kept_there).map(|link| (link, entry)));
            } else {
                writes.push((link, entry));
            }
        }
        let gone = writes.len() + stays.iter().filter(|(_, entry)| entry.is_some()).count();
        site.pass.tally(&site.mailbox.name, |t| t.expunged += gone as u64);
        forget(site, writes).await?;
        keep(site, stays).await?;
    }
    Ok(())
}

/// Returns the files among those that the plan holds for gone that are there after all.
async fn came_back(site: &Site<'_>, ops: &[Planned]) -> Result<BTreeSet<UniqueName>, Error> {
    let names: Vec<UniqueName> =
        ops.iter().filter_map(|p| Some(site.base.get(&p.op.link()?)?.name()?.clone())).collect();
    let maildir = Arc::clone(&site.maildir);
    let seen = site.files.stamp();
    let look = move || {
        if seen == Some(maildir.stamp()?) {
            return Ok(BTreeSet::new());
        }
        let scan = maildir.scan()?;
        Ok::<_, Error>(names.into_iter().filter(|name| scan.get(name).is_some()).collect())
    };
    tokio::task::spawn_blocking(look).await?
}

/// Copies messages to the graveyard, durably; returns where each is.
async fn bury(site: &Site<'_>, session: &mut Session, uids: &UidSet) -> Result<BTreeMap<Uid, String>, Error> {
    let (sender, mut bodies) = mpsc::channel::<Fetched>(4);
    let (graveyard, name) = (Arc::clone(&site.pass.graveyard), site.mailbox.name.clone());
    let keeper = tokio::task::spawn_blocking(move || {
        let mut kept = BTreeMap::new();
        while let Some(Fetched { uid, flags, internal_date, body }) = bodies.blocking_recv() {
            let source = match &body {
                Body::Memory(bytes) => Source::Memory(bytes),
                Body::File(file, _) => Source::File(file),
                Body::Nothing => continue,
            };
            let path = graveyard.keep(&name, source, flags, internal_date)?;
            kept.insert(uid, path.to_string_lossy().into_owned());
        }
        Ok::<_, Error>(kept)
    });
    let fetched = session.bodies(uids, sender).await;
    let kept = keeper.await??;
    fetched?;
    Ok(kept)
}

async fn forget(site: &Site<'_>, writes: Vec<(LinkId, crate::db::Entry)>) -> Result<(), Error> {
    if writes.is_empty() {
        return Ok(());
    }
    let write = site.pass.commit(move |tx| {
        for (link, entry) in &writes {
            tx.delete_link(*link)?;
            tx.journal(entry)?;
        }
        Ok(())
    });
    write.await
}

/// Writes down that messages stay on the server.
async fn keep(site: &Site<'_>, writes: Vec<(Link, Option<crate::db::Entry>)>) -> Result<(), Error> {
    if writes.is_empty() {
        return Ok(());
    }
    let write = site.pass.commit(move |tx| {
        for (link, entry) in &writes {
            tx.set_link(link)?;
            entry.as_ref().map_or(Ok(()), |entry| tx.journal(entry))?;
        }
        Ok(())
    });
    write.await
}
