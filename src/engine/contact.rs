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
use crate::imap::{Body, Habit, Observation, Quirks, Seen, Session};
use crate::maildir::{ContentHasher, FileRef, Keyed, Maildir, Scan, Source};
use crate::model::{
    ContentKey, Cursor, Digest, Flags, Keys, Link, LinkState, RemoteMessage, SkipReason, Uid, UidSet, UniqueName,
};

/// For how long after a change of UIDVALIDITY messages may be missing that are still to be shown under new numbers, in
/// seconds.
const MAY_COME: i64 = 60 * 60;

/// Pairs both sides by content and writes the new base down, in one commit; returns how many pairs there are, and what was
/// seen of the server, all of it, to be compared with that base.
///
/// Afterwards the cursor stands at the beginning of the epoch: where what was seen comes to nothing, the next observation
/// names everything again.
pub(super) async fn contact(
    session: &mut Session,
    db: &Db,
    mailbox: &mut Mailbox,
    maildir: Option<Arc<Maildir>>,
    unite: bool,
    now_ms: i64,
) -> Result<(u64, Observation), Error> {
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
    // The disk is read while the server lists.
    let read = maildir.clone().map(|maildir| {
        let known = known.clone();
        tokio::task::spawn_blocking(move || unbound(&maildir, &maildir.scan()?, &known))
    });
    let observation = session.observe(&raw_name(mailbox), None, true).await?;
    let mut files = match read {
        None => BTreeMap::new(),
        Some(read) => read.await??,
    };
    let pairs = match maildir {
        Some(maildir) if !files.is_empty() => pair(session, &observation, &maildir, &mut files).await?,
        Some(_) | None => Vec::new(),
    };
    let (uid_validity, there) = (observation.cursor.uid_validity, &observation.messages);

    let mut links: Vec<NewLink> = Vec::new();
    for (seen, name) in &pairs {
        let Some(file) = files.get(name) else { continue };
        let there = there.get(&seen.uid).map(|m: &RemoteMessage| m.flags.clone()).unwrap_or_default();
        let flags = match known.get(name).map(|link| &link.state) {
            Some(LinkState::Synced { flags, .. }) => flags.clone(),
            _ => first_base(&there, &file.flags),
        };
        links.push(NewLink {
            state: LinkState::Synced { uid: seen.uid, name: name.clone(), flags },
            content: Some(common(file.keys, seen, session.quirks())),
            internal_date: Some(seen.internal_date),
            inode: Some(file.inode),
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
    let kind = if epoch_changed { "renumber" } else { "match" };
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
                kind: kind.to_owned(),
                kept: None,
            })?;
        }
        Ok(())
    })
    .await?;
    Ok((count, observation))
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

/// A file that may be one of the server's messages.
struct File {
    file: FileRef,
    keys: Keys,
    /// These are what the base knows it by, which may have marks.
    unread: bool,
    internal_date: i64,
    flags: Flags,
    inode: u64,
}

/// Returns the content that a message and its file have in common: all of it, or all but the marks.
fn common(file: Keys, message: &Seen, quirks: &Quirks) -> ContentKey {
    if quirks.has(Habit::Rewrites) {
        return file.unmarked_content();
    }
    let fits =
        |content: &ContentKey| content.fingerprint == message.fingerprint || Some(content.fingerprint) == message.bare;
    file.each().find(fits).or(file.bare).unwrap_or(file.whole)
}

