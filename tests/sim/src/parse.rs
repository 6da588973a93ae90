//! Reads commands, strictly: what the grammar of RFC 3501 §9 and of the announced extensions does not allow is an
//! error.

use crate::Profile;
use crate::date;
use crate::lex::{Parsed, Parser, UidSet, base64, is_atom, text};
use crate::notify::Wish;
use crate::quirks::Quirks;
use crate::search::Key;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Section {
    Whole,
    Header,
    /// The names of the fields, as sent.
    Fields(Vec<String>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Uid,
    Flags,
    InternalDate,
    Size,
    ModSeq,
    Body { section: Section, partial: Option<(u32, u32)>, peek: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    HighestModSeq,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Resync {
    pub(crate) uid_validity: u32,
    pub(crate) mod_seq: u64,
    pub(crate) known: Option<UidSet>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    Add,
    Remove,
    Replace,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewMessage {
    pub(crate) flags: Vec<String>,
    pub(crate) date: Option<i64>,
    pub(crate) bytes: Vec<u8>,
}

/// A command without its tag.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Request {
    Capability,
    Noop,
    Check,
    Close,
    Logout,
    Unselect,
    Idle,
    Namespace,
    Expunge,
    Id,
    Enable(Vec<String>),
    Login {
        user: String,
        password: String,
    },
    Authenticate {
        mechanism: String,
        initial: Option<Vec<u8>>,
    },
    List {
        special_only: bool,
        reference: String,
        patterns: Vec<String>,
        special: bool,
        status: Option<Vec<StatusItem>>,
    },
    Lsub {
        reference: String,
        pattern: String,
    },
    Status {
        mailbox: String,
        items: Vec<StatusItem>,
    },
    Create(String),
    Delete(String),
    Rename {
        from: String,
        to: String,
    },
    Subscribe(String),
    Select {
        mailbox: String,
        read_only: bool,
        condstore: bool,
        resync: Option<Resync>,
    },
    Fetch {
        set: UidSet,
        items: Vec<Item>,
        changed_since: Option<u64>,
        vanished: bool,
    },
    Search {
        returns: Option<Vec<String>>,
        keys: Vec<Key>,
    },
    Store {
        set: UidSet,
        unchanged_since: Option<u64>,
        how: How,
        silent: bool,
        flags: Vec<String>,
    },
    Append {
        mailbox: String,
        messages: Vec<NewMessage>,
    },
    Copy {
        set: UidSet,
        mailbox: String,
    },
    Move {
        set: UidSet,
        mailbox: String,
    },
    UidExpunge(UidSet),
    /// What to tell unasked; `None` ends it.
    Notify(Option<Wish>),
}

/// Reads a command that is complete with its literals, without its tag and its last CRLF.
pub(crate) fn request(input: &[u8], profile: Profile, quirks: &Quirks) -> Parsed<Request> {
    let mut p = Parser::new(input, profile, quirks.refuses_quoted_pairs);
    let request = p.request()?;
    if p.ended() { Ok(request) } else { p.fail("the end") }
}

impl Request {
    /// Returns a COPY or MOVE that names no message; others as they are.
    pub(crate) fn of_nothing(self) -> Self {
        match self {
            Self::Copy { mailbox, .. } => Self::Copy { set: UidSet::default(), mailbox },
            Self::Move { mailbox, .. } => Self::Move { set: UidSet::default(), mailbox },
            other => other,
        }
    }
}

impl Parser<'_> {
    fn request(&mut self) -> Parsed<Request> {
        let name = self.word()?;
        Ok(match name.as_str() {
            "CAPABILITY" => Request::Capability,
            "NOOP" => Request::Noop,
            "CHECK" => Request::Check,
            "CLOSE" => Request::Close,
            "LOGOUT" => Request::Logout,
            "EXPUNGE" => Request::Expunge,
            "UNSELECT" => self.needs("UNSELECT").map(|()| Request::Unselect)?,
            "IDLE" => self.needs("IDLE").map(|()| Request::Idle)?,
            "NAMESPACE" => self.needs("NAMESPACE").map(|()| Request::Namespace)?,
            "ID" => self.id()?,
            "ENABLE" => self.enable()?,
            "LOGIN" => Request::Login { user: self.sp_astring()?, password: self.sp_astring()? },
            "AUTHENTICATE" => self.authenticate()?,
            "LIST" => self.list()?,
            "LSUB" => {
                self.sp()?;
                let reference = self.mailbox()?;
                self.sp()?;
                Request::Lsub { reference, pattern: self.pattern()? }
            }
            "STATUS" => Request::Status { mailbox: self.sp_mailbox()?, items: self.sp().and_then(|()| self.status())? },
            "CREATE" => Request::Create(self.sp_mailbox()?),
            "DELETE" => Request::Delete(self.sp_mailbox()?),
            "RENAME" => Request::Rename { from: self.sp_mailbox()?, to: self.sp_mailbox()? },
            "SUBSCRIBE" | "UNSUBSCRIBE" => Request::Subscribe(self.sp_mailbox()?),
            "SELECT" => self.select(false)?,
            "EXAMINE" => self.select(true)?,
            "APPEND" => self.append()?,
            "UID" => self.uid()?,
            "NOTIFY" => self.needs("NOTIFY").and_then(|()| self.notify()).map(Request::Notify)?,
            "FETCH" | "STORE" | "COPY" | "MOVE" | "SEARCH" => return Err(format!("{name} uses sequence numbers")),
            _ => return Err(format!("{name} is not a command that this server knows")),
        })
    }

    fn uid(&mut self) -> Parsed<Request> {
        self.sp()?;
        let name = self.word()?;
        self.sp()?;
        match name.as_str() {
            "FETCH" => self.fetch(),
            "SEARCH" => self.search(),
            "STORE" => self.store(),
            "COPY" => Ok(Request::Copy { set: self.set()?, mailbox: self.sp_mailbox()? }),
            "MOVE" => {
                self.needs("MOVE")?;
                Ok(Request::Move { set: self.set()?, mailbox: self.sp_mailbox()? })
            }
            "EXPUNGE" => {
                self.needs("UIDPLUS")?;
                Ok(Request::UidExpunge(self.set()?))
            }
            _ => Err(format!("UID {name} is not a command that this server knows")),
        }
    }

    fn id(&mut self) -> Parsed<Request> {
        self.needs("ID")?;
        self.sp()?;
        if !self.eat_word("NIL") {
            self.list_of(|p| {
                p.string()?;
                p.sp()?;
                if p.eat_word("NIL") { Ok(()) } else { p.string().map(drop) }
            })?;
        }
        Ok(Request::Id)
    }

    fn enable(&mut self) -> Parsed<Request> {
        self.needs("ENABLE")?;
        let mut names = Vec::new();
        while self.eat(b' ') {
            names.push(self.word()?);
        }
        if names.is_empty() { self.fail("a capability") } else { Ok(Request::Enable(names)) }
    }

    fn authenticate(&mut self) -> Parsed<Request> {
        self.sp()?;
        let mechanism = self.word()?;
        self.needs(&format!("AUTH={mechanism}"))?;
        let initial = if self.eat(b' ') {
            self.needs("SASL-IR")?;
            let text = self.take(|b| b.is_ascii_graphic());
            if text == b"=" { Some(Vec::new()) } else { Some(base64(text)?) }
        } else {
            None
        };
        Ok(Request::Authenticate { mechanism, initial })
    }

    fn list(&mut self) -> Parsed<Request> {
        self.sp()?;
        let mut special_only = false;
        if self.peek() == Some(b'(') {
            self.needs("LIST-EXTENDED")?;
            self.list_of(|p| match p.word()?.as_str() {
                "SPECIAL-USE" => p.needs("SPECIAL-USE").map(|()| special_only = true),
                "SUBSCRIBED" | "REMOTE" => Ok(()),
                other => Err(format!("{other} is not a selection option")),
            })?;
            self.sp()?;
        }
        let reference = self.mailbox()?;
        self.sp()?;
        let patterns = if self.peek() == Some(b'(') {
            self.needs("LIST-EXTENDED")?;
            self.list_of(Self::pattern)?
        } else {
            vec![self.pattern()?]
        };
        let (mut special, mut status) = (false, None);
        if self.eat(b' ') {
            self.expect_word("RETURN")?;
            self.needs("LIST-EXTENDED")?;
            self.sp()?;
            self.list_of(|p| match p.word()?.as_str() {
                "SPECIAL-USE" => p.needs("SPECIAL-USE").map(|()| special = true),
                "STATUS" => {
                    p.needs("LIST-STATUS")?;
                    p.sp()?;
                    status = Some(p.status()?);
                    Ok(())
                }
                "CHILDREN" | "SUBSCRIBED" => Ok(()),
                other => Err(format!("{other} is not a return option")),
            })?;
        }
        Ok(Request::List { special_only, reference, patterns, special, status })
    }

    fn pattern(&mut self) -> Parsed<String> {
        if matches!(self.peek(), Some(b'"' | b'{')) {
            return text(self.string()?);
        }
        let pattern = self.take(|b| is_atom(b) || b"%*]".contains(&b)).to_vec();
        if pattern.is_empty() { self.fail("a pattern") } else { text(pattern) }
    }

    fn status(&mut self) -> Parsed<Vec<StatusItem>> {
        let items = self.list_of(|p| match p.word()?.as_str() {
            "MESSAGES" => Ok(StatusItem::Messages),
            "RECENT" => Ok(StatusItem::Recent),
            "UIDNEXT" => Ok(StatusItem::UidNext),
            "UIDVALIDITY" => Ok(StatusItem::UidValidity),
            "UNSEEN" => Ok(StatusItem::Unseen),
            "HIGHESTMODSEQ" => p.needs("CONDSTORE").map(|()| StatusItem::HighestModSeq),
            other => Err(format!("{other} is not a status item")),
        })?;
        if items.is_empty() { self.fail("a status item") } else { Ok(items) }
    }

    fn select(&mut self, read_only: bool) -> Parsed<Request> {
        let mailbox = self.sp_mailbox()?;
        let (mut condstore, mut resync) = (false, None);
        if self.eat(b' ') {
            self.list_of(|p| match p.word()?.as_str() {
                "CONDSTORE" => p.needs("CONDSTORE").map(|()| condstore = true),
                "QRESYNC" => {
                    p.needs("QRESYNC")?;
                    p.sp()?;
                    resync = Some(p.resync()?);
                    Ok(())
                }
                other => Err(format!("{other} is not a parameter of SELECT")),
            })?;
        }
        Ok(Request::Select { mailbox, read_only, condstore, resync })
    }

    /// Reads `(uidvalidity mod-sequence [known-uids [(known sequence numbers, their UIDs)]])` (RFC 7162 §3.2.5).
    fn resync(&mut self) -> Parsed<Resync> {
        self.byte(b'(')?;
        let uid_validity = self.nz_number()?;
        self.sp()?;
        let mod_seq = self.mod_seq(1)?;
        let mut known = None;
        if self.eat(b' ') {
            if self.peek() != Some(b'(') {
                known = Some(self.known_set()?);
            }
            if known.is_none() || self.eat(b' ') {
                self.byte(b'(')?;
                self.known_set()?;
                self.sp()?;
                self.known_set()?;
                self.byte(b')')?;
            }
        }
        self.byte(b')')?;
        Ok(Resync { uid_validity, mod_seq, known })
    }

    fn known_set(&mut self) -> Parsed<UidSet> {
        let set = self.set()?;
        if set.has_star() { Err("* is not allowed in known UIDs".to_owned()) } else { Ok(set) }
    }

    fn append(&mut self) -> Parsed<Request> {
        let mailbox = self.sp_mailbox()?;
        let mut messages = Vec::new();
        while messages.is_empty() || !self.ended() {
            if messages.len() == 1 {
                self.needs("MULTIAPPEND")?;
            }
            self.sp()?;
            let mut flags = Vec::new();
            if self.peek() == Some(b'(') {
                flags = self.list_of(Self::flag)?;
                self.sp()?;
            }
            let mut date = None;
            if self.peek() == Some(b'"') {
                let quoted = self.string()?;
                let seconds = std::str::from_utf8(&quoted).ok().and_then(date::read);
                date = Some(seconds.ok_or_else(|| "a date that is none".to_owned())?);
                self.sp()?;
            }
            messages.push(NewMessage { flags, date, bytes: self.literal()? });
        }
        Ok(Request::Append { mailbox, messages })
    }

    fn fetch(&mut self) -> Parsed<Request> {
        let set = self.set()?;
        self.sp()?;
        let items = if self.peek() == Some(b'(') { self.list_of(Self::item)? } else { vec![self.item()?] };
        if items.is_empty() {
            return self.fail("an item");
        }
        let (mut changed_since, mut vanished) = (None, false);
        if self.eat(b' ') {
            self.list_of(|p| match p.word()?.as_str() {
                "CHANGEDSINCE" => {
                    p.needs("CONDSTORE")?;
                    p.sp()?;
                    changed_since = Some(p.mod_seq(1)?);
                    Ok(())
                }
                "VANISHED" => p.needs("QRESYNC").map(|()| vanished = true),
                other => Err(format!("{other} is not a modifier of FETCH")),
            })?;
        }
        if vanished && changed_since.is_none() {
            return Err("VANISHED without CHANGEDSINCE".to_owned());
        }
        Ok(Request::Fetch { set, items, changed_since, vanished })
    }

    pub(crate) fn item(&mut self) -> Parsed<Item> {
        let name = self.take(|b| b.is_ascii_alphanumeric() || b == b'.').to_ascii_uppercase();
        Ok(match name.as_slice() {
            b"UID" => Item::Uid,
            b"FLAGS" => Item::Flags,
            b"INTERNALDATE" => Item::InternalDate,
            b"RFC822.SIZE" => Item::Size,
            b"MODSEQ" => self.needs("CONDSTORE").map(|()| Item::ModSeq)?,
            b"BODY" | b"BODY.PEEK" => {
                self.byte(b'[')?;
                let section = self.section()?;
                self.byte(b']')?;
                let partial = if self.eat(b'<') {
                    let offset = self.number()?;
                    self.byte(b'.')?;
                    let count = self.nz_number()?;
                    self.byte(b'>')?;
                    Some((offset, count))
                } else {
                    None
                };
                Item::Body { section, partial, peek: name.ends_with(b"PEEK") }
            }
            _ => return Err(format!("{} is not an item that can be fetched here", String::from_utf8_lossy(&name))),
        })
    }

    fn section(&mut self) -> Parsed<Section> {
        let name = self.take(|b| b.is_ascii_alphanumeric() || b == b'.').to_ascii_uppercase();
        match name.as_slice() {
            b"" => Ok(Section::Whole),
            b"HEADER" => Ok(Section::Header),
            b"HEADER.FIELDS" => {
                self.sp()?;
                Ok(Section::Fields(self.list_of(Self::astring)?))
            }
            _ => Err(format!("{} is not a section that can be fetched here", String::from_utf8_lossy(&name))),
        }
    }

    fn search(&mut self) -> Parsed<Request> {
        let mut returns = None;
        if self.eat_word("RETURN") {
            self.needs("ESEARCH")?;
            self.sp()?;
            returns = Some(self.list_of(|p| {
                let option = p.word()?;
                let known = ["ALL", "COUNT", "MIN", "MAX"].contains(&option.as_str());
                if known { Ok(option) } else { Err(format!("{option} is not a return option")) }
            })?);
            self.sp()?;
        }
        if self.eat_word("CHARSET") {
            let charset = self.sp_astring()?;
            if self.is_exchange() && !charset.eq_ignore_ascii_case("US-ASCII") {
                return Err(format!("{charset} is not a charset here"));
            }
            self.sp()?;
        }
        let mut keys = vec![self.key()?];
        while self.eat(b' ') {
            keys.push(self.key()?);
        }
        Ok(Request::Search { returns, keys })
    }

    fn key(&mut self) -> Parsed<Key> {
        if self.peek() == Some(b'(') {
            let keys = self.list_of(Self::key)?;
            return if keys.is_empty() { self.fail("a search key") } else { Ok(Key::And(keys)) };
        }
        let name = self.word()?;
        let flag = |name: &str| format!("\\{}{}", &name[..1], name[1..].to_ascii_lowercase());
        Ok(match name.as_str() {
            "ALL" => Key::And(Vec::new()),
            "SEEN" | "ANSWERED" | "FLAGGED" | "DELETED" | "DRAFT" => Key::Flag(flag(&name)),
            "UNSEEN" | "UNANSWERED" | "UNFLAGGED" | "UNDELETED" | "UNDRAFT" => {
                Key::Not(Box::new(Key::Flag(flag(&name[2..]))))
            }
            "KEYWORD" => Key::Flag(self.sp().and_then(|()| self.atom())?),
            "UNKEYWORD" => Key::Not(Box::new(Key::Flag(self.sp().and_then(|()| self.atom())?))),
            "UID" => Key::Uids(self.sp().and_then(|()| self.set())?),
            "HEADER" => Key::Header(self.sp_astring()?, self.sp_astring()?),
            "LARGER" => Key::Larger(self.sp().and_then(|()| self.number())?),
            "SMALLER" => Key::Smaller(self.sp().and_then(|()| self.number())?),
            "MODSEQ" => {
                self.needs("CONDSTORE")?;
                Key::ModSeq(self.sp().and_then(|()| self.mod_seq(0))?)
            }
            "NOT" => Key::Not(Box::new(self.sp().and_then(|()| self.key())?)),
            "OR" => {
                let left = self.sp().and_then(|()| self.key())?;
                Key::Or(Box::new(left), Box::new(self.sp().and_then(|()| self.key())?))
            }
            _ => return Err(format!("{name} is not a search key that this server knows")),
        })
    }

    fn store(&mut self) -> Parsed<Request> {
        let set = self.set()?;
        self.sp()?;
        let mut unchanged_since = None;
        if self.peek() == Some(b'(') {
            self.needs("CONDSTORE")?;
            self.list_of(|p| {
                p.expect_word("UNCHANGEDSINCE")?;
                p.sp()?;
                unchanged_since = Some(p.mod_seq(0)?);
                Ok(())
            })?;
            self.sp()?;
        }
        let how = match self.peek() {
            Some(b'+') => How::Add,
            Some(b'-') => How::Remove,
            _ => How::Replace,
        };
        let name = self.word()?;
        let silent = match name.trim_start_matches(['+', '-']) {
            "FLAGS" => false,
            "FLAGS.SILENT" => true,
            _ => return Err(format!("{name} cannot be stored")),
        };
        self.sp()?;
        let mut flags = Vec::new();
        if self.peek() == Some(b'(') {
            flags = self.list_of(Self::flag)?;
        } else {
            flags.push(self.flag()?);
            while self.eat(b' ') {
                flags.push(self.flag()?);
            }
        }
        Ok(Request::Store { set, unchanged_since, how, silent, flags })
    }

    fn flag(&mut self) -> Parsed<String> {
        if !self.eat(b'\\') {
            return self.atom();
        }
        let name = self.atom()?;
        let known = ["Answered", "Flagged", "Deleted", "Seen", "Draft"].into_iter();
        let flag = known.into_iter().find(|k| k.eq_ignore_ascii_case(&name));
        flag.map(|f| format!("\\{f}")).ok_or_else(|| format!("\\{name} is not a flag that a client can set"))
    }
}
