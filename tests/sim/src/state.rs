//! What the server keeps. Tests read and change it directly, as another client of the same account would.

use std::collections::{BTreeMap, BTreeSet};

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its number. The key in [`Mailbox::messages`].
    pub uid: u32,
    /// What FETCH BODY[] gives.
    pub bytes: Vec<u8>,
    /// IMAP names of its flags and keywords.
    pub flags: BTreeSet<String>,
    /// INTERNALDATE in seconds since 1970.
    pub internal_date: i64,
    /// Its change counter. Counted under every profile, shown under those with CONDSTORE.
    pub mod_seq: u64,
}

/// A mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mailbox {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT.
    pub uid_next: u32,
    /// HIGHESTMODSEQ.
    pub highest_mod_seq: u64,
    /// The messages by UID.
    pub messages: BTreeMap<u32, Message>,
    /// The UIDs of expunged messages and the change counter at that time.
    pub vanished: BTreeMap<u32, u64>,
    /// Expunges up to this change counter have been forgotten; who asks from before is told that everything missing
    /// is gone (RFC 7162 §3.2.5.2).
    pub vanished_from: u64,
    /// What PERMANENTFLAGS names.
    pub permanent_flags: Vec<String>,
    /// The attribute of RFC 6154, as `\Sent`.
    pub special_use: Option<String>,
    /// Listed as `\Noselect`.
    pub no_select: bool,
    /// Tells a mailbox from another of the same name: a session that has it selected is thrown out when it changes.
    pub(crate) incarnation: u64,
}

/// Everything that the server keeps. All users see the same mailboxes; a second account is a second server.
#[derive(Clone, Debug)]
pub struct State {
    /// Passwords by user name.
    pub users: BTreeMap<String, String>,
    /// Access tokens that XOAUTH2 accepts for any user.
    pub tokens: BTreeSet<String>,
    /// Mailboxes by name as it is sent (modified UTF-7, separator, prefix).
    pub mailboxes: BTreeMap<String, Mailbox>,
    /// The hierarchy separator.
    pub separator: char,
    /// The prefix of the personal namespace, as `INBOX.`; new mailboxes must have it.
    pub prefix: String,
    /// The time zone in which INTERNALDATE is shown, in minutes east.
    pub zone: i32,
    next_validity: u32,
    next_incarnation: u64,
}

impl Default for State {
    /// Returns a server with an empty INBOX and the user `user` with the password `secret`.
    fn default() -> Self {
        let mut state = Self {
            users: [("user".to_owned(), "secret".to_owned())].into(),
            tokens: BTreeSet::new(),
            mailboxes: BTreeMap::new(),
            separator: '/',
            prefix: String::new(),
            zone: 0,
            next_validity: 1_700_000_000,
            next_incarnation: 1,
        };
        state.create("INBOX");
        state
    }
}

impl State {
    /// Returns the mailbox; panics if there is none of that name, which is a mistake of the test.
    #[must_use]
    #[track_caller]
    pub fn mailbox(&self, name: &str) -> &Mailbox {
        match self.mailboxes.get(name) {
            Some(mailbox) => mailbox,
            None => no_such("mailbox", name),
        }
    }

    /// Returns the mailbox to change; panics as [`State::mailbox`] does.
    #[track_caller]
    pub fn mailbox_mut(&mut self, name: &str) -> &mut Mailbox {
        match self.mailboxes.get_mut(name) {
            Some(mailbox) => mailbox,
            None => no_such("mailbox", name),
        }
    }

    /// Returns the messages of a mailbox in the order of their UIDs.
    #[must_use]
    #[track_caller]
    pub fn messages(&self, mailbox: &str) -> Vec<Message> {
        self.mailbox(mailbox).messages.values().cloned().collect()
    }

