//! Turns a removal in one place and the arrival of the same content in another into one move.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::{BTreeMap, BTreeSet};

use super::op::{Op, Planned, Why};
use super::rebind::Unlinked;
use crate::model::{
    ContentKey, Digest, Fingerprint, Keys, Link, LinkId, LinkState, MailboxId, MailboxName, Uid, UniqueName,
};

/// A mailbox's part in the search for moves.
#[derive(Debug, Default)]
pub struct Part {
    /// The mailbox's name.
    pub name: MailboxName,
    /// Its plan; moves are put into the plan of the mailbox that the message leaves.
    pub plan: Vec<Planned>,
    /// The rows that its plan is about.
    pub base: BTreeMap<LinkId, Link>,
    /// The content of the files that it would upload.
    pub files: BTreeMap<UniqueName, Keys>,
    /// What is known of the messages that it would download.
    pub messages: BTreeMap<Uid, Unlinked>,
    /// Removals were taken out of the plan, to be planned again in the next round.
    pub postponed: bool,
}

/// Tells whether an op is about something that went from a place, or came to one, and so may have moved. What came on
/// the server counts only where a mailbox of it could not be looked at (`blind`), for it may have gone from there; so
/// does what an earlier run was about to take from there.
#[must_use]
pub fn may_be_half(planned: &Planned, blind: bool) -> bool {
    let again = matches!(planned.why, Why::ChangedHere | Why::ChangedOnServer);
    match &planned.op {
        Op::Upload { link: None, .. } => true,
        Op::Download { .. } => blind || again,
        Op::Forget { .. } => planned.why == Why::DeletedOnBoth,
        op => again || op.removes().is_some(),
    }
}

/// Tells whether any file that is to be uploaded could be one that its mailbox is without, or may be so soon.
#[must_use]
pub fn may_have_moved_here<'a>(parts: impl Iterator<Item = &'a Part>) -> bool {
    let (mut gone, mut came) = (false, false);
    for part in parts {
        gone |= part.base.values().any(|link| is_unanswered(part, link));
        for planned in &part.plan {
            gone |= matches!(planned.op, Op::Expunge { .. } | Op::Download { link: Some(_), .. } | Op::Forget { .. });
            came |= matches!(planned.op, Op::Upload { .. });
        }
    }
    gone && came
}

/// Tells whether a link stands for a transfer of which it is not known yet what became of it, or that is only now found
/// to have happened.
fn is_unanswered(part: &Part, link: &Link) -> bool {
    // The few that are unfinished are looked for in the plan, which may be long.
    let in_plan = || part.plan.iter().map(|p| &p.op).find(|op| op.link() == Some(link.id));
    match link.state {
        LinkState::Uploading { .. } => matches!(in_plan(), None | Some(Op::Adopt { .. })),
        LinkState::Downloading { .. } => in_plan().is_none(),
        LinkState::Synced { .. } | LinkState::Skipped { .. } => false,
    }
}

