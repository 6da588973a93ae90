//! Finds what changed in a large mailbox of a server that counts no changes, without listing it: what came by its UID,
//! what went by counting, and changed flags by asking only for what differs from the base.
//!
//! The cost follows what changed, and how many runs of equal flags there are, but not how many messages.

use std::collections::{BTreeMap, BTreeSet};

use tracing::debug;

use super::command::Command;
use super::fetch::{WINDOW, unreadable};
use super::observe::Listing;
use super::parse::Data;
use super::select::seen;
use super::wire::Answer;
use super::{Error, Observation, RawName, Session};
use crate::model::{Cursor, Flag, RemoteMessage, Uid, UidSet};

/// What is asked about each flag: who has it, and who has not (RFC 3501 §6.4.4).
const KEYS: [(Flag, &str, &str); 5] = [
    (Flag::Seen, "SEEN", "UNSEEN"),
    (Flag::Answered, "ANSWERED", "UNANSWERED"),
    (Flag::Flagged, "FLAGGED", "UNFLAGGED"),
    (Flag::Deleted, "DELETED", "UNDELETED"),
    (Flag::Draft, "DRAFT", "UNDRAFT"),
];

/// The flags of so many of the newest messages are fetched in any case: they are the ones that change. Each costs some 40
/// bytes, and these are most of what a pass receives in which nothing changed.
const NEWEST: usize = 100;
/// So few messages are named rather than asked about, for an answer costs about eight bytes for each.
const FEW: u64 = 256;
/// To ask about more than that costs more than to be told.
const MOST_SENT: usize = 96 << 10;
/// A range in a set, as it is sent, takes about as many bytes.
const RANGE: usize = 13;
/// To probe for one missing message costs as much as to list so many UIDs.
const PROBED_FOR_ONE: u64 = 550;
/// How many messages are asked for their place at once, and how few for whether they are there.
const PROBES: usize = 64;
/// The newest messages that prove SEARCH right, or wrong.
const SAMPLE: usize = 2000;

/// The messages that the base knows of a mailbox, and their flags.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    uids: UidSet,
    flagged: [UidSet; KEYS.len()],
}

impl Marks {
    /// Adds a message with its flags, as [`Flags::bits`](crate::model::Flags::bits); quick in the order of the UIDs.
    pub fn insert(&mut self, uid: Uid, bits: u8) {
        self.uids.insert(uid);
        for (set, (flag, ..)) in self.flagged.iter_mut().zip(KEYS) {
            if bits & flag as u8 != 0 {
                set.insert(uid);
            }
        }
    }
}

/// How it is found out who has a flag now.
#[derive(PartialEq, Eq, Debug)]
enum Way {
    /// By naming those who have it, or have it not.
    Named { who_has_it: bool },
    /// By asking among those who had it who has it not, and the other way round.
    Asked,
}

/// Returns the cheaper way for a flag that `marked` of `total` messages have, in so many runs.
fn way(marked: u64, total: u64, runs: usize) -> Way {
    let who_has_it = marked <= total / 2;
    let named = if who_has_it { marked } else { total - marked };
    if named <= FEW || runs * RANGE > MOST_SENT { Way::Named { who_has_it } } else { Way::Asked }
}

/// Returns ranges over those of `uids` that are in `marked`, and over those that are not. Numbers between them that no
/// message has may be in either.
fn runs(uids: &[Uid], marked: &UidSet) -> (UidSet, UidSet) {
    let (mut with, mut without) = (UidSet::default(), UidSet::default());
    let mut runs = uids.chunk_by(|a, b| marked.contains(*a) == marked.contains(*b));
    while let Some([first, .., last] | [first @ last]) = runs.next() {
        let set = if marked.contains(*first) { &mut with } else { &mut without };
        set.insert_range(*first, *last);
    }
    (with, without)
}

/// What a sweep has seen so far.
#[derive(Default)]
struct Told {
    messages: BTreeMap<Uid, RemoteMessage>,
    /// Places in the mailbox.
    places: BTreeMap<Uid, u32>,
    found: Vec<UidSet>,
}

impl Told {
    fn take(&mut self, answer: Answer, mailbox: &RawName) -> Result<(), Error> {
        match answer {
            Answer::Fetch(fetch) => {
                if let Some(uid) = fetch.uid {
                    self.places.insert(uid, fetch.sequence);
                    if fetch.flags.is_some() {
                        self.messages.extend(seen(&fetch, mailbox)?);
                    }
                }
            }
            Answer::Data(Data::Search(uids)) => self.found.push(uids),
            Answer::Data(Data::Broken) => return Err(unreadable(mailbox)),
            _ => {}
        }
        Ok(())
    }
}

