//! Which mailboxes there are, and in what state (LIST, RFC 3501 §6.3.8; STATUS, §6.3.10; LIST-STATUS, RFC 5819).

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::connection::Event;
use super::parse::{Data, ListLine, StatusLine};
use super::wire::Answer;
use super::{Error, Habit, RawName, Session, roles};
use crate::model::{Cursor, MailboxName, ModSeq, Uid, UidValidity};

/// What a mailbox is for (RFC 6154 §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// The INBOX.
    Inbox,
    /// `\Trash`
    Trash,
    /// `\Sent`
    Sent,
    /// `\Drafts`
    Drafts,
    /// `\Junk`
    Junk,
    /// `\Archive`
    Archive,
    /// `\All`: shows what is in other mailboxes.
    All,
    /// `\Flagged`: shows what is in other mailboxes.
    Flagged,
}

/// The state of a mailbox, without selecting it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MailboxStatus {
    /// How many messages there are.
    pub messages: u32,
    /// The UID that the next message will get, if the server told.
    pub uid_next: Option<Uid>,
    /// The epoch of its UIDs.
    pub uid_validity: UidValidity,
    /// How many messages are unread, if the server told.
    pub unseen: Option<u32>,
    /// HIGHESTMODSEQ, if the server told; some say 0 of a mailbox that has none.
    pub highest_mod_seq: Option<ModSeq>,
}

impl MailboxStatus {
    /// Returns the cursor of this state, if the server told UIDNEXT.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        let Self { messages, uid_next, uid_validity, unseen, highest_mod_seq } = *self;
        uid_next.map(|uid_next| Cursor { uid_validity, uid_next, highest_mod_seq, messages, unseen })
    }
}

/// A mailbox that the server lists.
#[derive(Debug)]
pub struct Listed {
    /// Its name for users.
    pub name: MailboxName,
    /// Its name for the server.
    pub raw: RawName,
    /// What it is for, if the server says so.
    pub role: Option<Role>,
    /// It can hold messages.
    pub selectable: bool,
    /// Its state, or why it is not known; none if it is not selectable.
    pub status: Option<Result<MailboxStatus, Error>>,
}

/// The mailboxes of an account.
#[derive(Debug, Default)]
pub struct Lists {
    /// Those that can be used.
    pub mailboxes: Vec<Listed>,
    /// Those that cannot: the server's name in its text form, and why, as the end of a sentence.
    pub unusable: Vec<(String, String)>,
}

/// More mailboxes than this nobody has.
const MAX_MAILBOXES: usize = 10_000;
/// STATUS commands that are on their way at once.
const WINDOW: usize = 32;

impl Session {
    /// Lists the user's mailboxes with their states; those of other users and shared ones are left out.
    ///
    /// # Errors
    /// [`Error::Nonsense`] if INBOX is not among them, which every account has: so an answer that lists nothing is
    /// never taken for an account without mailboxes. [`Error::Refused`], or those of a connection that breaks.
    pub async fn list(&mut self) -> Result<Lists, Error> {
        let items = self.status_items();
        let (mut lines, mut states) = (Vec::new(), Vec::new());
        let command = self.connection.command("LIST").words(r#""" "*""#);
        let command = match (self.has("LIST-EXTENDED"), self.has("LIST-STATUS"), self.has("SPECIAL-USE")) {
            (true, true, true) => command.words(format_args!("RETURN (SPECIAL-USE STATUS {items})")),
            (true, true, false) => command.words(format_args!("RETURN (STATUS {items})")),
            (true, false, true) => command.words("RETURN (SPECIAL-USE)"),
            _ => command,
        };
        let on = |answer| {
            match answer {
                Answer::Data(Data::List(line)) if lines.len() < MAX_MAILBOXES => lines.push(line),
                Answer::Data(Data::List(_)) => {
                    return Err(Error::nonsense(None, format!("more than {MAX_MAILBOXES} mailboxes")));
                }
                Answer::Data(Data::Status(line)) => states.push(line),
                Answer::Data(Data::Broken) => return Err(Error::nonsense(None, "a line of LIST cannot be read")),
                _ => {}
            }
            Ok(())
        };
        self.connection.run_all(vec![command], 1, None, on).await?;
        let mut lists = self.names(lines)?;
        let mut states: BTreeMap<RawName, StatusLine> =
            states.into_iter().map(|line| (known_as(&line.name), line)).collect();
        for mailbox in lists.mailboxes.iter_mut().filter(|m| m.selectable) {
            mailbox.status = states.remove(&known_as(mailbox.raw.as_bytes())).map(|line| read(&line, &mailbox.raw));
        }
        self.ask_states(&mut lists.mailboxes, &items).await?;
        Ok(lists)
    }

    fn has(&self, capability: &str) -> bool {
        self.connection.capabilities.has(capability)
    }

    fn status_items(&self) -> String {
        let mod_seq = if self.has("CONDSTORE") { " HIGHESTMODSEQ" } else { "" };
        format!("(MESSAGES UIDNEXT UIDVALIDITY UNSEEN{mod_seq})")
    }

    /// Sorts the lines of LIST into mailboxes and those without a usable name.
    fn names(&mut self, lines: Vec<ListLine>) -> Result<Lists, Error> {
        let mut lists = Lists::default();
        let (mut raws, mut names) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            let raw = RawName::new(&line.name);
            if self.namespace.is_foreign(&raw) || !raws.insert(known_as(&line.name)) {
                continue;
            }
            let name = match self.namespace.name(&raw, line.separator) {
                Ok(name) if names.contains(&name) => Err(format!("named like another mailbox, {name}")),
                other => other,
            };
            match name {
                Ok(name) => {
                    names.insert(name.clone());
                    let has = |attribute: &str| line.attributes.iter().any(|a| a == attribute);
                    let selectable = !has("\\NOSELECT") && !has("\\NONEXISTENT");
                    let role = role(&name, has);
                    lists.mailboxes.push(Listed { name, raw, role, selectable, status: None });
                }
                Err(reason) => lists.unusable.push((raw.to_string(), reason)),
            }
        }
        if self.connection.quirks.has(Habit::NamesRoles) {
            roles::complete(&mut lists.mailboxes);
        }
        if !lists.mailboxes.iter().any(|m| m.name.is_inbox()) {
            return Err(Error::nonsense(None, "LIST did not name INBOX, so it cannot be complete"));
        }
        Ok(lists)
    }

