//! SELECT (RFC 3501 §6.3.1), with what CONDSTORE and QRESYNC add to it (RFC 7162).

use std::collections::BTreeMap;

use super::parse::Data;
use super::wire::{Answer, Fetch};
use super::{Error, RawName, Session};
use crate::model::{Flag, Flags, ModSeq, RemoteMessage, Uid, UidSet, UidValidity};

/// A selected mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selected {
    /// The server's name of it.
    pub raw: RawName,
    /// The epoch of its UIDs.
    pub uid_validity: UidValidity,
    /// UIDNEXT when it was selected, if the server told.
    pub uid_next: Option<Uid>,
    /// How many messages there are by now.
    pub exists: u32,
    /// HIGHESTMODSEQ when it was selected; none where the server has none, for this mailbox or at all.
    pub highest_mod_seq: Option<ModSeq>,
    /// The flags and keywords that can be changed for good (PERMANENTFLAGS); all system flags where the server did not
    /// tell.
    pub permanent: Flags,
    /// New keywords can be made (`\*`).
    pub any_keyword: bool,
    /// Nothing can be changed.
    pub read_only: bool,
}

/// A selected mailbox, and what QRESYNC told of its changes.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) selected: Selected,
    pub(super) changed: BTreeMap<Uid, RemoteMessage>,
    pub(super) vanished: UidSet,
}

impl Session {
    /// Selects a mailbox, and leaves the one that was selected.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Nonsense`] if EXISTS or a valid UIDVALIDITY is missing, or those of a connection
    /// that breaks. No mailbox is selected then.
    pub async fn select(&mut self, mailbox: &RawName) -> Result<Selected, Error> {
        Ok(self.select_since(mailbox, None).await?.selected)
    }

    /// Selects a mailbox and, given a state of it, learns what changed since (QRESYNC).
    pub(super) async fn select_since(
        &mut self,
        mailbox: &RawName,
        since: Option<(UidValidity, ModSeq)>,
    ) -> Result<Reply, Error> {
        let command = self.connection.command("SELECT").string(mailbox.as_bytes());
        let command = match since {
            Some((uid_validity, mod_seq)) => command.words(format_args!("(QRESYNC ({uid_validity} {mod_seq}))")),
            None if self.connection.capabilities.has("CONDSTORE") => command.words("(CONDSTORE)"),
            None => command,
        };
        self.connection.selected = None;
        let mut told = Told::default();
        let codes =
            self.connection.run_all(vec![command], 1, Some(mailbox), |answer| told.take(answer, mailbox)).await?;
        let nonsense = |what: &str| Error::nonsense(Some(mailbox), what);
        if !told.exists {
            return Err(nonsense("SELECT did not tell how many messages there are"));
        }
        let uid_validity = told.uid_validity.ok_or_else(|| nonsense("SELECT gave no UIDVALIDITY"))?;
        let selected = Selected {
            raw: mailbox.clone(),
            uid_validity: UidValidity::new(uid_validity).map_err(|e| nonsense(&e.to_string()))?,
            uid_next: told.uid_next.map(Uid::new).transpose().map_err(|e| nonsense(&e.to_string()))?,
            exists: self.connection.exists,
            // Some servers say 0 where they mean NOMODSEQ.
            highest_mod_seq: told.highest_mod_seq.and_then(|n| ModSeq::new(n).ok()),
            permanent: told.permanent.unwrap_or_else(Flags::system),
            any_keyword: told.any_keyword,
            read_only: codes.iter().any(|c| c.is("READ-ONLY")),
        };
        self.connection.selected = Some(selected.clone());
        Ok(Reply { selected, changed: told.changed, vanished: told.vanished })
    }
}

/// What the answers to SELECT told so far.
#[derive(Default)]
struct Told {
    exists: bool,
    uid_validity: Option<u64>,
    uid_next: Option<u64>,
    highest_mod_seq: Option<u64>,
    permanent: Option<Flags>,
    any_keyword: bool,
    changed: BTreeMap<Uid, RemoteMessage>,
    vanished: UidSet,
}

impl Told {
    fn take(&mut self, answer: Answer, mailbox: &RawName) -> Result<(), Error> {
        match answer {
            Answer::Exists(_) => self.exists = true,
            Answer::Untagged { code, .. } => match code.name.as_str() {
                // All before this was about the mailbox that was selected before (RFC 7162 §3.2.11).
                "CLOSED" => *self = Self::default(),
                "UIDVALIDITY" => self.uid_validity = code.number(),
                "UIDNEXT" => self.uid_next = code.number(),
                "HIGHESTMODSEQ" => self.highest_mod_seq = code.number(),
                "NOMODSEQ" => self.highest_mod_seq = None,
                "PERMANENTFLAGS" => {
                    let mut flags = Flags::new();
                    for name in code.words() {
                        let any_keyword = name == "\\*";
                        self.any_keyword |= any_keyword;
                        // To the server `$Forwarded` is a keyword like any other.
                        flags.insert_imap(if any_keyword { Flag::Forwarded.imap() } else { &name });
                    }
                    self.permanent = Some(flags);
                }
                _ => {}
            },
            Answer::Data(Data::Vanished { uids, .. }) => {
                uids.ranges().for_each(|(a, b)| self.vanished.insert_range(a, b));
            }
            Answer::Data(Data::Broken) => {
                return Err(Error::nonsense(Some(mailbox), "a line of SELECT cannot be read"));
            }
            Answer::Fetch(fetch) => {
                if let Some((uid, message)) = seen(&fetch, mailbox)? {
                    self.changed.insert(uid, message);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the message that a FETCH tells the flags of; nothing if it has no UID, for it was not asked for then.
///
/// # Errors
/// [`Error::Nonsense`] if it has no flags: to take that for no flags would remove them all.
pub(super) fn seen(fetch: &Fetch, mailbox: &RawName) -> Result<Option<(Uid, RemoteMessage)>, Error> {
    let Some(uid) = fetch.uid else { return Ok(None) };
    let Some(flags) = fetch.flags.clone() else {
        return Err(Error::nonsense(Some(mailbox), format!("message {uid} was listed without readable flags")));
    };
    Ok(Some((uid, RemoteMessage { flags, mod_seq: fetch.mod_seq.and_then(|n| ModSeq::new(n).ok()) })))
}
