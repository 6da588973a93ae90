//! Compares what was seen on each side with the base: what differs, what is missing, and whether the missing is gone.
//! An incremental view and a full one lead to the same trees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Error;
use super::flags::Mask;
use super::names::Names;
use crate::db::{self, Db, Mailbox, Stage, Tx};
use crate::imap::{Habit, Listing, Marks, Observation, Seen, Selected, Session};
use crate::maildir::{Entry, Fate, FileRef, Located, Maildir, Peek, Scan, Stamp, unique_of};
use crate::model::{
    ContentKey, Cursor, Digest, Doubt, Fingerprint, Flags, GoneLocal, GoneRemote, Keyword, Link, LinkId, LinkState,
    Local, LocalEvidence, LocalMessage, MailboxId, Remote, RemoteEvidence, RemoteMessage, Uid, UidSet, UniqueName,
};

/// What was seen of a mailbox on the server.
pub(super) struct Observed {
    /// Where the cursor may move to.
    pub cursor: Cursor,
    /// Everything was listed.
    pub full: bool,
    /// The flags of all messages were looked at.
    pub swept: bool,
    /// What differs from the base, and what is gone.
    pub remote: Remote,
    /// Why what is missing is not proven to be gone.
    pub doubt: Option<Doubt>,
    /// What the mailbox can do.
    pub selected: Selected,
    /// Whether SEARCH said the same as the listing; nothing where that was not asked.
    pub sweeps: Option<bool>,
}

/// Fewer messages than this are listed as quickly as swept.
const WORTH_A_SWEEP: u32 = 500;

/// Returns what differs from the base; a view that does not add up is replaced by a full one, once. Flags that are not
/// wanted are left out where it takes long to look for them.
pub(super) async fn observe(
    session: &mut Session,
    db: &Db,
    mailbox: &Mailbox,
    full: bool,
    flags: bool,
) -> Result<Observed, Error> {
    let raw = raw_name(mailbox);
    let sweeps = mailbox.sweeps && !full && session.quirks().has(Habit::Sweeps);
    let observation = match mailbox.cursor {
        Some(since) if sweeps && since.messages >= WORTH_A_SWEEP => {
            let base = marks(db, mailbox.id).await?;
            session.sweep(&raw, &since, &base, flags).await?
        }
        Some(_) | None => session.observe(&raw, mailbox.cursor.as_ref(), full).await?,
    };
    let was_full = matches!(observation.listing, Listing::Full);
    let mut observed = compare_remote(session, db, mailbox, observation).await?;
    observed.swept = !sweeps || flags || was_full;
    match observed.doubt {
        Some(doubt) if !was_full => {
            tracing::info!(mailbox = %mailbox.name, %doubt, "listed everything, since the changes did not add up");
            let observation = session.observe(&raw, mailbox.cursor.as_ref(), true).await?;
            compare_remote(session, db, mailbox, observation).await
        }
        _ => Ok(observed),
    }
}

/// Returns what the base knows of the flags of a mailbox.
async fn marks(db: &Db, mailbox: MailboxId) -> Result<Marks, Error> {
    let marks = db.read(move |tx| {
        let mut marks = Marks::default();
        tx.each_uid(mailbox, &mut |uid, bits, _, _, _| marks.insert(uid, bits))?;
        Ok(marks)
    });
    Ok(marks.await?)
}

/// Asks, after a full listing, whether the next observation may be a sweep: where no other flags can be kept than those
/// that SEARCH knows, and it says the same as the listing.
async fn may_sweep(session: &mut Session, observation: &Observation) -> Result<Option<bool>, Error> {
    let full = matches!(observation.listing, Listing::Full) && observation.exists >= WORTH_A_SWEEP;
    if !full || !session.quirks().has(Habit::Sweeps) {
        return Ok(None);
    }
    let only_system = !observation.selected.any_keyword;
    Ok(Some(only_system && session.search_is_right(&observation.messages).await?))
}

