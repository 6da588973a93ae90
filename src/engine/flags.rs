//! Merges the flags of both sides with those they last agreed on.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use crate::model::{Flag, FlagChange, Flags};

/// What one side can keep of flags. What it cannot is masked: its silence about them is not a removal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mask {
    /// The flags and keywords it certainly keeps.
    pub known: Flags,
    /// It keeps any other keyword too.
    pub any_keyword: bool,
}

impl Mask {
    /// Returns the mask of a side that keeps everything.
    #[must_use]
    pub fn all() -> Self {
        Self { known: Flags::system(), any_keyword: true }
    }

    /// Returns what of `flags` this side can keep.
    #[must_use]
    pub fn keeps(&self, flags: &Flags) -> Flags {
        let kept = flags.intersection(&self.known);
        if self.any_keyword { kept.union(&keywords(flags)) } else { kept }
    }

    /// Returns what a side that shows `shown` holds: what it cannot keep is taken to be as in `base`.
    #[must_use]
    pub fn read(&self, shown: &Flags, base: &Flags) -> Flags {
        self.keeps(shown).union(&base.difference(&self.keeps(base)))
    }

    /// Returns what of `change` can be made on this side.
    #[must_use]
    pub fn change(&self, change: &FlagChange) -> FlagChange {
        FlagChange { add: self.keeps(&change.add), remove: self.keeps(&change.remove) }
    }
}

fn keywords(flags: &Flags) -> Flags {
    Flags::from_parts(0, flags.keywords().cloned())
}

/// Returns the flags that both sides are to have.
///
/// Per flag, sides that agree win; where they differ, exactly one of them has left the base, and it wins. So no conflict
/// exists, and no clock is asked.
#[must_use]
pub fn merge(base: &Flags, remote: &Flags, local: &Flags) -> Flags {
    remote.intersection(local).union(&remote.union(local).difference(base))
}

/// Returns the base for a pair that never had one, so that [`merge`] keeps every flag that either side has, but
/// `\Deleted` only where both have it: a deletion is never invented.
#[must_use]
pub fn first_base(remote: &Flags, local: &Flags) -> Flags {
    let deleted = [Flag::Deleted].into_iter().collect();
    remote.intersection(local).union(&remote.union(local).intersection(&deleted))
}

/// Tells whether a change of flags is a wish to keep the message: flagged, undeleted, or a keyword changed.
/// Reading, answering and forwarding are not.
#[must_use]
pub fn wants_kept(base: &Flags, now: &Flags) -> bool {
    let change = FlagChange::between(base, now);
    change.add.contains(Flag::Flagged)
        || change.remove.contains(Flag::Deleted)
        || change.add.keywords().chain(change.remove.keywords()).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Keyword;
    use proptest::prelude::*;

    fn set(present: bool) -> Flags {
        if present { [Flag::Seen].into_iter().collect() } else { Flags::new() }
    }

    #[test]
    fn the_side_that_left_the_base_wins() {
        let rows = [
            // base, remote, local, merged
            (false, false, false, false),
            (false, false, true, true),
            (false, true, false, true),
            (false, true, true, true),
            (true, false, false, false),
            (true, false, true, false),
            (true, true, false, false),
            (true, true, true, true),
        ];
        for (base, remote, local, merged) in rows {
            assert_eq!(merge(&set(base), &set(remote), &set(local)), set(merged), "{base} {remote} {local}");
        }
    }

    fn any_flags() -> impl Strategy<Value = Flags> {
        (0u8..64, prop::collection::btree_set("[a-d]", 0..4))
            .prop_map(|(bits, words)| Flags::from_parts(bits, words.iter().filter_map(|w| Keyword::new(w))))
    }

    proptest! {
        #[test]
        fn merging_is_fair_and_settles(base in any_flags(), remote in any_flags(), local in any_flags()) {
            let merged = merge(&base, &remote, &local);
            prop_assert_eq!(&merged, &merge(&base, &local, &remote));
            prop_assert_eq!(&merge(&merged, &merged, &merged), &merged);
            prop_assert_eq!(merge(&base, &base, &local), local);
        }

        #[test]
        fn first_contact_keeps_all_but_lone_deletions(remote in any_flags(), local in any_flags()) {
            let merged = merge(&first_base(&remote, &local), &remote, &local);
            let deleted = remote.contains(Flag::Deleted) && local.contains(Flag::Deleted);
            prop_assert_eq!(merged.contains(Flag::Deleted), deleted);
            let rest = |f: &Flags| f.difference(&[Flag::Deleted].into_iter().collect());
            prop_assert_eq!(rest(&merged), rest(&remote.union(&local)));
        }

        #[test]
        fn what_a_side_cannot_keep_is_not_removed_by_it(base in any_flags(), local in any_flags(), known in any_flags()) {
            let mask = Mask { known, any_keyword: false };
            // The server shows of the base what it can keep; the local change must survive whole.
            let shown = mask.keeps(&base);
            let merged = merge(&base, &mask.read(&shown, &base), &local);
            prop_assert_eq!(&merged, &local);
            // After the change was made as far as possible, nothing is left to do.
            let shown = shown.changed(&mask.change(&FlagChange::between(&shown, &merged)));
            let read = mask.read(&shown, &merged);
            prop_assert_eq!(merge(&merged, &read, &merged), merged);
        }
    }

    #[test]
    fn reading_is_no_wish_to_keep() {
        let base = Flags::from_parts(0, Keyword::new("Work"));
        let with = |flag: Flag| base.union(&[flag].into_iter().collect());
        assert!(!wants_kept(&base, &with(Flag::Seen)) && !wants_kept(&base, &with(Flag::Answered)));
        assert!(!wants_kept(&base, &with(Flag::Forwarded)) && !wants_kept(&base, &with(Flag::Deleted)));
        assert!(wants_kept(&base, &with(Flag::Flagged)) && wants_kept(&base, &Flags::new()));
        assert!(wants_kept(&with(Flag::Deleted), &base));
    }
}
