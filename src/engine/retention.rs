//! Decides which days of the graveyard have been kept for long enough, by the time that has really passed: a clock that
//! jumps to another year must not empty it.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan;
use jiff::civil::Date;

use crate::clock::Boot;
use crate::db::Lifetime;

/// What the clocks say.
#[derive(Clone, Debug)]
pub(super) struct Clocks {
    /// How long the machine has been on.
    pub boot: Boot,
    /// The time on the wall, in seconds since 1970; …
    pub wall: i64,
    /// … and its date, by which the graveyard's directories are called.
    pub today: Date,
}

/// What is to be done, in this order.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Decision {
    /// What is to be written down, if that is worth a commit.
    pub write: Option<Lifetime>,
    /// The days that may be deleted.
    pub gone: Vec<Date>,
}

/// Time is written down once it is so much, in seconds: less is lost with the boot of the machine, and kept longer.
const WORTH_WRITING: i64 = 60 * 60;

/// Returns which of the days that are there may go, and what is to be known next time.
///
/// A day is over once it is in the past, since nothing is put into it from then on. It goes when, since a pass first saw it so,
/// `days` days are known to have passed, and its date says the same.
pub(super) fn decide(before: Option<&Lifetime>, there: &BTreeSet<Date>, days: u32, now: &Clocks) -> Decision {
    if there.is_empty() {
        return Decision { write: None, gone: Vec::new() };
    }
    let counted = before.map_or(0, |before| before.counted.saturating_add(passed(before, now)));
    let since =
        |day: &Date| before.and_then(|before| before.over.get(day)).map_or(counted, |since| (*since).min(counted));
    let over: BTreeMap<Date, i64> =
        there.iter().filter(|day| **day < now.today).map(|day| (*day, since(day))).collect();

    let long_enough = i64::from(days) * 24 * 60 * 60;
    let first = now.today.saturating_sub(i64::from(days).days());
    let gone: Vec<Date> = over
        .iter()
        .filter(|(day, since)| **day < first && counted - **since >= long_enough)
        .map(|(day, _)| *day)
        .collect();

    let Boot { id: boot, clock: boot_clock } = now.boot.clone();
    let known = Lifetime { boot, boot_clock, wall: now.wall, counted, over };
    let is_news = !gone.is_empty() || before.is_none_or(|before| is_news(before, &known));
    Decision { write: is_news.then_some(known), gone }
}

/// Returns how many seconds have certainly passed since the time was last counted.
fn passed(before: &Lifetime, now: &Clocks) -> i64 {
    let passed = if now.boot.id.is_empty() || before.boot.is_empty() {
        0
    } else if now.boot.id == before.boot {
        now.boot.clock - before.boot_clock
    } else {
        // All of this boot came after what was counted in an earlier one. The database may have been on another machine
        // then, so the wall has to agree; how long the machine was off is known to nobody.
        now.boot.clock.min(now.wall.saturating_sub(before.wall))
    };
    passed.max(0)
}

