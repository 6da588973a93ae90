//! One mailbox in one round: look at both sides, plan, and, when everything was carried out, move the cursor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::contact::contact;
use super::flags::Mask;
use super::moves::Part;
use super::observe::{self, Observed, Scanned, is_agreed_local, is_agreed_remote, is_void, raw_name};
use super::pass::Pass;
use super::plan::{Answer, Policy, plan};
use super::{Error, guard};
use crate::config::{Direction, OnLocal, OnServer};
use crate::db::Mailbox;
use crate::imap::{Seen, Session};
use crate::maildir::{Maildir, Stamp};
use crate::model::{
    ContentKey, Doubt, Flags, GoneRemote, Link, LinkId, LinkState, Local, MailboxId, Remote, RemoteEvidence, Uid,
    UidSet, UniqueName,
};

/// A mailbox to look at.
pub(super) struct Job {
    /// Its row.
    pub mailbox: Mailbox,
    /// Its maildir; none in a dry run that would make it.
    pub maildir: Option<Arc<Maildir>>,
    /// STATUS says that something may have changed on the server.
    pub changed_there: bool,
    /// Those who watch its files told of no change: they are looked at only where something else asks for it.
    pub calm_here: bool,
    /// Both sides are to be paired by content, whatever the numbers say.
    pub unite: bool,
    /// It is gone from the server: two LISTs did not name it, and SELECT was refused.
    pub gone: bool,
}

/// A mailbox that was looked at.
pub(super) struct Examined {
    /// Its row.
    pub mailbox: Mailbox,
    /// Its maildir; none in a dry run that would make it.
    pub maildir: Option<Arc<Maildir>>,
    /// Its plan, and what that is about.
    pub part: Part,
    /// What was seen on the server, if it was looked at.
    pub observed: Option<Observed>,
    /// What was seen here, if it was looked at.
    pub scanned: Option<Scanned>,
    /// The flags that the server keeps.
    pub remote_mask: Mask,
    /// The flags that the maildir keeps.
    pub local_mask: Mask,
    /// What is new or changed here goes to the server; false in a backup, and where nothing can be changed.
    pub push: bool,
    /// Uploads of an earlier run that the server may still be at.
    pub waiting: bool,
    /// Messages that were paired by content.
    pub matched: u64,
    /// This round removes nothing: the base was made anew in it.
    pub fresh: bool,
    /// It is gone from the server.
    pub gone: bool,
    /// What its summary says.
    pub notes: Vec<String>,
}

