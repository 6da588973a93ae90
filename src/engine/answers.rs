//! Asks whether the server has what earlier runs were uploading when they ended, and finds it there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use super::Error;
use super::cycle::is_deferred;
use super::observe::{raw_name, settle_sizes};
use super::pass::Pass;
use super::plan::Answer;
use crate::db::Mailbox;
use crate::imap::{self, Habit, Seen, Session};
use crate::maildir::Maildir;
use crate::model::{ContentKey, Link, LinkId, LinkState, MailboxId, Uid, UidSet, UniqueName};

/// Asks whether the server has what earlier runs were uploading when they ended. Where it puts copies of what is sent by
/// itself, these have another header: then `copies` is the maildir, whose files tell what the messages were called.
pub(super) async fn ask_for_uploads(
    pass: &Pass<'_>,
    session: &mut Session,
    mailbox: &Mailbox,
    copies: Option<&Arc<Maildir>>,
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
    let (early, now) = (pass.is_too_early(), pass.now());
    let mut free = unlinked_from(pass, session, id, first, pending.iter().filter_map(|link| link.content)).await?;
    let names: Vec<UniqueName> = pending.iter().filter_map(|link| link.name().cloned()).collect();
    let ids = match copies {
        Some(maildir) if !free.is_empty() => ids_of_files(Arc::clone(maildir), names).await?,
        Some(_) | None => BTreeMap::new(),
    };
    let mut answers = BTreeMap::new();
    for link in &pending {
        let Some(uid_next) = since(link) else { continue };
        let ids = link.name().and_then(|name| ids.get(name)).map(Vec::as_slice).unwrap_or_default();
        let found = take_upload(&mut free, uid_next, link.content, link.internal_date)
            .or_else(|| take_copy(&mut free, uid_next, ids));
        let answer = match found {
            Some(uid) => Answer::Found(uid),
            None if early || is_deferred(link, now) => Answer::TooEarly,
            None => Answer::NotFound,
        };
        answers.insert(link.id, answer);
    }
    Ok(answers)
}

/// Returns what messages in files are called, by Message-ID.
async fn ids_of_files(
    maildir: Arc<Maildir>,
    names: Vec<UniqueName>,
) -> Result<BTreeMap<UniqueName, Vec<String>>, Error> {
    // No header of an honest message is longer.
    const HEADER: u64 = 256 << 10;
    let read = move || {
        let scan = maildir.scan()?;
        let ids = |name: UniqueName| {
            let mut header = Vec::new();
            maildir.read(&scan.get(&name)?.file()).ok()?.take(HEADER).read_to_end(&mut header).ok()?;
            Some((name, imap::message_ids(&header)))
        };
        Ok::<_, Error>(names.into_iter().filter_map(ids).collect())
    };
    tokio::task::spawn_blocking(read).await?
}

/// Returns the messages of the selected mailbox from a UID on that no link stands for; `known` are the contents among
/// which one of them may be.
pub(super) async fn unlinked_from(
    pass: &Pass<'_>,
    session: &mut Session,
    mailbox: MailboxId,
    first: Uid,
    known: impl Iterator<Item = ContentKey>,
) -> Result<Vec<Seen>, Error> {
    let linked = async |uids: UidSet| {
        let links = pass.db.read(move |tx| tx.links_of_uids(mailbox, &uids)).await?;
        Ok::<BTreeSet<Uid>, Error>(links.iter().filter_map(Link::uid).collect())
    };
    if session.quirks().has(Habit::RenumbersSlowly) {
        // It may be from the first message on that is asked, and headers are many bytes.
        let uids = session.uids_from(first).await?;
        let linked = linked(uids.clone()).await?;
        let mut found = session.fingerprints(&uids.iter().filter(|uid| !linked.contains(uid)).collect()).await?;
        settle_sizes(session, &mut found, known);
        return Ok(found);
    }
    let mut found = session.fingerprints_from(first).await?;
    let linked = linked(found.iter().map(|seen| seen.uid).collect()).await?;
    found.retain(|seen| !linked.contains(&seen.uid));
    Ok(found)
}

/// Takes the copy that the server made of a message, out of those that no link stands for.
fn take_copy(free: &mut Vec<Seen>, uid_next: Uid, ids: &[String]) -> Option<Uid> {
    let is_it = |seen: &Seen| seen.uid >= uid_next && seen.message_ids.iter().any(|id| ids.contains(id));
    let found = free.iter().position(is_it)?;
    Some(free.remove(found).uid)
}

/// Takes the message that is an upload out of those that no link stands for, one of the same date first.
pub(super) fn take_upload(
    free: &mut Vec<Seen>,
    uid_next: Uid,
    content: Option<ContentKey>,
    internal_date: Option<i64>,
) -> Option<Uid> {
    let has = |seen: &Seen, print| seen.fingerprint == print || seen.bare == Some(print);
    let is_it = |seen: &Seen| seen.uid >= uid_next && content.is_some_and(|c| has(seen, c.fingerprint));
    let same_date = |seen: &Seen| is_it(seen) && internal_date == Some(seen.internal_date);
    let found = free.iter().position(same_date).or_else(|| free.iter().position(is_it))?;
    Some(free.remove(found).uid)
}
