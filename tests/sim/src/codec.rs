//! A second opinion on every command: what imap-codec makes of it. So a mistake in how the grammar is read here, which
//! the client under test might share, does not stay unseen.
//!
//! imap-codec does not know these, on which there is no second opinion: LIST with options or several patterns
//! (RFC 5258, RFC 5819), SEARCH RETURN (RFC 4731), APPEND of several messages (RFC 3502), NOTIFY (RFC 5465).

use std::num::NonZeroU32;

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder as _;
use imap_codec::imap_types::command::{CommandBody, FetchModifier, SelectParameter, StoreModifier};
use imap_codec::imap_types::core::AString;
use imap_codec::imap_types::extensions::binary::LiteralOrLiteral8;
use imap_codec::imap_types::fetch::{MacroOrMessageDataItemNames, MessageDataItemName, Section as Part};
use imap_codec::imap_types::flag::{Flag, StoreResponse, StoreType};
use imap_codec::imap_types::mailbox::{ListMailbox, Mailbox};
use imap_codec::imap_types::search::SearchKey;
use imap_codec::imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};
use imap_codec::imap_types::status::StatusDataItemName;

use crate::lex::UidSet;
use crate::parse::{How, Item, NewMessage, Request, Resync, Section, StatusItem};
use crate::search::Key;

/// Checks what was made of a command, given without its tag and its last CRLF.
///
/// # Errors
/// How imap-codec reads it, if not so.
pub(crate) fn agrees(input: &[u8], request: &Request) -> Result<(), String> {
    let unknown = match request {
        Request::List { .. } => {
            let words = String::from_utf8_lossy(input).to_ascii_uppercase();
            words.starts_with("LIST (") || words.contains(" RETURN (") || words.contains(" (")
        }
        Request::Search { returns, .. } => returns.is_some(),
        Request::Append { messages, .. } => messages.len() > 1,
        Request::Notify(_) => true,
        _ => false,
    };
    if unknown {
        return Ok(());
    }
    let line = [b"a ", input, b"\r\n"].concat();
    let (rest, command) = CommandCodec::default().decode(&line).map_err(|e| format!("imap-codec refuses it: {e:?}"))?;
    let read = converted(command.body).ok_or("imap-codec finds something in it that is not known here")?;
    match (rest, simple(read) == simple(request.clone())) {
        ([], true) => Ok(()),
        _ => Err("imap-codec reads it differently".to_owned()),
    }
}

/// Returns a request in the form in which two that mean the same are equal.
fn simple(request: Request) -> Request {
    match request {
        Request::Search { returns, keys } => Request::Search { returns, keys: vec![Key::And(keys).simple()] },
        other => other,
    }
}

/// Returns the command as it is carried out here, or `None` if it is not.
fn converted(body: CommandBody<'_>) -> Option<Request> {
    Some(match body {
        CommandBody::Capability => Request::Capability,
        CommandBody::Noop => Request::Noop,
        CommandBody::Logout => Request::Logout,
        CommandBody::Check => Request::Check,
        CommandBody::Close => Request::Close,
        CommandBody::Expunge => Request::Expunge,
        CommandBody::Unselect => Request::Unselect,
        CommandBody::Idle => Request::Idle,
        CommandBody::Namespace => Request::Namespace,
        CommandBody::Id { .. } => Request::Id,
        CommandBody::Enable { capabilities } => {
            Request::Enable(capabilities.into_iter().map(|c| c.to_string().to_ascii_uppercase()).collect())
        }
        CommandBody::Login { username, password } => {
            Request::Login { user: text(&username)?, password: text(password.declassify())? }
        }
        CommandBody::Authenticate { mechanism, initial_response } => Request::Authenticate {
            mechanism: mechanism.to_string().to_ascii_uppercase(),
            initial: initial_response.map(|r| r.declassify().to_vec()),
        },
        CommandBody::List { reference, mailbox_wildcard } => Request::List {
            special_only: false,
            reference: mailbox(&reference)?,
            patterns: vec![pattern(&mailbox_wildcard)?],
            special: false,
            status: None,
        },
        CommandBody::Lsub { reference, mailbox_wildcard } => {
            Request::Lsub { reference: mailbox(&reference)?, pattern: pattern(&mailbox_wildcard)? }
        }
        CommandBody::Status { mailbox: name, item_names } => Request::Status {
            mailbox: mailbox(&name)?,
            items: item_names.iter().map(status_item).collect::<Option<_>>()?,
        },
        CommandBody::Create { mailbox: name } => Request::Create(mailbox(&name)?),
        CommandBody::Delete { mailbox: name } => Request::Delete(mailbox(&name)?),
        CommandBody::Rename { from, to } => Request::Rename { from: mailbox(&from)?, to: mailbox(&to)? },
        CommandBody::Subscribe { mailbox: name } | CommandBody::Unsubscribe { mailbox: name } => {
            Request::Subscribe(mailbox(&name)?)
        }
        CommandBody::Select { mailbox, parameters } => select(&mailbox, parameters, false)?,
        CommandBody::Examine { mailbox, parameters } => select(&mailbox, parameters, true)?,
        CommandBody::Append { mailbox: name, flags: given, date, message } => {
            let LiteralOrLiteral8::Literal(message) = message else { return None };
            let date = date.map(|d| d.as_ref().timestamp());
            let message = NewMessage { flags: flags(&given), date, bytes: message.data().to_vec() };
            Request::Append { mailbox: mailbox(&name)?, messages: vec![message] }
        }
        CommandBody::Copy { sequence_set, mailbox: name, uid: true } => {
            Request::Copy { set: set(&sequence_set), mailbox: mailbox(&name)? }
        }
        CommandBody::Move { sequence_set, mailbox: name, uid: true } => {
            Request::Move { set: set(&sequence_set), mailbox: mailbox(&name)? }
        }
        CommandBody::ExpungeUid { sequence_set } => Request::UidExpunge(set(&sequence_set)),
        CommandBody::Search { criteria, uid: true, .. } => {
            Request::Search { returns: None, keys: criteria.into_iter().map(|k| key(&k)).collect::<Option<_>>()? }
        }
        CommandBody::Fetch { sequence_set, macro_or_item_names, uid: true, modifiers } => {
            fetch(&sequence_set, macro_or_item_names, modifiers)?
        }
        CommandBody::Store { sequence_set, kind, response, flags: given, uid: true, modifiers } => Request::Store {
            set: set(&sequence_set),
            unchanged_since: modifiers.into_iter().map(|StoreModifier::UnchangedSince(n)| n).next_back(),
            how: match kind {
                StoreType::Add => How::Add,
                StoreType::Remove => How::Remove,
                StoreType::Replace => How::Replace,
            },
            silent: matches!(response, StoreResponse::Silent),
            flags: flags(&given),
        },
        _ => return None,
    })
}

