//! Numbers with a type, so that mixing two of them does not compile.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

/// A number from the server that its grammar does not allow: zero, or too large.
#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
#[error("{what} {value} is out of range")]
pub struct OutOfRange {
    /// What the number was meant to be.
    pub what: &'static str,
    /// The number as it was received.
    pub value: u64,
}

macro_rules! number32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// Returns the number, or an error for 0 and for what does not fit 32 bits.
            ///
            /// # Errors
            /// [`OutOfRange`] with the value as received.
            pub fn new(value: u64) -> Result<Self, OutOfRange> {
                u32::try_from(value).ok().and_then(NonZeroU32::new).map(Self).ok_or(OutOfRange { what: $what, value })
            }

            /// Returns the bare number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number32!(
    /// The server's number of a message in a mailbox (RFC 3501 §2.3.1.1). Also used for UIDNEXT, the next one.
    Uid,
    "UID"
);
number32!(
    /// The epoch under which the UIDs of a mailbox hold (RFC 3501 §2.3.1.1).
    UidValidity,
    "UIDVALIDITY"
);

impl Uid {
    /// The smallest UID.
    pub const MIN: Self = Self(NonZeroU32::MIN);
    /// The largest UID.
    pub const MAX: Self = Self(NonZeroU32::MAX);

    /// Returns the UID after this one; the largest has none.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// A change counter of a message, or of a mailbox as HIGHESTMODSEQ (RFC 7162 §3.1): 1 to 2^63-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModSeq(NonZeroU64);

impl ModSeq {
    /// Returns the number, or an error for 0 and for what does not fit 63 bits.
    ///
    /// # Errors
    /// [`OutOfRange`] with the value as received.
    pub fn new(value: u64) -> Result<Self, OutOfRange> {
        NonZeroU64::new(value)
            .filter(|n| i64::try_from(n.get()).is_ok())
            .map(Self)
            .ok_or(OutOfRange { what: "mod-sequence", value })
    }

    /// Returns the bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ModSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ModSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The database's number of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub i64);

/// The database's number of a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MailboxId(pub i64);

/// A set of UIDs as sorted, disjoint, non-touching ranges; prints as an IMAP `sequence-set` (RFC 3501 §9).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UidSet(Vec<(u32, u32)>);

impl UidSet {
    /// Returns the set of one range, both ends included, in either order.
    #[must_use]
    pub fn range(a: Uid, b: Uid) -> Self {
        Self(vec![(a.get().min(b.get()), a.get().max(b.get()))])
    }

    /// Adds a range, both ends included.
    pub fn insert_range(&mut self, a: Uid, b: Uid) {
        let (mut low, mut high) = (a.get().min(b.get()), a.get().max(b.get()));
        // Everything that overlaps or touches the new range is swallowed by it.
        let start = self.0.partition_point(|&(_, end)| end.saturating_add(1) < low);
        let end = self.0.partition_point(|&(begin, _)| begin <= high.saturating_add(1));
        if start < end {
            low = low.min(self.0[start].0);
            high = high.max(self.0[end - 1].1);
        }
        self.0.splice(start..end, [(low, high)]);
    }

    /// Adds one UID.
    pub fn insert(&mut self, uid: Uid) {
        match self.0.last_mut() {
            // The common case, ascending order, costs no search.
            Some((_, end)) if *end < uid.get() && *end + 1 == uid.get() => *end = uid.get(),
            Some((_, end)) if *end < uid.get() => self.0.push((uid.get(), uid.get())),
            _ => self.insert_range(uid, uid),
        }
    }

    /// Tells whether `uid` is in the set.
    #[must_use]
    pub fn contains(&self, uid: Uid) -> bool {
        let i = self.0.partition_point(|&(_, end)| end < uid.get());
        self.0.get(i).is_some_and(|&(begin, _)| begin <= uid.get())
    }

    /// Tells whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many UIDs are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|&(a, b)| u64::from(b - a) + 1).sum()
    }

    /// Returns the ranges in ascending order, both ends included.
    pub fn ranges(&self) -> impl Iterator<Item = (Uid, Uid)> + '_ {
        self.0.iter().filter_map(|&(a, b)| Some((Uid::new(a.into()).ok()?, Uid::new(b.into()).ok()?)))
    }

    /// Returns the UIDs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        self.0.iter().flat_map(|&(a, b)| (a..=b).filter_map(|n| Uid::new(n.into()).ok()))
    }

    /// Splits the set into sets whose printed form is at most `bytes` long and that hold at most `count` UIDs each.
    #[must_use]
    pub fn chunks(&self, bytes: usize, count: u32) -> Vec<Self> {
        let (mut out, mut current, mut length, mut held) = (Vec::new(), Self::default(), 0, 0);
        for &(mut a, b) in &self.0 {
            while a <= b {
                // Two numbers of ten digits, a colon and a comma may come.
                if held == count.max(1) || (length > 0 && length + 22 > bytes) {
                    out.push(std::mem::take(&mut current));
                    (length, held) = (0, 0);
                }
                let end = b.min(a.saturating_add(count.max(1) - held - 1));
                current.0.push((a, end));
                held += end - a + 1;
                length += if a == end { digits(a) + 1 } else { digits(a) + digits(end) + 2 };
                match end.checked_add(1) {
                    Some(next) => a = next,
                    None => break,
                }
            }
        }
        if !current.is_empty() {
            out.push(current);
        }
        out
    }
}

fn digits(number: u32) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        let mut set = Self::default();
        set.extend(uids);
        set
    }
}

impl Extend<Uid> for UidSet {
    fn extend<I: IntoIterator<Item = Uid>>(&mut self, uids: I) {
        for uid in uids {
            self.insert(uid);
        }
    }
}

impl fmt::Display for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (a, b)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if a == b { write!(f, "{comma}{a}")? } else { write!(f, "{comma}{a}:{b}")? }
        }
        Ok(())
    }
}

impl fmt::Debug for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn uid(n: u32) -> Uid {
        Uid::new(n.into()).unwrap()
    }

    #[test]
    fn numbers_keep_their_range() {
        assert!(Uid::new(0).is_err() && Uid::new(1 << 32).is_err());
        assert_eq!(Uid::new(u32::MAX.into()).unwrap().next(), None);
        assert!(ModSeq::new(0).is_err() && ModSeq::new(1 << 63).is_err());
        assert_eq!(ModSeq::new((1 << 63) - 1).unwrap().get(), (1 << 63) - 1);
    }

    proptest! {
        #[test]
        fn a_uid_set_is_a_set(ranges in prop::collection::vec((1u32..60, 0u32..9), 0..20), bytes in 22usize..80, count in 1u32..7) {
            let (mut set, mut model) = (UidSet::default(), BTreeSet::new());
            for (a, n) in ranges {
                if n == 0 { set.insert(uid(a)) } else { set.insert_range(uid(a + n), uid(a)) }
                model.extend((a..=a + n).map(uid));
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert!((1..80).all(|n| set.contains(uid(n)) == model.contains(&uid(n))));
            prop_assert!(set.0.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}", set);
            let chunks = set.chunks(bytes, count);
            prop_assert!(chunks.iter().all(|c| c.len() <= u64::from(count) && c.to_string().len() <= bytes));
            prop_assert_eq!(chunks.iter().flat_map(UidSet::iter).collect::<Vec<_>>(), set.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_largest_uid_ends_a_set() {
        let set = UidSet::range(Uid::MAX, uid(u32::MAX - 2));
        assert_eq!(set.to_string(), "4294967293:4294967295");
        assert_eq!(set.chunks(100, 2).len(), 2);
    }
}
