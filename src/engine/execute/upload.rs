//! Appends files to the server's mailbox: an intent with the content first, so that a lost answer can be asked for.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Site, refusals};
use crate::db::NewLink;
use crate::engine::Error;
use crate::engine::again;
use crate::engine::answers::{take_upload, unlinked_from};
use crate::engine::cycle::Outcome;
use crate::engine::op::{Op, Planned, Why};
use crate::imap::{self, Habit, Outgoing, Session};
use crate::maildir::{self, FileRef, Maildir, Source};
use crate::model::{ContentKey, Flag, FlagChange, Flags, Link, LinkId, LinkState, SkipReason, Uid, UidSet, UniqueName};

/// How many messages, and how many bytes of them, go out between two commits.
const BATCH_MESSAGES: usize = 200;
const BATCH_BYTES: u64 = 8 << 20;

/// A message up to this size is read once and kept for the moment between its intent and its way out.
const IN_MEMORY: u64 = 1 << 20;

/// A file that was written to within this time, and not renamed since, may still be growing. …
const QUIET: Duration = Duration::from_millis(500);

/// … One that is known to have been renamed is whole; only what is written to it all the same is waited for. This is more
/// than a tick of the kernel's clock, within which the time of a rename is that of what was written before.
const QUIET_AFTER_RENAME: Duration = Duration::from_millis(30);

/// A file that can go out.
struct Ready {
    planned: Planned,
    link: Option<LinkId>,
    name: UniqueName,
    flags: Flags,
    /// What the base is to know of it.
    content: ContentKey,
    /// How long it is as served, in bytes.
    length: u64,
    internal_date: i64,
    inode: u64,
    /// Its bytes as served, if they are few.
    body: Bytes,
    file: FileRef,
}

/// Microsoft puts its copy of what is sent into the mailbox up to 15 minutes later; in seconds.
const COPIED_WITHIN: i64 = 20 * 60;

/// What a look at a file says.
enum Look {
    Ready(Box<Ready>),
    Unusable(SkipReason),
    /// Still being written, or gone meanwhile: the next round looks again.
    Later,
}

/// Files that were looked at together.
#[derive(Default)]
struct Batch {
    /// These can go out, and are durable.
    ready: Vec<Ready>,
    /// These cannot, for a reason of their own.
    unusable: Vec<(Planned, SkipReason)>,
    /// Some wait for the next round.
    later: bool,
}

/// Carries out `Upload`. While a batch is on its way, the next one is read from the disk.
pub(super) async fn upload(
    site: &Site<'_>,
    session: &mut Session,
    ops: Vec<Planned>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let mut files = VecDeque::with_capacity(ops.len());
    for planned in ops {
        match &planned.op {
            Op::Upload { name, .. } => match site.file(name) {
                Some(file) => {
                    let quiet = if site.whole.contains(name) { QUIET_AFTER_RENAME } else { QUIET };
                    files.push_back(Candidate { planned, file, quiet });
                }
                None => outcome.left = true,
            },
            _ => outcome.left = true,
        }
    }
    let rewrites = session.quirks().has(Habit::Rewrites);
    let mut looking = look_ahead(site, rewrites, files);
    while let Some(looked) = looking.take() {
        let (batch, rest) = looked.await??;
        looking = look_ahead(site, rewrites, rest);
        outcome.left |= batch.later;
        if !batch.unusable.is_empty() {
            skip(site, batch.unusable, None).await?;
        }
        if wait_for_room(site, batch.ready.iter().map(|ready| (ready, ready.link)), outcome).await? {
            continue;
        }
        let mut ready = batch.ready;
        if site.copies {
            // The server may be about to put its own copy there.
            let new = ready.extract_if(.., |ready: &mut Ready| ready.link.is_none()).collect::<Vec<_>>();
            if !new.is_empty() {
                intend(site, session, &new, site.pass.now() + COPIED_WITHIN).await?;
            }
        }
        if ready.is_empty() {
            continue;
        }
        let ids = intend(site, session, &ready, site.pass.now()).await?;
        append(site, session, ready, ids, outcome).await?;
    }
    Ok(())
}

/// A file that is still to be looked at.
struct Candidate {
    planned: Planned,
    /// Where it was when the maildir was looked at.
    file: FileRef,
    /// It may be growing if it was written to within this time.
    quiet: Duration,
}

/// Files that are still to be looked at.
type Files = VecDeque<Candidate>;