/// Looks at both sides of a mailbox and plans; `None` if nothing changed on either.
pub(super) async fn examine(pass: &Pass<'_>, job: Job) -> Result<Option<Examined>, Error> {
    if job.gone {
        return examine_gone(pass, job).await;
    }
    let Job { mut mailbox, maildir, changed_there, calm_here, unite, .. } = job;
    let id = mailbox.id;
    let day_old = mailbox.listed_at.is_none_or(|at| pass.now() - at > 24 * 60 * 60);
    let full = pass.options.full || mailbox.must_list || day_old || unite;
    let look_there = full || changed_there || mailbox.cursor.is_none();
    let stamp = maildir.as_ref().map(|m| m.stamp()).transpose()?;
    let moved = || stamp.is_none_or(|stamp| mailbox.stamp.map(Stamp::from_numbers) != Some(stamp));
    let look_here = full || mailbox.must_scan || !calm_here && moved();
    let pending = pass.db.read(move |tx| tx.pending(id)).await?;
    if !look_there && !look_here && pending.is_empty() {
        return Ok(None);
    }

    // The disk is read while the server is asked.
    let early = maildir.clone().filter(|_| look_here).map(|maildir| {
        let db = pass.db.clone();
        tokio::spawn(async move { observe::read(&db, maildir, id).await })
    });
    let mut session = pass.pool.get().await?;
    let result = async {
        let session: &mut Session = &mut session;
        let mut matched = 0;
        let mut fresh = unite;
        let observed = if look_there {
            let before = mailbox.cursor;
            if before.is_none() || unite {
                matched = contact(session, &pass.db, &mut mailbox, maildir.clone(), unite, pass.now_ms()).await?;
                fresh = true;
            }
            let observed = observe::observe(session, &pass.db, &mailbox, full).await?;
            match before {
                Some(before) if is_void(&before, &observed.cursor) && !unite => {
                    tracing::warn!(mailbox = %mailbox.name, "numbers of the server hold no more, matched by content");
                    matched = contact(session, &pass.db, &mut mailbox, maildir.clone(), unite, pass.now_ms()).await?;
                    fresh = true;
                    Some(observe::observe(session, &pass.db, &mailbox, true).await?)
                }
                Some(_) | None => Some(observed),
            }
        } else {
            None
        };
        let selected = match &observed {
            Some(observed) => observed.selected.clone(),
            None => session.select(&raw_name(&mailbox)).await?,
        };
        let answers = ask_for_uploads(pass, session, &mailbox).await?;
        Ok((observed, selected, answers, matched, fresh))
    }
    .await;
    let (observed, selected, answers, matched, fresh) = session.done(result)?;

    let local_mask = match &maildir {
        Some(maildir) => local_mask(maildir)?,
        None => Mask::all(),
    };
    let remote_mask = Mask { known: selected.permanent.clone(), any_keyword: selected.any_keyword };
    let touches_links = match &observed {
        Some(o) if o.remote.gone.iter().len() > 0 => true,
        // What is new there has no file here yet.
        Some(o) => {
            let uids: UidSet = o.remote.messages.keys().copied().collect();
            !uids.is_empty() && pass.db.read(move |tx| Ok(!tx.links_of_uids(id, &uids)?.is_empty())).await?
        }
        None => false,
    };
    let scanned = match &maildir {
        Some(maildir) if look_here || touches_links || fresh || !pending.is_empty() => {
            let read = match early {
                // Rows that were made anew meanwhile are not those that were read.
                Some(read) if !fresh => read.await??,
                Some(_) | None => observe::read(&pass.db, Arc::clone(maildir), id).await?,
            };
            let (db, maildir, mask) = (pass.db.clone(), Arc::clone(maildir), local_mask.clone());
            let compare = move || observe::compare_local(&db, &maildir, read, &mask);
            Some(tokio::task::spawn_blocking(compare).await??)
        }
        Some(_) | None => None,
    };

    let no_remote = Remote::default();
    let no_local = Local::default();
    let remote = observed.as_ref().map_or(&no_remote, |o| &o.remote);
    let local = scanned.as_ref().map_or(&no_local, |s| &s.local);
    let base = touched_links(pass, &mailbox, remote, local).await?;
    let policy = Policy {
        push: pass.account.direction == Direction::Both && !selected.read_only,
        remove: pass.account.deletions.on_server == OnServer::Remove,
        expunge: pass.account.deletions.on_local != OnLocal::Keep,
        // Once a day also what was refused: a quota may be free again, a limit higher.
        retry_skipped: full,
        remote_mask: remote_mask.clone(),
        local_mask: local_mask.clone(),
    };
    let planned = plan(remote, local, &base, &answers, &policy);
    let notes = notes(observed.as_ref(), scanned.as_ref());
    let part = Part {
        name: mailbox.name.clone(),
        plan: planned,
        base: base.into_iter().map(|link| (link.id, link)).collect(),
        ..Part::default()
    };
    let waiting = answers.values().any(|answer| *answer == Answer::TooEarly);
    Ok(Some(Examined {
        mailbox,
        maildir,
        part,
        observed,
        scanned,
        remote_mask,
        local_mask,
        push: policy.push,
        waiting,
        matched,
        fresh,
        gone: false,
        notes,
    }))
}

/// Looks at the maildir of a mailbox that is gone from the server: what was mirrored is removed, the rest stays.
async fn examine_gone(pass: &Pass<'_>, job: Job) -> Result<Option<Examined>, Error> {
    let Job { mailbox, maildir, .. } = job;
    let id = mailbox.id;
    let missing: BTreeSet<Uid> = pass
        .db
        .read(move |tx| {
            let mut uids = BTreeSet::new();
            tx.each_uid(id, &mut |uid, _, _, _, _| {
                uids.insert(uid);
            })?;
            Ok(uids)
        })
        .await?;
    let evidence = RemoteEvidence {
        ended: true,
        counted: 0,
        exists: 0,
        same_validity: true,
        went_forward: true,
        missing,
        // The refused SELECT said so of all of them.
        found_again: Some(BTreeSet::new()),
    };
    let gone = GoneRemote::prove(&evidence).unwrap_or_default();
    let remote = Remote { messages: BTreeMap::new(), gone };
    let scanned = match &maildir {
        Some(maildir) => {
            let read = observe::read(&pass.db, Arc::clone(maildir), id).await?;
            let (db, maildir) = (pass.db.clone(), Arc::clone(maildir));
            let compare = move || observe::compare_local(&db, &maildir, read, &Mask::all());
            Some(tokio::task::spawn_blocking(compare).await??)
        }
        None => None,
    };
    let no_local = Local::default();
    let local = scanned.as_ref().map_or(&no_local, |s| &s.local);
    let base = touched_links(pass, &mailbox, &remote, local).await?;
    let policy = Policy {
        push: true,
        remove: true,
        expunge: true,
        retry_skipped: false,
        remote_mask: Mask::all(),
        local_mask: Mask::all(),
    };
    let mut planned = plan(&remote, local, &base, &BTreeMap::new(), &policy);
    // What would be uploaded is what makes it a mailbox again, in the next round.
    planned.retain(|planned| planned.op.removes().is_some());
    let notes = notes(None, scanned.as_ref());
    let part = Part {
        name: mailbox.name.clone(),
        plan: planned,
        base: base.into_iter().map(|link| (link.id, link)).collect(),
        ..Part::default()
    };
    Ok(Some(Examined {
        mailbox,
        maildir,
        part,
        observed: None,
        scanned,
        remote_mask: Mask::all(),
        local_mask: Mask::all(),
        push: true,
        waiting: false,
        matched: 0,
        fresh: false,
        gone: true,
        notes,
    }))
}