fn select(name: &Mailbox<'_>, parameters: Vec<SelectParameter>, read_only: bool) -> Option<Request> {
    let (mut condstore, mut resync) = (false, None);
    for parameter in parameters {
        match parameter {
            SelectParameter::CondStore => condstore = true,
            SelectParameter::QResync { uid_validity, mod_sequence_value, known_uids, .. } => {
                let (uid_validity, mod_seq) = (uid_validity.get(), mod_sequence_value.get());
                resync = Some(Resync { uid_validity, mod_seq, known: known_uids.as_ref().map(set) });
            }
        }
    }
    Some(Request::Select { mailbox: mailbox(name)?, read_only, condstore, resync })
}

fn fetch(uids: &SequenceSet, items: MacroOrMessageDataItemNames<'_>, modifiers: Vec<FetchModifier>) -> Option<Request> {
    let MacroOrMessageDataItemNames::MessageDataItemNames(names) = items else { return None };
    let (mut changed_since, mut vanished) = (None, false);
    for modifier in modifiers {
        match modifier {
            FetchModifier::ChangedSince(n) => changed_since = Some(n.get()),
            FetchModifier::Vanished => vanished = true,
        }
    }
    let items = names.into_iter().map(item).collect::<Option<_>>()?;
    Some(Request::Fetch { set: set(uids), items, changed_since, vanished })
}

fn item(name: MessageDataItemName<'_>) -> Option<Item> {
    Some(match name {
        MessageDataItemName::Uid => Item::Uid,
        MessageDataItemName::Flags => Item::Flags,
        MessageDataItemName::InternalDate => Item::InternalDate,
        MessageDataItemName::Rfc822Size => Item::Size,
        MessageDataItemName::ModSeq => Item::ModSeq,
        MessageDataItemName::BodyExt { section, partial, peek } => Item::Body {
            section: match section {
                None => Section::Whole,
                Some(Part::Header(None)) => Section::Header,
                Some(Part::HeaderFields(None, names)) => {
                    Section::Fields(names.into_iter().map(|n| text(&n)).collect::<Option<_>>()?)
                }
                Some(_) => return None,
            },
            partial: partial.map(|(offset, count)| (offset, count.get())),
            peek,
        },
        _ => return None,
    })
}

