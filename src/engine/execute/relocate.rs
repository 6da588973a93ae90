//! Moves: the message on the server follows its file, or the file its message.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::refusals::{self, by_halves};
use super::{Place, Site};
use crate::db::{self, NewLink, Tx};
use crate::engine::Error;
use crate::engine::cycle::Outcome;
use crate::engine::observe::raw_name;
use crate::engine::op::{Op, Planned, Why};
use crate::engine::report::Deed;
use crate::imap::{self, RawName, Session};
use crate::maildir::RemoveJob;
use crate::model::{Flags, Link, LinkId, LinkState, MailboxName, SkipReason, Uid, UidSet, UniqueName};

/// Returns the row of a message that stays on the server, though it has no file any more.
pub(super) fn kept_there(link: &Link) -> Option<Link> {
    let state = LinkState::Skipped { uid: Some(link.uid()?), name: None, reason: SkipReason::Kept };
    Some(Link { state, ..link.clone() })
}

fn by_target(ops: Vec<Planned>) -> BTreeMap<MailboxName, Vec<Planned>> {
    let mut groups: BTreeMap<MailboxName, Vec<Planned>> = BTreeMap::new();
    for planned in ops {
        if let Op::Move { to, .. } | Op::Follow { to, .. } = &planned.op {
            groups.entry(to.clone()).or_default().push(planned);
        }
    }
    groups
}

