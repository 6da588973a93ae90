//! Makes the view of a mailbox that the planner needs: by QRESYNC, by CONDSTORE, or by listing all of it.
//!
//! Whichever way, the result says the same; only how much of the mailbox it names differs.

use std::collections::BTreeMap;

use tracing::debug;

use super::command::Command;
use super::fetch::{WINDOW, unreadable};
use super::parse::Data;
use super::select::{Reply, Selected, seen};
use super::wire::Answer;
use super::{Error, RawName, Session};
use crate::model::{Cursor, RemoteMessage, Uid, UidSet};

/// Which messages an observation names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listing {
    /// All that there are.
    Full,
    /// Those that are new or changed since the cursor (QRESYNC, or a sweep).
    Delta {
        /// Those that the server calls gone; also some that nobody ever knew.
        vanished: UidSet,
    },
    /// Those that are new or changed since the cursor (CONDSTORE).
    Changed {
        /// All that there are.
        uids: UidSet,
    },
}

/// What was seen of a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// The values that the server gave before the listing.
    pub cursor: Cursor,
    /// The messages that the listing names.
    pub messages: BTreeMap<Uid, RemoteMessage>,
    /// Which those are.
    pub listing: Listing,
    /// How many messages there are after the listing. Where this is not what the listing comes to, it proves no
    /// absence.
    pub exists: u32,
    /// The mailbox.
    pub selected: Selected,
}

/// What a listing that is under way has told.
#[derive(Default)]
struct Told {
    messages: BTreeMap<Uid, RemoteMessage>,
    uids: UidSet,
    vanished: UidSet,
    /// A message went that may have been listed before; which, nobody knows.
    expunged: bool,
}

impl Told {
    fn take(&mut self, answer: Answer, mailbox: &RawName) -> Result<(), Error> {
        match answer {
            Answer::Fetch(fetch) => self.messages.extend(seen(&fetch, mailbox)?),
            Answer::Data(Data::Search(uids)) => uids.ranges().for_each(|(a, b)| self.uids.insert_range(a, b)),
            Answer::Data(Data::Vanished { uids, .. }) => {
                for (a, b) in uids.ranges() {
                    self.vanished.insert_range(a, b);
                    let gone: Vec<Uid> = self.messages.range(a..=b).map(|(uid, _)| *uid).collect();
                    gone.iter().for_each(|uid| drop(self.messages.remove(uid)));
                }
            }
            Answer::Expunge => self.expunged = true,
            Answer::Data(Data::Broken) => return Err(unreadable(mailbox)),
            _ => {}
        }
        Ok(())
    }

    /// Returns what SEARCH found and nothing called gone meanwhile.
    fn remaining(&self) -> UidSet {
        self.uids.iter().filter(|uid| !self.vanished.contains(*uid)).collect()
    }
}

impl Session {
    /// Selects and observes a mailbox: what changed since a cursor, or all of it if there is none, `full` is wanted, or
    /// the mailbox is not the one that the cursor was made of (another UIDVALIDITY, or counters that went back).
    ///
    /// A listing that does not agree with the number of messages is made once more, for somebody may have been at work.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Nonsense`] if anything of the listing cannot be read, or those of a connection that
    /// breaks. Then nothing was observed: there is no partial result.
    pub async fn observe(
        &mut self,
        mailbox: &RawName,
        since: Option<&Cursor>,
        full: bool,
    ) -> Result<Observation, Error> {
        let since = since.filter(|_| !full);
        let resync = since.filter(|_| self.qresync).and_then(|c| Some((c.uid_validity, c.highest_mod_seq?)));
        let Reply { selected, changed, vanished } = self.select_since(mailbox, resync).await?;
        let cursor = self.cursor(&selected).await?;
        let since = since.filter(|since| follows(&cursor, since));
        let (told, listing) = match (since.and_then(|s| s.highest_mod_seq), resync) {
            (Some(_), Some(_)) => {
                let told = Told { messages: changed, ..Told::default() };
                (told, Listing::Delta { vanished })
            }
            (Some(mod_seq), None) => {
                let told = self.list_twice(mailbox, &cursor, Some(mod_seq.get())).await?;
                let uids = told.remaining();
                (
                    Told {
                        messages: told.messages.into_iter().filter(|(uid, _)| uids.contains(*uid)).collect(),
                        ..told
                    },
                    Listing::Changed { uids },
                )
            }
            (None, _) => (self.list_twice(mailbox, &cursor, None).await?, Listing::Full),
        };
        let selected = self.connection.selected.clone().unwrap_or(selected);
        Ok(Observation { cursor, messages: told.messages, listing, exists: selected.exists, selected })
    }

