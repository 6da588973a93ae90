//! What the server keeps. Tests read and change it directly, as another client of the same account would.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::Profile;
use crate::contents::Messages;
use crate::exchange::{self, Language};
use crate::faults::Hook;
use crate::lex::UidSet;
use crate::quirks::Quirks;

/// UIDVALIDITY of the mailboxes that an Exchange account has from the beginning: small, and the same in all of them.
const EXCHANGE_VALIDITY: u32 = 14;

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
    pub messages: Messages,
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
    /// Listed as `\Marked`.
    pub marked: bool,
    /// The flags that FETCH still gives for messages whose flags have been stored lately, and until when.
    pub(crate) stale: BTreeMap<u32, (BTreeSet<String>, Duration)>,
    /// Tells a mailbox from another of the same name: a session that has it selected is thrown out when it changes.
    pub(crate) incarnation: u64,
}

/// Everything that the server keeps. All users see the same mailboxes; a second account is a second server.
#[derive(Clone, Debug)]
pub struct State {
    /// Passwords by user name.
    pub users: BTreeMap<String, String>,
    /// Access tokens that XOAUTH2 accepts for any user, for ever.
    pub tokens: BTreeSet<String>,
    /// Access tokens that XOAUTH2 accepts for one user and a time, as [`crate::OAuth`] gives them out.
    pub grants: BTreeMap<String, Grant>,
    /// Mailboxes by name as it is sent (modified UTF-7, separator, prefix).
    pub mailboxes: BTreeMap<String, Mailbox>,
    /// The hierarchy separator.
    pub separator: char,
    /// The prefix of the personal namespace, as `INBOX.`; new mailboxes must have it.
    pub prefix: String,
    /// The time zone in which INTERNALDATE is shown, in minutes east.
    pub zone: i32,
    /// What the server does that no capability tells.
    pub quirks: Quirks,
    /// PERMANENTFLAGS of a mailbox that is created.
    permanent_flags: Vec<String>,
    now: Duration,
    later: Vec<Later>,
    next_validity: u32,
    next_incarnation: u64,
}

/// Whom an access token stands for, and how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The name to sign in with; its case does not matter.
    pub user: String,
    /// When the token runs out, by [`State::now`].
    pub until: Duration,
}

/// A change of the state that waits for its time.
#[derive(Clone)]
struct Later {
    at: Duration,
    hook: Hook,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}", self.at)
    }
}

impl Default for State {
    /// Returns a server with an empty INBOX and the user `user` with the password `secret`.
    fn default() -> Self {
        let mut state = Self {
            users: [("user".to_owned(), "secret".to_owned())].into(),
            tokens: BTreeSet::new(),
            grants: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            separator: '/',
            prefix: String::new(),
            zone: 0,
            quirks: Quirks::default(),
            permanent_flags: ["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft", "\\*"]
                .map(Into::into)
                .into(),
            now: Duration::ZERO,
            later: Vec::new(),
            next_validity: 1_700_000_000,
            next_incarnation: 1,
        };
        state.create("INBOX");
        state
    }
}

impl State {
    /// Returns the state of a new account on a server of this profile. `language` matters to Exchange only.
    pub(crate) fn new(profile: Profile, language: Language) -> Self {
        let mut state = Self { quirks: profile.quirks(), ..Self::default() };
        state.quirks.broken_rev2 = profile == Profile::Exo2026Rev2;
        if !profile.is_exchange() {
            return state;
        }
        let flags = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$MDNSent"];
        state.permanent_flags = flags.map(Into::into).into();
        state.mailboxes.clear();
        for (name, marked, special_use) in [("INBOX", true, None)].into_iter().chain(exchange::mailboxes(language)) {
            state.next_validity = EXCHANGE_VALIDITY;
            state.create(name);
            let mailbox = state.mailbox_mut(name);
            (mailbox.marked, mailbox.special_use) = (marked, special_use.map(Into::into));
        }
        state
    }

