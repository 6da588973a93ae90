//! Refuses removals that look like an accident.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::BTreeSet;
use std::fmt;

use super::op::{Op, Planned};
use crate::model::{LinkId, Side};

/// How much may be removed without asking.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// This many, in one pass or in 24 hours together, may always go.
    pub count: u64,
    /// More than `count` may go while they are at most this part of the mailbox.
    pub share: f64,
}

/// What the guard weighs a plan against.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// How many messages the base knows in this mailbox.
    pub known: u64,
    /// How many were removed from it in the last 24 hours, on either side.
    pub removed_lately: u64,
}

/// A mass deletion that waits for the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What would have been removed, and from which side.
    pub removals: Vec<(LinkId, Side)>,
    /// How many were removed in the last 24 hours.
    pub removed_lately: u64,
    /// How many messages the base knows.
    pub known: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = self.removals.iter().filter(|(_, side)| *side == Side::Local).count();
        let there = self.removals.len() - here;
        let mut parts = Vec::new();
        if here > 0 {
            parts.push(format!("{here} deleted on the server"));
        }
        if there > 0 {
            parts.push(format!("{there} deleted here"));
        }
        write!(f, "{} of {} messages", parts.join(", "), self.known)?;
        if self.removed_lately > 0 {
            write!(f, ", after {} in the last 24 hours", self.removed_lately)?;
        }
        Ok(())
    }
}

/// Takes the removals out of a plan, so that everything else can be carried out before them.
#[must_use]
pub fn split(mut plan: Vec<Planned>) -> (Vec<Planned>, Vec<Planned>) {
    let removals = plan.extract_if(.., |planned| planned.op.removes().is_some()).collect();
    (plan, removals)
}

/// Lets the removals pass, or refuses all of them that the user has not approved.
///
/// They are refused when those of this pass and of the last 24 hours together are more than the count *and* more than
/// the share of the mailbox as it was before them: a slow bleed counts like a sudden one.
///
/// # Errors
/// The [`Refusal`] and those that the user approved: a refused plan has no other removal.
pub fn guard(
    removals: Vec<Planned>,
    weights: Weights,
    limits: Limits,
    approved: &BTreeSet<LinkId>,
) -> Result<Vec<Planned>, (Refusal, Vec<Planned>)> {
    let (granted, asked): (Vec<_>, Vec<_>) =
        removals.into_iter().partition(|p| p.op.link().is_some_and(|link| approved.contains(&link)));
    let total = asked.len() as u64 + weights.removed_lately;
    let before = weights.known + weights.removed_lately;
    #[allow(clippy::cast_precision_loss)] // a mailbox has fewer than 2^52 messages
    let too_large_a_part = total as f64 > limits.share * before as f64;
    if asked.is_empty() || total <= limits.count || !too_large_a_part {
        return Ok(granted.into_iter().chain(asked).collect());
    }
    let side = |op: &Op| Some((op.link()?, op.removes()?));
    let refusal = Refusal {
        removals: asked.iter().filter_map(|planned| side(&planned.op)).collect(),
        removed_lately: weights.removed_lately,
        known: weights.known,
    };
    Err((refusal, granted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::op::Why;
    use crate::model::{Flags, GoneRemote, Uid, UniqueName};

    fn removals(n: i64) -> Vec<Planned> {
        let proof = GoneRemote::of([Uid::MIN]).proof(Uid::MIN).unwrap();
        let op = |id| Op::Remove { link: LinkId(id), name: UniqueName::new(b"n"), flags: Flags::new(), proof };
        (0..n).map(|id| Planned { op: op(id), why: Why::DeletedOnServer }).collect()
    }

    #[test]
    fn removals_are_weighed_by_count_and_share() {
        let limits = Limits { count: 50, share: 0.2 };
        let rows = [
            // in this pass, known, removed lately, passes
            (50, 50, 0, true),     // everything, but few
            (51, 51, 0, false),    // everything, and many
            (51, 1000, 0, true),   // many, but a small part
            (201, 1000, 0, false), // many, and a large part
            (200, 1000, 0, true),  // exactly the share
            (15, 150, 36, false),  // a slow bleed
            (15, 150, 35, true),
            (0, 0, 1000, true), // nothing to refuse
        ];
        for (n, known, removed_lately, passes) in rows {
            let verdict = guard(removals(n), Weights { known, removed_lately }, limits, &BTreeSet::new());
            match verdict {
                Ok(plan) => assert!(passes && plan.len() as i64 == n, "{n} of {known} after {removed_lately}"),
                Err((refusal, plan)) => {
                    assert!(!passes && plan.is_empty(), "{n} of {known} after {removed_lately}");
                    assert_eq!(refusal.removals.len() as i64, n);
                }
            }
        }
    }

    #[test]
    fn what_is_approved_passes_and_the_rest_is_weighed_alone() {
        let limits = Limits { count: 50, share: 0.2 };
        let weights = Weights { known: 100, removed_lately: 0 };
        let approved: BTreeSet<LinkId> = (0..60).map(LinkId).collect();
        assert_eq!(guard(removals(60), weights, limits, &approved).unwrap().len(), 60);
        assert_eq!(guard(removals(110), weights, limits, &approved).unwrap().len(), 110);
        let (refusal, granted) = guard(removals(111), weights, limits, &approved).unwrap_err();
        assert_eq!((refusal.removals.len(), granted.len()), (51, 60));
        assert_eq!(refusal.to_string(), "51 deleted on the server of 100 messages");
    }
}