    /// Creates an empty mailbox with a UIDVALIDITY never used before.
    pub fn create(&mut self, name: &str) {
        let mailbox = Mailbox {
            uid_validity: self.next_validity,
            uid_next: 1,
            highest_mod_seq: 1,
            messages: BTreeMap::new(),
            vanished: BTreeMap::new(),
            vanished_from: 0,
            permanent_flags: ["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft", "\\*"]
                .map(Into::into)
                .into(),
            special_use: None,
            no_select: false,
            incarnation: self.incarnation(),
        };
        self.next_validity += 1;
        self.mailboxes.insert(name.to_owned(), mailbox);
    }

    /// Deletes a mailbox with its messages.
    #[track_caller]
    pub fn delete(&mut self, name: &str) {
        if self.mailboxes.remove(name).is_none() {
            no_such("mailbox", name)
        }
    }

    /// Renames a mailbox and all below it.
    #[track_caller]
    pub fn rename(&mut self, from: &str, to: &str) {
        let _ = self.mailbox(from);
        let below = format!("{from}{}", self.separator);
        let names: Vec<String> =
            self.mailboxes.keys().filter(|n| *n == from || n.starts_with(&below)).cloned().collect();
        for name in names {
            if let Some(mailbox) = self.mailboxes.remove(&name) {
                self.mailboxes.insert(format!("{to}{}", &name[from.len()..]), mailbox);
            }
        }
    }

    /// Adds a message; `date` is in seconds since 1970. Returns its UID.
    #[track_caller]
    pub fn append(&mut self, mailbox: &str, bytes: &[u8], flags: &[&str], date: i64) -> u32 {
        let flags = flags.iter().map(|&f| f.to_owned()).collect();
        self.mailbox_mut(mailbox).add(bytes.to_vec(), flags, date)
    }

    /// Gives a message exactly these flags.
    #[track_caller]
    pub fn set_flags(&mut self, mailbox: &str, uid: u32, flags: &[&str]) {
        let flags = flags.iter().map(|&f| f.to_owned()).collect();
        if !self.mailbox_mut(mailbox).set(uid, flags) {
            no_such("message", &format!("{uid} in {mailbox}"))
        }
    }

    /// Removes a message.
    #[track_caller]
    pub fn expunge(&mut self, mailbox: &str, uid: u32) {
        if self.mailbox_mut(mailbox).remove(uid).is_none() {
            no_such("message", &format!("{uid} in {mailbox}"))
        }
    }

    /// Moves a message, keeping its flags and date. Returns its UID in the other mailbox.
    #[track_caller]
    pub fn move_message(&mut self, from: &str, uid: u32, to: &str) -> u32 {
        match self.mailbox_mut(from).remove(uid) {
            Some(m) => self.mailbox_mut(to).add(m.bytes, m.flags, m.internal_date),
            None => no_such("message", &format!("{uid} in {from}")),
        }
    }

    /// Changes UIDVALIDITY, as a server does that has renumbered a mailbox. Sessions that have it selected end.
    #[track_caller]
    pub fn set_uid_validity(&mut self, mailbox: &str, value: u32) {
        let incarnation = self.incarnation();
        let mailbox = self.mailbox_mut(mailbox);
        (mailbox.uid_validity, mailbox.incarnation) = (value, incarnation);
    }

    /// Puts a mailbox back to what it was when `backup` was cloned from it: UIDNEXT and mod-sequences go back too.
    /// Sessions that have it selected end.
    pub fn restore_backup(&mut self, name: &str, backup: &Mailbox) {
        let incarnation = self.incarnation();
        self.mailboxes.insert(name.to_owned(), Mailbox { incarnation, ..backup.clone() });
    }

    /// Sets what PERMANENTFLAGS names. Without `\*`, other keywords are dropped silently.
    #[track_caller]
    pub fn set_permanent_flags(&mut self, mailbox: &str, flags: &[&str]) {
        self.mailbox_mut(mailbox).permanent_flags = flags.iter().map(|&f| f.to_owned()).collect();
    }

    /// Returns the mailbox's own spelling of a name that a client sent: INBOX has no case (RFC 3501 §5.1).
    pub(crate) fn canonical(name: &str) -> String {
        if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name.to_owned() }
    }

    fn incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation
    }
}