/// Begins to look at the next batch on a thread beside; returns it with the files that are left, or nothing if none are.
///
/// Where the server `rewrites` headers, the base is to know messages without marks.
fn look_ahead(site: &Site<'_>, rewrites: bool, mut files: Files) -> Option<JoinHandle<Result<(Batch, Files), Error>>> {
    if files.is_empty() {
        return None;
    }
    let (maildir, limit) = (Arc::clone(&site.maildir), site.pass.account.max_message_size);
    Some(tokio::task::spawn_blocking(move || {
        let batch = next_batch(&maildir, limit, rewrites, &mut files)?;
        Ok((batch, files))
    }))
}

/// Takes as many files as make a batch, and looks at them. Blocks.
fn next_batch(maildir: &Maildir, limit: u64, rewrites: bool, files: &mut Files) -> Result<Batch, Error> {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    while batch.ready.len() < BATCH_MESSAGES
        && bytes < BATCH_BYTES
        && let Some(candidate) = files.pop_front()
    {
        match look(maildir, limit, rewrites, &candidate)? {
            Look::Ready(ready) => {
                bytes += ready.length;
                batch.ready.push(*ready);
            }
            Look::Unusable(reason) => batch.unusable.push((candidate.planned, reason)),
            Look::Later => batch.later = true,
        }
    }
    // A mail reader need not have made them so; but the base is going to say that they are there.
    maildir.make_durable(batch.ready.iter().map(|ready| &ready.file))?;
    Ok(batch)
}

fn look(maildir: &Maildir, limit: u64, rewrites: bool, candidate: &Candidate) -> Result<Look, Error> {
    let Candidate { planned, file, quiet } = candidate;
    let Op::Upload { link, name, flags } = &planned.op else { return Ok(Look::Later) };
    let unusable = |why: String| Ok(Look::Unusable(SkipReason::Unusable(why)));
    let mut message = match maildir.read(file) {
        Ok(message) => message,
        Err(maildir::Error::Unusable { why, .. }) => return unusable(why),
        Err(maildir::Error::Missing { .. }) => return Ok(Look::Later),
        Err(error) => return Err(Error::from(error)),
    };
    if message.length() > limit {
        return Ok(Look::Unusable(SkipReason::TooLarge(message.length())));
    }
    match message.may_be_growing(SystemTime::now(), *quiet) {
        Ok(false) => {}
        Ok(true) => return Ok(Look::Later),
        Err(error) => return unusable(error.to_string()),
    }
    let (internal_date, inode) = (message.modified(), message.inode());
    let mut body = Vec::new();
    let content = if message.length() <= IN_MEMORY {
        message.read_to_end(&mut body).and_then(|_| {
            let mut hasher = maildir::ContentHasher::default();
            hasher.update(&body);
            let whole = hasher.finish();
            let bare = if rewrites { maildir::unmarked_key(Source::Memory(&body))? } else { None };
            Ok((bare.unwrap_or(whole), whole.fingerprint.size))
        })
    } else {
        let keys = message.keys();
        keys.map(|keys| (if rewrites { keys.unmarked_content() } else { keys.whole }, keys.whole.fingerprint.size))
    };
    match (content, message.still_same()) {
        (Ok((content, length)), Ok(true)) => Ok(Look::Ready(Box::new(Ready {
            planned: planned.clone(),
            link: *link,
            name: name.clone(),
            flags: flags.clone(),
            content,
            length,
            internal_date,
            inode,
            body: body.into(),
            file: file.clone(),
        }))),
        (Ok(_), _) => Ok(Look::Later),
        (Err(error), _) => unusable(error.to_string()),
    }
}

/// Where the server has no room, lets files wait without sending them. Returns whether it is so.
async fn wait_for_room<'r>(
    site: &Site<'_>,
    files: impl IntoIterator<Item = (&'r Ready, Option<LinkId>)>,
    outcome: &mut Outcome,
) -> Result<bool, Error> {
    let Some(text) = site.pass.full.borrow().clone() else { return Ok(false) };
    outcome.refused = true;
    let wait = |(ready, link): (&Ready, _)| (again_of(ready, link), SkipReason::Refused(text.clone()));
    skip(site, files.into_iter().map(wait).collect(), Some(true)).await?;
    Ok(true)
}

/// Returns the upload of a file that has this link by now.
fn again_of(ready: &Ready, link: Option<LinkId>) -> Planned {
    let op = Op::Upload { link, name: ready.name.clone(), flags: ready.flags.clone() };
    Planned { op, why: ready.planned.why }
}

