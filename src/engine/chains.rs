//! Finds the mailboxes that changed their names on one side in a chain (A to X, B to A) or in a circle (A to B, B to A):
//! one has a name by now by which another is known. Pure: no I/O, no clock. See [`crate`] for the map.
//!
//! A mailbox that only went to a name that nobody had is no matter of this: see [`tree`](super::tree).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::MailboxName;

/// The old and the new name of each mailbox of a chain or circle.
pub type Chain = BTreeMap<MailboxName, MailboxName>;

/// Returns the chains and circles: `known` says by what mark (UIDVALIDITY, or the inode of a directory) each mailbox is
/// known again, if by any; `seen`, which mark is found under each name now.
///
/// Where a mark is not the only one of its kind it proves nothing. A chain is whole, or is none: each new name is one
/// that no known mailbox has, or gives up; and what lies below a mailbox is in it as well.
#[must_use]
pub fn chains<M: Ord + Copy>(known: &BTreeMap<MailboxName, Option<M>>, seen: &BTreeMap<MailboxName, M>) -> Vec<Chain> {
    let once = |marks: &mut dyn Iterator<Item = M>| {
        let mut counts: BTreeMap<M, u32> = BTreeMap::new();
        marks.for_each(|mark| *counts.entry(mark).or_default() += 1);
        counts.into_iter().filter(|(_, count)| *count == 1).map(|(mark, _)| mark).collect::<BTreeSet<M>>()
    };
    let of_one = once(&mut known.values().flatten().copied());
    let at_one = once(&mut seen.values().copied());
    let now: BTreeMap<M, &MailboxName> = seen.iter().map(|(name, mark)| (*mark, name)).collect();
    let moved = known.iter().filter_map(|(from, mark)| {
        let mark = mark.filter(|mark| of_one.contains(mark) && at_one.contains(mark))?;
        let to = *now.get(&mark)?;
        (to != from && !from.is_inbox() && !to.is_inbox()).then(|| (from.clone(), to.clone()))
    });
    let mut moved: Chain = moved.collect();
    // Each that is dropped keeps its name, which another may have been about to get.
    loop {
        let stays = |name: &MailboxName| known.contains_key(name) && !moved.contains_key(name);
        let fits = |(from, to): (&MailboxName, &MailboxName)| {
            !stays(to) && !known.keys().any(|name| is_below(name, from) && stays(name))
        };
        let kept: Chain = moved.iter().filter(|pair| fits(*pair)).map(|(a, b)| (a.clone(), b.clone())).collect();
        if kept.len() == moved.len() {
            break;
        }
        moved = kept;
    }
    let mut found = Vec::new();
    while let Some(first) = moved.keys().next().cloned() {
        let mut chain = Chain::new();
        let mut next = BTreeSet::from([first]);
        while let Some(from) = next.pop_first() {
            let Some(to) = moved.remove(&from) else { continue };
            let goes_along = |(f, t): (&MailboxName, &MailboxName)| {
                *f == to || *t == from || is_below(f, &from) || is_below(&from, f)
            };
            next.extend(moved.iter().filter(|pair| goes_along(*pair)).map(|(f, _)| f.clone()));
            chain.insert(from, to);
        }
        if chain.values().any(|to| known.contains_key(to)) {
            found.push(chain);
        }
    }
    found
}

/// Tells whether a mailbox lies below another one.
pub(super) fn is_below(name: &MailboxName, above: &MailboxName) -> bool {
    name.as_str().strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names with marks, as `A1 B2`; one without a mark is `A-`.
    fn marks(text: &str) -> BTreeMap<MailboxName, Option<u32>> {
        let mark = |word: &str| {
            let (name, mark) = word.split_at(word.len() - 1);
            (MailboxName::from(name), mark.parse().ok())
        };
        text.split_whitespace().map(mark).collect()
    }

    #[test]
    fn chains_and_circles_are_found_whole_or_not_at_all() {
        let table = [
            ("nothing happened", "A1 B2", "A1 B2", ""),
            ("to a new name: another matter", "A1 B2", "X1 B2", ""),
            ("a chain", "A1 B2", "X1 A2", "A>X B>A"),
            ("a longer one", "A1 B2 C3", "X1 A2 B3", "A>X B>A C>B"),
            ("a circle", "A1 B2", "A2 B1", "A>B B>A"),
            ("a circle of three", "A1 B2 C3 D4", "A3 B1 C2 D4", "A>B B>C C>A"),
            ("two at once", "A1 B2 C3 D4", "A2 B1 C4 D3", "A>B B>A | C>D D>C"),
            ("a chain and a rename", "A1 B2 C3", "X1 A2 Y3", "A>X B>A"),
            ("the old one is gone", "A1 B2", "A2", ""),
            ("the old one is new", "A1 B2", "A2 B3", ""),
            ("a chain that ends at one that stays", "A1 B2 C3", "A2 B1 C1", ""),
            ("nothing known of the old one", "A- B2", "X1 A2", ""),
            ("two of one mark", "A1 B1 C2", "A2 B1 C1", ""),
            ("two with the mark of one", "A1 B2", "A2 B1 C1", ""),
            ("INBOX stays", "INBOX1 A2", "INBOX2 A1", ""),
            ("with what lies below", "A1 A/s3 B2", "X1 X/s3 A2", "A>X A/s>X/s B>A"),
            (
                "with all that lies below",
                "A1 A/s3 A/t4 B2 B/s5",
                "B1 B/s3 B/t4 A2 A/s5",
                "A>B A/s>B/s A/t>B/t B>A B/s>A/s",
            ),
            ("but not without it", "A1 A/s3 B2", "X1 A/s3 A2", ""),
            ("below itself", "A1 A/s2", "A2 A/s1", "A>A/s A/s>A"),
        ];
        for (what, known, seen, expected) in table {
            let seen = marks(seen).into_iter().filter_map(|(name, mark)| Some((name, mark?))).collect();
            let text = |chain: &Chain| chain.iter().map(|(a, b)| format!("{a}>{b}")).collect::<Vec<_>>().join(" ");
            let found: Vec<String> = chains(&marks(known), &seen).iter().map(text).collect();
            assert_eq!(found.join(" | "), expected, "{what}");
        }
    }

    #[test]
    fn whatever_is_seen_each_new_name_is_free() {
        // All ways to give four known names one of five marks each, of which four are known.
        let known = marks("A1 B2 C3 D4");
        for code in 0..6_u32.pow(5) {
            let names = ["A", "B", "C", "D", "X"];
            let mark = |at: usize| code / 6_u32.pow(u32::try_from(at).unwrap()) % 6;
            let seen = names.iter().enumerate().filter(|(at, _)| mark(*at) > 0);
            let seen: BTreeMap<MailboxName, u32> = seen.map(|(at, name)| ((*name).into(), mark(at))).collect();
            for chain in chains(&known, &seen) {
                let targets: BTreeSet<&MailboxName> = chain.values().collect();
                assert_eq!(targets.len(), chain.len(), "two get one name: {chain:?}");
                for (from, to) in &chain {
                    assert_eq!(known[from], seen.get(to).copied(), "{from} is not {to}");
                    assert!(chain.contains_key(to) || !known.contains_key(to), "{to} is taken: {chain:?}");
                }
                assert!(targets.iter().any(|to| known.contains_key(*to)));
            }
        }
    }
}