/// Returns the sizes of the messages that the server moved, perhaps: only a message of such a size can be one of them.
#[must_use]
pub fn sizes_gone_there<'a>(parts: impl Iterator<Item = &'a Part>) -> Vec<u64> {
    let gone = |part, planned: &Planned| content_removed(part, &planned.op).or_else(|| content_lost(part, planned));
    let mut sizes: Vec<u64> = parts
        .flat_map(|part| part.plan.iter().filter_map(move |planned| gone(part, planned)))
        .map(|content| content.fingerprint.size)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Returns the content of a file whose message is gone: it is to be removed, or uploaded again for what was changed
/// here meanwhile.
fn content_removed(part: &Part, op: &Op) -> Option<ContentKey> {
    match op {
        Op::Remove { link, .. } | Op::Upload { link: Some(link), .. } => content_synced(part, *link),
        _ => None,
    }
}

/// Returns the content of a message whose file is gone: it is to be expunged, or downloaded again for what was changed
/// there meanwhile.
fn content_expunged(part: &Part, op: &Op) -> Option<ContentKey> {
    match op {
        Op::Expunge { link, .. } | Op::Download { link: Some(link), .. } => content_synced(part, *link),
        _ => None,
    }
}

/// Returns the content of a message that its mailbox is without on both sides.
fn content_lost(part: &Part, planned: &Planned) -> Option<ContentKey> {
    match &planned.op {
        Op::Forget { link } if planned.why == Why::DeletedOnBoth => content_synced(part, *link),
        _ => None,
    }
}

/// Returns what is known, without its body, of a message that is to be downloaded: seen on the server, as it is and
/// without its marks, or written down when an earlier run was about to take it.
fn message_that_comes(part: &Part, op: &Op) -> Vec<(Fingerprint, i64)> {
    let Op::Download { uid, link, .. } = op else { return Vec::new() };
    match link.map(|link| part.base.get(&link)) {
        None => part.messages.get(uid).map_or_else(Vec::new, |message| {
            let prints = [Some(message.fingerprint), message.bare].into_iter().flatten();
            prints.map(|print| (print, message.internal_date)).collect()
        }),
        Some(Some(Link { state: LinkState::Downloading { .. }, content, internal_date, .. })) => {
            content.zip(*internal_date).map(|(content, date)| (content.fingerprint, date)).into_iter().collect()
        }
        Some(_) => Vec::new(),
    }
}

/// Returns the digests, as it is and without its marks, of a file that is to be uploaded and was not there before.
fn file_that_comes(part: &Part, op: &Op) -> Vec<Digest> {
    let Op::Upload { name, .. } = op else { return Vec::new() };
    // What is kept in its place did not come from another.
    if content_removed(part, op).is_some() {
        return Vec::new();
    }
    part.files.get(name).map_or_else(Vec::new, |keys| keys.each().map(|content| content.digest).collect())
}

fn content_synced(part: &Part, link: LinkId) -> Option<ContentKey> {
    let link = part.base.get(&link).filter(|link| matches!(link.state, LinkState::Synced { .. }))?;
    link.content
}

/// Rewrites the plans: `Expunge` here with `Upload` there becomes `Move`, `Remove` here with `Download` there becomes
/// `Follow`, where the content proves it. So it is if the other side changed the flags meanwhile, and the message would
/// have been kept: they go along, and are merged where it goes. In one mailbox both become `Adopt`: only a number or a name changed.
///
/// What both sides moved, and so its mailbox is without, goes where the server has it: with `Download` and `Upload`
/// elsewhere it becomes `Follow` from the one place to the other, or `Join` where both are the same.
///
/// A file's content is its digest. A message's is its fingerprint together with its INTERNALDATE, which a move keeps; a
/// fingerprint that stands for different contents proves nothing.
///
/// What an interrupted transfer may have brought somewhere is neither removed nor transferred elsewhere yet: it may be
/// half of a move, and only what became of that transfer can tell what the other half is.
pub fn find(parts: &mut BTreeMap<MailboxId, Part>) {
    postpone(parts);
    pair(parts, content_expunged, file_that_comes, |link| link.content.map(|content| content.digest), move_there);
    pair(
        parts,
        content_removed,
        message_that_comes,
        |link| Some((link.content?.fingerprint, link.internal_date?)),
        follow_here,
    );
    meet(parts);
}

fn postpone(parts: &mut BTreeMap<MailboxId, Part>) {
    let unanswered = |part: &Part| -> Vec<ContentKey> {
        part.base.values().filter(|link| is_unanswered(part, link)).filter_map(|link| link.content).collect()
    };
    let unanswered: BTreeSet<ContentKey> = parts.values().flat_map(unanswered).collect();
    if unanswered.is_empty() {
        return;
    }
    let lost = |part: &Part| -> Vec<Fingerprint> {
        let lost = part.plan.iter().filter_map(|planned| content_lost(part, planned));
        lost.filter(|content| unanswered.contains(content)).map(|content| content.fingerprint).collect()
    };
    let lost: BTreeSet<Fingerprint> = parts.values().flat_map(lost).collect();
    for part in parts.values_mut() {
        let mut plan = std::mem::take(&mut part.plan);
        let count = plan.len();
        plan.retain(|planned| {
            let content = match &planned.op {
                Op::Upload { link: None, name, .. } => {
                    return !part.files.get(name).is_some_and(|keys| keys.each().any(|key| unanswered.contains(&key)));
                }
                op if message_that_comes(part, op).iter().any(|(print, _)| lost.contains(print)) => return false,
                op => content_expunged(part, op)
                    .or_else(|| content_removed(part, op))
                    .or_else(|| content_lost(part, planned)),
            };
            content.is_none_or(|content| !unanswered.contains(&content))
        });
        part.postponed = plan.len() < count;
        part.plan = plan;
    }
}

/// Takes what both sides moved to where the server has it.
fn meet(parts: &mut BTreeMap<MailboxId, Part>) {
    let lost: Vec<(MailboxId, Link, ContentKey)> = parts
        .iter()
        .flat_map(|(id, part)| part.plan.iter().map(move |planned| (*id, part, planned)))
        .filter_map(|(id, part, planned)| {
            let content = content_lost(part, planned)?;
            Some((id, part.base.get(&planned.op.link()?)?.clone(), content))
        })
        .collect();
    if lost.is_empty() {
        return;
    }
    let (mut messages, mut files) = (Arrivals::of(parts, message_that_comes), Arrivals::of(parts, file_that_comes));
    for (left, link, content) in lost {
        let Some(date) = link.internal_date else { continue };
        let (messages_key, files_key) = ((content.fingerprint, date), content.digest);
        // The same place on both sides, if there is one.
        let Some(at) = messages.find(&messages_key, |there| files.is_in(&files_key, there)) else { continue };
        let (there, download) = messages.all[at].clone();
        let Some(from) = files.find(&files_key, |here| here == there) else { continue };
        let (here, upload) = files.all[from].clone();
        let Some(op) = meeting(parts, &link, (there, &download), (here, &upload)) else { continue };
        messages.take(at);
        files.take(from);
        if let Some(part) = parts.get_mut(&there) {
            part.plan.retain(|planned| planned.op != download);
        }
        // It is back where it was, and its row has the name that its file is to have there: that is given up first.
        let vacated = match &op {
            Op::Follow { name, .. } if there == left && link.name() == Some(name) => {
                Some(Op::Supersede { link: link.id, name: name.clone() })
            }
            _ => None,
        };
        // Its row goes with the file. Where it was is to be looked at again, whatever comes of that.
        if let Some(part) = parts.get_mut(&left) {
            part.plan.retain(|planned| planned.op.link() != Some(link.id));
            part.postponed = true;
            part.plan.extend(vacated.clone().map(|op| Planned { op, why: Why::MovedOnBoth }));
        }
        if let Some(part) = parts.get_mut(&here) {
            part.plan.retain(|planned| planned.op != upload);
            if vacated.is_some() {
                part.postponed = true;
                continue;
            }
            part.plan.push(Planned { op, why: Why::MovedOnBoth });
            part.base.entry(link.id).or_insert(link);
        }
    }
}

/// Returns what to do about a message that the server has at one place now, and its file at another.
fn meeting(
    parts: &BTreeMap<MailboxId, Part>,
    link: &Link,
    (there, download): (MailboxId, &Op),
    (here, upload): (MailboxId, &Op),
) -> Option<Op> {
    let Op::Download { link: into, uid, flags, .. } = download else { return None };
    let Op::Upload { link: half, name, .. } = upload else { return None };
    let (into, uid, flags, name) = (*into, *uid, flags.clone(), name.clone());
    if here == there {
        return half.is_none().then_some(Op::Join { link: link.id, into, uid, name });
    }
    let link = match half {
        None => link.id,
        // The file's own row, of a move that came too late for the message.
        Some(half) => *half,
    };
    let is_upload = |link: &Link| matches!(link.state, LinkState::Uploading { .. });
    if half.is_some() && !parts.get(&here)?.base.get(&link).is_some_and(is_upload) {
        return None;
    }
    Some(Op::Follow { link, name, to: parts.get(&there)?.name.clone(), into, uid, flags })
}

/// What came to any place, by what identifies it; each under several keys, and taken once.
struct Arrivals<K> {
    all: Vec<(MailboxId, Op)>,
    taken: Vec<bool>,
    by_key: BTreeMap<K, Vec<usize>>,
}

impl<K: Ord> Arrivals<K> {
    fn of(parts: &BTreeMap<MailboxId, Part>, came: impl Fn(&Part, &Op) -> Vec<K>) -> Self {
        let (mut all, mut by_key): (Vec<_>, BTreeMap<K, Vec<usize>>) = (Vec::new(), BTreeMap::new());
        for (id, part) in parts {
            for planned in &part.plan {
                let keys = came(part, &planned.op);
                if !keys.is_empty() {
                    keys.into_iter().for_each(|key| by_key.entry(key).or_default().push(all.len()));
                    all.push((*id, planned.op.clone()));
                }
            }
        }
        Self { taken: vec![false; all.len()], all, by_key }
    }

    fn free(&self, key: &K) -> impl Iterator<Item = usize> {
        self.by_key.get(key).into_iter().flatten().copied().filter(|at| !self.taken[*at])
    }

    /// Returns one that has this key, in a mailbox that is preferred if there is one.
    fn find(&self, key: &K, prefer: impl Fn(MailboxId) -> bool) -> Option<usize> {
        self.free(key).find(|at| prefer(self.all[*at].0)).or_else(|| self.free(key).last())
    }

    fn is_in(&self, key: &K, mailbox: MailboxId) -> bool {
        self.free(key).any(|at| self.all[at].0 == mailbox)
    }

    fn take(&mut self, at: usize) {
        self.taken[at] = true;
    }
}

/// Finds for each op of which `gone` knows the content one whose `came` is the same, and lets `join` make one of both.
fn pair<K: Ord>(
    parts: &mut BTreeMap<MailboxId, Part>,
    gone: impl Fn(&Part, &Op) -> Option<ContentKey>,
    came: impl Fn(&Part, &Op) -> Vec<K>,
    key: impl Fn(&Link) -> Option<K>,
    join: impl Fn(&Op, &Op, &MailboxName, bool) -> Option<Planned>,
) {
    let mut arrivals = Arrivals::of(parts, came);
    if arrivals.all.is_empty() {
        return;
    }
    let clear = clear_fingerprints(parts, &gone);
    let names: BTreeMap<MailboxId, MailboxName> = parts.iter().map(|(id, part)| (*id, part.name.clone())).collect();
    for (id, part) in parts.iter_mut() {
        for i in 0..part.plan.len() {
            let leaving = &part.plan[i].op;
            let Some(content) = gone(part, leaving).filter(|c| clear.get(&c.fingerprint) == Some(&true)) else {
                continue;
            };
            debug_assert_eq!(leaving.link().and_then(|l| part.base.get(&l)).and_then(|l| l.content), Some(content));
            let key = leaving.link().and_then(|link| part.base.get(&link)).and_then(&key);
            // In its own mailbox first: then nothing moved at all.
            let Some(at) = key.and_then(|key| arrivals.find(&key, |to| to == *id)) else { continue };
            let (to, arriving) = &arrivals.all[at];
            if let Some(planned) = names.get(to).and_then(|name| join(leaving, arriving, name, to == id)) {
                part.plan[i] = planned;
                arrivals.take(at);
            }
        }
    }
    for ((id, op), _) in arrivals.all.into_iter().zip(arrivals.taken).filter(|(_, taken)| *taken) {
        if let Some(part) = parts.get_mut(&id) {
            part.plan.retain(|planned| planned.op != op);
        }
    }
}

/// Tells for each fingerprint of what is gone whether it stands for one content only.
fn clear_fingerprints(
    parts: &BTreeMap<MailboxId, Part>,
    gone: &impl Fn(&Part, &Op) -> Option<ContentKey>,
) -> BTreeMap<Fingerprint, bool> {
    let mut first: BTreeMap<Fingerprint, (ContentKey, bool)> = BTreeMap::new();
    for part in parts.values() {
        for content in part.plan.iter().filter_map(|p| gone(part, &p.op)) {
            let (seen, clear) = first.entry(content.fingerprint).or_insert((content, true));
            *clear &= seen.digest == content.digest;
        }
    }
    first.into_iter().map(|(fingerprint, (_, clear))| (fingerprint, clear)).collect()
}

fn move_there(leaving: &Op, arriving: &Op, to: &MailboxName, same: bool) -> Option<Planned> {
    let (Op::Expunge { link, uid, .. } | Op::Download { link: Some(link), uid, .. }) = leaving else { return None };
    let Op::Upload { link: into, name, flags } = arriving else { return None };
    let (link, uid, name) = (*link, *uid, name.clone());
    let op = match (same, into) {
        (true, None) => Op::Adopt { link, uid, name },
        (true, Some(_)) => return None,
        (false, into) => Op::Move { link, uid, to: to.clone(), into: *into, name, flags: flags.clone() },
    };
    Some(Planned { op, why: Why::MovedHere })
}

fn follow_here(leaving: &Op, arriving: &Op, to: &MailboxName, same: bool) -> Option<Planned> {
    let (Op::Remove { link, name, .. } | Op::Upload { link: Some(link), name, .. }) = leaving else { return None };
    let Op::Download { link: into, uid, flags, .. } = arriving else { return None };
    let (link, into, uid, name) = (*link, *into, *uid, name.clone());
    let op = match (same, into) {
        (true, None) => Op::Adopt { link, uid, name },
        (true, into) => Op::Join { link, into, uid, name },
        (false, into) => Op::Follow { link, name, to: to.clone(), into, uid, flags: flags.clone() },
    };
    Some(Planned { op, why: Why::MovedOnServer })
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