fn is_news(before: &Lifetime, now: &Lifetime) -> bool {
    let went_back = now.boot_clock < before.boot_clock;
    before.boot != now.boot || went_back || before.over != now.over || now.counted - before.counted >= WORTH_WRITING
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn dates(text: &str) -> BTreeSet<Date> {
        text.split_whitespace().map(date).collect()
    }

    /// Returns what clocks say in boot `id`, `boot` days after it began, when the wall shows noon of `today`.
    fn clocks(id: &str, boot: i64, today: &str) -> Clocks {
        let wall = date(today).at(12, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
        Clocks { boot: Boot { id: id.to_owned(), clock: boot * DAY }, wall, today: date(today) }
    }

    /// Makes passes one after the other, with `there` in the graveyard and kept for 90 days; returns what each lets go.
    fn passes(there: &str, rows: &[(&str, i64, &str)]) -> Vec<String> {
        let (mut there, mut known) = (dates(there), None);
        let mut gone = Vec::new();
        for (id, boot, today) in rows {
            let decision = decide(known.as_ref(), &there, 90, &clocks(id, *boot, today));
            known = decision.write.or(known);
            gone.push(decision.gone.iter().map(Date::to_string).collect::<Vec<_>>().join(" "));
            there.retain(|day| !decision.gone.contains(day));
        }
        gone
    }

    #[test]
    fn a_day_goes_when_the_clocks_agree_that_it_was_kept() {
        // The day is over on the 2nd, and kept for 90 days from then on.
        let right = [("a", 1, "2026-01-01"), ("a", 2, "2026-01-02"), ("a", 91, "2026-04-01"), ("a", 92, "2026-04-02")];
        assert_eq!(passes("2026-01-01", &right), ["", "", "", "2026-01-01"]);
        let forward =
            [("a", 1, "2026-01-02"), ("a", 1, "2038-01-19"), ("a", 90, "2038-04-18"), ("a", 91, "2038-04-19")];
        assert_eq!(passes("2026-01-01", &forward), ["", "", "", "2026-01-01"]);
        let backward =
            [("a", 1, "2026-01-02"), ("a", 95, "1970-01-01"), ("a", 96, "2026-04-07"), ("a", 186, "2026-07-06")];
        assert_eq!(
            passes("2026-01-01", &backward),
            ["", "", "", "2026-01-01"],
            "it was not over, so more may be in it"
        );
        // Found for the first time, however old it says it is: the database was lost, or never knew.
        assert_eq!(passes("2001-01-01", &[("a", 900, "2026-01-02"), ("a", 990, "2026-04-02")]), ["", "2001-01-01"]);
        // A suspended machine's clock goes on.
        assert_eq!(passes("2026-01-01", &[("a", 1, "2026-01-02"), ("a", 200, "2026-07-20")]), ["", "2026-01-01"]);
    }

    #[test]
    fn what_is_today_or_still_to_come_stays() {
        let rows = [("a", 1, "2026-01-01"), ("a", 1000, "2026-01-01")];
        assert_eq!(passes("2026-01-01 2038-01-19", &rows), ["", ""]);
    }

    #[test]
    fn of_other_boots_only_what_can_be_vouched_for_counts() {
        let over = |rows: &[(&str, i64, &str)]| {
            let mut known: Option<Lifetime> = None;
            for (id, boot, today) in rows {
                let decision = decide(known.as_ref(), &dates("2026-01-01"), 90, &clocks(id, *boot, today));
                known = decision.write.or(known);
            }
            known.unwrap().counted / DAY
        };
        let first = ("a", 5, "2026-01-02");
        assert_eq!(over(&[first, ("b", 0, "2026-03-01")]), 0, "it may have been off, and the clock be wrong");
        assert_eq!(over(&[first, ("b", 7, "2026-03-01")]), 7, "it has been on for so long since then");
        assert_eq!(over(&[first, ("b", 7, "2026-03-01"), ("b", 9, "2026-03-03")]), 9);
        assert_eq!(over(&[first, ("b", 400, "2026-01-12")]), 10, "another machine, on which it is not for long");
        assert_eq!(over(&[first, ("b", 7, "2020-01-01")]), 0);
        assert_eq!(over(&[first, ("a", 3, "2026-01-12"), ("a", 4, "2026-01-13")]), 1, "a machine that was put back");
        assert_eq!(
            over(&[first, ("", 50, "2026-03-01"), ("b", 100, "2026-06-01")]),
            0,
            "nobody tells which boot it is"
        );
    }

    #[test]
    fn a_boot_after_another_keeps_a_day_longer_never_shorter() {
        // On for eight hours a day: three days of the wall are one that counts.
        let mut known: Option<Lifetime> = None;
        let gone = (0..400).find(|day| {
            let today = date("2026-01-02").saturating_add(day.days());
            let mut now = clocks(&format!("boot {day}"), 0, &today.to_string());
            now.boot.clock = 8 * 60 * 60;
            let decision = decide(known.as_ref(), &dates("2026-01-01"), 90, &now);
            known = decision.write.or(known.take());
            !decision.gone.is_empty()
        });
        assert_eq!(gone, Some(270));
    }

    #[test]
    fn a_pass_that_learns_nothing_writes_nothing() {
        let there = dates("2026-01-01");
        assert_eq!(decide(None, &BTreeSet::new(), 90, &clocks("a", 1, "2026-01-02")).write, None);
        let known = decide(None, &there, 90, &clocks("a", 1, "2026-01-02")).write.unwrap();
        let later = |seconds: i64| {
            let mut now = clocks("a", 1, "2026-01-02");
            now.boot.clock += seconds;
            decide(Some(&known), &there, 90, &now).write.map(|known| known.counted)
        };
        assert_eq!((later(0), later(3599), later(3600), later(-1)), (None, None, Some(3600), Some(0)));
        assert!(
            decide(Some(&known), &dates("2025-12-31 2026-01-01"), 90, &clocks("a", 1, "2026-01-02")).write.is_some()
        );
        assert!(decide(Some(&known), &there, 90, &clocks("b", 0, "2026-01-02")).write.is_some());
        // What is to go is written down first.
        let gone = decide(Some(&known), &there, 0, &clocks("a", 1, "2026-01-03"));
        assert!(gone.write.is_some() && gone.gone == [date("2026-01-01")]);
    }
}
