//! The commands about messages: FETCH, STORE, COPY, MOVE, APPEND, EXPUNGE, SEARCH.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::exchange;
use crate::execute::{Context, Line, Reply};
use crate::lex::UidSet;
use crate::parse::{How, Item, NewMessage, Request, Section};
use crate::quirks::{Quirks, Unkept};
use crate::search::{self, Key};
use crate::state::quoted;
use crate::view::{flags_of, ranges};
use crate::{Mailbox, Message, Profile, State, date};

/// What STORE asks for.
struct Change {
    unchanged_since: Option<u64>,
    how: How,
    silent: bool,
    flags: BTreeSet<String>,
    /// Until when FETCH still gives the flags from before.
    hidden_until: Option<std::time::Duration>,
}

impl Context {
    /// Carries out the commands that need a selected mailbox.
    pub(crate) fn selected(&mut self, state: &mut State, profile: Profile, tag: &str, request: Request) -> Reply {
        let Some(read_only) = self.selected.as_ref().map(|v| v.read_only) else {
            return Reply::bad("no mailbox is selected");
        };
        let (quirks, now) = (state.quirks.clone(), state.now());
        if let Request::Copy { set, mailbox } = request {
            return self.copy(state, profile, &set, &mailbox, false);
        }
        if let Request::Move { set, mailbox } = request {
            return if read_only { read_only_reply() } else { self.copy(state, profile, &set, &mailbox, true) };
        }
        let Some((_, mailbox)) = self.mailbox(state) else { return Reply::no("the mailbox is gone") };
        mailbox.stale.retain(|_, (_, until)| *until > now);
        match request {
            Request::Check => {
                mailbox.stale.clear();
                Reply::ok("done")
            }
            Request::Unselect => {
                self.selected = None;
                Reply::ok("done")
            }
            Request::Close => {
                if !read_only {
                    expunge(mailbox, |_| true);
                }
                self.selected = None;
                Reply::ok("done")
            }
            Request::Fetch { set, items, changed_since, vanished } => {
                if vanished && !self.qresync {
                    return Reply::bad("QRESYNC is not enabled");
                }
                self.fetch(mailbox, &quirks, &set, items, changed_since, vanished)
            }
            Request::Search { returns, keys } => {
                let key = Key::And(keys);
                self.condstore |= key.names_mod_seq();
                searched(mailbox, tag, returns.as_deref(), &key)
            }
            Request::Store { .. } | Request::Expunge | Request::UidExpunge(_) if read_only => read_only_reply(),
            Request::Store { set, unchanged_since, how, silent, flags } => {
                self.condstore |= unchanged_since.is_some();
                let kept = mailbox.storable(&flags);
                if kept.len() < flags.len() {
                    quirks.note("unkept");
                }
                if quirks.unkept == Unkept::Refused && kept.len() < flags.len() {
                    return Reply::no("[CANNOT] keyword not supported");
                }
                let hidden_until = quirks.store_lag.map(|lag| now + lag);
                if hidden_until.is_some() {
                    quirks.note("store_lag");
                }
                self.store(mailbox, &set, &Change { unchanged_since, how, silent, flags: kept, hidden_until })
            }
            Request::Expunge => {
                expunge(mailbox, |_| true);
                self.expunged(mailbox)
            }
            Request::UidExpunge(set) => {
                let max = largest(mailbox);
                expunge(mailbox, |uid| set.contains(uid, max));
                self.expunged(mailbox)
            }
            other => Reply::bad(&format!("{other:?} is not handled")),
        }
    }