    /// Asks for the states that are not known yet.
    async fn ask_states(&mut self, mailboxes: &mut [Listed], items: &str) -> Result<(), Error> {
        let unknown: Vec<usize> =
            (0..mailboxes.len()).filter(|i| mailboxes[*i].selectable && mailboxes[*i].status.is_none()).collect();
        let by_name: BTreeMap<RawName, usize> =
            unknown.iter().map(|i| (known_as(mailboxes[*i].raw.as_bytes()), *i)).collect();
        let command = |i: &usize| self.connection.command("STATUS").string(mailboxes[*i].raw.as_bytes()).words(items);
        let commands = unknown.iter().map(command).collect();
        let mut unclaimed: Option<StatusLine> = None;
        let mut flight = self.connection.fly(commands, WINDOW)?;
        while let Some(event) = flight.next().await? {
            match event {
                Event::Answer(Answer::Data(Data::Status(line))) => {
                    match by_name.get(&known_as(&line.name)) {
                        Some(i) => mailboxes[*i].status = Some(read(&line, &mailboxes[*i].raw)),
                        // Spelt in another way; it belongs to the command that ends next.
                        None => unclaimed = Some(line),
                    }
                }
                Event::Answer(_) => {}
                Event::Done(index, outcome) => {
                    let Listed { raw, status, .. } = &mut mailboxes[unknown[index]];
                    let missing = || Err(Error::nonsense(Some(raw), "STATUS was not answered"));
                    match outcome.check(Some(raw)) {
                        // The flight is given up, and with it the session.
                        Err(error) if error.is_for_the_session() => return Err(error),
                        Err(error) => *status = Some(Err(error)),
                        Ok(_) if status.is_some() => {}
                        Ok(_) => *status = Some(unclaimed.take().map_or_else(missing, |line| read(&line, raw))),
                    }
                    if let Some(Err(error)) = status {
                        warn!(mailbox = %raw, %error, "could not learn the state of a mailbox");
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the name under which answers about a mailbox are matched.
fn known_as(name: &[u8]) -> RawName {
    if name.eq_ignore_ascii_case(b"INBOX") { RawName::new(b"INBOX") } else { RawName::new(name) }
}

fn role(name: &MailboxName, has: impl Fn(&str) -> bool) -> Option<Role> {
    let attributes = [
        ("\\TRASH", Role::Trash),
        ("\\SENT", Role::Sent),
        ("\\DRAFTS", Role::Drafts),
        ("\\JUNK", Role::Junk),
        ("\\ARCHIVE", Role::Archive),
        ("\\ALL", Role::All),
        ("\\FLAGGED", Role::Flagged),
    ];
    if name.is_inbox() {
        return Some(Role::Inbox);
    }
    attributes.into_iter().find(|(attribute, _)| has(attribute)).map(|(_, role)| role)
}

fn read(line: &StatusLine, mailbox: &RawName) -> Result<MailboxStatus, Error> {
    let nonsense = |what: String| Error::nonsense(Some(mailbox), what);
    let count = |name: &str| {
        let number = line.item(name).map(u32::try_from).transpose();
        number.map_err(|_| nonsense(format!("{name} of STATUS is out of range")))
    };
    let uid_validity = line.item("UIDVALIDITY").ok_or_else(|| nonsense("STATUS gave no UIDVALIDITY".to_owned()))?;
    Ok(MailboxStatus {
        messages: count("MESSAGES")?.ok_or_else(|| nonsense("STATUS gave no MESSAGES".to_owned()))?,
        uid_next: line.item("UIDNEXT").map(Uid::new).transpose().map_err(|e| nonsense(e.to_string()))?,
        uid_validity: UidValidity::new(uid_validity).map_err(|e| nonsense(e.to_string()))?,
        unseen: count("UNSEEN")?,
        highest_mod_seq: line.item("HIGHESTMODSEQ").and_then(|n| ModSeq::new(n).ok()),
    })
}
