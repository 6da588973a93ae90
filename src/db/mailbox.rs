//! The mailboxes: what they are called, where they are, and how far each side was observed.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Row, params};

use super::value::Below;
use super::{Error, Tx};
use crate::model::{Cursor, MailboxId, MailboxName, UidValidity};

/// A mailbox that exists, or existed, on at least one side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mailbox {
    /// The database's number of it.
    pub id: MailboxId,
    /// Its name.
    pub name: MailboxName,
    /// The server's name of it, as the server wrote it; none until the server has it.
    pub raw: Option<Vec<u8>>,
    /// Its maildir, relative to the root; empty for the root itself, none until there is one.
    pub path: Option<PathBuf>,
    /// How far the server was observed; none if all of it has to be listed.
    pub cursor: Option<Cursor>,
    /// The modification time and the inode of `new`, then of `cur`, at the last complete scan.
    pub stamp: Option<[i64; 4]>,
    /// The inode number of its `cur/` when it was last looked at: a maildir that was renamed still has it.
    pub directory: Option<u64>,
    /// When the server's messages were last listed in full, in seconds since 1970.
    pub listed_at: Option<i64>,
    /// When the flags of all messages were last looked at, in whatever way, in seconds since 1970.
    pub swept_at: Option<i64>,
    /// SEARCH was found to say the same as a listing, so a sweep can be trusted.
    pub sweeps: bool,
    /// Since when LIST has not named it, in seconds since 1970.
    pub missing_since: Option<i64>,
    /// When a pass over it was last complete on both sides, in seconds since 1970.
    pub last_complete: Option<i64>,
    /// What is wrong with it, for the user.
    pub problem: Option<String>,
    /// True if the next observation must be a full one.
    pub must_list: bool,
    /// True if the next scan must not trust the stamp.
    pub must_scan: bool,
}

/// A mailbox that the database does not know yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMailbox {
    /// Its name.
    pub name: MailboxName,
    /// The server's name of it, if the server has it.
    pub raw: Option<Vec<u8>>,
    /// Its maildir, relative to the root, if there is one.
    pub path: Option<PathBuf>,
}

/// Every column, in the order of [`read`].
macro_rules! columns {
    () => {
        "id, name, raw, path, uid_validity, uid_next, highest_mod_seq, messages, unseen, \
         new_mtime, new_inode, cur_mtime, cur_inode, listed_at, missing_since, last_complete, problem, \
         must_list, must_scan, swept_at, sweeps, directory"
    };
}

impl Tx<'_> {
    /// Returns all mailboxes, in the order of their names.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn mailboxes(&self) -> Result<Vec<Mailbox>, Error> {
        self.all("read the mailboxes", concat!("SELECT ", columns!(), " FROM mailbox ORDER BY name"), [], read)
    }

    /// Returns the mailbox of this name, if there is one.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn mailbox_named(&self, name: &MailboxName) -> Result<Option<Mailbox>, Error> {
        self.first("read a mailbox", concat!("SELECT ", columns!(), " FROM mailbox WHERE name = ?1"), [name], read)
    }

    /// Returns a mailbox, or `None` if there is none with this number.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, Error> {
        self.first("read a mailbox", concat!("SELECT ", columns!(), " FROM mailbox WHERE id = ?1"), [id], read)
    }

    /// Adds a mailbox that was never observed nor scanned, and must be in full.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if the name or the path is taken, or the path leaves the root.
    pub fn insert_mailbox(&self, new: &NewMailbox) -> Result<MailboxId, Error> {
        let sql = "INSERT INTO mailbox (name, raw, path, must_list, must_scan) VALUES (?1, ?2, ?3, 1, 1)";
        let what = format!("add the mailbox {}", new.name);
        self.execute_one(&what, sql, (&new.name, &new.raw, blob(new.path.as_deref())))?;
        Ok(MailboxId(self.conn.last_insert_rowid()))
    }

    /// Writes everything about a mailbox.
    ///
    /// # Errors
    /// As [`Tx::insert_mailbox`]; also if it is not there.
    pub fn update_mailbox(&self, mailbox: &Mailbox) -> Result<(), Error> {
        let sql = "UPDATE mailbox SET name = ?2, raw = ?3, path = ?4, uid_validity = ?5, uid_next = ?6, \
                   highest_mod_seq = ?7, messages = ?8, unseen = ?9, new_mtime = ?10, new_inode = ?11, \
                   cur_mtime = ?12, cur_inode = ?13, listed_at = ?14, missing_since = ?15, last_complete = ?16, \
                   problem = ?17, must_list = ?18, must_scan = ?19, \
                   swept_at = ?20, sweeps = ?21, directory = ?22 WHERE id = ?1";
        let cursor = mailbox.cursor.as_ref();
        let stamp = mailbox.stamp.map_or([None; 4], |stamp| stamp.map(Some));
        self.execute_one(
            &format!("write the state of mailbox {}", mailbox.name),
            sql,
            params![
                mailbox.id,
                mailbox.name,
                mailbox.raw,
                blob(mailbox.path.as_deref()),
                cursor.map(|c| c.uid_validity),
                cursor.map(|c| c.uid_next),
                cursor.and_then(|c| c.highest_mod_seq),
                cursor.map(|c| c.messages),
                cursor.and_then(|c| c.unseen),
                stamp[0],
                stamp[1],
                stamp[2],
                stamp[3],
                mailbox.listed_at,
                mailbox.missing_since,
                mailbox.last_complete,
                mailbox.problem,
                mailbox.must_list,
                mailbox.must_scan,
                mailbox.swept_at,
                mailbox.sweeps,
                mailbox.directory.map(u64::cast_signed),
            ],
        )
    }

    /// Deletes a mailbox that has no links any more; its hold goes with it, its journal stays.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if it has links, since each of them must be forgotten for a reason of its own.
    pub fn delete_mailbox(&self, id: MailboxId) -> Result<(), Error> {
        self.execute("delete a mailbox", "DELETE FROM mailbox WHERE id = ?1", [id]).map(|_| ())
    }
}

fn blob(path: Option<&Path>) -> Option<&[u8]> {
    path.map(|path| path.as_os_str().as_bytes())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Mailbox> {
    Ok(Mailbox {
        id: row.get(0)?,
        name: row.get(1)?,
        raw: row.get(2)?,
        path: row.get::<_, Option<Below>>(3)?.map(|Below(path)| path),
        cursor: row.get::<_, Option<UidValidity>>(4)?.map(|epoch| cursor(row, epoch)).transpose()?,
        stamp: row.get::<_, Option<i64>>(9)?.map(|first| stamp(row, first)).transpose()?,
        listed_at: row.get(13)?,
        missing_since: row.get(14)?,
        last_complete: row.get(15)?,
        problem: row.get(16)?,
        must_list: row.get(17)?,
        must_scan: row.get(18)?,
        swept_at: row.get(19)?,
        sweeps: row.get(20)?,
        directory: row.get::<_, Option<i64>>(21)?.map(i64::cast_unsigned),
    })
}

fn cursor(row: &Row<'_>, uid_validity: UidValidity) -> rusqlite::Result<Cursor> {
    Ok(Cursor {
        uid_validity,
        uid_next: row.get(5)?,
        highest_mod_seq: row.get(6)?,
        messages: row.get(7)?,
        unseen: row.get(8)?,
    })
}

fn stamp(row: &Row<'_>, new_mtime: i64) -> rusqlite::Result<[i64; 4]> {
    Ok([new_mtime, row.get(10)?, row.get(11)?, row.get(12)?])
}
