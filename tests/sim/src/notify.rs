//! NOTIFY (RFC 5465): what a client wants to be told at any time, in IDLE or not, and what it has been told.

use std::collections::BTreeMap;

use crate::lex::{Parsed, Parser};
use crate::mailboxes::status_line;
use crate::parse::{Item, StatusItem};
use crate::state::quoted;
use crate::{Mailbox, State};

/// Which mailboxes besides the selected one (RFC 5465 §6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// `PERSONAL`, `SUBSCRIBED` and `INBOXES`: all are, in a simulation.
    All,
    /// `MAILBOXES` and `SUBTREE`, the latter if true.
    Named(Vec<String>, bool),
}

/// What happens (RFC 5465 §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Events {
    /// `MessageNew` and `MessageExpunge`, which come together only.
    pub(crate) messages: bool,
    /// `FlagChange`.
    pub(crate) flags: bool,
    /// `MailboxName`.
    pub(crate) names: bool,
}

/// What a client has asked for by NOTIFY SET.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wish {
    /// STATUS of every mailbox at once.
    pub(crate) status: bool,
    /// The selected mailbox; `None` if it was not mentioned.
    pub(crate) selected: Option<Events>,
    /// Others, the first that fits counts.
    pub(crate) others: Vec<(Which, Events)>,
}

impl Wish {
    /// Returns what is to be told of a mailbox that is not selected.
    fn of(&self, name: &str, separator: char) -> Events {
        let fits = |which: &Which| match which {
            Which::All => true,
            Which::Named(names, below) => names.iter().any(|n| {
                n == name || *below && name.strip_prefix(n.as_str()).is_some_and(|rest| rest.starts_with(separator))
            }),
        };
        self.others.iter().find(|(which, _)| fits(which)).map(|(_, events)| *events).unwrap_or_default()
    }
}

impl Parser<'_> {
    /// Reads what follows `NOTIFY`.
    pub(crate) fn notify(&mut self) -> Parsed<Option<Wish>> {
        self.sp()?;
        if self.eat_word("NONE") {
            return Ok(None);
        }
        self.expect_word("SET")?;
        let mut wish = Wish::default();
        while self.eat(b' ') {
            if self.eat_word("STATUS") {
                if wish.status || wish.selected.is_some() || !wish.others.is_empty() {
                    return self.fail("STATUS at the beginning");
                }
                wish.status = true;
                continue;
            }
            self.group(&mut wish)?;
        }
        if wish.selected.is_none() && wish.others.is_empty() {
            self.fail("mailboxes and events")
        } else {
            Ok(Some(wish))
        }
    }

    /// Reads `(mailboxes (events))`.
    fn group(&mut self, wish: &mut Wish) -> Parsed<()> {
        self.byte(b'(')?;
        let which = match self.word()?.as_str() {
            "SELECTED" | "SELECTED-DELAYED" => None,
            "PERSONAL" | "SUBSCRIBED" | "INBOXES" => Some(Which::All),
            word @ ("SUBTREE" | "MAILBOXES") => {
                let below = word == "SUBTREE";
                self.sp()?;
                let names = match self.peek() {
                    Some(b'(') => self.list_of(Self::mailbox)?,
                    _ => vec![self.mailbox()?],
                };
                Some(Which::Named(names, below))
            }
            other => return Err(format!("{other} is not a set of mailboxes")),
        };
        self.sp()?;
        let events = if self.eat_word("NONE") { Events::default() } else { self.events(which.is_none())? };
        self.byte(b')')?;
        match which {
            None if wish.selected.is_some() => return Err("the selected mailbox twice".to_owned()),
            None => wish.selected = Some(events),
            Some(which) => wish.others.push((which, events)),
        }
        Ok(())
    }

    fn events(&mut self, selected: bool) -> Parsed<Events> {
        let (mut events, mut new, mut expunge) = (Events::default(), false, false);
        self.byte(b'(')?;
        loop {
            match self.word()?.as_str() {
                "MESSAGENEW" => {
                    new = true;
                    // What to fetch of new messages, of the selected mailbox only.
                    if selected && self.follows(b" (") {
                        self.sp()?;
                        let _: Vec<Item> = self.list_of(Self::item)?;
                    }
                }
                "MESSAGEEXPUNGE" => expunge = true,
                "FLAGCHANGE" => events.flags = true,
                "MAILBOXNAME" if !selected => events.names = true,
                // Nothing of this kind happens here.
                "ANNOTATIONCHANGE" | "SUBSCRIPTIONCHANGE" | "MAILBOXMETADATACHANGE" | "SERVERMETADATACHANGE" => {}
                other => return Err(format!("{other} is not an event here")),
            }
            if self.eat(b')') {
                break;
            }
            self.sp()?;
        }
        // RFC 5465 §5: one of them without the other is an error, and so are flags without both.
        if new != expunge || events.flags && !new {
            return Err("MessageNew and MessageExpunge must come together, and with FlagChange".to_owned());
        }
        events.messages = new;
        Ok(events)
    }
}

