//! What can go wrong with a server: one variant for each thing to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::model::{Uid, misleads};

/// How much is broken by an error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// One message; the others can go on.
    Message,
    /// One mailbox; the others can go on, on the same session.
    Mailbox,
    /// The whole account: the session is of no more use.
    Account,
}

/// When it makes sense to try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// At once, on a new session.
    Now,
    /// After a pause of at least this length.
    Later(Duration),
    /// Not before something about it changes.
    Never,
}

/// An error of the server, the way to it, or the use of it.
///
/// Words of the server in it are without control characters and at most 300 characters long.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// No connection came about.
    #[error("cannot reach {host}:{port}: {reason}")]
    Unreachable {
        /// The configured host.
        host: String,
        /// The configured port.
        port: u16,
        /// What was tried, and what happened.
        reason: String,
    },
    /// The server's certificate is not to be trusted, or TLS itself failed. Nothing was sent.
    #[error("cannot trust {host}: {reason}")]
    Certificate {
        /// The configured host.
        host: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// What was configured cannot be done safely, or at all.
    #[error("{0}")]
    Configuration(String),
    /// The server does not let the user in. A fresh token may help once, then only the user.
    #[error("the server refused the sign-in: {text}")]
    SignIn {
        /// The server's words.
        text: String,
    },
    /// The server ended the session because its access token ran out. A new session with a new token goes on.
    #[error("the access token of the session ran out: {text}")]
    TokenExpired {
        /// The server's words.
        text: String,
    },
    /// The server lets nobody in now, or not over one more connection. What is open already goes on.
    #[error("the server turns away: {text}")]
    TurnedAway {
        /// The server's words.
        text: String,
    },
    /// The server asks to come back later, or is not well.
    #[error("the server is not available: {text}")]
    Unavailable {
        /// How long the server asked to be left alone.
        pause: Option<Duration>,
        /// The server's words.
        text: String,
    },
    /// The server has had enough of this account for a while, over whatever connection.
    #[error("the server asks to be left alone for {}: {text}", span(*.pause))]
    Throttled {
        /// For how long.
        pause: Duration,
        /// The server's words.
        text: String,
    },
    /// The sign-in was accepted, but leads to no mailbox. Neither the password or token is wrong by that, nor are the
    /// mailboxes gone.
    #[error("the server accepted the sign-in, but does not open the mailbox: {text}")]
    NotConnected {
        /// The server's words.
        text: String,
    },
    /// The connection ended, or is of no more use after an earlier error.
    #[error("the connection ended: {text}")]
    Closed {
        /// The server's last words, or what ended it.
        text: String,
    },
    /// Nothing came or went for too long.
    #[error("no byte came or went for {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// The server said NO.
    #[error("the server refused {command}{}: {text}", of(.mailbox))]
    Refused {
        /// The command.
        command: &'static str,
        /// The mailbox it was about, in the server's words.
        mailbox: Option<String>,
        /// The response code in upper case, like `OVERQUOTA` (RFC 5530), or nothing.
        code: String,
        /// The server's words.
        text: String,
    },
    /// The server said BAD: it does not understand the command, or is confused.
    #[error("the server did not understand {command}{}: {text}", of(.mailbox))]
    Bad {
        /// The command.
        command: &'static str,
        /// The mailbox it was about, in the server's words.
        mailbox: Option<String>,
        /// The server's words.
        text: String,
    },
    /// The server lost track of the session, or cannot do in it what it was asked: another session may.
    #[error("the server lost track at {command}{}: {text}", of(.mailbox))]
    Confused {
        /// The command.
        command: &'static str,
        /// The mailbox it was about, in the server's words.
        mailbox: Option<String>,
        /// The server's words.
        text: String,
    },
    /// The server sent what IMAP does not allow; the connection is still in step.
    #[error("the server's answer{} makes no sense: {what}", of(.mailbox))]
    Nonsense {
        /// The mailbox it was about, in the server's words.
        mailbox: Option<String>,
        /// What was wrong with it.
        what: String,
    },
    /// The server sent what IMAP does not allow, and the connection was given up.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// A message is larger than is allowed. The connection was given up, because the rest would have to be read.
    #[error("message {} of {size} bytes is larger than max_message_size ({limit} bytes)", number(.uid))]
    TooLarge {
        /// Which, if the server told before its body.
        uid: Option<Uid>,
        /// Bytes that the server announced.
        size: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// The server lacks an extension that this needs.
    #[error("the server cannot do this: it has no {0}")]
    Unsupported(&'static str),
    /// A name that the server cannot have.
    #[error("mailbox name {name} cannot be used on this server: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A file of ours could not be read or written.
    #[error("{what}: {source}")]
    Local {
        /// What was to be done with which file.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn of(mailbox: &Option<String>) -> impl fmt::Display {
    mailbox.as_ref().map(|m| format!(" for mailbox {m}")).unwrap_or_default()
}

/// Returns a time in words, rounded up.
fn span(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    if seconds < 120 { format!("{seconds} seconds") } else { format!("{} minutes", seconds.div_ceil(60)) }
}

fn number(uid: &Option<Uid>) -> impl fmt::Display {
    uid.map_or_else(|| "of unknown UID".to_owned(), |u| u.to_string())
}

/// A pause for what the server will not get over in a moment.
const MINUTE: Duration = Duration::from_secs(60);

impl Error {
    /// Tells whether it is a no to what was asked, so that other things may be asked for over the same session.
    #[must_use]
    pub fn is_no(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Bad { .. })
    }

    /// Tells how much is broken.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Unreachable { .. }
            | Self::Certificate { .. }
            | Self::Configuration(_)
            | Self::SignIn { .. }
            | Self::TokenExpired { .. }
            | Self::TurnedAway { .. }
            | Self::Unavailable { .. }
            | Self::Throttled { .. }
            | Self::NotConnected { .. }
            | Self::Closed { .. }
            | Self::TimedOut(_)
            | Self::Confused { .. }
            | Self::Protocol(_)
            | Self::Local { .. } => Scope::Account,
            Self::TooLarge { .. } => Scope::Message,
            Self::Refused { mailbox: None, .. }
            | Self::Bad { mailbox: None, .. }
            | Self::Nonsense { mailbox: None, .. } => Scope::Account,
            Self::Refused { .. }
            | Self::Bad { .. }
            | Self::Nonsense { .. }
            | Self::Unsupported(_)
            | Self::Name { .. } => Scope::Mailbox,
        }
    }

    /// Tells when to try again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Closed { .. } | Self::TokenExpired { .. } | Self::TimedOut(_) | Self::Confused { .. } => Retry::Now,
            Self::Unavailable { pause, .. } => Retry::Later(pause.unwrap_or(MINUTE)),
            Self::Throttled { pause, .. } => Retry::Later(*pause),
            Self::TurnedAway { .. } | Self::NotConnected { .. } => Retry::Later(MINUTE),
            Self::Unreachable { .. } => Retry::Later(MINUTE / 2),
            Self::Local { .. } => Retry::Later(MINUTE),
            Self::Refused { code, .. } => match code.as_str() {
                "UNAVAILABLE" | "INUSE" | "LIMIT" | "SERVERBUG" | "CONTACTADMIN" | "" => Retry::Later(10 * MINUTE),
                "OVERQUOTA" => Retry::Later(60 * MINUTE),
                _ => Retry::Never,
            },
            Self::Bad { .. } | Self::Nonsense { .. } | Self::Protocol(_) => Retry::Later(10 * MINUTE),
            Self::Certificate { .. } => Retry::Later(60 * MINUTE),
            Self::Configuration(_)
            | Self::SignIn { .. }
            | Self::TooLarge { .. }
            | Self::Unsupported(_)
            | Self::Name { .. } => Retry::Never,
        }
    }

    /// Tells whether whatever came next in this session would fail as well.
    pub(super) fn is_for_the_session(&self) -> bool {
        matches!(
            self,
            Self::TurnedAway { .. }
                | Self::Unavailable { .. }
                | Self::Throttled { .. }
                | Self::NotConnected { .. }
                | Self::Confused { .. }
        )
    }

    pub(super) fn nonsense(mailbox: Option<&dyn fmt::Display>, what: impl Into<String>) -> Self {
        Self::Nonsense { mailbox: mailbox.map(ToString::to_string), what: what.into() }
    }

    pub(super) fn local(what: impl Into<String>, source: io::Error) -> Self {
        Self::Local { what: what.into(), source }
    }
}