/// Messages of the base, numbered from 1 in the order of their UIDs, among which some are missing: those between two
/// that are not.
#[derive(PartialEq, Eq, Debug)]
struct Gap {
    /// The number of the last one before; 0 if there is none.
    after: usize,
    /// The number of the first one behind.
    before: usize,
    /// How many are missing up to `after`.
    missing_after: u64,
    /// How many are missing up to `before`.
    missing_before: u64,
}

impl Gap {
    fn inside(&self) -> usize {
        self.before - self.after - 1
    }

    /// Returns the numbers of those to ask the place of, evenly spread.
    fn probes(&self) -> Vec<usize> {
        let inside = self.inside();
        (1..=PROBES).map(|i| self.after + (i * (inside + 1)) / (PROBES + 1)).filter(|n| *n > self.after).collect()
    }

    /// Returns the gaps that are left inside, given the places that some of the probes have; nothing if these make no sense.
    fn narrowed(&self, seen: impl Iterator<Item = (usize, usize)>) -> Option<Vec<Self>> {
        let (mut gaps, mut any) = (Vec::new(), false);
        let (mut after, mut missing_after) = (self.after, self.missing_after);
        let mut close = |after: usize, before: usize, missing_after: u64, missing_before: u64| {
            let missing = missing_before.checked_sub(missing_after)?;
            let inside = (before - after - 1) as u64;
            if missing > 0 && missing <= inside {
                gaps.push(Self { after, before, missing_after, missing_before });
            }
            (missing <= inside).then_some(())
        };
        for (number, place) in seen {
            let missing = number.checked_sub(place)? as u64;
            close(after, number, missing_after, missing)?;
            (after, missing_after, any) = (number, missing, true);
        }
        close(after, self.before, missing_after, self.missing_before)?;
        any.then_some(gaps)
    }
}

impl Session {
    /// Selects a mailbox and observes what changed since a cursor, given what the base knows of it. The result is that of
    /// [`Session::observe`]: what is new, what has other flags than in the base, and what is missing; of the flags, those
    /// of the system only, and without `flags` only those of the newest messages: to ask for the rest takes longest. A
    /// mailbox that is not the one that the cursor was made of is listed in full.
    ///
    /// # Errors
    /// Those of [`Session::observe`].
    pub async fn sweep(
        &mut self,
        mailbox: &RawName,
        since: &Cursor,
        base: &Marks,
        flags: bool,
    ) -> Result<Observation, Error> {
        let selected = self.select(mailbox).await?;
        let cursor = self.cursor(&selected).await?;
        let follows = cursor.uid_validity == since.uid_validity && cursor.uid_next >= since.uid_next;
        if !follows || selected.exists == 0 || base.uids.is_empty() {
            return self.observe(mailbox, None, true).await;
        }
        let uids: Vec<Uid> = base.uids.iter().collect();
        let (old, newest) = uids.split_at(uids.len().saturating_sub(NEWEST));
        let from = newest.first().copied().unwrap_or(Uid::MIN);

        let items = self.flag_items();
        let fetch = self.connection.command("UID FETCH").words(format_args!("{from}:*")).words(items);
        let mut messages = self.tell(mailbox, vec![fetch]).await?.messages;
        if flags {
            let changed = self.changed_flags(mailbox, old, base).await?;
            messages.extend(self.flags(&changed).await?);
        }

        let new = messages.keys().filter(|uid| **uid >= since.uid_next && !base.uids.contains(**uid)).count() as u64;
        let missing = (uids.len() as u64 + new).saturating_sub(self.connection.exists.into());
        let mut vanished: UidSet = newest.iter().copied().filter(|uid| !messages.contains_key(uid)).collect();
        let missing = missing.saturating_sub(vanished.len());
        if missing > 0 {
            vanished.extend(self.missing(mailbox, old, missing).await?);
        }
        let selected = self.connection.selected.clone().unwrap_or(selected);
        let listing = Listing::Delta { vanished };
        Ok(Observation { cursor, messages, listing, exists: selected.exists, selected })
    }