    fn fetch(
        &mut self,
        mailbox: &mut Mailbox,
        quirks: &Quirks,
        set: &UidSet,
        mut items: Vec<Item>,
        changed_since: Option<u64>,
        vanished: bool,
    ) -> Reply {
        self.condstore |= changed_since.is_some() || items.contains(&Item::ModSeq);
        if changed_since.is_some() && !items.contains(&Item::ModSeq) {
            items.push(Item::ModSeq);
        }
        items.retain(|i| *i != Item::Uid);
        items.insert(0, Item::Uid);
        let read = items.iter().any(|i| matches!(i, Item::Body { peek: false, .. }));
        if quirks.loose_fetch {
            items.reverse();
            if items.iter().any(|i| matches!(i, Item::Body { .. })) && !items.contains(&Item::Flags) {
                items.push(Item::Flags);
            }
        }
        let mut reply = Reply::ok("done");
        if let (true, Some(since)) = (vanished, changed_since) {
            let max = largest(mailbox);
            let gone = ranges(mailbox.vanished_since(since).into_iter().filter(|&uid| set.contains(uid, max)));
            if !gone.is_empty() {
                reply = reply.line(format!("VANISHED (EARLIER) {gone}"));
            }
        }
        for uid in mailbox.among(set) {
            if changed_since.is_some_and(|since| mailbox.messages.get(&uid).is_some_and(|m| m.mod_seq <= since)) {
                continue;
            }
            if let (true, Some(m)) = (read, mailbox.messages.get(&uid)) {
                let mut flags = m.flags.clone();
                flags.insert("\\Seen".to_owned());
                mailbox.set(uid, flags);
            }
            if let Some(message) = mailbox.messages.get(&uid) {
                let flags = mailbox.stale.get(&uid).map_or(&message.flags, |(old, _)| old);
                if let (true, Some(view)) = (items.contains(&Item::Flags), &mut self.selected) {
                    view.told(message);
                }
                reply.lines.push(Line::Fetch { uid, items: fetched(message, flags, &items, self.zone, quirks) });
            }
        }
        reply
    }

    fn store(&mut self, mailbox: &mut Mailbox, set: &UidSet, change: &Change) -> Reply {
        let (mut reply, mut modified) = (Reply::ok("done"), Vec::new());
        for uid in mailbox.among(set) {
            let Some(message) = mailbox.messages.get(&uid) else { continue };
            if change.unchanged_since.is_some_and(|since| message.mod_seq > since) {
                modified.push(uid);
                continue;
            }
            let (old, flags) = (&message.flags, &change.flags);
            let new: BTreeSet<String> = match change.how {
                How::Add => old.union(flags).cloned().collect(),
                How::Remove => {
                    old.iter().filter(|o| !flags.iter().any(|f| f.eq_ignore_ascii_case(o))).cloned().collect()
                }
                How::Replace => flags.clone(),
            };
            // What another client has changed meanwhile must still be told, even after .SILENT.
            let tells = !change.silent || self.selected.as_ref().is_some_and(|v| v.knows(message));
            if let Some(until) = change.hidden_until {
                let old = old.clone();
                mailbox.stale.entry(uid).or_insert((old, until)).1 = until;
            }
            mailbox.set(uid, new);
            let Some(message) = mailbox.messages.get(&uid) else { continue };
            if let (true, Some(view)) = (tells, &mut self.selected) {
                view.told(message);
            }
            if !change.silent {
                let items = flags_of(message, &message.flags, true, self.condstore).into();
                reply.lines.push(Line::Fetch { uid, items });
            } else if self.condstore {
                // RFC 7162 §3.1.3: the new mod-sequence is told even after .SILENT.
                reply.lines.push(Line::Fetch { uid, items: format!("UID {uid} MODSEQ ({})", message.mod_seq).into() });
            }
        }
        if !modified.is_empty() {
            reply.status = format!("OK [MODIFIED {}] some have changed", ranges(modified));
        }
        reply
    }

