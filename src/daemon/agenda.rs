//! Decides which mailboxes of an account are looked at next, and when. Pure: time is an argument, counted from any
//! moment that does not change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::report::Change;
use crate::model::MailboxName;

/// What comes in one go (a message with its flags, a move with both its ends) is looked at once. The server tells such
/// things at once; …
const CALM_THERE: Duration = Duration::from_millis(10);
/// … programs that write into a maildir take a moment; …
const CALM_HERE: Duration = Duration::from_millis(50);
/// … but who never stops does not put everything off.
const LONGEST_CALM: Duration = Duration::from_secs(1);

/// Pauses before a mailbox is looked at again in which nothing could be done though something is left: a file that is
/// still being written needs half a second.
const FIRST_PAUSE: Duration = Duration::from_millis(450);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// At most so many mailboxes go together: what happens meanwhile is not to wait for long.
const TOGETHER: usize = 16;

/// A pass over everything that has waited for so long comes first, however much happens.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// A pass over everything.
    All,
    /// A pass that makes sure of what may be removed.
    Removals,
    /// A look at these mailboxes.
    Some(BTreeMap<MailboxName, Change>),
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Done {
    /// The mailboxes that are to be looked at again.
    pub(super) left: BTreeSet<MailboxName>,
    /// Something was done.
    pub(super) did: bool,
    /// Something was left for a pass over everything.
    pub(super) wants_all: bool,
}

/// A mailbox that something happened to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Dirty {
    change: Change,
    first: Duration,
    last: Duration,
    due: Duration,
    /// Nothing happened, but something was left.
    again: bool,
}

/// What waits to be looked at.
#[derive(Debug)]
pub(super) struct Agenda {
    sweep_every: Duration,
    dirty: BTreeMap<MailboxName, Dirty>,
    /// When the next pass over everything is due.
    all: Duration,
    /// When a pass is due that makes sure of what may be removed, if there is anything.
    removals: Option<Duration>,
    /// Nothing is done before this.
    rest_until: Duration,
    /// Mailboxes in which nothing could be done though something is left, and how often in a row.
    fruitless: BTreeMap<MailboxName, u32>,
}

impl Agenda {
    /// Returns an agenda that begins with everything.
    pub(super) fn new(now: Duration, sweep_every: Duration) -> Self {
        let (dirty, fruitless) = (BTreeMap::new(), BTreeMap::new());
        Self { sweep_every, dirty, all: now, removals: None, rest_until: now, fruitless }
    }

    /// Notes that something happened to a mailbox.
    pub(super) fn mark(&mut self, mailbox: &MailboxName, change: Change, now: Duration) {
        let calm = if change.there { CALM_THERE } else { CALM_HERE };
        // What happened is a new reason to try, however long a pause was to be.
        self.fruitless.remove(mailbox);
        match self.dirty.get_mut(mailbox) {
            None => {
                let dirty = Dirty { change, first: now, last: now, due: now + calm, again: false };
                self.dirty.insert(mailbox.clone(), dirty);
            }
            Some(dirty) => {
                dirty.change.add(change);
                if std::mem::take(&mut dirty.again) {
                    (dirty.first, dirty.due) = (now, dirty.due.min(now + calm));
                }
                dirty.last = now;
                dirty.due = dirty.due.max((now + calm).min(dirty.first + LONGEST_CALM));
            }
        }
    }

    /// Notes that anything may have happened.
    pub(super) fn mark_all(&mut self, at: Duration) {
        self.all = self.all.min(at);
    }

    /// Notes that the way to the server is another one: nothing that is known of it counts any more.
    pub(super) fn refresh(&mut self, now: Duration) {
        self.rest_until = now;
        self.mark_all(now);
    }

    /// Leaves everything alone until `until`, and then begins with everything.
    pub(super) fn rest(&mut self, until: Duration) {
        self.rest_until = until;
        self.dirty.clear();
        self.fruitless.clear();
        (self.all, self.removals) = (until, None);
    }

