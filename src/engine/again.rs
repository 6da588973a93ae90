//! Decides what of that which the server refused is tried again, and when.
//! Pure: no I/O, no clock. See [`crate`] for the map.

use super::op::Op;
use crate::db::Again;
use crate::imap::{self, Retry};
use crate::model::{LinkId, UidSet};
use std::collections::BTreeSet;

/// Nothing that may pass waits for longer, in seconds.
const LONGEST: i64 = 6 * 60 * 60;

/// Tells whether the server may do another time what it refused now.
pub(super) fn may_pass(error: &imap::Error) -> bool {
    match error {
        imap::Error::Refused { text, code, .. } => {
            // Exchange gives no code, and has words for what it will never take.
            let text = text.to_ascii_lowercase();
            let never = code.is_empty()
                && ["maximum size", "too large", "too big", "reserved", "already exists"]
                    .iter()
                    .any(|sign| text.contains(sign));
            error.retry() != Retry::Never && !never
        }
        // It lost its way; where it does so again and again it is at this message.
        imap::Error::Confused { .. } => true,
        _ => false,
    }
}

/// Tells whether the server has no room: then it has none for others either.
pub(super) fn is_full(error: &imap::Error) -> bool {
    matches!(error, imap::Error::Refused { code, .. } if code == "OVERQUOTA")
}

/// Returns how long something is left alone that was refused so many times, in seconds: some is done after minutes, other
/// never.
pub(super) fn pause(tries: u32) -> i64 {
    const MINUTE: i64 = 60;
    match tries {
        0 | 1 => MINUTE,
        2 => 10 * MINUTE,
        3 => 60 * MINUTE,
        _ => LONGEST,
    }
}

/// Returns which of the messages about which something was refused are due: all, if somebody asks for it, and which are to be
/// left alone.
pub(super) fn due(rows: &[Again], asked: bool, now: i64) -> (BTreeSet<LinkId>, BTreeSet<LinkId>) {
    // A clock that was wrong may have written a time that is far away.
    let is_due = |row: &&Again| asked || row.next_at.is_some_and(|at| !(1..=LONGEST).contains(&(at - now)));
    let (due, waits): (Vec<&Again>, Vec<&Again>) = rows.iter().partition(is_due);
    let ids = |rows: Vec<&Again>| rows.into_iter().map(|row| row.link).collect();
    (ids(due), ids(waits))
}

/// Tells whether an op asks the server for what it may refuse.
pub(super) fn asks_the_server(op: &Op) -> bool {
    match op {
        Op::Download { .. } | Op::Upload { .. } | Op::Move { .. } | Op::Expunge { .. } => true,
        Op::MergeFlags { remote, .. } => !remote.is_empty(),
        Op::Remove { .. }
        | Op::Forget { .. }
        | Op::Adopt { .. }
        | Op::Supersede { .. }
        | Op::Keep { .. }
        | Op::Follow { .. }
        | Op::Join { .. } => false,
    }
}

/// So many refusals are taken for a refusal of all that is left.
const MOST_REFUSED: u32 = 32;

/// What is asked for in one command though the server may refuse it for one message: each half is asked for by itself then,
/// until it is known which message it was.
#[derive(Debug)]
pub(super) struct Halves {
    waiting: Vec<UidSet>,
    refused: Vec<(UidSet, imap::Error)>,
    refusals: u32,
}

impl Halves {
    /// Returns what is asked for, in as many parts as there are commands.
    pub(super) fn new(mut parts: Vec<UidSet>) -> Self {
        parts.reverse();
        Self { waiting: parts, refused: Vec::new(), refusals: 0 }
    }

    /// Takes the messages that are to be asked for next.
    pub(super) fn next(&mut self) -> Option<UidSet> {
        self.waiting.pop()
    }

    /// Notes that the server refused it for messages of which these are left.
    pub(super) fn refuse(&mut self, left: &UidSet, error: imap::Error) {
        self.refusals += 1;
        if self.refusals >= MOST_REFUSED {
            let rest = std::mem::take(&mut self.waiting);
            let all = left.iter().chain(rest.iter().flat_map(UidSet::iter)).collect();
            self.refused.push((all, error));
        } else if left.len() > 1 {
            let half = u32::try_from(left.len().div_ceil(2)).unwrap_or(u32::MAX);
            self.waiting.extend(left.chunks(usize::MAX, half).into_iter().rev());
        } else if !left.is_empty() {
            self.refused.push((left.clone(), error));
        }
    }