fn key(key_: &SearchKey<'_>) -> Option<Key> {
    let flag = |name: &str| Key::Flag(format!("\\{name}"));
    let not = |key: Key| Key::Not(Box::new(key));
    Some(match key_ {
        SearchKey::And(keys) => Key::And(keys.as_ref().iter().map(key).collect::<Option<_>>()?),
        SearchKey::All => Key::And(Vec::new()),
        SearchKey::Answered => flag("Answered"),
        SearchKey::Deleted => flag("Deleted"),
        SearchKey::Draft => flag("Draft"),
        SearchKey::Flagged => flag("Flagged"),
        SearchKey::Seen => flag("Seen"),
        SearchKey::Unanswered => not(flag("Answered")),
        SearchKey::Undeleted => not(flag("Deleted")),
        SearchKey::Undraft => not(flag("Draft")),
        SearchKey::Unflagged => not(flag("Flagged")),
        SearchKey::Unseen => not(flag("Seen")),
        SearchKey::Keyword(name) => Key::Flag(name.inner().to_owned()),
        SearchKey::Unkeyword(name) => not(Key::Flag(name.inner().to_owned())),
        SearchKey::Header(name, value) => Key::Header(text(name)?, text(value)?),
        SearchKey::Larger(size) => Key::Larger(*size),
        SearchKey::Smaller(size) => Key::Smaller(*size),
        SearchKey::ModSequence { entry: None, modseq } => Key::ModSeq(*modseq),
        SearchKey::Not(inner) => not(key(inner)?),
        SearchKey::Or(a, b) => Key::Or(Box::new(key(a)?), Box::new(key(b)?)),
        SearchKey::Uid(uids) => Key::Uids(set(uids)),
        _ => return None,
    })
}

fn status_item(name: &StatusDataItemName) -> Option<StatusItem> {
    Some(match name {
        StatusDataItemName::Messages => StatusItem::Messages,
        StatusDataItemName::Recent => StatusItem::Recent,
        StatusDataItemName::UidNext => StatusItem::UidNext,
        StatusDataItemName::UidValidity => StatusItem::UidValidity,
        StatusDataItemName::Unseen => StatusItem::Unseen,
        StatusDataItemName::HighestModSeq => StatusItem::HighestModSeq,
        _ => return None,
    })
}

fn set(uids: &SequenceSet) -> UidSet {
    let end = |end: &SeqOrUid| match end {
        SeqOrUid::Value(value) => Some(NonZeroU32::get(*value)),
        SeqOrUid::Asterisk => None,
    };
    UidSet::of(uids.0.as_ref().iter().map(|range| match range {
        Sequence::Single(one) => (end(one), end(one)),
        Sequence::Range(first, last) => (end(first), end(last)),
    }))
}

fn flags(given: &[Flag<'_>]) -> Vec<String> {
    given.iter().map(ToString::to_string).collect()
}

fn mailbox(name: &Mailbox<'_>) -> Option<String> {
    match name {
        Mailbox::Inbox => Some("INBOX".to_owned()),
        Mailbox::Other(other) => text(other.inner()),
    }
}

fn pattern(pattern: &ListMailbox<'_>) -> Option<String> {
    let bytes = match pattern {
        ListMailbox::Token(token) => token.as_ref(),
        ListMailbox::String(string) => string.as_ref(),
    };
    String::from_utf8(bytes.to_vec()).ok()
}

fn text(string: &AString<'_>) -> Option<String> {
    String::from_utf8(string.as_ref().to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decodes(input: &[u8]) -> bool {
        let line = [b"a ", input, b"\r\n"].concat();
        CommandCodec::default()
            .decode(&line)
            .is_ok_and(|(rest, command)| rest.is_empty() && converted(command.body).is_some())
    }

    #[test]
    fn what_imap_codec_knows() {
        let known = [
            "SELECT x (CONDSTORE)",
            "SELECT x (QRESYNC (7 4 1:3 (1 3)))",
            "UID FETCH 1:* (UID FLAGS MODSEQ) (CHANGEDSINCE 5 VANISHED)",
            "UID FETCH 1,3:4 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE)])",
            "UID STORE 1:2 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Seen $Forwarded)",
            "APPEND {1+}\r\nx (\\Seen) \"29-Feb-2000 01:00:00 +0100\" {3+}\r\nabc",
            "STATUS x (MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)",
            "LIST \"\" \"*\"",
            "ENABLE QRESYNC",
            "ID (\"name\" \"postkeep\" \"version\" NIL)",
            "UID MOVE 1 x",
            "UID EXPUNGE 1",
            "UID SEARCH UID 1:5",
            "UNSELECT",
            "NAMESPACE",
            "IDLE",
        ];
        known.iter().for_each(|c| assert!(decodes(c.as_bytes()), "{c}"));
        // When one of these is known, it needs no exception any more.
        let unknown = [
            "LIST \"\" (\"a\" \"b\") RETURN (SPECIAL-USE STATUS (MESSAGES))",
            "LIST (SPECIAL-USE) \"\" \"*\"",
            "UID SEARCH RETURN (ALL) ALL",
            "APPEND x {1+}\r\na {1+}\r\nb",
            "NOTIFY NONE",
        ];
        unknown.iter().for_each(|c| assert!(!decodes(c.as_bytes()), "{c}"));
    }

    #[test]
    fn a_disagreement_is_seen() {
        assert_eq!(agrees(b"NOOP", &Request::Noop), Ok(()));
        assert!(agrees(b"NOOP ", &Request::Noop).unwrap_err().contains("refuses"));
        assert!(agrees(b"NOOP", &Request::Check).unwrap_err().contains("differently"));
        assert!(agrees(b"FETCH 1 FLAGS", &Request::Noop).is_err());
    }
}