    /// Takes what is to be done now: mailboxes that are known to have changed before everything, INBOX before all others, then
    /// those to which something happened last; between INBOX and those, what may be removed.
    pub(super) fn next(&mut self, now: Duration) -> Option<Work> {
        if now < self.rest_until {
            return None;
        }
        if now >= self.all.saturating_add(PATIENCE) {
            return Some(self.begin_all());
        }
        let mut due: Vec<_> =
            self.dirty.iter().filter(|(_, d)| d.due <= now).map(|(n, d)| (n.clone(), d.last)).collect();
        due.sort_by_key(|(name, last)| (!name.is_inbox(), Reverse(*last)));
        due.truncate(TOGETHER);
        let inbox = due.first().is_some_and(|(name, _)| name.is_inbox());
        let everything = due.is_empty() && self.all <= now;
        // What went from one mailbox may be what came to another, and is then moved, not fetched: both are looked at
        // together. Nothing that came to INBOX waits for that.
        if self.removals.is_some_and(|due| due <= now) && !inbox && !everything {
            self.removals = None;
            return Some(Work::Removals);
        }
        if !due.is_empty() {
            let taken = due.into_iter().filter_map(|(name, _)| self.dirty.remove_entry(&name));
            return Some(Work::Some(taken.map(|(name, dirty)| (name, dirty.change)).collect()));
        }
        everything.then(|| self.begin_all())
    }

    fn begin_all(&mut self) -> Work {
        self.dirty.clear();
        (self.all, self.removals) = (Duration::MAX, None);
        Work::All
    }

    /// Returns when there may be something to do; it may be in the past.
    pub(super) fn wakes(&self) -> Duration {
        let first = self.dirty.values().map(|dirty| dirty.due).min().unwrap_or(Duration::MAX);
        first.min(self.all).min(self.removals.unwrap_or(Duration::MAX)).max(self.rest_until)
    }

    /// Notes what became of some work that ended now and took so long.
    pub(super) fn finish(&mut self, work: &Work, done: &Done, took: Duration, now: Duration) {
        if *work == Work::All {
            self.mark_all(now + self.sweep_every);
        }
        if done.wants_all {
            // A server that is slow to list is not to be listed all the time.
            let pause = match work {
                Work::All | Work::Removals => 4 * took,
                Work::Some(_) => Duration::ZERO,
            };
            self.removals = Some(self.removals.map_or(now + pause, |due| due.min(now + pause)));
        }
        for mailbox in &done.left {
            let tries = self.fruitless.entry(mailbox.clone()).or_default();
            *tries = if done.did { 0 } else { tries.saturating_add(1) };
            let pause = match *tries {
                0 => Duration::ZERO,
                n => (FIRST_PAUSE * 2u32.saturating_pow(n - 1)).min(LONGEST_PAUSE),
            };
            let due = now + pause;
            let fresh = Dirty { change: Change::BOTH, first: now, last: Duration::ZERO, due, again: true };
            let dirty = self.dirty.entry(mailbox.clone()).or_insert(fresh);
            dirty.change.add(Change::BOTH);
            dirty.due = dirty.due.min(due);
        }
        if let Work::Some(mailboxes) = work {
            self.fruitless.retain(|name, _| done.left.contains(name) || !mailboxes.contains_key(name));
        }
    }

