//! The words of Exchange. What was seen on the wire is said exactly so; what was not is like it.

use crate::execute::Reply;

/// The answer to a command without the right number or shape of arguments, or too long.
pub(crate) const BAD_SHAPE: &str = "BAD Command Argument Error. 12";
/// The answer to a command with an argument that is not taken.
pub(crate) const BAD_ARGUMENT: &str = "BAD Command Argument Error. 11";
/// The answer to what is no command.
pub(crate) const BAD_COMMAND: &str = "BAD Command Error. 10";
/// The answer to a command that is out of place.
pub(crate) const BAD_STATE: &str = "BAD Command received in Invalid state.";
/// The answer to everything but CAPABILITY in a session that leads to no mailbox.
pub(crate) const NOT_CONNECTED: &str = "BAD User is authenticated but not connected.";
/// The end of a session that made too many mistakes.
pub(crate) const CLOSED: &str = "* BYE Connection closed. 14\r\n";
/// The end of every session.
pub(crate) const SIGNING_OFF: &str = "BYE Microsoft Exchange Server IMAP4 server signing off.";
/// The end of a session whose token has run out.
pub(crate) const TOKEN_EXPIRED: &str = "* BYE Session invalidated - AccessTokenExpired\r\n";
/// The answer to a password.
pub(crate) const NO_PASSWORDS: &str = "NO Basic authentication is disabled.";
/// The answer to ID.
pub(crate) const ID: &str = r#"ID ("name" "Microsoft.Exchange.Imap4.Imap4Server" "version" "15.20")"#;

/// Returns the answer to a command that cannot be read.
pub(crate) fn refusal(reason: &str) -> &'static str {
    match reason {
        r if r.contains("is not a command") => BAD_COMMAND,
        r if r.contains("an escape in a quoted string") => BAD_SHAPE,
        r if r.contains("is not a charset") => "NO [BADCHARSET (US-ASCII)] The specified charset is not supported.",
        _ => BAD_ARGUMENT,
    }
}

/// Puts the end of a reply into Exchange's words. `name` is that of the command.
pub(crate) fn worded(name: &str, reply: &mut Reply) {
    if reply.exact {
        return;
    }
    let name = name.rsplit(' ').next().unwrap_or(name);
    let (status, text) = reply.status.split_once(' ').unwrap_or((&reply.status, ""));
    let code = text.strip_prefix('[').and_then(|t| t.split_once(']')).map_or("", |(code, _)| code);
    let word = code.split(' ').next().unwrap_or("");
    let said = match (status, word) {
        ("OK", "" | "CAPABILITY") => format!("OK {name} completed."),
        ("OK", _) => format!("OK [{code}] {name} completed."),
        ("NO", "ALREADYEXISTS") => "NO Mailbox already exists.".to_owned(),
        ("NO", "NONEXISTENT") => "NO Mailbox does not exist.".to_owned(),
        ("NO", "TRYCREATE") => "NO [TRYCREATE] Mailbox does not exist.".to_owned(),
        ("NO", _) => format!("NO {name} failed."),
        _ => BAD_STATE.to_owned(),
    };
    reply.status = said;
}

/// A language in which an account was opened: its mailboxes are named in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Language {
    /// `Archive`, `Deleted`, `Sent`.
    #[default]
    English,
    /// As in an account opened in French, with names in modified UTF-7.
    French,
}

/// Returns the mailboxes of a new personal account besides INBOX, in the order of their names: name, whether it is
/// `\Marked`, special use.
pub(crate) fn mailboxes(language: Language) -> [(&'static str, bool, Option<&'static str>); 7] {
    let [archive, deleted, drafts, junk, notes, outbox, sent] = match language {
        Language::English => ["Archive", "Deleted", "Drafts", "Junk", "Notes", "Outbox", "Sent"],
        Language::French => [
            "Archive",
            "&AMk-l&AOk-ments supprim&AOk-s",
            "Brouillons",
            "Courrier ind&AOk-sirable",
            "Notes",
            "Bo&AO4-te d'envoi",
            "&AMk-l&AOk-ments envoy&AOk-s",
        ],
    };
    [
        (archive, false, None),
        (deleted, true, Some("\\Trash")),
        (drafts, true, Some("\\Drafts")),
        (junk, true, Some("\\Junk")),
        (notes, false, None),
        (outbox, false, None),
        (sent, true, Some("\\Sent")),
    ]
}