/// Writes down that the server refused a file.
async fn refuse(
    site: &Site<'_>,
    ready: &Ready,
    link: LinkId,
    error: &imap::Error,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let text = match error {
        imap::Error::Refused { text, .. } | imap::Error::Bad { text, .. } | imap::Error::Confused { text, .. } => {
            text.clone()
        }
        other => other.to_string(),
    };
    if again::is_full(error) {
        site.pass.full.borrow_mut().get_or_insert_with(|| text.clone());
    }
    outcome.refused = true;
    let passes = Some(again::may_pass(error));
    skip(site, vec![(again_of(ready, Some(link)), SkipReason::Refused(text))], passes).await
}

/// Writes down that files are not uploaded, and why; if the server refused them, also whether it may take them another time.
async fn skip(site: &Site<'_>, files: Vec<(Planned, SkipReason)>, passes: Option<bool>) -> Result<(), Error> {
    // Where there is no room, it is the same for all.
    let is_full = passes == Some(true) && site.pass.full.borrow().is_some();
    let mut rows = Vec::new();
    for (planned, reason) in files {
        let Op::Upload { link, name, .. } = planned.op else { continue };
        let text = reason.text();
        let what = if is_full { "what is new here".to_owned() } else { name.to_string() };
        site.pass.problem(&site.mailbox.name, format!("{what} was not uploaded: {text}"));
        let inode = site.seen(&name).map(|seen| seen.inode);
        let state = LinkState::Skipped { uid: None, name: Some(name), reason };
        rows.push((link, NewLink { state, content: None, internal_date: None, inode }, text));
    }
    site.pass.tally(&site.mailbox.name, |t| t.skipped += rows.len() as u64);
    let (mailbox, now) = (site.mailbox.id, site.pass.now());
    let write = site.pass.commit(move |tx| {
        let mut ids = Vec::new();
        for (link, new, text) in rows {
            let id = match link {
                Some(id) => {
                    let NewLink { state, content, internal_date, inode } = new;
                    tx.set_link(&Link { id, state, content, internal_date, inode })?;
                    id
                }
                None => tx.insert_link(mailbox, &new)?,
            };
            match passes {
                Some(true) => refusals::refuse(tx, id, &text, true, now)?,
                Some(false) | None => tx.want_no_more(id)?,
            }
            ids.push(id);
        }
        Ok(ids)
    });
    let ids = write.await?;
    site.pass.refused.borrow_mut().extend(ids);
    Ok(())
}

/// Writes the intents of a batch: what is going to be appended, and the UID from which on it can be found.
///
/// Where `since` is later than now, what has been there since the last pass may be it, too.
async fn intend(site: &Site<'_>, session: &Session, batch: &[Ready], since: i64) -> Result<Vec<LinkId>, Error> {
    let now_there = session.selected().and_then(|selected| selected.uid_next).unwrap_or(Uid::MIN);
    let last_there = site.mailbox.cursor.map_or(Uid::MIN, |cursor| cursor.uid_next);
    let uid_next = if since > site.pass.now() { last_there.min(now_there) } else { now_there };
    let mailbox = site.mailbox.id;
    let rows: Vec<(Option<LinkId>, NewLink)> = batch
        .iter()
        .map(|r| {
            let state = LinkState::Uploading { name: r.name.clone(), flags: r.flags.clone(), uid_next, since };
            let (content, internal_date) = (Some(r.content), Some(r.internal_date));
            (r.link, NewLink { state, content, internal_date, inode: Some(r.inode) })
        })
        .collect();
    let write = site.pass.commit(move |tx| {
        rows.iter()
            .map(|(id, new)| match id {
                Some(id) => {
                    let NewLink { state, content, internal_date, inode } = new.clone();
                    tx.set_link(&Link { id: *id, state, content, internal_date, inode })?;
                    Ok(*id)
                }
                None => tx.insert_link(mailbox, new),
            })
            .collect()
    });
    write.await
}

/// Sends a batch. A no to one is its own matter; a no to several that go together is asked again for each of them.
async fn append(
    site: &Site<'_>,
    session: &mut Session,
    batch: Vec<Ready>,
    ids: Vec<LinkId>,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let mut first: Vec<(Ready, LinkId)> = batch.into_iter().zip(ids).collect();
    // What was refused before is tried with one: if there still is no room, the others need not be sent.
    let alone = first.iter().any(|(ready, _)| ready.planned.why == Why::SkippedBefore);
    let rest = first.split_off(if alone { 1 } else { first.len() });
    let mut groups: Vec<Vec<(Ready, LinkId)>> = vec![rest, first];
    while let Some(group) = groups.pop() {
        if wait_for_room(site, group.iter().map(|(ready, id)| (ready, Some(*id))), outcome).await? {
            continue;
        }
        let outgoing = group.iter().map(|(ready, _)| outgoing(site, ready)).collect::<Result<Vec<_>, Error>>()?;
        match session.append(&site.raw, outgoing).await {
            Ok(results) => take_in(site, session, group, results, outcome).await?,
            Err(imap::Error::Refused { .. } | imap::Error::Bad { .. } | imap::Error::Confused { .. })
                if group.len() > 1 =>
            {
                groups.extend(group.into_iter().rev().map(|one| vec![one]));
            }
            Err(error) => {
                site.pass.lost_connection();
                return Err(error.into());
            }
        }
    }
    Ok(())
}