/// Returns the flags and keywords that a maildir can hold.
fn local_mask(maildir: &Maildir) -> Result<Mask, Error> {
    let keywords = maildir.keywords()?;
    let known = Flags::from_parts(Flags::system().bits(), keywords.named());
    Ok(Mask { known, any_keyword: keywords.has_room() })
}

/// Returns the links that either side names, and all that are unfinished.
async fn touched_links(pass: &Pass<'_>, mailbox: &Mailbox, remote: &Remote, local: &Local) -> Result<Vec<Link>, Error> {
    let uids: UidSet = remote.messages.keys().copied().chain(remote.gone.iter()).collect();
    let names: Vec<UniqueName> = local.messages.keys().chain(local.gone.iter()).cloned().collect();
    let id = mailbox.id;
    let links = pass.db.read(move |tx| {
        let mut links = tx.links_of_uids(id, &uids)?;
        links.extend(tx.links_of_names(id, &names)?);
        links.extend(tx.pending(id)?);
        links.extend(tx.skipped(id)?);
        Ok(links)
    });
    let mut links = links.await?;
    links.sort_unstable_by_key(|link| link.id);
    links.dedup_by_key(|link| link.id);
    Ok(links)
}

/// Asks whether the server has what earlier runs were uploading when they ended.
async fn ask_for_uploads(
    pass: &Pass<'_>,
    session: &mut Session,
    mailbox: &Mailbox,
) -> Result<BTreeMap<LinkId, Answer>, Error> {
    let id = mailbox.id;
    let pending = pass.db.read(move |tx| tx.pending(id)).await?;
    let since = |link: &Link| match &link.state {
        LinkState::Uploading { uid_next, .. } => Some(*uid_next),
        _ => None,
    };
    let Some(first) = pending.iter().filter_map(since).min() else { return Ok(BTreeMap::new()) };
    if session.selected().is_none_or(|s| s.raw != raw_name(mailbox)) {
        session.select(&raw_name(mailbox)).await?;
    }
    // Before asking: an answer is as old as the question.
    let early = pass.is_too_early();
    let mut free = unlinked_from(pass, session, id, first).await?;
    let mut answers = BTreeMap::new();
    for link in &pending {
        let Some(uid_next) = since(link) else { continue };
        let answer = match take_upload(&mut free, uid_next, link.content, link.internal_date) {
            Some(uid) => Answer::Found(uid),
            None if early => Answer::TooEarly,
            None => Answer::NotFound,
        };
        answers.insert(link.id, answer);
    }
    Ok(answers)
}

/// Returns the messages of the selected mailbox from a UID on that no link stands for.
pub(super) async fn unlinked_from(
    pass: &Pass<'_>,
    session: &mut Session,
    mailbox: MailboxId,
    first: Uid,
) -> Result<Vec<Seen>, Error> {
    let mut found = session.fingerprints_from(first).await?;
    let uids: UidSet = found.iter().map(|seen| seen.uid).collect();
    let linked: BTreeSet<Uid> =
        pass.db.read(move |tx| tx.links_of_uids(mailbox, &uids)).await?.iter().filter_map(Link::uid).collect();
    found.retain(|seen| !linked.contains(&seen.uid));
    Ok(found)
}

/// Takes the message that is an upload out of those that no link stands for, one of the same date first.
pub(super) fn take_upload(
    free: &mut Vec<Seen>,
    uid_next: Uid,
    content: Option<ContentKey>,
    internal_date: Option<i64>,
) -> Option<Uid> {
    let is_it = |seen: &Seen| seen.uid >= uid_next && content.is_some_and(|c| c.fingerprint == seen.fingerprint);
    let same_date = |seen: &Seen| is_it(seen) && internal_date == Some(seen.internal_date);
    let found = free.iter().position(same_date).or_else(|| free.iter().position(is_it))?;
    Some(free.remove(found).uid)
}

