//! The links: one row a message, read and written one at a time or a few.

use std::collections::BTreeSet;

use rusqlite::types::{FromSqlError, FromSqlResult};
use rusqlite::{Row, params};

use super::scan::Stage;
use super::value::{self, Unsigned, unsigned};
use super::{Error, Tx};
use crate::model::{
    ContentKey, Digest, Fingerprint, Flags, Link, LinkId, LinkState, MailboxId, SkipReason, Uid, UidSet, UniqueName,
};

/// A link that the database does not know yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewLink {
    /// How far it is.
    pub state: LinkState,
    /// Its content, once known.
    pub content: Option<ContentKey>,
    /// INTERNALDATE (RFC 3501 §2.3.3) in seconds since 1970, once known.
    pub internal_date: Option<i64>,
    /// The inode of the local file; a hint, not an identity.
    pub inode: Option<u64>,
}

/// Every column but the mailbox, in the order of [`read`].
macro_rules! columns {
    () => {
        "id, state, uid, name, flags, keywords, uid_next, since, reason, reason_text, \
         digest, header, size, internal_date, inode"
    };
}
pub(super) use columns;

impl Tx<'_> {
    /// Adds a link to a mailbox.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if the mailbox has a link with this UID or name, or the state is an impossible one.
    pub fn insert_link(&self, mailbox: MailboxId, new: &NewLink) -> Result<LinkId, Error> {
        let sql = "INSERT INTO link (mailbox, state, uid, name, flags, keywords, uid_next, since, reason, reason_text, \
                   digest, header, size, internal_date, inode) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        self.write_link("add a link", sql, mailbox.0, new)?;
        Ok(LinkId(self.conn.last_insert_rowid()))
    }

    /// Writes everything about a link but its mailbox.
    ///
    /// # Errors
    /// As [`Tx::insert_link`]; also if it is not there.
    pub fn set_link(&self, link: &Link) -> Result<(), Error> {
        let sql = "UPDATE link SET state = ?2, uid = ?3, name = ?4, flags = ?5, keywords = ?6, uid_next = ?7, \
                   since = ?8, reason = ?9, reason_text = ?10, digest = ?11, header = ?12, size = ?13, \
                   internal_date = ?14, inode = ?15 WHERE id = ?1";
        let Link { id, state, content, internal_date, inode } = link.clone();
        self.write_link("write a link", sql, id.0, &NewLink { state, content, internal_date, inode })
    }

    /// Writes down that downloads are done, as they were begun. Links that were added together are changed together, and
    /// no index is written but that of the unfinished.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if one of them is not downloading.
    pub fn complete_links(&self, ids: &[LinkId]) -> Result<(), Error> {
        let sql = "UPDATE link SET state = 0 WHERE id BETWEEN ?1 AND ?2 AND state = 1";
        for run in ids.chunk_by(|a, b| b.0 == a.0 + 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let what = "write delivered messages";
            let changed = self.execute(what, sql, (first, last))?;
            if changed != run.len() {
                return Err(self.error(rusqlite::Error::StatementChangedRows(changed), what));
            }
        }
        Ok(())
    }

    /// Writes the flags of a link that both sides have.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if it is not there, or not synced.
    pub fn set_flags(&self, id: LinkId, flags: &Flags) -> Result<(), Error> {
        let sql = "UPDATE link SET flags = ?2, keywords = ?3 WHERE id = ?1 AND state = 0";
        self.execute_one("write the flags of a message", sql, (id, flags.bits(), value::keywords(flags)))
    }

    /// Writes which inode the file of a link has; it is a hint, so for a link that is gone this is no error.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn set_inode(&self, id: LinkId, inode: u64) -> Result<(), Error> {
        let sql = "UPDATE link SET inode = ?2 WHERE id = ?1";
        self.execute("write the inode of a file", sql, (id, inode.cast_signed())).map(|_| ())
    }

    /// Deletes a link, and what is held of it; one that is gone already is no error.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn delete_link(&self, id: LinkId) -> Result<(), Error> {
        self.execute("delete a link", "DELETE FROM link WHERE id = ?1", [id]).map(|_| ())
    }

    /// Returns a link, or `None` if there is none with this number.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn link(&self, id: LinkId) -> Result<Option<Link>, Error> {
        self.first("read a link", concat!("SELECT ", columns!(), " FROM link WHERE id = ?1"), [id], read)
    }

    /// Returns the links with these numbers, in their order; those that are gone are left out.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn links_by_ids(&self, ids: &[LinkId]) -> Result<Vec<Link>, Error> {
        ids.iter().filter_map(|id| self.link(*id).transpose()).collect()
    }

    /// Returns the links of a mailbox whose UID is in `uids`, in the order of their UIDs.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn links_of_uids(&self, mailbox: MailboxId, uids: &UidSet) -> Result<Vec<Link>, Error> {
        let sql =
            concat!("SELECT ", columns!(), " FROM link WHERE mailbox = ?1 AND uid BETWEEN ?2 AND ?3 ORDER BY uid");
        let mut found = Vec::new();
        for (first, last) in uids.ranges() {
            found.append(&mut self.all("read links", sql, (mailbox, first, last), read)?);
        }
        Ok(found)
    }

    /// Returns the links of a mailbox whose name is one of `names`, in the order of their names.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn links_of_names(&self, mailbox: MailboxId, names: &[UniqueName]) -> Result<Vec<Link>, Error> {
        let sql = concat!("SELECT ", columns!(), " FROM link WHERE mailbox = ?1 AND name = ?2");
        let names: BTreeSet<&UniqueName> = names.iter().collect();
        names.into_iter().filter_map(|name| self.first("read links", sql, (mailbox, name), read).transpose()).collect()
    }

    /// Returns the links of a mailbox that are downloading or uploading, in the order in which they were added.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn pending(&self, mailbox: MailboxId) -> Result<Vec<Link>, Error> {
        // "state <> 0" repeats what follows: only so is the partial index used.
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM link WHERE mailbox = ?1 AND state <> 0 AND state IN (1, 2) ORDER BY id"
        );
        self.all("read pending links", sql, [mailbox], read)
    }

    /// Returns the links of a mailbox that are skipped, in the order in which they were added.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn skipped(&self, mailbox: MailboxId) -> Result<Vec<Link>, Error> {
        let sql =
            concat!("SELECT ", columns!(), " FROM link WHERE mailbox = ?1 AND state <> 0 AND state = 3 ORDER BY id");
        self.all("read skipped links", sql, [mailbox], read)
    }

    /// Runs `sql` with what identifies the link or its mailbox as ?1, and then the columns of `link`.
    fn write_link(&self, what: &str, sql: &str, id: i64, link: &NewLink) -> Result<(), Error> {
        let state = State::from(&link.state);
        let content = Content::of(link.content.as_ref()).map_err(|error| self.error(error, what))?;
        self.execute_one(
            what,
            sql,
            params![
                id,
                state.stage as u8,
                state.uid,
                state.name,
                state.bits(),
                state.keywords(),
                state.uid_next,
                state.since,
                state.reason.as_ref().map(|(kind, _)| kind),
                state.reason.as_ref().map(|(_, text)| text),
                content.digest,
                content.header,
                content.size,
                link.internal_date,
                link.inode.map(u64::cast_signed),
            ],
        )
    }
}

