//! Decides what makes the three trees of a mailbox agree.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::{BTreeMap, BTreeSet};

use super::flags::{Mask, merge, wants_kept};
use super::op::{Op, Planned, Why};
use crate::model::{
    FlagChange, Flags, Link, LinkId, LinkState, Local, Proof, Remote, Side, SkipReason, Uid, UniqueName,
};

/// What the user and the two sides allow.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The server is changed too; false makes a backup: nothing is ever changed there.
    pub push: bool,
    /// What was deleted on the server is removed here.
    pub remove: bool,
    /// What was deleted here is removed on the server.
    pub expunge: bool,
    /// What is skipped is tried again.
    pub retry_skipped: bool,
    /// Of what is skipped, this is tried again: the server refused it, and may not do so now.
    pub again: BTreeSet<LinkId>,
    /// The flags that the server keeps (PERMANENTFLAGS, RFC 3501 §7.1).
    pub remote_mask: Mask,
    /// The flags that the maildir keeps.
    pub local_mask: Mask,
}

/// The answer to "is it there?" about an upload that an earlier run began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The server has it as this message.
    Found(Uid),
    /// It has not, and a connection that could still bring it has been dead for long enough.
    NotFound,
    /// It has not, but it may still come.
    TooEarly,
}

/// What one side shows of a linked message.
#[derive(Clone, Debug)]
enum Seen<T> {
    /// It is there, like this.
    There(T),
    /// It is proven to be gone.
    Gone(Proof),
    /// Nothing was said about it: as the base has it.
    Unsaid,
}

/// Returns the ops that bring every message that `remote`, `local` or a pending row names into agreement: at most one
/// op a message, so that their order does not matter.
///
/// `base` holds the links that either tree names, and all that are not `Synced`. `answers` are about the uploads among
/// them; one that has no answer waits.
#[must_use]
pub fn plan(
    remote: &Remote,
    local: &Local,
    base: &[Link],
    answers: &BTreeMap<LinkId, Answer>,
    policy: &Policy,
) -> Vec<Planned> {
    let mut uids: BTreeSet<Uid> = base.iter().filter_map(Link::uid).collect();
    uids.extend(answers.values().filter_map(|a| if let Answer::Found(uid) = a { Some(*uid) } else { None }));
    let names: BTreeSet<&UniqueName> = base.iter().filter_map(Link::name).collect();

    let linked = base.iter().filter_map(|link| plan_link(link, remote, local, answers.get(&link.id).copied(), policy));
    let downloads = remote.messages.iter().filter(|(uid, _)| !uids.contains(uid)).map(|(uid, message)| Planned {
        op: Op::Download { link: None, uid: *uid, name: None, flags: message.flags.clone() },
        why: Why::NewOnServer,
    });
    let uploads = local.messages.iter().filter(|(name, _)| policy.push && !names.contains(name));
    let uploads = uploads.map(|(name, message)| Planned {
        op: Op::Upload { link: None, name: name.clone(), flags: message.flags.clone() },
        why: Why::NewHere,
    });
    let mut plan = Vec::with_capacity(base.len() + remote.messages.len() + local.messages.len());
    plan.extend(linked.chain(downloads).chain(uploads));
    plan
}

fn plan_link(link: &Link, remote: &Remote, local: &Local, answer: Option<Answer>, policy: &Policy) -> Option<Planned> {
    match &link.state {
        LinkState::Synced { uid, name, flags } => plan_synced(
            &Pair { link: link.id, uid: *uid, name, base: flags },
            seen_remote(remote, *uid),
            seen_local(local, name),
            policy,
        ),
        LinkState::Downloading { uid, name, flags } => plan_downloading(
            &Pair { link: link.id, uid: *uid, name, base: flags },
            &seen_remote(remote, *uid),
            &seen_local(local, name),
        ),
        LinkState::Uploading { name, flags, .. } => {
            plan_uploading(link.id, name, flags, &seen_local(local, name), answer)
        }
        LinkState::Skipped { uid, name, reason } => {
            plan_skipped(link.id, *uid, name.as_ref(), reason, remote, local, policy)
        }
    }
}

/// A linked message: its row, its two names, and the flags that both sides had.
struct Pair<'a> {
    link: LinkId,
    uid: Uid,
    name: &'a UniqueName,
    base: &'a Flags,
}

fn plan_synced(pair: &Pair<'_>, remote: Seen<Flags>, local: Seen<(Flags, bool)>, policy: &Policy) -> Option<Planned> {
    let Pair { link, uid, name, base } = *pair;
    let here = |shown: &Flags| policy.local_mask.read(shown, base);
    let there = |shown: &Flags| policy.remote_mask.read(shown, base);
    let planned = |op, why| Some(Planned { op, why });
    match (remote, local) {
        (_, Seen::There((_, true))) => planned(Op::Supersede { link, name: name.clone() }, Why::ReplacedHere),
        (Seen::Unsaid, Seen::Unsaid) => None,
        (Seen::There(r), Seen::There((l, false))) => plan_flags(pair, &there(&r), &here(&l), policy),
        (Seen::There(r), Seen::Unsaid) => plan_flags(pair, &there(&r), base, policy),
        (Seen::Unsaid, Seen::There((l, false))) => plan_flags(pair, base, &here(&l), policy),
        (Seen::Gone(_), Seen::Gone(_)) => planned(Op::Forget { link }, Why::DeletedOnBoth),
        (Seen::Gone(proof), local @ (Seen::There((_, false)) | Seen::Unsaid)) => {
            let shown = if let Seen::There((l, _)) = local { l } else { base.clone() };
            if policy.push && wants_kept(base, &here(&shown)) {
                planned(Op::Upload { link: Some(link), name: name.clone(), flags: shown }, Why::ChangedHere)
            } else if policy.remove && !wants_kept(base, &here(&shown)) {
                planned(Op::Remove { link, name: name.clone(), flags: shown, proof }, Why::DeletedOnServer)
            } else {
                planned(Op::Keep { link, side: Side::Local }, Why::DeletedOnServer)
            }
        }
        (remote @ (Seen::There(_) | Seen::Unsaid), Seen::Gone(proof)) => {
            let shown = if let Seen::There(r) = remote { r } else { base.clone() };
            if wants_kept(base, &there(&shown)) {
                planned(Op::Download { link: Some(link), uid, name: None, flags: shown }, Why::ChangedOnServer)
            } else if policy.push && policy.expunge {
                planned(Op::Expunge { link, uid, flags: shown, proof }, Why::DeletedHere)
            } else {
                planned(Op::Keep { link, side: Side::Remote }, Why::DeletedHere)
            }
        }
    }
}

