//! Walks over all links of a mailbox, in an order that can be merged with what a side has, and without keeping them.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use super::link::{columns, read};
use super::value::Unsigned;
use super::{Error, Tx};
use crate::model::{Link, LinkId, MailboxId, Uid, UidSet};

/// How far a link is, without what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Stage {
    /// As [`LinkState::Synced`](crate::model::LinkState::Synced).
    #[default]
    Synced = 0,
    /// As [`LinkState::Downloading`](crate::model::LinkState::Downloading).
    Downloading = 1,
    /// As [`LinkState::Uploading`](crate::model::LinkState::Uploading).
    Uploading = 2,
    /// As [`LinkState::Skipped`](crate::model::LinkState::Skipped).
    Skipped = 3,
}

impl FromSql for Stage {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::Synced),
            1 => Ok(Self::Downloading),
            2 => Ok(Self::Uploading),
            3 => Ok(Self::Skipped),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// What a merge with the files of a maildir needs of a link; borrowed, valid during the call only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkRow<'r> {
    /// The database's number of it.
    pub id: LinkId,
    /// The unique name of its file.
    pub name: &'r [u8],
    /// Its flags, as [`Flags::bits`](crate::model::Flags::bits).
    pub flags: u8,
    /// Its keywords, a space between two.
    pub keywords: &'r str,
    /// The inode of the local file when it was last seen to hold this content.
    pub inode: Option<u64>,
    /// How far it is.
    pub state: Stage,
}

/// How many links of each kind a mailbox has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Both sides have the message.
    pub synced: u64,
    /// A download was begun.
    pub downloading: u64,
    /// An upload was begun.
    pub uploading: u64,
    /// The message cannot be transferred.
    pub skipped: u64,
}

impl Tx<'_> {
    /// Gives `f` every link of a mailbox that has a UID, in the order of the UIDs.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn links_by_uid(&self, mailbox: MailboxId, f: &mut dyn FnMut(Link)) -> Result<(), Error> {
        let sql = concat!("SELECT ", columns!(), " FROM link WHERE mailbox = ?1 AND uid IS NOT NULL ORDER BY uid");
        self.each("read links by UID", sql, [mailbox], |row| {
            f(read(row)?);
            Ok(())
        })
    }

    /// Gives `f` the UID, the flags (as bits, and as words with a space between two), the number and the stage of every
    /// link of a mailbox that has a UID, in the order of the UIDs.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn each_uid(&self, mailbox: MailboxId, f: &mut dyn FnMut(Uid, u8, &str, LinkId, Stage)) -> Result<(), Error> {
        let sql =
            "SELECT uid, flags, keywords, id, state FROM link WHERE mailbox = ?1 AND uid IS NOT NULL ORDER BY uid";
        self.each("read links by UID", sql, [mailbox], |row| {
            f(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_str()?, row.get(3)?, row.get(4)?);
            Ok(())
        })
    }

    /// As [`Tx::each_uid`], for those links only whose UID is in `uids`.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn each_of_uids(
        &self,
        mailbox: MailboxId,
        uids: &UidSet,
        f: &mut dyn FnMut(Uid, u8, &str, LinkId, Stage),
    ) -> Result<(), Error> {
        let sql = "SELECT uid, flags, keywords, id, state FROM link WHERE mailbox = ?1 AND uid BETWEEN ?2 AND ?3";
        for (first, last) in uids.ranges() {
            self.each("read links by UID", sql, (mailbox, first, last), |row| {
                f(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_str()?, row.get(3)?, row.get(4)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives `f` every link of a mailbox that has a name, in the order of the bytes of the names.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn links_by_name(&self, mailbox: MailboxId, f: &mut dyn FnMut(LinkRow<'_>)) -> Result<(), Error> {
        let sql = "SELECT id, name, flags, keywords, inode, state FROM link \
                   WHERE mailbox = ?1 AND name IS NOT NULL ORDER BY name";
        self.each("read links by name", sql, [mailbox], |row| {
            f(LinkRow {
                id: row.get(0)?,
                name: row.get_ref(1)?.as_blob()?,
                flags: row.get(2)?,
                keywords: row.get_ref(3)?.as_str()?,
                inode: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                state: row.get(5)?,
            });
            Ok(())
        })
    }

    /// Returns how many links of a mailbox have a UID.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn count_uids(&self, mailbox: MailboxId) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM link WHERE mailbox = ?1 AND uid IS NOT NULL";
        self.one("count links", sql, [mailbox], |row| row.get(0)).map(|Unsigned(n)| n)
    }

    /// Returns how many links of each kind a mailbox has.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn count(&self, mailbox: MailboxId) -> Result<Counts, Error> {
        let what = "count links";
        // All of them from one index and the few that are not synced from another: the rows themselves are not read.
        let sql = "SELECT count(*) FROM link WHERE mailbox = ?1";
        let Unsigned(all) = self.one(what, sql, [mailbox], |row| row.get(0))?;
        let mut counts = Counts { synced: all, ..Counts::default() };
        let sql = "SELECT state, count(*) FROM link WHERE mailbox = ?1 AND state <> 0 GROUP BY state";
        self.each(what, sql, [mailbox], |row| {
            let Unsigned(number) = row.get(1)?;
            match row.get(0)? {
                Stage::Synced => return Ok(()),
                Stage::Downloading => counts.downloading = number,
                Stage::Uploading => counts.uploading = number,
                Stage::Skipped => counts.skipped = number,
            }
            counts.synced = counts.synced.saturating_sub(number);
            Ok(())
        })?;
        Ok(counts)
    }
}
