//! Makes a new base for a mailbox whose numbers hold no more, or that was never seen: both sides are paired by content,
//! nothing is downloaded or uploaded that is there already, and nothing is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Error;
use super::flags::first_base;
use super::observe::{raw_name, settle_sizes};
use super::rebind::{Unbound, Unlinked, rebind};
use crate::db::{Db, Entry, Mailbox, NewLink};
use crate::imap::{Body, Habit, Observation, Seen, Session};
use crate::maildir::{ContentHasher, Maildir, Scan, Source};
use crate::model::{Cursor, Digest, Flags, Link, LinkState, RemoteMessage, SkipReason, Uid, UidSet, UniqueName};

/// For how long after a change of UIDVALIDITY messages may be missing that are still to be shown under new numbers, in
/// seconds.
const MAY_COME: i64 = 60 * 60;

/// Pairs both sides by content and writes the new base down, in one commit; returns how many pairs there are.
///
/// Afterwards the cursor stands at the beginning of the epoch: everything is named by the next observation.
pub(super) async fn contact(
    session: &mut Session,
    db: &Db,
    mailbox: &mut Mailbox,
    maildir: Option<Arc<Maildir>>,
    unite: bool,
    now_ms: i64,
) -> Result<u64, Error> {
    let id = mailbox.id;
    let mut old: Vec<Link> = Vec::new();
    if mailbox.cursor.is_some() || unite {
        old = db
            .read(move |tx| {
                let mut links = Vec::new();
                tx.links_by_uid(id, &mut |link| links.push(link))?;
                links.extend(tx.pending(id)?.into_iter().filter(|l| l.uid().is_none()));
                links.extend(tx.skipped(id)?.into_iter().filter(|l| l.uid().is_none()));
                Ok(links)
            })
            .await?;
    }
    let known: BTreeMap<UniqueName, Link> =
        old.iter().filter_map(|link| Some((link.name()?.clone(), link.clone()))).collect();
    let (files, flags) = match maildir {
        None => (Vec::new(), BTreeMap::new()),
        Some(maildir) => {
            let known = known.clone();
            tokio::task::spawn_blocking(move || unbound(&maildir, &maildir.scan()?, &known)).await??
        }
    };
    let (uid_validity, there, pairs) = if files.is_empty() {
        (session.select(&raw_name(mailbox)).await?.uid_validity, BTreeMap::new(), Vec::new())
    } else {
        let observation = session.observe(&raw_name(mailbox), None, true).await?;
        let pairs = pair(session, &observation, &files).await?;
        (observation.cursor.uid_validity, observation.messages, pairs)
    };

    let contents: BTreeMap<&UniqueName, &Unbound> = files.iter().map(|f| (&f.name, f)).collect();
    let mut links: Vec<NewLink> = Vec::new();
    for (seen, name) in &pairs {
        let (Some(file), Some((shown, inode))) = (contents.get(name), flags.get(name)) else { continue };
        let there = there.get(&seen.uid).map(|m: &RemoteMessage| m.flags.clone()).unwrap_or_default();
        let flags = match known.get(name).map(|link| &link.state) {
            Some(LinkState::Synced { flags, .. }) => flags.clone(),
            _ => first_base(&there, shown),
        };
        links.push(NewLink {
            state: LinkState::Synced { uid: seen.uid, name: name.clone(), flags },
            content: Some(file.content),
            internal_date: Some(seen.internal_date),
            inode: Some(*inode),
        });
    }
    let renumbered = mailbox.cursor.is_some();
    let epoch_changed = mailbox.cursor.is_some_and(|cursor| cursor.uid_validity != uid_validity);
    // The rest may come: to send it again would double it.
    let may_come = (epoch_changed && session.quirks().has(Habit::RenumbersSlowly)).then_some(now_ms / 1000 + MAY_COME);
    let paired: BTreeSet<&UniqueName> = pairs.iter().map(|(_, name)| name).collect();
    links.extend(
        old.iter()
            .filter(|link| link.name().is_some_and(|n| !paired.contains(n)))
            .filter_map(|link| still_holds(link, may_come)),
    );

    let cursor = Cursor { uid_validity, uid_next: Uid::MIN, highest_mod_seq: None, messages: 0, unseen: None };
    let count = pairs.len() as u64;
    mailbox.cursor = Some(cursor);
    mailbox.must_list = true;
    mailbox.must_scan = true;
    mailbox.stamp = None;
    let row = mailbox.clone();
    db.commit(move |tx| {
        for link in &old {
            tx.delete_link(link.id)?;
        }
        for link in &links {
            tx.insert_link(row.id, link)?;
        }
        tx.update_mailbox(&row)?;
        if renumbered || count > 0 {
            let cause = if renumbered { "the server renumbered the mailbox" } else { "first contact" };
            tx.journal(&Entry {
                at: now_ms,
                mailbox: row.name.clone(),
                op: format!("match {count} messages by content"),
                cause: cause.to_owned(),
                kind: "match".to_owned(),
                kept: None,
            })?;
        }
        Ok(())
    })
    .await?;
    Ok(count)
}