/// Puts right the sizes of messages whose server only estimates them: a message that has the header of known contents has
/// their size, if they have one.
pub(super) fn settle_sizes(session: &Session, seen: &mut [Seen], known: impl Iterator<Item = ContentKey>) {
    if !session.quirks().has(Habit::EstimatesSizes) {
        return;
    }
    let mut sizes: BTreeMap<Digest, Option<u64>> = BTreeMap::new();
    for Fingerprint { header, size } in known.map(|content| content.fingerprint) {
        sizes.entry(header).and_modify(|known| *known = known.filter(|known| *known == size)).or_insert(Some(size));
    }
    for one in seen {
        for print in std::iter::once(&mut one.fingerprint).chain(&mut one.bare) {
            if let Some(Some(size)) = sizes.get(&print.header) {
                print.size = *size;
            }
        }
    }
}

/// Returns the server's name of a mailbox.
pub(super) fn raw_name(mailbox: &Mailbox) -> crate::imap::RawName {
    crate::imap::RawName::new(mailbox.raw.as_deref().unwrap_or_default())
}

/// Tells whether the numbers that the links hold under are void: the epoch changed, or the server went back in time.
pub(super) fn is_void(before: &Cursor, now: &Cursor) -> bool {
    let back = |(a, b): (Option<crate::model::ModSeq>, Option<_>)| matches!((a, b), (Some(a), Some(b)) if b < a);
    before.uid_validity != now.uid_validity
        || now.uid_next < before.uid_next
        || back((before.highest_mod_seq, now.highest_mod_seq))
}

/// Compares what was seen of the server with the base.
pub(super) async fn compare_remote(
    session: &mut Session,
    db: &Db,
    mailbox: &Mailbox,
    observation: Observation,
) -> Result<Observed, Error> {
    let sweeps = may_sweep(session, &observation).await?;
    let Observation { cursor, messages, listing, exists, selected } = observation;
    let (id, full) = (mailbox.id, matches!(listing, Listing::Full));
    let mut compared = db.read(move |tx| compare(tx, id, messages, listing)).await?;
    if !compared.unnamed.is_empty() {
        // Listed, but neither known nor named as changed: an earlier pass could not take them.
        compared.messages.extend(session.flags(&compared.unnamed).await?);
    }
    let found_again = if compared.missing.is_empty() {
        None
    } else {
        let missing: UidSet = compared.missing.iter().copied().collect();
        Some(session.present(&missing).await?.iter().collect())
    };
    let evidence = RemoteEvidence {
        ended: true, // a listing that broke off is an error, and does not come here
        counted: compared.counted,
        exists: exists.into(),
        same_validity: mailbox.cursor.is_some_and(|c| c.uid_validity == cursor.uid_validity),
        went_forward: mailbox.cursor.is_some_and(|c| !is_void(&c, &cursor)),
        missing: compared.missing,
        found_again,
    };
    let (gone, doubt) = match GoneRemote::prove(&evidence) {
        Ok(gone) => (gone, None),
        Err(doubt) => (GoneRemote::default(), Some(doubt)),
    };
    let remote = Remote { messages: compared.messages, gone };
    Ok(Observed { cursor, full, swept: true, remote, doubt, selected, sweeps })
}

#[derive(Debug, Default, PartialEq)]
struct Compared {
    messages: BTreeMap<Uid, RemoteMessage>,
    missing: BTreeSet<Uid>,
    unnamed: UidSet,
    counted: u64,
}

