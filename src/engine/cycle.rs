//! One mailbox in one round: look at both sides, plan, and, when everything was carried out, move the cursor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::flags::Mask;
use super::moves::Part;
use super::observe::{self, Observed, Peeked, Scanned, is_agreed_local, is_agreed_remote};
use super::op::Planned;
use super::pass::Pass;
use super::plan::{Answer, Policy, plan};
use super::report::{Here, Pace};
use super::there::{There, Wanted, look};
use super::{Error, again, guard};
use crate::config::{Direction, OnLocal, OnServer};
use crate::db::{Counts, HoldCause, Mailbox, Tx};
use crate::maildir::{Fate, Located, Maildir, Scan, Stamp, unique_of};
use crate::model::{
    Doubt, Flags, GoneRemote, Link, LinkId, LinkState, Local, Remote, RemoteEvidence, Uid, UidSet, UniqueName,
};

/// A mailbox to look at.
pub(super) struct Job {
    /// Its row.
    pub mailbox: Mailbox,
    /// Its maildir; none in a dry run that would make it.
    pub maildir: Option<Arc<Maildir>>,
    /// STATUS says that something may have changed on the server.
    pub changed_there: bool,
    /// It may be flags that changed there, or nobody knows.
    pub flags_there: bool,
    /// How many messages were unread when STATUS was asked.
    pub unseen: Option<u32>,
    /// The server puts copies of what is sent there by itself.
    pub copies: bool,
    /// What those who watch its files told. Where they told of no change, they are looked at only where something else asks
    /// for it.
    pub here: Here,
    /// Both sides are to be paired by content, whatever the numbers say.
    pub unite: bool,
    /// It is gone from the server: two LISTs did not name it, and SELECT was refused.
    pub gone: bool,
    /// Others are not looked at.
    pub alone: bool,
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
    /// What was seen here, if it was listed.
    pub scanned: Option<Scanned>,
    /// What was seen here, if only some files were looked at.
    pub peeked: Option<Peeked>,
    /// If it was not listed: where the files are that the plan is about.
    pub located: BTreeMap<UniqueName, Located>,
    /// Files that were renamed to their names, and so are whole.
    pub whole: BTreeSet<UniqueName>,
    /// The flags that the server keeps.
    pub remote_mask: Mask,
    /// The flags that the maildir keeps.
    pub local_mask: Mask,
    /// What is new or changed here goes to the server; false in a backup, and where nothing can be changed.
    pub push: bool,
    /// Uploads of an earlier run that the server may still be at.
    pub waiting: bool,
    /// The server puts copies of what is sent there by itself.
    pub copies: bool,
    /// How many messages are missing that both sides had before the server renumbered the mailbox.
    pub awaited: u64,
    /// Messages that were paired by content.
    pub matched: u64,
    /// This round removes nothing: the base was made anew in it.
    pub fresh: bool,
    /// Messages on both sides about which the server refused something that may be tried again.
    pub due: Vec<LinkId>,
    /// Messages about which the server refused something that may not be tried again yet.
    pub left_alone: BTreeSet<LinkId>,
    /// Some of that is wanted.
    pub refused: bool,
    /// It is gone from the server.
    pub gone: bool,
    /// What its summary says.
    pub notes: Vec<String>,
}

/// What is known of the files of a mailbox that ops are about.
#[derive(Clone, Copy)]
pub(super) enum Files<'a> {
    /// All that there are.
    All(&'a Scan),
    /// Those that the ops need.
    Some(&'a BTreeMap<UniqueName, Located>),
}

impl Files<'_> {
    /// Returns what was seen of a file.
    pub(super) fn get(&self, name: &UniqueName) -> Option<Located> {
        match self {
            Self::All(scan) => {
                let found = scan.get(name)?;
                Some(Located { file: found.file(), flags: found.flags, inode: found.inode })
            }
            Self::Some(located) => located.get(name).cloned(),
        }
    }

    /// Returns the stamp of the listing that named all files.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::All(scan) => Some(scan.stamp),
            Self::Some(_) => None,
        }
    }
}