/// Returns every file that can be read with its content: from the base where it knows it, else by reading. Blocks.
fn unbound(
    maildir: &Maildir,
    scan: &Scan,
    known: &BTreeMap<UniqueName, Link>,
) -> Result<BTreeMap<UniqueName, File>, Error> {
    let mut files = BTreeMap::new();
    for found in scan.iter() {
        let name = UniqueName::new(found.name);
        let from_base = known.get(&name).filter(|link| link.inode == Some(found.inode));
        let from_base = from_base.and_then(|link| Some((Keys::unmarked(link.content?), link.internal_date?)));
        let unread = from_base.is_some();
        let (keys, internal_date) = match from_base {
            Some(known) => known,
            None => match maildir.read(&found.file()) {
                Ok(mut message) => match message.keys() {
                    Ok(keys) => (keys, message.modified()),
                    Err(_) => continue, // reported by the upload that will be tried
                },
                Err(crate::maildir::Error::Unusable { .. } | crate::maildir::Error::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            },
        };
        let (file, flags, inode) = (found.file(), found.flags.clone(), found.inode);
        files.insert(name, File { file, keys, unread, internal_date, flags, inode });
    }
    Ok(files)
}

/// Pairs messages with files, fetching headers, and bodies only where headers cannot tell: first those that are the same,
/// then those that are without the marks that one of them has.
async fn pair(
    session: &mut Session,
    observation: &Observation,
    maildir: &Arc<Maildir>,
    files: &mut BTreeMap<UniqueName, File>,
) -> Result<Vec<(Seen, UniqueName)>, Error> {
    let uids: UidSet = observation.messages.keys().copied().collect();
    let mut seen = session.fingerprints(&uids).await?;
    let mut pairs: BTreeMap<Uid, UniqueName> = BTreeMap::new();
    for form in [Form::AsIs, Form::Bare] {
        let paired: BTreeSet<&UniqueName> = pairs.values().collect();
        let is_left = pairs.len() < seen.len();
        if form == Form::Bare && is_left && session.quirks().has(Habit::Rewrites) {
            read_again(maildir, files, &paired).await?;
        }
        settle_sizes(session, &mut seen, files.values().flat_map(|file| file.keys.each()));
        let messages: Vec<&Seen> = seen.iter().filter(|s| !pairs.contains_key(&s.uid)).collect();
        let rest: Vec<(&UniqueName, &File)> = files.iter().filter(|(name, _)| !paired.contains(name)).collect();
        let is_marked = messages.iter().any(|s| s.bare.is_some()) || rest.iter().any(|(_, f)| f.keys.bare.is_some());
        if form == Form::Bare && !is_marked {
            break;
        }
        let found = pair_by(session, form, &messages, &rest).await?;
        pairs.extend(found);
    }
    Ok(seen.into_iter().filter_map(|s| pairs.remove(&s.uid).map(|name| (s, name))).collect())
}

/// Reads those files that have no message yet and were not read, for the marks that the base may know them with.
async fn read_again(
    maildir: &Arc<Maildir>,
    files: &mut BTreeMap<UniqueName, File>,
    paired: &BTreeSet<&UniqueName>,
) -> Result<(), Error> {
    let unread = files.iter().filter(|(name, file)| file.unread && !paired.contains(name));
    let unread: Vec<(UniqueName, FileRef)> = unread.map(|(name, file)| (name.clone(), file.file.clone())).collect();
    let maildir = Arc::clone(maildir);
    // One that cannot be read now is what the base says.
    let read = move || unread.into_iter().filter_map(|(name, file)| Some((name, maildir.key(&file).ok()?))).collect();
    let read: Vec<(UniqueName, Keyed)> = tokio::task::spawn_blocking(read).await?;
    for (name, keyed) in read {
        if let Some(file) = files.get_mut(&name).filter(|file| keyed.keys.is(file.keys.whole)) {
            file.keys = keyed.keys;
        }
    }
    Ok(())
}

/// What of a message and of a file is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// All of it.
    AsIs,
    /// All but the marks.
    Bare,
}

async fn pair_by(
    session: &mut Session,
    form: Form,
    messages: &[&Seen],
    files: &[(&UniqueName, &File)],
) -> Result<Vec<(Uid, UniqueName)>, Error> {
    let is_bare = form == Form::Bare;
    let unlinked = |seen: &&Seen| {
        let Seen { uid, fingerprint, bare, internal_date, .. } = **seen;
        Unlinked { uid, fingerprint: bare.filter(|_| is_bare).unwrap_or(fingerprint), bare, internal_date }
    };
    let unbound = |(name, file): &(&UniqueName, &File)| {
        let content = if is_bare { file.keys.unmarked_content() } else { file.keys.whole };
        Unbound { name: (*name).clone(), content, internal_date: file.internal_date }
    };
    let messages: Vec<Unlinked> = messages.iter().map(unlinked).collect();
    let files: Vec<Unbound> = files.iter().map(unbound).collect();
    let mut outcome = rebind(&messages, &files, &BTreeMap::new());
    if !outcome.ambiguous.is_empty() {
        let digests = digests(session, &outcome.ambiguous.iter().copied().collect(), form).await?;
        outcome = rebind(&messages, &files, &digests);
    }
    Ok(outcome.pairs)
}

/// Returns the digests of whole messages, which are not kept.
async fn digests(session: &mut Session, uids: &UidSet, form: Form) -> Result<BTreeMap<Uid, Digest>, Error> {
    let (sender, mut bodies) = mpsc::channel(4);
    let reader = async move {
        let mut digests = BTreeMap::new();
        while let Some(fetched) = bodies.recv().await {
            let fetched: crate::imap::Fetched = fetched;
            let hash = tokio::task::spawn_blocking(move || {
                let mut hasher = ContentHasher::default();
                let source = match &fetched.body {
                    Body::Memory(bytes) => Source::Memory(bytes),
                    Body::File(file, _) => Source::File(file),
                    Body::Nothing => return Ok(None),
                };
                match form {
                    Form::AsIs => hasher.read(source)?,
                    Form::Bare => hasher.read_bare(source)?,
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