    /// Returns how many looks wait: one at each mailbox to which something happened, and one at all of them if something
    /// may have to be removed.
    pub(super) fn waiting(&self) -> usize {
        self.dirty.len() + usize::from(self.removals.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::report::Here;
    use crate::maildir::Fate;

    const HERE: Change = Change::HERE;
    const THERE: Change = Change::THERE;
    const BOTH: Change = Change::BOTH;

    const SWEEP: Duration = Duration::from_secs(300);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// An agenda whose first pass over everything ended at 0.
    fn quiet() -> Agenda {
        let mut agenda = Agenda::new(ms(0), SWEEP);
        assert_eq!(agenda.next(ms(0)), Some(Work::All));
        agenda.finish(&Work::All, &Done::default(), ms(0), ms(0));
        agenda
    }

    fn some(changes: &[(&str, Change)]) -> Option<Work> {
        Some(Work::Some(changes.iter().map(|(name, change)| ((*name).into(), change.clone())).collect()))
    }

    #[test]
    fn everything_is_looked_at_first_and_then_in_each_interval() {
        let mut agenda = quiet();
        assert_eq!(agenda.wakes(), SWEEP);
        assert_eq!(agenda.next(SWEEP - ms(1)), None);
        assert_eq!(agenda.next(SWEEP), Some(Work::All));
        assert_eq!(agenda.next(SWEEP), None, "it is on its way");
    }

    #[test]
    fn what_comes_in_one_go_is_looked_at_once() {
        let mut agenda = quiet();
        for at in [0, 20, 40] {
            agenda.mark(&"a".into(), HERE, ms(at));
        }
        agenda.mark(&"b".into(), THERE, ms(85));
        agenda.mark(&"a".into(), THERE, ms(85));
        assert_eq!(agenda.wakes(), ms(95));
        assert_eq!(agenda.next(ms(94)), None);
        assert_eq!(agenda.next(ms(95)), some(&[("a", BOTH), ("b", THERE)]));
        assert_eq!(agenda.next(ms(95)), None);
    }

    #[test]
    fn files_are_named_until_there_are_too_many() {
        let files = |from: usize, to: usize| {
            Change::of_files((from..to).map(|n| (n.to_string().into_bytes(), Fate::Moved)).collect())
        };
        let mut agenda = quiet();
        agenda.mark(&"a".into(), files(0, 2), ms(0));
        agenda.mark(&"a".into(), files(1, 3), ms(1));
        agenda.mark(&"b".into(), files(0, 600), ms(0));
        agenda.mark(&"b".into(), files(600, 1200), ms(1));
        agenda.mark(&"c".into(), THERE, ms(0));
        agenda.mark(&"c".into(), files(0, 1), ms(1));
        agenda.mark(&"d".into(), HERE, ms(0));
        agenda.mark(&"d".into(), files(0, 1), ms(1));
        let c = Change { here: files(0, 1).here, ..THERE };
        // What is known of files is kept: one that was renamed to its name is whole.
        let d = Change { here: Here { anything: true, ..files(0, 1).here }, ..HERE };
        assert_eq!(agenda.next(ms(60)), some(&[("a", files(0, 3)), ("b", HERE), ("c", c), ("d", d)]));
    }

    #[test]
    fn flags_are_looked_for_where_they_may_have_changed() {
        let mut agenda = quiet();
        agenda.mark(&"a".into(), Change::MESSAGES_THERE, ms(0));
        agenda.mark(&"a".into(), Change::MESSAGES_THERE, ms(1));
        agenda.mark(&"b".into(), Change::MESSAGES_THERE, ms(0));
        agenda.mark(&"b".into(), THERE, ms(1));
        assert_eq!(agenda.next(ms(60)), some(&[("a", Change::MESSAGES_THERE), ("b", THERE)]));
    }

    #[test]
    fn who_never_stops_is_looked_at_all_the_same() {
        let mut agenda = quiet();
        let at = (0..).step_by(10).find(|at| {
            agenda.mark(&"a".into(), HERE, ms(*at));
            agenda.next(ms(*at)).is_some()
        });
        assert_eq!(at, Some(1000));
    }

    #[test]
    fn inbox_comes_first_then_the_most_recent() {
        let mut agenda = quiet();
        agenda.mark(&"INBOX".into(), HERE, ms(0));
        for n in 1..=40 {
            agenda.mark(&format!("{n:02}").as_str().into(), HERE, ms(n));
        }
        let Some(Work::Some(first)) = agenda.next(ms(1000)) else { panic!() };
        let names: Vec<_> = first.keys().map(MailboxName::as_str).collect();
        let recent: Vec<String> = (26..=40).map(|n| n.to_string()).collect();
        assert_eq!(names, recent.iter().map(String::as_str).chain(["INBOX"]).collect::<Vec<_>>());
        assert_eq!(agenda.waiting(), 25);
    }

    #[test]
    fn small_changes_come_before_everything_but_not_for_ever() {
        let mut agenda = quiet();
        agenda.mark(&"a".into(), THERE, SWEEP - ms(20));
        assert_eq!(agenda.next(SWEEP), some(&[("a", THERE)]));
        agenda.mark(&"a".into(), THERE, SWEEP + PATIENCE - ms(20));
        assert_eq!(agenda.next(SWEEP + PATIENCE), Some(Work::All));
        assert_eq!(agenda.waiting(), 0, "it is among everything");
    }

    #[test]
    fn what_is_left_is_looked_at_again_at_once_if_that_leads_anywhere_else_less_and_less() {
        let left = |did| Done { left: BTreeSet::from(["a".into()]), did, wants_all: false };
        let work = some(&[("a", THERE)]).unwrap();
        let mut agenda = quiet();
        agenda.finish(&work, &left(true), ms(5), ms(100));
        assert_eq!(agenda.wakes(), ms(100));
        let (mut now, mut pauses) = (ms(100), Vec::new());
        for _ in 0..10 {
            assert_eq!(agenda.next(now), some(&[("a", BOTH)]));
            agenda.finish(&work, &left(false), ms(5), now);
            pauses.push((agenda.wakes() - now).as_millis());
            now = agenda.wakes();
        }
        assert_eq!(pauses, [450, 900, 1800, 3600, 7200, 14_400, 28_800, 57_600, 60_000, 60_000]);
        agenda.mark(&"a".into(), THERE, now);
        assert!(agenda.next(now + CALM_THERE).is_some());
        agenda.finish(&work, &left(false), ms(5), now + CALM_THERE);
        assert_eq!(agenda.wakes(), now + CALM_THERE + FIRST_PAUSE, "an event begins anew");
        agenda.mark(&"a".into(), HERE, now + CALM_THERE);
        assert_eq!(agenda.wakes(), now + CALM_THERE + CALM_HERE, "and waits for no pause");
    }

    #[test]
    fn removals_wait_for_a_pass_over_everything_which_is_not_made_all_the_time() {
        let wants_all = Done { wants_all: true, ..Done::default() };
        let mut agenda = quiet();
        agenda.finish(&some(&[("a", THERE)]).unwrap(), &wants_all, ms(5), ms(1000));
        agenda.mark(&"b".into(), THERE, ms(1000));
        agenda.mark(&"INBOX".into(), THERE, ms(1000));
        assert_eq!(agenda.waiting(), 3);
        assert_eq!(agenda.next(ms(1010)), some(&[("INBOX", THERE), ("b", THERE)]));
        agenda.mark(&"b".into(), THERE, ms(1010));
        assert_eq!(agenda.next(ms(1020)), Some(Work::Removals), "it may have gone from a to b");
        assert_eq!(agenda.waiting(), 1, "flags may not be among it");
        agenda.finish(&Work::Removals, &wants_all, ms(2000), ms(3000));
        assert_eq!(agenda.next(ms(3000)), some(&[("b", THERE)]));
        assert_eq!(agenda.wakes(), ms(11_000));
        assert_eq!(agenda.next(SWEEP), Some(Work::All));
        assert_eq!(agenda.next(SWEEP), None, "they are among everything");
    }

    #[test]
    fn a_rest_ends_with_everything_or_with_a_new_network() {
        let mut agenda = quiet();
        agenda.rest(ms(5000));
        agenda.mark(&"a".into(), THERE, ms(100));
        assert_eq!((agenda.next(ms(4999)), agenda.wakes()), (None, ms(5000)));
        let mut other = quiet();
        other.rest(ms(5000));
        other.refresh(ms(200));
        assert_eq!(other.next(ms(200)), Some(Work::All));
        assert_eq!(agenda.next(ms(5000)), some(&[("a", THERE)]));
        assert_eq!(agenda.next(ms(5000)), Some(Work::All));
    }
}
