//! What a server does that no capability tells, as data. A test changes it in [`crate::State::quirks`] at any time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What RFC822.SIZE says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sizes {
    /// The length of what BODY[] gives.
    #[default]
    Exact,
    /// Somewhat more, never the same.
    Estimated,
    /// Three times as much.
    Tripled,
    /// A third.
    Third,
    /// 0.
    Zero,
}

impl Sizes {
    /// Returns what is said of a message of this length.
    #[must_use]
    pub const fn of(self, length: usize) -> usize {
        match self {
            Self::Exact => length,
            Self::Estimated => length + 57 + length % 991,
            Self::Tripled => length * 3,
            Self::Third => length / 3,
            Self::Zero => 0,
        }
    }
}

/// Who is signed in with OK and then told `BAD User is authenticated but not connected.` (CAPABILITY is still answered).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NotConnected {
    /// Nobody.
    #[default]
    Nobody,
    /// Who came over IPv6.
    OverIpv6,
    /// Everybody: IMAP is switched off for the mailbox, or the service is ill.
    Everybody,
}

/// What becomes of a command that was sent before the one before it was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pipelining {
    /// It is answered in its turn.
    #[default]
    Answered,
    /// It is answered BAD, and is a violation.
    Refused,
    /// It is not answered.
    Dropped,
    /// It is answered first.
    Reordered,
}

/// What becomes of a keyword that PERMANENTFLAGS does not name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unkept {
    /// STORE says OK and keeps nothing.
    #[default]
    Dropped,
    /// STORE says NO.
    Refused,
}

/// How a server differs from the plain one, which is the default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quirks {
    /// How INBOX is spelled in answers. In [`crate::State::mailboxes`] it is always `INBOX`.
    pub inbox: String,
    /// Mailbox names that differ in case only are one.
    pub case_insensitive: bool,
    /// Mailbox names without blanks are sent without quotes, whatever else is in them.
    pub bare_names: bool,
    /// LIST names the attributes of RFC 6154 without being asked and without SPECIAL-USE.
    pub special_use: bool,
    /// There is a blank after a STATUS line.
    pub status_space: bool,
    /// What RFC822.SIZE says.
    pub sizes: Sizes,
    /// What becomes of a keyword that PERMANENTFLAGS does not name.
    pub unkept: Unkept,
    /// `\Flagged` given to APPEND is not kept.
    pub append_forgets_flagged: bool,
    /// The longest command line in bytes, literals not counted. The line of AUTHENTICATE may have 10,240 bytes anyway.
    pub max_line: usize,
    /// The server ends the connection at this many BAD answers.
    pub max_bad: Option<u32>,
    /// More signed-in connections than this at once are not connected, in the sense of [`NotConnected`].
    pub max_connections: Option<usize>,
    /// Who is not connected.
    pub not_connected: NotConnected,
    /// What becomes of commands that are sent ahead.
    pub pipelining: Pipelining,
    /// Passwords are accepted. Where not, they are answered `NO Basic authentication is disabled.` and BYE.
    pub basic_auth: bool,
    /// A session ends when the access token that it was opened with runs out.
    pub ends_with_token: bool,
    /// The largest message that APPEND takes, in bytes.
    pub max_message: Option<usize>,
    /// The longest line, in bytes, in a message that APPEND takes.
    pub max_message_line: Option<usize>,
    /// Names of mailboxes that cannot be created.
    pub reserved: Vec<String>,
    /// A mailbox name in quotes that has an escaped quote in it is refused; as a literal it is taken.
    pub refuses_quoted_pairs: bool,
    /// FETCH gives the flags from before a STORE for this long by the clock, or until CHECK or NOOP.
    pub store_lag: Option<Duration>,
    /// What BODY[] gives has `X-Message-Flag` in it while the message is `\Flagged`.
    pub message_flag_header: bool,
    /// IDLE tells nothing.
    pub idle_silent: bool,
    /// IDLE tells the number of messages before its `+`.
    pub idle_news_first: bool,
    /// FETCH gives its items in another order, and FLAGS after a body even if nobody asked.
    pub loose_fetch: bool,
    /// The COPYUID of MOVE comes as a line of its own without `* OK`.
    pub bare_copyuid: bool,
    /// The server announces IMAP4rev2 and breaks: LSUB is BAD, and LIST after it fails; after `ENABLE IMAP4rev2` the
    /// second LIST fails and SEARCH finds nothing.
    pub broken_rev2: bool,
    pub(crate) effects: Effects,
}

/// Those quirks that have had an effect, by their names; shared by clones, and no difference between two servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects(Arc<Mutex<BTreeSet<&'static str>>>);

impl PartialEq for Effects {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Effects {}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            inbox: "INBOX".to_owned(),
            case_insensitive: false,
            bare_names: false,
            special_use: false,
            status_space: false,
            sizes: Sizes::Exact,
            unkept: Unkept::Dropped,
            append_forgets_flagged: false,
            // RFC 7162 §4 asks servers to take as much.
            max_line: 8192,
            max_bad: None,
            max_connections: None,
            not_connected: NotConnected::Nobody,
            pipelining: Pipelining::Answered,
            basic_auth: true,
            ends_with_token: true,
            max_message: None,
            max_message_line: None,
            reserved: Vec::new(),
            refuses_quoted_pairs: false,
            store_lag: None,
            message_flag_header: false,
            idle_silent: false,
            idle_news_first: false,
            loose_fetch: false,
            bare_copyuid: false,
            broken_rev2: false,
            effects: Effects::default(),
        }
    }
}

impl Quirks {
    /// Returns the names of those that have had an effect on what a client was told, or on what became of what it sent:
    /// `sizes`, `message_flag_header`, `append_forgets_flagged`, `unkept`, `max_connections`, `store_lag`.
    #[must_use]
    pub fn fired(&self) -> Vec<&'static str> {
        self.effects.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(crate) fn note(&self, name: &'static str) {
        self.effects.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// Returns those that Outlook.com always has. What it has on some days only is left out: that is for tests to
    /// switch on.
    #[must_use]
    pub fn exchange() -> Self {
        Self {
            inbox: "Inbox".to_owned(),
            case_insensitive: true,
            bare_names: true,
            special_use: true,
            status_space: true,
            sizes: Sizes::Estimated,
            // Users report errors above this; an on-premises server takes 10,240 bytes.
            max_line: 4096,
            max_bad: Some(10),
            max_connections: Some(20),
            pipelining: Pipelining::Refused,
            basic_auth: false,
            max_message: Some(45 << 20),
            max_message_line: Some(9900),
            reserved: vec!["Files".to_owned()],
            refuses_quoted_pairs: true,
            ..Self::default()
        }
    }
}