    /// Returns what was refused in the end, and with which words.
    pub(super) fn refused(self) -> Vec<(UidSet, imap::Error)> {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Uid;

    fn refused(code: &str, text: &str) -> imap::Error {
        imap::Error::Refused { command: "APPEND", mailbox: Some("A".into()), code: code.into(), text: text.into() }
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        let table = [
            ("OVERQUOTA", "full", true),
            ("UNAVAILABLE", "", true),
            ("SERVERBUG", "", true),
            ("INUSE", "", true),
            ("LIMIT", "", true),
            ("CONTACTADMIN", "", true),
            ("", "no", true),
            ("", "The requested message could not be converted to an RFC-822 compatible format.", true),
            ("", "Maximum size of appendable message has been exceeded", false),
            ("", "Message too large", false),
            ("TOOBIG", "", false),
            ("CANNOT", "", false),
            ("NOPERM", "", false),
        ];
        for (code, text, passes) in table {
            assert_eq!(may_pass(&refused(code, text)), passes, "[{code}] {text}");
        }
        let mailbox = || Some("A".to_owned());
        let bad = |text: &str| imap::Error::Bad { command: "APPEND", mailbox: mailbox(), text: text.into() };
        assert!(!may_pass(&bad("Command Argument Error. 11")));
        let confused =
            imap::Error::Confused { command: "APPEND", mailbox: mailbox(), text: "Command Error. 10".into() };
        assert!(may_pass(&confused) && !confused.is_no());
        assert!(is_full(&refused("OVERQUOTA", "")) && !is_full(&refused("LIMIT", "")));
    }

    #[test]
    fn pauses_grow_to_six_hours() {
        let minutes: Vec<i64> = (1..=6).map(|tries| pause(tries) / 60).collect();
        assert_eq!(minutes, [1, 10, 60, 360, 360, 360]);
    }

    #[test]
    fn what_is_due_and_what_is_left_alone() {
        let row = |n, next_at| Again { link: LinkId(n), tries: 1, next_at, why: String::new() };
        let day = 24 * 60 * 60;
        let rows = [row(1, Some(1000)), row(2, Some(1001)), row(3, None), row(4, Some(1000 + day)), row(5, Some(7))];
        let ids = |ids: &[i64]| ids.iter().map(|id| LinkId(*id)).collect::<BTreeSet<_>>();
        assert_eq!(due(&rows, false, 1000), (ids(&[1, 4, 5]), ids(&[2, 3])));
        assert_eq!(due(&rows, true, 1000), (ids(&[1, 2, 3, 4, 5]), ids(&[])));
    }

    fn set(uids: impl IntoIterator<Item = u32>) -> UidSet {
        uids.into_iter().map(|n| Uid::new(n.into()).unwrap()).collect()
    }

    /// Asks a server that refuses some; returns how often it was asked, what it did and what it refused.
    fn ask(parts: &[UidSet], never: &UidSet) -> (usize, UidSet, UidSet) {
        let (mut halves, mut asked, mut done) = (Halves::new(parts.to_vec()), 0, UidSet::default());
        while let Some(set) = halves.next() {
            asked += 1;
            if set.iter().any(|uid| never.contains(uid)) {
                halves.refuse(&set, refused("", "no"));
            } else {
                done.extend(set.iter());
            }
        }
        (asked, done, halves.refused().iter().flat_map(|(set, _)| set.iter()).collect())
    }

    #[test]
    fn what_is_refused_is_found_among_what_is_not() {
        let parts = [set(1..=500), set(501..=600)];
        let cases: [&[u32]; 5] = [&[], &[1], &[500, 501], &[600], &[7, 8, 300]];
        for never in cases {
            let (asked, done, refused) = ask(&parts, &set(never.iter().copied()));
            assert_eq!((refused.len(), done.len()), (never.len() as u64, 600 - never.len() as u64), "{never:?}");
            assert!(refused == set(never.iter().copied()) && asked <= 2 + 20 * never.len(), "{never:?}: {asked}");
        }
        let (asked, done, refused) = ask(&parts, &set(1..=600));
        assert_eq!((asked, done.len(), refused.len()), (32, 0, 600), "it does not ask for ever");
    }
}
