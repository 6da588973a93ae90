//! Carries out commands on the state, each at once.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::lex::UidSet;
use crate::parse::{How, Item, NewMessage, Request, Resync, Section, StatusItem};
use crate::search::{self, Key};
use crate::view::{View, flags_of, ranges};
use crate::{Mailbox, Message, Profile, State, date};

/// A line of a reply before its tagged end.
pub(crate) enum Line {
    /// A FETCH of a message; its sequence number is put in when it is sent.
    Fetch { uid: u32, items: Vec<u8> },
    /// A LIST or STATUS line of a listing.
    Listed(String),
    /// Another line.
    Other(String),
}

/// The answer to a command.
#[derive(Default)]
pub(crate) struct Reply {
    pub(crate) lines: Vec<Line>,
    /// What follows the tag.
    pub(crate) status: String,
    /// The connection ends after it.
    pub(crate) ends: bool,
    /// The command was wrong at this point, whatever its syntax: it counts as a violation.
    pub(crate) wrong: bool,
}

impl Reply {
    fn ok(text: &str) -> Self {
        Self { status: format!("OK {text}"), ..Self::default() }
    }

    fn no(text: &str) -> Self {
        Self { status: format!("NO {text}"), ..Self::default() }
    }

    pub(crate) fn bad(text: &str) -> Self {
        Self { status: format!("BAD {text}"), wrong: true, ..Self::default() }
    }

    fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(Line::Other(line.into()));
        self
    }
}

/// What a connection has come to.
#[derive(Default)]
pub(crate) struct Context {
    pub(crate) logged_in: bool,
    pub(crate) condstore: bool,
    pub(crate) qresync: bool,
    /// The zone in which dates are shown, in minutes east.
    pub(crate) zone: i32,
    pub(crate) selected: Option<View>,
}

impl Context {
    /// Carries out `request`, which came with `tag`.
    pub(crate) fn execute(&mut self, state: &mut State, profile: Profile, tag: &str, request: Request) -> Reply {
        match &request {
            Request::Capability => {
                return Reply::ok("done").line(format!("CAPABILITY {}", profile.capabilities()));
            }
            Request::Noop => return Reply::ok("done"),
            Request::Logout => return Reply { ends: true, ..Reply::ok("done") }.line("BYE until next time"),
            Request::Id => return Reply::ok("done").line("ID (\"name\" \"sim\")"),
            Request::Login { user, password } => return self.login(state, profile, user, password),
            _ if !self.logged_in => return Reply::bad("sign in first"),
            _ => {}
        }
        match request {
            Request::Namespace => {
                let separator = quoted(&state.separator.to_string());
                Reply::ok("done").line(format!("NAMESPACE (({} {separator})) NIL NIL", quoted(&state.prefix)))
            }
            Request::Enable(names) => self.enable(profile, &names),
            Request::List { special_only, reference, patterns, special, status } => {
                let patterns: Vec<String> = patterns.iter().map(|p| format!("{reference}{p}")).collect();
                let options = Listing { special_only, special: special || special_only, status };
                self.list(state, profile, &patterns, &options)
            }
            Request::Status { mailbox, items } => self.status(state, &mailbox, &items),
            Request::Create(name) => create(state, &name),
            Request::Delete(name) => delete(state, &name),
            Request::Rename { from, to } => rename(state, &from, &to),
            Request::Subscribe(_) => Reply::ok("done"),
            Request::Select { mailbox, read_only, condstore, resync } => {
                self.select(state, profile, &mailbox, read_only, condstore, resync)
            }
            Request::Append { mailbox, messages } => append(state, profile, &mailbox, messages),
            request => self.selected(state, profile, tag, request),
        }
    }