    /// Returns the cursor of a mailbox that was just selected.
    pub(super) async fn cursor(&mut self, selected: &Selected) -> Result<Cursor, Error> {
        let mut uid_next = selected.uid_next;
        if uid_next.is_none() {
            let command = self.connection.command("STATUS").string(selected.raw.as_bytes()).words("(UIDNEXT)");
            let on = |answer| {
                if let Answer::Data(Data::Status(line)) = answer {
                    uid_next = line.item("UIDNEXT").and_then(|n| Uid::new(n).ok());
                }
                Ok(())
            };
            self.connection.run_all(vec![command], 1, Some(&selected.raw), on).await?;
        }
        Ok(Cursor {
            uid_validity: selected.uid_validity,
            uid_next: uid_next.ok_or_else(|| Error::nonsense(Some(&selected.raw), "the server gives no UIDNEXT"))?,
            highest_mod_seq: selected.highest_mod_seq,
            messages: selected.exists,
            unseen: None,
        })
    }

    /// Lists all, or what changed since a mod-sequence; again if the count is wrong, or right only by chance.
    async fn list_twice(&mut self, mailbox: &RawName, cursor: &Cursor, since: Option<u64>) -> Result<Told, Error> {
        let mut told = Told::default();
        for attempt in 1..=2 {
            told = Told::default();
            let commands = match (self.connection.exists, since) {
                // Some servers find `1:*` of an empty mailbox wrong.
                (0, _) => Vec::new(),
                (_, Some(mod_seq)) => self.changes(mod_seq),
                (count, None) => self.everything(cursor.uid_next, count),
            };
            self.connection.run_all(commands, WINDOW, Some(mailbox), |answer| told.take(answer, mailbox)).await?;
            let counted = if since.is_some() { told.remaining().len() } else { told.messages.len() as u64 };
            let exists = self.connection.exists;
            if counted == u64::from(exists) && !told.expunged {
                break;
            }
            debug!(mailbox = %mailbox, counted, exists, attempt, "listed a mailbox while it changed");
        }
        Ok(told)
    }

    fn changes(&self, mod_seq: u64) -> Vec<Command> {
        let fetch = self.connection.command("UID FETCH").words("1:*").words(self.flag_items());
        let returned = if self.connection.capabilities.has("ESEARCH") { "RETURN (ALL) ALL" } else { "ALL" };
        vec![
            fetch.words(format_args!("(CHANGEDSINCE {mod_seq})")),
            self.connection.command("UID SEARCH").words(returned),
        ]
    }

    /// Returns the commands that list a mailbox of `count` messages, each about [`Quirks::flag_batch`] of them if the
    /// UIDs are spread evenly. The last is open-ended; that it may name the last message again does no harm.
    ///
    /// [`Quirks::flag_batch`]: super::Quirks::flag_batch
    fn everything(&self, uid_next: Uid, count: u32) -> Vec<Command> {
        let parts = count.div_ceil(self.connection.quirks.flag_batch.max(1)).max(1);
        let width = uid_next.get().div_ceil(parts).max(1);
        let fetch = |part: u32| {
            let begin = u64::from(part) * u64::from(width) + 1;
            let end = if part + 1 == parts { "*".to_owned() } else { (begin + u64::from(width) - 1).to_string() };
            self.connection.command("UID FETCH").words(format_args!("{begin}:{end}")).words(self.flag_items())
        };
        // Rounding up may leave nothing for the last ones; `begin` must stay a UID.
        let parts_needed = uid_next.get().div_ceil(width).clamp(1, parts);
        (0..parts_needed).map(|part| if part + 1 == parts_needed { fetch(parts - 1) } else { fetch(part) }).collect()
    }
}

/// Tells whether a mailbox is still the one that a cursor was made of.
fn follows(now: &Cursor, since: &Cursor) -> bool {
    now.uid_validity == since.uid_validity
        && now.uid_next >= since.uid_next
        && match (now.highest_mod_seq, since.highest_mod_seq) {
            (Some(now), Some(since)) => now >= since,
            // Without a counter, nothing says what changed.
            _ => false,
        }
}