/// Finds what differs from the base, what is missing, and how many messages there are by the listing.
fn compare(
    tx: &Tx<'_>,
    mailbox: MailboxId,
    messages: BTreeMap<Uid, RemoteMessage>,
    listing: Listing,
) -> Result<Compared, db::Error> {
    let mut out = Compared { messages, ..Compared::default() };
    let mut same = Vec::new();
    match listing {
        Listing::Full => {
            out.counted = out.messages.len() as u64;
            tx.each_uid(mailbox, &mut |uid, bits, keywords, _, stage| match out.messages.get(&uid) {
                Some(message) if stage == Stage::Synced && are(&message.flags, bits, keywords) => same.push(uid),
                Some(_) => {}
                None => {
                    out.missing.insert(uid);
                }
            })?;
        }
        Listing::Changed { uids } => {
            out.counted = uids.len();
            let mut linked = UidSet::default();
            tx.each_uid(mailbox, &mut |uid, bits, keywords, _, stage| {
                linked.insert(uid);
                match out.messages.get(&uid) {
                    Some(message) if stage == Stage::Synced && are(&message.flags, bits, keywords) => same.push(uid),
                    Some(_) => {}
                    None if uids.contains(uid) => {}
                    None => {
                        out.missing.insert(uid);
                    }
                }
            })?;
            out.unnamed = uids.iter().filter(|u| !linked.contains(*u) && !out.messages.contains_key(u)).collect();
        }
        Listing::Delta { vanished } => {
            let mut new: BTreeSet<Uid> = out.messages.keys().copied().collect();
            let mut named: UidSet = new.iter().copied().collect();
            for (first, last) in vanished.ranges() {
                named.insert_range(first, last);
            }
            tx.each_of_uids(mailbox, &named, &mut |uid, bits, keywords, _, stage| {
                new.remove(&uid);
                match out.messages.get(&uid) {
                    Some(message) if stage == Stage::Synced && are(&message.flags, bits, keywords) => same.push(uid),
                    Some(_) => {}
                    None => {
                        out.missing.insert(uid);
                    }
                }
            })?;
            out.counted = tx.count_uids(mailbox)? + new.len() as u64 - out.missing.len() as u64;
        }
    }
    for uid in same {
        out.messages.remove(&uid);
    }
    Ok(out)
}

/// Tells whether `flags` are those that the database holds as bits and words.
fn are(flags: &Flags, bits: u8, keywords: &str) -> bool {
    flags.bits() == bits
        && if keywords.is_empty() {
            flags.keywords().next().is_none()
        } else {
            *flags == Flags::from_parts(bits, keywords.split(' ').filter_map(Keyword::new))
        }
}

/// What was seen of a maildir.
pub(super) struct Scanned {
    /// The scan itself: where each file is.
    pub scan: Arc<Scan>,
    /// What differs from the base, and what is gone.
    pub local: Local,
    /// Why what is missing is not proven to be gone.
    pub doubt: Option<Doubt>,
    /// Files that were read, and hold what their link says, under another inode: as after a copy of the tree.
    pub inodes: BTreeMap<LinkId, u64>,
}

/// What was seen of some files of a maildir. What is not among them is not known to be anything else than it was.
pub(super) struct Peeked {
    /// When the directories last changed before.
    pub stamp: Stamp,
    /// Where these files are.
    pub located: BTreeMap<UniqueName, Located>,
    /// What differs from the base; nothing is gone.
    pub local: Local,
    /// As in [`Scanned`].
    pub inodes: BTreeMap<LinkId, u64>,
}

/// Looks at files of which something was told, by their names with info; `None` if only a listing can tell what became of
/// one of them.
pub(super) async fn peek(
    db: &Db,
    maildir: Arc<Maildir>,
    mailbox: MailboxId,
    files: BTreeMap<Vec<u8>, Fate>,
    mask: Mask,
) -> Result<Option<Peeked>, Error> {
    let db = db.clone();
    let peek = move || {
        let Peek { stamp, found, unsure } = maildir.peek(files.keys().map(Vec::as_slice))?;
        let names: Vec<UniqueName> = found.keys().chain(&unsure).cloned().collect();
        let links = db.read_now(move |tx| tx.links_of_names(mailbox, &names))?;
        let links: BTreeMap<UniqueName, Link> =
            links.into_iter().filter_map(|link| Some((link.name()?.clone(), link))).collect();
        // What came and went again without ever being known is nothing; but a known file that went, or one that is there
        // twice, is found by looking at all of them.
        let came = |name: &UniqueName| files.iter().any(|(f, fate)| *fate != Fate::Went && unique_of(f) == *name);
        if unsure.iter().any(|name| links.contains_key(name) || came(name)) {
            return Ok(None);
        }
        let (mut local, mut inodes) = (Local::default(), BTreeMap::new());
        for (name, at) in &found {
            let Located { file, flags, inode } = at;
            let mut message = LocalMessage { flags: flags.clone(), place: file.place, inode: *inode, replaced: false };
            let mut differs = true;
            if let Some(link) = links.get(name) {
                if let LinkState::Synced { flags: base, .. } = &link.state {
                    differs = mask.read(flags, base) != *base;
                }
                match holds(&maildir, link, *inode, file) {
                    Holds::AsBefore | Holds::Unknown => {}
                    Holds::UnderInode(inode) => drop(inodes.insert(link.id, inode)),
                    Holds::Other => (message.replaced, differs) = (true, true),
                }
            }
            if differs {
                local.messages.insert(name.clone(), message);
            }
        }
        Ok(Some(Peeked { stamp, located: found, local, inodes }))
    };
    tokio::task::spawn_blocking(peek).await?
}

