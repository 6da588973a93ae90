//! Mailboxes that are being given new names, of which one may be the old name of another.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::value::Below;
use super::{Error, Tx};
use crate::model::{MailboxId, MailboxName, Side};

/// A mailbox that has a new name on one side, and is being given it on the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renaming {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Where it is being renamed; the same in all that there are.
    pub side: Side,
    /// Its new name, …
    pub name: MailboxName,
    /// … that for the server, …
    pub raw: Vec<u8>,
    /// … and where its maildir will be, relative to the root.
    pub path: PathBuf,
    /// None of them has its old name any more; the same in all that there are.
    pub away: bool,
}

impl Tx<'_> {
    /// Returns the mailboxes that are being given new names.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn renamings(&self) -> Result<Vec<Renaming>, Error> {
        let sql = "SELECT mailbox, side, name, raw, path, away FROM renaming ORDER BY name";
        self.all("read which mailboxes get new names", sql, [], |row| {
            Ok(Renaming {
                mailbox: row.get(0)?,
                side: row.get(1)?,
                name: row.get(2)?,
                raw: row.get(3)?,
                path: row.get::<_, Below>(4)?.0,
                away: row.get(5)?,
            })
        })
    }

    /// Writes down that a mailbox is to get a new name.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if it is there already, or another one is to get the same name.
    pub fn begin_renaming(&self, renaming: &Renaming) -> Result<(), Error> {
        let sql = "INSERT INTO renaming (mailbox, side, name, raw, path, away) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Renaming { mailbox, side, name, raw, path, away } = renaming;
        let path = path.as_os_str().as_bytes();
        self.execute_one(&format!("write the new name {name}"), sql, (mailbox, side, name, raw, path, away))
    }

    /// Writes down that none of them has its old name any more.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn all_away(&self) -> Result<(), Error> {
        self.execute("write that the old names are free", "UPDATE renaming SET away = 1", []).map(|_| ())
    }

    /// Gives all of them their new names.
    ///
    /// # Errors
    /// Those of [`Tx`]; also if a mailbox that is none of them has such a name or path.
    pub fn end_renamings(&self) -> Result<(), Error> {
        let what = "write the new names of mailboxes";
        // No name that a mailbox can have: what one gives up, another may get.
        let away = "UPDATE mailbox SET name = char(1) || id, path = NULL WHERE id IN (SELECT mailbox FROM renaming)";
        self.execute(what, away, [])?;
        let named = "UPDATE mailbox SET name = renaming.name, raw = renaming.raw, path = renaming.path, \
                     missing_since = NULL FROM renaming WHERE renaming.mailbox = mailbox.id";
        self.execute(what, named, [])?;
        self.forget_renamings()
    }

    /// Leaves all of them their old names.
    ///
    /// # Errors
    /// Those of [`Tx`].
    pub fn forget_renamings(&self) -> Result<(), Error> {
        self.execute("forget new names of mailboxes", "DELETE FROM renaming", []).map(|_| ())
    }
}