    fn copy(&mut self, state: &mut State, profile: Profile, set: &UidSet, to: &str, moves: bool) -> Reply {
        let to = state.canonical(to);
        if state.mailboxes.get(&to).is_none_or(|m| m.no_select) {
            return Reply::no("[TRYCREATE] no such mailbox");
        }
        let (exchange, bare) = (profile.is_exchange(), state.quirks.bare_copyuid);
        let Some((_, from)) = self.mailbox(state) else { return Reply::no("the mailbox is gone") };
        let uids = from.among(set);
        let copies: Vec<Message> = match moves {
            true => uids.into_iter().filter_map(|uid| from.remove(uid)).collect(),
            false => uids.into_iter().filter_map(|uid| from.messages.get(&uid).cloned()).collect(),
        };
        let Some(target) = state.mailboxes.get_mut(&to) else { return Reply::no("[TRYCREATE] no such mailbox") };
        let sources = ranges(copies.iter().map(|m| m.uid));
        let mut made = Vec::new();
        for m in copies {
            let flags: Vec<String> = m.flags.into_iter().collect();
            let flags = target.storable(&flags);
            made.push(target.add(m.bytes, flags, m.internal_date));
        }
        let code = format!("[COPYUID {} {sources} {}]", target.uid_validity, ranges(made.iter().copied()));
        // Exchange gives a code with two empty sets when it has moved nothing.
        match (profile.has("UIDPLUS") && (!made.is_empty() || exchange && moves), moves) {
            (false, _) => Reply::ok("done"),
            (true, false) => Reply::ok(&format!("{code} done")),
            (true, true) if bare => Reply { lines: vec![Line::Bare(code)], ..Reply::ok("done") },
            (true, true) if exchange => Reply::ok("done").line(format!("OK {code}")),
            // RFC 6851 §4.3: before the messages are told to be gone.
            (true, true) => Reply::ok("done").line(format!("OK {code} moved")),
        }
    }

    fn expunged(&self, mailbox: &Mailbox) -> Reply {
        match self.qresync {
            true => Reply::ok(&format!("[HIGHESTMODSEQ {}] done", mailbox.highest_mod_seq)),
            false => Reply::ok("done"),
        }
    }
}

fn read_only_reply() -> Reply {
    Reply::no("[READ-ONLY] the mailbox was opened to read only")
}

pub(crate) fn append(state: &mut State, profile: Profile, name: &str, messages: Vec<NewMessage>) -> Reply {
    let (key, quirks) = (state.canonical(name), state.quirks.clone());
    let Some(mailbox) = state.mailboxes.get_mut(&key).filter(|m| !m.no_select) else {
        return Reply::no("[TRYCREATE] no such mailbox");
    };
    if messages.iter().any(|m| quirks.max_message.is_some_and(|max| m.bytes.len() > max)) {
        return Reply::exact("NO Maximum size of appendable message has been exceeded");
    }
    let long = |m: &NewMessage| m.bytes.split(|&b| b == b'\n').map(<[u8]>::len).max();
    if messages.iter().any(|m| quirks.max_message_line.is_some_and(|max| long(m).is_some_and(|n| n > max))) {
        return Reply::exact(exchange::BAD_ARGUMENT);
    }
    let mut uids = Vec::new();
    for message in messages {
        let mut flags = mailbox.storable(&message.flags);
        if quirks.append_forgets_flagged && flags.remove("\\Flagged") {
            quirks.note("append_forgets_flagged");
        }
        uids.push(mailbox.add(message.bytes, flags, message.date.unwrap_or(0)));
    }
    match profile.has("UIDPLUS") {
        true => Reply::ok(&format!("[APPENDUID {} {}] done", mailbox.uid_validity, ranges(uids))),
        false => Reply::ok("done"),
    }
}

fn expunge(mailbox: &mut Mailbox, wanted: impl Fn(u32) -> bool) {
    let deleted = mailbox.messages.values().filter(|m| m.flags.contains("\\Deleted") && wanted(m.uid));
    let uids: Vec<u32> = deleted.map(|m| m.uid).collect();
    uids.into_iter().for_each(|uid| drop(mailbox.remove(uid)));
}