impl Examined {
    /// Returns what is known of its files.
    pub(super) fn files(&self) -> Files<'_> {
        match &self.scanned {
            Some(scanned) => Files::All(&scanned.scan),
            None => Files::Some(&self.located),
        }
    }

    /// Returns the stamp that stands for what is known of the maildir, if it was complete.
    pub(super) fn known_stamp(&self) -> Option<Stamp> {
        match (&self.scanned, &self.peeked) {
            (Some(scanned), _) => scanned.doubt.is_none().then_some(scanned.scan.stamp),
            (None, Some(_)) => None,
            (None, None) => self.mailbox.stamp.map(Stamp::from_numbers),
        }
    }

    /// Returns the stamp of when it was looked at.
    pub(super) fn stamp_when_seen(&self) -> Option<Stamp> {
        let scanned = self.scanned.as_ref().map(|scanned| scanned.scan.stamp);
        scanned.or_else(|| self.peeked.as_ref().map(|peeked| peeked.stamp))
    }

    /// Returns the files that were read, and hold what their link says, under another inode than it says.
    pub(super) fn inodes(&self) -> Option<&BTreeMap<LinkId, u64>> {
        let scanned = self.scanned.as_ref().map(|scanned| &scanned.inodes);
        scanned.or_else(|| self.peeked.as_ref().map(|peeked| &peeked.inodes))
    }
}