fn plan_flags(pair: &Pair<'_>, remote: &Flags, local: &Flags, policy: &Policy) -> Option<Planned> {
    let Pair { link, uid, name, base } = *pair;
    let merged = merge(base, remote, local);
    // A backup follows the server and keeps what was changed here to itself.
    let (to_remote, agreed) = if policy.push {
        (policy.remote_mask.change(&FlagChange::between(remote, &merged)), merged.clone())
    } else {
        (FlagChange::default(), remote.clone())
    };
    let to_local = policy.local_mask.change(&FlagChange::between(local, &merged));
    if to_remote.is_empty() && to_local.is_empty() && agreed == *base {
        return None;
    }
    let op = Op::MergeFlags { link, uid, name: name.clone(), remote: to_remote, local: to_local, agreed };
    Some(Planned { op, why: Why::FlagsDiffer })
}

fn plan_downloading(pair: &Pair<'_>, remote: &Seen<Flags>, local: &Seen<(Flags, bool)>) -> Option<Planned> {
    let Pair { link, uid, name, base } = *pair;
    let (op, why) = match (remote, local) {
        (_, Seen::There(_)) => (Op::Adopt { link, uid, name: name.clone() }, Why::Interrupted),
        (Seen::There(_) | Seen::Unsaid, Seen::Gone(_)) => {
            let flags = if let Seen::There(r) = remote { r.clone() } else { base.clone() };
            (Op::Download { link: Some(link), uid, name: Some(name.clone()), flags }, Why::Interrupted)
        }
        (Seen::Gone(_), Seen::Gone(_)) => (Op::Forget { link }, Why::DeletedOnServer),
        (_, Seen::Unsaid) => return None,
    };
    Some(Planned { op, why })
}

fn plan_uploading(
    link: LinkId,
    name: &UniqueName,
    flags: &Flags,
    local: &Seen<(Flags, bool)>,
    answer: Option<Answer>,
) -> Option<Planned> {
    let (op, why) = match (answer?, local) {
        (Answer::Found(uid), _) => (Op::Adopt { link, uid, name: name.clone() }, Why::Interrupted),
        (Answer::NotFound, Seen::There((shown, _))) => {
            (Op::Upload { link: Some(link), name: name.clone(), flags: shown.clone() }, Why::Interrupted)
        }
        (Answer::NotFound, Seen::Unsaid) => {
            (Op::Upload { link: Some(link), name: name.clone(), flags: flags.clone() }, Why::Interrupted)
        }
        (Answer::NotFound, Seen::Gone(_)) => (Op::Forget { link }, Why::DeletedHere),
        (Answer::TooEarly, _) => return None,
    };
    Some(Planned { op, why })
}

fn plan_skipped(
    link: LinkId,
    uid: Option<Uid>,
    name: Option<&UniqueName>,
    reason: &SkipReason,
    remote: &Remote,
    local: &Local,
    policy: &Policy,
) -> Option<Planned> {
    let again = policy.again.contains(&link) || policy.retry_skipped && *reason != SkipReason::Kept;
    match (uid, name) {
        (Some(uid), _) => match seen_remote(remote, uid) {
            Seen::Gone(_) => Some(Planned { op: Op::Forget { link }, why: Why::DeletedOnServer }),
            Seen::There(flags) if again => {
                Some(Planned { op: Op::Download { link: Some(link), uid, name: None, flags }, why: Why::SkippedBefore })
            }
            Seen::There(_) | Seen::Unsaid => None,
        },
        (None, Some(name)) => match seen_local(local, name) {
            Seen::Gone(_) => Some(Planned { op: Op::Forget { link }, why: Why::DeletedHere }),
            // A file that changed under its name is worth another look whatever the reason was.
            Seen::There((flags, replaced)) if policy.push && (replaced || again) => Some(Planned {
                op: Op::Upload { link: Some(link), name: name.clone(), flags },
                why: Why::SkippedBefore,
            }),
            Seen::There(_) | Seen::Unsaid => None,
        },
        (None, None) => Some(Planned { op: Op::Forget { link }, why: Why::DeletedOnBoth }),
    }
}

fn seen_remote(remote: &Remote, uid: Uid) -> Seen<Flags> {
    match (remote.gone.proof(uid), remote.messages.get(&uid)) {
        (Some(proof), _) => Seen::Gone(proof),
        (None, Some(message)) => Seen::There(message.flags.clone()),
        (None, None) => Seen::Unsaid,
    }
}

fn seen_local(local: &Local, name: &UniqueName) -> Seen<(Flags, bool)> {
    match (local.gone.proof(name), local.messages.get(name)) {
        (Some(proof), _) => Seen::Gone(proof),
        (None, Some(message)) => Seen::There((message.flags.clone(), message.replaced)),
        (None, None) => Seen::Unsaid,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