/// Carries out `Move`. The intent is an upload into the target: if the answer is lost, the message is found there; if
/// the move did not happen, it is uploaded there, and expunged here.
pub(super) async fn move_there(
    site: &Site<'_>,
    session: &mut Session,
    ops: Vec<Planned>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    for (to, ops) in by_target(ops) {
        let Some(target) = site.others.get(&to) else {
            outcome.left = true;
            continue;
        };
        let respelled = respell(site, target, &ops).await?;
        let flags_of = |name: &UniqueName, shown: &Flags| respelled.get(name).unwrap_or(shown).clone();
        let intents = intend_moves(site, target, &ops, &flags_of).await?;
        let uids: UidSet = ops.iter().filter_map(|p| moved_uid(&p.op)).collect();
        let Moved { pairs, refused: no, doubled } =
            match move_by_halves(session, &uids, &raw_name(&target.mailbox)).await {
                Ok(moved) => moved,
                Err(error) => {
                    site.pass.lost_connection();
                    return Err(error.into());
                }
            };
        let moved: BTreeMap<Uid, Uid> = pairs.into_iter().collect();
        let refused: UidSet = no.iter().flat_map(|(uids, _)| uids.iter()).collect();
        for (uids, error) in no {
            // Both ends of it wait: else the file that is there already would be sent there.
            let is_it = |planned: &Planned| moved_uid(&planned.op).is_some_and(|uid| uids.contains(uid));
            let ends = ops.iter().zip(&intents).filter(|(planned, _)| is_it(planned));
            let links = ends.flat_map(|(planned, into)| planned.op.link().into_iter().chain([*into])).collect();
            refusals::refused(site, links, "a move", &error, outcome).await?;
        }
        // It is there, and here: the removal here is what is tried again.
        let stays: UidSet = doubled.iter().flat_map(|(uids, _)| uids.iter()).collect();
        for (uids, error) in doubled {
            let left = |planned: &&Planned| moved_uid(&planned.op).is_some_and(|uid| uids.contains(uid));
            let links = ops.iter().filter(left).filter_map(|planned| planned.op.link()).collect();
            refusals::refused(site, links, "a removal", &error, outcome).await?;
        }
        let mut writes = Vec::new();
        // What a server without MOVE and UIDPLUS has copied stays behind, marked as deleted.
        let mut marked = Vec::new();
        for (planned, into) in ops.iter().zip(intents) {
            let Op::Move { link, uid, name, flags, .. } = &planned.op else { continue };
            if refused.contains(*uid) {
                continue;
            }
            let (Some(new_uid), Some(link)) = (moved.get(uid), site.base.get(link)) else {
                // Not told where it went: the next round asks the target for it.
                outcome.left = true;
                if session.leaves_behind() {
                    marked.extend(site.base.get(link).and_then(kept_there));
                }
                continue;
            };
            let Some(flags) = carried_flags(link, &flags_of(name, flags)) else { continue };
            let state = LinkState::Synced { uid: *new_uid, name: name.clone(), flags };
            let new = Link { id: into, state, inode: None, ..link.clone() };
            writes.push(((!stays.contains(*uid)).then_some(link.id), new, site.entry(planned, None)));
        }
        site.pass.tally(&site.mailbox.name, |t| t.moved += writes.len() as u64);
        if refused.len() < uids.len() {
            site.pass.touch(&to);
        }
        site.pass
            .commit(move |tx| {
                for (old, new, entry) in &writes {
                    old.map_or(Ok(()), |old| tx.delete_link(old))?;
                    tx.set_link(new)?;
                    tx.journal(entry)?;
                }
                for link in &marked {
                    tx.set_link(link)?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// What became of messages that were to be moved.
pub(super) struct Moved {
    /// The UIDs here and there that the server told.
    pub pairs: Vec<(Uid, Uid)>,
    /// What it refused to move.
    pub refused: Vec<(UidSet, imap::Error)>,
    /// What is there, and could not be removed here.
    pub doubled: Vec<(UidSet, imap::Error)>,
}

/// Moves messages of the selected mailbox; those that the server refuses to move stay.
pub(super) async fn move_by_halves(session: &mut Session, uids: &UidSet, to: &RawName) -> Result<Moved, imap::Error> {
    let parts = session.move_parts(uids, to);
    let move_to = async |session: &mut Session, uids: &UidSet| session.move_to(uids, to).await;
    let (moved, refused) = by_halves(session, parts, move_to).await?;
    let (mut pairs, mut doubled) = (Vec::new(), Vec::new());
    for part in moved {
        pairs.extend(part.pairs);
        doubled.extend(part.doubled);
    }
    Ok(Moved { pairs, refused, doubled })
}

/// Returns the base of a message whose file a mail reader moved, as far as the new place can tell.
///
/// The letters of keywords are those of the maildir that the file came from, and mean something else here, or nothing.
/// What they seem to say is put into the base: so it is no change, and the keywords come back from the server.
pub(super) fn carried_flags(link: &Link, shown: &Flags) -> Option<Flags> {
    match &link.state {
        LinkState::Synced { flags, .. } => Some(Flags::from_parts(flags.bits(), shown.keywords().cloned())),
        LinkState::Downloading { .. } | LinkState::Uploading { .. } | LinkState::Skipped { .. } => None,
    }
}

fn moved_uid(op: &Op) -> Option<Uid> {
    match op {
        Op::Move { uid, .. } => Some(*uid),
        _ => None,
    }
}

/// Gives the files of messages that have keywords the letters of the maildir that they are in now.
async fn respell(site: &Site<'_>, target: &Place, ops: &[Planned]) -> Result<BTreeMap<UniqueName, Flags>, Error> {
    let had = ops.iter().filter_map(|planned| {
        let Op::Move { link, name, .. } = &planned.op else { return None };
        let LinkState::Synced { flags, .. } = &site.base.get(link)?.state else { return None };
        let inode = site.base.get(link)?.inode?;
        flags.keywords().next().is_some().then(|| (name.clone(), (flags.clone(), inode)))
    });
    let had: BTreeMap<UniqueName, (Flags, u64)> = had.collect();
    let (from, into) = (Arc::clone(&site.maildir), Arc::clone(&target.maildir));
    Ok(tokio::task::spawn_blocking(move || into.respell(&from, &had)).await??)
}

async fn intend_moves(
    site: &Site<'_>,
    target: &Place,
    ops: &[Planned],
    flags_of: &impl Fn(&UniqueName, &Flags) -> Flags,
) -> Result<Vec<LinkId>, Error> {
    // Nothing that is in the target now can be the message: its number there will be the next, or a later one.
    let uid_next = target.mailbox.cursor.map_or(Uid::MIN, |cursor| cursor.uid_next);
    let since = site.pass.now();
    let rows: Vec<(Option<LinkId>, NewLink)> = ops
        .iter()
        .filter_map(|planned| {
            let Op::Move { link, into, name, flags, .. } = &planned.op else { return None };
            let link = site.base.get(link)?;
            let state = LinkState::Uploading {
                name: name.clone(),
                flags: carried_flags(link, &flags_of(name, flags))?,
                uid_next,
                since,
            };
            let (content, internal_date) = (link.content, link.internal_date);
            Some((*into, NewLink { state, content, internal_date, inode: None }))
        })
        .collect();
    site.pass.commit(write_intents(target, rows)).await
}

/// Carries out `Follow`. The intent is a download into the target under the file's name; its content tells later
/// whether the file that has this name is still the one.
pub(super) async fn follow(site: &Site<'_>, ops: Vec<Planned>, outcome: &mut Outcome) -> Result<(), Error> {
    for (to, ops) in by_target(ops) {
        let Some(target) = site.others.get(&to) else {
            outcome.left = true;
            continue;
        };
        let mut jobs = Vec::new();
        for planned in ops {
            let Op::Follow { link, name, into, uid, .. } = &planned.op else { continue };
            let found = (site.file(name), site.base.get(link), site.inode_of(*link, name).await?);
            match found {
                (Some(file), Some(link), Some(inode)) => {
                    let job = RemoveJob { file, inode: Some(inode) };
                    match intent(link, name, *uid, foreign_flags(site, &planned, name)) {
                        Some(intent) => jobs.push(Job { job, link: link.clone(), into: *into, intent, planned }),
                        None => outcome.left = true,
                    }
                }
                _ => outcome.left = true,
            }
        }
        let rows: Vec<(Option<LinkId>, NewLink)> = jobs.iter().map(|job| (job.into, job.intent.clone())).collect();
        let ids = match site.pass.commit(write_intents(target, rows)).await {
            Ok(ids) => ids,
            Err(error) => {
                // A file of that name is known there already: the message is downloaded instead, by the next round.
                tracing::info!(mailbox = %to, %error, "did not follow a move");
                outcome.left = true;
                continue;
            }
        };
        let (from, into) = (Arc::clone(&site.maildir), Arc::clone(&target.maildir));
        let moves: Vec<_> = jobs.iter().map(|job| job.job.clone()).collect();
        let results = tokio::task::spawn_blocking(move || from.move_to(&moves, &into)).await??;
        let (mut writes, meter) = (Vec::new(), site.pass.meter(&to));
        for ((Job { planned, job, link, intent, .. }, id), result) in jobs.into_iter().zip(ids).zip(results) {
            let LinkState::Downloading { uid, flags, .. } = intent.state else { continue };
            match result {
                Ok(located) => {
                    let (now, before) = (target.maildir.path_of(&located.file), site.maildir.path_of(&job.file));
                    meter.changed(Deed::Moved, now, Some(before));
                    let state = LinkState::Synced { uid, name: located.file.unique(), flags };
                    let new = Link { id, state, inode: Some(located.inode), ..link.clone() };
                    writes.push((link.id, new, site.entry(&planned, None)));
                }
                Err(refused) => {
                    tracing::info!(mailbox = %site.mailbox.name, %refused, "left a move for the next round");
                    outcome.left = true;
                }
            }
        }
        site.pass.tally(&site.mailbox.name, |t| t.moved += writes.len() as u64);
        site.pass.touch(&to);
        site.pass
            .commit(move |tx| {
                for (old, new, entry) in &writes {
                    tx.delete_link(*old)?;
                    tx.set_link(new)?;
                    tx.journal(entry)?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// A file that follows its message.
struct Job {
    planned: Planned,
    job: RemoveJob,
    link: Link,
    into: Option<LinkId>,
    intent: NewLink,
}

/// Returns the flags that a file shows, if it came here from another maildir: its letters are not of this one.
pub(super) fn foreign_flags(site: &Site<'_>, planned: &Planned, name: &UniqueName) -> Option<Flags> {
    let shown = || Some(site.seen(name)?.flags);
    if planned.why == Why::MovedOnBoth { shown() } else { None }
}

fn intent(link: &Link, name: &UniqueName, uid: Uid, foreign: Option<Flags>) -> Option<NewLink> {
    let (LinkState::Synced { flags, .. } | LinkState::Uploading { flags, .. }) = &link.state else { return None };
    let flags = foreign.and_then(|shown| carried_flags(link, &shown)).unwrap_or_else(|| flags.clone());
    let state = LinkState::Downloading { uid, name: name.clone(), flags };
    Some(NewLink { state, content: link.content, internal_date: link.internal_date, inode: None })
}

/// Writes rows into the target of a move: in place of those that stand for the message there, or new ones.
fn write_intents(
    target: &Place,
    rows: Vec<(Option<LinkId>, NewLink)>,
) -> impl FnOnce(&Tx<'_>) -> Result<Vec<LinkId>, db::Error> + Send + use<> {
    let mailbox = target.mailbox.id;
    move |tx| {
        rows.into_iter()
            .map(|(into, new)| match into {
                Some(id) => {
                    let NewLink { state, content, internal_date, inode } = new;
                    tx.set_link(&Link { id, state, content, internal_date, inode })?;
                    Ok(id)
                }
                None => tx.insert_link(mailbox, &new),
            })
            .collect()
    }
}
