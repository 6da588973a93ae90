//! The commands about mailboxes: LIST, STATUS, CREATE, DELETE, RENAME, SELECT.

use crate::execute::{Context, Line, Reply};
use crate::parse::{Resync, StatusItem};
use crate::state::quoted;
use crate::view::{View, flags_of, ranges};
use crate::{Mailbox, Profile, State};

/// What a LIST asks for besides names.
pub(crate) struct Listing {
    word: &'static str,
    special_only: bool,
    special: bool,
    status: Option<Vec<StatusItem>>,
}

impl Listing {
    pub(crate) fn new(special_only: bool, special: bool, status: Option<Vec<StatusItem>>) -> Self {
        Self { word: "LIST", special_only, special: special || special_only, status }
    }

    /// Returns that of LSUB.
    pub(crate) fn subscribed() -> Self {
        Self { word: "LSUB", special_only: false, special: false, status: None }
    }
}

/// Tells whether HIGHESTMODSEQ is among these items.
pub(crate) fn asks_mod_seq(items: Option<&[StatusItem]>) -> bool {
    items.is_some_and(|items| items.contains(&StatusItem::HighestModSeq))
}

pub(crate) fn list(state: &State, profile: Profile, patterns: &[String], options: &Listing) -> Reply {
    let mut reply = Reply::ok("done");
    let (word, separator) = (options.word, quoted(&state.separator.to_string()));
    if patterns.iter().all(String::is_empty) {
        return reply.line(format!("{word} (\\Noselect) {separator} \"\""));
    }
    for (name, mailbox) in &state.mailboxes {
        let wanted = patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes(), state))
            && (!options.special_only || mailbox.special_use.is_some());
        if !wanted {
            continue;
        }
        let attributes = attributes(state, profile, name, mailbox, options.special).join(" ");
        reply.lines.push(Line::Listed(format!("{word} ({attributes}) {separator} {}", state.sent(name))));
        if let (Some(items), false) = (&options.status, mailbox.no_select) {
            reply.lines.push(Line::Listed(status_line(state, name, mailbox, items)));
        }
    }
    reply
}

/// Returns the attributes with which a mailbox is listed.
fn attributes<'a>(state: &State, profile: Profile, name: &str, mailbox: &'a Mailbox, special: bool) -> Vec<&'a str> {
    let mut attributes = Vec::new();
    if mailbox.no_select {
        attributes.push("\\Noselect");
    }
    if mailbox.marked {
        attributes.push("\\Marked");
    }
    if profile.has("CHILDREN") {
        let below = format!("{name}{}", state.separator);
        let children = state.mailboxes.range(below.clone()..).next().is_some_and(|(n, _)| n.starts_with(&below));
        attributes.push(if children { "\\HasChildren" } else { "\\HasNoChildren" });
    }
    // RFC 6154 §2 lets a server name them in any LIST, and many do.
    let told = profile.has("SPECIAL-USE") || special || state.quirks.special_use;
    attributes.extend(mailbox.special_use.as_deref().filter(|_| told));
    attributes
}

pub(crate) fn status(state: &State, name: &str, items: &[StatusItem]) -> Reply {
    let name = state.canonical(name);
    match state.mailboxes.get(&name).filter(|m| !m.no_select) {
        Some(mailbox) => Reply::ok("done").line(status_line(state, &name, mailbox, items)),
        None => Reply::no("[NONEXISTENT] no such mailbox"),
    }
}

pub(crate) fn status_line(state: &State, name: &str, mailbox: &Mailbox, items: &[StatusItem]) -> String {
    let words = items.iter().map(|item| match item {
        StatusItem::Messages => format!("MESSAGES {}", mailbox.messages.len()),
        StatusItem::Recent => "RECENT 0".to_owned(),
        StatusItem::UidNext => format!("UIDNEXT {}", mailbox.uid_next),
        StatusItem::UidValidity => format!("UIDVALIDITY {}", mailbox.uid_validity),
        StatusItem::HighestModSeq => format!("HIGHESTMODSEQ {}", mailbox.highest_mod_seq),
        StatusItem::Unseen => {
            format!("UNSEEN {}", mailbox.messages.count_unseen())
        }
    });
    let space = if state.quirks.status_space { " " } else { "" };
    format!("STATUS {} ({}){space}", state.sent(name), words.collect::<Vec<_>>().join(" "))
}

pub(crate) fn create(state: &mut State, name: &str) -> Reply {
    let name = state.canonical(name.strip_suffix(state.separator).unwrap_or(name));
    if state.mailboxes.contains_key(&name) {
        return Reply::no("[ALREADYEXISTS] there is one");
    }
    if !name.starts_with(&state.prefix) {
        return Reply::no("[CANNOT] not in the personal namespace");
    }
    if state.quirks.reserved.iter().any(|r| r.eq_ignore_ascii_case(&name)) {
        return Reply::exact("NO Folder name is reserved");
    }
    state.create(&name);
    Reply::ok("done")
}

