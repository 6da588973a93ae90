//! Carries out commands on the state, each at once. Those about mailboxes are in `mailboxes`, those about messages in
//! `messages`.

use crate::exchange;
use crate::mailboxes::{self, Listing};
use crate::messages;
use crate::notify::Notified;
use crate::parse::Request;
use crate::view::View;
use crate::{Mailbox, Profile, State};

/// A line of a reply before its tagged end.
pub(crate) enum Line {
    /// A FETCH of a message; its sequence number is put in when it is sent.
    Fetch { uid: u32, items: Vec<u8> },
    /// A LIST or STATUS line of a listing.
    Listed(String),
    /// Another line.
    Other(String),
    /// A line that lacks the `* ` which it should begin with.
    Bare(String),
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
    /// The status is in the words of the profile already.
    pub(crate) exact: bool,
}

impl Reply {
    pub(crate) fn ok(text: &str) -> Self {
        Self { status: format!("OK {text}"), ..Self::default() }
    }

    pub(crate) fn no(text: &str) -> Self {
        Self { status: format!("NO {text}"), ..Self::default() }
    }

    pub(crate) fn bad(text: &str) -> Self {
        Self { status: format!("BAD {text}"), wrong: true, ..Self::default() }
    }

    /// Returns an answer in exactly these words, the status included.
    pub(crate) fn exact(status: &str) -> Self {
        Self { status: status.to_owned(), exact: true, ..Self::default() }
    }

    pub(crate) fn line(mut self, line: impl Into<String>) -> Self {
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
    /// IMAP4rev2 was enabled.
    rev2: bool,
    /// LIST commands since what makes LIST fail on a server with a broken IMAP4rev2.
    lists: u32,
    /// LSUB was refused.
    lsub_refused: bool,
    /// The zone in which dates are shown, in minutes east.
    pub(crate) zone: i32,
    pub(crate) selected: Option<View>,
    /// NOTIFY is on.
    pub(crate) notified: Option<Notified>,
}

impl Context {
    /// Carries out `request`, which came with `tag`.
    pub(crate) fn execute(&mut self, state: &mut State, profile: Profile, tag: &str, request: Request) -> Reply {
        let exchange = profile.is_exchange();
        match &request {
            Request::Capability => {
                let list = if self.logged_in { profile.capabilities() } else { profile.capabilities_before() };
                return Reply::ok("done").line(format!("CAPABILITY {list}"));
            }
            Request::Noop => {
                self.settle(state);
                return Reply::ok("done");
            }
            Request::Logout => {
                let bye = if exchange { exchange::SIGNING_OFF } else { "BYE until next time" };
                return Reply { ends: true, ..Reply::ok("done") }.line(bye);
            }
            Request::Id => {
                return Reply::ok("done").line(if exchange { exchange::ID } else { "ID (\"name\" \"sim\")" });
            }
            Request::Login { user, password } => return self.login(state, profile, user, password),
            _ if !self.logged_in => return Reply::bad("sign in first"),
            _ => {}
        }
        match request {
            Request::Namespace => {
                let (prefix, separator) =
                    (crate::state::quoted(&state.prefix), crate::state::quoted(&state.separator.to_string()));
                Reply::ok("done").line(format!("NAMESPACE (({prefix} {separator})) NIL NIL"))
            }
            Request::Enable(names) => self.enable(profile, &names),
            Request::Lsub { .. } if state.quirks.broken_rev2 => {
                self.lsub_refused = true;
                Reply::exact(exchange::BAD_ARGUMENT)
            }
            Request::List { .. } if state.quirks.broken_rev2 && self.list_breaks() => {
                Reply::exact("NO [SERVERBUG] Internal server error")
            }
            Request::Lsub { reference, pattern } => {
                mailboxes::list(state, profile, &[format!("{reference}{pattern}")], &Listing::subscribed())
            }
            Request::List { special_only, reference, patterns, special, status } => {
                let patterns: Vec<String> = patterns.iter().map(|p| format!("{reference}{p}")).collect();
                self.condstore |= mailboxes::asks_mod_seq(status.as_deref());
                mailboxes::list(state, profile, &patterns, &Listing::new(special_only, special, status))
            }
            Request::Status { mailbox, items } => {
                self.condstore |= mailboxes::asks_mod_seq(Some(&items));
                mailboxes::status(state, &mailbox, &items)
            }
            Request::Create(name) => mailboxes::create(state, &name),
            Request::Delete(name) => mailboxes::delete(state, &name),
            Request::Rename { from, to } => mailboxes::rename(state, &from, &to),
            Request::Subscribe(_) => Reply::ok("done"),
            Request::Notify(wish) => {
                let selected = self.selected.as_ref().map(|v| v.incarnation);
                self.notified = wish.map(|wish| Notified::new(wish, state));
                let status = self.notified.as_ref().filter(|n| n.wish.status);
                let lines = status.map_or_else(Vec::new, |n| n.all(state, selected));
                Reply { lines: lines.into_iter().map(Line::Other).collect(), ..Reply::ok("done") }
            }
            Request::Select { mailbox, read_only, condstore, resync } => {
                self.select(state, profile, &mailbox, read_only, condstore, resync)
            }
            Request::Append { mailbox, messages } => messages::append(state, profile, &mailbox, messages),
            Request::Search { .. } if state.quirks.broken_rev2 && self.rev2 => {
                Reply::ok("done").line(format!("ESEARCH (TAG {}) UID", crate::state::quoted(tag)))
            }
            request => self.selected(state, profile, tag, request),
        }
    }

    /// Returns the selected mailbox, or `None` if none is selected or it is not what it was.
    pub(crate) fn mailbox<'a>(&self, state: &'a mut State) -> Option<(&'a str, &'a mut Mailbox)> {
        let incarnation = self.selected.as_ref()?.incarnation;
        state.mailboxes.iter_mut().find(|(_, m)| m.incarnation == incarnation).map(|(n, m)| (n.as_str(), m))
    }

    /// From now on the flags of the selected mailbox are shown as they are.
    pub(crate) fn settle(&self, state: &mut State) {
        if let Some((_, mailbox)) = self.mailbox(state) {
            mailbox.stale.clear();
        }
    }

    fn login(&mut self, state: &State, profile: Profile, user: &str, password: &str) -> Reply {
        if self.logged_in {
            return Reply::bad("signed in already");
        }
        if !state.quirks.basic_auth {
            return Reply { wrong: profile.has("LOGINDISABLED"), ..no_passwords() };
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
                "IMAP4REV2" => {
                    self.rev2 = true;
                    enabled += " IMAP4rev2";
                    continue;
                }
                _ => continue,
            }
            enabled += &format!(" {name}");
        }
        Reply::ok("done").line(enabled)
    }

    /// Tells whether a LIST fails on a server with a broken IMAP4rev2, and counts it.
    fn list_breaks(&mut self) -> bool {
        self.lists += 1;
        self.lsub_refused || self.rev2 && self.lists > 1
    }
}

/// Returns the answer to a password where none is taken: the connection ends.
pub(crate) fn no_passwords() -> Reply {
    Reply { ends: true, ..Reply::exact(exchange::NO_PASSWORDS) }
}