    /// Returns the time by the server's own clock, from 0. It goes on only by [`State::advance`].
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Lets time pass: what was to happen meanwhile ([`State::later`]) happens, tokens run out, throttling ends.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) =
            (0..self.later.len()).filter(|&i| self.later[i].at <= end).min_by_key(|&i| self.later[i].at)
        {
            let Later { at, hook } = self.later.remove(next);
            self.now = self.now.max(at);
            hook(self);
        }
        self.now = end;
    }

    /// Runs `hook` when this time has passed by the server's clock, as for the copy of a sent message that comes 15
    /// minutes later.
    pub fn later(&mut self, time: Duration, hook: impl Fn(&mut Self) + Send + Sync + 'static) {
        self.later.push(Later { at: self.now + time, hook: std::sync::Arc::new(hook) });
    }

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
            messages: Messages::default(),
            vanished: BTreeMap::new(),
            vanished_from: 0,
            permanent_flags: self.permanent_flags.clone(),
            special_use: None,
            no_select: false,
            marked: false,
            stale: BTreeMap::new(),
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

    /// Gives a message a new UID, as Exchange does when it was changed by another protocol, and returns it.
    #[track_caller]
    pub fn renumber(&mut self, mailbox: &str, uid: u32) -> u32 {
        self.move_message(mailbox, uid, mailbox)
    }

    /// Gives a mailbox another UIDVALIDITY and all its messages new UIDs. Only the first `shown` messages are there at
    /// once, the others come when `rest` has passed. Sessions that have it selected end.
    #[track_caller]
    pub fn renew(&mut self, name: &str, shown: usize, rest: Duration) {
        self.next_validity += 1;
        let value = self.next_validity.max(self.mailbox(name).uid_validity + 1);
        self.set_uid_validity(name, value);
        let mailbox = self.mailbox_mut(name);
        let mut messages: Vec<Message> = std::mem::take(&mut mailbox.messages).values().cloned().collect();
        (mailbox.uid_next, mailbox.vanished) = (1, BTreeMap::new());
        let missing = messages.split_off(shown.min(messages.len()));
        for m in messages {
            mailbox.add(m.bytes, m.flags, m.internal_date);
        }
        let own = name.to_owned();
        self.later(rest, move |state| {
            for m in missing.clone() {
                state.mailbox_mut(&own).add(m.bytes, m.flags, m.internal_date);
            }
        });
    }

    /// Returns the key of a mailbox name that a client sent, as there is or as there would be one: INBOX has no case
    /// (RFC 3501 §5.1), and on some servers no name has.
    pub(crate) fn canonical(&self, name: &str) -> String {
        if name.eq_ignore_ascii_case("INBOX") {
            return "INBOX".to_owned();
        }
        if !self.quirks.case_insensitive || self.mailboxes.contains_key(name) {
            return name.to_owned();
        }
        if let Some(own) = self.mailboxes.keys().find(|n| n.eq_ignore_ascii_case(name)) {
            return own.clone();
        }
        // What is created below INBOX is found there again.
        match name.split_once(self.separator) {
            Some((first, rest)) if first.eq_ignore_ascii_case("INBOX") => format!("INBOX{}{rest}", self.separator),
            _ => name.to_owned(),
        }
    }

    /// Returns a mailbox name as it is sent: an atom, a string in quotes, or a literal.
    pub(crate) fn sent(&self, key: &str) -> String {
        let inbox = key.strip_prefix("INBOX").filter(|rest| rest.is_empty() || rest.starts_with(self.separator));
        let name = inbox.map_or_else(|| key.to_owned(), |rest| format!("{}{rest}", self.quirks.inbox));
        // Exchange sends even a TAB so.
        if self.quirks.bare_names && !name.is_empty() && !name.contains([' ', '"', '\\', '(', ')', '{', '%', '*']) {
            return name;
        }
        let plain = name.bytes().all(|b| b.is_ascii() && !b.is_ascii_control());
        if plain { quoted(&name) } else { format!("{{{}}}\r\n{name}", name.len()) }
    }

    /// Returns the user of an access token if it is accepted now, with when it runs out if it does; `user` is what the
    /// client says.
    pub(crate) fn token_is_good(&self, user: &str, token: &str) -> Option<Option<Duration>> {
        if self.tokens.contains(token) {
            return Some(None);
        }
        let grant = self.grants.get(token).filter(|g| g.user.eq_ignore_ascii_case(user) && g.until > self.now)?;
        Some(Some(grant.until))
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
        self.messages.insert(Message { uid, bytes, flags, internal_date, mod_seq });
        uid
    }

    /// Gives a message these flags; counts a change only if it is one. Returns false if there is no such message.
    pub(crate) fn set(&mut self, uid: u32, flags: BTreeSet<String>) -> bool {
        let Some(message) = self.messages.get(&uid) else { return false };
        if message.flags != flags {
            self.highest_mod_seq += 1;
            self.messages.set(uid, flags, self.highest_mod_seq);
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
        let any = self.permanent_flags.iter().any(|f| f == "\\*");
        let own = |flag: &String| match self.permanent_flags.iter().find(|k| k.eq_ignore_ascii_case(flag)) {
            Some(k) => Some(k.clone()),
            None if flag.starts_with('\\') => None,
            None => match self.messages.keywords().find(|k| k.eq_ignore_ascii_case(flag)) {
                Some(k) => Some(k.clone()),
                None => any.then(|| flag.clone()),
            },
        };
        flags.iter().filter_map(own).collect()
    }

    /// Returns the UIDs of the messages in a set, in order.
    pub(crate) fn among(&self, set: &UidSet) -> Vec<u32> {
        let max = self.messages.keys().next_back().copied().unwrap_or(0);
        let ranges = set.merged(max);
        ranges.into_iter().flat_map(|(a, b)| self.messages.range(a..=b).map(|(&uid, _)| uid)).collect()
    }

    /// Returns what is known or, where the log does not reach back, said to be gone since `mod_seq`.
    pub(crate) fn vanished_since(&self, mod_seq: u64) -> Vec<u32> {
        if mod_seq < self.vanished_from {
            return (1..self.uid_next).filter(|uid| !self.messages.contains_key(uid)).collect();
        }
        self.vanished.iter().filter(|&(_, &at)| at > mod_seq).map(|(&uid, _)| uid).collect()
    }
}

pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
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