    /// Tells whether what SEARCH says of the newest messages of the selected mailbox is what a listing of them said: only
    /// then can a sweep be trusted.
    ///
    /// # Errors
    /// Those of a connection that breaks.
    pub async fn search_is_right(&mut self, listed: &BTreeMap<Uid, RemoteMessage>) -> Result<bool, Error> {
        let sample: BTreeMap<&Uid, &RemoteMessage> = listed.iter().rev().take(SAMPLE).collect();
        let (Some((first, _)), Some((last, _))) = (sample.first_key_value(), sample.last_key_value()) else {
            return Ok(false);
        };
        let mailbox = self.here()?;
        let range = format!("UID {first}:{last}");
        let mut rows: Vec<(String, UidSet)> = vec![(range.clone(), sample.keys().map(|uid| **uid).collect())];
        for (flag, has, has_not) in KEYS {
            let with = |wanted: bool| {
                sample.iter().filter(move |(_, m)| m.flags.contains(flag) == wanted).map(|(uid, _)| **uid).collect()
            };
            let (marked, unmarked): (UidSet, UidSet) = (with(true), with(false));
            let (key, expected) = if marked.len() <= unmarked.len() { (has, marked) } else { (has_not, unmarked) };
            rows.push((format!("{range} {key}"), expected));
        }
        for (query, expected) in rows {
            let search = self.connection.command("UID SEARCH").words(&query);
            let found = match self.tell(&mailbox, vec![search]).await {
                Ok(told) => told.found.into_iter().flat_map(|set| set.iter().collect::<Vec<_>>()).collect::<UidSet>(),
                Err(Error::Refused { .. } | Error::Bad { .. }) => UidSet::default(),
                Err(error) => return Err(error),
            };
            if found != expected {
                debug!(%mailbox, query, "what SEARCH finds is not what FETCH lists");
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn tell(&mut self, mailbox: &RawName, commands: Vec<Command>) -> Result<Told, Error> {
        let mut told = Told::default();
        self.connection.run_all(commands, WINDOW, Some(mailbox), |answer| told.take(answer, mailbox)).await?;
        Ok(told)
    }

    /// Returns those of the UIDs whose flags may be others than in the base.
    async fn changed_flags(&mut self, mailbox: &RawName, uids: &[Uid], base: &Marks) -> Result<UidSet, Error> {
        let mut changed = BTreeSet::new();
        let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return Ok(UidSet::default()) };
        for ((flag, has, has_not), marked) in KEYS.iter().zip(&base.flagged) {
            if !self.connection.selected.as_ref().is_some_and(|s| s.permanent.contains(*flag)) {
                continue;
            }
            let (with, without) = runs(uids, marked);
            let count = uids.iter().filter(|uid| marked.contains(**uid)).count() as u64;
            match way(count, uids.len() as u64, with.ranges().count() + without.ranges().count()) {
                Way::Named { who_has_it } => {
                    let key = if who_has_it { has } else { has_not };
                    let search = self.connection.command("UID SEARCH").words(format_args!("UID {first}:{last} {key}"));
                    let told = self.tell(mailbox, vec![search]).await?;
                    let named: BTreeSet<Uid> = told.found.iter().flat_map(UidSet::iter).collect();
                    changed.extend(uids.iter().filter(|u| named.contains(u) != (marked.contains(**u) == who_has_it)));
                    changed.extend(named.iter().filter(|uid| !base.uids.contains(**uid)));
                }
                Way::Asked => {
                    let mut commands = Vec::new();
                    for (set, key) in [(with, has_not), (without, has)] {
                        for chunk in set.chunks(self.connection.quirks.set_bytes(key.len()), u32::MAX) {
                            let query = format!("UID {chunk} {key}");
                            commands.push(self.connection.command("UID SEARCH").words(query));
                        }
                    }
                    let told = self.tell(mailbox, commands).await?;
                    changed.extend(told.found.iter().flat_map(UidSet::iter));
                }
            }
        }
        Ok(changed.into_iter().collect())
    }

    /// Returns which of the UIDs, the oldest of the base, are missing, given how many are.
    ///
    /// The place that a message has in the mailbox tells how many before it are missing: so a few probes lead to the gaps.
    /// A place is only a hint where to ask; that a message is not there is said by an answer that does not name its UID.
    async fn missing(&mut self, mailbox: &RawName, uids: &[Uid], count: u64) -> Result<Vec<Uid>, Error> {
        if count * PROBED_FOR_ONE >= uids.len() as u64 {
            return self.missing_by_listing(mailbox, uids).await;
        }
        let mut suspects = UidSet::default();
        let mut gaps = vec![Gap { after: 0, before: uids.len() + 1, missing_after: 0, missing_before: count }];
        while let Some(gap) = gaps.pop() {
            if gap.inside() <= PROBES {
                suspects.extend(uids[gap.after..gap.before - 1].iter().copied());
                continue;
            }
            let probes = gap.probes();
            let asked: UidSet = probes.iter().map(|number| uids[number - 1]).collect();
            let mut places = BTreeMap::new();
            for chunk in asked.chunks(self.connection.quirks.set_bytes(0), u32::MAX) {
                let fetch = self.connection.command("UID FETCH").words(&chunk).words("(UID)");
                places.extend(self.tell(mailbox, vec![fetch]).await?.places);
            }
            let seen = probes.iter().filter_map(|number| Some((*number, *places.get(&uids[number - 1])? as usize)));
            match gap.narrowed(seen) {
                Some(narrowed) => gaps.extend(narrowed),
                None => {
                    debug!(%mailbox, "the places of the messages make no sense, so all UIDs are listed");
                    return self.missing_by_listing(mailbox, uids).await;
                }
            }
        }
        let there = self.present(&suspects).await?;
        Ok(suspects.iter().filter(|uid| !there.contains(*uid)).collect())
    }

    async fn missing_by_listing(&mut self, mailbox: &RawName, uids: &[Uid]) -> Result<Vec<Uid>, Error> {
        let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return Ok(Vec::new()) };
        let search = self.connection.command("UID SEARCH").words(format_args!("UID {first}:{last}"));
        let told = self.tell(mailbox, vec![search]).await?;
        let there: BTreeSet<Uid> = told.found.iter().flat_map(UidSet::iter).collect();
        Ok(uids.iter().copied().filter(|uid| !there.contains(uid)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: usize) -> Uid {
        Uid::new(n as u64).unwrap()
    }

    #[test]
    fn the_cheaper_way_is_taken() {
        let table = [
            (0, 100_000, 1, Way::Named { who_has_it: true }),
            (99_990, 100_000, 21, Way::Named { who_has_it: false }),
            (3_000, 100_000, 6_000, Way::Asked),
            (97_000, 100_000, 6_000, Way::Asked),
            (50_000, 100_000, 2, Way::Asked),
            (30_000, 100_000, 60_000, Way::Named { who_has_it: true }),
        ];
        for (marked, total, runs, expected) in table {
            assert_eq!(way(marked, total, runs), expected, "{marked} of {total} in {runs}");
        }
    }

    #[test]
    fn runs_go_over_numbers_that_no_message_has() {
        let uids: Vec<Uid> = [1, 2, 5, 9, 10, 11].map(uid).into();
        let (with, without) = runs(&uids, &[5, 9].into_iter().map(uid).collect());
        assert_eq!((with.to_string(), without.to_string()), ("5:9".to_owned(), "1:2,10:11".to_owned()));
        assert_eq!(runs(&[], &UidSet::default()), (UidSet::default(), UidSet::default()));
    }

    #[test]
    fn places_lead_to_the_gaps() {
        // Of 1000 messages, 300 and 301 are missing, and 900.
        let missing = [300, 301, 900];
        let place = |n: usize| n - missing.iter().filter(|m| **m < n).count();
        let gap = Gap { after: 0, before: 1001, missing_after: 0, missing_before: 3 };
        let seen: Vec<_> = gap.probes().into_iter().filter(|n| !missing.contains(n)).map(|n| (n, place(n))).collect();
        let narrowed = gap.narrowed(seen.into_iter()).unwrap();
        let counts: Vec<u64> = narrowed.iter().map(|g| g.missing_before - g.missing_after).collect();
        assert_eq!(counts.iter().sum::<u64>(), 3);
        for m in missing {
            assert!(narrowed.iter().any(|g| g.after < m && m < g.before), "{m} is in no gap");
        }
        assert!(narrowed.iter().map(Gap::inside).sum::<usize>() < 70);
        // Places that cannot be, or none at all.
        assert_eq!(gap.narrowed([(5, 9)].into_iter()), None);
        assert_eq!(gap.narrowed([(500, 490)].into_iter()), None);
        assert_eq!(gap.narrowed(std::iter::empty()), None);
    }
}