/// What a client knows of a mailbox that it has not selected.
#[derive(Clone, PartialEq, Eq)]
struct Known {
    name: String,
    uid_validity: u32,
    uid_next: u32,
    messages: usize,
    mod_seq: u64,
}

fn known(name: &str, mailbox: &Mailbox) -> Known {
    Known {
        name: name.to_owned(),
        uid_validity: mailbox.uid_validity,
        uid_next: mailbox.uid_next,
        messages: mailbox.messages.len(),
        mod_seq: mailbox.highest_mod_seq,
    }
}

/// A client that is told changes at any time.
pub(crate) struct Notified {
    pub(crate) wish: Wish,
    /// By incarnation.
    known: BTreeMap<u64, Known>,
}

impl Notified {
    pub(crate) fn new(wish: Wish, state: &State) -> Self {
        let known = state.mailboxes.iter().map(|(name, m)| (m.incarnation, known(name, m))).collect();
        Self { wish, known }
    }

    /// Returns STATUS lines of every mailbox that is watched but the selected one.
    pub(crate) fn all(&self, state: &State, selected: Option<u64>) -> Vec<String> {
        let wanted = state.mailboxes.iter().filter(|(name, m)| {
            Some(m.incarnation) != selected && !m.no_select && self.wish.of(name, state.separator).messages
        });
        wanted.map(|(name, m)| told(state, name, m, true)).collect()
    }

    /// Returns the LIST and STATUS lines about what has changed since, without CRLF.
    pub(crate) fn news(&mut self, state: &State, selected: Option<u64>) -> Vec<String> {
        let mut lines = Vec::new();
        let separator = quoted(&state.separator.to_string());
        let there: BTreeMap<u64, (&String, &Mailbox)> =
            state.mailboxes.iter().map(|(name, m)| (m.incarnation, (name, m))).collect();
        let gone: Vec<u64> = self.known.keys().filter(|i| !there.contains_key(i)).copied().collect();
        for incarnation in gone {
            let Some(old) = self.known.remove(&incarnation) else { continue };
            let renewed = state.mailboxes.contains_key(&old.name);
            if !renewed && self.wish.of(&old.name, state.separator).names {
                lines.push(format!("LIST (\\NonExistent) {separator} {}", state.sent(&old.name)));
            }
        }
        for (incarnation, (name, mailbox)) in there {
            let now = known(name, mailbox);
            let old = self.known.insert(incarnation, now.clone());
            let events = self.wish.of(name, state.separator);
            let renamed = old.as_ref().filter(|o| o.name != *name);
            if events.names && (old.is_none() || renamed.is_some()) {
                let from = renamed.map_or(String::new(), |o| format!(" (\"OLDNAME\" ({}))", state.sent(&o.name)));
                lines.push(format!("LIST () {separator} {}{from}", state.sent(name)));
            }
            if Some(incarnation) == selected || mailbox.no_select {
                continue;
            }
            let counts = |k: &Known| (k.uid_validity, k.uid_next, k.messages);
            let arrived = old.as_ref().is_none_or(|o| counts(o) != counts(&now));
            let touched = old.as_ref().is_some_and(|o| o.mod_seq != now.mod_seq);
            if events.messages && arrived || events.flags && touched {
                lines.push(told(state, name, mailbox, events.flags));
            }
        }
        lines
    }
}

/// Returns the STATUS line that RFC 5465 §5.1 to §5.3 ask for.
fn told(state: &State, name: &str, mailbox: &Mailbox, flags: bool) -> String {
    let mut items = vec![StatusItem::Messages, StatusItem::UidNext, StatusItem::UidValidity];
    if flags {
        items.extend([StatusItem::Unseen, StatusItem::HighestModSeq]);
    }
    status_line(state, name, mailbox, &items)
}