/// A [`LinkState`] as columns.
#[derive(Default)]
struct State<'a> {
    stage: Stage,
    uid: Option<Uid>,
    name: Option<&'a UniqueName>,
    flags: Option<&'a Flags>,
    uid_next: Option<Uid>,
    since: Option<i64>,
    reason: Option<(u8, String)>,
}

impl State<'_> {
    fn bits(&self) -> u8 {
        self.flags.map_or(0, Flags::bits)
    }

    fn keywords(&self) -> String {
        self.flags.map_or_else(String::new, value::keywords)
    }
}

impl<'a> From<&'a LinkState> for State<'a> {
    fn from(state: &'a LinkState) -> Self {
        match state {
            LinkState::Synced { uid, name, flags } => {
                Self { stage: Stage::Synced, uid: Some(*uid), name: Some(name), flags: Some(flags), ..Self::default() }
            }
            LinkState::Downloading { uid, name, flags } => Self {
                stage: Stage::Downloading,
                uid: Some(*uid),
                name: Some(name),
                flags: Some(flags),
                ..Self::default()
            },
            LinkState::Uploading { name, flags, uid_next, since } => Self {
                stage: Stage::Uploading,
                name: Some(name),
                flags: Some(flags),
                uid_next: Some(*uid_next),
                since: Some(*since),
                ..Self::default()
            },
            LinkState::Skipped { uid, name, reason } => Self {
                stage: Stage::Skipped,
                uid: *uid,
                name: name.as_ref(),
                reason: Some(reason_columns(reason)),
                ..Self::default()
            },
        }
    }
}