impl Mailbox {
    /// Adds a message and returns its UID.
    pub(crate) fn add(&mut self, bytes: Vec<u8>, flags: BTreeSet<String>, internal_date: i64) -> u32 {
        self.highest_mod_seq += 1;
        let (uid, mod_seq) = (self.uid_next, self.highest_mod_seq);
        self.uid_next = uid.saturating_add(1);
        self.messages.insert(uid, Message { uid, bytes, flags, internal_date, mod_seq });
        uid
    }

    /// Gives a message these flags; counts a change only if it is one. Returns false if there is no such message.
    pub(crate) fn set(&mut self, uid: u32, flags: BTreeSet<String>) -> bool {
        let Some(message) = self.messages.get_mut(&uid) else { return false };
        if message.flags != flags {
            self.highest_mod_seq += 1;
            (message.flags, message.mod_seq) = (flags, self.highest_mod_seq);
        }
        true
    }

    /// Removes a message.
    pub(crate) fn remove(&mut self, uid: u32) -> Option<Message> {
        let message = self.messages.remove(&uid)?;
        self.highest_mod_seq += 1;
        self.vanished.insert(uid, self.highest_mod_seq);
        Some(message)
    }

    /// Returns those of `flags` that the mailbox can keep, spelled as it spells them.
    pub(crate) fn storable(&self, flags: &[String]) -> BTreeSet<String> {
        let known: Vec<&String> = self.permanent_flags.iter().chain(self.keywords()).collect();
        let any = self.permanent_flags.iter().any(|f| f == "\\*");
        let own = |flag: &String| match known.iter().find(|k| k.eq_ignore_ascii_case(flag)) {
            Some(k) => Some((*k).clone()),
            None => (any && !flag.starts_with('\\')).then(|| flag.clone()),
        };
        flags.iter().filter_map(own).collect()
    }

    /// Returns the keywords in use.
    pub(crate) fn keywords(&self) -> BTreeSet<&String> {
        self.messages.values().flat_map(|m| &m.flags).filter(|f| !f.starts_with('\\')).collect()
    }
}

#[track_caller]
#[expect(clippy::panic, reason = "a wrong name is a mistake of the test, and it must show")]
fn no_such(what: &str, name: &str) -> ! {
    panic!("the simulated server has no {what} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_brings_the_counters_back() {
        let mut state = State::default();
        state.append("INBOX", b"a", &[], 0);
        let backup = state.mailbox("INBOX").clone();
        assert_eq!(state.append("INBOX", b"b", &["\\Seen"], 0), 2);
        state.restore_backup("INBOX", &backup);
        assert_eq!((state.messages("INBOX").len(), state.mailbox("INBOX").uid_next), (1, 2));
        assert_eq!(state.mailbox("INBOX").highest_mod_seq, backup.highest_mod_seq);
        assert_eq!(state.append("INBOX", b"c", &[], 0), 2);
    }

    #[test]
    fn a_mailbox_is_renamed_with_all_below_it() {
        let mut state = State::default();
        ["a", "a/b", "ab"].into_iter().for_each(|n| state.create(n));
        state.rename("a", "c");
        assert_eq!(state.mailboxes.keys().collect::<Vec<_>>(), ["INBOX", "ab", "c", "c/b"]);
    }

    #[test]
    fn only_permanent_flags_are_stored() {
        let mut state = State::default();
        state.append("INBOX", b"a", &["Old"], 0);
        let flags = ["\\SEEN".to_owned(), "OLD".to_owned(), "New".to_owned()];
        let names = |s: &State| s.mailbox("INBOX").storable(&flags).into_iter().collect::<Vec<_>>();
        assert_eq!(names(&state), ["New", "Old", "\\Seen"]);
        state.set_permanent_flags("INBOX", &["\\Seen"]);
        assert_eq!(names(&state), ["Old", "\\Seen"]);
    }
}