pub(crate) fn delete(state: &mut State, name: &str) -> Reply {
    match state.canonical(name).as_str() {
        "INBOX" => Reply::no("[CANNOT] INBOX stays"),
        name if state.mailboxes.contains_key(name) => {
            state.delete(name);
            Reply::ok("done")
        }
        _ => Reply::no("[NONEXISTENT] no such mailbox"),
    }
}

pub(crate) fn rename(state: &mut State, from: &str, to: &str) -> Reply {
    let (from, to) = (state.canonical(from), state.canonical(to));
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

impl Context {
    pub(crate) fn select(
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
        let Some(mailbox) = state.mailboxes.get(&state.canonical(name)).filter(|m| !m.no_select) else {
            reply.status = "NO [NONEXISTENT] no such mailbox".to_owned();
            return reply;
        };
        self.condstore |= condstore;
        let lines =
            if profile.is_exchange() { opened_exchange(mailbox, read_only) } else { opened(mailbox, read_only) };
        reply.lines.extend(lines.into_iter().map(Line::Other));
        if profile.has("CONDSTORE") {
            reply = reply.line(format!("OK [HIGHESTMODSEQ {}] highest", mailbox.highest_mod_seq));
        }
        if let Some(since) = resync.filter(|r| r.uid_validity == mailbox.uid_validity) {
            let known = |uid: u32| since.known.as_ref().is_none_or(|k| k.contains(uid, u32::MAX));
            let gone = ranges(mailbox.vanished_since(since.mod_seq).into_iter().filter(|&uid| known(uid)));
            if !gone.is_empty() {
                reply = reply.line(format!("VANISHED (EARLIER) {gone}"));
            }
            let changed = mailbox.messages.changed_since(since.mod_seq).into_iter().filter(|m| known(m.uid));
            let fetch =
                |m: &crate::Message| Line::Fetch { uid: m.uid, items: flags_of(m, &m.flags, true, true).into() };
            reply.lines.extend(changed.map(fetch));
        }
        self.selected = Some(View::new(mailbox, read_only));
        reply.status = format!("OK [{}] selected", if read_only { "READ-ONLY" } else { "READ-WRITE" });
        reply
    }
}

/// Returns what SELECT tells.
fn opened(mailbox: &Mailbox, read_only: bool) -> Vec<String> {
    let mut flags = vec!["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"];
    flags.extend(mailbox.messages.keywords().map(String::as_str));
    let permanent = if read_only { String::new() } else { mailbox.permanent_flags.join(" ") };
    vec![
        format!("FLAGS ({})", flags.join(" ")),
        format!("{} EXISTS", mailbox.messages.len()),
        "0 RECENT".to_owned(),
        format!("OK [PERMANENTFLAGS ({permanent})] limited"),
        format!("OK [UIDVALIDITY {}] UIDs valid", mailbox.uid_validity),
        format!("OK [UIDNEXT {}] predicted next UID", mailbox.uid_next),
    ]
}

/// Returns what SELECT tells, in the words and in the order of Exchange.
fn opened_exchange(mailbox: &Mailbox, read_only: bool) -> Vec<String> {
    let flags = mailbox.permanent_flags.join(" ");
    let permanent = if read_only { "" } else { &flags };
    let mut lines = vec![
        format!("{} EXISTS", mailbox.messages.len()),
        "0 RECENT".to_owned(),
        format!("FLAGS ({flags})"),
        format!("OK [PERMANENTFLAGS ({permanent})] Permanent flags"),
    ];
    lines.extend(mailbox.messages.first_unseen().map(|n| format!("OK [UNSEEN {n}] Is the first unseen message")));
    lines.push(format!("OK [UIDVALIDITY {}] UIDVALIDITY value", mailbox.uid_validity));
    lines.push(format!("OK [UIDNEXT {}] The next unique identifier value", mailbox.uid_next));
    lines
}

/// Tells whether a mailbox name fits a pattern (RFC 3501 §6.3.8). INBOX has no case.
fn matches(pattern: &[u8], name: &[u8], state: &State) -> bool {
    let same = |a: u8, b: u8| a == b || state.quirks.case_insensitive && a.eq_ignore_ascii_case(&b);
    if name == b"INBOX" && pattern.eq_ignore_ascii_case(b"INBOX") {
        return true;
    }
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) | (Some((b'%', rest)), None) => matches(rest, name, state),
        (Some((b'*', rest)), Some((_, tail))) => matches(rest, name, state) || matches(pattern, tail, state),
        (Some((b'%', rest)), Some((&b, tail))) => {
            matches(rest, name, state) || (b != state.separator as u8 && matches(pattern, tail, state))
        }
        (Some((&a, rest)), Some((&b, tail))) => same(a, b) && matches(rest, tail, state),
        _ => false,
    }
}