/// Returns what of an old link does not depend on the numbers of the server: an upload that may have happened, and what
/// is not transferred from here.
///
/// What both sides had, and is missing under the new numbers, is taken for an upload whose answer counts from `may_come` on.
fn still_holds(link: &Link, may_come: Option<i64>) -> Option<NewLink> {
    let state = match &link.state {
        LinkState::Synced { name, flags, .. } => {
            let (name, flags) = (name.clone(), flags.clone());
            // Without an inode: it is not one that was written here lately.
            let state = LinkState::Uploading { name, flags, uid_next: Uid::MIN, since: may_come? };
            return Some(NewLink { state, content: link.content, internal_date: link.internal_date, inode: None });
        }
        LinkState::Uploading { name, flags, since, .. } => {
            LinkState::Uploading { name: name.clone(), flags: flags.clone(), uid_next: Uid::MIN, since: *since }
        }
        LinkState::Skipped { uid: None, name: Some(_), reason } if *reason != SkipReason::Kept => link.state.clone(),
        LinkState::Skipped { .. } | LinkState::Downloading { .. } => return None,
    };
    Some(NewLink { state, content: link.content, internal_date: link.internal_date, inode: link.inode })
}

type Files = (Vec<Unbound>, BTreeMap<UniqueName, (Flags, u64)>);

/// Returns the content of every file that can be read: from the base where it knows it, else by reading. Blocks.
fn unbound(maildir: &Maildir, scan: &Scan, known: &BTreeMap<UniqueName, Link>) -> Result<Files, Error> {
    let (mut files, mut flags) = (Vec::new(), BTreeMap::new());
    for found in scan.iter() {
        let name = UniqueName::new(found.name);
        let from_base = known.get(&name).filter(|link| link.inode == Some(found.inode)).and_then(|link| {
            Some(Unbound { name: name.clone(), content: link.content?, internal_date: link.internal_date? })
        });
        let file = match from_base {
            Some(file) => file,
            None => match maildir.read(&found.file()) {
                Ok(mut message) => match message.key() {
                    Ok(content) => Unbound { name: name.clone(), content, internal_date: message.modified() },
                    Err(_) => continue, // reported by the upload that will be tried
                },
                Err(crate::maildir::Error::Unusable { .. } | crate::maildir::Error::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            },
        };
        flags.insert(name, (found.flags.clone(), found.inode));
        files.push(file);
    }
    Ok((files, flags))
}

/// Pairs messages with files, fetching headers, and bodies only where headers cannot tell.
async fn pair(
    session: &mut Session,
    observation: &Observation,
    files: &[Unbound],
) -> Result<Vec<(Seen, UniqueName)>, Error> {
    let uids: UidSet = observation.messages.keys().copied().collect();
    let mut seen = session.fingerprints(&uids).await?;
    settle_sizes(session, &mut seen, files.iter().map(|file| file.content));
    let seen: BTreeMap<Uid, Seen> = seen.into_iter().map(|s| (s.uid, s)).collect();
    let messages: Vec<Unlinked> = seen
        .values()
        .map(|s| Unlinked { uid: s.uid, fingerprint: s.fingerprint, internal_date: s.internal_date })
        .collect();
    let mut outcome = rebind(&messages, files, &BTreeMap::new());
    if !outcome.ambiguous.is_empty() {
        let digests = digests(session, &outcome.ambiguous.iter().copied().collect()).await?;
        outcome = rebind(&messages, files, &digests);
    }
    Ok(outcome.pairs.into_iter().filter_map(|(uid, name)| Some((seen.get(&uid)?.clone(), name))).collect())
}

/// Returns the digests of whole messages, which are not kept.
async fn digests(session: &mut Session, uids: &UidSet) -> Result<BTreeMap<Uid, Digest>, Error> {
    let (sender, mut bodies) = mpsc::channel(4);
    let reader = async move {
        let mut digests = BTreeMap::new();
        while let Some(fetched) = bodies.recv().await {
            let fetched: crate::imap::Fetched = fetched;
            let hash = tokio::task::spawn_blocking(move || {
                let mut hasher = ContentHasher::default();
                match &fetched.body {
                    Body::Memory(bytes) => hasher.update(bytes),
                    Body::File(file, _) => hasher.read(Source::File(file))?,
                    Body::Nothing => return Ok(None),
                }
                Ok::<_, std::io::Error>(Some((fetched.uid, hasher.finish().digest)))
            });
            match hash.await? {
                Ok(digest) => digests.extend(digest),
                Err(source) => {
                    let path = std::path::PathBuf::from("(spooled message)");
                    return Err(Error::File { what: "could not read", path, source });
                }
            }
        }
        Ok::<_, Error>(digests)
    };
    let (sent, digests) = tokio::join!(session.bodies(uids, sender), reader);
    sent?;
    digests
}