/// Writes down what came of each message of a group.
async fn take_in(
    site: &Site<'_>,
    session: &mut Session,
    group: Vec<(Ready, LinkId)>,
    results: imap::Appended,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let (mut taken, mut uids, mut refused, mut failed) = (Vec::new(), Vec::new(), Vec::new(), Ok(()));
    for (one, result) in group.into_iter().zip(results) {
        match result {
            Ok(uid) => {
                taken.push(one);
                uids.push(uid);
            }
            Err(error @ (imap::Error::Refused { .. } | imap::Error::Bad { .. } | imap::Error::Confused { .. })) => {
                refused.push((one, error))
            }
            Err(error) => failed = failed.and(Err(error.into())),
        }
    }
    if !taken.is_empty() {
        done(site, session, taken, uids).await?;
    }
    for ((ready, id), error) in refused {
        refuse(site, &ready, id, &error, outcome).await?;
    }
    failed
}

fn outgoing(site: &Site<'_>, ready: &Ready) -> Result<Outgoing, Error> {
    let content: Box<dyn Read + Send> = if ready.body.is_empty() {
        Box::new(site.maildir.read(&ready.file)?)
    } else {
        Box::new(std::io::Cursor::new(ready.body.clone()))
    };
    Ok(Outgoing {
        flags: site.remote_mask.keeps(&ready.flags),
        internal_date: ready.internal_date,
        length: ready.length,
        content,
    })
}

async fn done(
    site: &Site<'_>,
    session: &mut Session,
    group: Vec<(Ready, LinkId)>,
    mut uids: Vec<Option<Uid>>,
) -> Result<(), Error> {
    let (count, bytes) = (group.len() as u64, group.iter().map(|(r, _)| r.length).sum());
    site.pass.meter(&site.mailbox.name).uploaded(count, bytes);
    if uids.iter().any(Option::is_none) {
        look_for(site, session, &group, &mut uids).await?;
    }
    if session.quirks().has(Habit::ForgetsFlagged) {
        let is_flagged = |ready: &Ready| ready.flags.contains(Flag::Flagged);
        let flagged: UidSet =
            group.iter().zip(&uids).filter(|((ready, _), _)| is_flagged(ready)).filter_map(|(_, uid)| *uid).collect();
        let change = FlagChange { add: [Flag::Flagged].into_iter().collect(), ..FlagChange::default() };
        session.store(&flagged, &change, None).await?;
    }
    let mut writes = Vec::new();
    for ((ready, id), uid) in group.into_iter().zip(uids) {
        let Some(uid) = uid else {
            // To send it again would double it, and do so in every round.
            let why = "the server took it, but has no message that is the same".to_owned();
            skip(site, vec![(again_of(&ready, Some(id)), SkipReason::Refused(why))], None).await?;
            continue;
        };
        let state = LinkState::Synced { uid, name: ready.name, flags: ready.flags };
        let (content, internal_date) = (Some(ready.content), Some(ready.internal_date));
        let link = Link { id, state, content, internal_date, inode: Some(ready.inode) };
        writes.push((link, site.entry(&ready.planned, None)));
    }
    let write = site.pass.commit(move |tx| {
        for (link, entry) in &writes {
            tx.set_link(link)?;
            tx.journal(entry)?;
        }
        Ok(())
    });
    write.await
}

/// Looks for what was appended to a server that does not say which UID it gave (no UIDPLUS).
async fn look_for(
    site: &Site<'_>,
    session: &mut Session,
    group: &[(Ready, LinkId)],
    uids: &mut [Option<Uid>],
) -> Result<(), Error> {
    let uid_next = session.selected().and_then(|selected| selected.uid_next).unwrap_or(Uid::MIN);
    session.select(&site.raw).await?;
    let known = group.iter().map(|(ready, _)| ready.content);
    let mut free = unlinked_from(site.pass, session, site.mailbox.id, uid_next, known).await?;
    free.retain(|seen| !uids.contains(&Some(seen.uid)));
    for ((ready, _), uid) in group.iter().zip(uids) {
        if uid.is_none() {
            *uid = take_upload(&mut free, uid_next, Some(ready.content), Some(ready.internal_date));
        }
    }
    Ok(())
}
