//! What a client has been told about its selected mailbox, and what it must still be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::contents::{Difference, difference};
use crate::{Mailbox, Message};

/// The selected mailbox as its client knows it.
pub(crate) struct View {
    pub(crate) incarnation: u64,
    pub(crate) read_only: bool,
    /// The UIDs that have a sequence number, in order.
    known: Vec<u32>,
    /// The client knows the flags of all of them as they were at this mod-sequence, …
    mod_seq: u64,
    /// … and of these as they were later.
    told: BTreeMap<u32, u64>,
    /// What the mailbox was when it was last compared with `known`: changes that are none are cheap to see.
    compared: (u64, u32, usize),
}

/// Returns what tells that a mailbox may have changed.
fn mark(mailbox: &Mailbox) -> (u64, u32, usize) {
    (mailbox.highest_mod_seq, mailbox.uid_next, mailbox.messages.len())
}

impl View {
    pub(crate) fn new(mailbox: &Mailbox, read_only: bool) -> Self {
        Self {
            incarnation: mailbox.incarnation,
            read_only,
            known: mailbox.messages.uids().to_vec(),
            mod_seq: mailbox.highest_mod_seq,
            told: BTreeMap::new(),
            compared: mark(mailbox),
        }
    }

    /// Returns the sequence number of a message, or `None` if the client has not been told that it exists.
    pub(crate) fn sequence(&self, uid: u32) -> Option<usize> {
        self.known.binary_search(&uid).ok().map(|i| i + 1)
    }

    /// Tells whether the client knows the flags of a message as they are.
    pub(crate) fn knows(&self, message: &Message) -> bool {
        self.known.binary_search(&message.uid).is_ok() && self.is_told(message)
    }

    fn is_told(&self, message: &Message) -> bool {
        message.mod_seq <= self.mod_seq || self.told.get(&message.uid) == Some(&message.mod_seq)
    }

    /// Notes that the client knows the flags of a message as they are.
    pub(crate) fn told(&mut self, message: &Message) {
        if message.mod_seq > self.mod_seq {
            self.told.insert(message.uid, message.mod_seq);
        }
    }

    /// Returns the untagged lines that bring the client up to date: what is gone, what is new, what has other flags.
    pub(crate) fn news(&mut self, mailbox: &Mailbox, condstore: bool, qresync: bool) -> Vec<u8> {
        let mut out = String::new();
        if self.compared == mark(mailbox) {
            return Vec::new();
        }
        self.compared = mark(mailbox);
        let Difference { gone, new } = difference(&self.known, mailbox.messages.uids());
        if qresync && !gone.is_empty() {
            let _ = write!(out, "* VANISHED {}\r\n", ranges(gone.iter().map(|(_, uid)| *uid)));
        } else {
            for (before, (index, _)) in gone.iter().enumerate() {
                // Those that went before it have moved it up.
                let _ = write!(out, "* {} EXPUNGE\r\n", index + 1 - before);
            }
        }
        if !gone.is_empty() || !new.is_empty() {
            self.known = mailbox.messages.uids().to_vec();
        }
        if !new.is_empty() {
            let _ = write!(out, "* {} EXISTS\r\n", self.known.len());
        }
        for message in mailbox.messages.changed_since(self.mod_seq) {
            if let Some(sequence) = self.sequence(message.uid)
                && !self.is_told(message)
                && new.binary_search(&message.uid).is_err()
            {
                let flags = flags_of(message, &message.flags, qresync, condstore);
                let _ = write!(out, "* {sequence} FETCH ({flags})\r\n");
            }
        }
        self.mod_seq = self.mod_seq.max(mailbox.highest_mod_seq);
        self.told.clear();
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
