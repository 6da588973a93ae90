//! The messages of a mailbox, with what is asked about all of them kept at hand: a look at a hundred thousand messages is
//! not to walk over them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crate::Message;

/// The messages of a mailbox by UID. They are read as a map; what changes them keeps the counters right.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Messages {
    by_uid: BTreeMap<u32, Message>,
    /// All UIDs, in order.
    uids: Vec<u32>,
    /// Those without `\Seen`.
    unseen: BTreeSet<u32>,
    /// The keywords in use, and how many messages have each.
    keywords: BTreeMap<String, usize>,
    /// When each was changed last.
    changes: BTreeSet<(u64, u32)>,
}

impl Deref for Messages {
    type Target = BTreeMap<u32, Message>;

    fn deref(&self) -> &Self::Target {
        &self.by_uid
    }
}

fn is_keyword(flag: &&String) -> bool {
    !flag.starts_with('\\')
}

impl Messages {
    /// Adds a message, in place of one that has its UID.
    pub fn insert(&mut self, message: Message) {
        let uid = message.uid;
        self.remove(&uid);
        if let Err(at) = self.uids.binary_search(&uid) {
            self.uids.insert(at, uid);
        }
        self.count(&message);
        self.by_uid.insert(uid, message);
    }

    /// Takes a message away, as a server does that loses one: nobody is told that it is gone.
    pub fn remove(&mut self, uid: &u32) -> Option<Message> {
        let message = self.by_uid.remove(uid)?;
        if let Ok(at) = self.uids.binary_search(uid) {
            self.uids.remove(at);
        }
        self.discount(&message);
        Some(message)
    }

    /// Gives a message these bytes, as no server should; does nothing if there is none.
    pub fn rewrite(&mut self, uid: u32, bytes: &[u8]) {
        if let Some(message) = self.by_uid.get_mut(&uid) {
            message.bytes = bytes.to_vec();
        }
    }

    /// Gives a message these flags.
    pub(crate) fn set(&mut self, uid: u32, flags: BTreeSet<String>, mod_seq: u64) {
        if let Some(mut message) = self.by_uid.remove(&uid) {
            self.discount(&message);
            (message.flags, message.mod_seq) = (flags, mod_seq);
            self.count(&message);
            self.by_uid.insert(uid, message);
        }
    }

    /// Returns all UIDs, in order.
    pub(crate) fn uids(&self) -> &[u32] {
        &self.uids
    }

    /// Returns how many have not been seen.
    pub(crate) fn count_unseen(&self) -> usize {
        self.unseen.len()
    }

    /// Returns the sequence number of the first that has not been seen.
    pub(crate) fn first_unseen(&self) -> Option<usize> {
        self.uids.binary_search(self.unseen.first()?).ok().map(|at| at + 1)
    }

    /// Returns the keywords in use.
    pub(crate) fn keywords(&self) -> impl Iterator<Item = &String> {
        self.keywords.keys()
    }

    /// Returns those that were changed since this mod-sequence, in the order of their UIDs.
    pub(crate) fn changed_since(&self, mod_seq: u64) -> Vec<&Message> {
        let later = self.changes.range((mod_seq.saturating_add(1), 0)..);
        let uids: BTreeSet<u32> = later.map(|(_, uid)| *uid).collect();
        uids.iter().filter_map(|uid| self.by_uid.get(uid)).collect()
    }

    fn count(&mut self, message: &Message) {
        if !message.flags.contains("\\Seen") {
            self.unseen.insert(message.uid);
        }
        for keyword in message.flags.iter().filter(is_keyword) {
            *self.keywords.entry(keyword.clone()).or_default() += 1;
        }
        self.changes.insert((message.mod_seq, message.uid));
    }

    fn discount(&mut self, message: &Message) {
        self.unseen.remove(&message.uid);
        for keyword in message.flags.iter().filter(is_keyword) {
            if let Some(count) = self.keywords.get_mut(keyword) {
                *count -= 1;
            }
        }
        self.keywords.retain(|_, count| *count > 0);
        self.changes.remove(&(message.mod_seq, message.uid));
    }
}