    /// Returns the selected mailbox, or `None` if none is selected or it is not what it was.
    pub(crate) fn mailbox<'a>(&self, state: &'a mut State) -> Option<(&'a str, &'a mut Mailbox)> {
        let incarnation = self.selected.as_ref()?.incarnation;
        state.mailboxes.iter_mut().find(|(_, m)| m.incarnation == incarnation).map(|(n, m)| (n.as_str(), m))
    }

    fn login(&mut self, state: &State, profile: Profile, user: &str, password: &str) -> Reply {
        if self.logged_in {
            return Reply::bad("signed in already");
        }
        self.logged_in = state.users.get(user).is_some_and(|p| p == password);
        self.signed_in(profile)
    }

    /// Returns the answer to a sign-in that has just succeeded or failed.
    pub(crate) fn signed_in(&self, profile: Profile) -> Reply {
        match (self.logged_in, profile) {
            (false, _) => Reply::no("[AUTHENTICATIONFAILED] wrong name or password"),
            (true, Profile::Bare) => Reply::ok("welcome"),
            (true, _) => Reply::ok(&format!("[CAPABILITY {}] welcome", profile.capabilities())),
        }
    }

    fn enable(&mut self, profile: Profile, names: &[String]) -> Reply {
        if self.selected.is_some() {
            return Reply::bad("ENABLE is not allowed while a mailbox is selected");
        }
        let mut enabled = String::from("ENABLED");
        for name in names.iter().filter(|n| profile.has(n)) {
            match name.as_str() {
                "CONDSTORE" => self.condstore = true,
                "QRESYNC" => (self.condstore, self.qresync) = (true, true),
                _ => continue,
            }
            enabled += &format!(" {name}");
        }
        Reply::ok("done").line(enabled)
    }

    fn list(&mut self, state: &State, profile: Profile, patterns: &[String], options: &Listing) -> Reply {
        let mut reply = Reply::ok("done");
        let separator = quoted(&state.separator.to_string());
        if patterns.iter().all(String::is_empty) {
            return reply.line(format!("LIST (\\Noselect) {separator} \"\""));
        }
        for (name, mailbox) in &state.mailboxes {
            let wanted = patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes(), state.separator as u8))
                && (!options.special_only || mailbox.special_use.is_some());
            if !wanted {
                continue;
            }
            let below = format!("{name}{}", state.separator);
            let mut attributes = Vec::new();
            if mailbox.no_select {
                attributes.push("\\Noselect");
            }
            if profile.has("CHILDREN") {
                let children = state.mailboxes.keys().any(|n| n.starts_with(&below));
                attributes.push(if children { "\\HasChildren" } else { "\\HasNoChildren" });
            }
            // RFC 6154 §2 lets a server name them in any LIST, and many do.
            let special = mailbox.special_use.as_deref().filter(|_| profile.has("SPECIAL-USE") || options.special);
            attributes.extend(special);
            let line = format!("LIST ({}) {separator} {}", attributes.join(" "), mailbox_name(name));
            reply.lines.push(Line::Listed(line));
            if let (Some(items), false) = (&options.status, mailbox.no_select) {
                self.condstore |= items.contains(&StatusItem::HighestModSeq);
                reply.lines.push(Line::Listed(status_line(name, mailbox, items)));
            }
        }
        reply
    }

    fn status(&mut self, state: &State, name: &str, items: &[StatusItem]) -> Reply {
        let name = State::canonical(name);
        match state.mailboxes.get(&name).filter(|m| !m.no_select) {
            Some(mailbox) => {
                self.condstore |= items.contains(&StatusItem::HighestModSeq);
                Reply::ok("done").line(status_line(&name, mailbox, items))
            }
            None => Reply::no("[NONEXISTENT] no such mailbox"),
        }
    }

    fn select(
        &mut self,
        state: &State,
        profile: Profile,
        name: &str,
        read_only: bool,
        condstore: bool,
        resync: Option<Resync>,
    ) -> Reply {
        if resync.is_some() && !self.qresync {
            return Reply::bad("QRESYNC is not enabled");
        }
        let mut reply = Reply::default();
        if self.selected.take().is_some() && self.qresync {
            reply = reply.line("OK [CLOSED] the other mailbox");
        }
        let Some(mailbox) = state.mailboxes.get(&State::canonical(name)).filter(|m| !m.no_select) else {
            reply.status = "NO [NONEXISTENT] no such mailbox".to_owned();
            return reply;
        };
        self.condstore |= condstore;
        let view = View::new(mailbox, read_only);
        let mut flags = vec!["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"];
        flags.extend(mailbox.keywords().into_iter().map(String::as_str));
        let permanent = if read_only { String::new() } else { mailbox.permanent_flags.join(" ") };
        reply = reply
            .line(format!("FLAGS ({})", flags.join(" ")))
            .line(format!("{} EXISTS", mailbox.messages.len()))
            .line("0 RECENT")
            .line(format!("OK [PERMANENTFLAGS ({permanent})] limited"))
            .line(format!("OK [UIDVALIDITY {}] UIDs valid", mailbox.uid_validity))
            .line(format!("OK [UIDNEXT {}] predicted next UID", mailbox.uid_next));
        if profile.has("CONDSTORE") {
            reply = reply.line(format!("OK [HIGHESTMODSEQ {}] highest", mailbox.highest_mod_seq));
        }
        if let Some(since) = resync.filter(|r| r.uid_validity == mailbox.uid_validity) {
            let known = |uid: u32| since.known.as_ref().is_none_or(|k| k.contains(uid, u32::MAX));
            let gone = vanished_since(mailbox, since.mod_seq).into_iter().filter(|&uid| known(uid));
            let gone = ranges(gone);
            if !gone.is_empty() {
                reply = reply.line(format!("VANISHED (EARLIER) {gone}"));
            }
            let changed = mailbox.messages.values().filter(|m| m.mod_seq > since.mod_seq && known(m.uid));
            reply.lines.extend(changed.map(|m| Line::Fetch { uid: m.uid, items: flags_of(m, true, true).into() }));
        }
        self.selected = Some(view);
        reply.status = format!("OK [{}] selected", if read_only { "READ-ONLY" } else { "READ-WRITE" });
        reply
    }

    /// Carries out the commands that need a selected mailbox.
    fn selected(&mut self, state: &mut State, profile: Profile, tag: &str, request: Request) -> Reply {
        let Some(read_only) = self.selected.as_ref().map(|v| v.read_only) else {
            return Reply::bad("no mailbox is selected");
        };
        if let Request::Copy { set, mailbox } = request {
            return self.copy(state, profile, &set, &mailbox, false);
        }
        if let Request::Move { set, mailbox } = request {
            return if read_only { read_only_reply() } else { self.copy(state, profile, &set, &mailbox, true) };
        }
        let Some((_, mailbox)) = self.mailbox(state) else { return Reply::no("the mailbox is gone") };
        match request {
            Request::Check => Reply::ok("done"),
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
                self.fetch(mailbox, &set, items, changed_since, vanished)
            }
            Request::Search { returns, keys } => {
                let key = Key::And(keys);
                self.condstore |= key.names_mod_seq();
                searched(mailbox, tag, returns.as_deref(), &key)
            }
            Request::Store { .. } | Request::Expunge | Request::UidExpunge(_) if read_only => read_only_reply(),
            Request::Store { set, unchanged_since, how, silent, flags } => {
                self.condstore |= unchanged_since.is_some();
                self.store(mailbox, &set, unchanged_since, how, silent, &flags)
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
        let max = largest(mailbox);
        let mut reply = Reply::ok("done");
        if let (true, Some(since)) = (vanished, changed_since) {
            let gone = vanished_since(mailbox, since).into_iter().filter(|&uid| set.contains(uid, max));
            let gone = ranges(gone);
            if !gone.is_empty() {
                reply = reply.line(format!("VANISHED (EARLIER) {gone}"));
            }
        }
        let read = items.iter().any(|i| matches!(i, Item::Body { peek: false, .. }));
        let newer = |m: &Message| changed_since.is_none_or(|since| m.mod_seq > since);
        let uids: Vec<u32> =
            mailbox.messages.values().filter(|m| set.contains(m.uid, max) && newer(m)).map(|m| m.uid).collect();
        for uid in uids {
            if let (true, Some(m)) = (read, mailbox.messages.get(&uid)) {
                let mut flags = m.flags.clone();
                flags.insert("\\Seen".to_owned());
                mailbox.set(uid, flags);
            }
            if let Some(message) = mailbox.messages.get(&uid) {
                if let (true, Some(view)) = (items.contains(&Item::Flags), &mut self.selected) {
                    view.told(message);
                }
                reply.lines.push(Line::Fetch { uid, items: fetched(message, &items, self.zone) });
            }
        }
        reply
    }

    fn store(
        &mut self,
        mailbox: &mut Mailbox,
        set: &UidSet,
        unchanged_since: Option<u64>,
        how: How,
        silent: bool,
        flags: &[String],
    ) -> Reply {
        let max = largest(mailbox);
        let flags = mailbox.storable(flags);
        let uids: Vec<u32> = mailbox.messages.keys().copied().filter(|&uid| set.contains(uid, max)).collect();
        let (mut reply, mut modified) = (Reply::ok("done"), Vec::new());
        for uid in uids {
            let Some(message) = mailbox.messages.get(&uid) else { continue };
            if unchanged_since.is_some_and(|since| message.mod_seq > since) {
                modified.push(uid);
                continue;
            }
            let old = &message.flags;
            let new: BTreeSet<String> = match how {
                How::Add => old.union(&flags).cloned().collect(),
                How::Remove => {
                    old.iter().filter(|o| !flags.iter().any(|f| f.eq_ignore_ascii_case(o))).cloned().collect()
                }
                How::Replace => flags.clone(),
            };
            // What another client has changed meanwhile must still be told, even after .SILENT.
            let tells = !silent || self.selected.as_ref().is_some_and(|v| v.knows(message));
            mailbox.set(uid, new);
            let Some(message) = mailbox.messages.get(&uid) else { continue };
            if let (true, Some(view)) = (tells, &mut self.selected) {
                view.told(message);
            }
            if !silent {
                reply.lines.push(Line::Fetch { uid, items: flags_of(message, true, self.condstore).into() });
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
        let to = State::canonical(to);
        if state.mailboxes.get(&to).is_none_or(|m| m.no_select) {
            return Reply::no("[TRYCREATE] no such mailbox");
        }
        let Some((_, from)) = self.mailbox(state) else { return Reply::no("the mailbox is gone") };
        let max = largest(from);
        let copies: Vec<Message> = from.messages.values().filter(|m| set.contains(m.uid, max)).cloned().collect();
        if moves {
            copies.iter().for_each(|m| drop(from.remove(m.uid)));
        }
        let Some(target) = state.mailboxes.get_mut(&to) else { return Reply::no("[TRYCREATE] no such mailbox") };
        let sources = ranges(copies.iter().map(|m| m.uid));
        let mut made = Vec::new();
        for m in copies {
            let flags: Vec<String> = m.flags.into_iter().collect();
            let flags = target.storable(&flags);
            made.push(target.add(m.bytes, flags, m.internal_date));
        }
        let code = format!("[COPYUID {} {sources} {}]", target.uid_validity, ranges(made.iter().copied()));
        match (profile.has("UIDPLUS") && !made.is_empty(), moves) {
            (false, _) => Reply::ok("done"),
            (true, false) => Reply::ok(&format!("{code} done")),
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

struct Listing {
    special_only: bool,
    special: bool,
    status: Option<Vec<StatusItem>>,
}

fn read_only_reply() -> Reply {
    Reply::no("[READ-ONLY] the mailbox was opened to read only")
}

fn create(state: &mut State, name: &str) -> Reply {
    let name = State::canonical(name.strip_suffix(state.separator).unwrap_or(name));
    if state.mailboxes.contains_key(&name) {
        return Reply::no("[ALREADYEXISTS] there is one");
    }
    if !name.starts_with(&state.prefix) {
        return Reply::no("[CANNOT] not in the personal namespace");
    }
    state.create(&name);
    Reply::ok("done")
}

fn delete(state: &mut State, name: &str) -> Reply {
    match State::canonical(name).as_str() {
        "INBOX" => Reply::no("[CANNOT] INBOX stays"),
        name if state.mailboxes.contains_key(name) => {
            state.delete(name);
            Reply::ok("done")
        }
        _ => Reply::no("[NONEXISTENT] no such mailbox"),
    }
}

fn rename(state: &mut State, from: &str, to: &str) -> Reply {
    let (from, to) = (State::canonical(from), State::canonical(to));
    if from == "INBOX" || !to.starts_with(&state.prefix) {
        return Reply::no("[CANNOT] not this one");
    }
    if state.mailboxes.contains_key(&to) {
        return Reply::no("[ALREADYEXISTS] there is one");
    }
    if !state.mailboxes.contains_key(&from) {
        return Reply::no("[NONEXISTENT] no such mailbox");
    }
    state.rename(&from, &to);
    Reply::ok("done")
}

fn append(state: &mut State, profile: Profile, name: &str, messages: Vec<NewMessage>) -> Reply {
    let Some(mailbox) = state.mailboxes.get_mut(&State::canonical(name)).filter(|m| !m.no_select) else {
        return Reply::no("[TRYCREATE] no such mailbox");
    };
    let mut uids = Vec::new();
    for message in messages {
        let flags = mailbox.storable(&message.flags);
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
        let words: String = uids.iter().map(|uid| format!(" {uid}")).collect();
        let tail = highest.map_or(String::new(), |h| format!(" (MODSEQ {h})"));
        return Reply::ok("done").line(format!("SEARCH{words}{tail}"));
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

/// Returns what is known or, where the log does not reach back, said to be gone since `mod_seq`.
fn vanished_since(mailbox: &Mailbox, mod_seq: u64) -> Vec<u32> {
    if mod_seq < mailbox.vanished_from {
        return (1..mailbox.uid_next).filter(|uid| !mailbox.messages.contains_key(uid)).collect();
    }
    mailbox.vanished.iter().filter(|&(_, &at)| at > mod_seq).map(|(&uid, _)| uid).collect()
}

fn largest(mailbox: &Mailbox) -> u32 {
    mailbox.messages.keys().next_back().copied().unwrap_or(0)
}

fn status_line(name: &str, mailbox: &Mailbox, items: &[StatusItem]) -> String {
    let words = items.iter().map(|item| match item {
        StatusItem::Messages => format!("MESSAGES {}", mailbox.messages.len()),
        StatusItem::Recent => "RECENT 0".to_owned(),
        StatusItem::UidNext => format!("UIDNEXT {}", mailbox.uid_next),
        StatusItem::UidValidity => format!("UIDVALIDITY {}", mailbox.uid_validity),
        StatusItem::HighestModSeq => format!("HIGHESTMODSEQ {}", mailbox.highest_mod_seq),
        StatusItem::Unseen => {
            format!("UNSEEN {}", mailbox.messages.values().filter(|m| !m.flags.contains("\\Seen")).count())
        }
    });
    format!("STATUS {} ({})", mailbox_name(name), words.collect::<Vec<_>>().join(" "))
}

fn fetched(m: &Message, items: &[Item], zone: i32) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for item in items {
        if !out.is_empty() {
            out.push(b' ');
        }
        match item {
            Item::Uid => out.extend(format!("UID {}", m.uid).bytes()),
            Item::Flags => out.extend(flags_of(m, false, false).bytes()),
            Item::InternalDate => {
                out.extend(format!("INTERNALDATE \"{}\"", date::write(m.internal_date, zone)).bytes())
            }
            Item::Size => out.extend(format!("RFC822.SIZE {}", m.bytes.len()).bytes()),
            Item::ModSeq => out.extend(format!("MODSEQ ({})", m.mod_seq).bytes()),
            Item::Body { section, partial, .. } => {
                let (name, bytes) = match section {
                    Section::Whole => (String::new(), m.bytes.clone()),
                    Section::Header => ("HEADER".to_owned(), search::header(&m.bytes).to_vec()),
                    Section::Fields(names) => {
                        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
                        let mut bytes = search::fields(&m.bytes, &wanted).concat();
                        bytes.extend(b"\r\n");
                        (format!("HEADER.FIELDS ({})", names.join(" ")), bytes)
                    }
                };
                let origin = partial.map_or(String::new(), |(offset, _)| format!("<{offset}>"));
                let (skip, count) = partial.map_or((0, usize::MAX), |(o, n)| (o as usize, n as usize));
                let part: Vec<u8> = bytes.into_iter().skip(skip).take(count).collect();
                out.extend(format!("BODY[{name}]{origin} {{{}}}\r\n", part.len()).bytes());
                out.extend(part);
            }
        }
    }
    out
}

/// Tells whether a mailbox name fits a pattern (RFC 3501 §6.3.8). INBOX has no case.
fn matches(pattern: &[u8], name: &[u8], separator: u8) -> bool {
    if name == b"INBOX" && pattern.eq_ignore_ascii_case(b"INBOX") {
        return true;
    }
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) | (Some((b'%', rest)), None) => matches(rest, name, separator),
        (Some((b'*', rest)), Some((_, tail))) => matches(rest, name, separator) || matches(pattern, tail, separator),
        (Some((b'%', rest)), Some((&b, tail))) => {
            matches(rest, name, separator) || (b != separator && matches(pattern, tail, separator))
        }
        (Some((a, rest)), Some((b, tail))) => a == b && matches(rest, tail, separator),
        _ => false,
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn mailbox_name(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii() && !b.is_ascii_control());
    if plain { quoted(name) } else { format!("{{{}}}\r\n{name}", name.len()) }
}