fn notes(observed: Option<&Observed>, scanned: Option<&Scanned>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(doubt) = observed.and_then(|o| o.doubt) {
        notes.push(format!("{doubt}; nothing was deleted here for it"));
    }
    if let Some(scanned) = scanned {
        if let Some(doubt) = scanned.doubt.filter(|d| *d != Doubt::Changing) {
            notes.push(format!("{doubt}; nothing was deleted on the server for it"));
        }
        for foreign in &scanned.scan.foreign {
            let name = foreign.file.path();
            notes.push(format!("{} is {} and was ignored", name.to_string_lossy().escape_debug(), foreign.what));
        }
        for double in &scanned.scan.doubles {
            let name = double.path();
            notes.push(format!(
                "{} has the same unique name as another file and was ignored; rename one of them",
                name.to_string_lossy().escape_debug()
            ));
        }
    }
    notes
}

/// What became of a mailbox's plan.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Links whose flags were merged: what was observed of them is used up.
    pub merged: BTreeSet<LinkId>,
    /// Something was left for the next round.
    pub left: bool,
    /// Something went wrong.
    pub failed: bool,
}

/// Moves the cursor and the stamp of a mailbox if everything that was seen is agreed; returns whether it is complete.
pub(super) async fn settle(pass: &Pass<'_>, examined: Examined, outcome: Outcome) -> Result<bool, Error> {
    let Examined { mailbox, observed, scanned, remote_mask, local_mask, push, waiting, notes, .. } = examined;
    let id = mailbox.id;
    let (now, clock) = (pass.now(), std::time::SystemTime::now());
    let joined = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join("; "));
    let (notes, problems) = (joined(notes), joined(pass.problems_of(&mailbox.name)));
    let complete = pass
        .db
        .commit(move |tx| {
            let Some(mut row) = tx.mailbox(id)? else { return Ok(false) };
            let there = match &observed {
                Some(o) => o.doubt.is_none() && is_agreed_remote(tx, id, &o.remote, &remote_mask, &outcome.merged)?,
                None => true,
            };
            let here = match &scanned {
                Some(s) => s.doubt.is_none() && is_agreed_local(tx, id, &s.local, &local_mask, &outcome.merged)?,
                None => true,
            };
            if let Some(o) = observed.as_ref().filter(|_| there) {
                row.cursor = Some(o.cursor);
                if o.full {
                    (row.listed_at, row.must_list) = (Some(now), false);
                }
            }
            if let Some(s) = scanned.as_ref().filter(|_| here) {
                row.must_scan = false;
                // An unsettled stamp could miss a change in the same tick of the clock.
                row.stamp = s.scan.stamp.settled(clock).then(|| s.scan.stamp.to_numbers());
            }
            let counts = tx.count(id)?;
            let unfinished = counts.downloading + counts.uploading > 0;
            // What a backup has beyond the server is its own, and is looked at again each time.
            let here = here || !push && scanned.as_ref().is_none_or(|s| s.doubt.is_none());
            let complete = there && here && !unfinished && !waiting && !outcome.left && !outcome.failed;
            if complete {
                row.last_complete = Some(now);
            }
            row.problem = if complete { notes } else { problems };
            // Else nothing would look again and take the words back.
            row.must_scan |= !complete && row.problem.is_some();
            tx.update_mailbox(&row)?;
            Ok(complete)
        })
        .await?;
    Ok(complete)
}

/// The removals of a plan after the guard, and why the rest is held.
pub(super) struct Guarded {
    /// What may be removed.
    pub removals: Vec<super::op::Planned>,
    /// Why something is held.
    pub held: Option<String>,
}

/// Asks the guard about the removals of a mailbox, and writes down what is held.
pub(super) async fn weigh(
    pass: &Pass<'_>,
    mailbox: &Mailbox,
    removals: Vec<super::op::Planned>,
    record: bool,
) -> Result<Guarded, Error> {
    let (id, name, since) = (mailbox.id, mailbox.name.clone(), pass.now_ms() - 24 * 60 * 60 * 1000);
    let (counts, lately, held) =
        pass.db.read(move |tx| Ok((tx.count(id)?, tx.removals_since(&name, since)?, tx.held(id)?))).await?;
    let approved: BTreeSet<LinkId> = held.iter().filter(|h| h.approved).map(|h| h.link).collect();
    let known = counts.synced + counts.downloading + counts.uploading + counts.skipped;
    let weights = guard::Weights { known, removed_lately: lately };
    let deletions = &pass.account.deletions;
    let limits = guard::Limits { count: deletions.guard_count, share: deletions.guard_share };
    let (removals, refusal) = match guard::guard(removals, weights, limits, &approved) {
        Ok(removals) => (removals, None),
        Err((refusal, removals)) => (removals, Some(refusal)),
    };
    let text = refusal.as_ref().map(ToString::to_string);
    if record && (refusal.is_some() || !held.is_empty()) {
        let wait: Vec<_> = refusal.map(|r| r.removals).unwrap_or_default();
        pass.db.commit(move |tx| tx.hold(id, wait.as_slice())).await?;
    }
    Ok(Guarded { removals, held: text })
}