/// Returns the server's words fit for a terminal: without control characters, at most 300 characters.
pub(super) fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * 300)]);
    text.chars().map(|c| if misleads(c) { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
}

/// Tells what the last words of a server mean (Exchange says `Session invalidated - AccessTokenExpired`).
pub(super) fn goodbye(text: String) -> Error {
    if text.to_ascii_lowercase().contains("accesstokenexpired") {
        return Error::TokenExpired { text };
    }
    unavailable("", &text).unwrap_or(Error::Closed { text })
}

/// Tells whether these words mean that the server as a whole is not well, whatever status carries them, and how long
/// it asks to be left alone (Exchange says so with NO, with BAD and without any status).
pub(super) fn unavailable(code: &str, text: &str) -> Option<Error> {
    let lower = text.to_ascii_lowercase();
    let pause = lower.split_once("backoff time:").and_then(|(_, rest)| {
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        // The cap of an hour keeps a slip of the server from silencing the account for days.
        digits.parse().ok().map(|ms: u64| Duration::from_millis(ms).min(60 * MINUTE))
    });
    let says = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
    let text = || text.to_owned();
    if pause.is_some() || says(&["is throttled", "accountisthrottled"]) {
        // Those who tell a time told between one and five minutes.
        return Some(Error::Throttled { pause: pause.unwrap_or(5 * MINUTE), text: text() });
    }
    if says(&["authenticated but not connected"]) {
        return Some(Error::NotConnected { text: text() });
    }
    if says(&["too many simultaneous", "too many connections"]) {
        return Some(Error::TurnedAway { text: text() });
    }
    let unwell = code == "UNAVAILABLE" || says(&["server unavailable"]);
    unwell.then(|| Error::Unavailable { pause: None, text: text() })
}

/// Tells what a refused sign-in means: that nobody is let in now, or that this user is not.
pub(super) fn not_let_in(code: &str, text: String) -> Error {
    match unavailable(code, &text) {
        Some(Error::Unavailable { .. }) => Error::TurnedAway { text },
        Some(error) => error,
        // What the user must read; unless it is about what he signs in with.
        None if code == "ALERT" && !is_about_sign_in(&text) => Error::TurnedAway { text },
        None => Error::SignIn { text },
    }
}

/// Tells what a server means that says goodbye in place of a greeting.
pub(super) fn not_greeted(text: String) -> Error {
    match unavailable("", &text) {
        Some(error @ (Error::Throttled { .. } | Error::NotConnected { .. })) => error,
        Some(_) | None => Error::TurnedAway { text },
    }
}

/// Google sends an alert to those who have to use a password of another kind, or to sign in with a browser first.
fn is_about_sign_in(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["password", "credential", "username", "authenticat", "log in", "login", "sign in", "account", "browser"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// Tells whether these words of a BAD mean that the session is at fault and not the command: Exchange says so when it
/// has lost its way, when a token ran out, and of a message that it fails at.
pub(super) fn lost_track(text: &str) -> bool {
    ["Command Error. 10", "received in Invalid state"].iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_harmless_and_short() {
        assert_eq!(words(b"\x1b[31mred\r\n"), "[31mred");
        assert_eq!(words("é".repeat(2000).as_bytes()).chars().count(), 300);
    }

    #[test]
    fn an_unwell_server_is_recognised() {
        let table = [
            ("Request is throttled. Suggested Backoff Time: 299961 milliseconds", Some("for 5 minutes")),
            ("Request is throttled. Suggested Backoff Time: 92415 milliseconds", Some("for 93 seconds")),
            ("Request is throttled. Suggested Backoff Time: 99999999999", Some("for 60 minutes")),
            ("Request is throttled.", Some("for 5 minutes")),
            ("User is authenticated but not connected.", Some("accepted the sign-in, but does not open the mailbox")),
            ("Server Unavailable. 15", Some("the server is not available")),
            ("Mailbox does not exist", None),
            ("Command Argument Error. 11", None),
        ];
        for (text, said) in table {
            let error = unavailable("", text).map(|error| error.to_string());
            assert_eq!(error.is_some(), said.is_some(), "{text}");
            let found = said.is_none_or(|said| error.as_ref().is_some_and(|error| error.contains(said)));
            assert!(found, "{text}: {error:?}");
        }
        assert!(unavailable("UNAVAILABLE", "later").is_some());
        assert!(lost_track("Command Error. 10") && !lost_track("Command Argument Error. 11"));
    }

    #[test]
    fn who_is_turned_away_is_told_from_who_is_refused() {
        let table = [
            ("UNAVAILABLE", "later", true),
            ("", "Too many simultaneous connections. (Failure)", true),
            ("LIMIT", "Too many connections from your address", true),
            ("ALERT", "The server is being moved tonight", true),
            ("ALERT", "Application-specific password required (Failure)", false),
            ("ALERT", "Please log in via your web browser (Failure)", false),
            ("AUTHENTICATIONFAILED", "no", false),
            ("", "AUTHENTICATE failed.", false),
        ];
        for (code, text, turned_away) in table {
            let error = not_let_in(code, text.to_owned());
            let expected = if turned_away {
                matches!(error, Error::TurnedAway { .. })
            } else {
                matches!(error, Error::SignIn { .. })
            };
            assert!(expected, "[{code}] {text}: {error}");
        }
        for text in ["Server Unavailable. 15", "down for maintenance", "Too many connections"] {
            let error = not_greeted(text.to_owned());
            assert!(matches!(error, Error::TurnedAway { .. }) && error.scope() == Scope::Account, "{text}");
            assert_eq!(error.to_string(), format!("the server turns away: {text}"));
        }
        assert!(matches!(goodbye("Too many connections".to_owned()), Error::TurnedAway { .. }));
        assert!(matches!(not_greeted("Request is throttled.".to_owned()), Error::Throttled { .. }));
    }

    #[test]
    fn a_goodbye_says_why() {
        let expired = goodbye("Session invalidated - AccessTokenExpired".to_owned());
        assert!(matches!(expired, Error::TokenExpired { .. }) && expired.retry() == Retry::Now);
        assert!(matches!(goodbye("Server Unavailable. 15".to_owned()), Error::Unavailable { .. }));
        assert!(matches!(goodbye("Connection closed. 14".to_owned()), Error::Closed { .. }));
    }

    #[test]
    fn each_error_says_what_to_do() {
        let refused = |code: &str| Error::Refused {
            command: "APPEND",
            mailbox: Some("Sent".into()),
            code: code.into(),
            text: "no".into(),
        };
        assert_eq!(refused("").to_string(), "the server refused APPEND for mailbox Sent: no");
        assert_eq!(refused("TOOBIG").retry(), Retry::Never);
        assert_eq!(refused("OVERQUOTA").retry(), Retry::Later(60 * MINUTE));
        assert_eq!(refused("X").scope(), Scope::Mailbox);
        let large = Error::TooLarge { uid: Uid::new(7).ok(), size: 9, limit: 8 };
        assert_eq!(large.to_string(), "message 7 of 9 bytes is larger than max_message_size (8 bytes)");
    }
}