/// What the file of a link holds.
enum Holds {
    /// It is the file that it was, or nothing is settled yet.
    AsBefore,
    /// What the link says, under this inode.
    UnderInode(u64),
    /// Something else.
    Other,
    /// It cannot be read, or went to another name meanwhile.
    Unknown,
}

/// Looks into a file with this inode, if it is not the one that its link knows.
fn holds(maildir: &Maildir, link: &Link, inode: u64, file: &FileRef) -> Holds {
    let settled = matches!(link.state, LinkState::Synced { .. } | LinkState::Skipped { .. });
    if !settled || link.inode == Some(inode) {
        return Holds::AsBefore;
    }
    match maildir.key(file) {
        Err(_) => Holds::Unknown,
        Ok(keyed) if link.content.is_some_and(|content| keyed.keys.is(content)) => Holds::UnderInode(keyed.inode),
        // A skipped file that can be read now is another one than the one that could not.
        Ok(_) => Holds::Other,
    }
}

/// A maildir and the names of its links, read side by side.
pub(super) struct Read {
    scan: Scan,
    names: Names,
}

/// Reads a maildir from the disk and the names of its links from the database at the same time.
pub(super) async fn read(db: &Db, maildir: Arc<Maildir>, mailbox: MailboxId) -> Result<Read, Error> {
    tracing::debug!(maildir = %maildir.path().display(), "lists all files");
    let scan = tokio::task::spawn_blocking(move || maildir.scan());
    let names = db.read(move |tx| Names::read(tx, mailbox)).await?;
    Ok(Read { scan: scan.await??, names })
}

/// Returns what differs from the base. Blocks.
pub(super) fn compare_local(db: &Db, maildir: &Maildir, read: Read, mask: &Mask) -> Result<Scanned, Error> {
    let Read { scan, names } = read;
    let (mut messages, missing, suspects) = differences(&scan, &names, mask);
    drop(names);
    let suspects = db.read_now(move |tx| tx.links_by_ids(&suspects))?;
    let scan = Arc::new(scan);
    let mut inodes = BTreeMap::new();
    for link in suspects {
        let Some(name) = link.name().cloned() else { continue };
        let Some(found) = scan.get(&name) else { continue };
        match holds(maildir, &link, found.inode, &found.file()) {
            Holds::AsBefore | Holds::Unknown => {}
            Holds::UnderInode(inode) => drop(inodes.insert(link.id, inode)),
            Holds::Other => messages.entry(name).or_insert_with(|| message(&found)).replaced = true,
        }
    }
    let evidence = LocalEvidence {
        marker: true, // checked when the pass began, and the root is held open since
        ended: true,  // a read that failed is an error, and does not come here
        new_first: true,
        unchanged: scan.unchanged,
        missing,
    };
    let (gone, doubt) = match GoneLocal::prove(evidence) {
        Ok(gone) => (gone, None),
        Err(doubt) => (GoneLocal::default(), Some(doubt)),
    };
    Ok(Scanned { scan, local: Local { messages, gone }, doubt, inodes })
}

fn message(entry: &Entry<'_>) -> LocalMessage {
    LocalMessage { flags: entry.flags.clone(), place: entry.place, inode: entry.inode, replaced: false }
}

type Differences = (BTreeMap<UniqueName, LocalMessage>, BTreeSet<UniqueName>, Vec<LinkId>);