/// A [`ContentKey`] as columns.
#[derive(Default)]
struct Content {
    digest: Option<Digest>,
    header: Option<Digest>,
    size: Option<i64>,
}

impl Content {
    fn of(key: Option<&ContentKey>) -> rusqlite::Result<Self> {
        let Some(ContentKey { digest, fingerprint }) = key else { return Ok(Self::default()) };
        let size = Some(unsigned(fingerprint.size)?);
        Ok(Self { digest: Some(*digest), header: Some(fingerprint.header), size })
    }
}

fn reason_columns(reason: &SkipReason) -> (u8, String) {
    match reason {
        SkipReason::TooLarge(bytes) => (0, bytes.to_string()),
        SkipReason::Refused(text) => (1, text.clone()),
        SkipReason::Unusable(text) => (2, text.clone()),
        SkipReason::Kept => (3, String::new()),
    }
}

fn reason(kind: i64, text: &str) -> FromSqlResult<SkipReason> {
    match kind {
        0 => text.parse().map(SkipReason::TooLarge).map_err(FromSqlError::other),
        1 => Ok(SkipReason::Refused(text.to_owned())),
        2 => Ok(SkipReason::Unusable(text.to_owned())),
        3 => Ok(SkipReason::Kept),
        _ => Err(FromSqlError::OutOfRange(kind)),
    }
}

/// Reads the columns of [`columns`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Link> {
    let flags = || Ok::<_, rusqlite::Error>(value::flags(row.get(4)?, row.get_ref(5)?.as_str()?)?);
    let state = match row.get(1)? {
        Stage::Synced => LinkState::Synced { uid: row.get(2)?, name: row.get(3)?, flags: flags()? },
        Stage::Downloading => LinkState::Downloading { uid: row.get(2)?, name: row.get(3)?, flags: flags()? },
        Stage::Uploading => {
            LinkState::Uploading { name: row.get(3)?, flags: flags()?, uid_next: row.get(6)?, since: row.get(7)? }
        }
        Stage::Skipped => LinkState::Skipped {
            uid: row.get(2)?,
            name: row.get(3)?,
            reason: reason(row.get(8)?, row.get_ref(9)?.as_str()?)?,
        },
    };
    let content = row.get::<_, Option<Digest>>(10)?.map(|digest| {
        let fingerprint = Fingerprint { header: row.get(11)?, size: row.get::<_, Unsigned>(12)?.0 };
        Ok::<_, rusqlite::Error>(ContentKey { digest, fingerprint })
    });
    Ok(Link {
        id: row.get(0)?,
        state,
        content: content.transpose()?,
        internal_date: row.get(13)?,
        inode: row.get::<_, Option<i64>>(14)?.map(i64::cast_unsigned),
    })
}
