//! Turns a removal in one place and the arrival of the same content in another into one move.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::{BTreeMap, BTreeSet};

use super::op::{Op, Planned, Why};
use super::rebind::Unlinked;
use crate::model::{ContentKey, Fingerprint, Link, LinkId, LinkState, MailboxId, MailboxName, Uid, UniqueName};

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
    pub files: BTreeMap<UniqueName, ContentKey>,
    /// What is known of the messages that it would download.
    pub messages: BTreeMap<Uid, Unlinked>,
    /// Removals were taken out of the plan, to be planned again in the next round.
    pub postponed: bool,
}

/// Tells whether an op is about something that went from a place, or came to one, and so may have moved. What came on
/// the server counts only where a mailbox of it could not be looked at (`blind`), for it may have gone from there.
#[must_use]
pub fn may_be_half(planned: &Planned, blind: bool) -> bool {
    let again = matches!(planned.why, Why::ChangedHere | Why::ChangedOnServer);
    match &planned.op {
        Op::Upload { link: None, .. } => true,
        Op::Download { link: None, .. } => blind,
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

/// Returns what is known, without its body, of a message that is to be downloaded: seen on the server, or written down
/// when an earlier run was about to take it.
fn message_that_comes(part: &Part, op: &Op) -> Option<(Fingerprint, i64)> {
    let Op::Download { uid, link, .. } = op else { return None };
    match link.map(|link| part.base.get(&link)) {
        None => part.messages.get(uid).map(|m| (m.fingerprint, m.internal_date)),
        Some(Some(Link { state: LinkState::Downloading { .. }, content, internal_date, .. })) => {
            Some(((*content)?.fingerprint, (*internal_date)?))
        }
        Some(_) => None,
    }
}

/// Returns the content of a file that is to be uploaded, and was not there before.
fn file_that_comes(part: &Part, op: &Op) -> Option<ContentKey> {
    let Op::Upload { name, .. } = op else { return None };
    // What is kept in its place did not come from another.
    if content_removed(part, op).is_some() { None } else { part.files.get(name).copied() }
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
    pair(
        parts,
        content_expunged,
        |part, op| file_that_comes(part, op).map(|content| content.digest),
        |link| link.content.map(|c| c.digest),
        move_there,
    );
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
                Op::Upload { link: None, name, .. } => part.files.get(name).copied(),
                Op::Download { .. } if message_that_comes(part, &planned.op).is_some_and(|m| lost.contains(&m.0)) => {
                    return false;
                }
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
    let mut messages = arrivals(parts, message_that_comes);
    let mut files = arrivals(parts, |part, op| file_that_comes(part, op).map(|content| content.digest));
    for (left, link, content) in lost {
        let Some(date) = link.internal_date else { continue };
        let Some(came_there) = messages.get_mut(&(content.fingerprint, date)).filter(|found| !found.is_empty()) else {
            continue;
        };
        let Some(came_here) = files.get_mut(&content.digest).filter(|found| !found.is_empty()) else { continue };
        // The same place on both sides, if there is one.
        let same = |(id, _): &&(MailboxId, Op)| came_here.iter().any(|(other, _)| other == id);
        let (there, download) = came_there.iter().find(same).unwrap_or(&came_there[0]).clone();
        let (here, upload) = came_here.iter().find(|(id, _)| *id == there).unwrap_or(&came_here[0]).clone();
        let Some(op) = meeting(parts, &link, (there, &download), (here, &upload)) else { continue };
        came_there.retain(|(_, op)| *op != download);
        came_here.retain(|(_, op)| *op != upload);
        if let Some(part) = parts.get_mut(&there) {
            part.plan.retain(|planned| planned.op != download);
        }
        // Its row goes with the file. Where it was is to be looked at again, whatever comes of that.
        if let Some(part) = parts.get_mut(&left) {
            part.plan.retain(|planned| planned.op.link() != Some(link.id));
            part.postponed = true;
        }
        if let Some(part) = parts.get_mut(&here) {
            part.plan.retain(|planned| planned.op != upload);
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

/// Returns what came to any place, by what identifies it.
fn arrivals<K: Ord>(
    parts: &BTreeMap<MailboxId, Part>,
    came: impl Fn(&Part, &Op) -> Option<K>,
) -> BTreeMap<K, Vec<(MailboxId, Op)>> {
    let mut arrivals: BTreeMap<K, Vec<(MailboxId, Op)>> = BTreeMap::new();
    for (id, part) in parts {
        for planned in &part.plan {
            if let Some(key) = came(part, &planned.op) {
                arrivals.entry(key).or_default().push((*id, planned.op.clone()));
            }
        }
    }
    arrivals
}

/// Finds for each op of which `gone` knows the content one whose `came` is the same, and lets `join` make one of both.
fn pair<K: Ord>(
    parts: &mut BTreeMap<MailboxId, Part>,
    gone: impl Fn(&Part, &Op) -> Option<ContentKey>,
    came: impl Fn(&Part, &Op) -> Option<K>,
    key: impl Fn(&Link) -> Option<K>,
    join: impl Fn(&Op, &Op, &MailboxName, bool) -> Option<Planned>,
) {
    let mut arrivals = arrivals(parts, came);
    if arrivals.is_empty() {
        return;
    }
    let clear = clear_fingerprints(parts, &gone);
    let names: BTreeMap<MailboxId, MailboxName> = parts.iter().map(|(id, part)| (*id, part.name.clone())).collect();
    let mut arrived: Vec<(MailboxId, Op)> = Vec::new();
    for (id, part) in parts.iter_mut() {
        for i in 0..part.plan.len() {
            let leaving = &part.plan[i].op;
            let Some(content) = gone(part, leaving).filter(|c| clear.get(&c.fingerprint) == Some(&true)) else {
                continue;
            };
            debug_assert_eq!(leaving.link().and_then(|l| part.base.get(&l)).and_then(|l| l.content), Some(content));
            let key = leaving.link().and_then(|link| part.base.get(&link)).and_then(&key);
            let Some(candidates) = key.and_then(|key| arrivals.get_mut(&key)) else { continue };
            // In its own mailbox first: then nothing moved at all.
            let Some(at) = candidates.iter().position(|(to, _)| to == id).or(candidates.len().checked_sub(1)) else {
                continue;
            };
            let (to, arriving) = &candidates[at];
            if let Some(planned) = names.get(to).and_then(|name| join(leaving, arriving, name, to == id)) {
                part.plan[i] = planned;
                arrived.push(candidates.remove(at));
            }
        }
    }
    for (id, op) in arrived {
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
mod tests {
    use super::*;
    use crate::model::{Digest, Flags, GoneRemote, Proof, RemoteEvidence};

    fn uid(n: u64) -> Uid {
        Uid::new(n).unwrap()
    }

    fn name(n: &str) -> UniqueName {
        UniqueName::new(n.as_bytes())
    }

    fn content(header: u8, body: u8) -> ContentKey {
        let fingerprint = Fingerprint { header: Digest([header; 32]), size: 10 + u64::from(header) };
        ContentKey { digest: Digest([body; 32]), fingerprint }
    }

    fn proof() -> Proof {
        let evidence = RemoteEvidence {
            ended: true,
            counted: 0,
            exists: 0,
            same_validity: true,
            went_forward: true,
            missing: [uid(1)].into(),
            found_again: Some(BTreeSet::new()),
        };
        GoneRemote::prove(&evidence).unwrap().proof(uid(1)).unwrap()
    }

    fn part(mailbox: &str) -> Part {
        Part { name: mailbox.into(), ..Part::default() }
    }

    fn known(part: &mut Part, id: i64, uid_: u64, file: &str, content: ContentKey, date: i64) {
        let state = LinkState::Synced { uid: uid(uid_), name: name(file), flags: Flags::new() };
        let id = LinkId(id);
        part.base.insert(id, Link { id, state, content: Some(content), internal_date: Some(date), inode: None });
    }

    fn leaves_here(part: &mut Part, id: i64, u: u64) {
        let op = Op::Expunge { link: LinkId(id), uid: uid(u), flags: Flags::new(), proof: proof() };
        part.plan.push(Planned { op, why: Why::DeletedHere });
    }

    fn leaves_there(part: &mut Part, id: i64, file: &str) {
        let op = Op::Remove { link: LinkId(id), name: name(file), flags: Flags::new(), proof: proof() };
        part.plan.push(Planned { op, why: Why::DeletedOnServer });
    }

    fn comes_here(part: &mut Part, file: &str, content: ContentKey) {
        part.files.insert(name(file), content);
        let op = Op::Upload { link: None, name: name(file), flags: Flags::new() };
        part.plan.push(Planned { op, why: Why::NewHere });
    }

    fn comes_there(part: &mut Part, u: u64, content: ContentKey, date: i64) {
        let unlinked = Unlinked { uid: uid(u), fingerprint: content.fingerprint, internal_date: date };
        part.messages.insert(uid(u), unlinked);
        let op = Op::Download { link: None, uid: uid(u), name: None, flags: Flags::new() };
        part.plan.push(Planned { op, why: Why::NewOnServer });
    }

    fn result(a: Part, b: Part) -> String {
        let mut parts = BTreeMap::from([(MailboxId(1), a), (MailboxId(2), b)]);
        find(&mut parts);
        parts.values().flat_map(|p| p.plan.iter().map(move |o| format!("{}: {o}\n", p.name))).collect()
    }

    #[test]
    fn a_file_moved_under_the_same_or_another_name_moves_the_message() {
        for file in ["old", "new"] {
            let (mut a, mut b) = (part("A"), part("B"));
            known(&mut a, 1, 7, "old", content(1, 1), 5);
            leaves_here(&mut a, 1, 7);
            comes_here(&mut b, file, content(1, 1));
            assert_eq!(result(a, b), format!("A: move uid 7 to B {file}: moved here\n"));
        }
    }

    #[test]
    fn a_message_moved_on_the_server_moves_the_file() {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        leaves_there(&mut a, 1, "old");
        comes_there(&mut b, 3, content(1, 1), 5);
        assert_eq!(result(a, b), "A: follow old to B uid 3: moved on the server\n");
    }

    #[test]
    fn flags_changed_on_the_other_side_do_not_stop_a_move() {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        known(&mut a, 2, 8, "old2", content(2, 2), 5);
        let flags = Flags::from_parts(0, crate::model::Keyword::new("Work"));
        let op = Op::Upload { link: Some(LinkId(1)), name: name("old"), flags: flags.clone() };
        a.plan.push(Planned { op, why: Why::ChangedHere });
        let op = Op::Download { link: Some(LinkId(2)), uid: uid(8), name: None, flags };
        a.plan.push(Planned { op, why: Why::ChangedOnServer });
        comes_there(&mut b, 3, content(1, 1), 5);
        comes_here(&mut b, "old2", content(2, 2));
        let text = "A: follow old to B uid 3: moved on the server\nA: move uid 8 to B old2: moved here\n";
        assert_eq!(result(a, b), text);
    }

    #[test]
    fn other_content_or_another_date_is_no_move() {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        known(&mut a, 2, 8, "old2", content(2, 2), 5);
        leaves_here(&mut a, 1, 7);
        leaves_there(&mut a, 2, "old2");
        comes_here(&mut b, "new", content(1, 9));
        comes_there(&mut b, 3, content(2, 2), 6);
        let text = result(a, b);
        assert!(!text.contains("move uid") && !text.contains("follow"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn equal_headers_with_different_bodies_prove_nothing() {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "x", content(1, 1), 5);
        known(&mut a, 2, 8, "y", content(1, 2), 5);
        leaves_there(&mut a, 1, "x");
        leaves_there(&mut a, 2, "y");
        comes_there(&mut b, 3, content(1, 1), 5);
        assert!(!result(a, b).contains("follow"));
    }

    #[test]
    fn copies_are_counted() {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "x", content(1, 1), 5);
        known(&mut a, 2, 8, "y", content(1, 1), 5);
        leaves_here(&mut a, 1, 7);
        leaves_here(&mut a, 2, 8);
        comes_here(&mut b, "z", content(1, 1));
        assert_eq!(result(a, b), "A: move uid 7 to B z: moved here\nA: expunge uid 8: deleted here\n");
    }

    #[test]
    fn what_an_interrupted_upload_may_have_brought_elsewhere_is_not_expunged_yet() {
        let uploading = |part: &mut Part, content: ContentKey| {
            let (id, since) = (LinkId(3), 0);
            let state = LinkState::Uploading { name: name("x"), flags: Flags::new(), uid_next: uid(1), since };
            part.base.insert(id, Link { id, state, content: Some(content), internal_date: None, inode: None });
        };
        let leaving = || {
            let mut part = part("A");
            known(&mut part, 1, 7, "x", content(1, 1), 5);
            known(&mut part, 2, 8, "y", content(2, 2), 5);
            leaves_here(&mut part, 1, 7);
            leaves_here(&mut part, 2, 8);
            part
        };
        // No answer yet.
        let mut b = part("B");
        uploading(&mut b, content(1, 1));
        let mut parts = BTreeMap::from([(MailboxId(1), leaving()), (MailboxId(2), b)]);
        find(&mut parts);
        let (a, b) = (&parts[&MailboxId(1)], &parts[&MailboxId(2)]);
        assert_eq!(a.plan.iter().map(ToString::to_string).collect::<Vec<_>>(), ["expunge uid 8: deleted here"]);
        assert!(a.postponed && !b.postponed);
        // Nor is a file uploaded that was moved away before the answer, or in the round in which it comes.
        for answered in [false, true] {
            let (mut a, mut b) = (part("A"), part("B"));
            uploading(&mut a, content(1, 1));
            if answered {
                let op = Op::Adopt { link: LinkId(3), uid: uid(1), name: name("x") };
                a.plan.push(Planned { op, why: Why::Interrupted });
            }
            comes_here(&mut b, "x", content(1, 1));
            comes_here(&mut b, "y", content(2, 2));
            let text = result(a, b);
            assert!(text.ends_with("B: upload y (): new here\n") && !text.contains("upload x"), "{text}");
        }
        // It did not happen: the move is made now.
        let mut b = part("B");
        uploading(&mut b, content(1, 1));
        b.files.insert(name("x"), content(1, 1));
        let op = Op::Upload { link: Some(LinkId(3)), name: name("x"), flags: Flags::new() };
        b.plan.push(Planned { op, why: Why::Interrupted });
        assert_eq!(result(leaving(), b), "A: move uid 7 to B x: moved here\nA: expunge uid 8: deleted here\n");
    }

    fn lost(part: &mut Part, id: i64) {
        part.plan.push(Planned { op: Op::Forget { link: LinkId(id) }, why: Why::DeletedOnBoth });
    }

    #[test]
    fn what_both_moved_goes_where_the_server_has_it() {
        let moved = || {
            let mut a = part("A");
            known(&mut a, 1, 7, "old", content(1, 1), 5);
            lost(&mut a, 1);
            a
        };
        let run = |b: Part, c: Part| {
            let mut parts = BTreeMap::from([(MailboxId(1), moved()), (MailboxId(2), b), (MailboxId(3), c)]);
            find(&mut parts);
            // Whatever comes of it, the place that it left is looked at again.
            let gone = parts[&MailboxId(1)].plan.is_empty();
            assert_eq!(parts[&MailboxId(1)].postponed, gone);
            parts.values().flat_map(|p| p.plan.iter().map(move |o| format!("{}: {o}\n", p.name))).collect::<String>()
        };
        let why = "moved on both sides: the server's place wins";
        // To two places.
        let (mut b, mut c) = (part("B"), part("C"));
        comes_here(&mut b, "new", content(1, 1));
        comes_there(&mut c, 3, content(1, 1), 5);
        assert_eq!(run(b, c), format!("B: follow new to C uid 3: {why}\n"));
        // To one.
        let (mut b, mut c) = (part("B"), part("C"));
        comes_here(&mut b, "new", content(1, 1));
        comes_there(&mut b, 3, content(1, 1), 5);
        comes_here(&mut c, "other", content(2, 2));
        assert_eq!(run(b, c), format!("B: join uid 3 new: {why}\nC: upload other (): new here\n"));
        // An earlier run was about to follow, and the file went elsewhere meanwhile.
        let (mut b, mut c) = (part("B"), part("C"));
        comes_here(&mut b, "new", content(1, 1));
        interrupted(&mut c, 9, 3, content(1, 1), 5);
        assert_eq!(run(b, c), format!("B: follow new to C uid 3: {why}\n"));
        // Deleted on one side.
        let (mut b, c) = (part("B"), part("C"));
        comes_there(&mut b, 3, content(1, 1), 5);
        assert_eq!(run(b, c), "A: forget link 1: deleted on both sides\nB: download uid 3 (): new on the server\n");
    }

    /// A download that an earlier run began, and whose file is not there.
    fn interrupted(part: &mut Part, id: i64, u: u64, content: ContentKey, date: i64) {
        let (id, flags) = (LinkId(id), Flags::new());
        let state = LinkState::Downloading { uid: uid(u), name: name("old"), flags: flags.clone() };
        part.base.insert(id, Link { id, state, content: Some(content), internal_date: Some(date), inode: None });
        let op = Op::Download { link: Some(id), uid: uid(u), name: Some(name("old")), flags };
        part.plan.push(Planned { op, why: Why::Interrupted });
    }

    #[test]
    fn a_move_that_was_about_to_be_followed_is_followed() {
        let (mut a, mut b) = (part("A"), part("B"));
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        // Changed here meanwhile, so that it would be kept.
        let op = Op::Upload { link: Some(LinkId(1)), name: name("old"), flags: Flags::new() };
        a.plan.push(Planned { op, why: Why::ChangedHere });
        interrupted(&mut b, 9, 3, content(1, 1), 5);
        assert_eq!(result(a, b), "A: follow old to B uid 3: moved on the server\n");
    }

    #[test]
    fn in_one_mailbox_only_a_name_or_a_number_changed() {
        let mut a = part("A");
        known(&mut a, 1, 7, "old", content(1, 1), 5);
        known(&mut a, 2, 8, "same", content(2, 2), 5);
        leaves_here(&mut a, 1, 7);
        comes_here(&mut a, "new", content(1, 1));
        leaves_there(&mut a, 2, "same");
        comes_there(&mut a, 9, content(2, 2), 5);
        assert_eq!(result(a, part("B")), "A: adopt uid 7 new: moved here\nA: adopt uid 9 same: moved on the server\n");
    }
}