/// Looks at both sides of a mailbox and plans; `None` if nothing changed on either.
pub(super) async fn examine(pass: &Pass<'_>, job: Job) -> Result<Option<Examined>, Error> {
    if job.gone {
        return examine_gone(pass, job).await;
    }
    let Job { mailbox, maildir, changed_there, flags_there, unseen, copies, here, unite, alone, .. } = job;
    let id = mailbox.id;
    // A clock that was wrong may have written a time that is still to come.
    let day_old = mailbox.listed_at.is_none_or(|at| !(0..=24 * 60 * 60).contains(&(pass.now() - at)));
    let full = pass.options.full || mailbox.must_list || day_old || unite;
    let mut look_there = full || changed_there || mailbox.cursor.is_none();
    let stamp = maildir.as_ref().map(|m| m.stamp()).transpose()?;
    let moved = || stamp.is_none_or(|stamp| mailbox.stamp.map(Stamp::from_numbers) != Some(stamp));
    let mut look_here = full || mailbox.must_scan || here.anything && moved();
    let now = pass.now();
    let read = move |tx: &Tx<'_>| Ok((tx.pending(id)?, tx.mailbox_hold(id)?, tx.again(id)?));
    let (pending, hold, refused) = pass.db.read(read).await?;
    // Whoever asks for a pass asks for everything at once; so does the daily look at everything.
    let (due, mut left_alone) = again::due(&refused, full || pass.options.pace == Pace::Thorough, now);
    left_alone.extend(pass.refused.borrow().iter().copied());
    let due: Vec<LinkId> = due.difference(&left_alone).copied().collect();
    let due = pass.db.read(move |tx| tx.links_by_ids(&due)).await?;
    let hold = hold.filter(|hold| hold.cause == HoldCause::Renumbered);
    if let Some(hold) = hold.as_ref().filter(|hold| !hold.approved) {
        pass.hold(&mailbox.name, 0, hold.reason.clone());
        return Ok(None);
    }
    // What both sides have differs in what was refused: that is seen by looking at both. A file is looked for here.
    let is_linked = |link: &Link| matches!(link.state, LinkState::Synced { .. });
    look_there |= due.iter().any(is_linked);
    let look_at_flags = flags_there || due.iter().any(is_linked);
    look_here |= due.iter().any(|link| link.name().is_some());
    let local_mask = match &maildir {
        Some(maildir) => local_mask(maildir)?,
        None => Mask::all(),
    };
    let mut peeked = match &maildir {
        Some(maildir) if !here.files.is_empty() && !look_here && pending.is_empty() => {
            let files = here.files.clone();
            let peeked = observe::peek(&pass.db, Arc::clone(maildir), id, files, local_mask.clone()).await?;
            // Some of them are not what or where they were said to be, so that only a listing can tell.
            look_here = peeked.is_none();
            peeked
        }
        Some(_) | None => None,
    };
    let is_told = peeked.as_ref().is_some_and(|p| !p.local.messages.is_empty() || !p.inodes.is_empty());
    if !look_there && !look_here && !is_told && pending.is_empty() && due.is_empty() {
        return Ok(None);
    }

    // The disk is read while the server is asked, unless the rows to compare it with are still to be made.
    let has_base = mailbox.cursor.is_some() && !unite;
    let early = maildir.clone().filter(|_| look_here && has_base).map(|maildir| {
        let db = pass.db.clone();
        tokio::spawn(async move { observe::read(&db, maildir, id).await })
    });
    let mut session = pass.pool.get().await?;
    let approved = hold.is_some();
    let wanted = Wanted { look: look_there, flags: look_at_flags, full, unite, alone, copies, approved, due: &due };
    let due_here = due.iter().map(|link| link.id).collect();
    let result = look(pass, &mut session, mailbox, maildir.as_ref(), &wanted).await;
    let Some(There { mailbox, mut observed, selected, answers, again, matched, fresh }) = session.done(result)? else {
        return Ok(None);
    };
    if let Some(observed) = &mut observed {
        observed.cursor.unseen = unseen;
    }
    if hold.is_some() && fresh {
        pass.db.commit(move |tx| tx.release(id)).await?;
    }

    let remote_mask = Mask { known: selected.permanent.clone(), any_keyword: selected.any_keyword };
    // Where the stamp says that nothing changed, the files are as the base has them, and the ops look at theirs.
    let scanned = match &maildir {
        Some(maildir) if look_here || fresh || !pending.is_empty() => {
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

    peeked = peeked.filter(|_| scanned.is_none());

    let no_remote = Remote::default();
    let no_local = Local::default();
    let remote = observed.as_ref().map_or(&no_remote, |o| &o.remote);
    let seen_here = scanned.as_ref().map(|s| &s.local).or_else(|| peeked.as_ref().map(|p| &p.local));
    let local = seen_here.unwrap_or(&no_local);
    let base = touched_links(pass, &mailbox, remote, local).await?;
    let policy = Policy {
        push: pass.account.direction == Direction::Both && !selected.read_only,
        remove: pass.account.deletions.on_server == OnServer::Remove,
        expunge: pass.account.deletions.on_local != OnLocal::Keep,
        // Once a day also what was refused: a quota may be free again, a limit higher.
        retry_skipped: full,
        again: due_here,
        remote_mask: remote_mask.clone(),
        local_mask: local_mask.clone(),
    };
    let mut planned = plan(remote, local, &base, &answers, &policy);
    planned.extend(
        again.into_iter().filter(|again| !planned.iter().any(|p| p.op.link() == again.op.link())).collect::<Vec<_>>(),
    );
    let mut notes = notes(observed.as_ref(), scanned.as_ref());
    let awaited = base.iter().filter(|link| is_awaited(link, now)).count() as u64;
    if awaited > 0 {
        notes.push(format!(
            "the server renumbered the mailbox and does not show {awaited} messages of it any more; they are kept here, and \
             sent again if they do not come back within the hour"
        ));
    }
    let located = match &maildir {
        Some(maildir) if scanned.is_none() => {
            let found = peeked.as_mut().map(|peeked| std::mem::take(&mut peeked.located)).unwrap_or_default();
            locate(Arc::clone(maildir), &planned, &base, found).await?
        }
        Some(_) | None => BTreeMap::new(),
    };
    let part = Part {
        name: mailbox.name.clone(),
        plan: planned,
        base: base.into_iter().map(|link| (link.id, link)).collect(),
        ..Part::default()
    };
    let linked: Vec<LinkId> = due.iter().filter(|link| is_linked(link)).map(|link| link.id).collect();
    let is_early = |link: &&Link| answers.get(&link.id) == Some(&Answer::TooEarly);
    let waiting = part.base.values().filter(is_early).any(|link| !is_deferred(link, now));
    Ok(Some(Examined {
        mailbox,
        maildir,
        part,
        observed,
        scanned,
        peeked,
        located,
        whole: whole(&here),
        remote_mask,
        local_mask,
        push: policy.push,
        waiting,
        copies,
        awaited,
        matched,
        fresh,
        due: linked,
        left_alone,
        refused: false,
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
        again: BTreeSet::new(),
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
        peeked: None,
        located: BTreeMap::new(),
        whole: BTreeSet::new(),
        remote_mask: Mask::all(),
        local_mask: Mask::all(),
        push: true,
        waiting: false,
        copies: false,
        awaited: 0,
        matched: 0,
        fresh: false,
        due: Vec::new(),
        left_alone: BTreeSet::new(),
        refused: false,
        gone: true,
        notes,
    }))
}

/// Looks at the files that a plan is about and that were not found yet, in a maildir that was not scanned; returns all.
async fn locate(
    maildir: Arc<Maildir>,
    plan: &[Planned],
    base: &[Link],
    mut found: BTreeMap<UniqueName, Located>,
) -> Result<BTreeMap<UniqueName, Located>, Error> {
    let about: BTreeSet<LinkId> = plan.iter().filter_map(|planned| planned.op.link()).collect();
    let links = base.iter().filter(|link| about.contains(&link.id));
    let named = links.filter_map(|link| match &link.state {
        LinkState::Synced { name, flags, .. } => (!found.contains_key(name)).then(|| (name.clone(), flags.clone())),
        LinkState::Downloading { .. } | LinkState::Uploading { .. } | LinkState::Skipped { .. } => None,
    });
    let wanted: BTreeMap<UniqueName, Flags> = named.collect();
    if !wanted.is_empty() {
        found.append(&mut tokio::task::spawn_blocking(move || maildir.locate(&wanted)).await??);
    }
    Ok(found)
}

/// Returns the messages whose file was renamed to its name: whoever does that has written all of it.
fn whole(here: &Here) -> BTreeSet<UniqueName> {
    here.files.iter().filter(|(_, fate)| **fate == Fate::Moved).map(|(file, _)| unique_of(file)).collect()
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

/// Tells whether an upload waits, since the server may bring the message by itself.
pub(super) fn is_deferred(link: &Link, now: i64) -> bool {
    matches!(link.state, LinkState::Uploading { since, .. } if since > now)
}

/// Tells whether a message was on both sides, and is missing since the server renumbered the mailbox.
fn is_awaited(link: &Link, now: i64) -> bool {
    // What was written here waits with the inode of its file.
    is_deferred(link, now) && link.inode.is_none()
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
    /// The server refused something that is tried again another time.
    pub refused: bool,
    /// Something went wrong.
    pub failed: bool,
}

/// Moves the cursor and the stamp of a mailbox if everything that was seen is agreed; returns whether it is complete.
///
/// `witnessed` is the stamp of the maildir after all that was done in it, if nobody else did anything meanwhile.
pub(super) async fn settle(
    pass: &Pass<'_>,
    examined: Examined,
    outcome: Outcome,
    witnessed: Option<Stamp>,
) -> Result<bool, Error> {
    let Examined { mailbox, observed, scanned, peeked, remote_mask, local_mask, push, waiting, awaited, notes, .. } =
        examined;
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
            let agreed = |local| is_agreed_local(tx, id, local, &local_mask, &outcome.merged, now);
            let here = match (&scanned, &peeked) {
                (Some(scanned), _) => scanned.doubt.is_none() && agreed(&scanned.local)?,
                (None, Some(peeked)) => agreed(&peeked.local)?,
                (None, None) => true,
            };
            if let Some(o) = observed.as_ref().filter(|_| there) {
                row.cursor = Some(o.cursor);
                row.swept_at = if o.swept { Some(now) } else { row.swept_at };
                row.sweeps = o.sweeps.unwrap_or(row.sweeps);
                if o.full {
                    (row.listed_at, row.must_list) = (Some(now), false);
                }
            }
            if let Some(s) = &scanned {
                row.directory = Some(s.scan.stamp.directory());
            }
            if let Some(s) = scanned.as_ref().filter(|_| here) {
                row.must_scan = false;
                // An unsettled stamp could miss a change in the same tick of the clock.
                row.stamp = s.scan.stamp.settled(clock).then(|| s.scan.stamp.to_numbers());
            }
            let agreed_here = here;
            // What the server may bring by itself is not sent, so it is not unfinished either.
            let unfinished = tx.pending(id)?.iter().any(|link| !is_deferred(link, now)) || awaited > 0;
            // What a backup has beyond the server is its own, and is looked at again each time.
            let here = here || !push && scanned.as_ref().is_none_or(|s| s.doubt.is_none());
            let complete =
                there && here && !unfinished && !waiting && !outcome.left && !outcome.refused && !outcome.failed;
            if complete {
                row.last_complete = Some(now);
                if let Some(stamp) = witnessed.filter(|_| agreed_here) {
                    row.stamp = Some(stamp.to_numbers());
                }
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
    let asks = !removals.is_empty();
    let read = move |tx: &Tx<'_>| {
        // To count them takes a walk over all of them.
        let counts = if asks { tx.count(id)? } else { Counts::default() };
        Ok((counts, tx.removals_since(&name, since)?, tx.held(id)?))
    };
    let (counts, lately, held) = pass.db.read(read).await?;
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