/// Where two ascending lists differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// What is only in the first, with its index there.
    pub(crate) gone: Vec<(usize, u32)>,
    /// What is only in the second.
    pub(crate) new: Vec<u32>,
}

/// Compares so many numbers at once where there is no difference.
const BLOCK: usize = 1024;

/// Returns where two ascending lists differ. What they have in common costs next to nothing.
pub(crate) fn difference(before: &[u32], now: &[u32]) -> Difference {
    let (mut i, mut j, mut difference) = (0, 0, Difference::default());
    loop {
        let length = BLOCK.min(before.len() - i).min(now.len() - j);
        if length == BLOCK && before[i..i + BLOCK] == now[j..j + BLOCK] {
            (i, j) = (i + BLOCK, j + BLOCK);
            continue;
        }
        let same = before[i..].iter().zip(&now[j..]).take(BLOCK).take_while(|(a, b)| a == b).count();
        (i, j) = (i + same, j + same);
        match (before.get(i), now.get(j)) {
            (None, None) => return difference,
            (Some(a), Some(b)) if a == b => {}
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                difference.gone.push((i, *a));
                i += 1;
            }
            (_, Some(b)) => {
                difference.new.push(*b);
                j += 1;
            }
            (Some(_), None) => return difference,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers each time (Numerical Recipes' generator).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }

        fn flags(&mut self) -> BTreeSet<String> {
            let all = ["\\Seen", "\\Flagged", "work", "home", "later"];
            all.iter().filter(|_| self.below(3) == 0).map(|flag| (*flag).to_owned()).collect()
        }
    }

    fn assert_as_walked(messages: &Messages) {
        let all: Vec<&Message> = messages.values().collect();
        let unseen = |m: &&&Message| !m.flags.contains("\\Seen");
        assert_eq!(messages.uids(), messages.keys().copied().collect::<Vec<_>>());
        assert_eq!(messages.count_unseen(), all.iter().filter(unseen).count());
        assert_eq!(messages.first_unseen(), all.iter().position(|m| unseen(&m)).map(|at| at + 1));
        let keywords: BTreeSet<&String> = all.iter().flat_map(|m| &m.flags).filter(is_keyword).collect();
        assert_eq!(messages.keywords().collect::<BTreeSet<_>>(), keywords);
        for since in [0, 10, 50, u64::MAX] {
            let changed: Vec<&Message> = all.iter().filter(|m| m.mod_seq > since).copied().collect();
            assert_eq!(messages.changed_since(since), changed);
        }
    }

    #[test]
    fn the_counters_say_what_a_walk_says() {
        for seed in 0..50 {
            let (mut random, mut messages) = (Random(seed), Messages::default());
            for mod_seq in 1..=100 {
                let uid = u32::try_from(1 + random.below(30)).unwrap();
                match random.below(4) {
                    0 => drop(messages.remove(&uid)),
                    1 => messages.set(uid, random.flags(), mod_seq),
                    2 => messages.rewrite(uid, b"another"),
                    _ => {
                        let flags = random.flags();
                        messages.insert(Message { uid, bytes: b"x".to_vec(), flags, internal_date: 0, mod_seq });
                    }
                }
                assert_as_walked(&messages);
            }
        }
    }

    #[test]
    fn differences_are_found_wherever_they_are() {
        let mut random = Random(7);
        for round in 0u64..200 {
            let most = 3000 * (round % 3) + 5;
            let mut some = |keep: u64| -> Vec<u32> {
                (1..=most).filter(|_| random.below(keep) > 0).map(|n| u32::try_from(n).unwrap()).collect()
            };
            let (before, now) = (some(2 + round), some(3 + round));
            let only = |a: &[u32], b: &[u32]| -> Vec<u32> {
                let b: BTreeSet<u32> = b.iter().copied().collect();
                a.iter().copied().filter(|n| !b.contains(n)).collect()
            };
            let found = difference(&before, &now);
            assert_eq!(found.new, only(&now, &before));
            assert_eq!(found.gone.iter().map(|(_, n)| *n).collect::<Vec<_>>(), only(&before, &now));
            assert!(found.gone.iter().all(|(at, n)| before[*at] == *n));
        }
        assert_eq!(difference(&[], &[]), Difference::default());
    }
}
