//! What a client has been told about its selected mailbox, and what it must still be told.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::{Mailbox, Message};

/// The selected mailbox as its client knows it.
pub(crate) struct View {
    pub(crate) incarnation: u64,
    pub(crate) read_only: bool,
    /// The UIDs that have a sequence number, in order, with the mod-sequence up to which the client knows the flags.
    known: Vec<(u32, u64)>,
    /// What the mailbox was when it was last compared with `known`: changes that are none are cheap to see.
    compared: (u64, u32, usize),
}

/// Returns what tells that a mailbox may have changed.
fn mark(mailbox: &Mailbox) -> (u64, u32, usize) {
    (mailbox.highest_mod_seq, mailbox.uid_next, mailbox.messages.len())
}

impl View {
    pub(crate) fn new(mailbox: &Mailbox, read_only: bool) -> Self {
        let known = mailbox.messages.values().map(|m| (m.uid, m.mod_seq)).collect();
        Self { incarnation: mailbox.incarnation, read_only, known, compared: mark(mailbox) }
    }

    /// Returns the sequence number of a message, or `None` if the client has not been told that it exists.
    pub(crate) fn sequence(&self, uid: u32) -> Option<usize> {
        self.known.binary_search_by_key(&uid, |k| k.0).ok().map(|i| i + 1)
    }

    /// Tells whether the client knows the flags of a message as they are.
    pub(crate) fn knows(&self, message: &Message) -> bool {
        self.known.binary_search(&(message.uid, message.mod_seq)).is_ok()
    }

    /// Notes that the client knows the flags of a message as they are.
    pub(crate) fn told(&mut self, message: &Message) {
        if let Ok(i) = self.known.binary_search_by_key(&message.uid, |k| k.0) {
            self.known[i].1 = message.mod_seq;
        }
    }

    /// Returns the untagged lines that bring the client up to date: what is gone, what is new, what has other flags.
    pub(crate) fn news(&mut self, mailbox: &Mailbox, condstore: bool, qresync: bool) -> Vec<u8> {
        let mut out = String::new();
        if self.compared == mark(mailbox) {
            return Vec::new();
        }
        self.compared = mark(mailbox);
        let (mut gone, mut sequence) = (Vec::new(), 0);
        self.known.retain(|(uid, _)| {
            sequence += 1;
            let stays = mailbox.messages.contains_key(uid);
            if !stays && qresync {
                gone.push(*uid);
            } else if !stays {
                let _ = write!(out, "* {sequence} EXPUNGE\r\n");
                sequence -= 1;
            }
            stays
        });
        if !gone.is_empty() {
            let _ = write!(out, "* VANISHED {}\r\n", ranges(gone));
        }
        let new: Vec<&Message> = mailbox.messages.values().filter(|m| self.sequence(m.uid).is_none()).collect();
        if !new.is_empty() {
            self.known.extend(new.iter().map(|m| (m.uid, m.mod_seq)));
            self.known.sort_unstable();
            let _ = write!(out, "* {} EXISTS\r\n", self.known.len());
        }
        for (i, known) in self.known.iter_mut().enumerate() {
            if let Some(message) = mailbox.messages.get(&known.0).filter(|m| m.mod_seq != known.1) {
                known.1 = message.mod_seq;
                let _ =
                    write!(out, "* {} FETCH ({})\r\n", i + 1, flags_of(message, &message.flags, qresync, condstore));
            }
        }
        out.into_bytes()
    }
}

/// Returns the items that tell a message's flags as `flags`, with UID and MODSEQ where wanted.
pub(crate) fn flags_of(message: &Message, flags: &BTreeSet<String>, uid: bool, mod_seq: bool) -> String {
    let mut out = String::new();
    if uid {
        let _ = write!(out, "UID {} ", message.uid);
    }
    let _ = write!(out, "FLAGS ({})", flags.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
    if mod_seq {
        let _ = write!(out, " MODSEQ ({})", message.mod_seq);
    }
    out
}

/// Returns ascending UIDs as a `sequence-set`.
pub(crate) fn ranges(uids: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for uid in uids {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == uid => *end = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    let words = ranges.iter().map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}:{b}") });
    words.collect::<Vec<_>>().join(",")
}