fn searched(mailbox: &Mailbox, tag: &str, returns: Option<&[String]>, key: &Key) -> Reply {
    let max = largest(mailbox);
    let found: Vec<&Message> = mailbox.messages.values().filter(|m| key.matches(m, max)).collect();
    let uids: Vec<u32> = found.iter().map(|m| m.uid).collect();
    let highest = found.iter().map(|m| m.mod_seq).max().filter(|_| key.names_mod_seq());
    let Some(options) = returns else {
        let mut line = "SEARCH".to_owned();
        for uid in uids {
            let _ = write!(line, " {uid}");
        }
        if let Some(highest) = highest {
            let _ = write!(line, " (MODSEQ {highest})");
        }
        return Reply::ok("done").line(line);
    };
    let mut line = format!("ESEARCH (TAG {}) UID", quoted(tag));
    let has = |name: &str| options.iter().any(|o| o == name);
    if let (true, Some(min)) = (has("MIN"), uids.first()) {
        let _ = write!(line, " MIN {min}");
    }
    if let (true, Some(max)) = (has("MAX"), uids.last()) {
        let _ = write!(line, " MAX {max}");
    }
    if has("COUNT") {
        let _ = write!(line, " COUNT {}", uids.len());
    }
    if (has("ALL") || options.is_empty()) && !uids.is_empty() {
        let _ = write!(line, " ALL {}", ranges(uids));
    }
    if let Some(highest) = highest {
        let _ = write!(line, " MODSEQ {highest}");
    }
    Reply::ok("done").line(line)
}

fn largest(mailbox: &Mailbox) -> u32 {
    mailbox.messages.keys().next_back().copied().unwrap_or(0)
}

fn fetched(m: &Message, flags: &BTreeSet<String>, items: &[Item], zone: i32, quirks: &Quirks) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for item in items {
        if !out.is_empty() {
            out.push(b' ');
        }
        match item {
            Item::Uid => out.extend(format!("UID {}", m.uid).bytes()),
            Item::Flags => out.extend(flags_of(m, flags, false, false).bytes()),
            Item::InternalDate => {
                out.extend(format!("INTERNALDATE \"{}\"", date::write(m.internal_date, zone)).bytes());
            }
            Item::Size => {
                let size = quirks.sizes.of(m.bytes.len());
                if size != m.bytes.len() {
                    quirks.note("sizes");
                }
                out.extend(format!("RFC822.SIZE {size}").bytes());
            }
            Item::ModSeq => out.extend(format!("MODSEQ ({})", m.mod_seq).bytes()),
            Item::Body { section, partial, .. } => {
                let marked = marked(m, quirks);
                let whole = marked.as_deref().unwrap_or(&m.bytes);
                body(whole, section, *partial, &mut out);
            }
        }
    }
    out
}

/// Returns the message with the header that Exchange gives it while it is `\Flagged`, if it does.
fn marked(m: &Message, quirks: &Quirks) -> Option<Vec<u8>> {
    let wanted = quirks.message_flag_header && m.flags.contains("\\Flagged");
    if wanted {
        quirks.note("message_flag_header");
    }
    wanted.then(|| [b"X-Message-Flag: Follow up\r\n", m.bytes.as_slice()].concat())
}

fn body(bytes: &[u8], section: &Section, partial: Option<(u32, u32)>, out: &mut Vec<u8>) {
    let fields;
    let (name, part) = match section {
        Section::Whole => (String::new(), bytes),
        Section::Header => ("HEADER".to_owned(), search::header(bytes)),
        Section::Fields(names) => {
            let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
            fields = [search::fields(bytes, &wanted).concat(), b"\r\n".to_vec()].concat();
            (format!("HEADER.FIELDS ({})", names.join(" ")), fields.as_slice())
        }
    };
    let (origin, part) = match partial {
        Some((offset, count)) => {
            let start = (offset as usize).min(part.len());
            (format!("<{offset}>"), &part[start..part.len().min(start.saturating_add(count as usize))])
        }
        None => (String::new(), part),
    };
    out.extend(format!("BODY[{name}]{origin} {{{}}}\r\n", part.len()).bytes());
    out.extend(part);
}