/// Walks over files and links together, both in the order of their names: what differs, what is missing, and the links
/// whose files may be others than they say.
fn differences(scan: &Scan, names: &Names, mask: &Mask) -> Differences {
    let (mut differing, mut missing, mut suspects) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    let mut files = scan.iter().peekable();
    for row in names.iter() {
        while let Some(file) = files.next_if(|file| file.name < row.name) {
            differing.insert(UniqueName::new(file.name), message(&file));
        }
        match files.next_if(|file| file.name == row.name) {
            None => {
                missing.insert(UniqueName::new(row.name));
            }
            Some(file) => {
                let agrees = match row.state {
                    Stage::Synced if row.keywords.is_empty() && file.flags == Flags::from_parts(row.flags, []) => true,
                    Stage::Synced => {
                        let base = Flags::from_parts(row.flags, row.keywords.split(' ').filter_map(Keyword::new));
                        mask.read(&file.flags, &base) == base
                    }
                    // What is skipped is for the plan to try again.
                    Stage::Downloading | Stage::Uploading | Stage::Skipped => false,
                };
                if !agrees {
                    differing.insert(UniqueName::new(file.name), message(&file));
                }
                let settled = matches!(row.state, Stage::Synced | Stage::Skipped);
                if settled && row.inode != Some(file.inode) {
                    suspects.push(row.id);
                }
            }
        }
    }
    for file in files {
        differing.insert(UniqueName::new(file.name), message(&file));
    }
    (differing, missing, suspects)
}

/// Tells whether everything that was named on the server is agreed: its link has the flags that were seen, and what is
/// gone has no link any more. Only then may the cursor move.
pub(super) fn is_agreed_remote(
    tx: &Tx<'_>,
    mailbox: MailboxId,
    remote: &Remote,
    mask: &Mask,
    merged: &BTreeSet<LinkId>,
) -> Result<bool, db::Error> {
    let named: UidSet = remote.messages.keys().copied().chain(remote.gone.iter()).collect();
    let (mut agreed, mut left) = (0, false);
    tx.each_of_uids(mailbox, &named, &mut |uid, bits, keywords, id, stage| {
        let Some(message) = remote.messages.get(&uid) else {
            left = true; // gone, but its link is still there
            return;
        };
        agreed += usize::from(match stage {
            Stage::Synced => {
                let base = Flags::from_parts(bits, keywords.split(' ').filter_map(Keyword::new));
                merged.contains(&id) || mask.read(&message.flags, &base) == base
            }
            Stage::Skipped => true,
            Stage::Downloading | Stage::Uploading => false,
        });
    })?;
    Ok(!left && agreed == remote.messages.len())
}

/// The same for what was named in the maildir: only then may its stamp be trusted.
pub(super) fn is_agreed_local(
    tx: &Tx<'_>,
    mailbox: MailboxId,
    local: &Local,
    mask: &Mask,
    merged: &BTreeSet<LinkId>,
    now: i64,
) -> Result<bool, db::Error> {
    let named: Vec<UniqueName> = local.messages.keys().chain(local.gone.iter()).cloned().collect();
    let links: BTreeMap<UniqueName, Link> =
        tx.links_of_names(mailbox, &named)?.into_iter().filter_map(|l| Some((l.name()?.clone(), l))).collect();
    let agreed = |(name, message): (&UniqueName, &LocalMessage)| {
        let settled = |link: &Link| is_settled(link, |base| mask.read(&message.flags, base), merged, now);
        // An adopted file that is not what was promised has no inode: it is to be looked at under its own name.
        let is_it = |link: &Link| link.inode.is_some() || !matches!(link.state, LinkState::Synced { .. });
        links.get(name).is_some_and(|link| settled(link) && is_it(link))
    };
    Ok(local.messages.iter().all(agreed) && !local.gone.iter().any(|name| links.contains_key(name)))
}

fn is_settled(link: &Link, read: impl Fn(&Flags) -> Flags, merged: &BTreeSet<LinkId>, now: i64) -> bool {
    match &link.state {
        LinkState::Synced { flags, .. } => merged.contains(&link.id) || read(flags) == *flags,
        LinkState::Skipped { .. } => true,
        // The server may bring its own copy until then, and is not sent one.
        LinkState::Uploading { since, .. } => *since > now,
        LinkState::Downloading { .. } => false,
    }
}
